//! What the operator sees: progress, what is waited for, and how each receiver fared.

use std::time::Instant;

use imgcast_common::{
    bits::BitSet,
    console::{Console, time_left},
    id::{ImageId, ReceiverId},
    net::Interface,
    units::{BitRate, ByteSize, Seconds},
    wire::{Name, SenderState},
};

use crate::{
    driver::shown,
    error::Error,
    session::{Member, MemberState, Session},
};

/// The operator's view of one transfer.
#[derive(Debug)]
pub(crate) struct Report {
    console: Console,
    /// Octets that receivers have to fetch.
    image_bytes: u64,
    began_at: Option<Instant>,
    waited_since: Option<Instant>,
}

impl Report {
    pub(crate) fn new(shows_progress: bool) -> Self {
        let console = Console::new(shows_progress);
        Self { console, image_bytes: 0, began_at: None, waited_since: None }
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
        bytes: u64,
        zero: &BitSet,
        interface: &Interface,
    ) {
        self.image_bytes = bytes;
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
            self.console.say(&format!("{} joined", named(member)));
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
        self.console.say(&format!("{} {what}", named(member)));
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
            Seconds(std::time::Duration::from_secs(left))
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
                        "starts at {}, gives up in {}; on the nodes: imgcast-receiver receive",
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
        members.sort_by_key(|member| (rank(member.state), std::cmp::Reverse(seconds(member))));
        if members.is_empty() {
            return;
        }
        println!(
            "{:<24} {:<15} {:<8} {:>8} {:>7} {:>9}  reason",
            "receiver", "address", "state", "MB/s", "loss", "repaired"
        );
        for member in members {
            println!("{}", self.row(now, member));
        }
    }

    fn row(&self, now: Instant, member: &Member) -> String {
        let speed = match (&member.done, seconds(member)) {
            (Some(_), Some(seconds)) if member.state == MemberState::Done => {
                format!("{:.1}", self.image_bytes as f64 / 1e6 / f64::from(seconds.max(1)))
            }
            _ => "-".into(),
        };
        let silent = now.saturating_duration_since(member.heard_at).as_secs();
        let reason = match member.state {
            MemberState::Lost => format!("nothing heard for {silent} s"),
            _ => reason(member),
        };
        let line = format!(
            "{:<24} {:<15} {:<8} {speed:>8} {:>5.1} % {:>9}  {reason}",
            member.host,
            shown(member.address),
            state_name(member.state),
            member.network_loss * 100.0,
            member.repaired_symbols,
        );
        line.trim_end().to_owned()
    }

    /// The error for a session that nobody joined.
    pub(crate) fn no_receivers(&self, session: &Session) -> Error {
        let status = session.status();
        let now = crate::driver::now();
        let waited = now.saturating_duration_since(self.waited_since.unwrap_or(now));
        Error::NoReceivers {
            joined: status.active,
            receivers_min: status.expected,
            waited: Seconds(std::time::Duration::from_secs(waited.as_secs())),
        }
    }
}

fn named(member: &Member) -> String {
    format!("{} ({})", member.host, shown(member.address))
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

fn seconds(member: &Member) -> Option<u32> {
    member.done.as_ref().map(|done| done.seconds)
}
