//! What can end a run of the receiver, in words the operator can act on.
//!
//! One variant is one thing to act on; each has a stable code for programs and an exit status for
//! scripts. Errors are made where they are found and shown in one place, by `main`.

mod evidence;
mod target;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use imgcast_common::id::ImageId;
use imgcast_common::limits;
use imgcast_common::net::NetError;
use imgcast_common::units::{Counted, Seconds};
use imgcast_common::wire::{EjectReason, RefuseReason};

use crate::image::Remains;
use crate::session::Lack;

pub use evidence::{Heard, Offer};
use evidence::{
    LastWords, disk_advice, eject_text, gone_advice, lack_advice, lack_text, listed, refuse_text,
    remains_text,
};
pub use target::TargetError;

/// Why a run did not end with a verified image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A promise of this program to itself is broken.
    #[error("internal error: {text}; please report it")]
    Internal {
        /// What happened.
        text: String,
    },
    /// The operating system refuses a thread, a timer, a signal handler.
    #[error("cannot {action}: {source}; {}", limits::advice(.source))]
    System {
        /// What was tried, such as "start a thread".
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Two things on the command line do not go together, or one is out of its range.
    #[error("{option}: {text}")]
    Usage {
        /// The option, with its dashes.
        option: &'static str,
        /// What is wrong and what would be right.
        text: String,
    },
    /// An interface or socket cannot do what is needed.
    #[error(transparent)]
    Network(#[from] NetError),
    /// The session's datagrams are too large for the way to this host.
    #[error(
        "the sender's datagrams do not reach interface {interface}: its MTU is {own_mtu_octets}, \
         that of the sender's interface is {}{sender_mtu_octets}; give both, and every \
         switch between them, the same MTU",
        if *.is_told { "" } else { "at least " }
    )]
    Mtu {
        /// The interface on this host.
        interface: String,
        /// Its MTU.
        own_mtu_octets: u32,
        /// MTU of the sender's interface.
        sender_mtu_octets: u32,
        /// The sender has told it; else it is what the announced datagrams need.
        is_told: bool,
    },
    /// Nobody offered an image in time.
    #[error("no sender within {}: {heard}; {NETWORK_ADVICE}", Seconds(*.waited))]
    NoSender {
        /// How long it was waited for.
        waited: Duration,
        /// What the network gave instead.
        heard: Box<Heard>,
    },
    /// The only session with the image had all its receivers, and no other one began.
    #[error(
        "no sender within {} but one whose session was ending: {offer}; start the sender again",
        Seconds(*.waited)
    )]
    SessionEnding {
        /// How long another one was waited for.
        waited: Duration,
        /// What it had offered.
        offer: Box<Offer>,
    },
    /// The sender fell silent or ended with blocks missing here, and none took its place.
    #[error(
        "the sender is gone and none with the same image came back within {}, with {} missing{}: \
         {heard}; {}",
        Seconds(*.waited),
        Counted::blocks(*.missing_blocks),
        LastWords(.last_words),
        gone_advice(.last_words.is_some())
    )]
    SenderGone {
        /// How long it was waited for.
        waited: Duration,
        /// Blocks still missing.
        missing_blocks: u32,
        /// The text of its END or ABORT, if it said goodbye.
        last_words: Option<String>,
        /// What the network gave instead.
        heard: Box<Heard>,
    },
    /// The sender's image is not any more what it announced, or cannot be read.
    #[error(
        "the sender has this image no more, with {} missing here (its last words: \
         {last_words:?}); mend that and start both again, with --resume to fetch only what differs",
        Counted::blocks(*.missing_blocks)
    )]
    ImageGone {
        /// Blocks still missing.
        missing_blocks: u32,
        /// The text of its ABORT.
        last_words: String,
    },
    /// The sender put this receiver out.
    #[error("the sender ejected this receiver: {}", eject_text(*.reason))]
    Ejected {
        /// Why.
        reason: EjectReason,
    },
    /// The sender does not let this receiver in.
    #[error("the sender at {sender} refused this receiver: {}", refuse_text(*.reason))]
    Refused {
        /// The sender's address.
        sender: SocketAddr,
        /// Why.
        reason: RefuseReason,
    },
    /// The sender lives, yet nothing gets done.
    #[error(
        "no block was completed for {} although the sender at {sender} is there, with {} missing: \
         {heard}; {NETWORK_ADVICE}",
        Seconds(*.waited),
        Counted::blocks(*.missing_blocks)
    )]
    Stalled {
        /// For how long.
        waited: Duration,
        /// The sender's address.
        sender: SocketAddr,
        /// Blocks still missing.
        missing_blocks: u32,
        /// What the network gave meanwhile.
        heard: Box<Heard>,
    },
    /// A session in which nobody can ask for anything is over, and not all of it arrived.
    #[error("{}: {heard}; {}", lack_text(.lack, *.all_blocks), lack_advice(.lack))]
    Lacking {
        /// Blocks of the image.
        all_blocks: u32,
        /// What is missing.
        lack: Box<Lack>,
        /// What the network gave.
        heard: Box<Heard>,
    },
    /// The output must not be written to, or cannot.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The image asked for is on no offer.
    #[error("the image {wanted} is not on offer; on offer: {}", listed(.offered))]
    NotOffered {
        /// What `--image` says.
        wanted: String,
        /// What was heard of.
        offered: Vec<Offer>,
    },
    /// More than one image is on offer and none was chosen.
    #[error(
        "several images are on offer; choose one with --image NAME-or-ID: {}",
        listed(.offered)
    )]
    SeveralOffered {
        /// What was heard of.
        offered: Vec<Offer>,
    },
    /// The target did not take what was written.
    #[error(
        "cannot write {} at offset {offset}: {source}; {}",
        .path.display(),
        disk_advice(.source)
    )]
    Write {
        /// The output.
        path: PathBuf,
        /// Where in it, in octets.
        offset: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The target did not keep what was written.
    #[error(
        "cannot flush {}: {source}; some of the last {unflushed_bytes} octets, the latest at \
         offset {offset}, are lost; {}",
        .path.display(),
        disk_advice(.source)
    )]
    Flush {
        /// The output.
        path: PathBuf,
        /// Where the latest write began, in octets.
        offset: u64,
        /// Octets written since the last flush that worked.
        unflushed_bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The target holds something else than what was written to it.
    #[error(
        "{} does not hold at offset {offset} what was written there: {reason}; the disk or its \
         cable is faulty, or somebody else writes to it; {DISK_ADVICE}",
        .path.display()
    )]
    ReadBack {
        /// The output.
        path: PathBuf,
        /// Where the block begins, in octets.
        offset: u64,
        /// What was read instead, or why nothing was.
        reason: String,
    },
    /// The whole image is there and only its name is not.
    #[error("the image is complete, but cannot get the name {}: {source}", .path.display())]
    Rename {
        /// The output.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The whole image is there, under its name, which may not outlive a power cut.
    #[error(
        "the image is complete and is called {}, but the directory that says so could not be \
         synced to the medium: {source}; after a power cut the name may be missing: look at the \
         kernel's log (dmesg) for this disk, and check the name after the next start",
        .path.display()
    )]
    NameSync {
        /// The output.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A block failed its check again and again.
    #[error(
        "block {block} of image {image} was wrong {attempts} times; somebody sends false symbols, \
         or memory of this host or the sender is faulty"
    )]
    BlockWrong {
        /// Its number.
        block: u32,
        /// The image.
        image: ImageId,
        /// How often it was fetched.
        attempts: u32,
    },
    /// The index failed its check again and again.
    #[error(
        "the index of image {image} was wrong {attempts} times: {text}; somebody sends false \
         symbols, or memory of this host or the sender is faulty"
    )]
    IndexWrong {
        /// The image.
        image: ImageId,
        /// How often it was fetched.
        attempts: u32,
        /// What was wrong the last time.
        text: String,
    },
    /// Only senders of other versions were heard.
    #[error(
        "only protocol version {theirs} is on offer on interface {interface}, this program speaks \
         version {ours}; install the same release of imgcast on both sides"
    )]
    Version {
        /// The version heard.
        theirs: u8,
        /// The version spoken here.
        ours: u8,
        /// Where it was heard.
        interface: String,
    },
    /// A signal ended the run.
    #[error("stopped by signal {signal}{}", remains_text(.remains.as_deref()))]
    Interrupted {
        /// Its number.
        signal: u8,
        /// What a later run can go on with.
        remains: Option<Box<Remains>>,
    },
}

