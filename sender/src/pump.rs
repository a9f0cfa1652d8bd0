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
    watched,
    wire::{DATA_HEAD_LEN, Header, Message, TRAILER_LEN, UNICAST, data_trailer},
};
use tokio::sync::mpsc;

use crate::{
    driver::Input,
    error::Error,
    image::PreparedBlock,
    session::{BURST_SYMBOLS_MAX, Burst, Destination},
};

/// Hands things over to the sending thread.
#[derive(Debug)]
pub(crate) struct Pump {
    queue: Option<Sender<Item>>,
    waiting_octets: Arc<AtomicUsize>,
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

impl Item {
    /// Octets of it, roughly.
    fn octets(&self) -> usize {
        match self {
            Self::Message(..) => MESSAGE_OCTETS,
            Self::Burst(burst, block) => burst.count as usize * block.shape().symbol_size(),
        }
    }
}

#[derive(Debug)]
struct Worker {
    sender: BatchSender,
    addresses: Addresses,
    group_counter: u64,
    other_counter: u64,
    heads: Box<[[u8; DATA_HEAD_LEN]; RUN_MAX]>,
    trailers: Box<[[u8; TRAILER_LEN]; RUN_MAX]>,
    accepted: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

impl Pump {
    /// Starts the thread; what it could not send goes to `inputs`.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(
        sender: BatchSender,
        addresses: Addresses,
        inputs: mpsc::Sender<Input>,
    ) -> Result<Self, Error> {
        let (queue, items) = channel();
        let waiting_octets = Arc::new(AtomicUsize::new(0));
        let (left, accepted) = (Arc::clone(&waiting_octets), Arc::new(AtomicUsize::new(0)));
        let closing = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            sender,
            addresses,
            group_counter: 0,
            other_counter: 0,
            heads: Box::new([[0; DATA_HEAD_LEN]; RUN_MAX]),
            trailers: Box::new([[0; TRAILER_LEN]; RUN_MAX]),
            accepted: Arc::clone(&accepted),
            closing: Arc::clone(&closing),
        };
        let panicked = inputs.clone();
        let failed = move |error| {
            // While the loop has enough to do it hears of the next one.
            let _ = inputs.try_send(Input::NotSent(error));
        };
        let thread = watched::spawn(
            "send",
            move || worker.run(&items, &left, failed),
            move |reason| {
                let _ = panicked
                    .blocking_send(Input::Broken(Error::Internal { task: "send".into(), reason }));
            },
        )
        .map_err(|source| Error::System { what: "a thread to send", source })?;
        Ok(Self { queue: Some(queue), waiting_octets, accepted, closing, thread: Some(thread) })
    }

