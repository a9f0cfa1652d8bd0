//! A receiver: its session, what it holds, and models of its sockets, its decoder threads
//! and its disk.

mod intake;
mod work;

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use imgcast_common::{
    id::{BlockId, EncodingSymbolId, SessionId},
    prng::Prng,
    wire::{Data, DataHead, Header, Message},
};
use imgcast_receiver::{
    image::DrainRate,
    memory::Memory,
    session::{
        Event, Notice, Offer, Outcome, Session, SessionConfig, Transmit, Verdict, Via, Wanted,
    },
};

use intake::Intake;

pub(crate) use intake::{Arrival, Socket, What, run_arrival};

use crate::{
    attach::{Alarm, Outgoing, Surroundings, WAKES_AT_ONCE_MAX, receiver_address},
    checker::NeedBudget,
    config::ReceiverConfig,
    image::Image,
    planted::PlantedBug,
    queue::{Happening, Task},
    store::{Kept, Store},
};

/// One run of a receiver.
#[derive(Debug)]
pub(crate) struct ReceiverNode {
    number: usize,
    /// Position of its configuration, and of its host.
    pub(crate) host: usize,
    pub(crate) address: SocketAddr,
    config: ReceiverConfig,
    pub(crate) session: Session,
    prng: Prng,
    alarm: Alarm,
    counter: u64,
    pub(crate) offer: Option<Rc<Offer>>,
    truth: Option<Rc<Image>>,
    pub(crate) store: Option<Store>,
    /// What an earlier run left on the target.
    pub(crate) kept: Option<Kept>,
    /// The data group that it listens to.
    pub(crate) group: Option<SocketAddr>,
    /// Changes when blocks are cut anew: what was judged before does not count.
    cut: u32,
    judging: BTreeMap<BlockId, u32>,
    writing: u32,
    writes: u32,
    flushes: u32,
    disk_free_at: Duration,
    /// What the disk has proved to take.
    drain: DrainRate,
    stored: u32,
    /// Where not everything is got through at once.
    intake: Option<Intake>,
    /// Datagrams that its sockets had no room for, and when.
    pub(crate) drops: Vec<(Duration, u64)>,
    joins_sent: u32,
    need_budget: NeedBudget,
    pub(crate) welcomed: bool,
    /// Whether END or ABORT of its session came.
    pub(crate) heard_end: bool,
    /// Whether everything was on its target when it was flushed.
    pub(crate) flushed: bool,
    /// When it was.
    pub(crate) flushed_at: Option<Duration>,
    pub(crate) polluted: u32,
    /// Whether it told its sender that it failed, or that it goes.
    pub(crate) gave_up: bool,
    pub(crate) outcome: Option<(Outcome, Duration)>,
    pub(crate) crashed: bool,
}

impl ReceiverNode {
    pub(crate) fn new(
        around: &Surroundings,
        number: usize,
        host: usize,
        config: &ReceiverConfig,
        ask: Option<SocketAddr>,
        seed: u64,
    ) -> Self {
        let block_size = around.images[config.wants.unwrap_or(0)].layout.block_size();
        let wanted = config.wants.map_or(Wanted::Any, |it| Wanted::Image(around.images[it].id));
        let mut key = [0; 16];
        key[..8].copy_from_slice(&host.to_be_bytes());
        let session_config = SessionConfig {
            wanted,
            host: format!("host-{host}"),
            key,
            resumes: config.resumes,
            target_bytes: None,
            memory: Memory::for_blocks(config.memory_blocks, block_size),
            datagram_octets_max: 1_472,
            start_timeout: Some(START_TIMEOUT),
            receive_timeout: config.receive_timeout,
            ask: ask.filter(|_| config.asks),
        };
        let mut prng = Prng::new(seed);
        Self {
            number,
            host,
            address: receiver_address(host, number),
            config: config.clone(),
            session: Session::new(session_config, prng.bits(), around.instant()),
            prng,
            alarm: Alarm::new(),
            counter: 0,
            offer: None,
            truth: None,
            store: None,
            kept: None,
            group: None,
            cut: 0,
            judging: BTreeMap::new(),
            writing: 0,
            writes: 0,
            flushes: 0,
            disk_free_at: Duration::ZERO,
            drain: DrainRate::default(),
            stored: 0,
            intake: config.intake.map(|intake| Intake::new(around, intake)),
            drops: Vec::new(),
            joins_sent: 0,
            need_budget: NeedBudget::default(),
            welcomed: false,
            heard_end: false,
            flushed: false,
            flushed_at: None,
            polluted: 0,
            gave_up: false,
            outcome: None,
            crashed: false,
        }
    }

