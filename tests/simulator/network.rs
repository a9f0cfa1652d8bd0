//! The network: what happens to a datagram between two nodes.

use std::{rc::Rc, time::Duration};

use imgcast_common::{
    prng::Prng,
    wire::{HEADER_LEN, Kind, TRAILER_LEN},
};

use crate::backbone::Backbone;
use crate::config::{LinkConfig, Loss, ReceiverConfig, WorldConfig};

/// Every link of a world.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) hosts: Vec<Host>,
    uplink_bits_per_second: u64,
    /// When each sender's interface is free again.
    busy_until: Vec<Duration>,
    pub(crate) backbone: Backbone,
    shared: Losses,
    /// What strikes each rack, and how many receivers one holds.
    racks: Vec<Losses>,
    rack_receivers: usize,
    /// How long the way to every receiver takes, if that is the same for all and never cut.
    delay_of_all: Option<Duration>,
    prng: Prng,
}

/// The two directions of one receiver's link.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) down: Link,
    pub(crate) up: Link,
}

/// One direction of a link.
#[derive(Debug)]
pub(crate) struct Link {
    config: LinkConfig,
    losses: Losses,
    busy_until: Duration,
    prng: Prng,
}

/// A loss model and its state.
#[derive(Debug)]
pub(crate) struct Losses {
    loss: Loss,
    bad: bool,
    /// Until when the state is known.
    settled_at: Duration,
    /// Where datagrams go together: how many pass before the next is lost, or how many steps before
    /// the state changes.
    left: Option<u32>,
}

/// One copy of a datagram that passed a link.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) at: Duration,
    /// The octets, if they are not those that were sent.
    pub(crate) altered: Option<Altered>,
}

/// A datagram that was changed on its way.
#[derive(Debug)]
pub(crate) struct Altered {
    pub(crate) datagram: Rc<[u8]>,
    /// Whether its checksum was made right again.
    pub(crate) forged: bool,
}

impl Network {
    pub(crate) fn new(config: &WorldConfig, seed: impl Fn(u64) -> u64) -> Self {
        let host = |(number, receiver): (u64, &ReceiverConfig)| Host {
            down: Link::new(&receiver.down, seed(1_000_000 + 2 * number)),
            up: Link::new(&receiver.up, seed(1_000_001 + 2 * number)),
        };
        Self {
            hosts: (0..).zip(&config.receivers).map(host).collect(),
            uplink_bits_per_second: config.uplink_bits_per_second,
            busy_until: Vec::new(),
            backbone: Backbone::new(config.backbone),
            shared: Losses::new(config.shared_loss),
            racks: config.racks.map_or(Vec::new(), |racks| {
                let count = config.receivers.len().div_ceil(racks.receivers.max(1));
                (0..count).map(|_| Losses::new(racks.loss)).collect()
            }),
            delay_of_all: config.delay_of_all(),
            rack_receivers: config.racks.map_or(1, |racks| racks.receivers.max(1)),
            prng: Prng::new(seed(2)),
        }
    }

    /// When a datagram that sender number `sender` sends at `now` has left its interface; `None`
    /// if there was no room for it.
    pub(crate) fn leave(
        &mut self,
        now: Duration,
        sender: usize,
        datagrams: u64,
        octets: usize,
    ) -> Option<Duration> {
        if self.busy_until.len() <= sender {
            self.busy_until.resize(sender + 1, Duration::ZERO);
        }
        let busy_until = &mut self.busy_until[sender];
        if *busy_until > now + UPLINK_QUEUE {
            return None;
        }
        let taken = time_for(octets, self.uplink_bits_per_second);
        *busy_until = now.max(*busy_until) + taken * u32::try_from(datagrams).unwrap_or(1);
        Some(*busy_until)
    }

    /// Whether the shared part loses the next multicast datagram.
    pub(crate) fn shared_loses(&mut self, now: Duration) -> bool {
        self.shared.lose(now, &mut self.prng)
    }

    /// Which of up to 64 datagrams that go together the shared part loses, a bit for each, and
    /// which the way to each rack.
    pub(crate) fn shared_loses_of(&mut self, now: Duration, datagrams: u32) -> (u64, Vec<u64>) {
        let shared = self.shared.lose_of(now, datagrams, &mut self.prng);
        let racks = self.racks.iter_mut();
        (shared, racks.map(|it| it.lose_of(now, datagrams, &mut self.prng)).collect())
    }

