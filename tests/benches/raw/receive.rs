//! The receiving end: one thread reads, as in the receiver, and one works.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use imgcast_common::net::{Batch, BatchLayout, BatchPool, BatchReceiver, GroupSocket, Offload};
use imgcast_common::wire::{DATA_HEAD_LEN, TRAILER_LEN};

use super::{END, OVERHEAD, Path, RING_OCTETS, Seconds, report};

/// What to do with what arrives.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    path: Path,
    /// What to do with each datagram beside counting it
    #[arg(long, value_enum, default_value_t = Work::CopyCrc)]
    work: Work,
    /// Give up if nothing arrives for so long
    #[arg(long, value_name = "TIME", default_value = "30")]
    timeout: Seconds,
}

/// What is done with a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Work {
    /// Nothing
    None,
    /// A checksum over it
    Crc,
    /// Its payload is copied to a place in memory
    Copy,
    /// Both, as the receiver must
    #[value(name = "copy+crc")]
    CopyCrc,
}

/// Counts until the sender says it is over.
pub(super) fn run(options: &Options) -> Result<serde_json::Value, Box<dyn Error>> {
    let mut counts = Counts::new(options.work);
    let socket = read(&options.path, options.timeout, |batch| {
        counts.take(batch);
        Ok(if counts.end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let mut json = counts.report();
    json["offload"] = socket.coalesces.into();
    json["receive_buffer_bytes"] = socket.buffer_octets.into();
    Ok(json)
}

/// What the socket turned out to be.
pub(super) struct SocketFacts {
    /// Whether the kernel joined datagrams.
    pub(super) coalesces: bool,
    /// How much may wait to be read.
    pub(super) buffer_octets: usize,
}

/// Reads the group in a thread of its own, and hands `take` what arrives until that breaks off.
pub(super) fn read(
    path: &Path,
    timeout: Seconds,
    mut take: impl FnMut(&Batch) -> Result<ControlFlow<()>, Box<dyn Error>>,
) -> Result<SocketFacts, Box<dyn Error>> {
    let interface = path.interface()?;
    let layout = match path.offload() {
        Offload::IfAvailable => BatchLayout::COALESCED,
        Offload::Off => BatchLayout::plain(interface.max_datagram_octets()),
    };
    let (socket, grant) = GroupSocket::join(&interface, path.group, RECEIVE_BUFFER)?;
    socket.set_receive_timeout(Some(READER_TIMEOUT))?;
    let mut receiver = BatchReceiver::new(socket, BatchPool::new(BATCHES, layout))?;
    let coalesces = receiver.coalesces();
    let (arrivals, queue) = sync_channel(ARRIVALS_MAX);
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        scope.spawn(|| {
            let arrivals = arrivals;
            while !over.load(Ordering::Relaxed) {
                match receiver.receive() {
                    Ok(batch) => {
                        if batch.is_some_and(|batch| arrivals.send(batch).is_err()) {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        });
        let taken = loop {
            let taken = match queue.recv_timeout(timeout.0) {
                Ok(batch) => take(&batch),
                Err(RecvTimeoutError::Timeout) => Err("nothing arrives".into()),
                Err(RecvTimeoutError::Disconnected) => Err("the socket broke".into()),
            };
            match taken {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        over.store(true, Ordering::Relaxed);
        drop(queue);
        taken
    })?;
    Ok(SocketFacts { coalesces, buffer_octets: grant.granted_bytes })
}

/// What has arrived.
struct Counts {
    work: Work,
    ring: Vec<u8>,
    place: usize,
    checksums: u64,
    datagrams: u64,
    octets: u64,
    overflow: u64,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
    /// How many datagrams the sender has sent, once it has said so.
    end: Option<u64>,
}

impl Counts {
    fn new(work: Work) -> Self {
        Self {
            work,
            // Not zero: the allocator would hand out untouched pages.
            ring: vec![0xa5; RING_OCTETS],
            place: 0,
            checksums: 0,
            datagrams: 0,
            octets: 0,
            overflow: 0,
            first_at: None,
            last_at: None,
            end: None,
        }
    }

    fn take(&mut self, batch: &Batch) {
        self.overflow = self.overflow.max(batch.overflow_total());
        let now = Instant::now();
        for (_, datagram) in batch.datagrams() {
            match (number(datagram, 0), number(datagram, 1)) {
                (Some(END), Some(datagrams)) => {
                    self.end = Some(datagrams);
                    return;
                }
                (Some(_), _) if datagram.len() > OVERHEAD => self.keep(datagram),
                _ => continue,
            }
            self.first_at.get_or_insert(now);
            self.last_at = Some(now);
        }
    }

    fn keep(&mut self, datagram: &[u8]) {
        let payload = &datagram[DATA_HEAD_LEN..datagram.len() - TRAILER_LEN];
        if matches!(self.work, Work::Crc | Work::CopyCrc) {
            self.checksums ^= u64::from(crc32fast::hash(datagram));
        }
        if matches!(self.work, Work::Copy | Work::CopyCrc) {
            if self.place + payload.len() > self.ring.len() {
                self.place = 0;
            }
            self.ring[self.place..self.place + payload.len()].copy_from_slice(payload);
            self.place += payload.len();
        }
        self.datagrams += 1;
        self.octets += payload.len() as u64;
    }

    fn report(&self) -> serde_json::Value {
        let took = self.first_at.zip(self.last_at).map(|(first, last)| last - first);
        let mut json = report(self.octets, self.datagrams, took.unwrap_or_default());
        json["lost"] = self.end.unwrap_or(0).saturating_sub(self.datagrams).into();
        json["overflow"] = self.overflow.into();
        // Printed, or a compiler might leave the work out.
        let seen =
            self.ring.iter().step_by(1 << 20).fold(self.checksums, |sum, o| sum + u64::from(*o));
        json["check"] = seen.into();
        json
    }
}

/// The number at one of the first places of a datagram.
pub(super) fn number(datagram: &[u8], place: usize) -> Option<u64> {
    let octets = datagram.chunks_exact(8).nth(place)?;
    octets.try_into().ok().map(u64::from_be_bytes)
}

/// These four are the receiver's own.
const RECEIVE_BUFFER: usize = 32 << 20;
const BATCHES: usize = 16;
const ARRIVALS_MAX: usize = 32;
const READER_TIMEOUT: Duration = Duration::from_millis(100);
