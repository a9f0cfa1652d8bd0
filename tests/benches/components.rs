//! The parts that every octet of an image passes, one by one: wire, checksum, assembler, encoder,
//! decoder by loss, tree.
//!
//! ```sh
//! cargo bench -p imgcast-tests --bench components -- decoder
//! ```
#![expect(clippy::unwrap_used, reason = "a benchmark's inputs are valid")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use imgcast_common::fec::{BlockShape, Received, repair_symbols};
use imgcast_common::id::{BlockId, EncodingSymbolId, ReceiverId, SessionId, Stream};
use imgcast_common::layout::Layout;
use imgcast_common::prng::Prng;
use imgcast_common::tree::{BlockDigest, Index, IndexBuilder};
use imgcast_common::wire::{
    BlockRange, Data, DataHead, Header, Message, Need, NeedFlags, Role, data_trailer,
};
use imgcast_receiver::image::Assembler;

fn wire(criterion: &mut Criterion) {
    let symbol = random(usize::from(SYMBOL_SIZE));
    let header = Header { session: SessionId(1), stream: Stream::Image, counter: 1 };
    let head = DataHead { block: 7, esi: esi(3), turn: 1, stored_len: BLOCK_LEN, still_to_come: 9 };
    let data = Message::Data(Data { head, symbol: &symbol }).emit(&header, 0);
    let need = Message::Need(Need {
        receiver: ReceiverId(1),
        echo_micros: 1,
        hold_micros: 1,
        network_loss: Some(0),
        socket_loss: 0,
        free_blocks: 100,
        drain_kilobytes: 1,
        done_blocks: 1,
        poll: 0,
        flags: NeedFlags::default(),
        needs: (0..100).map(|block| BlockRange::one(2 * block, 3)).collect(),
    });
    let need_octets = need.emit(&header, 0);

    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Bytes(u64::from(SYMBOL_SIZE)));
    group.bench_function("data/emit", |bencher| {
        bencher.iter(|| {
            let head = black_box(&head).emit(&header, SYMBOL_SIZE);
            data_trailer(&head, black_box(&symbol))
        });
    });
    group.bench_function("data/parse", |bencher| {
        bencher.iter(|| Message::parse(black_box(&data), Role::Receiver).is_ok());
    });
    group.throughput(Throughput::Bytes(need_octets.len() as u64));
    group.bench_function("need/emit", |bencher| bencher.iter(|| need.emit(black_box(&header), 0)));
    group.bench_function("need/parse", |bencher| {
        bencher.iter(|| Message::parse(black_box(&need_octets), Role::Sender).is_ok());
    });
}

fn crc(criterion: &mut Criterion) {
    let datagram = random(usize::from(SYMBOL_SIZE) + 40);
    let mut group = criterion.benchmark_group("crc");
    group.throughput(Throughput::Bytes(datagram.len() as u64));
    group.bench_function("datagram", |bencher| {
        bencher.iter(|| crc32fast::hash(black_box(&datagram)));
    });
}

fn assembler(criterion: &mut Criterion) {
    let (shape, block) = (shape(), random(BLOCK_LEN as usize));
    let padded = padded(&shape, &block);
    let mut group = criterion.benchmark_group("assembler");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("block", |bencher| {
        let mut assembler = Assembler::new(1);
        bencher.iter(|| {
            for (esi, symbol) in source_symbols(&shape, &padded) {
                assembler.insert(BlockId::image(0), &shape, esi, symbol);
            }
            let received = assembler.take(BlockId::image(0)).unwrap();
            assembler.recycle(received.decode().unwrap());
        });
    });
}

fn encoder(criterion: &mut Criterion) {
    let (shape, block) = (shape(), random(BLOCK_LEN as usize));
    let first = esi(shape.padded_symbols());
    let mut group = criterion.benchmark_group("encoder");
    group.throughput(Throughput::Bytes(block.len() as u64));
    for count in [1, 4, 16, 64, 256] {
        group.bench_function(format!("{count}-repairs"), |bencher| {
            bencher.iter(|| repair_symbols(&shape, black_box(&block), first, count).unwrap());
        });
    }
}