    pub(crate) const fn is_up(&self) -> bool {
        !self.crashed && self.outcome.is_none()
    }

    pub(crate) fn session_id(&self) -> Option<SessionId> {
        self.offer.as_ref().map(|offer| offer.session)
    }

    /// Whether its target holds the image.
    pub(crate) fn is_right(&self) -> bool {
        let (Some(truth), Some(store)) = (&self.truth, &self.store) else { return false };
        store.holds(&truth.bytes)
    }

    pub(crate) fn wake(&mut self, around: &mut Surroundings) {
        if !self.is_up() || !self.alarm.rings(around.now) {
            return;
        }
        self.drain(around);
    }

    /// A datagram that was parsed arrives.
    pub(crate) fn deliver(
        &mut self,
        around: &mut Surroundings,
        via: Via,
        from: SocketAddr,
        header: &Header,
        message: &Message<'_>,
    ) {
        self.take(around, via, from, header, message);
        self.drain(around);
    }

    fn take(
        &mut self,
        around: &mut Surroundings,
        via: Via,
        from: SocketAddr,
        header: &Header,
        message: &Message<'_>,
    ) {
        let mut header = *header;
        if let Message::Data(data) = message {
            if let Some(own) = self.session_id().filter(|_| around.has(SESSION_CHECK_SKIPPED)) {
                header.session = own;
            }
            self.take_symbol(around, via, &header, data);
        } else {
            let own = self.session_id() == Some(header.session);
            self.heard_end |= own && matches!(message, Message::End(_) | Message::Abort(_));
            self.session.handle_message(around.instant(), via, from, &header, message);
        }
    }

    fn take_symbol(
        &mut self,
        around: &mut Surroundings,
        via: Via,
        header: &Header,
        data: &Data<'_>,
    ) {
        let (now, octets) = (around.instant(), data.symbol.len());
        let verdict = self.session.handle_symbol(now, via, header, &data.head, octets);
        if !matches!(verdict, Verdict::Wanted | Verdict::Enough) {
            return;
        }
        let block = BlockId { stream: header.stream, number: data.head.block };
        let Some(store) = &mut self.store else {
            return around.safety(format!("{block} wanted before a session was chosen"));
        };
        if let Err(problem) = store.insert(block, &data.head, data.symbol) {
            around.safety(format!("receiver {}: {problem}", self.number));
        }
    }

    /// One of its other threads is done with something.
    pub(crate) fn finish_task(&mut self, around: &mut Surroundings, task: Task) {
        if !self.is_up() {
            return;
        }
        let now = around.instant();
        match task {
            Task::Read(socket) => return self.on_read(around, socket),
            Task::WorkedOff => self.on_worked_off(around),
            Task::Joined => self.session.handle_joined(now),
            Task::Judged { block, judged, cut } => self.on_judged(around, block, judged, cut),
            Task::Stored { block, bytes } => {
                let elsewhere = around.has(PlantedBug::WrittenElsewhere);
                let blocks = self.store.as_ref().map_or(1, |store| store.layout.blocks());
                let place = if elsewhere { (block + 1) % blocks } else { block };
                if let Some(store) = &mut self.store {
                    store.write(place, bytes.as_deref());
                }
                self.writing -= 1;
                self.session.handle_stored(now, block);
                self.stored += 1;
            }
            Task::WriteFailed => {
                let text = "cannot write to the target: no space left on device";
                self.session.handle_failure(now, 5, text);
            }
            Task::Lost { blocks, writing } => self.on_lost(around, &blocks, writing),
            Task::ZeroJudged { block, right } => self.on_zero_judged(around, block, right),
            Task::IndexJudged { cut } => self.on_index(around, cut),
            Task::Searched { block } => self.on_searched(around, block),
            Task::Flushed => {
                let id = self.truth.as_ref().map(|truth| truth.id);
                let bytes = self.store.as_ref().map_or(0, |store| store.layout.bytes());
                if let Some(id) = id {
                    self.session.handle_flushed(now, id, bytes);
                }
            }
        }
        self.drain(around);
    }

