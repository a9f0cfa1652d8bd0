//! A sender: its session, a model of the threads that prepare its turns, and its counters.

mod pump;

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use imgcast_common::{
    fec::repair_symbols,
    id::{BlockId, EncodingSymbolId, ReceiverId, SessionId, Stream},
    prng::Prng,
    wire::{DataHead, End, Header, Message, Name, UNICAST, data_trailer},
};
use imgcast_sender::session::{
    Burst, Destination, Event, Outcome, Session, SessionConfig, Transmit, TurnId,
};

pub(crate) use pump::Cargo;
use pump::Pump;

use crate::{
    attach::{Alarm, Outgoing, Surroundings, group_address, sender_address},
    config::{Fidelity, SenderConfig},
    image::{Image, shape},
    network::FRAMING_OCTETS,
    planted::{PlantedBug, mutilated, nearly_done},
    queue::{Happening, SymbolRun},
    receiver_node::is_source,
};

/// One run of a sender.
#[derive(Debug)]
pub(crate) struct SenderNode {
    number: usize,
    pub(crate) config: usize,
    pub(crate) address: SocketAddr,
    pub(crate) session: Session,
    pub(crate) id: SessionId,
    pub(crate) image: Rc<Image>,
    pub(crate) group: SocketAddr,
    turn_delay: Duration,
    prng: Prng,
    alarm: Alarm,
    group_counter: u64,
    unicast_counter: u64,
    turns: BTreeMap<TurnId, Rc<TurnData>>,
    /// In front of a link that takes only so much.
    pump: Option<Pump>,
    /// What the rate has been, and since when.
    pub(crate) rates: Vec<(Duration, u64)>,
    /// Symbols of the image that were sent to the group.
    pub(crate) image_symbols: u64,
    /// What its roster claims about receivers, to be looked into.
    pub(crate) claims: Vec<ReceiverId>,
    /// Who was detached, or taken back.
    pub(crate) detached: Vec<(Duration, SocketAddr, bool)>,
    early_end: bool,
    pub(crate) started_at: Option<Duration>,
    pub(crate) outcome: Option<(Outcome, Duration)>,
    pub(crate) crashed: bool,
}

/// What the symbols of a turn are made of.
#[derive(Debug)]
pub(crate) struct TurnData {
    first_repair: EncodingSymbolId,
    /// T octets each.
    repairs: Vec<u8>,
}