    /// Whether more may be handed over now, that is to leave at so many bits per second.
    pub(crate) fn has_room(&self, rate: u64) -> bool {
        self.waiting_octets.load(Ordering::Relaxed) < queue_octets(rate)
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
        self.waiting_octets.fetch_add(item.octets(), Ordering::Relaxed);
        if let Some(queue) = &self.queue {
            // What is ahead of the network is bounded by `has_room`, messages by their schedule. A
            // thread that is gone has said why.
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
            let octets = item.octets();
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
            waiting.fetch_sub(octets, Ordering::Relaxed);
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
        let symbol_size = u16::try_from(block.shape().symbol_size()).unwrap_or(u16::MAX);
        let mut symbols: [&[u8]; RUN_MAX] = [&[]; RUN_MAX];
        let mut length = 0;
        for position in 0..burst.count.min(BURST_SYMBOLS_MAX) {
            let Some(head) = burst.head(position) else { continue };
            let Some(symbol) = block.symbol(head.esi) else { continue };
            let counter = self.next_counter(burst.to);
            let stream = burst.block.stream;
            let header = Header { session: self.addresses.session, stream, counter };
            let head = head.emit(&header, symbol_size);
            self.trailers[length] = data_trailer(&head, symbol);
            self.heads[length] = head;
            symbols[length] = symbol;
            length += 1;
        }
        let mut datagrams = [Datagram::whole(&[]); RUN_MAX];
        let parts = self.heads.iter().zip(symbols).zip(self.trailers.iter());
        for (datagram, ((head, symbol), trailer)) in datagrams.iter_mut().zip(parts) {
            *datagram = Datagram { parts: [head, symbol, trailer] };
        }
        self.sender.send_run(&datagrams[..length], self.address(burst.to)).map(|_| ())
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

/// Octets that may wait for the sending thread at so many bits per second.
#[must_use]
pub fn queue_octets(rate: u64) -> usize {
    let octets = usize::try_from(rate / 8 * QUEUE_MILLIS_MAX / 1000).unwrap_or(usize::MAX);
    octets.clamp(QUEUE_OCTETS_MIN, QUEUE_OCTETS_MAX)
}

#[expect(clippy::disallowed_methods, reason = "bursts leave by the clock")]
fn sleep_until(at: Instant) {
    let wait = at.saturating_duration_since(Instant::now());
    if wait > SLEEP_MIN {
        thread::sleep(wait);
    }
}

/// Twice what is handed over ahead of its time: beyond it the network takes less than the rate,
/// and more would only grow old here.
const QUEUE_MILLIS_MAX: u64 = 10;
/// Two bursts: one leaves while the next waits.
const QUEUE_OCTETS_MIN: usize = 128 << 10;
/// What is ahead of a machine that takes far less than the rate hides that from it.
const QUEUE_OCTETS_MAX: usize = 8 << 20;
/// What a message counts as: hardly anything beside symbols.
pub const MESSAGE_OCTETS: usize = 200;
/// No burst has more symbols.
const RUN_MAX: usize = BURST_SYMBOLS_MAX as usize;
/// Sleeping for less takes longer than that.
const SLEEP_MIN: Duration = Duration::from_micros(60);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use imgcast_common::{
        net::{Family, Interface, NodeSocket, Offload},
        wire::Role,
    };

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it is the clock that bursts leave by")]
    fn whatever_is_handed_over_ahead_of_its_time_no_datagram_leaves_a_milli_before_it() {
        let interface = Interface::find("lo", Family::V4).unwrap();
        for offload in [Offload::IfAvailable, Offload::Off] {
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let address = receiver.local_addr().unwrap();
            let socket = Arc::new(NodeSocket::open(&interface, 1, 0).unwrap());
            let addresses =
                Addresses { session: SessionId(1), rendezvous: address, data_group: address };
            let (inputs, mut failures) = mpsc::channel(1);
            let sender = BatchSender::new(socket, offload);
            let pump = Pump::start(sender, addresses, inputs).unwrap();
            let block = Arc::new(PreparedBlock::sample(SYMBOLS, 64));
            // Together, close together or far apart, and all handed over at once.
            let mut at = Instant::now();
            let due: Vec<Instant> = (0..32)
                .map(|number| {
                    at += Duration::from_millis([0, 1, 5, 12][number % 4]);
                    at
                })
                .collect();
            for at in &due {
                let to = Destination::Unicast(address);
                pump.burst(Burst::sample(*at, to, SYMBOLS), Arc::clone(&block));
            }
            let mut octets = [0; 256];
            for number in 0..due.len() * SYMBOLS as usize {
                let length = receiver.recv(&mut octets).unwrap();
                let received = Instant::now();
                let (header, _) = Message::parse(&octets[..length], Role::Receiver).unwrap();
                assert_eq!(header.counter, (number as u64 + 1) | UNICAST);
                let early = due[number / SYMBOLS as usize].saturating_duration_since(received);
                assert!(early <= Duration::from_millis(1), "datagram {number}: {early:?} early");
            }
            assert!(failures.try_recv().is_err(), "all of it was sent");
        }
    }

    /// All bursts together fit into a socket's buffer, whoever reads it how late.
    const SYMBOLS: u32 = 4;
}
