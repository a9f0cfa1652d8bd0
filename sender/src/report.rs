//! What the operator sees: progress, what is waited for, and how each receiver fared.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    console::{Console, time_left},
    id::{ImageId, ReceiverId},
    layout::Layout,
    net::Interface,
    units::{BitRate, ByteSize, Counted, Seconds},
    wire::{Name, SenderState},
};

use crate::{
    error::Error,
    member_words::{fate, named, place, rank, reason, state_name, too_slow},
    session::{Member, MemberState, Session, Status},
};

/// The operator's view of one transfer.
#[derive(Debug)]
pub(crate) struct Report {
    console: Console,
    /// Octets of the image that are not in blocks of zeroes: what receivers have to fetch.
    sent_bytes: u64,
    /// All blocks of the image.
    blocks: u32,
    began_at: Option<Instant>,
    waited_since: Option<Instant>,
}

impl Report {
    pub(crate) fn new(shows_progress: bool) -> Self {
        let console = Console::new(shows_progress);
        Self { console, sent_bytes: 0, blocks: 0, began_at: None, waited_since: None }
    }

    /// The image is being hashed.
    pub(crate) fn hashing(&mut self, done: u64, total: u64) {
        let percent = done * 100 / total.max(1);
        let text = format!("hashing the image: {percent} % of {}", ByteSize(total));
        if self.console.is_asked() {
            self.console.say(&text);
        }
        self.console.status(crate::driver::now(), "hashing", &text);
    }

    /// The image is known: this goes to standard output, for scripts.
    pub(crate) fn offered(
        &mut self,
        name: &Name,
        image: ImageId,
        layout: &Layout,
        zero: &BitSet,
        interface: &Interface,
    ) {
        let bytes = layout.bytes();
        let zero_bytes: u64 = zero.iter().map(|block| u64::from(layout.block_len(block))).sum();
        self.sent_bytes = bytes - zero_bytes;
        self.blocks = layout.blocks();
        self.waited_since = Some(crate::driver::now());
        self.console.result(&format!("image {image} {name} {bytes} bytes"));
        let blocks = zero.len();
        let zeroes = match zero.count() {
            0 => String::new(),
            zeroes => format!(", {} % zeroes that are not sent", zeroes * 100 / blocks.max(1)),
        };
        self.console.say(&format!(
            "offering {name} ({}{zeroes}) on {} {}",
            ByteSize(bytes),
            interface.name,
            interface.address
        ));
        self.console.say("on the nodes: imgcast-receiver receive --output TARGET");
    }

    pub(crate) fn say(&self, text: &str) {
        self.console.say(text);
    }

    pub(crate) fn joined(&self, session: &Session, id: ReceiverId) {
        if let Some(member) = session.member(id) {
            self.console.say(&format!("{} joined", named(session, member)));
        }
    }

    /// A receiver is done, gone, or back.
    pub(crate) fn changed(&self, session: &Session, id: ReceiverId) {
        let Some(member) = session.member(id) else { return };
        let what = match member.state {
            MemberState::Active => "is heard again".into(),
            MemberState::Done => "has the image".into(),
            state => format!("{}: {}", state_name(state), reason(member)),
        };
        self.console.say(&format!("{} {what}", named(session, member)));
    }

    /// The others do not wait for a receiver, or do so again.
    pub(crate) fn detached(&self, session: &Session, id: ReceiverId) {
        let Some(member) = session.member(id) else { return };
        let what = match member.slow.filter(|_| member.detached) {
            Some(slow) => format!("is detached, the others do not wait for it: {}", too_slow(slow)),
            None => "is not detached any more".into(),
        };
        self.console.say(&format!("{} {what}", named(session, member)));
    }

    pub(crate) fn started(&mut self, now: Instant, session: &Session) {
        self.began_at = Some(now);
        let status = session.status();
        let missing = status.expected.saturating_sub(status.active + status.done);
        if missing > 0 {
            let text = format!("starting without {missing} of {} receivers", status.expected);
            self.console.say(&text);
        }
    }

    /// Tells how things stand, or what is waited for; `hears_keys` says whether a key press would
    /// start the transfer. Whoever asked is told at once, and of each receiver, too.
    pub(crate) fn progress(&mut self, now: Instant, session: &Session, hears_keys: bool) {
        let (topic, text) = self.told(now, &session.status(), hears_keys);
        if self.console.is_asked() {
            let members = self.members_told(now, session);
            self.console.say(&match (members.is_empty(), session.is_gathering()) {
                (true, _) => text.clone(),
                (false, true) => format!("{text}; joined: {}", members.join(", ")),
                (false, false) => format!("{text}\n  {}", members.join("\n  ")),
            });
        }
        self.console.status(now, topic, &text);
    }

