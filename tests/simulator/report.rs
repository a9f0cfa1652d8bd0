//! What came of a run.

use std::{collections::BTreeSet, fmt, time::Duration};

use imgcast_common::wire::BlockRange;
use imgcast_receiver::session::{Failure, Symbols};

use crate::backbone::Crossed;

/// Everything worth asking about a run that is over.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed that explains it.
    pub seed: u64,
    /// What should not have happened, in order.
    pub violations: Vec<Violation>,
    /// How each run of each receiver ended, in the order of their starts.
    pub receivers: Vec<ReceiverReport>,
    /// How each run of each sender ended.
    pub senders: Vec<Option<imgcast_sender::session::Outcome>>,
    /// Virtual time until everybody was finished.
    pub duration: Duration,
    /// Virtual time until the first sender began to send.
    pub started_at: Duration,
    /// Virtual time until the last receiver had the image.
    pub done_at: Duration,
    /// Symbols of the image that were sent to the group.
    pub group_symbols: u64,
    /// Symbols that were sent by unicast, those of the index among them.
    pub unicast_symbols: u64,
    /// Of the symbols that were sent until the last source symbol had gone to the group those by
    /// unicast, in parts of a million.
    pub unicast_beside_ppm: u64,
    /// Every burst of symbols, of the image and of the index.
    pub sent: Vec<Sent>,
    /// Octets of the symbols of the image that were sent to the group, over those of the image,
    /// in parts of a million.
    pub overhead_ppm: u64,
    /// NEEDs of the image that receivers sent.
    pub needs: u64,
    /// Each of them.
    pub asked: Vec<Asked>,
    /// GRTTs that senders announced, and since when.
    pub grtts: Vec<(Duration, Duration)>,
    /// When a source symbol of the image went to the group last.
    pub last_source_at: Duration,
    /// Plain reports.
    pub reports: u64,
    /// Datagrams that receivers sent, whatever they were.
    pub from_receivers: u64,
    /// SYNCs to the group.
    pub syncs: u64,
    /// What the rate of the first sender has been, in bits per second, and since when.
    pub rates: Vec<(Duration, u64)>,
    /// Which receivers, by configuration, the first sender detached or took back, and when.
    pub detached: Vec<(Duration, usize, bool)>,
    /// What became of the datagrams of each run of each sender on the backbone, in each
    /// [`CROSSED_DURING`](crate::CROSSED_DURING).
    pub crossed: Vec<Vec<Crossed>>,
    /// Datagrams that the sockets of each run of each receiver dropped, and when.
    pub drops: Vec<Vec<(Duration, u64)>>,
    /// Blocks of the first image.
    pub blocks: u32,
    /// Things that happened.
    pub happenings: u64,
    /// A hash over all of them.
    pub trace_hash: u64,
    /// The last of them as text, if the world was asked to keep it.
    pub trace: Vec<String>,
}

/// A NEED of the image.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it was sent.
    pub at: Duration,
    /// The run of a receiver that sent it.
    pub receiver: usize,
    /// What was asked for.
    pub ranges: Vec<BlockRange>,
}

/// A burst of symbols.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When it left.
    pub at: Duration,
    /// How many there were.
    pub symbols: u64,
    /// Whether they went to a single receiver.
    pub by_unicast: bool,
}

/// One run of one receiver.
#[derive(Clone, Debug)]
pub struct ReceiverReport {
    /// Position of its configuration.
    pub config: usize,
    /// How it ended.
    pub ending: Ending,
    /// When.
    pub at: Duration,
    /// Blocks whose hash was wrong.
    pub polluted: u32,
    /// Symbols of the image that came, and that were needed.
    pub symbols: Symbols,
    /// Blocks that were written though the target held them.
    pub rewritten: u32,
}

/// How a receiver ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// With the image.
    Done {
        /// Whether the sender said that it knows.
        acknowledged: bool,
    },
    /// Without.
    Failed(Failure),
    /// It vanished, as planned.
    Crashed,
    /// It did not end.
    Stuck,
}

