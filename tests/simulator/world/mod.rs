//! The world: its clock, its nodes, and what they say to each other.

mod delivery;
mod verdict;

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use imgcast_common::prng::{Prng, mix};
use imgcast_receiver::session::Outcome;

use crate::{
    attach::{Surroundings, sender_address},
    config::{Fidelity, Restart, When, WorldConfig},
    image::Image,
    network::Network,
    queue::Happening,
    receiver_node::ReceiverNode,
    report::{Ending, ReceiverReport, Report},
    sender_node::SenderNode,
    store::{Kept, Store},
};

/// Everything there is.
#[derive(Debug)]
pub struct World {
    pub(crate) config: WorldConfig,
    pub(crate) around: Surroundings,
    network: Network,
    pub(crate) senders: Vec<SenderNode>,
    pub(crate) receivers: Vec<ReceiverNode>,
    by_address: BTreeMap<SocketAddr, usize>,
    /// Who listens to each group, and to the rendezvous group.
    audiences: BTreeMap<Option<SocketAddr>, Rc<[u32]>>,
    /// How long the images would take without any trouble.
    ideal: Duration,
    /// What happens when the first sender has come so far, the latest first.
    at_progress: Vec<(u32, Happening)>,
    /// Starts that are still to come.
    starts_pending: u32,
    /// When something was disturbed last.
    pub(crate) last_fault_at: Duration,
    happenings: u64,
}