    /// For which racks the next multicast datagram is lost.
    pub(crate) fn racks_lose(&mut self, now: Duration) -> Vec<bool> {
        self.racks.iter_mut().map(|it| it.lose(now, &mut self.prng)).collect()
    }

    pub(crate) const fn delay_of_all(&self) -> Option<Duration> {
        self.delay_of_all
    }

    /// The rack that a receiver's host stands in.
    pub(crate) const fn rack_of(&self, host: usize) -> usize {
        host / self.rack_receivers
    }
}

impl WorldConfig {
    fn delay_of_all(&self) -> Option<Duration> {
        let delay = self.receivers.first()?.down.delay;
        let plain = |link: &LinkConfig| {
            link.delay == delay && link.cuts.is_empty() && link.multicast_cuts.is_empty()
        };
        self.receivers.iter().all(|it| plain(&it.down)).then_some(delay)
    }
}

impl Link {
    fn new(config: &LinkConfig, seed: u64) -> Self {
        Self {
            config: config.clone(),
            losses: Losses::new(config.loss),
            busy_until: Duration::ZERO,
            prng: Prng::new(seed),
        }
    }

    /// What comes out at the other end of a datagram that goes in at `now`: up to two copies.
    pub(crate) fn pass(
        &mut self,
        now: Duration,
        datagram: &[u8],
        multicast: bool,
    ) -> [Option<Copy>; 2] {
        if self.is_cut(now, multicast) || self.losses.lose(now, &mut self.prng) {
            return [None, None];
        }
        let first = self.copy(now, datagram);
        let twice = self.config.duplicate_ppm > 0 && self.prng.chance(self.config.duplicate_ppm);
        let second = if twice { self.copy(now, datagram) } else { None };
        [first, second]
    }

    fn copy(&mut self, now: Duration, datagram: &[u8]) -> Option<Copy> {
        let mut at = now;
        if let Some(rate) = self.config.bits_per_second {
            if self.busy_until > now + self.config.queue {
                return None;
            }
            self.busy_until = self.busy_until.max(now) + time_for(datagram.len(), rate);
            at = self.busy_until;
        }
        at += self.config.delay;
        if self.config.jitter_ppm > 0 && self.prng.chance(self.config.jitter_ppm) {
            let jitter = u64::try_from(self.config.jitter.as_nanos()).unwrap_or(u64::MAX);
            at += Duration::from_nanos(self.prng.below(jitter));
        }
        Some(Copy { at, altered: self.alter(datagram) })
    }

    pub(crate) fn is_cut(&self, now: Duration, multicast: bool) -> bool {
        let closed = |window: &crate::config::Window| window.contains(now);
        self.config.cuts.iter().any(closed)
            || (multicast && self.config.multicast_cuts.iter().any(closed))
    }

    /// Which of up to 64 datagrams that go together are lost, a bit for each.
    pub(crate) fn loses_of(&mut self, now: Duration, datagrams: u32) -> u64 {
        self.losses.lose_of(now, datagrams, &mut self.prng)
    }

    pub(crate) const fn delay(&self) -> Duration {
        self.config.delay
    }

    fn alter(&mut self, datagram: &[u8]) -> Option<Altered> {
        let LinkConfig { truncate_ppm, flip_ppm, forge_ppm, .. } = self.config;
        if truncate_ppm + flip_ppm + forge_ppm == 0 {
            return None;
        }
        let prng = &mut self.prng;
        let mut bytes = datagram.to_vec();
        let forged = datagram[KIND_OFFSET] == Kind::Data as u8 && prng.chance(forge_ppm);
        if forged {
            let symbol = SYMBOL_OFFSET..bytes.len() - TRAILER_LEN;
            bytes[pick(prng, symbol)] ^= 0x55;
            let crc_at = bytes.len() - TRAILER_LEN;
            let crc = crc32(&bytes[..crc_at]);
            bytes[crc_at..].copy_from_slice(&crc);
        } else if prng.chance(truncate_ppm) {
            bytes.truncate(pick(prng, 0..datagram.len()));
        } else if prng.chance(flip_ppm) {
            // At this length CRC-32 finds every change of up to three bits.
            bytes[pick(prng, 0..datagram.len())] ^= 1 << prng.below(8);
        } else {
            return None;
        }
        Some(Altered { datagram: bytes.into(), forged })
    }
}

impl Losses {
    const fn new(loss: Loss) -> Self {
        Self { loss, bad: false, settled_at: Duration::ZERO, left: None }
    }