    fn told(&mut self, now: Instant, status: &Status, hears_keys: bool) -> (&'static str, String) {
        let since = *self.waited_since.get_or_insert(now);
        let joined = status.active + status.done + status.gone;
        match status.state {
            _ if status.pass.is_some() => self.told_one_way(now, status),
            SenderState::Gathering => ("gathering", gathering(now, status, hears_keys)),
            SenderState::Sending => {
                let elapsed = now.saturating_duration_since(self.began_at.unwrap_or(since));
                let percent = status.progress * 100.0;
                let deaf = match status.without_multicast {
                    0 => String::new(),
                    deaf => format!(", {deaf} without multicast"),
                };
                let detached = match status.detached {
                    0 => String::new(),
                    detached => format!(", {detached} detached"),
                };
                let text = format!(
                    "{percent:3.0} %  {}{}  {} of {joined} receivers done{deaf}{detached}, \
                     loss {:.1} %, repair {:.1} %",
                    BitRate(status.rate),
                    time_left(status.progress, elapsed),
                    status.done,
                    status.loss * 100.0,
                    status.repair_share * 100.0,
                );
                ("sending", text)
            }
            SenderState::Idle => {
                let text = match joined - status.done - status.gone {
                    0 => "nothing is needed yet; others may be on their way".into(),
                    missing => format!(
                        "all is sent; waiting for {missing} of {joined} receivers to write and \
                         confirm"
                    ),
                };
                ("idle", text)
            }
            SenderState::Closing => ("closing", "telling the receivers that it is over".into()),
        }
    }

    /// Where nobody answers: how far the sending is.
    fn told_one_way(&self, now: Instant, status: &Status) -> (&'static str, String) {
        let (begun, all) = status.pass.unwrap_or_default();
        match (status.state, status.starts_at) {
            (SenderState::Gathering, at) => {
                let left = seconds_until(at.unwrap_or(now), now);
                ("gathering", format!("announcing, one way: starts in {left}"))
            }
            (SenderState::Sending, _) => {
                let elapsed = now.saturating_duration_since(self.began_at.unwrap_or(now));
                let text = format!(
                    "{:3.0} %  {}{}  pass {begun} of {all}, repair {:.1} %",
                    status.progress * 100.0,
                    BitRate(status.rate),
                    time_left(status.progress, elapsed),
                    status.repair_share * 100.0,
                );
                ("sending", text)
            }
            (SenderState::Idle, _) => ("idle", "all is sent; the last of it arrives".into()),
            (SenderState::Closing, _) => {
                ("closing", "telling whoever listens that it is over".into())
            }
        }
    }

    /// A few words on each receiver, worst first, and of a crowd on the worst only; who is there,
    /// as long as there is nothing else to say.
    fn members_told(&self, now: Instant, session: &Session) -> Vec<String> {
        let counts = |member: &&Member| match member.state {
            MemberState::Active | MemberState::Done => true,
            MemberState::Ejected => false,
            _ => !session.is_gathering(),
        };
        let mut members: Vec<&Member> = session.members().filter(counts).collect();
        members.sort_by_key(|member| (rank(member.state), member.done_blocks));
        let others = members.len().saturating_sub(MEMBERS_TOLD_MAX);
        members.truncate(MEMBERS_TOLD_MAX);
        let told = members.into_iter().map(|member| {
            let name = named(session, member);
            match member.state {
                MemberState::Active if session.is_gathering() => name,
                MemberState::Active => format!("{name} {}", self.pace(member)),
                MemberState::Done => format!("{name} has the image"),
                state => format!("{name} {}: {}", state_name(state), fate(now, member)),
            }
        });
        told.chain((others > 0).then(|| format!("and {others} others"))).collect()
    }

    /// How far a member is, and at what cost.
    fn pace(&self, member: &Member) -> String {
        let percent = f64::from(member.done_blocks) * 100.0 / f64::from(self.blocks.max(1));
        let loss = (member.network_loss + member.socket_loss) * 100.0;
        let way = match (member.no_multicast, member.detached) {
            (true, _) => ", without multicast",
            (false, true) => ", detached",
            (false, false) => "",
        };
        format!("{percent:.0} %, loss {loss:.1} %{way}")
    }

