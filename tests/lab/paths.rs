//! Copies are right on all kinds of links and machines: jumbo frames, IPv6, no offload, one core.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::Path;

use imgcast_tests::netns::{Lab, Node};
use imgcast_tests::process::{Process, wait_until};
use imgcast_tests::programs::programs;
use imgcast_tests::scratch::Scratch;

use crate::image::sha256;
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn jumbo_frames_are_filled_and_lossy_receivers_get_the_image() {
    let name = "jumbo_frames_are_filled_and_lossy_receivers_get_the_image";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), lossy_lab());
    lab.set_mtu(9000).unwrap();
    assert_symbols_are_of(8896, &lab, &scratch, &[]);
}

#[test]
fn ipv6_datagrams_fit_their_links_and_lossy_receivers_get_the_image() {
    let name = "ipv6_datagrams_fit_their_links_and_lossy_receivers_get_the_image";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), lossy_lab());
    lab.count(0, "ipv4", "meta protocol ip meta l4proto udp").unwrap();
    assert_symbols_are_of(1376, &lab, &scratch, &IPV6);
    assert_eq!(lab.counted(0, "ipv4"), Ok(0));
}

#[test]
fn who_cannot_take_the_senders_frames_says_so_at_once_and_others_get_the_image() {
    let name = "who_cannot_take_the_senders_frames_says_so_at_once_and_others_get_the_image";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), Lab::new(3).unwrap());
    let image = scratch.random_image(16);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "300M" };
    lab.set_mtu(9000).unwrap();
    lab.set_mtu_of(Node::Receiver(1), 1500).unwrap();
    lab.set_mtu_before(Node::Receiver(1), 1500).unwrap();
    lab.set_mtu_before(Node::Receiver(2), 1500).unwrap();
    // Or a burst crosses as a whole, which is longer than any MTU.
    lab.split_bursts(Node::Sender).unwrap();

    let mut sender = transfer.start_sender(1);
    // What its own link cannot carry a receiver knows by itself, what a switch drops it finds out.
    for (receiver, own_mtu, sender_mtu) in [(1, 1500, "at least 8980"), (2, 9000, "9000")] {
        let mut process = transfer.start_receiver(receiver, &transfer.copy(receiver));
        process.exit_with(EXIT_NETWORK, TRANSFER_DEADLINE);
        let words = format!(
            "interface eth0: its MTU is {own_mtu}, that of the sender's interface is {sender_mtu};"
        );
        assert!(process.stderr().contains(&words), "no {words:?}\n{}", process.output());
        assert!(!transfer.copy(receiver).exists());
    }
    let mut receivers = [transfer.start_receiver(0, &transfer.copy(0))];
    assert_all_get_it(&transfer, &mut sender, &mut receivers);

    // A sender with short frames is heard by all.
    lab.set_mtu_of(Node::Sender, 1500).unwrap();
    fs::remove_file(transfer.copy(0)).unwrap();
    let mut sender = transfer.start_sender(3);
    let mut receivers = [0, 1, 2].map(|i| transfer.start_receiver(i, &transfer.copy(i)));
    assert_all_get_it(&transfer, &mut sender, &mut receivers);
}

#[test]
fn with_and_without_offload_at_either_end_lossy_receivers_get_the_image() {
    let name = "with_and_without_offload_at_either_end_lossy_receivers_get_the_image";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), Lab::new(2).unwrap());
    let image = scratch.random_image(32);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "300M" };
    // What is handed over as one crosses the lab as one, and is lost datagram by datagram only
    // by the receivers themselves.
    lab.count(0, "joined", "meta l4proto udp meta length > 1500").unwrap();
    for (offload, family) in [("off", &[][..]), ("off", &IPV6), ("on", &[]), ("on", &IPV6)] {
        let joined_before = lab.counted(0, "joined").unwrap();
        let options = [family, &["--offload", offload]].concat();
        let mut sender = transfer.start_sender_with(2, &options);
        let mut receivers = [(0, "off"), (1, "on")].map(|(i, offload)| {
            let options = [family, &["--offload", offload, "--drop", "3%"]].concat();
            transfer.start_receiver_with(i, &transfer.copy(i), &options)
        });
        assert_all_get_it(&transfer, &mut sender, &mut receivers);
        (0..2).for_each(|i| fs::remove_file(transfer.copy(i)).unwrap());
        let joined = lab.counted(0, "joined").unwrap() - joined_before;
        assert_eq!(joined > 0, offload == "on", "{joined} packets of several datagrams");
    }
}

