//! What a session is told, what it gives out, and how it ends.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use imgcast_common::{
    id::{BlockId, ImageId, SessionId, Stream},
    wire::{Announce, EjectReason, Message, RefuseReason},
};

use super::Lack;
use crate::memory::Memory;

/// What a session is told at its start and never changes.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Which image to take.
    pub wanted: Wanted,
    /// This host's name.
    pub host: String,
    /// Hash of host name and canonical target.
    pub key: [u8; 16],
    /// Whether something of the image may be on the target from before.
    pub resumes: bool,
    /// Octets that the target holds; `None` for a file.
    pub target_bytes: Option<u64>,
    /// What blocks that are not written yet may take.
    pub memory: Memory,
    /// The largest datagram payload that the interface takes unfragmented, in octets.
    pub datagram_octets_max: usize,
    /// Give up if there is no sender for so long.
    pub start_timeout: Option<Duration>,
    /// Give up if the sender is gone, or nothing is completed, for so long.
    pub receive_timeout: Option<Duration>,
    /// A sender to ask by unicast, where no rendezvous group is used.
    pub ask: Option<SocketAddr>,
}

/// Which image to take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// The only one on offer.
    Any,
    /// The one of this name.
    Name(String),
    /// The one with this hash.
    Image(ImageId),
}

impl Wanted {
    /// Whether this is the image that is meant.
    #[must_use]
    pub fn accepts(&self, announce: &Announce) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => announce.name.as_str() == name,
            Self::Image(image) => announce.image == *image,
        }
    }
}

/// By which socket a datagram came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// The rendezvous group's.
    Rendezvous,
    /// The data group's.
    Group,
    /// The receiver's own.
    Unicast,
}

/// What is to be done with a symbol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Keep it.
    Wanted,
    /// Keep it; with it there may be enough: an [`Event::Check`] follows once that can be judged.
    Enough,
    /// Drop it: its block, or it itself, is there already.
    Unwanted,
    /// Drop it: its block has another length or it is of another session.
    Mismatched,
    /// Drop it: the memory is full of other blocks.
    NoRoom,
}

/// One sender's offer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// The session.
    pub session: SessionId,
    /// Where the sender takes unicast.
    pub sender: SocketAddr,
    /// What it offers.
    pub announce: Announce,
}

impl Offer {
    pub(super) fn new(session: SessionId, from: IpAddr, announce: &Announce) -> Self {
        let sender = SocketAddr::new(from, announce.unicast_port);
        Self { session, sender, announce: announce.clone() }
    }
}

/// A message to send, by unicast always.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// In which session.
    pub session: SessionId,
    /// Of which stream it speaks.
    pub stream: Stream,
    /// What.
    pub message: Message<'static>,
    /// Octets that the datagram is filled up to.
    pub octets_min: usize,
}

/// Something for the driver to do or to tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A session was chosen: see whether the target can take the image, join the data group, leave
    /// the one of before, and call `handle_joined`.
    Chosen(Box<Offer>),
    /// There may be enough symbols: decode, verify, and call `handle_checked`.
    Check(BlockId),
    /// Drop what is held of a block.
    Forget(BlockId),
    /// All blocks of the index are there: put it together, verify it, and call `handle_index`.
    IndexWhole,
    /// Leave all groups and join them again: switches may have forgotten the memberships.
    RenewMembership,
    /// Every block is written: flush, commit, and call `handle_flushed`.
    Flush,
    /// Something to tell people.
    Notice(Notice),
    /// The session is over.
    Finished(Outcome),
}

