//! Garbage at every socket of a running transfer does no more than cost time.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use imgcast_common::net::{BatchSender, Family, Interface, NodeSocket, Offload};
use imgcast_common::prng::Prng;
use imgcast_tests::process::{Process, wait_until};
use serde_json::Value;

use crate::stage::{BLOCK, DEADLINE, Stage, assert_holds, image_id, random};

#[test]
fn a_transfer_under_a_hundred_thousand_mutated_datagrams_completes_in_bounded_memory() {
    let stage = Stage::new();
    let octets = random(12 * BLOCK + 99);
    let options = ["--min-receivers", "2", "--max-bitrate", "40M"];
    let mut sender = stage.send(&stage.image("image", &octets), &options);
    let id = image_id(&octets);
    let options = ["--image", &id, "--memory", "32M"];
    let mut first = stage.receive("first", &options);
    sender.say(" joined\n", DEADLINE);
    let session = offered_session(&stage);
    let mut targets = vec![
        session.group,
        ([239, 255, 63, 30], stage.portbase).into(),
        ([127, 0, 0, 1], stage.portbase).into(),
        own_socket(&first),
    ];

    // While all wait for the second one, nothing of this can miss its target.
    blast(DATAGRAMS / 2, 1, &targets, &session);
    assert!(first.poll().is_none() && sender.poll().is_none(), "{}", first.output());
    let mut second = stage.receive("second", &options);
    second.say("loss 0.0 %", DEADLINE);
    targets.push(own_socket(&second));
    let over = Arc::new(AtomicBool::new(false));
    let memory = watch_memory([sender.id(), first.id(), second.id()], Arc::clone(&over));
    blast(DATAGRAMS / 2, 2, &targets, &session);

    first.succeed(DEADLINE);
    second.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    over.store(true, Ordering::Relaxed);
    let peaks = memory.join().unwrap();
    for kib in peaks {
        assert!(kib > 0 && kib <= MEMORY_KIB_MAX, "{peaks:?} KiB");
    }
    assert_holds(&stage.output("first"), &octets);
    assert_holds(&stage.output("second"), &octets);
    for said in [first.stderr(), second.stderr()] {
        assert!(said.lines().count() < LINES_MAX, "{said}");
    }
    assert!(sender.stdout().starts_with(&format!("image {id} ")), "{}", sender.output());
}

struct Session {
    id: u64,
    group: SocketAddr,
}

/// As `list` tells it.
fn offered_session(stage: &Stage) -> Session {
    let mut list = stage.list(&["--json"]);
    list.succeed(DEADLINE);
    let shown: Value = serde_json::from_str(&list.stdout()).unwrap();
    let offer = &shown["offers"][0];
    let id = u64::from_str_radix(offer["session"].as_str().unwrap(), 16).unwrap();
    Session { id, group: offer["data_group"].as_str().unwrap().parse().unwrap() }
}

/// Where a receiver hears unicast, as the kernel knows it.
fn own_socket(process: &Process) -> SocketAddr {
    let mut port = None;
    wait_until("it has a socket", DEADLINE, || {
        port = unicast_port(process.id());
        port.is_some()
    });
    ([127, 0, 0, 1], port.unwrap()).into()
}

fn unicast_port(process: u32) -> Option<u16> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let inodes: Vec<String> = files
        .filter_map(|file| {
            fs::read_link(file.ok()?.path()).ok()?.into_os_string().into_string().ok()
        })
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string("/proc/net/udp").ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, port) = fields.get(1)?.split_once(':')?;
        let ours = inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
        let loopback = u32::from_str_radix(address, 16).ok()? == u32::from_ne_bytes([127, 0, 0, 1]);
        (ours && loopback).then(|| u16::from_str_radix(port, 16).ok())?
    })
}

/// Sends mutated golden datagrams to all `targets` in turn: of foreign sessions with and without a
/// right checksum, of this session with a wrong one. With a right one, a plain session has to
/// believe them.
fn blast(count: usize, seed: u64, targets: &[SocketAddr], session: &Session) {
    let golden = golden();
    let mut prng = Prng::new(seed);
    let interface = Interface::find("lo", Family::V4).unwrap();
    let node = Arc::new(NodeSocket::open(&interface, 1, 0).unwrap());
    let mut sender = BatchSender::new(node, Offload::Off);
    for number in 0..count {
        let mut datagram = golden[number % golden.len()].clone();
        for _ in 0..=prng.below(8) {
            let at = index(&mut prng, datagram.len());
            datagram[at] = prng.bits().to_be_bytes()[0];
        }
        match prng.below(4) {
            0 => drop(datagram.split_off(index(&mut prng, golden[number % golden.len()].len()))),
            1 => datagram[4..12].copy_from_slice(&session.id.to_be_bytes()),
            2 => make_crc_right(&mut datagram),
            _ => {}
        }
        if !datagram.is_empty() {
            sender.send_one(&datagram, targets[number % targets.len()]).unwrap();
        }
    }
}

fn index(prng: &mut Prng, end: usize) -> usize {
    usize::try_from(prng.below(end as u64)).unwrap()
}

fn make_crc_right(datagram: &mut [u8]) {
    if let Some((covered, trailer)) = datagram.split_last_chunk_mut::<4>() {
        *trailer = crc32fast::hash(covered).to_be_bytes();
    }
}

fn golden() -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/v1");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let octets = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    files.iter().map(octets).collect()
}

/// Follows the processes' peaks of resident memory, in KiB, for as long as they run.
fn watch_memory(ids: [u32; 3], over: Arc<AtomicBool>) -> thread::JoinHandle<[u64; 3]> {
    thread::spawn(move || {
        let mut peaks = [0; 3];
        while !over.load(Ordering::Relaxed) {
            for (peak, id) in peaks.iter_mut().zip(ids) {
                *peak = peak_memory_kib(id).unwrap_or(*peak);
            }
            thread::sleep(std::time::Duration::from_millis(20));
        }
        peaks
    })
}

fn peak_memory_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// In two halves.
const DATAGRAMS: usize = 100_000;
/// Three times what the programs take undisturbed, and far below the octets that were sent.
const MEMORY_KIB_MAX: u64 = 90 << 10;
/// Several times what a transfer has to tell: garbage must not fill logs.
const LINES_MAX: usize = 40;
