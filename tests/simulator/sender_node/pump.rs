//! What lies between a sender's session and a link that takes only so much: the queue of the
//! thread that sends, and the socket, which makes that thread wait while its buffer is full.

use std::{
    collections::VecDeque,
    rc::Rc,
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{SessionId, Stream},
    wire::{Header, Message},
};
use imgcast_sender::{
    driver::PUMP_WAIT,
    parameters::send_buffer,
    pump::{MESSAGE_OCTETS, queue_octets},
    session::{Burst, Destination, Transmit},
};

use super::{SenderNode, TurnData};
use crate::{
    attach::Surroundings,
    network::{DATA_OCTETS, time_for},
    planted::PlantedBug,
    queue::Happening,
};

/// Sends one thing after the other, each burst no sooner than at its time.
#[derive(Debug)]
pub(super) struct Pump {
    bits_per_second: u64,
    waiting: VecDeque<Waiting>,
    waiting_octets: usize,
    /// When the link has sent what the socket has taken.
    busy_until: Duration,
    /// When the first of those that wait is looked at.
    alarm: Option<Duration>,
}

/// Something that a link carries.
#[derive(Debug)]
pub(crate) enum Cargo {
    Message { to: Destination, stream: Stream, message: Box<Message<'static>>, octets_min: usize },
    Burst { burst: Burst, turn: Rc<TurnData> },
}

#[derive(Debug)]
struct Waiting {
    cargo: Cargo,
    at: Duration,
    /// What it counts as in the queue.
    octets: usize,
    /// How long it takes on the link.
    takes: Duration,
}

impl Pump {
    pub(super) const fn new(bits_per_second: u64) -> Self {
        Self {
            bits_per_second,
            waiting: VecDeque::new(),
            waiting_octets: 0,
            busy_until: Duration::ZERO,
            alarm: None,
        }
    }

    fn push(&mut self, waiting: Waiting) {
        self.waiting_octets += waiting.octets;
        self.waiting.push_back(waiting);
    }

    /// When the socket, whose buffer is the one for `rate`, takes what is next.
    fn takes_next_at(&self, rate: u64) -> Option<Duration> {
        let octets = u64::try_from(send_buffer(rate)).unwrap_or(u64::MAX);
        let buffer = Duration::from_nanos(octets * 8 * 1_000_000_000 / self.bits_per_second);
        let room_at = self.busy_until.saturating_sub(buffer);
        self.waiting.front().map(|next| next.at.max(room_at))
    }

    /// What the socket takes now, and when that has left.
    fn next(&mut self, now: Duration, rate: u64) -> Option<(Cargo, Duration)> {
        self.takes_next_at(rate).filter(|at| *at <= now)?;
        let next = self.waiting.pop_front()?;
        self.waiting_octets -= next.octets;
        self.busy_until = self.busy_until.max(now) + next.takes;
        Some((next.cargo, self.busy_until))
    }
}

impl SenderNode {
    /// Whether more may be handed over.
    pub(super) fn has_room(&self) -> bool {
        let octets_max = queue_octets(self.session.rate());
        self.pump.as_ref().is_none_or(|pump| pump.waiting_octets < octets_max)
    }

    /// When to ask the session again, which is told if it has handed over more than leaves.
    pub(super) fn asked_again_at(&mut self, around: &Surroundings) -> Instant {
        if self.has_room() {
            return self.session.poll_timeout();
        }
        if !around.has(PlantedBug::BacklogUntold) {
            self.session.handle_backlog();
        }
        around.instant() + PUMP_WAIT
    }

    /// Puts something in front of the link, to leave when all before it has left.
    pub(super) fn hand_over(&mut self, around: &mut Surroundings, transmit: Transmit) {
        let Some(pump) = &mut self.pump else { return };
        let bits_per_second = pump.bits_per_second;
        pump.push(match transmit {
            Transmit::Message { to, stream, message, octets_min } => {
                let header = Header { session: SessionId::NONE, stream, counter: 1 };
                let on_wire = message.emit(&header, octets_min).len();
                let cargo = Cargo::Message { to, stream, message, octets_min };
                let takes = time_for(on_wire, bits_per_second);
                Waiting { cargo, at: Duration::ZERO, octets: MESSAGE_OCTETS, takes }
            }
            Transmit::Burst(burst) => {
                let Some(turn) = self.turns.get(&burst.turn).map(Rc::clone) else {
                    return around.safety(format!("{burst:?} of a turn that is over"));
                };
                let symbol_octets = usize::from(self.image.layout.symbol_size());
                let takes = time_for(symbol_octets + DATA_OCTETS, bits_per_second) * burst.count;
                let octets = burst.count as usize * symbol_octets;
                let at = around.since_start(burst.at);
                Waiting { cargo: Cargo::Burst { burst, turn }, at, octets, takes }
            }
        });
        self.set_pump(around);
    }

    /// The socket may take something.
    pub(crate) fn pump(&mut self, around: &mut Surroundings) {
        let rate = self.session.rate();
        let Some(pump) = self.pump.as_mut().filter(|pump| pump.alarm == Some(around.now)) else {
            return;
        };
        pump.alarm = None;
        while let Some((cargo, at)) = pump.next(around.now, rate) {
            around.queue.push(at, Happening::Left { sender: self.number, cargo });
        }
        self.set_pump(around);
    }

    fn set_pump(&mut self, around: &mut Surroundings) {
        let rate = self.session.rate();
        let Some(pump) = &mut self.pump else { return };
        let Some(at) = pump.takes_next_at(rate).map(|at| at.max(around.now)) else { return };
        if pump.alarm.is_none_or(|alarm| at < alarm) {
            pump.alarm = Some(at);
            around.queue.push(at, Happening::Pump(self.number));
        }
    }

    /// Something has left the link.
    pub(crate) fn left(&mut self, around: &mut Surroundings, cargo: Cargo) {
        match cargo {
            _ if self.crashed => {}
            Cargo::Message { to, stream, message, octets_min } => {
                self.send(around, to, stream, &message, octets_min);
            }
            Cargo::Burst { burst, turn } => self.burst(around, burst, &turn),
        }
    }
}
