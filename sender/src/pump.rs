//! The thread that sends: each burst at its time, each message behind what was handed over before
//! it. It owns the counters, so that the group's sequence has no gaps.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{SessionId, Stream},
    net::{BatchSender, Datagram, NetError},
    wire::{DATA_HEAD_LEN, Header, Message, TRAILER_LEN, UNICAST, data_trailer},
};

use crate::{
    image::PreparedBlock,
    session::{Burst, Destination},
};

/// Hands things over to the sending thread.
#[derive(Debug)]
pub(crate) struct Pump {
    queue: Option<Sender<Item>>,
    waiting: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Where the groups of a session are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) session: SessionId,
    pub(crate) rendezvous: SocketAddr,
    pub(crate) data_group: SocketAddr,
}

#[derive(Debug)]
enum Item {
    Message(Destination, Stream, Box<Message<'static>>, usize),
    Burst(Burst, Arc<PreparedBlock>),
}

#[derive(Debug)]
struct Worker {
    sender: BatchSender,
    addresses: Addresses,
    group_counter: u64,
    other_counter: u64,
    heads: Vec<[u8; DATA_HEAD_LEN]>,
    trailers: Vec<[u8; TRAILER_LEN]>,
    accepted: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

impl Pump {
    /// Starts the thread; `failed` is called with whatever could not be sent.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(
        sender: BatchSender,
        addresses: Addresses,
        failed: impl Fn(NetError) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (queue, items) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (left, accepted) = (Arc::clone(&waiting), Arc::new(AtomicUsize::new(0)));
        let closing = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            sender,
            addresses,
            group_counter: 0,
            other_counter: 0,
            heads: Vec::new(),
            trailers: Vec::new(),
            accepted: Arc::clone(&accepted),
            closing: Arc::clone(&closing),
        };
        let thread = thread::Builder::new()
            .name("send".into())
            .spawn(move || worker.run(&items, &left, failed))?;
        Ok(Self { queue: Some(queue), waiting, accepted, closing, thread: Some(thread) })
    }

    /// Whether more may be handed over now.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < QUEUE_MAX
    }

    /// How many things for a group the network has taken so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(crate) fn message(
        &self,
        to: Destination,
        stream: Stream,
        message: Box<Message<'static>>,
        octets_min: usize,
    ) {
        self.push(Item::Message(to, stream, message, octets_min));
    }

    pub(crate) fn burst(&self, burst: Burst, block: Arc<PreparedBlock>) {
        self.push(Item::Burst(burst, block));
    }

    fn push(&self, item: Item) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(queue) = &self.queue {
            // A thread that is gone has said why through `failed`.
            let _ = queue.send(item);
        }
    }
}

impl Drop for Pump {
    /// Sends what was handed over, unless the network takes nothing.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(mut self, items: &Receiver<Item>, waiting: &AtomicUsize, failed: impl Fn(NetError)) {
        for item in items {
            let to = match &item {
                Item::Message(to, ..) => *to,
                Item::Burst(burst, _) => burst.to,
            };
            let result = match item {
                Item::Message(to, stream, message, octets_min) => {
                    self.send_message(to, stream, &message, octets_min)
                }
                Item::Burst(burst, block) => {
                    sleep_until(burst.at);
                    self.send_burst(&burst, &block)
                }
            };
            waiting.fetch_sub(1, Ordering::Relaxed);
            match result {
                Ok(()) if !matches!(to, Destination::Unicast(_)) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(()) => {}
                Err(error) => {
                    failed(error);
                    if self.closing.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }

    fn send_message(
        &mut self,
        to: Destination,
        stream: Stream,
        message: &Message<'_>,
        octets_min: usize,
    ) -> Result<(), NetError> {
        let counter = self.next_counter(to);
        let header = Header { session: self.addresses.session, stream, counter };
        let datagram = message.emit(&header, octets_min);
        self.sender.send_one(&datagram, self.address(to)).map(|_| ())
    }

    fn send_burst(&mut self, burst: &Burst, block: &PreparedBlock) -> Result<(), NetError> {
        self.heads.clear();
        self.trailers.clear();
        let symbol_size = u16::try_from(block.shape().symbol_size()).unwrap_or(u16::MAX);
        let mut symbols = Vec::with_capacity(burst.count as usize);
        for position in 0..burst.count {
            let Some(head) = burst.head(position) else { continue };
            let Some(symbol) = block.symbol(head.esi) else { continue };
            let counter = self.next_counter(burst.to);
            let stream = burst.block.stream;
            let header = Header { session: self.addresses.session, stream, counter };
            let head = head.emit(&header, symbol_size);
            self.trailers.push(data_trailer(&head, symbol));
            self.heads.push(head);
            symbols.push(symbol);
        }
        let parts = self.heads.iter().zip(symbols).zip(&self.trailers);
        let datagrams: Vec<Datagram<'_>> = parts
            .map(|((head, symbol), trailer)| Datagram { parts: [head, symbol, trailer] })
            .collect();
        self.sender.send_run(&datagrams, self.address(burst.to)).map(|_| ())
    }

    const fn next_counter(&mut self, to: Destination) -> u64 {
        match to {
            Destination::Group => {
                self.group_counter += 1;
                self.group_counter
            }
            Destination::Rendezvous | Destination::Unicast(_) => {
                self.other_counter += 1;
                self.other_counter | UNICAST
            }
        }
    }

    const fn address(&self, to: Destination) -> SocketAddr {
        match to {
            Destination::Rendezvous => self.addresses.rendezvous,
            Destination::Group => self.addresses.data_group,
            Destination::Unicast(address) => address,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "bursts leave by the clock")]
fn sleep_until(at: Instant) {
    let wait = at.saturating_duration_since(Instant::now());
    if wait > SLEEP_MIN {
        thread::sleep(wait);
    }
}

/// Bursts for several milliseconds at 10 Gbit/s; beyond it the pacer is told to wait.
const QUEUE_MAX: usize = 64;
/// Sleeping for less takes longer than that.
const SLEEP_MIN: Duration = Duration::from_micros(60);