    /// Sends and does what the session wants, and sets the alarm.
    pub(crate) fn drain(&mut self, around: &mut Surroundings) {
        self.tell_drain(around);
        for _ in 0..=WAKES_AT_ONCE_MAX {
            while let Some(transmit) = self.session.poll_transmit() {
                self.send(around, &transmit);
            }
            while let Some(event) = self.session.poll_event() {
                around.note(self.number as u64, || format!("receiver {} {event:?}", self.number));
                self.obey(around, event);
            }
            self.check_memory(around);
            let (now, deadline) = (around.instant(), self.session.poll_timeout());
            if !self.is_up() || deadline.is_none_or(|at| at > now) {
                if self.is_up() {
                    self.alarm.set(around, deadline, Happening::WakeReceiver(self.number));
                }
                return;
            }
            self.session.handle_timeout(now);
        }
        let status = self.session.status(around.instant());
        around.safety(format!("receiver {} spins: {status:?}", self.number));
        self.crashed = true;
    }

    fn send(&mut self, around: &mut Surroundings, transmit: &Transmit) {
        let Transmit { to, session, stream, message, octets_min } = transmit;
        let mut copies = 1;
        match message {
            Message::Join(_) if *session != SessionId::NONE => {
                self.joins_sent += 1;
                if around.has(PlantedBug::JoinSentOnce) && self.joins_sent > 1 {
                    return;
                }
            }
            Message::Need(_) if around.has(PlantedBug::NeedsRepeated) => copies = 12,
            Message::Leave(_) => self.gave_up = true,
            Message::Done(done) => self.gave_up |= !done.succeeded,
            _ => {}
        }
        for _ in 0..copies {
            self.counter += 1;
            let header = Header { session: *session, stream: *stream, counter: self.counter };
            if let Message::Need(need) = message {
                let now = around.now;
                around.checker.on_need(now, self.number, &mut self.need_budget, *stream, need);
            }
            let datagram = message.emit(&header, *octets_min).into();
            around.note(self.counter, || format!("receiver {} says {message:?}", self.number));
            around.outbox.push(Outgoing::FromReceiver { receiver: self.number, to: *to, datagram });
        }
    }

    fn obey(&mut self, around: &mut Surroundings, event: Event) {
        match event {
            Event::Chosen(offer) => self.on_chosen(around, *offer),
            Event::Check(block) => self.on_check(around, block),
            Event::Forget(block) => {
                if let Some(store) = &mut self.store {
                    store.forget(block);
                }
            }
            Event::IndexWhole => {
                let wait = self.thinking_time();
                self.task_after(around, wait, Task::IndexJudged { cut: self.cut });
            }
            Event::RenewMembership => {}
            Event::Flush => self.on_flush(around),
            Event::Notice(Notice::Joined) => {
                self.welcomed = true;
                self.heard_end = false;
                self.need_budget = NeedBudget::default();
            }
            Event::Notice(Notice::Polluted(..)) => self.polluted += 1,
            Event::Notice(_) => {}
            Event::Finished(outcome) => {
                self.outcome = Some((outcome, around.now));
                around.audience_changed = true;
            }
        }
    }

    fn on_chosen(&mut self, around: &mut Surroundings, offer: Offer) {
        let announce = &offer.announce;
        let truth = around.images.iter().find(|image| image.id == announce.image);
        self.truth = truth.cloned();
        match &mut self.store {
            Some(store) => {
                let before = self.offer.as_ref().map(|offer| &offer.announce);
                let same = before.is_some_and(|before| {
                    before.index_hash == announce.index_hash && before.layout == announce.layout
                });
                if !same {
                    self.cut += 1;
                }
                store.recut(announce.layout, same);
            }
            None => {
                let mut store = Store::new(around.fidelity, announce.layout);
                self.kept.take().into_iter().for_each(|kept| store.resume(kept));
                self.store = Some(store);
            }
        }
        self.group = Some(announce.data_group);
        around.audience_changed = true;
        self.welcomed = false;
        self.heard_end = false;
        self.offer = Some(Rc::new(offer));
        let wait = self.thinking_time();
        self.task_after(around, wait, Task::Joined);
    }
}

/// Whether a symbol is one of the source.
pub(crate) fn is_source(head: &DataHead, symbol_size: u16) -> bool {
    let sources = head.stored_len.div_ceil(u32::from(symbol_size));
    EncodingSymbolId::new(sources).is_some_and(|end| head.esi < end)
}

const SESSION_CHECK_SKIPPED: PlantedBug = PlantedBug::SessionCheckSkipped;
/// A receiver that never hears a sender gives up.
const START_TIMEOUT: Duration = Duration::from_secs(60);
