//! Carries what happens in the world to the session, and what the session wants to the world.
//!
//! ```text
//!  sockets ─► reader threads ─┐                       ┌─► own socket
//!  signals, timers ───────────┼─► this loop: session ─┤
//!  threads of the store ──────┘                       └─► store: memory ─► threads ─► target
//! ```

use std::time::{Duration, Instant};

use imgcast_common::{
    id::BlockId,
    net::{Batch, Interface},
    prng::Prng,
    wire::{Data, Header, Message, Role, WireError},
};
use nix::sys::signal::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, trace};

use crate::{
    config::ReceiveConfig,
    consent,
    error::{Error, Heard},
    image::{Disk, Keeper, Progress, Store, Target, Work},
    outcome::{self, Outcome},
    pace::{Behind, Pace},
    report::Report,
    session::{self, Checked, Event, Offer, Session, SessionConfig, Symbols, Verdict, Via, Wanted},
    sockets::{self, Arrival, CROWDED_BATCHES, Sockets},
};

/// Receives an image as `config` says.
///
/// # Errors
/// Whatever kept the image from being there, verified and flushed.
pub fn run(config: &ReceiveConfig) -> Result<Outcome, Error> {
    let runtime = sockets::event_loop()?;
    let output = consent::open_target(config)?;
    let interface = sockets::interface(&config.network)?;
    let keeper = output.0.keeper(&config.keep);
    let ended = runtime.block_on(async { Driver::start(config, interface, output)?.run().await });
    // By now the target is closed, and what is there stays.
    ended.map_err(|error| error.leaving(keeper.and_then(Keeper::remains)))
}

struct Driver<'a> {
    config: &'a ReceiveConfig,
    interface: Interface,
    session: Session,
    sockets: Sockets,
    arrivals: mpsc::Receiver<Arrival>,
    /// What the store's threads deliver: no more than they were given, so it needs no limit.
    work: mpsc::UnboundedReceiver<Work>,
    offer: Option<Offer>,
    store: Store,
    index_error: String,
    drops: Prng,
    /// What the kernel last said that the sockets of the group and of our own dropped …
    overflow: [u64; 2],
    /// … and how many datagrams that has been in all.
    overflowed: u64,
    pace: Pace,
    heard: Heard,
    report: Report,
    failure: Option<Error>,
}

impl<'a> Driver<'a> {
    fn start(
        config: &'a ReceiveConfig,
        interface: Interface,
        (target, overwritten): (Target, Option<Disk>),
    ) -> Result<Self, Error> {
        let rendezvous = config.network.rendezvous;
        let asks = config.network.asks_one_sender();
        let group = (!asks).then_some(rendezvous);
        let (sockets, arrivals) =
            Sockets::open(interface.clone(), config.hops, config.offload, group)?;
        let host = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_else(|_| "unknown".into());
        let mut prng = Prng::new(config.seed);
        let session_config = SessionConfig {
            wanted: config.image.as_ref().map_or(Wanted::Any, Into::into),
            key: outcome::key(&interface, &host, &target),
            host,
            resumes: target.may_hold_something(),
            target_bytes: target.capacity(),
            memory: config.memory,
            datagram_octets_max: interface.max_datagram_octets(),
            start_timeout: config.start_timeout,
            receive_timeout: config.receive_timeout,
            ask: asks.then_some(rendezvous),
        };
        let (done, work) = mpsc::unbounded_channel();
        let store = Store::new(target, config.memory, move |work| {
            // Without a loop nobody waits for it any more.
            let _ = done.send(work);
        })?;
        let heard = Heard {
            interface: interface.name.clone(),
            rendezvous,
            announcements: 0,
            group_datagrams: 0,
            foreign_datagrams: 0,
        };
        Ok(Self {
            session: Session::new(session_config, prng.bits(), now()),
            sockets,
            arrivals,
            work,
            offer: None,
            store,
            index_error: String::new(),
            drops: Prng::new(prng.bits()),
            overflow: [0; 2],
            overflowed: 0,
            pace: Pace::new(now()),
            heard,
            report: Report::new(&interface, overwritten, config),
            interface,
            failure: None,
            config,
        })
    }

