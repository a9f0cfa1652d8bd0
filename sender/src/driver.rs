//! Carries what happens in the world to the session, and what the session wants to the world.
//!
//! ```text
//!  socket ─► reader thread ─┐                          ┌─► pump thread ─► socket
//!  signals, timers ─────────┼─► this loop: session ────┤
//!  preparer threads ────────┘                          └─► preparer threads (image)
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use imgcast_common::{
    id::SessionId,
    limits::check_files,
    net::{Batch, BatchSender, Interface, NetError, NodeSocket},
    pool::Pool,
    prng::Prng,
    tree::index_hash,
    wire::{AbortReason, Message, Role, WireError},
};
use nix::sys::signal::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::debug;

use crate::{
    config::Config,
    error::{Error, exit},
    image::{Prepared, PreparedBlock, Preparer, TurnRequest, Watch},
    keyboard::Keyboard,
    not_taken::{NotTaken, Patience},
    offered::Offered,
    parameters::{send_buffer, session_config},
    pump::{Addresses, Pump},
    reader,
    report::Report,
    session::{self, Event, Session, Transmit, TurnId},
};

/// How a transfer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Receivers that were expected.
    pub expected: u32,
    /// Receivers that have the image.
    pub done: u32,
}

impl Outcome {
    /// 0 if every expected receiver has the image, else 5.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        if self.done == self.expected { exit::COMPLETE } else { exit::INCOMPLETE }
    }
}

/// Sends the image that `config` names, until all receivers have it or are given up.
///
/// # Errors
/// Whatever keeps the transfer from taking place, or ends it before its time.
pub fn run(config: &Config) -> Result<Outcome, Error> {
    let runtime = event_loop()?;
    let mut report = Report::new(config.shows_progress);
    let interface = Interface::chosen(config.interface.as_deref(), config.family)?;
    let offer = Offered::open(config, &interface, &mut report)?;
    runtime.block_on(async { Driver::start(config, &interface, offer, report)?.run().await })
}

/// What waits for sockets, threads, timers and signals at once.
fn event_loop() -> Result<tokio::runtime::Runtime, Error> {
    let build = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let built = check_files().and_then(|()| build());
    built.map_err(|source| Error::System { what: "an event loop", source })
}

/// What the loop waits for.
pub(crate) enum Input {
    Datagrams(Batch),
    Prepared(Prepared),
    NotSent(NetError),
    Broken(Error),
}

struct Driver {
    session: Session,
    inputs: mpsc::Receiver<Input>,
    inputs_sender: mpsc::Sender<Input>,
    pump: Pump,
    preparer: Preparer,
    blocks: BTreeMap<TurnId, Arc<PreparedBlock>>,
    report: Report,
    keyboard: Keyboard,
    offer: Offered,
    watch: Watch,
    stop: Arc<AtomicBool>,
    socket: Arc<NodeSocket>,
    buffered_rate: u64,
    sent_anything: bool,
    not_taken: NotTaken,
    dropped: BTreeMap<WireError, u64>,
    /// What stopped the session, if it was not its own end.
    failure: Option<Error>,
}

