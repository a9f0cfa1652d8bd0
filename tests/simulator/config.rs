//! What a world is made of: everything that a run depends on, and nothing else.

use std::time::Duration;

use imgcast_sender::session::{OneWay, SlowReceivers};

use crate::planted::PlantedBug;

/// A world, from its image to the faults that befall it.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The origin of all random draws.
    pub seed: u64,
    /// How closely blocks are modelled.
    pub fidelity: Fidelity,
    /// The images; senders name them by position.
    pub images: Vec<ImageConfig>,
    /// The senders.
    pub senders: Vec<SenderConfig>,
    /// The receivers.
    pub receivers: Vec<ReceiverConfig>,
    /// Bits per second that each sender's interface carries.
    pub uplink_bits_per_second: u64,
    /// A link between all senders and all receivers; `None`: nothing that anybody feels.
    pub backbone: Option<BackboneConfig>,
    /// Loss that strikes all receivers at once.
    pub shared_loss: Loss,
    /// Loss that strikes all receivers of a rack at once.
    pub racks: Option<RackConfig>,
    /// A mistake made on purpose, for the checkers to find.
    pub planted: Option<PlantedBug>,
    /// Keep a line for every datagram and call.
    pub trace: bool,
}

/// How closely blocks are modelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fidelity {
    /// Real octets, FEC and hashes.
    Real,
    /// Symbols without octets; whether they determine a block is drawn with the odds of RFC 6330.
    /// A run of symbols of one block is one event.
    Rank,
}

/// One image, and how it is cut.
#[derive(Clone, Copy, Debug)]
pub struct ImageConfig {
    /// Its length in octets.
    pub bytes: u64,
    /// Binary logarithm of the block size.
    pub block_log2: u8,
    /// T.
    pub symbol_size: u16,
    /// Share of blocks that are all zero, in parts of a million.
    pub zero_ppm: u32,
}

/// A point in time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// So long after the world began.
    At(Duration),
    /// When the first sender has sent the group so many parts of a million of its image.
    Progress(u32),
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Its first moment.
    pub from: Duration,
    /// The moment behind its last.
    pub until: Duration,
}

/// A sender and what befalls it.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// When it starts.
    pub starts_at: Duration,
    /// Which of the world's images it sends.
    pub image: usize,
    /// Number of its data group; senders of the same number share one.
    pub group: u8,
    /// Receivers to wait for.
    pub receivers_min: u32,
    /// How long to wait for more.
    pub wait_min: Duration,
    /// How long to wait at most.
    pub wait_max: Option<Duration>,
    /// Rate to begin with; `None`: find it out.
    pub rate_start: Option<u64>,
    /// Rate never to exceed, in bits per second.
    pub rate_max: u64,
    /// Nobody can answer it: how it sends then.
    pub one_way: Option<OneWay>,
    /// Bits per second that its own link takes from its socket, which waits for it and drops
    /// nothing; `None`: any number.
    pub link_bits_per_second: Option<u64>,
    /// How long a turn takes to prepare, at most.
    pub turn_delay: Duration,
    /// When it vanishes.
    pub crash: Option<When>,
    /// How it comes back after that.
    pub restart: Option<Restart>,
    /// Its index is not that of its image.
    pub hostile_index: bool,
    /// What it does about receivers that are far slower than all others.
    pub slow_receivers: SlowReceivers,
}

/// How a sender comes back.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// How long after the crash.
    pub after: Duration,
    /// T of the new session.
    pub symbol_size: u16,
    /// Its data group.
    pub group: u8,
}

