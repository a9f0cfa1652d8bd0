//! What a crowd costs the sender where nothing is lost: processor time and memory of the program
//! `imgcast-sender` with 1 member and with 10,000, which are all played by this process. They
//! join, answer the polls that ask them, have everything, and say DONE, as real ones do. It takes
//! no root.
//!
//! ```sh
//! cargo bench -p imgcast-tests --bench members
//! ```
//!
//! Told apart are the transfer alone, from the first symbol to the last, and the whole run, in
//! which each member also costs a JOIN, a WELCOME, a DONE and its acknowledgements. It fails if by
//! the medians a transfer takes a tenth more processor time than that to the fewest members, or the
//! sender more than 256 MiB.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use imgcast_common::id::{ReceiverId, SessionId, Stream};
use imgcast_common::net::{
    BatchLayout, BatchPool, BatchReceiver, BatchSender, Family, GroupSocket, Interface, NodeSocket,
    Offload,
};
use imgcast_common::wire::{
    Announce, Done, Header, Join, Message, Need, NeedFlags, Role, SenderState, Sync, padded_len,
};
use imgcast_tests::process::Process;
use imgcast_tests::programs::programs;
use imgcast_tests::scratch::{self, Scratch};

/// Measures a sender with many members.
#[derive(Debug, Parser)]
#[command(name = "members")]
struct Args {
    /// How many members there are
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_value = "1,10000")]
    members: Vec<u32>,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// How large the image is
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    size: u64,
    /// How fast it is sent
    #[arg(long, value_name = "RATE", default_value = "1G")]
    rate: String,
    /// Where the image is, a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    memory: PathBuf,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run took of the sender.
