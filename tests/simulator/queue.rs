//! What is to happen, in order of time and, within a moment, of arrival in the queue.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use imgcast_common::id::BlockId;
use imgcast_receiver::session::Via;
use imgcast_sender::session::{Burst, TurnId};

use crate::{
    receiver_node::Socket,
    sender_node::{Cargo, TurnData},
    store::Judged,
};

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Happening {
    StartSender {
        config: usize,
        restarted: bool,
    },
    StartReceiver {
        config: usize,
    },
    CrashSender {
        config: usize,
    },
    CrashReceiver {
        config: usize,
    },
    WakeSender(usize),
    WakeReceiver(usize),
    /// A datagram arrives at some receivers, the same for all of them.
    Deliver {
        datagram: Rc<[u8]>,
        from: SocketAddr,
        via: Via,
        to: Rc<[u32]>,
        altered: bool,
    },
    /// A run of symbols without octets arrives; what is lost is drawn on arrival.
    Run {
        run: Rc<SymbolRun>,
        via: Via,
        to: Rc<[u32]>,
    },
    /// A datagram arrives at a sender.
    Feedback {
        datagram: Rc<[u8]>,
        from: SocketAddr,
        to: usize,
        altered: bool,
    },
    /// A burst leaves.
    Burst {
        sender: usize,
        burst: Burst,
        turn: Rc<TurnData>,
    },
    /// A sender's socket may take what waits for it.
    Pump(usize),
    /// Something has left a sender's own link.
    Left {
        sender: usize,
        cargo: Cargo,
    },
    TurnReady {
        sender: usize,
        turn: TurnId,
    },
    Task {
        receiver: usize,
        task: Task,
    },
}

/// Symbols of one block with consecutive counters, without their octets.
#[derive(Debug)]
pub(crate) struct SymbolRun {
    pub(crate) sender: usize,
    pub(crate) burst: Burst,
    pub(crate) first_counter: u64,
    /// Those that the shared part of the network lost, a bit for each.
    pub(crate) lost: u64,
    /// Those that were lost on the way to each rack.
    pub(crate) racks_lost: Vec<u64>,
}

impl SymbolRun {
    /// Those that are left for a receiver in this rack, a bit for each.
    pub(crate) fn left(&self, rack: usize) -> u64 {
        let all = u64::MAX.checked_shr(64 - self.burst.count).unwrap_or(0);
        all & !self.lost & !self.racks_lost.get(rack).copied().unwrap_or(0)
    }
}

/// Something that a receiver's other threads have done.
#[derive(Debug)]
pub(crate) enum Task {
    /// A socket is read.
    Read(Socket),
    /// What was read before all else has been worked off.
    WorkedOff,
    Joined,
    Judged {
        block: BlockId,
        judged: Judged,
        cut: u32,
    },
    Stored {
        block: u32,
        bytes: Option<Vec<u8>>,
    },
    WriteFailed,
    /// Blocks are not on the target after all; where it is a disk, not even tried.
    Lost {
        blocks: Vec<u32>,
        /// Whether they were being written.
        writing: bool,
    },
    ZeroJudged {
        block: u32,
        right: bool,
    },
    IndexJudged {
        cut: u32,
    },
    /// A block was looked for on the target.
    Searched {
        block: u32,
    },
    Flushed,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
}

#[derive(Debug)]
struct Entry {
    at: Duration,
    sequence: u64,
    happening: Happening,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Duration, happening: Happening) {
        self.sequence += 1;
        self.heap.push(Reverse(Entry { at, sequence: self.sequence, happening }));
    }

    pub(crate) fn pop(&mut self) -> Option<(Duration, Happening)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.happening))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