/// A receiver and what befalls it.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// When it starts.
    pub starts: When,
    /// Which image it wants; `None`: the only one on offer.
    pub wants: Option<usize>,
    /// Whether it asks the first sender by unicast what is on offer.
    pub asks: bool,
    /// From the network to it.
    pub down: LinkConfig,
    /// From it to the network.
    pub up: LinkConfig,
    /// What it gets through of what arrives; `None`: everything at once.
    pub intake: Option<IntakeConfig>,
    /// Its target.
    pub disk: Disk,
    /// Blocks that its memory holds; the session takes 8 at least.
    pub memory_blocks: u64,
    /// How long it goes on without progress or sender.
    pub receive_timeout: Option<Duration>,
    /// When it vanishes.
    pub crash: Option<When>,
    /// How long after that it starts again, having lost everything but, if it resumes, its target
    /// and its journal.
    pub restart_after: Option<Duration>,
    /// Whether it looks for the image on its target.
    pub resumes: bool,
    /// What its target holds at first: the image, but for each so many-th block.
    pub old_image_changed_every: Option<u32>,
    /// How long it takes to hash a block that may be there.
    pub search_per_block: Duration,
}

/// One direction of a receiver's link.
#[derive(Clone, Debug, Default)]
pub struct LinkConfig {
    /// Time that every datagram takes.
    pub delay: Duration,
    /// Additional time of up to so much …
    pub jitter: Duration,
    /// … for so many datagrams of a million, which others overtake.
    pub jitter_ppm: u32,
    /// Loss.
    pub loss: Loss,
    /// Datagrams of a million that arrive twice.
    pub duplicate_ppm: u32,
    /// Datagrams of a million that lose their end.
    pub truncate_ppm: u32,
    /// Datagrams of a million of which a few bits flip.
    pub flip_ppm: u32,
    /// DATA of a million whose symbol is changed and whose checksum is made right again.
    pub forge_ppm: u32,
    /// When nothing passes.
    pub cuts: Vec<Window>,
    /// When multicast does not pass.
    pub multicast_cuts: Vec<Window>,
    /// Bits per second that pass; more wait for up to [`LinkConfig::queue`].
    pub bits_per_second: Option<u64>,
    /// How long a datagram may wait for its turn; behind that it is dropped.
    pub queue: Duration,
}

/// A link that everything from senders to receivers passes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BackboneConfig {
    /// Bits per second that pass.
    pub bits_per_second: u64,
    /// How long a datagram may wait for its turn; behind that it is dropped.
    pub queue: Duration,
}

/// What lies between a receiver's link and its session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IntakeConfig {
    /// Octets of datagrams that it gets through in a second.
    pub bytes_per_second: u64,
    /// Octets that each of its sockets holds; what arrives beyond that is dropped.
    pub buffer_bytes: usize,
}

/// Receivers that share the last part of the way to them, in the order of their configurations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RackConfig {
    /// How many stand in one rack.
    pub receivers: usize,
    /// What none of them gets.
    pub loss: Loss,
}

/// How datagrams are lost.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Loss {
    /// Not at all.
    #[default]
    None,
    /// So many of a million, independently.
    Bernoulli(u32),
    /// Gilbert and Elliott: a good state without loss and a bad one, changed with these chances
    /// per datagram, and per millisecond without one.
    Bursts {
        /// From good to bad, per million.
        enter_ppm: u32,
        /// From bad to good, per million.
        leave_ppm: u32,
        /// Loss in the bad state.
        loss_ppm: u32,
    },
}

/// A target.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Octets per second that it takes.
    pub bytes_per_second: u64,
    /// When it takes nothing.
    pub stalls: Vec<Window>,
    /// The write that fails, counted from 0.
    pub fails_at_write: Option<u32>,
    /// The write that fails and may be tried once more, counted from 0.
    pub loses_at_write: Option<u32>,
    /// Blocks that the first flush of the whole does not get to the disk.
    pub loses_at_flush: u32,
    /// How long it takes to flush the whole, and to read it back.
    pub flush_takes: Duration,
}

impl WorldConfig {
    /// A quiet world: 16 blocks of 2 KiB at 4 Mbit/s to so many receivers.
    #[must_use]
    pub fn small(seed: u64, receivers: usize) -> Self {
        let image =
            ImageConfig { bytes: 16 * 2048 - 700, block_log2: 11, symbol_size: 64, zero_ppm: 0 };
        Self {
            seed,
            fidelity: Fidelity::Real,
            images: vec![image],
            senders: vec![SenderConfig::new(u32::try_from(receivers).unwrap_or(u32::MAX))],
            receivers: vec![ReceiverConfig::default(); receivers],
            uplink_bits_per_second: 1_000_000_000,
            backbone: None,
            shared_loss: Loss::None,
            racks: None,
            planted: None,
            trace: false,
        }
    }