#[derive(Clone, Copy, Debug)]
struct Taken {
    transfer: Duration,
    all: Duration,
    memory_kib: u64,
    answers: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    scratch::delete_orphans(&args.memory);
    let scratch = Scratch::below(&args.memory);
    let image = scratch.random_image(args.size);
    let mut taken: BTreeMap<u32, Vec<Taken>> = BTreeMap::new();
    // The first run makes the index.
    run(&scratch, &image, &args.rate, 1);
    for _ in 0..args.repeat {
        for members in &args.members {
            let run = run(&scratch, &image, &args.rate, *members);
            println!("{members} members: {run:?}");
            taken.entry(*members).or_default().push(run);
        }
    }
    let median = |runs: &[Taken], of: fn(&Taken) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("medians of {}:", args.repeat);
    let (mut fewest, mut is_exceeded) = (None, false);
    for (members, runs) in &taken {
        let transfer = median(runs, |run| run.transfer.as_secs_f64());
        let ratio = transfer / *fewest.get_or_insert(transfer);
        let mebibytes = median(runs, |run| run.memory_kib as f64 / 1024.0);
        println!(
            "{members:>6} members: {transfer:.2} s for the transfer, {ratio:.3} times that of the \
             fewest, {:.2} s in all, {mebibytes:.0} MiB at most, {} answers to polls",
            median(runs, |run| run.all.as_secs_f64()),
            median(runs, |run| run.answers as f64),
        );
        is_exceeded |= ratio >= CPU_RATIO_MAX || mebibytes > MEBIBYTES_MAX;
    }
    if is_exceeded {
        eprintln!("allowed are less than {CPU_RATIO_MAX} times and at most {MEBIBYTES_MAX} MiB");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// One session, from start to exit.
fn run(scratch: &Scratch, image: &Path, rate: &str, members: u32) -> Taken {
    // Other users of this host may run the same.
    let portbase = u16::try_from(20_000 + std::process::id() % 20_000 / 2 * 2).unwrap_or(20_000);
    let interface = Interface::find("lo", Family::V4).expect("there is a loopback");
    let mut rendezvous = Ear::new(&interface, ([239, 255, 63, 30], portbase).into());
    let (port, count) = (portbase.to_string(), members.to_string());
    let mut command = Command::new(&programs().sender);
    command.args(["send", "--interface", "lo", "--portbase", &port, "--min-receivers", &count]);
    command.args(["--max-bitrate", rate]).arg(image);
    command.env("XDG_CACHE_HOME", scratch.path("index-cache"));
    let mut sender = Process::start("sender", command, scratch.directory());
    let (session, from, announce) = rendezvous.announce();
    let address = SocketAddr::new(from.ip(), announce.unicast_port);
    let group = Ear::new(&interface, announce.data_group);
    let mut crowd = Crowd::new(&interface, session, address, announce, group);
    crowd.join(members);
    let mut before = Duration::ZERO;
    while crowd.state != SenderState::Idle {
        if crowd.state == SenderState::Gathering {
            before = sender.cpu_time();
        }
        crowd.listen();
        assert!(sender.poll().is_none(), "it ended early\n{}", sender.output());
    }
    let transfer = sender.cpu_time() - before;
    crowd.finish();
    let taken = Taken {
        transfer,
        all: sender.cpu_time(),
        memory_kib: memory_max_kib(sender.id()),
        answers: crowd.answers,
    };
    sender.succeed(LINGER_MAX);
    taken
}

/// All members at once, behind one socket.
struct Crowd {
    session: SessionId,
    sender: SocketAddr,
    announce: Announce,
    group: Ear,
    voice: BatchSender,
    ear: BatchReceiver<Arc<NodeSocket>>,
    counter: u64,
    ids: BTreeSet<ReceiverId>,
    /// The newest SYNC, and when it came.
    sync: Option<(Sync, Instant)>,
    state: SenderState,
    polled: u16,
    answers: u64,
}

impl Crowd {
    fn new(
        interface: &Interface,
        session: SessionId,
        sender: SocketAddr,
        announce: Announce,
        group: Ear,
    ) -> Self {
        let node = Arc::new(NodeSocket::open(interface, 1, 0).expect("a socket opens"));
        node.set_receive_timeout(Some(PAUSE)).expect("it takes a timeout");
        node.set_receive_buffer(BUFFER_BYTES).expect("it takes a size");
        let pool = BatchPool::new(2, BatchLayout::plain(DATAGRAM_OCTETS));
        Self {
            session,
            sender,
            announce,
            group,
            ear: BatchReceiver::new(Arc::clone(&node), pool).expect("it can be read"),
            voice: BatchSender::new(node, Offload::Off),
            counter: 0,
            ids: BTreeSet::new(),
            sync: None,
            state: SenderState::Gathering,
            polled: 0,
            answers: 0,
        }
    }

    /// Joins until all are welcomed; each says then that it is there.
    fn join(&mut self, members: u32) {
        let mut waiting: BTreeSet<u32> = (0..members).collect();
        let octets_min = padded_len(self.announce.layout.symbol_size());
        while !waiting.is_empty() {
            for few in waiting.clone().into_iter().collect::<Vec<_>>().chunks(JOINS_AT_ONCE) {
                for member in few {
                    let join = Message::Join(joining(*member));
                    self.say(&join, octets_min);
                }
                let until = Instant::now() + PAUSE * 4;
                while Instant::now() < until {
                    for (nonce, id) in self.welcomes() {
                        if waiting.remove(&nonce) && self.ids.insert(id) {
                            self.report(id, 0);
                        }
                    }
                }
            }
        }
    }

    /// Members by their nonces, as they are welcomed.
    fn welcomes(&mut self) -> Vec<(u32, ReceiverId)> {
        let Some(batch) = self.ear.receive().expect("it can be read") else { return Vec::new() };
        let parsed =
            batch.datagrams().filter_map(|(_, it)| Message::parse(it, Role::Receiver).ok());
        let welcome = |message: Message<'_>| match message {
            Message::Welcome(welcome) => {
                let [a, b, c, d, ..] = welcome.nonce;
                Some((u32::from_be_bytes([a, b, c, d]), welcome.receiver))
            }
            _ => None,
        };
        parsed.filter_map(|(_, message)| welcome(message)).collect()
    }

    /// Hears the group for a moment, and answers its polls.
    fn listen(&mut self) {
        let Some(sync) = self.group.newest_sync(self.session) else { return };
        let poll = sync.poll;
        self.state = sync.state;
        self.sync = Some((sync, Instant::now()));
        if poll.id == self.polled {
            return;
        }
        self.polled = poll.id;
        let asked: Vec<ReceiverId> = self.ids.iter().copied().filter(|id| poll.asks(*id)).collect();
        for id in asked {
            self.answers += 1;
            self.report(id, poll.id);
        }
    }

    fn report(&mut self, receiver: ReceiverId, poll: u16) {
        let (echo_micros, held) = match &self.sync {
            Some((sync, at)) => (sync.time_micros, at.elapsed()),
            None => (0, Duration::ZERO),
        };
        let need = Need {
            receiver,
            echo_micros,
            hold_micros: u32::try_from(held.as_micros()).unwrap_or(u32::MAX),
            network_loss: Some(0),
            socket_loss: 0,
            free_blocks: 1_000,
            drain_kilobytes: 0,
            done_blocks: 0,
            poll,
            flags: NeedFlags::default(),
            needs: Vec::new(),
        };
        self.say(&Message::Need(need), 0);
    }

    /// Each says DONE until the sender has heard it.
    fn finish(&mut self) {
        while !self.ids.is_empty() {
            let ids: Vec<ReceiverId> = self.ids.iter().copied().collect();
            for few in ids.chunks(DONES_AT_ONCE) {
                for id in few {
                    let done = self.done(*id);
                    self.say(&done, 0);
                }
                // 5,000 a second, as real ones take care to.
                let until = Instant::now() + PAUSE * 4;
                while Instant::now() < until {
                    let Some(batch) = self.ear.receive().expect("it can be read") else { continue };
                    for (_, datagram) in batch.datagrams() {
                        if let Ok((_, Message::DoneAck(ack))) =
                            Message::parse(datagram, Role::Receiver)
                        {
                            self.ids.retain(|id| !ack.includes(*id));
                        }
                    }
                }
            }
        }
    }

    fn done(&self, receiver: ReceiverId) -> Message<'static> {
        Message::Done(Done {
            receiver,
            succeeded: true,
            image: self.announce.image,
            bytes_written: self.announce.layout.bytes(),
            seconds: 1,
            refetched_blocks: 0,
            error_code: 0,
            text: String::new(),
        })
    }