/// Something that should not have happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// Something wrong was stored, sent or claimed.
    Safety {
        /// When.
        at: Duration,
        /// What.
        text: String,
    },
    /// Something did not happen in time.
    Liveness {
        /// When.
        at: Duration,
        /// What.
        text: String,
    },
    /// Something cost too much.
    Thrift {
        /// When.
        at: Duration,
        /// What.
        text: String,
    },
}

impl Report {
    /// Receivers that have the image.
    #[must_use]
    pub fn done(&self) -> usize {
        self.receivers.iter().filter(|it| matches!(it.ending, Ending::Done { .. })).count()
    }

    /// NEEDs for every 32 blocks of the image, each counted where the last block is that it names.
    #[must_use]
    pub fn needs_by_window(&self) -> Vec<u64> {
        let mut needs = vec![0; self.blocks.div_ceil(WINDOW_BLOCKS) as usize];
        for last in self.asked.iter().filter_map(|asked| asked.ranges.last()) {
            needs[((last.end() - 1) / WINDOW_BLOCKS) as usize] += 1;
        }
        needs
    }

    /// Receivers that asked for any of each 32 blocks of the image.
    #[must_use]
    pub fn askers_by_window(&self) -> Vec<usize> {
        let mut askers = vec![BTreeSet::new(); self.blocks.div_ceil(WINDOW_BLOCKS) as usize];
        for asked in &self.asked {
            for range in &asked.ranges {
                let windows = range.first / WINDOW_BLOCKS..=(range.end() - 1) / WINDOW_BLOCKS;
                for window in windows {
                    askers[window as usize].insert(asked.receiver);
                }
            }
        }
        askers.iter().map(BTreeSet::len).collect()
    }

    /// The most NEEDs that were sent within any interval as long as the GRTT announced at its end.
    #[must_use]
    pub fn needs_within_grtt(&self) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (number, asked) in self.asked.iter().enumerate() {
            let known = self.grtts.partition_point(|(since, _)| *since <= asked.at);
            let grtt = known.checked_sub(1).map_or(Duration::ZERO, |it| self.grtts[it].1);
            while self.asked[first].at + grtt < asked.at {
                first += 1;
            }
            most = most.max(number + 1 - first);
        }
        most
    }

    /// # Panics
    /// If anything happened that should not have.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }

    /// # Panics
    /// Unless nothing went wrong and every receiver has the image.
    pub fn assert_all_done(&self) {
        self.assert_clean();
        assert_eq!(self.done(), self.receivers.len(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} receivers have the image", self.seed, self.done())?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        for (number, receiver) in self.receivers.iter().enumerate() {
            let ReceiverReport { config, ending, at, polluted, .. } = receiver;
            if receiver.ending != (Ending::Done { acknowledged: true }) && number < 40 {
                writeln!(
                    f,
                    "  receiver {number} ({config}) at {at:?}: {ending:?}, {polluted} bad"
                )?;
            }
        }
        writeln!(f, "  senders: {:?}", self.senders)?;
        write!(
            f,
            "  done at {:?}, over at {:?}; {} symbols to the group, {} by unicast; overhead {} \
             ppm; {} NEEDs, {} reports, {} SYNCs; {} happenings",
            self.done_at,
            self.duration,
            self.group_symbols,
            self.unicast_symbols,
            self.overhead_ppm,
            self.needs,
            self.reports,
            self.syncs,
            self.happenings
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, at, text) = match self {
            Self::Safety { at, text } => ("safety", at, text),
            Self::Liveness { at, text } => ("liveness", at, text),
            Self::Thrift { at, text } => ("thrift", at, text),
        };
        write!(f, "{kind} at {:.6} s: {text}", at.as_secs_f64())
    }
}

/// What the sender judges its repair by.
const WINDOW_BLOCKS: u32 = 32;
