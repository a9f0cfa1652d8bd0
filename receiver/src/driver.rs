//! Carries what happens in the world to the session, and what the session wants to the world.
//!
//! ```text
//!  sockets ─► reader threads ─┐                       ┌─► own socket
//!  signals, timers ───────────┼─► this loop: session ─┼─► assembler ─► workbench threads ─┐
//!  results ◄──────────────────┘                       └─► writer thread ─► target         │
//!     ▲───────────────────────────────────────────────────────┴──────────────────────────┘
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use imgcast_common::{
    fec::BlockShape,
    id::{BlockId, Stream},
    layout::Layout,
    net::{Batch, Family, Interface},
    prng::Prng,
    tree::Index,
    wire::{Data, Header, Message, Role, WireError},
};
use nix::sys::signal::Signal;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{debug, warn};

use crate::{
    config::ReceiveConfig,
    error::{Error, Heard},
    image::{
        Assembler, Checked, IndexAssembly, Target, Workbench, Writer, Written, ZeroBatch,
        budget_blocks,
    },
    outcome,
    report::Report,
    session::{self, Event, Offer, Session, SessionConfig, Verdict, Via, Wanted},
    sockets::{Arrival, Sockets},
};

/// How a transfer ended, the image being there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Whether the sender knows.
    pub acknowledged: bool,
}

/// Receives an image as `config` says.
///
/// # Errors
/// Whatever kept the image from being there, verified and flushed.
pub fn run(config: &ReceiveConfig) -> Result<Outcome, Error> {
    let target = Target::open(&config.output)?;
    let family = Family::of(config.network.rendezvous.ip());
    let interface = match &config.network.interface {
        Some(spec) => Interface::find(spec, family)?,
        None => Interface::only(family)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System { action: "start an event loop", source })?;
    runtime.block_on(async { Driver::start(config, interface, target)?.run().await })
}

/// What worker threads deliver. As much as they were given: it needs no limit of its own.
enum Done {
    Checked(BlockId, Checked),
    Zeroes(ZeroBatch),
    Written(Written),
}

struct Driver<'a> {
    config: &'a ReceiveConfig,
    interface: Interface,
    session: Session,
    sockets: Sockets,
    arrivals: mpsc::Receiver<Arrival>,
    done: mpsc::UnboundedReceiver<Done>,
    done_sender: mpsc::UnboundedSender<Done>,
    offer: Option<Offer>,
    /// Until the index is there and something may be written.
    target: Option<Target>,
    writer: Option<Writer>,
    workbench: Workbench,
    assembler: Assembler,
    assembly: Option<IndexAssembly>,
    index: Option<Arc<Index>>,
    index_error: String,
    shape: Option<BlockShape>,
    drops: Prng,
    overflow: [u64; 2],
    heard: Heard,
    report: Report,
    failure: Option<Error>,
}

impl<'a> Driver<'a> {
    fn start(
        config: &'a ReceiveConfig,
        interface: Interface,
        target: Target,
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
            key: outcome::key(&host, &target),
            host,
            target_bytes: target.capacity(),
            memory_bytes: config.memory_bytes,
            datagram_octets_max: interface.max_datagram_octets(),
            start_timeout: config.start_timeout,
            receive_timeout: config.receive_timeout,
            ask: asks.then_some(rendezvous),
        };
        let (done_sender, done) = mpsc::unbounded_channel();
        let heard = Heard {
            interface: interface.name.clone(),
            rendezvous,
            announcements: 0,
            group_datagrams: 0,
            foreign_datagrams: 0,
        };
        let blocks = budget_blocks(config.memory_bytes, 1 << 20) as usize;
        Ok(Self {
            session: Session::new(session_config, prng.bits(), now()),
            sockets,
            arrivals,
            done,
            done_sender,
            offer: None,
            target: Some(target),
            writer: None,
            workbench: Workbench::new(blocks)?,
            assembler: Assembler::new(blocks),
            assembly: None,
            index: None,
            index_error: String::new(),
            shape: None,
            drops: Prng::new(prng.bits()),
            overflow: [0; 2],
            heard,
            report: Report::new(!config.is_quiet, &interface, config),
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
            if let Some(outcome) = self.drain()? {
                return self.finish(outcome);
            }
            let wake_at = self.session.poll_timeout().unwrap_or_else(|| now() + TICK);
            tokio::select! {
                Some(arrival) = self.arrivals.recv() => self.arrived(arrival)?,
                Some(done) = self.done.recv() => self.finished(done),
                () = tokio::time::sleep_until(wake_at.into()) => {}
                _ = ticks.tick() => self.tick(),
                _ = interrupts.recv() => self.interrupt(Signal::SIGINT)?,
                _ = terminations.recv() => self.interrupt(Signal::SIGTERM)?,
            }
            self.session.handle_timeout(now());
        }
    }