impl Error {
    /// The name of the variant for programs: it never changes.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Internal { .. } => "internal",
            Self::System { .. } => "system",
            Self::Usage { .. } => "usage",
            Self::Network(_) => "network",
            Self::Mtu { .. } => "mtu",
            Self::NoSender { .. } => "no-sender",
            Self::SessionEnding { .. } => "session-ending",
            Self::SenderGone { .. } => "sender-gone",
            Self::ImageGone { .. } => "image-gone",
            Self::Ejected { .. } => "ejected",
            Self::Refused { .. } => "refused",
            Self::Stalled { .. } => "stalled",
            Self::Lacking { .. } => "lacking",
            Self::Target(refusal) => refusal.code(),
            Self::NotOffered { .. } => "image-not-offered",
            Self::SeveralOffered { .. } => "several-images",
            Self::Write { .. } => "write",
            Self::Flush { .. } => "flush",
            Self::ReadBack { .. } => "read-back",
            Self::Rename { .. } => "rename",
            Self::NameSync { .. } => "name-sync",
            Self::BlockWrong { .. } => "block-wrong",
            Self::IndexWrong { .. } => "index-wrong",
            Self::Version { .. } => "version",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    /// The same, with what stays of the run that it ended.
    #[must_use]
    pub fn leaving(self, remains: Option<Remains>) -> Self {
        match self {
            Self::Interrupted { signal, .. } => {
                Self::Interrupted { signal, remains: remains.map(Box::new) }
            }
            other => other,
        }
    }

