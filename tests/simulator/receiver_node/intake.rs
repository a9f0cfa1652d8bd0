//! What lies between a receiver's link and its session: sockets that hold only so much, threads
//! that read them into batches, and the loop, which works those off one after the other.
//!
//! ```text
//!  link ─► socket ─► batches that the loop has not worked off ─► session
//!            └─► dropped
//! ```

use std::{collections::VecDeque, mem, net::SocketAddr, rc::Rc, time::Duration};

use imgcast_common::{
    id::SessionId,
    wire::{Header, Message, Role},
};
use imgcast_receiver::{
    pace::{Behind, Pace},
    session::Via,
};

use super::ReceiverNode;
use crate::{
    attach::Surroundings,
    config::{Fidelity, IntakeConfig},
    network::DATA_OCTETS,
    planted::PlantedBug,
    queue::{SymbolRun, Task},
};

/// What of a receiver takes time for what arrives.
#[derive(Debug)]
pub(super) struct Intake {
    config: IntakeConfig,
    /// How many arrivals a batch holds.
    slots: usize,
    sockets: [Queue; 2],
    /// Batches that wait for the loop; it works on the first.
    batches: VecDeque<Batch>,
    pace: Pace,
    /// Datagrams that the session knows to be dropped.
    overflowed: u64,
}

/// The sockets that are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Socket {
    /// That of the group.
    Group,
    /// The receiver's own.
    Own,
}

/// One socket and the thread that reads it.
#[derive(Debug)]
struct Queue {
    /// Each with how many datagrams had been dropped when it came.
    arrivals: VecDeque<(Arrival, u64)>,
    octets: usize,
    dropped: u64,
    /// How many of these the loop knows of.
    told: u64,
    /// Batches that are free to read into.
    free: usize,
    /// The reading thread looks at the socket no sooner.
    asleep_until: Duration,
    is_called: bool,
}

/// What the kernel queues as one.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) what: What,
    pub(crate) datagrams: u64,
    pub(crate) octets: usize,
}

/// A datagram, or a run of symbols that the kernel joins.
#[derive(Debug)]
pub(crate) enum What {
    Datagram {
        datagram: Rc<[u8]>,
        from: SocketAddr,
    },
    /// With a bit for each symbol that came.
    Run {
        run: Rc<SymbolRun>,
        session: SessionId,
        arrived: u64,
    },
}

#[derive(Debug)]
struct Batch {
    socket: Socket,
    arrivals: Vec<Arrival>,
    /// It did not empty the socket.
    more: bool,
    /// Datagrams that the socket had dropped when the last of them came.
    dropped: u64,
}

impl Intake {
    pub(super) fn new(around: &Surroundings, config: IntakeConfig) -> Self {
        let queue = |free| Queue {
            arrivals: VecDeque::new(),
            octets: 0,
            dropped: 0,
            told: 0,
            free,
            asleep_until: Duration::ZERO,
            is_called: false,
        };
        Self {
            config,
            slots: if around.fidelity == Fidelity::Rank { JOINED_SLOTS } else { PLAIN_SLOTS },
            sockets: [queue(GROUP_BATCHES), queue(OWN_BATCHES)],
            batches: VecDeque::new(),
            pace: Pace::new(around.instant()),
            overflowed: 0,
        }
    }

    /// False if the socket has no room.
    fn arrive(&mut self, socket: Socket, arrival: Arrival) -> bool {
        let queue = &mut self.sockets[socket as usize];
        if queue.octets + arrival.octets > self.config.buffer_bytes {
            queue.dropped += arrival.datagrams;
            return false;
        }
        queue.octets += arrival.octets;
        queue.arrivals.push_back((arrival, queue.dropped));
        true
    }

    /// How long until the socket is to be read, unless that is known or there is nothing to read.
    fn call(&mut self, now: Duration, socket: Socket) -> Option<Duration> {
        let queue = &mut self.sockets[socket as usize];
        if queue.is_called || queue.free == 0 || queue.arrivals.is_empty() {
            return None;
        }
        queue.is_called = true;
        Some(queue.asleep_until.saturating_sub(now))
    }

    /// Reads a batch; whether it is the only one.
    fn read(&mut self, now: Duration, socket: Socket) -> bool {
        let queue = &mut self.sockets[socket as usize];
        queue.is_called = false;
        queue.free -= 1;
        let count = queue.arrivals.len().min(self.slots);
        let dropped = queue.arrivals.get(count - 1).map_or(0, |(_, dropped)| *dropped);
        let arrivals: Vec<Arrival> = queue.arrivals.drain(..count).map(|(it, _)| it).collect();
        queue.octets -= octets(&arrivals);
        if count * 2 < self.slots && self.config.buffer_bytes >= GATHER_BUFFER_MIN {
            queue.asleep_until = now + GATHER;
        }
        self.batches.push_back(Batch { socket, arrivals, more: count == self.slots, dropped });
        self.batches.len() == 1
    }

    /// How long the first batch takes.
    fn begin(&self) -> Option<Duration> {
        let octets = octets(&self.batches.front()?.arrivals) as u64;
        Some(Duration::from_nanos(octets * 1_000_000_000 / self.config.bytes_per_second.max(1)))
    }
}

impl ReceiverNode {
    /// Whether what arrives this way has to wait until this host gets to it.
    pub(crate) fn socket(&self, via: Via) -> Option<Socket> {
        let socket = match via {
            Via::Group => Some(Socket::Group),
            Via::Unicast => Some(Socket::Own),
            Via::Rendezvous => None,
        };
        socket.filter(|_| self.intake.is_some())
    }

