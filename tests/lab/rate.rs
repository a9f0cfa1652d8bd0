//! The rate finds links by itself, and shares them. Verdicts rest on what the links counted, with
//! room for machines that are busy; exact bounds stand in the scenarios, where time is virtual.
#![expect(clippy::unwrap_used, reason = "test code")]
#![expect(clippy::disallowed_methods, reason = "real links carry so much in real time")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use imgcast_tests::links::Traffic;
use imgcast_tests::netns::{Lab, Node, address};
use imgcast_tests::process::{Process, wait_until};
use imgcast_tests::programs::programs;
use imgcast_tests::scratch::Scratch;

use crate::image::text;
use crate::needs::{Need, begin};
use crate::transfer::TRANSFER_DEADLINE;

#[test]
fn a_link_of_20_megabits_in_the_network_is_found_within_three_seconds() {
    let name = "a_link_of_20_megabits_in_the_network_is_found_within_three_seconds";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let search = search(Place::Network, 20, 3, WATCHED_LONG);
    assert!(search.carried >= CARRIED_MIN, "{search:?}");
    assert!(search.lost < LOST_MAX, "{search:?}");
}

#[test]
fn a_link_of_100_megabits_in_the_network_is_found_within_three_seconds() {
    let name = "a_link_of_100_megabits_in_the_network_is_found_within_three_seconds";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let search = search(Place::Network, 100, 3, WATCHED_FOR);
    assert!(search.carried >= CARRIED_MIN, "{search:?}");
    assert!(search.lost < LOST_MAX, "{search:?}");
}

#[test]
fn a_link_of_1000_megabits_in_the_network_is_found_within_three_seconds() {
    let name = "a_link_of_1000_megabits_in_the_network_is_found_within_three_seconds";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    // Not every machine carries so much, nor twice the same.
    let own = search(Place::Sender, 1_000, 1, WATCHED_SHORT);
    let search = search(Place::Network, 1_000, 1, WATCHED_FOR);
    assert!(search.carried >= 0.8 * CARRIED_MIN * own.carried, "{search:?} and {own:?}");
    assert!(search.lost < LOST_MAX, "{search:?}");
}

#[test]
fn a_link_of_the_senders_own_is_found_within_three_seconds() {
    let name = "a_link_of_the_senders_own_is_found_within_three_seconds";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let search = search(Place::Sender, 100, 3, WATCHED_FOR);
    assert!(search.carried >= CARRIED_MIN, "{search:?}");
    assert!(search.lost < LOST_MAX, "{search:?}");
}

#[test]
fn of_two_sessions_on_a_link_each_has_a_sixth_of_what_both_have() {
    let name = "of_two_sessions_on_a_link_each_has_a_sixth_of_what_both_have";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), shared_lab());
    let image = scratch.random_image(SHARED_MEBIBYTES);
    for (name, port) in [("one", ONE.data_port), ("two", TWO.data_port)] {
        lab.count(0, name, &format!("udp dport {port}")).unwrap();
    }
    let arrived = || ["one", "two"].map(|name| lab.counted(0, name).unwrap());
    let mut one = Session::start(&lab, &scratch, &image, &ONE, &[0, 0]);
    one.wait_for_data(|| arrived()[0]);
    sleep(FOUND_WITHIN);
    let mut two = Session::start(&lab, &scratch, &image, &TWO, &[0, 0]);
    two.wait_for_data(|| arrived()[1]);
    let (since, link_since) = (arrived(), lab.traffic_to(Node::Receiver(0)).unwrap());
    let start = Instant::now();
    sleep(SHARED_LONG);
    let until = arrived();
    let link = lab.traffic_to(Node::Receiver(0)).unwrap().since(link_since);
    one.assert_running();
    two.assert_running();
    // Datagrams of both are equally long.
    let [first, second] = [0, 1].map(|session| (until[session] - since[session]) as f64);
    let factor = first / second;
    let carried = link.share_of(SHARED_MBIT, start.elapsed());
    println!("{name}: {factor:.2} to 1, {carried:.2} of the link, {:.4} lost", link.loss());
    // Mostly it is less than two to one; the scenarios have the mean.
    assert!(first.min(second) * 6.0 >= first + second, "{first} and {second} datagrams");
}