    /// The exit status of the process.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Internal { .. } | Self::System { .. } => 1,
            Self::Usage { .. } => 2,
            Self::Network(_) | Self::Mtu { .. } => 3,
            Self::NoSender { .. } | Self::SessionEnding { .. } | Self::SenderGone { .. } => 4,
            Self::Ejected { .. } | Self::Refused { .. } => 5,
            Self::Stalled { .. } => 6,
            Self::Target(_) | Self::NotOffered { .. } | Self::SeveralOffered { .. } => 7,
            Self::Write { .. }
            | Self::Flush { .. }
            | Self::Rename { .. }
            | Self::NameSync { .. } => 8,
            Self::BlockWrong { .. } | Self::IndexWrong { .. } | Self::ImageGone { .. } => 9,
            Self::Version { .. } => 10,
            Self::Lacking { .. } => 11,
            Self::ReadBack { .. } => 12,
            Self::Interrupted { signal, .. } => SIGNAL_EXIT_CODE.saturating_add(*signal),
        }
    }
}

/// Where multicast gets lost between two healthy ends, by frequency.
const NETWORK_ADVICE: &str = "check that the sender runs with the same --portbase and \
    --mcast-rdv-address, that --interface names the right interface on both sides, that no \
    firewall drops UDP on portbase and portbase + 1, and that a switch with IGMP snooping has a \
    querier";

/// What is left to do once the kernel has given up on a write.
const DISK_ADVICE: &str = "look at the kernel's log (dmesg) for this disk; the image is not usable";

