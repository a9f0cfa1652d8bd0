//! What the network and the sender said, as far as it explains an error.

use std::net::SocketAddr;
use std::{fmt, io};

use imgcast_common::id::ImageId;
use imgcast_common::units::{ByteSize, Counted};
use imgcast_common::wire::{EjectReason, RefuseReason};
use nix::errno::Errno;

use super::{DISK_ADVICE, NETWORK_ADVICE};
use crate::image::Remains;
use crate::session::{Lack, LackEnd};

/// What the network gave while something was waited for, and where it was listened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heard {
    /// The interface.
    pub interface: String,
    /// The rendezvous group or sender that was listened to.
    pub rendezvous: SocketAddr,
    /// Announcements of any image.
    pub announcements: u64,
    /// Datagrams of the session's data group.
    pub group_datagrams: u64,
    /// Datagrams that are not of this protocol, or damaged.
    pub foreign_datagrams: u64,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, rendezvous, announcements, group_datagrams, foreign_datagrams } =
            self;
        write!(f, "heard on interface {interface}, listening to {rendezvous}: ")?;
        if announcements + group_datagrams + foreign_datagrams == 0 {
            return f.write_str("nothing at all");
        }
        write!(
            f,
            "{}, {} of the data group, {foreign_datagrams} foreign or damaged",
            Counted(*announcements, "announcement", "announcements"),
            Counted(*group_datagrams, "datagram", "datagrams")
        )
    }
}

/// An image that a sender announced.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// What its sender calls it.
    pub name: String,
    /// Its hash.
    pub image: ImageId,
    /// Its length in octets.
    pub image_bytes: u64,
    /// Who offers it.
    pub sender: SocketAddr,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, image, image_bytes, sender } = self;
        write!(f, "{name} ({}, id {image}, from {sender})", ByteSize(*image_bytes))
    }
}

/// What is missing, and how it came to that.
pub(super) fn lack_text(lack: &Lack, all_blocks: u32) -> String {
    let how = match &lack.end {
        LackEnd::Sent => "all was sent one way".to_owned(),
        LackEnd::Silence => "the one-way sender fell silent and none took its place".to_owned(),
        LackEnd::Stopped(text) => {
            format!("the sender was stopped ({text:?}) and none took its place")
        }
    };
    let (blocks, bytes) = (lack.blocks, ByteSize(lack.bytes));
    let run = |(first, run): &(u32, u32)| match run {
        1 => first.to_string(),
        run => format!("{first}-{}", first + run - 1),
    };
    let runs: Vec<String> = lack.runs.iter().map(run).collect();
    let told: u32 = lack.runs.iter().map(|(_, run)| run).sum();
    let others = if told < blocks { " and others" } else { "" };
    let index = if lack.index { ", and so is the index, without which none counts" } else { "" };
    let begun = match lack.begun {
        (0, _) => String::new(),
        (blocks, symbols) => {
            let symbols = Counted(symbols, "symbol", "symbols");
            format!("; of {blocks} of them at least {symbols}")
        }
    };
    let passes = match (lack.passes_heard, lack.passes) {
        (0, _) => "nothing was heard of any pass".to_owned(),
        (heard, passes) => format!(
            "something was heard of {heard} of {}, with {} % loss",
            Counted::passes(passes),
            lack.loss_percent
        ),
    };
    format!(
        "{how}, and {blocks} of {} ({bytes}) {} missing{index}: {}{others}{begun}; {passes}",
        Counted::blocks(all_blocks),
        if blocks == 1 { "is" } else { "are" },
        runs.join(", ")
    )
}

/// What to do about it.
pub(super) const fn lack_advice(lack: &Lack) -> &'static str {
    if lack.passes_heard == 0 {
        NETWORK_ADVICE
    } else if lack.was_full {
        "its memory was full of blocks that lacked symbols, and what came for others was dropped: \
         give it more --memory, or start the sender with --repair for more than is lost"
    } else {
        "start this receiver before the sender, and the sender with more --passes, with --repair \
         for more than is lost, or with a lower --max-bitrate"
    }
}

/// A reason to be put out, and what to do about it.
pub(super) const fn eject_text(reason: EjectReason) -> &'static str {
    match reason {
        EjectReason::Replaced => {
            "another run with the same host name and output has taken its place; stop one of them"
        }
        EjectReason::Slow => {
            "it is slower than the sender wants to serve; check its link and disk, or start the \
             sender with --slow-receivers detach"
        }
    }
}

/// A reason not to be let in, and what to do about it.
pub(super) const fn refuse_text(reason: RefuseReason) -> &'static str {
    match reason {
        RefuseReason::Full => "the session has as many receivers as it can take",
        RefuseReason::Mtu => "its datagrams do not fit through the path to this host",
        RefuseReason::Ending => "the session is ending; start the sender again",
        RefuseReason::Rejoin => "it does not know this receiver; start it again",
        RefuseReason::Untrusted => "it does not trust this receiver",
    }
}

/// What to do when there is no sender any more, whether it said why or not.
pub(super) const fn gone_advice(said_why: bool) -> &'static str {
    if said_why { "mend that and start the sender again" } else { NETWORK_ADVICE }
}

/// What is left to do once the kernel has given up on a write.
pub(super) fn disk_advice(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => {
            "make room there and start again while the sender is running, or start that again, \
             too; what was begun with --resume goes on where it was"
        }
        Some(Errno::EFBIG) => {
            "no file may become so large: raise the limit of this process (ulimit -f), or name \
             an output on a file system that allows it (FAT: 4 GiB)"
        }
        _ => DISK_ADVICE,
    }
}

/// What a later run can go on with, introduced, or nothing.
pub(super) fn remains_text(remains: Option<&Remains>) -> String {
    let text = |Remains { path, journal }: &Remains| {
        let journal = journal.as_ref();
        let journal = journal.map(|path| format!(" --journal {}", path.display()));
        format!(
            "; what was received stays in {}: to go on with it, run the same command with \
             --resume{} while the sender is running, or start that again, too",
            path.display(),
            journal.unwrap_or_default()
        )
    };
    remains.map(text).unwrap_or_default()
}

/// The text of an END or ABORT, quoted and introduced, or nothing.
pub(super) struct LastWords<'a>(pub(super) &'a Option<String>);

impl fmt::Display for LastWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |text| write!(f, " (its last words: {text:?})"))
    }
}

/// Several things in one line.
pub(super) fn listed<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