    /// A run of symbols without octets arrives, those of them whose bit is set.
    pub(crate) fn deliver_run(
        &mut self,
        around: &mut Surroundings,
        via: Via,
        run: &SymbolRun,
        session: SessionId,
        arrived: u64,
    ) {
        self.take_run(around, via, run, session, arrived);
        self.drain(around);
    }

    fn take_run(
        &mut self,
        around: &mut Surroundings,
        via: Via,
        run: &SymbolRun,
        session: SessionId,
        arrived: u64,
    ) {
        let Some(head) = run.burst.head(0) else { return };
        let (now, block) = (around.instant(), run.burst.block);
        let header = Header { session, stream: block.stream, counter: run.first_counter };
        let octets = self.store.as_ref().map_or(0, |it| it.layout.symbol_size().into());
        let kept = self.session.handle_symbols(now, via, &header, &head, octets, arrived);
        if let Some(store) = self.store.as_mut().filter(|_| kept != 0) {
            store.count(block, &head, kept.count_ones());
        } else if kept != 0 {
            around.safety(format!("{block} wanted before a session was chosen"));
        }
    }

    /// Something arrives at a socket.
    pub(crate) fn arrive(&mut self, around: &mut Surroundings, socket: Socket, arrival: Arrival) {
        let Some(intake) = &mut self.intake else { return };
        let datagrams = arrival.datagrams;
        if datagrams == 0 {
            return;
        }
        if intake.arrive(socket, arrival) {
            self.call_reader(around, socket);
        } else {
            self.drops.push((around.now, datagrams));
        }
    }

    fn call_reader(&mut self, around: &mut Surroundings, socket: Socket) {
        let wait = self.intake.as_mut().and_then(|intake| intake.call(around.now, socket));
        if let Some(wait) = wait {
            self.task_after(around, wait, Task::Read(socket));
        }
    }

    pub(super) fn on_read(&mut self, around: &mut Surroundings, socket: Socket) {
        let Some(intake) = &mut self.intake else { return };
        if intake.read(around.now, socket) {
            self.begin_work(around);
        }
        self.call_reader(around, socket);
    }

    fn begin_work(&mut self, around: &mut Surroundings) {
        if let Some(wait) = self.intake.as_ref().and_then(Intake::begin) {
            self.task_after(around, wait, Task::WorkedOff);
        }
    }

    /// The loop is through with a batch.
    pub(super) fn on_worked_off(&mut self, around: &mut Surroundings) {
        let Some(batch) = self.intake.as_mut().and_then(|it| it.batches.pop_front()) else {
            return;
        };
        let octets = octets(&batch.arrivals);
        let via = if batch.socket == Socket::Group { Via::Group } else { Via::Unicast };
        for arrival in batch.arrivals {
            match arrival.what {
                What::Datagram { datagram, from } => {
                    // What was damaged on its way and found out has never got here.
                    if let Ok((header, message)) = Message::parse(&datagram, Role::Receiver) {
                        self.take(around, via, from, &header, &message);
                    }
                }
                What::Run { run, session, arrived } => {
                    self.take_run(around, via, &run, session, arrived);
                }
            }
        }
        self.note_work(around, (batch.socket, batch.more), batch.dropped, octets);
        self.begin_work(around);
        self.call_reader(around, batch.socket);
    }

    /// Tells the session what the driver would.
    fn note_work(
        &mut self,
        around: &Surroundings,
        (socket, more): (Socket, bool),
        dropped: u64,
        octets: usize,
    ) {
        let Some(intake) = &mut self.intake else { return };
        let now = around.instant();
        let queue = &mut intake.sockets[socket as usize];
        queue.free += 1;
        let before = mem::replace(&mut queue.told, dropped);
        intake.overflowed += dropped - before;
        if dropped > before {
            self.session.handle_overflow(intake.overflowed);
        }
        let behind = Behind {
            crowded: intake.batches.len() >= GROUP_BATCHES / 2,
            more: (socket == Socket::Group).then_some(more),
            waited: self.session.lag(),
            room_bytes: intake.config.buffer_bytes,
        };
        if let Some(behind) = intake.pace.note(now, octets, behind)
            && !around.has(PlantedBug::PaceUntold)
        {
            self.session.handle_pace(now, behind);
        }
    }
}

/// A run of symbols, as far as it has arrived.
pub(crate) fn run_arrival(
    run: &Rc<SymbolRun>,
    session: SessionId,
    symbol_octets: usize,
    arrived: u64,
) -> Arrival {
    let datagrams = arrived.count_ones();
    let octets = datagrams as usize * (symbol_octets + DATA_OCTETS);
    let what = What::Run { run: Rc::clone(run), session, arrived };
    Arrival { what, datagrams: datagrams.into(), octets }
}

fn octets(arrivals: &[Arrival]) -> usize {
    arrivals.iter().map(|arrival| arrival.octets).sum()
}

/// As the receiver has them: batches of joined segments, or of single datagrams …
const JOINED_SLOTS: usize = 9;
const PLAIN_SLOTS: usize = 64;
/// … so many of them, half of which show that it is behind …
const GROUP_BATCHES: usize = 16;
const OWN_BATCHES: usize = 6;
/// … and a pause where little was to be read and the socket has room for what comes meanwhile.
const GATHER: Duration = Duration::from_millis(1);
const GATHER_BUFFER_MIN: usize = 3 << 20;