    async fn run(mut self) -> Result<Outcome, Error> {
        let system = |source| Error::System { action: "catch signals", source };
        let mut interrupts = signal(SignalKind::interrupt()).map_err(system)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(system)?;
        let mut ticks = tokio::time::interval(TICK);
        loop {
            self.report.overwrites(self.store.overwrites());
            if let Some(outcome) = self.drain()? {
                return self.finish(outcome);
            }
            let wake_at = self.session.poll_timeout().unwrap_or_else(|| now() + TICK);
            tokio::select! {
                // What is seldom comes first, and blocks that were checked go on to be written
                // before more symbols are read: in no order five batches of those are for each.
                biased;
                _ = interrupts.recv() => self.interrupt(Signal::SIGINT)?,
                _ = terminations.recv() => self.interrupt(Signal::SIGTERM)?,
                _ = ticks.tick() => self.tick(),
                Some(work) = self.work.recv() => self.worked(work),
                Some(arrival) = self.arrivals.recv() => self.arrived(arrival)?,
                () = tokio::time::sleep_until(wake_at.into()) => {}
            }
            let now = now();
            self.session.handle_drain(now, self.store.drain_kilobytes_per_second());
            self.session.handle_timeout(now);
        }
    }

    fn tick(&mut self) {
        let now = now();
        self.report.progress(now, &self.session.status(now), self.store.proved_blocks());
    }

    fn interrupt(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(known) = self.failure.take() {
            return Err(known);
        }
        let signal = u8::try_from(signal as i32).unwrap_or(0);
        self.failure = Some(Error::Interrupted { signal, remains: None });
        self.report.say("stopping, and telling the sender");
        self.session.handle_stop(now());
        Ok(())
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), Error> {
        match arrival {
            Arrival::Datagrams(via, batch) => {
                let octets = self.read(via, &batch);
                self.note_overflow(via, &batch);
                self.note_pace(octets, via, &batch);
                Ok(())
            }
            Arrival::Broken(error) => Err(error),
        }
    }

    /// Returns how many octets of symbols it was.
    fn read(&mut self, via: Via, batch: &Batch) -> usize {
        let (now, mut octets) = (now(), 0);
        for (from, datagram) in batch.datagrams() {
            if self.drops.chance(self.config.drop_parts_per_million) {
                continue;
            }
            self.heard.group_datagrams += u64::from(via == Via::Group);
            match Message::parse(datagram, Role::Receiver) {
                Ok((header, Message::Data(data))) => {
                    octets += data.symbol.len();
                    self.keep(now, via, &header, &data);
                }
                Ok((header, message)) => {
                    let announced = matches!(message, Message::Announce(_));
                    self.heard.announcements += u64::from(announced);
                    self.session.handle_message(now, via, *from, &header, &message);
                }
                Err(WireError::Version { version, announced: true }) => {
                    self.session.handle_other_version(version);
                }
                Err(error) => {
                    self.heard.foreign_datagrams += 1;
                    trace!(%error, %from, "dropped");
                }
            }
        }
        octets
    }

    /// Tells the session, and it the sender, whether more arrives than can be worked off.
    fn note_pace(&mut self, octets: usize, via: Via, batch: &Batch) {
        let (now, crowded) = (now(), self.arrivals.len() >= CROWDED_BATCHES);
        let behind = Behind {
            crowded,
            more: (via == Via::Group).then(|| batch.fill() >= 1.0),
            waited: self.session.lag(),
            room_bytes: self.sockets.room_bytes(),
        };
        if let Some(behind) = self.pace.note(now, octets, behind) {
            self.session.handle_pace(now, behind);
        }
    }

    /// Keeps a symbol that is wanted.
    fn keep(&mut self, now: Instant, via: Via, header: &Header, data: &Data<'_>) {
        let (head, symbol) = (&data.head, data.symbol);
        let verdict = self.session.handle_symbol(now, via, header, head, symbol.len());
        if !matches!(verdict, Verdict::Wanted | Verdict::Enough) {
            return;
        }
        let block = BlockId { stream: header.stream, number: head.block };
        self.store.keep(block, head.stored_len, head.esi, symbol);
    }

    /// Joined segments that are dropped count as one in the kernel: as many datagrams are meant as
    /// one brought on average.
    fn note_overflow(&mut self, via: Via, batch: &Batch) {
        let own = usize::from(via == Via::Unicast);
        let total = batch.overflow_total();
        if via == Via::Rendezvous || total <= self.overflow[own] {
            return;
        }
        let bursts = total - self.overflow[own];
        self.overflow[own] = total;
        self.overflowed += bursts * batch.datagrams_joined() as u64;
        self.session.handle_overflow(self.overflowed);
    }

