//! What a session is told, what it gives out, and how it ends.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bits::BitSet,
    id::{BlockId, EncodingSymbolId, ImageId, ReceiverId, SessionId, Stream},
    layout::Layout,
    sectors::SectorSize,
    wire::{AbortReason, Message, Name, SenderState},
};

use super::{Burst, OneWay};

/// What a session is told at its start and never changes.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The session's number; its low bits gave the data group.
    pub session: SessionId,
    /// The image's hash.
    pub image: ImageId,
    /// The hash of the index.
    pub index_hash: [u8; 32],
    /// How the image is cut.
    pub layout: Layout,
    /// Blocks that are all zero: never sent.
    pub zero_blocks: BitSet,
    /// What people call the image.
    pub name: Name,
    /// What the image's GPT counts in, if it has one.
    pub sector_size: Option<SectorSize>,
    /// The group and port of DATA and SYNC.
    pub data_group: SocketAddr,
    /// Where unicast is taken.
    pub unicast_port: u16,
    /// MTU of the interface, for REFUSE.
    pub mtu: u16,
    /// Start when so many have joined …
    pub receivers_min: u32,
    /// … and this has passed since the first one did …
    pub wait_min: Duration,
    /// … or when this has, whoever is missing.
    pub wait_max: Option<Duration>,
    /// Give up if nobody joins for so long.
    pub start_timeout: Option<Duration>,
    /// Rate to begin with, in bits per second on the wire; `None`: find it out.
    pub rate_start: Option<u64>,
    /// Rate never to exceed, in bits per second on the wire.
    pub rate_max: u64,
    /// Nobody can answer: how it is sent then, at `rate_max`, without waiting for anybody.
    pub one_way: Option<OneWay>,
    /// Octets that a datagram's payload grows by on the wire: UDP, IP and Ethernet with gap.
    pub framing_octets: u16,
    /// What becomes of receivers that are much slower than the others.
    pub slow_receivers: SlowReceivers,
}

/// What becomes of receivers that are much slower than the others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SlowReceivers {
    /// The others do not wait for them: they keep what they can, and get the rest afterwards.
    #[default]
    Detach,
    /// The others wait for them.
    Wait,
    /// They are sent away.
    Drop,
}

/// What makes a receiver slower than the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slow {
    /// Its disk, its processors or its sockets take less than is sent.
    Host {
        /// What they take, in bits per second on the wire.
        takes: u64,
        /// What was sent then.
        of: u64,
    },
    /// The way to it carries less than is sent.
    Path {
        /// What it carries, in bits per second on the wire.
        carries: u64,
        /// What was sent then.
        of: u64,
    },
    /// It loses such a share of what is sent, and the others far less.
    Loss(f64),
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Destination {
    /// The rendezvous group.
    Rendezvous,
    /// The data group.
    Group,
    /// One receiver.
    Unicast(SocketAddr),
}

/// Something to send.
#[derive(Clone, Debug)]
pub enum Transmit {
    /// A message, now.
    Message {
        /// Where to.
        to: Destination,
        /// Of which stream it speaks.
        stream: Stream,
        /// What.
        message: Box<Message<'static>>,
        /// Octets that the datagram is filled up to.
        octets_min: usize,
    },
    /// Symbols of one block, at their time.
    Burst(Burst),
}

/// Number of a turn, to name its symbols by while they are fetched and sent.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TurnId(pub u64);

/// Something for the driver to do or to tell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Fetch a block and make so many repair symbols, then call `handle_turn_ready`.
    TurnWanted {
        /// The turn that needs them.
        turn: TurnId,
        /// The block.
        block: BlockId,
        /// The first repair symbol.
        first_repair: EncodingSymbolId,
        /// How many.
        repairs: u32,
    },
    /// The symbols of a turn have been handed out: what was fetched can go.
    TurnOver(TurnId),
    /// Sending begins: all are there, time is up, or the operator waits for nobody else.
    Started,
    /// A receiver joined.
    Joined(ReceiverId),
    /// A member's state changed: see the roster.
    Changed(ReceiverId),
    /// A member was detached, or is not any more: see the roster.
    Detached(ReceiverId),
    /// The session is over.
    Finished(Outcome),
}

/// How a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It ran to its end.
    Ended {
        /// Receivers that were expected: asked for, or joined if these are more.
        expected: u32,
        /// Receivers that have the image.
        done: u32,
    },
    /// Nobody joined in time.
    NoReceivers,
    /// It was stopped.
    Aborted(AbortReason),
}

/// What a session looks like from outside, for people.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// What it is doing.
    pub state: SenderState,
    /// Members that take part and are not finished.
    pub active: u32,
    /// Members that have the image.
    pub done: u32,
    /// Members that failed, left or are lost.
    pub gone: u32,
    /// Receivers that are expected.
    pub expected: u32,
    /// Members that hear no multicast.
    pub without_multicast: u32,
    /// Members that the others do not wait for.
    pub detached: u32,
    /// One way: the pass under way, from 1 once it has started, and how many there are.
    pub pass: Option<(u8, u8)>,
    /// Mean share of the image that the members have verified; one way: the share that is sent.
    pub progress: f64,
    /// The rate that is paced, in bits per second on the wire.
    pub rate: u64,
    /// The loss that the rate goes by.
    pub loss: f64,
    /// Proactive repair, as a share of S.
    pub repair_share: f64,
    /// When sending begins at the latest, if it waits.
    pub starts_at: Option<Instant>,
    /// When waiting for the first receiver ends.
    pub gives_up_at: Option<Instant>,
}