impl SenderNode {
    pub(crate) fn new(
        around: &Surroundings,
        number: usize,
        position: usize,
        config: &SenderConfig,
        image: Rc<Image>,
        seed: u64,
    ) -> Self {
        let mut prng = Prng::new(seed);
        let id = SessionId(prng.bits() | 1);
        let address = sender_address(position);
        let Some(name) = Name::new(&format!("image-{}", config.image)) else {
            unreachable!("a plain name")
        };
        let session_config = SessionConfig {
            session: id,
            image: image.id,
            index_hash: image.index_hash,
            layout: image.layout,
            zero_blocks: image.index.zero().clone(),
            name,
            sector_size: None,
            data_group: group_address(config.group),
            unicast_port: address.port(),
            mtu: 1_500,
            receivers_min: config.receivers_min,
            wait_min: config.wait_min,
            wait_max: config.wait_max,
            start_timeout: Some(START_TIMEOUT),
            rate_start: config.rate_start,
            rate_max: config.rate_max,
            one_way: config.one_way,
            framing_octets: u16::try_from(FRAMING_OCTETS).unwrap_or(0),
            slow_receivers: config.slow_receivers,
        };
        Self {
            number,
            config: position,
            address,
            session: Session::new(session_config, prng.bits(), around.instant()),
            id,
            image,
            group: group_address(config.group),
            turn_delay: config.turn_delay,
            prng,
            alarm: Alarm::new(),
            group_counter: 0,
            unicast_counter: 0,
            turns: BTreeMap::new(),
            pump: config.link_bits_per_second.map(Pump::new),
            rates: Vec::new(),
            image_symbols: 0,
            claims: Vec::new(),
            detached: Vec::new(),
            early_end: false,
            started_at: None,
            outcome: None,
            crashed: false,
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        !self.crashed && self.outcome.is_none()
    }

    pub(crate) fn wake(&mut self, around: &mut Surroundings) {
        if !self.is_up() || !self.alarm.rings(around.now) {
            return;
        }
        if self.alarm.is_busy_loop() {
            around.safety(format!("sender {} spins: {:?}", self.number, self.session.status()));
            self.crashed = true;
            return;
        }
        let now = around.instant();
        if self.session.poll_timeout() <= now {
            self.session.handle_timeout(now);
        }
        self.drain(around);
    }

    /// A datagram arrives that was parsed.
    pub(crate) fn deliver(
        &mut self,
        around: &mut Surroundings,
        from: SocketAddr,
        header: &Header,
        message: &Message<'_>,
        octets: usize,
    ) {
        let now = around.instant();
        match message {
            Message::Need(need) => {
                let need = mutilated(around, need);
                let done = nearly_done(around, &need, &self.image);
                let message = Message::Need(need);
                self.session.handle_message(now, from, header, &message, octets);
                if let Some(done) = done {
                    self.session.handle_message(now, from, header, &Message::Done(done), octets);
                }
            }
            _ => self.session.handle_message(now, from, header, message, octets),
        }
        self.drain(around);
    }

    pub(crate) fn turn_ready(&mut self, around: &mut Surroundings, turn: TurnId) {
        if self.is_up() {
            self.session.handle_turn_ready(turn);
            self.drain(around);
        }
    }

    /// Sends and does what the session wants, and sets the alarm.
    pub(crate) fn drain(&mut self, around: &mut Surroundings) {
        let mut again = true;
        while again {
            again = false;
            while self.has_room()
                && let Some(transmit) = self.session.poll_transmit(around.instant())
            {
                self.transmit(around, transmit);
            }
            while let Some(event) = self.session.poll_event() {
                around.note(self.number as u64, || format!("sender {} {event:?}", self.number));
                again |= self.obey(around, event);
            }
        }
        self.end_too_early(around);
        self.note_rate(around.now);
        if self.is_up() {
            let deadline = self.asked_again_at(around);
            self.alarm.set(around, Some(deadline), Happening::WakeSender(self.number));
        }
    }

    fn note_rate(&mut self, now: Duration) {
        let rate = self.session.rate();
        if self.rates.last().is_none_or(|(_, last)| *last != rate) {
            self.rates.push((now, rate));
        }
    }

    /// Returns whether the session has been told something.
    fn obey(&mut self, around: &mut Surroundings, event: Event) -> bool {
        match event {
            Event::TurnWanted { turn, block, first_repair, repairs } => {
                let data = self.prepare(around, block, first_repair, repairs);
                self.turns.insert(turn, Rc::new(data));
                let micros = u64::try_from(self.turn_delay.as_micros()).unwrap_or(0);
                let delay = Duration::from_micros(self.prng.below(micros + 1));
                if delay.is_zero() {
                    self.session.handle_turn_ready(turn);
                    return true;
                }
                around.after(delay, Happening::TurnReady { sender: self.number, turn });
            }
            Event::TurnOver(turn) => drop(self.turns.remove(&turn)),
            Event::Changed(id) => self.claims.push(id),
            Event::Finished(outcome) => self.outcome = Some((outcome, around.now)),
            Event::Started => self.started_at = Some(around.now),
            Event::Detached(id) => {
                let member = self.session.member(id);
                self.detached.extend(member.map(|it| (around.now, it.address, it.detached)));
            }
            Event::Joined(_) => {}
        }
        false
    }

    fn prepare(
        &self,
        around: &mut Surroundings,
        block: BlockId,
        first_repair: EncodingSymbolId,
        repairs: u32,
    ) -> TurnData {
        if around.fidelity == Fidelity::Rank || repairs == 0 {
            return TurnData { first_repair, repairs: Vec::new() };
        }
        let shape = shape(&self.image.layout_of(block.stream), block.number);
        let coded = repair_symbols(&shape, self.image.block(block), first_repair, repairs);
        let repairs = coded.unwrap_or_else(|error| {
            around.safety(format!("{block} from {first_repair:?}, {repairs}: {error}"));
            Vec::new()
        });
        TurnData { first_repair, repairs }
    }

    fn transmit(&mut self, around: &mut Surroundings, transmit: Transmit) {
        match transmit {
            _ if self.pump.is_some() => self.hand_over(around, transmit),
            Transmit::Burst(burst) => {
                let Some(turn) = self.turns.get(&burst.turn) else {
                    return around.safety(format!("{burst:?} of a turn that is over"));
                };
                let at = around.since_start(burst.at);
                let turn = Rc::clone(turn);
                around.queue.push(at, Happening::Burst { sender: self.number, burst, turn });
            }
            Transmit::Message { to, stream, message, octets_min } => {
                self.send(around, to, stream, &message, octets_min);
            }
        }
    }

    fn send(
        &mut self,
        around: &mut Surroundings,
        to: Destination,
        stream: Stream,
        message: &Message<'static>,
        octets_min: usize,
    ) {
        let unheard = match message {
            Message::Sync(_) => around.has(PlantedBug::SyncNeverSent),
            Message::DoneAck(_) => {
                around.has(PlantedBug::AckOnlyToGroup) && to != Destination::Group
            }
            _ => false,
        };
        if unheard {
            return;
        }
        let header = self.header(around, to, stream);
        let datagram: Rc<[u8]> = message.emit(&header, octets_min).into();
        around.note(header.counter, || {
            format!("sender {} says to {to:?} #{}: {message:?}", self.number, header.counter)
        });
        if to == Destination::Group {
            around.checker.on_group_message(around.now, self.id, message);
        }
        around.outbox.push(Outgoing::FromSender { sender: self.number, to, datagram });
    }

    /// The next header for a destination.
    fn header(&mut self, around: &mut Surroundings, to: Destination, stream: Stream) -> Header {
        let counter = if to == Destination::Group {
            let reused = around.has(PlantedBug::CounterReused)
                && self.group_counter > 0
                && self.prng.below(64) == 0;
            self.group_counter += u64::from(!reused);
            around.checker.on_group_counter(around.now, self.id, self.group_counter, 1);
            self.group_counter
        } else {
            self.unicast_counter += 1;
            UNICAST | self.unicast_counter
        };
        Header { session: self.id, stream, counter }
    }

    /// A burst leaves.
    pub(crate) fn burst(&mut self, around: &mut Surroundings, burst: Burst, turn: &TurnData) {
        if self.crashed {
            return;
        }
        if burst.to == Destination::Group && burst.block.stream == Stream::Image {
            self.image_symbols += u64::from(burst.count);
        }
        around.checker.on_burst(around.now, self.id, &burst);
        if around.fidelity == Fidelity::Rank {
            let first_counter = if burst.to == Destination::Group {
                let first = self.group_counter + 1;
                self.group_counter += u64::from(burst.count);
                around.checker.on_group_counter(around.now, self.id, first, burst.count);
                first
            } else {
                self.unicast_counter += u64::from(burst.count);
                (UNICAST | self.unicast_counter) + 1 - u64::from(burst.count)
            };
            let sender = self.number;
            let run = SymbolRun { sender, burst, first_counter, lost: 0, racks_lost: Vec::new() };
            around.note(first_counter, || format!("sender {} {burst:?}", self.number));
            around.outbox.push(Outgoing::Run { run });
            return;
        }
        let layout = self.image.layout_of(burst.block.stream);
        let size = usize::from(layout.symbol_size());
        for position in 0..burst.count {
            let Some(mut head) = burst.head(position) else {
                return around.safety(format!("{burst:?} has no symbol {position}"));
            };
            let mut symbol = self.symbol(turn, burst.block, &head, size);
            symbol.resize(size, 0);
            if !is_source(&head, layout.symbol_size()) && around.has(PlantedBug::RepairRepeated) {
                let first = shape(&layout, burst.block.number).padded_symbols();
                head.esi = EncodingSymbolId::new(first).unwrap_or(head.esi);
            }
            let header = self.header(around, burst.to, burst.block.stream);
            around.checker.on_symbol(around.now, &header, &head, layout.symbol_size(), &symbol);
            around.note(header.counter, || {
                format!("sender {} to {:?} {header:?} {head:?}", self.number, burst.to)
            });
            let mut datagram = head.emit(&header, layout.symbol_size()).to_vec();
            let trailer = match datagram.as_slice().try_into() {
                Ok(head) => data_trailer(head, &symbol),
                Err(_) => unreachable!("a head has a fixed length"),
            };
            datagram.extend_from_slice(&symbol);
            datagram.extend_from_slice(&trailer);
            let (sender, to) = (self.number, burst.to);
            around.outbox.push(Outgoing::FromSender { sender, to, datagram: datagram.into() });
        }
    }

    fn symbol(&self, turn: &TurnData, block: BlockId, head: &DataHead, size: usize) -> Vec<u8> {
        if let Some(repair) = head.esi.get().checked_sub(turn.first_repair.get())
            && !turn.repairs.is_empty()
        {
            return turn.repairs.chunks(size).nth(repair as usize).unwrap_or(&[]).to_vec();
        }
        let source = self.image.block(block).chunks(size).nth(head.esi.get() as usize);
        source.unwrap_or(&[]).to_vec()
    }

    fn end_too_early(&mut self, around: &mut Surroundings) {
        if !around.has(PlantedBug::EndTooEarly) || self.early_end {
            return;
        }
        let status = self.session.status();
        if status.done > 0 && status.active > 0 {
            self.early_end = true;
            let end = Message::End(End { complete: true, text: "all have it".into() });
            self.send(around, Destination::Group, Stream::Image, &end, 0);
        }
    }
}

/// A sender that nobody joins gives up.
const START_TIMEOUT: Duration = Duration::from_secs(60);
