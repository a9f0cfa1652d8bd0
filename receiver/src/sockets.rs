//! The sockets of a receiver, each read by a thread of its own into one queue, and the loop that
//! waits for that.

use std::{
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use imgcast_common::{
    limits::check_files,
    net::{
        Batch, BatchLayout, BatchPool, BatchReceiver, BatchSender, BufferGrant, Family,
        GroupSocket, Interface, NetError, NodeSocket, Offload,
    },
    watched,
    wire::Header,
};
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    config::NetworkConfig,
    error::Error,
    session::{Transmit, Via},
};

/// What waits for sockets, threads, timers and signals at once.
pub(crate) fn event_loop() -> Result<tokio::runtime::Runtime, Error> {
    let build = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let built = check_files().and_then(|()| build());
    built.map_err(|source| Error::System { action: "start an event loop", source })
}

/// What a socket brought.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Datagrams, and by which way.
    Datagrams(Via, Batch),
    /// A socket cannot be read any more.
    Broken(Error),
}

/// Sends by unicast, and keeps the readers of all sockets running.
pub(crate) struct Sockets {
    interface: Interface,
    offload: Offload,
    sender: BatchSender,
    counter: u64,
    arrivals: mpsc::Sender<Arrival>,
    rendezvous: Option<Membership>,
    data: Option<Membership>,
    _own: Reader,
}

/// A group that is read.
struct Membership {
    socket: Arc<GroupSocket>,
    /// What was granted to the socket, which holds about as much.
    room_bytes: usize,
    _reader: Reader,
}

/// A thread that reads until this is dropped.
struct Reader(Arc<AtomicBool>);

impl Sockets {
    /// Opens the receiver's own socket, and the rendezvous group's if there is one.
    pub(crate) fn open(
        interface: Interface,
        hops: u8,
        offload: Offload,
        rendezvous: Option<SocketAddr>,
    ) -> Result<(Self, mpsc::Receiver<Arrival>), Error> {
        let (arrivals, queue) = mpsc::channel(ARRIVALS_MAX);
        let own = Arc::new(NodeSocket::open(&interface, hops, 0)?);
        let grant = own.set_receive_buffer(RECEIVE_BUFFER)?;
        debug!(local = %own.local(), ?grant, "own socket");
        own.set_receive_timeout(Some(READER_TIMEOUT))?;
        let pool = BatchPool::new(UNICAST_BATCHES, layout(&interface, offload));
        let reader = Reader::start(Arc::clone(&own), grant, pool, Via::Unicast, &arrivals)?;
        let sender = BatchSender::new(own, Offload::Off);
        let mut sockets = Self {
            interface,
            offload,
            sender,
            counter: 0,
            arrivals,
            rendezvous: None,
            data: None,
            _own: reader,
        };
        if let Some(group) = rendezvous {
            let octets = sockets.interface.max_datagram_octets();
            let pool = BatchPool::new(RENDEZVOUS_BATCHES, BatchLayout::plain(octets));
            let membership = sockets.listen(group, RENDEZVOUS_BUFFER, pool, Via::Rendezvous)?;
            sockets.rendezvous = Some(membership);
        }
        Ok((sockets, queue))
    }

    /// Joins the data group of a session, and leaves the one of before.
    pub(crate) fn join(&mut self, group: SocketAddr) -> Result<(), Error> {
        self.data = None;
        let pool = BatchPool::new(DATA_BATCHES, layout(&self.interface, self.offload));
        self.data = Some(self.listen(group, RECEIVE_BUFFER, pool, Via::Group)?);
        Ok(())
    }

    /// How much may wait in the socket of the data group, roughly.
    pub(crate) fn room_bytes(&self) -> usize {
        self.data.as_ref().map_or(0, |membership| membership.room_bytes)
    }

    /// Joins a group and reads what comes from it.
    fn listen(
        &self,
        group: SocketAddr,
        buffer_bytes: usize,
        pool: BatchPool,
        via: Via,
    ) -> Result<Membership, Error> {
        let (socket, grant) = GroupSocket::join(&self.interface, group, buffer_bytes)?;
        debug!(%group, interface = %self.interface.name, granted = grant.granted_bytes, "joined");
        socket.set_receive_timeout(Some(READER_TIMEOUT))?;
        let socket = Arc::new(socket);
        let reader = Reader::start(Arc::clone(&socket), grant, pool, via, &self.arrivals)?;
        Ok(Membership { socket, room_bytes: grant.granted_bytes, _reader: reader })
    }

