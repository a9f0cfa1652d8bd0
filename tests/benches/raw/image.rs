//! An image from one end to the other: the work that every transfer consists of, and nothing
//! beside it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imgcast_common::layout::{Layout, symbol_size_for};
use imgcast_common::net::{
    Batch, BatchLayout, BatchPool, BatchReceiver, BatchSender, Datagram, Interface, NodeSocket,
    Offload,
};
use imgcast_common::tree::{BlockDigest, IndexBuilder};
use imgcast_common::wire::{DATA_HEAD_LEN, TRAILER_LEN, data_trailer};

use super::receive::{number, read};
use super::send::{BURST_DATAGRAMS, SEND_BUFFER, head};
use super::{OVERHEAD, Path, Seconds, report};

/// What to send.
#[derive(Debug, clap::Args)]
pub(super) struct SendOptions {
    #[command(flatten)]
    path: Path,
    /// How many receivers there are
    #[arg(long, value_name = "N", default_value = "1")]
    receivers: usize,
    /// Give up if none of them writes anything for so long
    #[arg(long, value_name = "TIME", default_value = "30")]
    timeout: Seconds,
    /// The image
    #[arg(value_name = "FILE")]
    image: PathBuf,
}

/// Where it is to go.
#[derive(Debug, clap::Args)]
pub(super) struct ReceiveOptions {
    #[command(flatten)]
    path: Path,
    /// Give up if nothing arrives for so long
    #[arg(long, value_name = "TIME", default_value = "30")]
    timeout: Seconds,
    /// The copy
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Sends block after block, no further ahead of any receiver than its socket can bear.
pub(super) fn send(options: &SendOptions) -> Result<serde_json::Value, Box<dyn Error>> {
    let (path, file) = (&options.path, File::open(&options.image)?);
    let interface = path.interface()?;
    let layout = layout(&interface, file.metadata()?.len())?;
    let symbol_size = usize::from(layout.symbol_size());
    let socket = Arc::new(NodeSocket::open(&interface, 1, 0)?);
    socket.set_send_buffer(SEND_BUFFER)?;
    socket.set_receive_buffer(PROGRESS_BUFFER)?;
    socket.set_receive_timeout(Some(options.timeout.0))?;
    let pool = BatchPool::new(1, BatchLayout::plain(PROGRESS_OCTETS));
    let mut written = BTreeMap::new();
    let mut progress = BatchReceiver::new(Arc::clone(&socket), pool)?;
    let mut sender = BatchSender::new(socket, path.offload());
    let mut buffer = vec![0; usize::try_from(layout.block_size())?];
    let mut index = IndexBuilder::new(layout.blocks());
    let begun = Instant::now();
    let (mut datagrams, mut by_all) = (0, 0);
    for block in 0..layout.blocks() {
        let range = layout.block_range(block);
        let octets = &mut buffer[..layout.block_len(block) as usize];
        file.read_exact_at(octets, range.start)?;
        index.insert(block, BlockDigest::of(&layout, block, octets).ok_or("no such block")?);
        while range.end > by_all + AHEAD_MAX {
            let batch = progress.receive()?.ok_or("no receiver writes anything")?;
            for (receiver, datagram) in batch.datagrams() {
                written.insert(*receiver, number(datagram, 0).unwrap_or(0));
            }
            if written.len() >= options.receivers {
                by_all = written.values().copied().min().unwrap_or(0);
            }
        }
        for (burst, run) in (0u64..).zip(octets.chunks(BURST_DATAGRAMS * symbol_size)) {
            let offset = range.start + burst * (BURST_DATAGRAMS * symbol_size) as u64;
            send_burst(&mut sender, path.group, offset, layout, run)?;
            datagrams += run.len().div_ceil(symbol_size) as u64;
        }
    }
    let mut json = report(layout.bytes(), datagrams, begun.elapsed());
    json["offload"] = sender.uses_offload().into();
    json["image"] = index.finish().ok_or("a block is missing")?.image_id().to_string().into();
    Ok(json)
}

/// Sends what is at `offset` of the image.
fn send_burst(
    sender: &mut BatchSender,
    group: SocketAddr,
    offset: u64,
    layout: Layout,
    run: &[u8],
) -> Result<(), Box<dyn Error>> {
    let symbol_size = usize::from(layout.symbol_size());
    let mut heads = [[0; DATA_HEAD_LEN]; BURST_DATAGRAMS];
    let mut trailers = [[0; TRAILER_LEN]; BURST_DATAGRAMS];
    let mut datagrams = [Datagram::whole(&[]); BURST_DATAGRAMS];
    let offsets = (offset..).step_by(symbol_size);
    let parts = heads.iter_mut().zip(&mut trailers).zip(run.chunks(symbol_size).zip(offsets));
    let mut count = 0;
    for (datagram, ((head_octets, trailer), (symbol, offset))) in datagrams.iter_mut().zip(parts) {
        *head_octets = head([offset, layout.bytes(), 0]);
        *trailer = data_trailer(head_octets, symbol);
        *datagram = Datagram { parts: [head_octets, symbol, trailer] };
        count += 1;
    }
    sender.send_run(&datagrams[..count], group)?;
    Ok(())
}

/// Writes the image that arrives, block after block.
pub(super) fn receive(options: &ReceiveOptions) -> Result<serde_json::Value, Box<dyn Error>> {
    let interface = options.path.interface()?;
    let socket = Arc::new(NodeSocket::open(&interface, 1, 0)?);
    let mut copy = Arriving {
        interface,
        file: File::create(&options.output)?,
        progress: BatchSender::new(socket, Offload::Off),
        cut: None,
        block: Vec::new(),
        octets: 0,
        datagrams: 0,
    };
    let mut begun = None;
    let socket = read(&options.path, options.timeout, |batch| {
        begun.get_or_insert_with(Instant::now);
        copy.take(batch)
    })?;
    let took = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
    let mut json = report(copy.octets, copy.datagrams, took);
    json["offload"] = socket.coalesces.into();
    json["receive_buffer_bytes"] = socket.buffer_octets.into();
    let index = copy.cut.and_then(|(_, index)| index.finish()).ok_or("a block is missing")?;
    json["image"] = index.image_id().to_string().into();
    Ok(json)
}

/// A copy of which a part is there.
struct Arriving {
    interface: Interface,
    file: File,
    progress: BatchSender,
    /// Known from the first datagram on.
    cut: Option<(Layout, IndexBuilder)>,
    /// What there is of the next one.
    block: Vec<u8>,
    octets: u64,
    datagrams: u64,
}

impl Arriving {
    fn take(&mut self, batch: &Batch) -> Result<ControlFlow<()>, Box<dyn Error>> {
        for (sender, datagram) in batch.datagrams() {
            if datagram.len() <= OVERHEAD {
                return Err("a datagram is too short".into());
            }
            let (summed, trailer) = datagram.split_at(datagram.len() - TRAILER_LEN);
            if crc32fast::hash(summed).to_be_bytes() != trailer {
                return Err("a datagram is damaged".into());
            }
            if number(datagram, 0) != Some(self.octets) {
                return Err(format!("octet {} of the image was lost", self.octets).into());
            }
            let symbol = &summed[DATA_HEAD_LEN..];
            self.block.extend_from_slice(symbol);
            self.octets += symbol.len() as u64;
            self.datagrams += 1;
            if self.cut.is_none() {
                let layout = layout(&self.interface, number(datagram, 1).unwrap_or(0))?;
                self.file.set_len(layout.bytes())?;
                self.cut = Some((layout, IndexBuilder::new(layout.blocks())));
            }
            let Some((layout, index)) = &mut self.cut else { continue };
            let block = u32::try_from((self.octets - 1) / layout.block_size())?;
            let range = layout.block_range(block);
            if self.octets < range.end {
                continue;
            }
            let digest = BlockDigest::of(layout, block, &self.block);
            index.insert(block, digest.ok_or("more than a block")?);
            self.file.write_all_at(&self.block, range.start)?;
            self.block.clear();
            self.progress.send_one(&self.octets.to_be_bytes(), *sender)?;
            if self.octets == layout.bytes() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// How both ends cut an image of so many octets.
fn layout(interface: &Interface, bytes: u64) -> Result<Layout, Box<dyn Error>> {
    let symbol_size = symbol_size_for(interface.max_datagram_octets());
    let layout = symbol_size.and_then(|symbol_size| Layout::for_image(bytes, symbol_size));
    layout.ok_or_else(|| "no image fits here".into())
}

/// Half of what the receiver's socket holds even packet by packet.
const AHEAD_MAX: u64 = 16 << 20;
/// What all that lie within that distance may tell.
const PROGRESS_BUFFER: usize = 1 << 20;
/// A number.
const PROGRESS_OCTETS: usize = 8;