/// Something to tell people while waiting or receiving.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// The sender let us in.
    Joined,
    /// The index is there and right.
    Indexed {
        /// Blocks that are all zero and not sent.
        zero_blocks: u32,
    },
    /// Nothing comes from the data group.
    NoMulticast {
        /// It did before.
        any_more: bool,
    },
    /// The data group is heard again.
    MulticastAgain {
        /// As soon as the memberships were renewed.
        by_joining: bool,
    },
    /// Nothing at all comes from the sender.
    SenderSilent,
    /// The sender is heard again.
    SenderBack,
    /// The sender ended the session; these were its words.
    SessionOver(String),
    /// A block's hash was wrong so often; it is fetched again.
    Polluted(BlockId, u8),
    /// The index was wrong; it is fetched again.
    WrongIndex,
    /// Another version of the protocol is spoken here.
    OtherVersion(u8),
    /// While a sender with the image is waited for, one offers another image of the same name.
    OtherImage(Box<Offer>),
}

/// How a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The image is there: verified, written, flushed.
    Done {
        /// Whether the sender knows.
        acknowledged: bool,
    },
    /// It is not.
    Failed(Failure),
}

/// Why a session failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// No sender was heard in time.
    NoSender,
    /// The only session with the image let nobody in any more.
    Ending(Box<Offer>),
    /// Only senders of another version were heard.
    OtherVersion(u8),
    /// Several images are on offer, and none was named.
    SeveralImages(Vec<Offer>),
    /// Only other images than the one wanted were on offer.
    NotOffered(Vec<Offer>),
    /// The session's datagrams do not fit.
    Mtu {
        /// Octets of its datagrams, without IP and UDP headers.
        datagram_octets: usize,
        /// MTU of the sender's interface; `None` where it was not asked.
        sender_mtu: Option<u16>,
    },
    /// The sender would not have us.
    Refused(RefuseReason),
    /// The sender put us out.
    Ejected(EjectReason),
    /// The sender is gone and none came in its place; its last words, if it had any.
    SenderGone(Option<String>),
    /// The sender's image is not any more what it announced, or cannot be read; its last words.
    ImageGone(String),
    /// The sender is there, but no block was completed for long.
    Stalled,
    /// A one-way session is over, and not all of it arrived.
    Lacking(Box<Lack>),
    /// A block kept being wrong.
    Block(BlockId),
    /// The index kept being wrong.
    Index,
    /// We were stopped.
    Interrupted,
    /// The driver said so by `handle_failure`, and knows why.
    Driver,
}

/// What a session looks like from outside, for people.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// What it is doing.
    pub stage: Stage,
    /// Blocks that are verified.
    pub verified_blocks: u32,
    /// Blocks that are still being looked for on the target.
    pub claimed_blocks: u32,
    /// Blocks of the image; 0 while none is chosen.
    pub blocks: u32,
    /// Octets of the image's symbols that came and were lacking.
    pub fetched_bytes: u64,
    /// Loss by the network since the last report.
    pub network_loss: f64,
    /// Receivers that the sender expects, and those that have joined.
    pub receivers: (u32, u32),
    /// How long the sender has been waiting to start, at most; `None` where no time is set.
    pub start_in_ms: Option<u32>,
    /// One way: the pass under way, from 1 once it has started, and how many there are.
    pub pass: Option<(u32, u32)>,
    /// Whether the data group is not heard.
    pub no_multicast: bool,
    /// For how long nothing has been heard of the sender.
    pub silence: Duration,
    /// Sessions on offer that are not ending.
    pub offers: usize,
    /// Whether there is none but such that are ending.
    pub is_ending: bool,
}

/// Symbols of the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Symbols {
    /// Those that came, wanted or not.
    pub received: u64,
    /// As many as it takes if none is lost, repeated or superfluous.
    pub needed: u64,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Looking for a sender.
    Listening,
    /// Asking to be let in.
    Joining,
    /// A member; the sender waits for others.
    Waiting,
    /// Receiving the index.
    Indexing,
    /// Receiving the image.
    Receiving,
    /// Without a sender: it went, and another may come.
    Orphaned,
    /// Everything is verified; the target is being flushed.
    Flushing,
    /// Telling the sender.
    Parting,
}