fn decoder(criterion: &mut Criterion) {
    let (shape, block) = (shape(), random(BLOCK_LEN as usize));
    let (first, padded) = (shape.padded_symbols(), padded(&shape, &block));
    let mut group = criterion.benchmark_group("decoder");
    group.throughput(Throughput::Bytes(block.len() as u64));
    for missing in [1, 4, 8, 16, 38, 75, 150, 300] {
        // With one repair symbol beyond the missing ones a decode fails once in 50,000 times.
        let repairs = repair_symbols(&shape, &block, esi(first), missing + 1).unwrap();
        let mut received = Received::new(shape, Vec::new());
        // Gone are symbols spread over the block, as on a lossy path.
        let is_lost = |esi: u32| {
            esi * missing / shape.source_symbols() != (esi + 1) * missing / shape.source_symbols()
        };
        for (esi, symbol) in source_symbols(&shape, &padded).filter(|(esi, _)| !is_lost(esi.get()))
        {
            received.insert(esi, symbol);
        }
        for (number, symbol) in (first..).zip(repairs.chunks_exact(shape.symbol_size())) {
            received.insert(esi(number), symbol);
        }
        group.bench_function(format!("{missing}-missing"), |bencher| {
            let decode = |received: Received| received.decode().unwrap();
            bencher.iter_batched(|| received.clone(), decode, BatchSize::LargeInput);
        });
    }
}

fn tree(criterion: &mut Criterion) {
    let layout = Layout::new(64 << 20, 20, SYMBOL_SIZE).unwrap();
    let (block, zeroes) = (random(BLOCK_LEN as usize), vec![0; BLOCK_LEN as usize]);
    let mut builder = IndexBuilder::new(layout.blocks());
    for number in 0..layout.blocks() {
        builder.insert(number, BlockDigest::of(&layout, number, &block).unwrap());
    }
    let index = builder.finish().unwrap();
    let octets = index.to_bytes();

    let mut group = criterion.benchmark_group("tree");
    group.throughput(Throughput::Bytes(u64::from(BLOCK_LEN)));
    group.bench_function("hash", |bencher| {
        bencher.iter(|| BlockDigest::of(&layout, 5, black_box(&block)));
    });
    group.bench_function("hash-zeroes", |bencher| {
        bencher.iter(|| BlockDigest::of(&layout, 5, black_box(&zeroes)));
    });
    group.throughput(Throughput::Elements(u64::from(layout.blocks())));
    group.bench_function("index", |bencher| {
        bencher.iter(|| Index::parse(black_box(&octets), layout.blocks()).unwrap().image_id());
    });
}

fn shape() -> BlockShape {
    BlockShape::new(BLOCK_LEN, SYMBOL_SIZE).unwrap()
}

/// All source symbols of a block that is padded to whole ones.
fn source_symbols<'a>(
    shape: &BlockShape,
    padded: &'a [u8],
) -> impl Iterator<Item = (EncodingSymbolId, &'a [u8])> {
    (0..shape.source_symbols()).map(esi).zip(padded.chunks_exact(shape.symbol_size()))
}

/// The block with the zeroes that its last symbol ends with.
fn padded(shape: &BlockShape, block: &[u8]) -> Vec<u8> {
    let mut padded = block.to_vec();
    padded.resize(shape.source_symbols() as usize * shape.symbol_size(), 0);
    padded
}

fn esi(value: u32) -> EncodingSymbolId {
    EncodingSymbolId::new(value).unwrap()
}

fn random(octets: usize) -> Vec<u8> {
    let mut random = vec![0; octets];
    Prng::new(1).fill(&mut random);
    random
}

fn config() -> Criterion {
    Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = components;
    config = config();
    targets = wire, crc, assembler, encoder, decoder, tree
}
criterion_main!(components);

/// What an image is cut into by default, at MTU 1500.
const BLOCK_LEN: u32 = 1 << 20;
const SYMBOL_SIZE: u16 = 1_408;