    fn tick(&mut self) {
        if let Some(writer) = &self.writer {
            self.session.handle_drain(writer.drain_kilobytes_per_second());
        }
        let now = now();
        self.report.progress(now, &self.session.status(now));
    }

    fn interrupt(&mut self, signal: Signal) -> Result<(), Error> {
        let number = u8::try_from(signal as i32).unwrap_or(0);
        let asked_before = self.failure.replace(Error::Interrupted { signal: number }).is_some();
        if asked_before {
            return Err(Error::Interrupted { signal: number });
        }
        self.report.say("stopping, and telling the sender");
        self.session.handle_stop(now());
        Ok(())
    }

    fn arrived(&mut self, arrival: Arrival) -> Result<(), Error> {
        match arrival {
            Arrival::Datagrams(via, batch) => {
                self.read(via, &batch);
                self.note_overflow(via, &batch);
                Ok(())
            }
            Arrival::Broken(error) => Err(error.into()),
        }
    }

    fn read(&mut self, via: Via, batch: &Batch) {
        let now = now();
        for (from, datagram) in batch.datagrams() {
            if self.drops.chance(self.config.drop_parts_per_million) {
                continue;
            }
            self.heard.group_datagrams += u64::from(via == Via::Group);
            match Message::parse(datagram, Role::Receiver) {
                Ok((header, Message::Data(data))) => self.keep(now, via, &header, &data),
                Ok((header, message)) => {
                    let announced = matches!(message, Message::Announce(_));
                    self.heard.announcements += u64::from(announced);
                    self.session.handle_message(now, via, from, &header, &message);
                }
                Err(WireError::Version { version, announced: true }) => {
                    self.session.handle_other_version(version);
                }
                Err(error) => {
                    self.heard.foreign_datagrams += 1;
                    debug!(%error, %from, "dropped");
                }
            }
        }
    }

    /// Keeps a symbol that is wanted.
    fn keep(&mut self, now: Instant, via: Via, header: &Header, data: &Data<'_>) {
        let (head, symbol) = (&data.head, data.symbol);
        let verdict = self.session.handle_symbol(now, via, header, head, symbol.len());
        if !matches!(verdict, Verdict::Wanted | Verdict::Enough) {
            return;
        }
        let symbol_size = u16::try_from(symbol.len()).unwrap_or(0);
        let same = self.shape.filter(|shape| {
            shape.stored_len() == head.stored_len && shape.symbol_size() == symbol.len()
        });
        self.shape = same.or_else(|| BlockShape::new(head.stored_len, symbol_size));
        if let Some(shape) = &self.shape {
            let block = BlockId { stream: header.stream, number: head.block };
            self.assembler.insert(block, shape, head.esi, symbol);
        }
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
        let datagrams = batch.datagrams().count() as u64;
        let each = (datagrams / BURSTS_PER_BATCH).max(1);
        self.session.handle_overflow(bursts * each);
    }

    /// A worker finished something; the session is told, the octets go their way.
    fn finished(&mut self, done: Done) {
        match done {
            Done::Checked(block, checked) => self.checked(block, checked),
            Done::Zeroes(batch) => self.zeroes(&batch),
            Done::Written(Written::Stored { number, buffer }) => {
                buffer.into_iter().for_each(|buffer| self.assembler.recycle(buffer));
                self.session.handle_stored(now(), number);
            }
            Done::Written(Written::Zeroed { blocks }) => {
                blocks.for_each(|block| self.session.handle_stored(now(), block));
            }
            Done::Written(Written::Flushed { written_bytes }) => {
                if let Some(index) = &self.index {
                    let image = index.image_id();
                    self.session.handle_flushed(now(), image, written_bytes);
                }
            }
            Done::Written(Written::Failed(error)) => self.fail(error),
        }
    }