    fn say(&mut self, message: &Message<'_>, octets_min: usize) {
        // The members' counters rise together.
        self.counter += 1;
        let header = Header { session: self.session, stream: Stream::Image, counter: self.counter };
        let datagram = message.emit(&header, octets_min);
        self.voice.send_one(&datagram, self.sender).expect("loopback takes it");
    }
}

/// What hears one group.
struct Ear(BatchReceiver<GroupSocket>);

impl Ear {
    fn new(interface: &Interface, group: SocketAddr) -> Self {
        let (socket, _) = GroupSocket::join(interface, group, BUFFER_BYTES).expect("it joins");
        socket.set_receive_timeout(Some(PAUSE)).expect("it takes a timeout");
        let pool = BatchPool::new(2, BatchLayout::plain(DATAGRAM_OCTETS));
        Self(BatchReceiver::new(socket, pool).expect("it can be read"))
    }

    /// The next offer.
    fn announce(&mut self) -> (SessionId, SocketAddr, Announce) {
        loop {
            let Some(batch) = self.0.receive().expect("it can be read") else { continue };
            for (from, datagram) in batch.datagrams() {
                if let Ok((header, Message::Announce(announce))) =
                    Message::parse(datagram, Role::Receiver)
                {
                    return (header.session, *from, announce);
                }
            }
        }
    }

    /// The last SYNC of what waits to be read.
    fn newest_sync(&mut self, session: SessionId) -> Option<Sync> {
        let batch = self.0.receive().expect("it can be read")?;
        let parsed =
            batch.datagrams().filter_map(|(_, it)| Message::parse(it, Role::Receiver).ok());
        let syncs = parsed.filter_map(|(header, message)| match message {
            Message::Sync(sync) if header.session == session => Some(sync),
            _ => None,
        });
        syncs.last()
    }
}

fn joining(member: u32) -> Join {
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&member.to_be_bytes());
    Join {
        nonce,
        key: nonce,
        have: false,
        mtu: false,
        unfit: false,
        capabilities: 0,
        target_bytes: u64::MAX,
        memory_blocks: 1_000,
        host: format!("host-{member}"),
        handshake: Vec::new(),
    }
}

/// The most memory that a process had at once.
fn memory_max_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("the kernel tells of a child");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// By how much the processor time of the transfer may grow with the members.
const CPU_RATIO_MAX: f64 = 1.1;
const MEBIBYTES_MAX: f64 = 256.0;
/// How long one waits for a datagram.
const PAUSE: Duration = Duration::from_millis(5);
/// 5,000 a second.
const JOINS_AT_ONCE: usize = 100;
const DONES_AT_ONCE: usize = 100;
const BUFFER_BYTES: usize = 8 << 20;
/// The sender fills what loopback carries, up to a jumbo frame.
const DATAGRAM_OCTETS: usize = 9_216;
/// Far longer than a sender lingers when all are done.
const LINGER_MAX: Duration = Duration::from_secs(20);