impl World {
    /// The world before anything happens.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let mut prng = Prng::new(seed(config.seed, 1));
        let image = |it| Rc::new(Image::new(it, config.fidelity, &mut prng));
        let images: Vec<Rc<Image>> = config.images.iter().map(image).collect();
        let around = Surroundings::new(config.fidelity, config.planted, images, config.trace);
        let mut world = Self {
            network: Network::new(&config, |number| seed(config.seed, number)),
            around,
            senders: Vec::new(),
            receivers: Vec::new(),
            by_address: BTreeMap::new(),
            audiences: BTreeMap::new(),
            ideal: config.ideal(),
            at_progress: Vec::new(),
            starts_pending: 0,
            last_fault_at: config.last_window_end(),
            happenings: 0,
            config,
        };
        world.plan();
        world
    }

    /// Queues what is known from the start.
    fn plan(&mut self) {
        let config = self.config.clone();
        for (number, sender) in config.senders.iter().enumerate() {
            self.starts_pending += 1;
            let start = Happening::StartSender { config: number, restarted: false };
            self.around.queue.push(sender.starts_at, start);
            if let Some(crash) = sender.crash {
                self.schedule(crash, Happening::CrashSender { config: number });
            }
        }
        for (number, receiver) in config.receivers.iter().enumerate() {
            self.schedule(receiver.starts, Happening::StartReceiver { config: number });
            if let Some(crash) = receiver.crash {
                self.schedule(crash, Happening::CrashReceiver { config: number });
            }
        }
        self.at_progress.sort_by_key(|(progress, _)| std::cmp::Reverse(*progress));
    }

    fn schedule(&mut self, when: When, happening: Happening) {
        match when {
            When::At(at) => {
                self.starts_pending +=
                    u32::from(matches!(happening, Happening::StartReceiver { .. }));
                self.around.queue.push(at, happening);
            }
            When::Progress(progress) => self.at_progress.push((progress, happening)),
        }
    }

    /// Runs until everybody is finished, or something is wrong.
    #[must_use]
    pub fn run(mut self) -> Report {
        while let Some((at, happening)) = self.around.queue.pop() {
            self.around.now = at;
            self.happenings += 1;
            self.happen(happening);
            self.send_all();
            self.look_into_claims();
            if self.is_over() {
                break;
            }
            if self.is_too_late() || self.around.checker.violations.len() >= VIOLATIONS_ENOUGH {
                break;
            }
        }
        self.check_end();
        self.report()
    }

    fn happen(&mut self, happening: Happening) {
        let around = &mut self.around;
        match happening {
            Happening::StartSender { config, restarted } => self.start_sender(config, restarted),
            Happening::StartReceiver { config } => self.start_receiver(config),
            Happening::CrashSender { config } => self.crash_sender(config),
            Happening::CrashReceiver { config } => self.crash_receiver(config),
            Happening::WakeSender(number) => self.senders[number].wake(around),
            Happening::WakeReceiver(number) => self.receivers[number].wake(around),
            Happening::Deliver { datagram, from, via, to, altered } => {
                self.deliver(&datagram, from, via, &to, altered);
            }
            Happening::Run { run, via, to } => self.deliver_run(&run, via, &to),
            Happening::Feedback { datagram, from, to, altered } => {
                self.deliver_feedback(&datagram, from, to, altered);
            }
            Happening::Burst { sender, burst, turn } => {
                self.senders[sender].burst(around, burst, &turn);
                self.note_progress(sender);
            }
            Happening::Pump(sender) => self.senders[sender].pump(around),
            Happening::Left { sender, cargo } => {
                self.senders[sender].left(around, cargo);
                self.note_progress(sender);
            }
            Happening::TurnReady { sender, turn } => self.senders[sender].turn_ready(around, turn),
            Happening::Task { receiver, task } => {
                self.receivers[receiver].finish_task(around, task);
            }
        }
    }

    fn start_sender(&mut self, position: usize, restarted: bool) {
        self.starts_pending -= 1;
        let number = self.senders.len();
        let mut config = self.config.senders[position].clone();
        let mut image = Rc::clone(&self.around.images[config.image]);
        if let Some(Restart { symbol_size, group, .. }) = config.restart.filter(|_| restarted) {
            config.group = group;
            if symbol_size != image.layout.symbol_size() {
                image = Rc::new(image.recut(symbol_size));
            }
        }
        if config.hostile_index {
            image = Rc::new(image.with_wrong_index());
        }
        let seed = seed(self.config.seed, 100 + number as u64);
        let mut node = SenderNode::new(&self.around, number, position, &config, image, seed);
        node.drain(&mut self.around);
        self.senders.push(node);
        self.note_fault();
    }

    fn start_receiver(&mut self, host: usize) {
        self.starts_pending -= 1;
        let number = self.receivers.len();
        let config = &self.config.receivers[host];
        let seed = seed(self.config.seed, 10_000 + number as u64);
        let ask = Some(sender_address(0));
        let mut node = ReceiverNode::new(&self.around, number, host, config, ask, seed);
        if config.resumes {
            let earlier = self.receivers.iter_mut().rfind(|it| it.host == host);
            node.kept = earlier.and_then(|it| it.kept.take().or(it.store.take().map(Store::leave)));
            if let (None, Some(every)) = (&node.kept, config.old_image_changed_every) {
                let image = &self.around.images[config.wants.unwrap_or(0)];
                node.kept = Some(Kept::like(image, every));
            }
        }
        node.drain(&mut self.around);
        self.by_address.insert(node.address, number);
        self.receivers.push(node);
        self.around.audience_changed = true;
        self.note_fault();
    }

    fn crash_sender(&mut self, position: usize) {
        let up = self.senders.iter_mut().rfind(|node| node.config == position && node.is_up());
        let Some(node) = up else { return };
        node.crashed = true;
        if let Some(restart) = self.config.senders[position].restart {
            self.starts_pending += 1;
            let start = Happening::StartSender { config: position, restarted: true };
            self.around.after(restart.after, start);
        }
        self.note_fault();
    }

    fn crash_receiver(&mut self, host: usize) {
        let up = self.receivers.iter_mut().rfind(|node| node.host == host && node.is_up());
        let Some(node) = up else { return };
        node.crashed = true;
        self.around.audience_changed = true;
        if let Some(after) = self.config.receivers[host].restart_after {
            self.starts_pending += 1;
            self.around.after(after, Happening::StartReceiver { config: host });
        }
        self.note_fault();
    }

    fn note_fault(&mut self) {
        self.last_fault_at = self.last_fault_at.max(self.around.now);
    }

    fn note_progress(&mut self, sender: usize) {
        let node = &self.senders[sender];
        if node.config != 0 {
            return;
        }
        let progress = node.image_symbols * 1_000_000 / node.image.source_symbols().max(1);
        while let Some((at, _)) = self.at_progress.last()
            && progress >= u64::from(*at)
            && let Some((_, happening)) = self.at_progress.pop()
        {
            self.starts_pending += u32::from(matches!(happening, Happening::StartReceiver { .. }));
            self.around.after(Duration::ZERO, happening);
        }
    }

    fn is_over(&self) -> bool {
        self.starts_pending == 0
            && !self.senders.iter().any(SenderNode::is_up)
            && !self.receivers.iter().any(ReceiverNode::is_up)
    }

    fn report(self) -> Report {
        let ending = |node: &ReceiverNode| match &node.outcome {
            Some((Outcome::Done { acknowledged }, _)) => {
                Ending::Done { acknowledged: *acknowledged }
            }
            Some((Outcome::Failed(failure), _)) => Ending::Failed(failure.clone()),
            None if node.crashed => Ending::Crashed,
            None => Ending::Stuck,
        };
        let now = self.around.now;
        let receiver = |node: &ReceiverNode| ReceiverReport {
            config: node.host,
            ending: ending(node),
            at: node.outcome.as_ref().map_or(now, |(_, at)| *at),
            polluted: node.polluted,
            symbols: node.session.symbols(),
            rewritten: node.store.as_ref().map_or(0, |store| store.rewritten),
        };
        let receivers: Vec<ReceiverReport> = self.receivers.iter().map(receiver).collect();
        let counts = self.around.checker.counts;
        let layout = self.around.images[0].layout;
        let octets =
            u64::from(layout.symbol_size()) * (counts.group_symbols - counts.index_symbols);
        let outcome = |node: &SenderNode| node.outcome.clone().map(|(outcome, _)| outcome);
        let detached = self.senders.first().map(|it| self.hosts(&it.detached)).unwrap_or_default();
        Report {
            seed: self.config.seed,
            done_at: self.receivers.iter().filter_map(|it| it.flushed_at).max().unwrap_or_default(),
            receivers,
            senders: self.senders.iter().map(outcome).collect(),
            duration: now,
            started_at: self.senders.iter().find_map(|it| it.started_at).unwrap_or_default(),
            group_symbols: counts.group_symbols - counts.index_symbols,
            unicast_symbols: counts.unicast_symbols,
            unicast_beside_ppm: self.around.checker.at_last_source.unicast_ppm(),
            sent: self.around.checker.sent,
            overhead_ppm: octets * 1_000_000 / layout.bytes(),
            needs: counts.needs,
            asked: self.around.checker.asked,
            grtts: self.around.checker.grtts,
            last_source_at: self.around.checker.last_source_at,
            reports: counts.reports,
            from_receivers: counts.from_receivers,
            syncs: counts.syncs,
            blocks: layout.blocks(),
            rates: self.senders.first().map(|it| it.rates.clone()).unwrap_or_default(),
            detached,
            crossed: self.network.backbone.crossed,
            drops: self.receivers.iter().map(|it| it.drops.clone()).collect(),
            happenings: self.happenings,
            trace_hash: self.around.trace.hash,
            violations: self.around.checker.violations,
            trace: self.around.trace.into_lines(),
        }
    }

    /// The same with the position of each receiver's configuration in the place of its address.
    fn hosts(&self, noted: &[(Duration, SocketAddr, bool)]) -> Vec<(Duration, usize, bool)> {
        let host = |address| self.by_address.get(address).map(|it| self.receivers[*it].host);
        let noted = noted.iter().filter_map(|(at, who, what)| Some((*at, host(who)?, *what)));
        noted.collect()
    }

    /// Whether nothing is to be expected of real octets.
    pub(crate) fn is_real(&self) -> bool {
        self.config.fidelity == Fidelity::Real
    }
}

/// Every node draws from its own source, so that one more changes nobody's luck.
fn seed(world: u64, number: u64) -> u64 {
    mix(mix(world ^ 0x5851_F42D_4C95_7F2D) ^ number)
}

/// After so many there is nothing more to learn.
const VIOLATIONS_ENOUGH: usize = 10;