#[test]
fn a_tcp_flow_beside_a_session_keeps_a_tenth_of_its_fair_share() {
    let name = "a_tcp_flow_beside_a_session_keeps_a_tenth_of_its_fair_share";
    let Some(_guard) = begin(name, &[Need::Lab]) else { return };
    let (scratch, lab) = (Scratch::temporary(), shared_lab());
    let image = scratch.random_image(160);
    let flow = Flow::start(&lab);
    let link = || lab.traffic_to(Node::Receiver(0)).unwrap();
    wait_until("the flow begins", TRANSFER_DEADLINE, || flow.octets() > 1 << 20);
    lab.count(0, "session", &format!("udp dport {}", ONE.data_port)).unwrap();
    let mut session = Session::start(&lab, &scratch, &image, &ONE, &[0, 0]);
    session.wait_for_data(|| lab.counted(0, "session").unwrap());
    sleep(FOUND_WITHIN);
    let (since, link_since) = (flow.octets(), link());
    sleep(SHARED_FOR);
    let (octets, link) = (flow.octets() - since, link().since(link_since));
    session.assert_running();
    let fair = SHARED_MBIT as f64 * 1e6 / 8.0 * SHARED_FOR.as_secs_f64() / 2.0;
    let (share, carried) = (octets as f64 / fair, link.share_of(SHARED_MBIT, SHARED_FOR));
    println!("{name}: {share:.2} of it, {carried:.2} of the link, {:.4} lost", link.loss());
    assert!(share >= 0.1, "{share:.3} of the fair share");
}

/// Where the slow link is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// Between the switch and each receiver: the sender does not feel it.
    Network,
    /// Between the sender and the switch.
    Sender,
}

/// What came of a search, by what the worst link counted once the rate should have been found.
#[derive(Debug)]
struct Search {
    /// The share of what it could have carried that it did.
    carried: f64,
    /// The share of what came to it that it dropped.
    lost: f64,
}

/// Lets a sender that is told nothing, and whose interface claims 10 Gbit/s, find a link.
fn search(place: Place, mbit_per_second: u32, receivers: usize, watched_for: Duration) -> Search {
    let (scratch, lab) = (Scratch::temporary(), Lab::new(receivers).unwrap());
    lab.split_bursts(Node::Sender).unwrap();
    let links: Vec<Node> = match place {
        Place::Network => (0..receivers).map(Node::Receiver).collect(),
        Place::Sender => vec![Node::Sender],
    };
    for link in &links {
        match place {
            Place::Network => lab.limit_port(*link, mbit_per_second).unwrap(),
            Place::Sender => lab.limit_host(*link, mbit_per_second).unwrap(),
        }
    }
    let traffic = |link: &Node| match place {
        Place::Network => lab.traffic_to(*link).unwrap(),
        Place::Sender => lab.traffic_from(*link).unwrap(),
    };
    let watched = FOUND_WITHIN + watched_for;
    // More than the link carries meanwhile.
    let mebibytes = u64::from(mbit_per_second) * (watched.as_secs() + 1) / 8;
    let image = scratch.random_image(mebibytes);
    let nodes: Vec<usize> = (0..receivers).collect();
    let mut session = Session::start(&lab, &scratch, &image, &ONE, &nodes);
    session.wait_for_data(|| traffic(&links[0]).packets);
    let (start, before) = (Instant::now(), traffic(&links[0]));
    let mut looks = vec![(Duration::ZERO, before)];
    while start.elapsed() < FOUND_WITHIN {
        sleep(LOOK);
        looks.push((start.elapsed(), traffic(&links[0])));
    }
    let found: Vec<(Instant, Traffic)> =
        links.iter().map(|link| (Instant::now(), traffic(link))).collect();
    while start.elapsed() < watched {
        sleep(LOOK);
        looks.push((start.elapsed(), traffic(&links[0])));
    }
    session.assert_running();
    let mut search = Search { carried: 1.0, lost: 0.0 };
    for (link, (at, before)) in links.iter().zip(found) {
        let since = traffic(link).since(before);
        search.carried = search.carried.min(since.share_of(mbit_per_second, at.elapsed()));
        search.lost = search.lost.max(since.loss());
    }
    let shares = looks.windows(2).map(|pair| {
        let [(from, before), (until, after)] = [pair[0], pair[1]];
        let since = after.since(before);
        format!("{:.2}-{:.3}", since.share_of(mbit_per_second, until - from), since.loss())
    });
    let shares: Vec<String> = shares.collect();
    println!(
        "{mbit_per_second} Mbit/s, {place:?}: {:.3} carried, {:.4} lost after {FOUND_WITHIN:?}; \
         carried and lost by quarters of a second: {}",
        search.carried,
        search.lost,
        shares.join(" ")
    );
    search
}

/// One receiver's host behind a link that others use, too.
fn shared_lab() -> Lab {
    let lab = Lab::new(1).unwrap();
    lab.split_bursts(Node::Sender).unwrap();
    lab.limit_port(Node::Receiver(0), SHARED_MBIT).unwrap();
    lab
}

/// A sender that is told no rate, and its receivers.
#[derive(Debug)]
struct Session {
    sender: Process,
    receivers: Vec<Process>,
}