    /// Leaves all groups and joins them again.
    pub(crate) fn renew(&self) {
        for membership in self.data.iter().chain(&self.rendezvous) {
            if let Err(error) = membership.socket.renew() {
                debug!(%error, "membership not renewed");
            }
        }
    }

    /// Sends one message; what cannot be sent is lost, as on the wire.
    pub(crate) fn send(&mut self, transmit: &Transmit) {
        self.counter += 1;
        let header =
            Header { session: transmit.session, stream: transmit.stream, counter: self.counter };
        let datagram = transmit.message.emit(&header, transmit.octets_min);
        if let Err(error) = self.sender.send_one(&datagram, transmit.to) {
            debug!(%error, "not sent");
        }
    }
}

impl Reader {
    fn start<S: AsFd + Send + 'static>(
        socket: S,
        grant: BufferGrant,
        pool: BatchPool,
        via: Via,
        arrivals: &mpsc::Sender<Arrival>,
    ) -> Result<Self, Error> {
        let gathers = grant.granted_bytes >= GATHER_BUFFER_MIN;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, arrivals) = (Arc::clone(&stop), arrivals.clone());
        let panicked = arrivals.clone();
        let mut receiver = BatchReceiver::new(socket, pool)?;
        let read = move || {
            while !stopped.load(Ordering::Relaxed) {
                let (arrival, is_small) = match receiver.receive() {
                    Ok(Some(batch)) => {
                        let is_small = gathers && batch.fill() < SMALL_BATCH;
                        (Arrival::Datagrams(via, batch), is_small)
                    }
                    Ok(None) => continue,
                    Err(error) => (Arrival::Broken(error.into()), false),
                };
                let broken = matches!(arrival, Arrival::Broken(_));
                if arrivals.blocking_send(arrival).is_err() || broken {
                    return;
                }
                if is_small {
                    thread::sleep(GATHER);
                }
            }
        };
        let told = move |text| {
            let _ = panicked.blocking_send(Arrival::Broken(Error::Internal { text }));
        };
        watched::spawn("receive", read, told)
            .map_err(|source| Error::System { action: "start a thread to receive", source })?;
        Ok(Self(stop))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The interface that the operator means, or the one that goes without saying.
pub(crate) fn interface(network: &NetworkConfig) -> Result<Interface, NetError> {
    Interface::chosen(network.interface.as_deref(), Family::of(network.rendezvous.ip()))
}

fn layout(interface: &Interface, offload: Offload) -> BatchLayout {
    match offload {
        Offload::IfAvailable => BatchLayout::COALESCED,
        Offload::Off => BatchLayout::plain(interface.max_datagram_octets()),
    }
}

/// A stall of 20 ms at 10 Gbit/s is 25 MB of datagrams.
const RECEIVE_BUFFER: usize = 32 << 20;
/// A few ANNOUNCEs.
const RENDEZVOUS_BUFFER: usize = 256 << 10;
/// What lies between the reading thread and the loop: 9 MiB with joined segments.
const DATA_BATCHES: usize = 16;
/// Half of that: the loop does not get through what the thread reads.
pub(crate) const CROWDED_BATCHES: usize = DATA_BATCHES / 2;
/// Unicast is slower.
const UNICAST_BATCHES: usize = 6;
/// Four times a second somebody says something.
const RENDEZVOUS_BATCHES: usize = 2;
/// More than there are batches in all.
const ARRIVALS_MAX: usize = 32;
/// A batch that is filled less than this emptied the socket.
const SMALL_BATCH: f64 = 0.5;
/// So long more may gather then: to wake two threads for every single datagram costs a slow host
/// more than all else (16 receivers of 50 Mbit/s on two cores: 8 s of CPU time of 6 s · 2).
const GATHER: Duration = Duration::from_millis(1);
/// What arrives meanwhile fits: 10 ms of 2.5 Gbit/s.
const GATHER_BUFFER_MIN: usize = 3 << 20;
/// How soon a reader notices that it is over.
const READER_TIMEOUT: Duration = Duration::from_millis(100);
