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
    units::{BitRate, ByteSize, Seconds},
    wire::{Name, SenderState},
};

use crate::{
    error::Error,
    session::{Member, MemberState, Session},
};

/// The operator's view of one transfer.
#[derive(Debug)]
pub(crate) struct Report {
    console: Console,
    /// Octets of the image that are not in blocks of zeroes: what receivers have to fetch.
    sent_bytes: u64,
    began_at: Option<Instant>,
    waited_since: Option<Instant>,
}

impl Report {
    pub(crate) fn new(shows_progress: bool) -> Self {
        let console = Console::new(shows_progress);
        Self { console, sent_bytes: 0, began_at: None, waited_since: None }
    }

    /// The image is being hashed.
    pub(crate) fn hashing(&mut self, done: u64, total: u64) {
        let percent = done * 100 / total.max(1);
        let text = format!("hashing the image: {percent} % of {}", ByteSize(total));
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
        self.waited_since = Some(crate::driver::now());
        println!("image {image} {name} {bytes} bytes");
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

    pub(crate) fn started(&mut self, now: Instant, session: &Session) {
        self.began_at = Some(now);
        let status = session.status();
        let missing = status.expected.saturating_sub(status.active);
        if missing > 0 {
            let text = format!("starting without {missing} of {} receivers", status.expected);
            self.console.say(&text);
        }
    }

    /// Tells how things stand, or what is waited for.
    pub(crate) fn progress(&mut self, now: Instant, session: &Session) {
        let status = session.status();
        let since = *self.waited_since.get_or_insert(now);
        let in_time = |at: Instant| {
            let left = at.saturating_duration_since(now).as_secs();
            Seconds(Duration::from_secs(left))
        };
        let joined = status.active + status.done + status.gone;
        let (topic, text) = match status.state {
            SenderState::Gathering => {
                let starts = match (status.starts_at, status.gives_up_at) {
                    (Some(at), _) if status.active >= status.expected => {
                        format!("starts in {}", in_time(at))
                    }
                    (Some(at), _) => format!("starts at {} or in {}", status.expected, in_time(at)),
                    (None, Some(at)) => format!(
                        "starts at {}, gives up in {}; on the nodes: imgcast-receiver receive \
                         --output TARGET",
                        status.expected,
                        in_time(at)
                    ),
                    (None, None) => format!("starts at {}", status.expected),
                };
                let (active, expected) = (status.active, status.expected);
                let text =
                    format!("waiting for receivers: {active} of {expected} joined, {starts}");
                ("gathering", text)
            }
            SenderState::Sending => {
                let elapsed = now.saturating_duration_since(self.began_at.unwrap_or(since));
                let percent = status.progress * 100.0;
                let deaf = match status.without_multicast {
                    0 => String::new(),
                    deaf => format!(", {deaf} without multicast"),
                };
                let text = format!(
                    "{percent:3.0} %  {}{}  {} of {joined} receivers done{deaf}, loss {:.1} %, \
                     repair {:.1} %",
                    BitRate(status.rate),
                    time_left(status.progress, elapsed),
                    status.done,
                    status.loss * 100.0,
                    status.repair_share * 100.0,
                );
                ("sending", text)
            }
            SenderState::Idle => {
                let missing = joined - status.done - status.gone;
                let text = format!(
                    "all is sent; waiting for {missing} of {joined} receivers to write and confirm"
                );
                ("idle", text)
            }
            SenderState::Closing => ("closing", "telling the receivers that it is over".into()),
        };
        self.console.status(now, topic, &text);
    }

    /// The table at the end, worst first, on standard output.
    pub(crate) fn ended(&self, now: Instant, session: &Session) {
        self.console.clear();
        let mut members: Vec<&Member> = session.members().collect();
        members.sort_by_key(|member| (rank(member.state), Reverse(self.elapsed(member))));
        for line in self.table(now, &members) {
            println!("{line}");
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
                match member.state {
                    MemberState::Lost => {
                        let silent = now.saturating_duration_since(member.heard_at).as_secs();
                        format!("nothing heard for {silent} s")
                    }
                    _ => reason(member),
                }
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

fn named(session: &Session, member: &Member) -> String {
    let is_another_there = session.members().any(|other| {
        let same_address = other.address.ip() == member.address.ip();
        same_address && other.id != member.id && other.host == member.host
    });
    format!("{} ({})", member.host, place(member, is_another_there))
}

/// Where a member is; with its port, if that alone tells it from another one.
fn place(member: &Member, is_another_there: bool) -> String {
    if is_another_there { member.address.to_string() } else { member.address.ip().to_string() }
}

const fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "active",
        MemberState::Done => "done",
        MemberState::Failed => "failed",
        MemberState::Left => "left",
        MemberState::Lost => "lost",
        MemberState::Ejected => "replaced",
    }
}

fn reason(member: &Member) -> String {
    match (member.state, &member.done) {
        (MemberState::Failed, Some(done)) if done.succeeded => {
            "it has another image than was sent".into()
        }
        (MemberState::Failed, Some(done)) => format!("{} (exit {})", done.text, done.error_code),
        (MemberState::Left, _) => "stopped at the node".into(),
        (MemberState::Lost, _) => "not heard any more".into(),
        (MemberState::Ejected, _) => "joined anew".into(),
        (MemberState::Active, _) => "not finished".into(),
        _ => String::new(),
    }
}

/// Worst first.
const fn rank(state: MemberState) -> u8 {
    match state {
        MemberState::Lost => 0,
        MemberState::Failed => 1,
        MemberState::Left => 2,
        MemberState::Active => 3,
        MemberState::Done => 4,
        MemberState::Ejected => 5,
    }
}

/// An IPv4 address.
const ADDRESS_COLUMNS: usize = 15;
/// A clock that hardly moved makes no speed.
const ELAPSED_MIN: Duration = Duration::from_millis(1);