/// What keeps one session apart from others.
#[derive(Debug)]
struct Names {
    name: &'static str,
    group: &'static str,
    portbase: &'static str,
    data_port: u16,
}

impl Session {
    /// Starts a sender, and a receiver at each of `nodes`.
    fn start(lab: &Lab, scratch: &Scratch, image: &Path, names: &Names, nodes: &[usize]) -> Self {
        let Names { name, group, portbase, .. } = names;
        let network = ["--mcast-rdv-address", group, "--portbase", portbase];
        let mut command = lab.command(Node::Sender, &programs().sender);
        command.args(["send", text(image), "--interface", "eth0"]).args(network);
        command.args(["--min-receivers", &nodes.len().to_string()]);
        let sender = Process::start(&format!("sender-{name}"), command, scratch.directory());
        let start = |(number, node): (usize, &usize)| {
            let copy: PathBuf = scratch.path(&format!("copy-{name}-{number}.img"));
            let mut command = lab.command(Node::Receiver(*node), &programs().receiver);
            command.args(["receive", "--interface", "eth0", "--output", text(&copy)]);
            command.args(network);
            Process::start(&format!("receiver-{name}-{number}"), command, scratch.directory())
        };
        Self { sender, receivers: nodes.iter().enumerate().map(start).collect() }
    }

    /// Waits until data flows, by the datagrams that were `counted`.
    fn wait_for_data(&mut self, counted: impl Fn() -> u64) {
        wait_until("data flows", TRANSFER_DEADLINE, || {
            self.assert_running();
            counted() >= DATA_FLOWS
        });
    }

    /// Nobody has finished or failed, so that what was counted was their doing.
    fn assert_running(&mut self) {
        for process in self.receivers.iter_mut().chain([&mut self.sender]) {
            assert!(process.poll().is_none(), "it has ended\n{}", process.output());
        }
    }
}

/// A bulk transfer by TCP from the sender's host to that of receiver 0; dropping it ends it.
#[derive(Debug)]
struct Flow {
    arrived: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    fn start(lab: &Lab) -> Self {
        let (arrived, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let to = (address(Node::Receiver(0)), TCP_PORT);
        let listen = move || TcpListener::bind(to).unwrap();
        let listener = lab.spawn(Node::Receiver(0), listen).unwrap().join().unwrap();
        let connect = move || TcpStream::connect(to).unwrap();
        let mut from = lab.spawn(Node::Sender, connect).unwrap().join().unwrap();
        let (mut to, _) = listener.accept().unwrap();
        from.set_write_timeout(Some(LOOK)).unwrap();
        let (count, is_over) = (Arc::clone(&arrived), Arc::clone(&ends));
        // A socket stays where it was made, whatever thread uses it.
        let writes = std::thread::spawn(move || {
            let octets = vec![0; CHUNK_OCTETS];
            while !is_over.load(Ordering::Relaxed) {
                match from.write(&octets) {
                    Err(e) if e.kind() != ErrorKind::WouldBlock => panic!("{e}"),
                    _ => {}
                }
            }
        });
        let reads = std::thread::spawn(move || {
            let mut octets = vec![0; CHUNK_OCTETS];
            while let Ok(read @ 1..) = to.read(&mut octets) {
                count.fetch_add(read as u64, Ordering::Relaxed);
            }
        });
        Self { arrived, ends, threads: vec![writes, reads] }
    }

    /// Octets that have arrived.
    fn octets(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const ONE: Names = Names { name: "one", group: "239.255.63.30", portbase: "6330", data_port: 6331 };
const TWO: Names = Names { name: "two", group: "239.255.63.31", portbase: "6340", data_port: 6341 };
const SHARED_MBIT: u32 = 100;
const TCP_PORT: u16 = 5_001;
const CHUNK_OCTETS: usize = 64 << 10;

/// So soon the rate is found.
const FOUND_WITHIN: Duration = Duration::from_secs(3);
/// Several rises and falls of the rate.
const WATCHED_FOR: Duration = Duration::from_secs(5);
/// The rate of a slow link takes so long to rise and fall twice.
const WATCHED_LONG: Duration = Duration::from_secs(12);
const WATCHED_SHORT: Duration = Duration::from_secs(2);
/// Of what the link carries.
const CARRIED_MIN: f64 = 0.75;
/// By probing, and by stalls of a busy machine.
const LOST_MAX: f64 = 0.02;
const SHARED_FOR: Duration = Duration::from_secs(6);
/// Who has more gives way by and by.
const SHARED_LONG: Duration = Duration::from_secs(18);
/// More than either gets through before and meanwhile.
const SHARED_MEBIBYTES: u64 = 260;
const LOOK: Duration = Duration::from_millis(250);
/// More datagrams than there are before data.
const DATA_FLOWS: u64 = 100;