    /// The table at the end, worst first, on standard output.
    pub(crate) fn ended(&self, now: Instant, session: &Session) {
        self.console.clear();
        let mut members: Vec<&Member> = session.members().collect();
        members.sort_by_key(|member| (rank(member.state), Reverse(self.elapsed(member))));
        for line in self.table(now, &members) {
            self.console.result(&line);
        }
        if let Some((begun, all)) = session.status().pass {
            let text = format!(
                "{begun} of {} sent, one way: each receiver's own exit code says whether it has \
                 the image",
                Counted::passes(all)
            );
            self.console.say(&text);
        }
    }

    fn table(&self, now: Instant, members: &[&Member]) -> Vec<String> {
        let mut at_one_place = BTreeMap::<_, u32>::new();
        for member in members {
            *at_one_place.entry((&member.host, member.address.ip())).or_default() += 1;
        }
        let address =
            |member: &Member| place(member, at_one_place[&(&member.host, member.address.ip())] > 1);
        let addresses: Vec<String> = members.iter().map(|member| address(member)).collect();
        let Some(width) = addresses.iter().map(String::len).max() else { return Vec::new() };
        let width = width.max(ADDRESS_COLUMNS);
        let head = format!(
            "{:<24} {:<width$} {:<8} {:>8} {:>7} {:>9}  reason",
            "receiver", "address", "state", "MB/s", "loss", "repaired"
        );
        let rows = members.iter().zip(&addresses).map(|(member, address)| {
            let line = format!(
                "{:<24} {address:<width$} {:<8} {:>8} {:>5.1} % {:>9}  {}",
                member.host,
                state_name(member.state),
                self.speed(member),
                member.network_loss * 100.0,
                member.repaired_symbols,
                fate(now, member)
            );
            line.trim_end().to_owned()
        });
        std::iter::once(head).chain(rows).collect()
    }

    /// MB/s from when the member could begin until its DONE came.
    fn speed(&self, member: &Member) -> String {
        match self.elapsed(member).filter(|_| member.state == MemberState::Done) {
            Some(elapsed) => {
                let seconds = elapsed.max(ELAPSED_MIN).as_secs_f64();
                format!("{:.1}", self.sent_bytes as f64 / 1e6 / seconds)
            }
            None => "-".into(),
        }
    }

    /// How long a member took, the wait for others before the start left out.
    fn elapsed(&self, member: &Member) -> Option<Duration> {
        let began_at = self.began_at.map_or(member.joined_at, |at| at.max(member.joined_at));
        member.finished_at.map(|at| at.saturating_duration_since(began_at))
    }

    /// The error for a session that nobody joined.
    pub(crate) fn no_receivers(&self, session: &Session) -> Error {
        let now = crate::driver::now();
        let waited = now.saturating_duration_since(self.waited_since.unwrap_or(now));
        Error::NoReceivers {
            gone: session.status().gone,
            waited: Seconds(Duration::from_secs(waited.as_secs())),
        }
    }
}

/// Who is there, and what starts the transfer. Where a key does, the line is shorter by as much as
/// it takes to say so: it fits a terminal of 80 columns.
fn gathering(now: Instant, status: &Status, hears_keys: bool) -> String {
    let in_time = |at| seconds_until(at, now);
    let (joined, expected) = (status.active + status.done, status.expected);
    let starts = match (status.starts_at, status.gives_up_at) {
        (Some(at), _) if joined >= expected => format!("starts in {}", in_time(at)),
        (Some(at), _) => format!("starts at {expected} or in {}", in_time(at)),
        (None, Some(at)) => format!("starts at {expected}, gives up in {}", in_time(at)),
        (None, None) => format!("starts at {expected}"),
    };
    if hears_keys && joined > 0 {
        format!("waiting: {joined} of {expected} joined, {starts}; press any key to start now")
    } else {
        format!("waiting for receivers: {joined} of {expected} joined, {starts}")
    }
}

/// Whole seconds that are left.
fn seconds_until(at: Instant, now: Instant) -> Seconds {
    Seconds(Duration::from_secs(at.saturating_duration_since(now).as_secs()))
}