    fn checked(&mut self, block: BlockId, checked: Checked) {
        let verdict = match checked {
            Checked::Whole { bytes } => {
                self.session.handle_checked(now(), block, session::Checked::Whole);
                match (block.stream, &self.writer) {
                    (Stream::Image, Some(writer)) => writer.write(block.number, bytes),
                    (Stream::Image, None) => self.assembler.recycle(bytes),
                    (Stream::Index, _) => {
                        if let Some(assembly) = &mut self.assembly {
                            assembly.insert(block.number, &bytes);
                        }
                        self.assembler.recycle(bytes);
                    }
                }
                return;
            }
            Checked::TooFew { received } => {
                self.assembler.put_back(block, received);
                session::Checked::TooFew
            }
            Checked::Corrupt { buffer } => {
                self.assembler.recycle(buffer);
                session::Checked::Corrupt
            }
            Checked::Failed { text } => {
                warn!(%block, text, "a block could not be decoded; it is fetched again");
                session::Checked::Corrupt
            }
        };
        self.session.handle_checked(now(), block, verdict);
    }

    fn zeroes(&mut self, batch: &ZeroBatch) {
        for number in &batch.wrong {
            let block = BlockId::image(*number);
            self.session.handle_checked(now(), block, session::Checked::Corrupt);
        }
        for number in &batch.matching {
            let block = BlockId::image(*number);
            self.session.handle_checked(now(), block, session::Checked::Whole);
        }
        let Some(writer) = &self.writer else { return };
        for run in batch.matching.chunk_by(|one, next| one + 1 == *next) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                writer.zero(*first..last + 1);
            }
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
                    Event::Check(block) => self.check(block),
                    Event::Forget(block) => {
                        self.assembler.forget(block);
                    }
                    Event::IndexWhole => self.index_whole(),
                    Event::RenewMembership => self.sockets.renew(),
                    Event::Flush => {
                        if let Some(writer) = &self.writer {
                            writer.finish();
                        }
                    }
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
        let layout = offer.announce.layout;
        if let Some(target) = &self.target {
            target.check_size(layout.bytes())?;
        }
        self.sockets.join(offer.announce.data_group)?;
        let before = self.offer.as_ref().map(|before| &before.announce);
        let same = before.is_some_and(|before| {
            before.index_hash == offer.announce.index_hash && before.layout == layout
        });
        if self.index.is_none() && !same {
            self.assembly = Some(IndexAssembly::new(layout.of_index()));
        }
        self.report.chosen(&offer);
        self.offer = Some(offer);
        self.session.handle_joined(now());
        Ok(())
    }

    fn layout(&self, stream: Stream) -> Option<Layout> {
        let layout = self.offer.as_ref()?.announce.layout;
        Some(if stream == Stream::Index { layout.of_index() } else { layout })
    }

    fn check(&mut self, block: BlockId) {
        let (Some(layout), Some(received)) =
            (self.layout(block.stream), self.assembler.take(block))
        else {
            return;
        };
        let done = self.done_sender.clone();
        self.workbench.check(block, received, self.index.clone(), layout, move |block, checked| {
            // Without a loop nobody waits for it any more.
            let _ = done.send(Done::Checked(block, checked));
        });
    }

    fn index_whole(&mut self) {
        let (Some(offer), Some(assembly)) = (&self.offer, &mut self.assembly) else { return };
        let announce = &offer.announce;
        let (layout, image) = (announce.layout, announce.image);
        match assembly.finish(&announce.index_hash, layout.blocks(), image) {
            Ok(index) => {
                let index = Arc::new(index);
                self.index = Some(Arc::clone(&index));
                if let Err(error) = self.begin_writing(layout, &index) {
                    return self.fail(error);
                }
                self.session.handle_index(now(), Some(index.zero()));
            }
            Err(error) => {
                self.index_error = error.to_string();
                self.session.handle_index(now(), None);
            }
        }
    }

    fn begin_writing(&mut self, layout: Layout, index: &Arc<Index>) -> Result<(), Error> {
        let Some(target) = self.target.take() else { return Ok(()) };
        let zeroes: u64 = index.zero().iter().map(|block| u64::from(layout.block_len(block))).sum();
        target.check_room(layout.bytes() - zeroes)?;
        let done = self.done_sender.clone();
        let blocks = budget_blocks(self.config.memory_bytes, layout.block_size());
        let writer = Writer::start(target, layout, blocks as usize, move |written| {
            let _ = done.send(Done::Written(written));
        })?;
        self.writer = Some(writer);
        let done = self.done_sender.clone();
        self.workbench.check_zero(0..layout.blocks(), Arc::clone(index), layout, move |batch| {
            let _ = done.send(Done::Zeroes(batch));
        })
    }

    fn finish(mut self, ended: session::Outcome) -> Result<Outcome, Error> {
        let now = now();
        self.report.clear();
        match ended {
            session::Outcome::Done { acknowledged } => {
                self.report.done(now, self.offer.as_ref(), acknowledged);
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
/// As many joined runs of datagrams fit into a batch.
const BURSTS_PER_BATCH: u64 = 8;