    /// The same with something done to each receiver.
    #[must_use]
    pub fn each_receiver(mut self, mut change: impl FnMut(usize, &mut ReceiverConfig)) -> Self {
        self.receivers.iter_mut().enumerate().for_each(|(number, it)| change(number, it));
        self
    }

    /// The same with a mistake in it.
    #[must_use]
    pub fn planted(mut self, bug: PlantedBug) -> Self {
        self.planted = Some(bug);
        self
    }
}

impl SenderConfig {
    /// Waits for so many receivers, 5 s at most, and sends the first image at 4 Mbit/s.
    #[must_use]
    pub const fn new(receivers_min: u32) -> Self {
        Self {
            starts_at: Duration::ZERO,
            image: 0,
            group: 0,
            receivers_min,
            wait_min: Duration::ZERO,
            wait_max: Some(Duration::from_secs(5)),
            rate_start: None,
            rate_max: 4_000_000,
            one_way: None,
            link_bits_per_second: None,
            turn_delay: Duration::from_millis(1),
            crash: None,
            restart: None,
            hostile_index: false,
            slow_receivers: SlowReceivers::Detach,
        }
    }
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        let link = LinkConfig {
            delay: Duration::from_micros(100),
            queue: Duration::from_millis(20),
            ..LinkConfig::default()
        };
        Self {
            starts: When::At(Duration::ZERO),
            wants: None,
            asks: false,
            down: link.clone(),
            up: link,
            intake: None,
            disk: Disk {
                bytes_per_second: 100 << 20,
                stalls: Vec::new(),
                fails_at_write: None,
                loses_at_write: None,
                loses_at_flush: 0,
                flush_takes: Duration::ZERO,
            },
            memory_blocks: 1_000,
            receive_timeout: Some(Duration::from_secs(120)),
            crash: None,
            restart_after: None,
            resumes: false,
            old_image_changed_every: None,
            // A block is read and hashed about as fast as it is sent.
            search_per_block: Duration::from_millis(1),
        }
    }
}

impl Window {
    /// From one moment, in milliseconds, to another.
    #[must_use]
    pub const fn millis(from: u64, until: u64) -> Self {
        Self { from: Duration::from_millis(from), until: Duration::from_millis(until) }
    }

    /// From the beginning to the end of the world.
    #[must_use]
    pub const fn always() -> Self {
        Self { from: Duration::ZERO, until: Duration::MAX }
    }

    /// Whether a moment lies in it.
    #[must_use]
    pub fn contains(&self, at: Duration) -> bool {
        (self.from..self.until).contains(&at)
    }
}

impl Loss {
    /// So many of a million in the long run, in bursts that take `length` datagrams on average.
    #[must_use]
    pub fn in_bursts(length: u32, ppm: u32) -> Self {
        let leave_ppm = 1_000_000 / length;
        let enter = u64::from(leave_ppm) * u64::from(ppm) / u64::from(1_000_000 - ppm);
        let enter_ppm = u32::try_from(enter).unwrap_or(u32::MAX);
        Self::Bursts { enter_ppm, leave_ppm, loss_ppm: 1_000_000 }
    }

    /// The share that is lost in the long run, in parts of a million.
    #[must_use]
    pub fn mean_ppm(&self) -> u32 {
        match *self {
            Self::None => 0,
            Self::Bernoulli(ppm) => ppm,
            Self::Bursts { enter_ppm, leave_ppm, loss_ppm } => {
                let bad = u64::from(enter_ppm) * u64::from(loss_ppm);
                let mean = bad / u64::from(enter_ppm + leave_ppm).max(1);
                u32::try_from(mean).unwrap_or(u32::MAX)
            }
        }
    }
}