impl Driver {
    fn start(
        config: &Config,
        interface: &Interface,
        offer: Offered,
        report: Report,
    ) -> Result<Self, Error> {
        let mut prng = Prng::new(config.seed);
        let session = SessionId(prng.bits() | 1);
        let addresses = Addresses {
            session,
            rendezvous: config.rendezvous,
            data_group: config.data_group(session),
        };
        let socket = Arc::new(NodeSocket::open(interface, config.hops, config.portbase)?);
        let grant = socket.set_receive_buffer(RECEIVE_BUFFER)?;
        if grant.is_cut() {
            debug!(granted = grant.granted_bytes, "feedback has a small socket buffer");
        }
        let index_bytes = Arc::new(offer.index.to_bytes());
        let (hash, port) = (index_hash(&index_bytes), socket.local().port());
        let session_config = session_config(config, interface, &offer, addresses, hash, port);
        let seed = prng.bits();
        let state = Session::new(session_config, seed, now());
        socket.set_send_buffer(send_buffer(state.rate()))?;
        debug!(%session, group = %addresses.data_group, local = %socket.local(), "session begins");
        let preparer = Preparer::new(
            Arc::clone(&offer.source),
            Arc::clone(&offer.index),
            index_bytes,
            offer.layout,
            Pool::threads_beside_others(),
            TURNS_QUEUED_MAX,
        )?;
        let (inputs_sender, inputs) = mpsc::channel(INPUTS_MAX);
        let sender = BatchSender::new(Arc::clone(&socket), config.offload);
        let pump = Pump::start(sender, addresses, inputs_sender.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        reader::start(Arc::clone(&socket), Arc::clone(&stop), inputs_sender.clone())?;
        Ok(Self {
            buffered_rate: state.rate(),
            session: state,
            inputs,
            inputs_sender,
            pump,
            preparer,
            blocks: BTreeMap::new(),
            report,
            keyboard: Keyboard::new(config.shows_progress),
            watch: Watch::new(Arc::clone(&offer.source), now()),
            offer,
            stop,
            socket,
            sent_anything: false,
            not_taken: NotTaken::default(),
            dropped: BTreeMap::new(),
            failure: None,
        })
    }

    async fn run(&mut self) -> Result<Outcome, Error> {
        let system = |source| Error::System { what: "a signal handler", source };
        let mut interrupts = signal(SignalKind::interrupt()).map_err(system)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(system)?;
        let mut ticks = tokio::time::interval(TICK);
        loop {
            let asked_again_at = if let Some(end) = self.drain()? {
                return self.finish(end);
            } else if self.pump.has_room(self.session.rate()) {
                self.session.poll_timeout()
            } else {
                self.session.handle_backlog();
                now() + PUMP_WAIT
            };
            tokio::select! {
                Some(input) = self.inputs.recv() => self.take_in(input)?,
                () = tokio::time::sleep_until(asked_again_at.into()) => {}
                _ = ticks.tick() => self.tick(),
                _ = interrupts.recv() => self.interrupt(Signal::SIGINT)?,
                _ = terminations.recv() => self.interrupt(Signal::SIGTERM)?,
            }
            self.session.handle_timeout(now());
            self.follow_rate();
        }
    }

    fn tick(&mut self) {
        if let Err(error) = self.watch.look(now()) {
            self.lose_image(error);
        }
        self.report.progress(now(), &self.session, self.keyboard.is_heard());
        self.keyboard.follow(now(), &mut self.session, &self.report);
    }

    /// The socket buffers what belongs to the rate, and no more.
    fn follow_rate(&mut self) {
        let rate = self.session.rate();
        if rate == self.buffered_rate {
            return;
        }
        debug!(megabits_per_second = rate / 1_000_000, "rate");
        let before = std::mem::replace(&mut self.buffered_rate, rate);
        if send_buffer(rate) != send_buffer(before)
            && let Err(error) = self.socket.set_send_buffer(send_buffer(rate))
        {
            debug!(%error, "send buffer stays as it is");
        }
    }

    /// Takes in everything that is there already.
    fn take_in(&mut self, first: Input) -> Result<(), Error> {
        let mut next = Some(first);
        for _ in 0..INPUTS_MAX {
            let Some(input) = next else { break };
            match input {
                Input::Datagrams(batch) => self.read(&batch),
                Input::Prepared(prepared) => self.prepared(prepared),
                Input::NotSent(error) => self.not_sent(error)?,
                Input::Broken(error) => return Err(error),
            }
            next = self.inputs.try_recv().ok();
        }
        Ok(())
    }

    fn read(&mut self, batch: &Batch) {
        let now = now();
        for (from, datagram) in batch.datagrams() {
            match Message::parse(datagram, Role::Sender) {
                Ok((header, message)) => {
                    self.session.handle_message(now, *from, &header, &message, datagram.len());
                }
                Err(error) => *self.dropped.entry(error).or_default() += 1,
            }
        }
    }

    fn prepared(&mut self, prepared: Prepared) {
        let turn = TurnId(prepared.turn);
        match prepared.block {
            Ok(block) => {
                self.blocks.insert(turn, Arc::new(block));
                self.session.handle_turn_ready(turn);
            }
            Err(error) => self.lose_image(error),
        }
    }

    /// Ends the session for want of the image, unless it is ending anyway.
    fn lose_image(&mut self, error: Error) {
        self.offer.cache.remove(&self.offer.source, &self.offer.layout);
        if self.session.is_closing() {
            return;
        }
        // Only of an image that is gone do receivers wait for no other sender.
        let reason = match error {
            Error::Internal { .. } => AbortReason::Internal,
            _ => AbortReason::Image,
        };
        let text = error.to_string();
        self.failure.get_or_insert(error);
        self.session.handle_stop(now(), reason, &text);
    }

    fn not_sent(&mut self, error: NetError) -> Result<(), Error> {
        match self.not_taken.note(now(), self.pump.accepted()) {
            _ if !self.sent_anything => return Err(error.into()),
            Patience::IsOver => return Err(error.into()),
            Patience::IsTried => {
                self.report.say(&format!("the network takes nothing: {error}"));
            }
            Patience::Lasts => {}
        }
        Ok(())
    }

    fn interrupt(&mut self, signal: Signal) -> Result<(), Error> {
        if self.failure.is_some() {
            // Asked twice: now.
            return Err(Error::Interrupted { signal });
        }
        self.report.say("stopping, and telling the receivers");
        self.failure = Some(Error::Interrupted { signal });
        let text = format!("the sender was stopped by {signal}");
        self.session.handle_stop(now(), AbortReason::Interrupted, &text);
        Ok(())
    }

    /// Does what the session wants; returns how it ended, once it has.
    fn drain(&mut self) -> Result<Option<session::Outcome>, Error> {
        let mut ended = None;
        loop {
            let mut idle = true;
            while self.pump.has_room(self.session.rate())
                && let Some(transmit) = self.session.poll_transmit(now())
            {
                idle = false;
                self.transmit(transmit);
            }
            while let Some(event) = self.session.poll_event() {
                idle = false;
                match event {
                    Event::TurnWanted { turn, block, first_repair, repairs } => {
                        self.prepare(TurnRequest { turn: turn.0, block, first_repair, repairs });
                    }
                    Event::TurnOver(turn) => {
                        self.blocks.remove(&turn);
                    }
                    Event::Started => self.report.started(now(), &self.session),
                    Event::Joined(id) => self.report.joined(&self.session, id),
                    Event::Changed(id) => self.report.changed(&self.session, id),
                    Event::Detached(id) => self.report.detached(&self.session, id),
                    Event::Finished(outcome) => ended = ended.or(Some(outcome)),
                }
            }
            if idle || ended.is_some() {
                return Ok(ended);
            }
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        self.sent_anything |= matches!(transmit, Transmit::Burst(_));
        match transmit {
            Transmit::Message { to, stream, message, octets_min } => {
                self.pump.message(to, stream, message, octets_min);
            }
            Transmit::Burst(burst) => {
                if let Some(block) = self.blocks.get(&burst.turn) {
                    self.pump.burst(burst, Arc::clone(block));
                }
            }
        }
    }

    fn prepare(&self, request: TurnRequest) {
        let inputs = self.inputs_sender.clone();
        self.preparer.prepare(request, move |prepared| {
            // Without a loop nobody waits for it any more.
            let _ = inputs.blocking_send(Input::Prepared(prepared));
        });
    }

    fn finish(&mut self, ended: session::Outcome) -> Result<Outcome, Error> {
        if !self.dropped.is_empty() {
            debug!(dropped = ?self.dropped, "datagrams that were not understood");
        }
        self.report.ended(now(), &self.session);
        match (ended, self.failure.take()) {
            (_, Some(error)) => Err(error),
            (session::Outcome::Ended { expected, done }, None) => Ok(Outcome { expected, done }),
            (session::Outcome::NoReceivers, None) => Err(self.report.no_receivers(&self.session)),
            (session::Outcome::Aborted(reason), None) => Err(Error::Internal {
                task: "the session".into(),
                reason: format!("it ended with {reason:?} for no known reason"),
            }),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Threads that deliver to the loop must not wait for it any more.
        self.inputs.close();
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver reads the clock for the session")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Ten thousand JOINs at once.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Inputs that wait for the loop.
const INPUTS_MAX: usize = 256;
/// More than the session ever wants at once, so that asking never waits.
const TURNS_QUEUED_MAX: usize = 64;
/// How often people are told how it goes.
const TICK: Duration = Duration::from_millis(200);
/// When the sending thread is behind, it is looked at again after so long.
pub const PUMP_WAIT: Duration = Duration::from_millis(1);
