//! The sending end: one thread, one burst after the other.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use imgcast_common::net::{BatchSender, Datagram, NodeSocket};
use imgcast_common::prng::Prng;
use imgcast_common::wire::{DATA_HEAD_LEN, TRAILER_LEN};

use super::{BitRate, END, OVERHEAD, Path, RING_OCTETS, Seconds, datagram_octets, report};

/// What to send.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    path: Path,
    /// How long to send
    #[arg(long, value_name = "TIME", default_value = "5")]
    seconds: Seconds,
    /// How fast, with all framing counted [default: as fast as the socket takes it]
    #[arg(long, value_name = "RATE")]
    rate: Option<BitRate>,
    /// Octets in a datagram [default: as in an image's largest]
    #[arg(long, value_name = "OCTETS")]
    datagram: Option<usize>,
}

/// Sends for the time that was asked for, and says what it was.
pub(super) fn run(options: &Options) -> Result<serde_json::Value, Box<dyn Error>> {
    let path = &options.path;
    let interface = path.interface()?;
    let octets = options.datagram.unwrap_or_else(|| datagram_octets(&interface));
    let payload_octets = octets.checked_sub(OVERHEAD).filter(|octets| *octets > 0);
    let payload_octets = payload_octets.ok_or("a datagram holds a head of 40 octets and 4 more")?;
    let socket = Arc::new(NodeSocket::open(&interface, 1, 0)?);
    socket.set_send_buffer(SEND_BUFFER)?;
    let mut sender = BatchSender::new(socket, path.offload());
    let mut ring = vec![0; RING_OCTETS];
    Prng::new(1).fill(&mut ring);

    let burst_time = options.rate.map(|BitRate(rate)| {
        let octets = (octets + FRAMING) * BURST_DATAGRAMS;
        Duration::from_secs_f64(octets as f64 * 8.0 / rate as f64)
    });
    let begun = Instant::now();
    let (mut sent, mut datagrams, mut offset, mut next) = (0, 0, 0, begun);
    while begun.elapsed() < options.seconds.0 {
        if let Some(burst_time) = burst_time {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next = next.max(Instant::now() - BEHIND_MAX) + burst_time;
        }
        let heads: [[u8; DATA_HEAD_LEN]; BURST_DATAGRAMS] =
            std::array::from_fn(|i| head([datagrams + i as u64, 0, 0]));
        let trailers = [[0; TRAILER_LEN]; BURST_DATAGRAMS];
        if offset + BURST_DATAGRAMS * payload_octets > ring.len() {
            offset = 0;
        }
        let slices = ring[offset..].chunks_exact(payload_octets);
        let parts = heads.iter().zip(slices).zip(&trailers);
        let burst: Vec<Datagram<'_>> = parts
            .map(|((head, slice), trailer)| Datagram { parts: [head, slice, trailer] })
            .collect();
        let accepted = sender.send_run(&burst, path.group)?;
        offset += BURST_DATAGRAMS * payload_octets;
        datagrams += accepted.datagrams as u64;
        sent += (accepted.datagrams * payload_octets) as u64;
    }
    let took = begun.elapsed();
    for _ in 0..END_MARKS {
        thread::sleep(END_MARK_PAUSE);
        sender.send_one(&head([END, datagrams, sent]), path.group)?;
    }
    let mut json = report(sent, datagrams, took);
    json["offload"] = sender.uses_offload().into();
    Ok(json)
}

/// A head that begins with these.
pub(super) fn head(numbers: [u64; 3]) -> [u8; DATA_HEAD_LEN] {
    let mut head = [0; DATA_HEAD_LEN];
    for (place, number) in head.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_be_bytes());
    }
    head
}

/// As many as the sender's session hands out at once.
pub(super) const BURST_DATAGRAMS: usize = 44;
/// As the sender's where it does not know the link.
pub(super) const SEND_BUFFER: usize = 4 << 20;
/// Octets that UDP, IPv4 and Ethernet add, preamble, FCS and gap included.
const FRAMING: usize = 8 + 20 + 38;
/// What was missed longer ago is not made up for, as in the sender's pacer.
const BEHIND_MAX: Duration = Duration::from_millis(1);
/// Any of them ends the receiver, and at most a few are lost.
const END_MARKS: usize = 20;
/// So that the receiver has read all when the first mark comes, or the next one.
const END_MARK_PAUSE: Duration = Duration::from_millis(20);