/// What shells add to the number of a signal.
const SIGNAL_EXIT_CODE: u8 = 128;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::session::LackEnd;

    fn heard(announcements: u64) -> Box<Heard> {
        Box::new(Heard {
            interface: "eth0".into(),
            rendezvous: ([239, 255, 63, 30], 6330).into(),
            announcements,
            group_datagrams: 0,
            foreign_datagrams: 0,
        })
    }

    fn lack() -> Lack {
        Lack {
            blocks: 9,
            bytes: 9 << 20,
            runs: vec![(3, 1), (17, 4), (44, 1), (90, 1)],
            begun: (5, 1_234),
            index: false,
            passes_heard: 2,
            passes: 3,
            loss_percent: 12,
            was_full: false,
            end: LackEnd::Sent,
        }
    }

    fn offer(name: &str) -> Offer {
        Offer {
            name: name.into(),
            image: ImageId([0xab; 32]),
            image_bytes: 3 << 30,
            sender: ([10, 0, 0, 1], 40_000).into(),
        }
    }

    fn denied() -> io::Error {
        io::Error::from(io::ErrorKind::PermissionDenied)
    }

    /// One error of each variant with the exit status that is promised for it.
    fn samples() -> Vec<(u8, Error)> {
        let path = || PathBuf::from("/dev/sdz");
        let text = || "reason".to_owned();
        let sender: SocketAddr = ([10, 0, 0, 1], 40_000).into();
        let image = ImageId([1; 32]);
        let waited = Duration::from_secs(300);
        let interface = || "eth0".to_owned();
        vec![
            (1, Error::Internal { text: text() }),
            (1, Error::System { action: "start a thread", source: denied() }),
            (2, Error::Usage { option: "--ttl", text: text() }),
            (3, Error::Network(NetError::InterfaceDown { name: interface() })),
            (
                3,
                Error::Mtu {
                    interface: interface(),
                    own_mtu_octets: 1500,
                    sender_mtu_octets: 9000,
                    is_told: true,
                },
            ),
            (4, Error::NoSender { waited, heard: heard(0) }),
            (4, Error::SessionEnding { waited, offer: Box::new(offer("a")) }),
            (
                4,
                Error::SenderGone {
                    waited,
                    missing_blocks: 7,
                    last_words: Some(text()),
                    heard: heard(3),
                },
            ),
            (9, Error::ImageGone { missing_blocks: 1, last_words: text() }),
            (5, Error::Ejected { reason: EjectReason::Slow }),
            (5, Error::Refused { sender, reason: RefuseReason::Full }),
            (6, Error::Stalled { waited, sender, missing_blocks: 7, heard: heard(9) }),
            (7, TargetError::Kind { path: path(), kind: "a directory" }.into()),
            (7, Error::NotOffered { wanted: text(), offered: vec![] }),
            (7, Error::SeveralOffered { offered: vec![offer("a"), offer("b")] }),
            (8, Error::Write { path: path(), offset: 512, source: denied() }),
            (8, Error::Flush { path: path(), offset: 512, unflushed_bytes: 9, source: denied() }),
            (8, Error::Rename { path: path(), source: denied() }),
            (8, Error::NameSync { path: path(), source: denied() }),
            (12, Error::ReadBack { path: path(), offset: 512, reason: text() }),
            (9, Error::BlockWrong { block: 12, image, attempts: 8 }),
            (9, Error::IndexWrong { image, attempts: 3, text: text() }),
            (10, Error::Version { theirs: 2, ours: 1, interface: interface() }),
            (11, Error::Lacking { all_blocks: 9, lack: Box::new(lack()), heard: heard(9) }),
            (143, Error::Interrupted { signal: 15, remains: None }),
        ]
    }

    #[test]
    fn every_variant_ends_with_its_exit_status_and_has_a_code_of_its_own() {
        let samples = samples();
        for (exit_code, error) in &samples {
            assert_eq!(error.exit_code(), *exit_code, "{}", error.code());
        }
        let codes: BTreeSet<&str> = samples.iter().map(|(_, error)| error.code()).collect();
        assert_eq!(codes.len(), samples.len());
        assert!(
            codes.iter().all(|code| {
                code.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'-')
            })
        );
    }

    #[test]
    fn texts_say_where_and_what_and_leave_no_gaps() {
        for (_, error) in samples() {
            let text = error.to_string();
            assert!(!text.contains("  ") && !text.contains('\n') && !text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn silence_and_a_crowd_are_told_apart() {
        let waited = Duration::from_secs(300);
        let silent = Error::NoSender { waited, heard: heard(0) }.to_string();
        assert!(silent.starts_with(
            "no sender within 5m00s: heard on interface eth0, listening to 239.255.63.30:6330: \
             nothing at all; check that the sender runs"
        ));
        assert!(silent.contains("querier") && silent.contains("firewall"));
        assert!(
            heard(3)
                .to_string()
                .ends_with("3 announcements, 0 datagrams of the data group, 0 foreign or damaged")
        );
        let one = Heard { group_datagrams: 1, ..*heard(1) }.to_string();
        assert!(
            one.ends_with("1 announcement, 1 datagram of the data group, 0 foreign or damaged")
        );
    }

    #[test]
    fn what_a_one_way_session_left_out_is_told_with_what_to_do() {
        let text = |lack| {
            let (lack, heard) = (Box::new(lack), heard(9));
            Error::Lacking { all_blocks: 100, lack, heard }.to_string()
        };
        let told = text(lack());
        assert!(
            told.starts_with(
                "all was sent one way, and 9 of 100 blocks (9.0 MiB) are missing: 3, 17-20, 44, \
                 90 and others; of 5 of them at least 1234 symbols; something was heard of 2 of 3 \
                 passes, with 12 % loss: heard on interface eth0, "
            ),
            "{told}"
        );
        let one = Lack { blocks: 1, begun: (1, 1), passes_heard: 1, passes: 1, ..lack() };
        let one = text(Lack { runs: vec![(3, 1)], ..one });
        let said = "1 of 100 blocks (9.0 MiB) is missing: 3; of 1 of them at least 1 symbol; \
                    something was heard of 1 of 1 pass, ";
        assert!(one.contains(said), "{one}");
        let full = text(Lack { was_full: true, ..lack() });
        assert!(full.contains("--memory") && !told.contains("--memory"), "{full}");
        assert!(told.contains("more --passes") && told.contains("--repair"), "{told}");
        let end = LackEnd::Stopped("bye\x1b[2J".into());
        let stopped = text(Lack { end, index: true, passes_heard: 0, ..lack() });
        assert!(stopped.starts_with("the sender was stopped (\"bye\\u{1b}[2J\") and none "));
        assert!(stopped.contains("are missing, and so is the index, "), "{stopped}");
        assert!(stopped.contains("nothing was heard of any pass") && stopped.contains("querier"));
    }

    #[test]
    fn what_stays_of_a_run_is_told_with_where_and_how_to_go_on() {
        let text = |journal: Option<&str>| {
            let remains = Remains { path: ".a.part".into(), journal: journal.map(Into::into) };
            let error = Error::Interrupted { signal: 2, remains: None };
            error.leaving(Some(remains)).to_string()
        };
        assert_eq!(
            text(None),
            "stopped by signal 2; what was received stays in .a.part: to go on with it, run the \
             same command with --resume while the sender is running, or start that again, too"
        );
        assert!(text(Some("/run/j")).contains("with --resume --journal /run/j while"));
        let other = Error::NotOffered { wanted: String::new(), offered: Vec::new() };
        assert_eq!(other.leaving(None).code(), "image-not-offered");
    }

    #[test]
    fn a_full_disk_and_a_limit_to_files_have_words_of_their_own() {
        let text = |errno: nix::errno::Errno| {
            Error::Write { path: "/srv/x".into(), offset: 0, source: errno.into() }.to_string()
        };
        let full = text(nix::errno::Errno::ENOSPC);
        assert!(full.contains("make room there") && full.contains("sender is running"), "{full}");
        let limited = text(nix::errno::Errno::EFBIG);
        assert!(limited.contains("ulimit -f") && !limited.contains("dmesg"), "{limited}");
        let again = io::Error::from(nix::errno::Errno::EAGAIN);
        let thread = Error::System { action: "start a thread", source: again }.to_string();
        assert!(thread.contains("not enough memory, or no more processes"), "{thread}");
    }

    #[test]
    fn an_mtu_that_the_sender_has_not_told_is_known_as_a_lower_bound() {
        let text = |sender_mtu_octets, is_told| {
            let (interface, own_mtu_octets) = ("eth0".into(), 1500);
            Error::Mtu { interface, own_mtu_octets, sender_mtu_octets, is_told }.to_string()
        };
        assert!(text(8980, false).contains("the sender's interface is at least 8980;"));
        assert!(text(9000, true).contains("the sender's interface is 9000;"));
    }

    #[test]
    fn what_is_on_offer_is_listed_with_name_and_id() {
        let text = Error::SeveralOffered { offered: vec![offer("debian"), offer("fedora")] };
        let text = text.to_string();
        let id = "ab".repeat(32);
        assert!(text.contains(&format!("debian (3.0 GiB, id {id}, from 10.0.0.1:40000); fedora")));
        let none = Error::NotOffered { wanted: "debian".into(), offered: vec![] }.to_string();
        assert_eq!(none, "the image debian is not on offer; on offer: none");
    }

    #[test]
    fn last_words_are_quoted_and_control_characters_in_them_are_not() {
        let gone = |last_words| Error::SenderGone {
            waited: Duration::from_secs(120),
            missing_blocks: 2,
            last_words,
            heard: heard(0),
        };
        let text = gone(Some("bye\x1b[2J".into())).to_string();
        assert!(text.contains("2 blocks missing (its last words: \"bye\\u{1b}[2J\"): heard"));
        assert!(gone(None).to_string().contains("2 blocks missing: heard"));
    }
}