    /// A thread of the store has done something.
    fn worked(&mut self, work: Work) {
        let now = now();
        let session = &mut self.session;
        match self.store.take_in(work) {
            Some(Progress::Whole(block)) => session.handle_checked(now, block, Checked::Whole),
            Some(Progress::TooFew(block)) => session.handle_checked(now, block, Checked::TooFew),
            Some(Progress::Corrupt(block)) => session.handle_checked(now, block, Checked::Corrupt),
            Some(Progress::Zeroes(batch)) => {
                for number in batch.wrong {
                    session.handle_checked(now, BlockId::image(number), Checked::Corrupt);
                }
                for number in batch.matching {
                    session.handle_checked(now, BlockId::image(number), Checked::Whole);
                }
            }
            Some(Progress::Stored(blocks)) => {
                blocks.for_each(|block| session.handle_stored(now, block));
            }
            Some(Progress::Absent(block)) => session.handle_absent(now, block),
            Some(Progress::Lost(blocks, error)) => {
                self.report.lost(blocks.len(), error.code());
                blocks.into_iter().for_each(|block| session.handle_lost(now, block));
            }
            Some(Progress::Flushed(written_bytes)) => {
                if let Some(image) = self.store.image_id() {
                    session.handle_flushed(now, image, written_bytes);
                }
            }
            Some(Progress::Failed(error)) => self.fail(error),
            None => {}
        }
    }

    /// Gives up for a reason of this node's, which the sender is told.
    fn fail(&mut self, error: Error) {
        let code = u16::from(error.exit_code());
        self.session.handle_failure(now(), code, &error.to_string());
        self.failure.get_or_insert(error);
    }

    /// Does what the session wants; returns how it ended, once it has.
    fn drain(&mut self) -> Result<Option<session::Outcome>, Error> {
        let mut ended = None;
        loop {
            let mut idle = true;
            while let Some(transmit) = self.session.poll_transmit() {
                idle = false;
                self.sockets.send(&transmit);
            }
            while let Some(event) = self.session.poll_event() {
                idle = false;
                match event {
                    Event::Chosen(offer) => self.join(*offer)?,
                    Event::Check(block) => {
                        if !self.store.check(block) {
                            self.session.handle_checked(now(), block, Checked::Corrupt);
                        }
                    }
                    Event::Forget(block) => self.store.forget(block),
                    Event::IndexWhole => self.index_whole(),
                    Event::RenewMembership => self.sockets.renew(),
                    Event::Flush => self.store.flush(),
                    Event::Notice(notice) => self.report.notice(&notice, self.offer.as_ref()),
                    Event::Finished(outcome) => ended = ended.or(Some(outcome)),
                }
            }
            if idle || ended.is_some() {
                return Ok(ended);
            }
        }
    }

    fn join(&mut self, offer: Offer) -> Result<(), Error> {
        let before = self.offer.as_ref().map(|before| &before.announce);
        let same_index = before.is_some_and(|before| {
            before.index_hash == offer.announce.index_hash && before.layout == offer.announce.layout
        });
        let fits = self.store.check_sectors(offer.announce.sector_size);
        let begun = fits.and_then(|()| self.store.begin(offer.announce.layout, same_index));
        if let Err(error) = begun {
            self.report.say("cannot take part; telling the sender why");
            self.fail(error);
            return Ok(());
        }
        self.sockets.join(offer.announce.data_group)?;
        self.overflow[0] = 0;
        self.report.chosen(&offer);
        self.offer = Some(offer);
        self.session.handle_joined(now());
        Ok(())
    }

    fn index_whole(&mut self) {
        let Some(offer) = &self.offer else { return };
        let (index_hash, image) = (offer.announce.index_hash, offer.announce.image);
        match self.store.put_index_together(&index_hash, image) {
            Ok(Ok(zero)) => {
                self.session.handle_claims(self.store.claimed());
                self.session.handle_index(now(), Some(&zero));
            }
            Ok(Err(error)) => {
                self.index_error = error.to_string();
                self.session.handle_index(now(), None);
            }
            Err(error) => self.fail(error),
        }
    }

    fn finish(mut self, ended: session::Outcome) -> Result<Outcome, Error> {
        let now = now();
        self.report.clear();
        match ended {
            session::Outcome::Done { acknowledged } => {
                let Symbols { received, needed } = self.session.symbols();
                debug!(received, needed, "symbols of the image");
                let found = self.store.found_blocks();
                self.report.done(now, self.offer.as_ref(), found, acknowledged);
                Ok(Outcome { acknowledged })
            }
            session::Outcome::Failed(failure) => Err(match self.failure.take() {
                Some(error) => error,
                None => outcome::Circumstances {
                    config: self.config,
                    interface: &self.interface,
                    offer: self.offer.as_ref(),
                    status: self.session.status(now),
                    heard: self.heard,
                    index_error: self.index_error,
                }
                .error(failure),
            }),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver reads the clock for the session")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How often people are told how it goes.
const TICK: Duration = Duration::from_millis(200);
