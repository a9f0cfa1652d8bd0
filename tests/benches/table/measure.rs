//! One transfer with the clock running.
//!
//! Receivers are started first and wait. The clock runs from the start of the sender until the
//! last receiver has its copy; each copy is compared afterwards.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use imgcast_tests::netns::{Lab, Node};
use imgcast_tests::process::Process;
use imgcast_tests::scratch::Scratch;

use crate::cases::{Case, Network, Start};
use crate::images::{Image, Images, Spec, drop_cached, hash};
use crate::machine::{CpuTicks, Usage, peak_resident_bytes, wait_until_idle};
use crate::peers::{Done, Peer, Stage};

/// What one transfer took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// From the start of the sender until the last receiver had its copy.
    pub(crate) seconds: f64,
    /// Image bits a second; of the slowest receiver where there is no image.
    pub(crate) goodput: f64,
    /// CPU time of the sender and of all receivers, for each octet that a receiver got.
    pub(crate) sender_cpu_seconds: f64,
    pub(crate) receivers_cpu_seconds: f64,
    pub(crate) octets: f64,
    pub(crate) sender_resident_bytes: f64,
    /// Of the largest.
    pub(crate) receiver_resident_bytes: f64,
    /// By the sender's interface, framing not counted.
    pub(crate) sent_bytes: f64,
    /// What the receivers' sockets had no room for.
    pub(crate) socket_drops: f64,
    /// How long the sender went on after the last receiver was done.
    pub(crate) sender_tail_seconds: f64,
    /// How busy the machine was before, and how idle meanwhile.
    pub(crate) busy_before: f64,
    pub(crate) idle: f64,
}

/// What outlasts a transfer.
#[derive(Debug)]
pub(crate) struct Bench {
    images: Images,
    scratch: Scratch,
    indexed: BTreeSet<Spec>,
    idle_wait: Duration,
}

impl Bench {
    /// Images and copies will be below `memory`, images that are to be read from a disk below
    /// `disk`. For as long as `idle_wait` others may keep the machine busy before each transfer.
    pub(crate) fn new(memory: &Path, disk: &Path, idle_wait: Duration) -> Self {
        let (images, scratch) = (Images::new(memory, disk), Scratch::below(memory));
        Self { images, scratch, indexed: BTreeSet::new(), idle_wait }
    }

    /// Lets `case` happen once.
    ///
    /// # Errors
    ///
    /// Why there is no figure: it failed, took too long, or a copy is wrong.
    pub(crate) fn measure(&mut self, case: &Case) -> Result<Outcome, String> {
        let index_cache = self.scratch.path("index-cache");
        if case.start == Start::Indexed && !self.indexed.contains(&case.image) {
            let before = Case { start: Start::Unknown, network: Network::whole(1), ..*case };
            transfer(&before, self.images.get(case.image)?, &self.scratch, &index_cache)?;
            self.indexed.insert(case.image);
        }
        let image = self.images.get(case.image)?;
        let busy_before = wait_until_idle(self.idle_wait);
        let own_cache = self.scratch.path("no-cache");
        let cache = if case.start == Start::Indexed { &index_cache } else { &own_cache };
        let outcome = transfer(case, image, &self.scratch, cache);
        let _ = fs::remove_dir_all(own_cache);
        outcome.map(|outcome| Outcome { busy_before, ..outcome })
    }

    /// Forgets what a row has used.
    pub(crate) fn clear(&mut self) {
        self.images.clear();
        self.indexed.clear();
    }
}

/// Has the machine's memory at hand that the copies will need. A host that lends it out anew takes
/// longer for that than any program for a transfer, and only the first one after a pause pays.
fn touch(scratch: &Scratch, mib: u64) -> io::Result<()> {
    let path = scratch.path("touched");
    let mut file = File::create(&path)?;
    let zeroes = vec![0; 1 << 20];
    (0..mib).try_for_each(|_| file.write_all(&zeroes))?;
    fs::remove_file(path)
}