/// Of so many there is something to say on one screen.
const MEMBERS_TOLD_MAX: usize = 10;
/// An IPv4 address.
const ADDRESS_COLUMNS: usize = 15;
/// A clock that hardly moved makes no speed.
const ELAPSED_MIN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use imgcast_common::{
        id::Stream,
        wire::{Header, Leave, LeaveReason, Message, Need, NeedFlags},
    };

    use super::*;
    use crate::session::SessionConfig;
    use crate::session::tests::{SESSION, config, join};

    const BLOCKS: u32 = 40;

    /// A session that so many receivers have joined, the first of them as number 1.
    fn session(now: Instant, receivers: u8, receivers_min: u32) -> Session {
        let layout = Layout::new(u64::from(BLOCKS) << 14, 14, 1024).unwrap();
        let config = SessionConfig { receivers_min, ..config(layout, BitSet::new(BLOCKS)) };
        let mut session = Session::new(config, 1, now);
        for number in 1..=receivers {
            hear(&mut session, now, number, &join(number));
        }
        session
    }

    fn hear(session: &mut Session, now: Instant, number: u8, message: &Message<'_>) {
        let from = SocketAddr::from(([10, 0, 0, number], 4000));
        let header = Header { session: SESSION, stream: Stream::Image, counter: 1 };
        session.handle_message(now, from, &header, message, 1080);
    }

    /// Receiver `number` has verified so many blocks.
    fn verified(session: &mut Session, now: Instant, number: u8, done_blocks: u32, deaf: bool) {
        let need = Need {
            receiver: ReceiverId(u32::from(number) - 1),
            echo_micros: 0,
            hold_micros: 0,
            network_loss: Some(0),
            socket_loss: 0,
            free_blocks: 64,
            drain_kilobytes: 0,
            done_blocks,
            poll: 0,
            flags: NeedFlags { no_multicast: deaf, ..NeedFlags::default() },
            needs: Vec::new(),
        };
        hear(session, now, number, &Message::Need(need));
    }

    fn report() -> Report {
        Report { blocks: BLOCKS, ..Report::new(false) }
    }

    #[test]
    fn while_receivers_gather_it_tells_who_is_there() {
        let now = crate::driver::now();
        let mut session = session(now, 3, 9);
        let leave = Leave { receiver: ReceiverId(1), reason: LeaveReason::Interrupted };
        hear(&mut session, now, 2, &Message::Leave(leave));
        let told = report().members_told(now, &session);
        assert_eq!(told, ["node1 (10.0.0.1)", "node3 (10.0.0.3)"]);
    }

    #[test]
    fn of_a_transfer_it_tells_each_receiver_s_state_worst_first() {
        let now = crate::driver::now();
        let mut session = session(now, 4, 4);
        assert!(!session.is_gathering(), "all are there");
        verified(&mut session, now, 1, 30, false);
        verified(&mut session, now, 2, 10, true);
        verified(&mut session, now, 3, 20, false);
        let leave = Leave { receiver: ReceiverId(3), reason: LeaveReason::Interrupted };
        hear(&mut session, now, 4, &Message::Leave(leave));
        let told = report().members_told(now, &session);
        let expected = [
            "node4 (10.0.0.4) left: stopped at the node",
            "node2 (10.0.0.2) 25 %, loss 0.0 %, without multicast",
            "node3 (10.0.0.3) 50 %, loss 0.0 %",
            "node1 (10.0.0.1) 75 %, loss 0.0 %",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn of_a_crowd_it_tells_the_worst_and_how_many_others_there_are() {
        let now = crate::driver::now();
        let mut session = session(now, 30, 30);
        verified(&mut session, now, 1, 1, false);
        let told = report().members_told(now, &session);
        assert_eq!(told.len(), MEMBERS_TOLD_MAX + 1);
        assert_eq!(told[0], "node2 (10.0.0.2) 0 %, loss 0.0 %");
        assert_eq!(told[MEMBERS_TOLD_MAX], "and 20 others");
    }

    #[test]
    fn a_key_is_offered_once_it_would_start_something_and_the_line_fits_a_terminal() {
        let now = crate::driver::now();
        let waiting = |receivers, hears_keys| {
            let status = session(now, receivers, 9).status();
            let starts_at = Some(now + Duration::from_secs(3599)).filter(|_| receivers > 0);
            gathering(now, &Status { starts_at, ..status }, hears_keys)
        };
        assert!(!waiting(0, true).contains("key") && !waiting(1, false).contains("key"));
        let line = waiting(1, true);
        let expected =
            "waiting: 1 of 9 joined, starts at 9 or in 59m59s; press any key to start now";
        assert_eq!(line, expected);
        assert!(line.len() < 80, "with the spinner and a space before it");
        assert!(waiting(0, true).len() < 80);
    }
}
