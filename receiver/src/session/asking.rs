//! What to ask for, and when, so that of thousands of receivers that lost the same datagram only a
//! few ask.
//!
//! Whoever lacks something waits a random *backoff* (RFC 5401 section 3.2.2) and then asks only
//! for what the sender does not plan by then; a *holdoff* gives the sender time to answer.
//!
//! ```text
//!          a turn is over,            deadline: NEED, or nothing
//!          symbols lacking           left that is not planned
//!   Idle ─────────────────► Backoff ───────────────────────────► Holdoff
//!    ▲                                                              │ deadline
//!    └──────────────────────────────────────────────────────────────┘
//! ```

use std::time::{Duration, Instant};

use imgcast_common::{
    bucket::Bucket,
    id::Stream,
    prng::Prng,
    timing::{GRTT_MIN, GRTT_START, draw_backoff},
    wire::{
        BlockRange, DATA_HEAD_LEN, Header, Message, Need, NeedFlags, Sync, TRAILER_LEN, WHOLE,
        ranges_max,
    },
};

use super::{Phase, Session, Via, is_group_counter};

/// The timer of needs and reports.
#[derive(Debug)]
pub(super) struct Asking {
    cycle: Cycle,
    /// Something happened that may have left needs behind.
    attention: bool,
    grtt: Duration,
    group_log2: u8,
    window: Duration,
    rate_bits: u64,
    /// The newest SYNC's send time, and when it came.
    echo: Option<(u64, Instant)>,
    newest_sync: [[u64; 2]; 2],
    poll: u16,
    /// When to report without needs, and which poll that answers.
    report: Option<(Instant, u16)>,
    sent_at: Instant,
    /// With what was sent then.
    said_behind: bool,
    /// That memory runs short, and half of it has not been free since.
    said_short: bool,
    bucket: Bucket,
    network_loss: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cycle {
    Idle {
        since: Instant,
    },
    /// With what was lacking when the group's sequence stood at `position`.
    Backoff {
        until: Instant,
        position: u64,
    },
    Holdoff {
        until: Instant,
    },
}

impl Asking {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            cycle: Cycle::Idle { since: now },
            attention: false,
            grtt: GRTT_START,
            group_log2: 0,
            window: Duration::ZERO,
            rate_bits: 0,
            echo: None,
            newest_sync: [[0; 2]; 2],
            poll: 0,
            report: None,
            sent_at: now,
            said_behind: false,
            said_short: false,
            bucket: Bucket::new(now, 0.0),
            network_loss: 0.0,
        }
    }

    /// A member of a new session says so soon: the sender then knows that the way back works.
    pub(super) fn begin_session(&mut self, now: Instant, prng: &mut Prng, needs_burst: f64) {
        let network_loss = self.network_loss;
        *self = Self { bucket: Bucket::new(now, needs_burst), network_loss, ..Self::new(now) };
        self.report = Some((now + CONFIRM_WITHIN.mul_f64(prng.unit()), 0));
    }

    /// Looks for needs at the next opportunity.
    pub(super) const fn attend(&mut self) {
        self.attention = true;
    }

    /// Sends a report after a backoff, needs or not.
    pub(super) fn report_soon(&mut self, now: Instant, prng: &mut Prng) {
        let at = now + draw_backoff(prng, self.window, self.group_log2);
        let pending = self.report.filter(|(report, _)| *report <= at);
        let poll = self.report.map_or(0, |(_, poll)| poll);
        self.report = pending.or(Some((at, poll)));
        self.attention = true;
    }

    pub(super) const fn grtt(&self) -> Duration {
        self.grtt
    }

    pub(super) const fn window(&self) -> Duration {
        self.window
    }

    pub(super) const fn group_log2(&self) -> u8 {
        self.group_log2
    }

    pub(super) const fn network_loss(&self) -> f64 {
        self.network_loss
    }

    /// What is lost, in 65,536ths, where no report tells it.
    pub(super) fn note_loss(&mut self, network_loss: u16) {
        self.network_loss = f64::from(network_loss) / 65_536.0;
    }

    const fn cycle_timeout(&self) -> Option<Instant> {
        match self.cycle {
            Cycle::Idle { since } if self.attention => Some(since),
            Cycle::Idle { .. } => None,
            Cycle::Backoff { until, .. } | Cycle::Holdoff { until } => Some(until),
        }
    }

    /// Whether a SYNC is the newest of its stream and origin.
    fn is_newest(&mut self, via: Via, header: &Header) -> bool {
        let origin = usize::from(via == Via::Unicast);
        let newest = &mut self.newest_sync[header.stream as usize][origin];
        let newer = header.counter > *newest;
        *newest = header.counter.max(*newest);
        newer
    }
}