fn transfer(
    case: &Case,
    image: &Image,
    scratch: &Scratch,
    index_cache: &Path,
) -> Result<Outcome, String> {
    let lab = case.network.build()?;
    let directory = scratch.path("transfer");
    let stage = Stage { lab: &lab, image: &image.path, directory: &directory, index_cache };
    for receiver in 0..case.network.receivers {
        let directory = stage.directory_of(receiver);
        fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    }
    let copies = case.image.data_mib * u64::try_from(case.network.receivers).unwrap_or(1);
    touch(scratch, copies.min(TOUCHED_MIB_MAX)).map_err(|error| error.to_string())?;
    let run = Run::start(case, image, &stage);
    let outcome = run.and_then(|run| run.finish(case, image, &stage));
    let _ = fs::remove_dir_all(&directory);
    outcome
}

/// Processes on their way.
struct Run {
    sender: Watched,
    receivers: Vec<Watched>,
    begun: Instant,
    ticks: CpuTicks,
}

struct Watched {
    process: Process,
    done_after: Option<Duration>,
    resident_bytes: u64,
}

impl Run {
    fn start(case: &Case, image: &Image, stage: &Stage<'_>) -> Result<Self, String> {
        let start = |name: &str, command| Watched {
            process: Process::start(name, command, stage.directory),
            done_after: None,
            resident_bytes: 0,
        };
        let receivers = (0..case.network.receivers)
            .map(|i| start(&format!("receiver-{i}"), case.peer.receiver(i, stage)))
            .collect();
        sleep(SETTLE);
        if case.start == Start::Cold {
            drop_cached(&image.path).map_err(|e| format!("{}: {e}", image.path.display()))?;
        }
        let (ticks, begun) = (CpuTicks::now(), Instant::now());
        let sender = start("sender", case.peer.sender(case, stage));
        Ok(Self { sender, receivers, begun, ticks })
    }

    fn finish(mut self, case: &Case, image: &Image, stage: &Stage<'_>) -> Result<Outcome, String> {
        self.wait(case, image, stage)?;
        let seconds = self.receivers.iter().filter_map(|receiver| receiver.done_after).max();
        let seconds = seconds.unwrap_or_default().as_secs_f64();
        let idle = self.ticks.idle_since();
        let sender_tail_seconds = self.wait_for_sender(seconds);
        let cpu = |watched: &Watched| Usage::of(watched.process.id()).cpu_seconds;
        let mut outcome = Outcome {
            seconds,
            goodput: image.octets as f64 * 8.0 / seconds,
            sender_cpu_seconds: cpu(&self.sender),
            receivers_cpu_seconds: self.receivers.iter().map(cpu).sum(),
            octets: image.octets as f64,
            sender_resident_bytes: self.sender.resident_bytes as f64,
            receiver_resident_bytes: self
                .receivers
                .iter()
                .map(|receiver| receiver.resident_bytes)
                .max()
                .unwrap_or(0) as f64,
            sent_bytes: stage.lab.sent_bytes() as f64,
            socket_drops: socket_drops(stage.lab, case.network.receivers)?,
            sender_tail_seconds,
            idle,
            ..Outcome::default()
        };
        if case.peer == Peer::Raw {
            self.take_raw_figures(&mut outcome)?;
            return Ok(outcome);
        }
        for receiver in 0..case.network.receivers {
            let copy = stage.copy(receiver);
            let found = hash(&copy).map_err(|e| format!("{}: {e}", copy.display()))?;
            if found != image.hash {
                return Err(format!("receiver {receiver} has another image: {found}"));
            }
        }
        Ok(outcome)
    }