    /// The same as [`lose`](Self::lose) for up to 64 datagrams that go together, a bit for each;
    /// draws once for each that is lost, or each change of state.
    fn lose_of(&mut self, now: Duration, datagrams: u32, prng: &mut Prng) -> u64 {
        match self.loss {
            Loss::None => 0,
            Loss::Bernoulli(ppm) => {
                let mut lost = 0;
                let mut next = self.left.unwrap_or_else(|| steps_before(ppm, prng));
                while next < datagrams {
                    lost |= 1 << next;
                    next = next.saturating_add(1).saturating_add(steps_before(ppm, prng));
                }
                self.left = Some(next - datagrams);
                lost
            }
            Loss::Bursts { enter_ppm, leave_ppm, loss_ppm } => {
                let change_ppm = [enter_ppm, leave_ppm];
                let millis = now.saturating_sub(self.settled_at).as_millis();
                self.settled_at = now;
                self.step(u32::try_from(millis).unwrap_or(u32::MAX), change_ppm, prng);
                let mut lost = 0;
                for datagram in 0..datagrams {
                    self.step(1, change_ppm, prng);
                    lost |= u64::from(self.bad && prng.chance(loss_ppm)) << datagram;
                }
                lost
            }
        }
    }

    /// Takes so many steps of the two states, which are left with these chances.
    fn step(&mut self, mut steps: u32, change_ppm: [u32; 2], prng: &mut Prng) {
        let mut left =
            self.left.unwrap_or_else(|| steps_before(change_ppm[usize::from(self.bad)], prng));
        while steps > left {
            steps -= left + 1;
            self.bad = !self.bad;
            left = steps_before(change_ppm[usize::from(self.bad)], prng);
        }
        self.left = Some(left - steps);
    }

    fn lose(&mut self, now: Duration, prng: &mut Prng) -> bool {
        match self.loss {
            Loss::None => false,
            Loss::Bernoulli(ppm) => prng.chance(ppm),
            Loss::Bursts { enter_ppm, leave_ppm, loss_ppm } => {
                self.settle(now, enter_ppm, leave_ppm, prng);
                self.bad && prng.chance(loss_ppm)
            }
        }
    }

    /// One step of the two states for this datagram, and one for every millisecond since the last:
    /// bursts end in time also where little is sent.
    fn settle(&mut self, now: Duration, enter_ppm: u32, leave_ppm: u32, prng: &mut Prng) {
        let steps = now.saturating_sub(self.settled_at).as_millis() + 1;
        self.settled_at = now;
        if steps > STEPS_MAX {
            let bad = u64::from(enter_ppm) * 1_000_000 / u64::from(enter_ppm + leave_ppm).max(1);
            self.bad = prng.chance(u32::try_from(bad).unwrap_or(0));
            self.left = None;
            return;
        }
        for _ in 0..steps {
            if prng.chance(if self.bad { leave_ppm } else { enter_ppm }) {
                self.bad = !self.bad;
                self.left = None;
            }
        }
    }
}

/// How often something of this chance does not happen before it does.
fn steps_before(ppm: u32, prng: &mut Prng) -> u32 {
    if ppm == 0 {
        return u32::MAX - 1;
    }
    let others = 1.0 - f64::from(ppm) / 1e6;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let steps = ((1.0 - prng.unit()).ln() / others.ln()) as u32;
    steps.min(u32::MAX - 1)
}

fn pick(prng: &mut Prng, range: std::ops::Range<usize>) -> usize {
    let offset = prng.below((range.end - range.start) as u64);
    range.start + usize::try_from(offset).unwrap_or(0)
}

/// CRC-32 as the trailer has it, octet by octet: a forger does not use our code.
fn crc32(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_be_bytes()
}

/// How long a datagram of so many octets takes on the wire.
pub(crate) fn time_for(octets: usize, bits_per_second: u64) -> Duration {
    let bits = (octets as u64 + FRAMING_OCTETS) * 8;
    Duration::from_nanos(bits * 1_000_000_000 / bits_per_second.max(1))
}

/// UDP, IPv4 and Ethernet with preamble and gap.
pub(crate) const FRAMING_OCTETS: u64 = 66;
/// Octets of DATA that are not symbol.
pub(crate) const DATA_OCTETS: usize = 44;
/// After so many steps the state has forgotten where it came from.
const STEPS_MAX: u128 = 200;
/// A socket buffer of 20 ms.
const UPLINK_QUEUE: Duration = Duration::from_millis(20);
const KIND_OFFSET: usize = 3;
const SYMBOL_OFFSET: usize = HEADER_LEN + 16;