impl Session {
    pub(super) fn on_sync(&mut self, now: Instant, via: Via, header: &Header, sync: &Sync) {
        let from_group = via == Via::Group && is_group_counter(header.counter);
        if !self.asking.is_newest(via, header) {
            return;
        }
        self.contact.on_state(sync.state);
        let asking = &mut self.asking;
        asking.echo = Some((sync.time_micros, now));
        asking.grtt = sync.grtt().max(GRTT_MIN);
        asking.group_log2 = sync.group_log2;
        asking.window = sync.feedback_window();
        let rate_bits = u64::from(sync.rate_kilobits) * 1000;
        if asking.rate_bits != rate_bits {
            asking.rate_bits = rate_bits;
            self.loss.restart();
        }
        if let Some(member) = self.member
            && sync.poll.id != asking.poll
            && sync.poll.asks(member.receiver)
        {
            asking.poll = sync.poll.id;
            let spread = if from_group { asking.window } else { Duration::ZERO };
            asking.report = Some((now + spread.mul_f64(self.prng.unit()), sync.poll.id));
        }
        if from_group {
            self.lag.note(now, sync.time_micros);
            let inside = self.ledger(header.stream);
            if inside.is_some_and(|ledger| sync.covers_end <= ledger.layout().blocks()) {
                self.plans[header.stream as usize].update(now, sync, header.counter);
                self.check_what_is_over(now, header.stream);
            }
        }
        self.asking.attend();
    }

    pub(super) fn asking_timeout(&self) -> Instant {
        let silence = self.member.map_or(SILENCE_DEFAULT, |member| member.silence_max);
        let mut at = self.asking.sent_at + silence;
        if let Some((report_at, _)) = self.asking.report {
            at = at.min(report_at);
        }
        if matches!(self.phase, Phase::Member) {
            at = self.asking.cycle_timeout().map_or(at, |cycle| at.min(cycle));
        }
        at
    }

    pub(super) fn ask_when_due(&mut self, now: Instant) {
        if matches!(self.asking.cycle, Cycle::Holdoff { until } if now >= until) {
            self.asking.cycle = Cycle::Idle { since: now };
            self.asking.attention = true;
        }
        if matches!(self.asking.cycle, Cycle::Idle { .. }) && self.asking.attention {
            self.asking.attention = false;
            if self.has_needs(now, self.asked_stream()) {
                let (window, group_log2) = (self.asking.window, self.asking.group_log2);
                let until = now + draw_backoff(&mut self.prng, window, group_log2);
                self.asking.cycle = Cycle::Backoff { until, position: self.loss.newest() };
            }
        }
        if let Cycle::Backoff { until, position } = self.asking.cycle
            && now >= until
        {
            self.ask(now, position);
        }
        self.report_when_due(now);
    }

    /// Sends a report without needs where one is due.
    pub(super) fn report_when_due(&mut self, now: Instant) {
        let Some(member) = self.member else { return };
        let silent = now >= self.asking.sent_at + member.silence_max;
        let due = self.asking.report.is_some_and(|(at, _)| now >= at);
        if silent || due {
            let sent = self.send_need(now, Stream::Image, NeedFlags::default(), Vec::new());
            if !sent {
                let poll = self.asking.report.map_or(0, |(_, poll)| poll);
                self.asking.report = Some((now + REPORT_RETRY, poll));
                self.asking.sent_at = now;
            }
        }
    }

    /// Streams whose blocks may be asked for: without the index nothing is known of zero blocks.
    const fn asked_stream(&self) -> Stream {
        if self.index_known { Stream::Image } else { Stream::Index }
    }

    /// Asks for everything that was lacking at a position of the group's sequence and is not
    /// planned. What came to be lacking since then waits for another backoff: nobody can have said
    /// it yet, and all whose time is up in that moment would.
    fn ask(&mut self, now: Instant, position: u64) {
        let stream = self.asked_stream();
        self.check_what_is_over(now, stream);
        let polluted = self.needs_by_unicast(stream);
        if !polluted.is_empty() {
            let flags = NeedFlags { by_unicast: true, ..NeedFlags::default() };
            self.send_need(now, stream, flags, polluted);
        }
        let (needs, mut symbols) = self.needs(now, stream, position);
        let asks = !needs.is_empty();
        for part in needs.chunks(self.ranges_max()) {
            if !self.send_need(now, stream, NeedFlags::default(), part.to_vec()) {
                break;
            }
            symbols += self.symbols_of(stream, part);
        }
        let octets = symbols * self.datagram_octets(stream);
        let answer = Duration::from_secs_f64(
            octets as f64 * 8.0 * ANSWER_SHARE / self.asking.rate_bits.max(1_000_000) as f64,
        );
        let silent = self.contact.is_orphaned();
        let wait = if silent { HOLDOFF_SILENT } else { answer.min(ANSWER_MAX) };
        // Whoever asked was early, and the others' backoffs last as long again; whoever did not may
        // look at once at what came to be lacking meanwhile.
        let others = if asks { self.asking.window } else { Duration::ZERO };
        let until = now + others + 2 * self.asking.grtt + wait.max(HOLDOFF_MIN);
        self.asking.cycle = Cycle::Holdoff { until };
    }