    /// Until all receivers have their copies.
    fn wait(&mut self, case: &Case, image: &Image, stage: &Stage<'_>) -> Result<(), String> {
        for round in 0_u32.. {
            let elapsed = self.begun.elapsed();
            for (number, receiver) in self.receivers.iter_mut().enumerate() {
                if receiver.done_after.is_some() {
                    continue;
                }
                if Usage::of(receiver.process.id()).has_failed {
                    return Err(format!("receiver {number} failed\n{}", self.outputs()));
                }
                if receiver.is_done(case, image, &stage.copy(number)) {
                    receiver.done_after = Some(elapsed);
                }
            }
            if self.receivers.iter().all(|receiver| receiver.done_after.is_some()) {
                return Ok(());
            }
            if elapsed > TRANSFER_MAX {
                return Err(format!("not done after {TRANSFER_MAX:?}\n{}", self.outputs()));
            }
            if Usage::of(self.sender.process.id()).has_failed {
                return Err(format!("the sender failed\n{}", self.outputs()));
            }
            if round.is_multiple_of(ROUNDS_PER_SAMPLE) {
                self.sample();
            }
            sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Notes how much memory they have now.
    fn sample(&mut self) {
        for watched in self.receivers.iter_mut().chain([&mut self.sender]) {
            let resident_bytes = peak_resident_bytes(watched.process.id()).unwrap_or(0);
            watched.resident_bytes = watched.resident_bytes.max(resident_bytes);
        }
    }

    /// Until the sender has ended, or as long as it may take; returns how long that was.
    fn wait_for_sender(&mut self, seconds: f64) -> f64 {
        while !Usage::of(self.sender.process.id()).has_ended {
            let tail = self.begun.elapsed().as_secs_f64() - seconds;
            if tail > SENDER_TAIL_MAX.as_secs_f64() {
                return tail;
            }
            self.sample();
            sleep(POLL_INTERVAL);
        }
        self.begun.elapsed().as_secs_f64() - seconds
    }

    /// What the receivers counted themselves: there is no image, and no end to it but the time.
    fn take_raw_figures(&self, outcome: &mut Outcome) -> Result<(), String> {
        let mut slowest = f64::INFINITY;
        for receiver in &self.receivers {
            let text = receiver.process.stdout();
            let json: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| format!("imgcast-raw said {text}: {e}"))?;
            let figure = |name: &str| json[name].as_f64().ok_or(format!("no {name} in {text}"));
            let goodput = figure("gbit_per_second")? * 1e9;
            if goodput < slowest {
                slowest = goodput;
                outcome.goodput = goodput;
                outcome.octets = figure("octets")?;
                outcome.seconds = figure("seconds")?;
            }
        }
        Ok(())
    }

    fn outputs(&self) -> String {
        let last_lines = |watched: &Watched| {
            let output = watched.process.output();
            let from = output.char_indices().rev().nth(OUTPUT_MAX).map_or(0, |(at, _)| at);
            output[from..].to_owned()
        };
        let receivers = self.receivers.iter().filter(|receiver| receiver.done_after.is_none());
        let outputs: Vec<String> =
            [&self.sender].into_iter().chain(receivers).map(last_lines).collect();
        outputs.join("\n")
    }
}

impl Watched {
    fn is_done(&self, case: &Case, image: &Image, copy: &Path) -> bool {
        match case.peer.done() {
            Done::FullSize => fs::metadata(copy).is_ok_and(|file| file.len() == image.octets),
            Done::Says(text) => self.process.output().contains(text),
            Done::Exited => Usage::of(self.process.id()).has_ended,
        }
    }
}

/// All datagrams that came when a receiver's socket was full.
fn socket_drops(lab: &Lab, receivers: usize) -> Result<f64, String> {
    let mut drops = 0;
    for receiver in 0..receivers {
        // Two lines "Udp:", names and numbers.
        let text = lab.run(Node::Receiver(receiver), &["cat", "/proc/net/snmp"])?;
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
        let names = lines.next().unwrap_or_default().split_whitespace();
        let numbers = lines.next().unwrap_or_default().split_whitespace();
        let full = names.zip(numbers).find(|(name, _)| *name == "RcvbufErrors");
        drops += full.and_then(|(_, number)| number.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(drops as f64)
}

/// So that receivers listen, and the bridge knows it, when the sender starts.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Fine beside the shortest transfer, and cheap beside any.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Memory is looked at every tenth of a second.
const ROUNDS_PER_SAMPLE: u32 = 20;

/// No transfer of the table takes a third of it.
const TRANSFER_MAX: Duration = Duration::from_secs(180);

/// A sender that waits for stragglers gives up before.
const SENDER_TAIL_MAX: Duration = Duration::from_secs(20);

/// Characters of what a process wrote that are worth showing.
const OUTPUT_MAX: usize = 800;

/// The largest copies of all rows.
const TOUCHED_MIB_MAX: u64 = 4 << 10;
