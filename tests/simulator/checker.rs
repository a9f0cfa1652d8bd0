//! What must hold in every world: safety at once, liveness at its deadline, thrift at the end.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use imgcast_common::{
    id::{SessionId, Stream},
    wire::{DataHead, Header, Message, Need, UNICAST},
};
use imgcast_sender::session::{Burst, Destination};

use crate::{
    receiver_node::is_source,
    report::{Asked, Sent, Violation},
};

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violations: Vec<Violation>,
    sessions: BTreeMap<SessionId, Seen>,
    /// Checksums of the symbols sent, by session, stream, block and ESI.
    symbols: HashMap<(u64, bool, u32, u32), u32>,
    pub(crate) counts: Counts,
    /// NEEDs of the image that receivers sent.
    pub(crate) asked: Vec<Asked>,
    /// GRTTs that senders announced, and since when.
    pub(crate) grtts: Vec<(Duration, Duration)>,
    /// Every burst of symbols.
    pub(crate) sent: Vec<Sent>,
    /// When a source symbol of the image went to the group last …
    pub(crate) last_source_at: Duration,
    /// … and what the world had cost by then.
    pub(crate) at_last_source: Counts,
}

/// What a world cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) group_symbols: u64,
    /// Those of them that are of the index.
    pub(crate) index_symbols: u64,
    pub(crate) unicast_symbols: u64,
    pub(crate) needs: u64,
    pub(crate) reports: u64,
    pub(crate) syncs: u64,
    pub(crate) from_receivers: u64,
}

impl Counts {
    /// Of all symbols those that went by unicast, in parts of a million.
    pub(crate) fn unicast_ppm(&self) -> u64 {
        self.unicast_symbols * 1_000_000 / (self.unicast_symbols + self.group_symbols).max(1)
    }
}

/// The newest of one session.
#[derive(Debug, Default)]
struct Seen {
    counter: u64,
    sync_at: Option<Duration>,
    symbols_at: Option<Duration>,
    has_ended: bool,
}

/// How many NEEDs a receiver may still send: a token bucket, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeedBudget {
    thousandths: u64,
    at: Duration,
}

impl Default for NeedBudget {
    fn default() -> Self {
        Self { thousandths: NEEDS_BURST * 1_000, at: Duration::ZERO }
    }
}

impl Checker {
    pub(crate) fn safety(&mut self, at: Duration, text: String) {
        self.add(Violation::Safety { at, text });
    }

    pub(crate) fn liveness(&mut self, at: Duration, text: String) {
        self.add(Violation::Liveness { at, text });
    }

    pub(crate) fn thrift(&mut self, at: Duration, text: String) {
        self.add(Violation::Thrift { at, text });
    }

    fn add(&mut self, violation: Violation) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }

    /// The group's counter has no gaps and is never used twice: so many datagrams have the
    /// counters from `first` on.
    pub(crate) fn on_group_counter(
        &mut self,
        at: Duration,
        session: SessionId,
        first: u64,
        count: u32,
    ) {
        let seen = self.sessions.entry(session).or_default();
        let last = first + u64::from(count) - 1;
        let before = std::mem::replace(&mut seen.counter, last);
        if first != before + 1 || last & UNICAST != 0 {
            self.safety(at, format!("counter {first} of the group follows {before}"));
        }
    }

    pub(crate) fn on_group_message(
        &mut self,
        at: Duration,
        session: SessionId,
        message: &Message<'_>,
    ) {
        let seen = self.sessions.entry(session).or_default();
        if let Message::Sync(sync) = message {
            seen.sync_at = Some(at);
            self.counts.syncs += 1;
            if self.grtts.last().is_none_or(|(_, grtt)| *grtt != sync.grtt()) {
                self.grtts.push((at, sync.grtt()));
            }
        }
        // Of its repetitions the first symbols may be long ago.
        let is_end = matches!(message, Message::End(_));
        let ends = is_end && !seen.has_ended;
        seen.has_ended |= is_end;
        let unsaid = seen.symbols_at.is_some_and(|since| at > since + FIRST_SYNC_MAX);
        if ends && unsaid && seen.symbols_at > seen.sync_at {
            self.safety(at, "a session ends without a SYNC after its first symbols".into());
        }
    }

    /// Nobody sends symbols without saying what is planned.
    pub(crate) fn on_burst(&mut self, at: Duration, session: SessionId, burst: &Burst) {
        let symbols = u64::from(burst.count);
        let by_unicast = burst.to != Destination::Group;
        self.sent.push(Sent { at, symbols, by_unicast });
        if by_unicast {
            self.counts.unicast_symbols += symbols;
            return;
        }
        self.counts.group_symbols += symbols;
        if burst.block.stream == Stream::Index {
            self.counts.index_symbols += symbols;
        } else if burst.is_of_sources() {
            self.last_source_at = at;
            self.at_last_source = self.counts;
        }
        let seen = self.sessions.entry(session).or_default();
        let began_at = *seen.symbols_at.get_or_insert(at);
        let sync_at = seen.sync_at.unwrap_or(began_at);
        if at > sync_at + SYNC_GAP_MAX {
            self.safety(at, format!("symbols to the group, last SYNC {sync_at:?}"));
        }
    }

    /// An ESI stands for the same octets always, and no repair symbol is sent twice.
    pub(crate) fn on_symbol(
        &mut self,
        at: Duration,
        header: &Header,
        head: &DataHead,
        symbol_size: u16,
        symbol: &[u8],
    ) {
        let index = header.stream == Stream::Index;
        let key = (header.session.0, index, head.block, head.esi.get());
        let checksum = crc32fast::hash(symbol);
        let Some(before) = self.symbols.insert(key, checksum) else { return };
        if before != checksum {
            self.safety(at, format!("other octets under a known ESI: {header:?} {head:?}"));
        } else if !is_source(head, symbol_size) {
            self.thrift(at, format!("a repair symbol is sent twice: {header:?} {head:?}"));
        }
    }

    /// A receiver keeps to the limit that WELCOME set.
    pub(crate) fn on_need(
        &mut self,
        at: Duration,
        receiver: usize,
        budget: &mut NeedBudget,
        stream: Stream,
        need: &Need,
    ) {
        let counts = &mut self.counts;
        if need.needs.is_empty() {
            counts.reports += 1;
        } else if stream == Stream::Image {
            counts.needs += 1;
            self.asked.push(Asked { at, receiver, ranges: need.needs.clone() });
        }
        let elapsed = u64::try_from((at - budget.at).as_micros()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(NEEDS_PER_SECOND) / 1_000;
        // What rounding lost is given back: the limit is no stricter than the receiver's own.
        let most = (NEEDS_BURST + 1) * 1_000;
        budget.thousandths = budget.thousandths.saturating_add(earned + 1).min(most);
        budget.at = at;
        match budget.thousandths.checked_sub(1_000) {
            Some(left) => budget.thousandths = left,
            None => self.thrift(at, format!("receiver {receiver} sends too many NEEDs")),
        }
    }
}

/// What WELCOME allows.
const NEEDS_PER_SECOND: u64 = 20;
/// What WELCOME allows at once.
const NEEDS_BURST: u64 = 10;
/// SYNC comes every half second at least; a burst may leave a little later than it was planned.
const SYNC_GAP_MAX: Duration = Duration::from_millis(600);
/// A session that is over sooner need not have said anything.
const FIRST_SYNC_MAX: Duration = Duration::from_millis(100);
/// The first ones tell what went wrong.
const VIOLATIONS_MAX: usize = 20;