    /// Sends one NEED, if the sender's limit allows it.
    fn send_need(
        &mut self,
        now: Instant,
        stream: Stream,
        flags: NeedFlags,
        needs: Vec<BlockRange>,
    ) -> bool {
        let Some(member) = self.member else { return false };
        if !self.asking.bucket.take(now, member.needs_per_second, member.needs_burst) {
            return false;
        }
        let (echo_micros, heard_at) = self.asking.echo.unwrap_or((0, now));
        let hold = now.saturating_duration_since(heard_at).as_micros();
        let said = self.loss.report();
        if let Some((network_loss, _)) = said {
            self.asking.note_loss(network_loss);
        }
        let verified = self.image.as_ref().map_or(0, |image| image.verified().count());
        let need = Need {
            receiver: member.receiver,
            echo_micros,
            hold_micros: u32::try_from(hold).unwrap_or(u32::MAX),
            network_loss: said.map(|(network_loss, _)| network_loss),
            socket_loss: said.map_or(0, |(_, socket_loss)| socket_loss),
            free_blocks: u16::try_from(self.free_blocks()).unwrap_or(u16::MAX),
            drain_kilobytes: self.drain_rate(),
            done_blocks: verified,
            poll: self.asking.report.map_or(0, |(_, poll)| poll),
            flags: NeedFlags {
                no_multicast: self.contact.no_multicast(),
                behind: self.behind_kilobytes.is_some(),
                ..flags
            },
            needs,
        };
        self.asking.sent_at = now;
        self.asking.said_behind = self.behind_kilobytes.is_some();
        self.asking.report = None;
        self.send(stream, Message::Need(need), 0);
        true
    }

    /// What the sender is told that this receiver takes, in kB/s; 0 for what is not known.
    fn drain_rate(&self) -> u32 {
        let is_short = self.free_blocks() < self.memory_blocks() / 4;
        match self.behind_kilobytes {
            // What was written more slowly still finds room.
            Some(behind) if self.drain_kilobytes == 0 || !is_short => behind,
            Some(behind) => behind.min(self.drain_kilobytes),
            None => self.drain_kilobytes,
        }
    }

    /// Says soon that it is behind, unless it said so just now.
    pub(super) fn report_soon(&mut self, now: Instant) {
        if !self.asking.said_behind || now >= self.asking.sent_at + REPORT_RETRY {
            self.asking.report_soon(now, &mut self.prng);
        }
    }

    /// Says at once, and once, that memory runs short because the target takes less than what
    /// comes: by the next poll a fast sender would have filled it several times over. Of a large
    /// group, all of which may say so in the same moment, those speak that are polled.
    pub(super) fn report_shortage(&mut self, now: Instant) {
        let (free, all) = (self.free_blocks(), self.memory_blocks());
        let enough = if self.asking.said_short { all / 2 } else { all / 4 };
        let is_short = self.drain_kilobytes > 0 && free < enough;
        let said_short = std::mem::replace(&mut self.asking.said_short, is_short);
        let speaks = self.member.is_some() && self.asking.window.is_zero();
        if is_short && !said_short && speaks {
            self.asking.report_soon(now, &mut self.prng);
        }
    }

    /// Runs that one NEED holds.
    pub(super) fn ranges_max(&self) -> usize {
        let symbol_size = self.image.as_ref().map_or(0, |image| image.layout().symbol_size());
        ranges_max(symbol_size).max(1)
    }

    fn symbols_of(&self, stream: Stream, needs: &[BlockRange]) -> u64 {
        let ledger = if stream == Stream::Image { &self.image } else { &self.index };
        let per_block = ledger.as_ref().map_or(0, |ledger| ledger.layout().source_symbols(0));
        let symbols = |range: &BlockRange| {
            let each = if range.symbols == WHOLE { per_block } else { u32::from(range.symbols) };
            u64::from(range.run) * u64::from(each)
        };
        needs.iter().map(symbols).sum()
    }

    fn datagram_octets(&self, stream: Stream) -> u64 {
        let ledger = if stream == Stream::Image { &self.image } else { &self.index };
        let symbol_size = ledger.as_ref().map_or(0, |ledger| ledger.layout().symbol_size());
        (DATA_HEAD_LEN + TRAILER_LEN) as u64 + u64::from(symbol_size)
    }
}

/// Within so long a new member says that it is there.
const CONFIRM_WITHIN: Duration = Duration::from_millis(100);
/// Before WELCOME says otherwise.
const SILENCE_DEFAULT: Duration = Duration::from_secs(10);
/// A report for which there was no token waits so long, and one that was not asked for comes no
/// more often.
const REPORT_RETRY: Duration = Duration::from_millis(100);
/// Repairs share the rate with new blocks, one to one.
const ANSWER_SHARE: f64 = 2.0;
/// Longer than this nobody waits for an answer before asking again.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Keeps a lone receiver from asking symbol by symbol.
const HOLDOFF_MIN: Duration = Duration::from_millis(10);
/// A sender that is not there need not be asked often.
const HOLDOFF_SILENT: Duration = Duration::from_secs(5);