#[test]
fn a_receiver_on_one_core_decodes_with_one_thread_and_gets_the_image() {
    let name = "a_receiver_on_one_core_decodes_with_one_thread_and_gets_the_image";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), Lab::new(2).unwrap());
    (0..2).for_each(|i| lab.lose(i, 50).unwrap());
    let image = scratch.random_image(48);
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "150M" };
    let mut pinned = lab.command(Node::Receiver(0), Path::new("taskset"));
    pinned.args(["--cpu-list", &first_core()]).arg(&programs().receiver);
    let mut receivers = [
        transfer.start_receiver_as(pinned, 0, &transfer.copy(0), &MEMORY),
        transfer.start_receiver_with(1, &transfer.copy(1), &MEMORY),
    ];
    // Nobody sends yet, so that both stay where they are; a thread takes its name when it runs.
    let cores = std::thread::available_parallelism().unwrap().get();
    let half = cores.div_ceil(2).min(DECODERS_MAX);
    for (receiver, threads) in receivers.iter_mut().zip([1, half]) {
        receiver.say("listening", TRANSFER_DEADLINE);
        let decoders = || threads_of(receiver, "decode-");
        wait_until("all threads run", TRANSFER_DEADLINE, || decoders() >= threads);
        assert_eq!(decoders(), threads, "{}", receiver.output());
    }

    let mut sender = transfer.start_sender(2);
    assert_all_get_it(&transfer, &mut sender, &mut receivers);
}

#[test]
fn a_paced_sender_sleeps_between_its_bursts() {
    let name = "a_paced_sender_sleeps_between_its_bursts";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), Lab::new(1).unwrap());
    let image = scratch.random_image(16);
    // Half of it takes more than three seconds: little work for much waiting, on any machine.
    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "20M" };
    let mut sender = transfer.start_sender(1);
    let mut receiver = transfer.start_receiver(0, &transfer.copy(0));
    transfer.wait_for_half(&mut sender, lab.sent_bytes());
    let (used, passed) = (sender.cpu_time(), sender.age());
    assert!(used < passed / 2, "{used:?} of CPU time within {passed:?}");
    assert_all_get_it(&transfer, &mut sender, std::slice::from_mut(&mut receiver));
}

/// Three receivers, of which one loses nothing, one a little and one much.
fn lossy_lab() -> Lab {
    let lab = Lab::new(3).unwrap();
    for (receiver, per_mille) in [(0, 0), (1, 20), (2, 100)] {
        lab.lose(receiver, per_mille).unwrap();
    }
    lab
}

/// Lets all three receivers of a lossy lab get an image, and demands that DATA filled their links:
/// symbols had so many octets.
fn assert_symbols_are_of(octets: u64, lab: &Lab, scratch: &Scratch, options: &[&str]) {
    let image = scratch.random_image(32);
    let data = UDP_HEADER_OCTETS + octets + DATA_OCTETS;
    // What may be sealed has room for a longer trailer.
    let longest = data + SEAL_OCTETS;
    lab.count(0, "data", &format!("meta l4proto udp udp length {data}")).unwrap();
    lab.count(0, "long", &format!("meta l4proto udp udp length > {longest}")).unwrap();
    let transfer = Transfer { lab, scratch, image: &image, max_bitrate: "300M" };
    let mut sender = transfer.start_sender_with(3, options);
    let mut receivers =
        [0, 1, 2].map(|i| transfer.start_receiver_with(i, &transfer.copy(i), options));
    assert_all_get_it(&transfer, &mut sender, &mut receivers);
    let (data, long) = (lab.counted(0, "data").unwrap(), lab.counted(0, "long").unwrap());
    assert!(data >= (32 << 20) / octets, "{data} datagrams with symbols of {octets} octets");
    assert_eq!(long, 0, "datagrams that are too long");
}

/// Waits until all have ended well, and compares the copies.
fn assert_all_get_it(transfer: &Transfer<'_>, sender: &mut Process, receivers: &mut [Process]) {
    for receiver in receivers.iter_mut() {
        receiver.succeed(TRANSFER_DEADLINE);
    }
    sender.succeed(SENDER_DEADLINE);
    let wanted = sha256(transfer.image);
    for receiver in 0..receivers.len() {
        assert_eq!(sha256(&transfer.copy(receiver)), wanted, "receiver {receiver}");
    }
}

/// The number of the first core that this process may use.
fn first_core() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("the kernel tells of a process");
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = cores.and_then(|list| list.trim().split([',', '-']).next());
    first.expect("the kernel tells the cores of a process").to_owned()
}

/// How many threads of `process` have a name that begins with `prefix`.
fn threads_of(process: &Process, prefix: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).expect("it runs");
    let names = tasks.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
    names.flatten().filter(|name| name.starts_with(prefix)).count()
}

/// The usual group makes a session an IPv6 one.
const IPV6: [&str; 2] = ["--mcast-rdv-address", "ff15::6330"];

/// As much as this many decoding threads may take, wherever the test runs.
const MEMORY: [&str; 2] = ["--memory", "256M"];
const DECODERS_MAX: usize = 14;

/// The receiver's exit code for what is wrong with interface or network.
const EXIT_NETWORK: i32 = 3;

const UDP_HEADER_OCTETS: u64 = 8;
/// The head and the trailer of DATA.
const DATA_OCTETS: u64 = 44;
/// By so much a sealed trailer is longer than a plain one.
const SEAL_OCTETS: u64 = 12;
