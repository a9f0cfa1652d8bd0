//! The world: its clock, its nodes, and what they say to each other.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use imgcast_common::{
    prng::{Prng, mix},
    wire::{Kind, Message, Role},
};
use imgcast_receiver::session::{Outcome, Via};
use imgcast_sender::session::{Destination, MemberState};

use crate::{
    attach::{Outgoing, Surroundings, sender_address},
    config::{Fidelity, Restart, When, WorldConfig},
    image::Image,
    network::{Copy, Network},
    queue::{Happening, SymbolRun},
    receiver_node::ReceiverNode,
    report::{Ending, ReceiverReport, Report},
    sender_node::SenderNode,
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
        node.drain(&mut self.around);
        self.by_address.insert(node.address, number);
        self.receivers.push(node);
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

    fn deliver(&mut self, datagram: &[u8], from: SocketAddr, via: Via, to: &[u32], altered: bool) {
        let around = &mut self.around;
        match Message::parse(datagram, Role::Receiver) {
            Ok(_) if altered => around.safety(format!("a damaged datagram passed: {datagram:?}")),
            Ok((header, message)) => {
                around.note(header.counter ^ to.len() as u64, || {
                    let kind = message.kind();
                    format!("arrives at {to:?} via {via:?}: {kind:?} #{}", header.counter)
                });
                for number in to {
                    let node = &mut self.receivers[*number as usize];
                    if node.is_up() {
                        node.deliver(around, via, from, &header, &message);
                    }
                }
            }
            Err(_) if altered => {}
            Err(error) => around.safety(format!("nobody takes {datagram:?}: {error}")),
        }
    }

    fn deliver_run(&mut self, run: &SymbolRun, via: Via, to: &[u32]) {
        let (session, now) = (self.senders[run.sender].id, self.around.now);
        for number in to {
            let node = &mut self.receivers[*number as usize];
            if node.is_up() {
                let link = &mut self.network.hosts[node.host].down;
                node.deliver_run(&mut self.around, via, run, session, || link.loses(now));
            }
        }
    }

    fn deliver_feedback(&mut self, datagram: &[u8], from: SocketAddr, to: usize, altered: bool) {
        let around = &mut self.around;
        let node = &mut self.senders[to];
        match Message::parse(datagram, Role::Sender) {
            Ok(_) if altered => around.safety(format!("a damaged datagram passed: {datagram:?}")),
            Ok((header, message)) => {
                around.note(header.counter, || format!("arrives at sender {to}: {header:?}"));
                if node.is_up() {
                    node.deliver(around, from, &header, &message, datagram.len());
                }
            }
            Err(_) if altered => {}
            Err(error) => around.safety(format!("no sender takes {datagram:?}: {error}")),
        }
    }

    fn send_all(&mut self) {
        for outgoing in std::mem::take(&mut self.around.outbox) {
            match outgoing {
                Outgoing::FromSender { sender, to, datagram } => {
                    self.send_from_sender(sender, to, datagram);
                }
                Outgoing::Run { run } => self.send_run(run),
                Outgoing::FromReceiver { receiver, to, datagram } => {
                    self.send_from_receiver(receiver, to, &datagram);
                }
            }
        }
    }

    fn send_from_sender(&mut self, sender: usize, to: Destination, datagram: Rc<[u8]>) {
        let now = self.around.now;
        let Some(at) = self.network.leave(now, sender, 1, datagram.len()) else { return };
        let from = self.senders[sender].address;
        let (via, multicast) = via(to);
        if datagram[3] == Kind::End as u8 && to == Destination::Group {
            self.check_farewell(sender);
        }
        if multicast && self.network.shared_loses(now) {
            return;
        }
        let mut unaltered: Vec<(Duration, u32)> = Vec::new();
        for number in self.reached(sender, to) {
            let link = &mut self.network.hosts[self.receivers[number as usize].host].down;
            for copy in link.pass(at, &datagram, multicast).into_iter().flatten() {
                let Copy { at, altered } = copy;
                let Some(altered) = altered else {
                    unaltered.push((at, number));
                    continue;
                };
                let happening = Happening::Deliver {
                    datagram: altered.datagram,
                    from,
                    via,
                    to: vec![number],
                    altered: !altered.forged,
                };
                self.around.queue.push(at, happening);
            }
        }
        unaltered.sort_by_key(|(at, _)| *at);
        for together in unaltered.chunk_by(|one, other| one.0 == other.0) {
            let to = together.iter().map(|(_, number)| *number).collect();
            let datagram = Rc::clone(&datagram);
            let happening = Happening::Deliver { datagram, from, via, to, altered: false };
            self.around.queue.push(together[0].0, happening);
        }
    }

    fn send_run(&mut self, run: Rc<SymbolRun>) {
        let now = self.around.now;
        let symbol_size = usize::from(self.senders[run.sender].image.layout.symbol_size());
        let count = u64::from(run.burst.count);
        let left = self.network.leave(now, run.sender, count, symbol_size + DATA_OCTETS);
        let Some(at) = left else { return };
        let (via, multicast) = via(run.burst.to);
        let lost = (0..count).map(|_| multicast && self.network.shared_loses(now)).collect();
        let mut by_delay: BTreeMap<Duration, Vec<u32>> = BTreeMap::new();
        for number in self.reached(run.sender, run.burst.to) {
            let link = &self.network.hosts[self.receivers[number as usize].host].down;
            if !link.is_cut(at, multicast) {
                by_delay.entry(link.delay()).or_default().push(number);
            }
        }
        let SymbolRun { sender, burst, first_counter, .. } = *run;
        let run = Rc::new(SymbolRun { sender, burst, first_counter, lost });
        for (delay, to) in by_delay {
            self.around.queue.push(at + delay, Happening::Run { run: Rc::clone(&run), via, to });
        }
    }

    /// Receivers that a sender's datagram is on its way to.
    fn reached(&self, sender: usize, to: Destination) -> Vec<u32> {
        let group = self.senders[sender].group;
        if let Destination::Unicast(address) = to {
            let known = self.by_address.get(&address).copied();
            return known.and_then(|it| u32::try_from(it).ok()).into_iter().collect();
        }
        let listens = |node: &ReceiverNode| {
            node.is_up() && (to == Destination::Rendezvous || node.group == Some(group))
        };
        (0..).zip(&self.receivers).filter(|(_, node)| listens(node)).map(|(it, _)| it).collect()
    }

    fn send_from_receiver(&mut self, receiver: usize, to: SocketAddr, datagram: &Rc<[u8]>) {
        let node = &self.receivers[receiver];
        let from = node.address;
        let Some(sender) = self.senders.iter().rposition(|it| it.address == to) else { return };
        let link = &mut self.network.hosts[node.host].up;
        for copy in link.pass(self.around.now, datagram, false).into_iter().flatten() {
            let (datagram, altered) = match copy.altered {
                Some(altered) => (altered.datagram, !altered.forged),
                None => (Rc::clone(datagram), false),
            };
            let happening = Happening::Feedback { datagram, from, to: sender, altered };
            self.around.queue.push(copy.at, happening);
        }
    }

    /// The sender says that a receiver is done: is it?
    fn look_into_claims(&mut self) {
        for sender in &mut self.senders {
            for id in std::mem::take(&mut sender.claims) {
                let Some(member) = sender.session.member(id) else { continue };
                let node = self.by_address.get(&member.address).map(|it| &self.receivers[*it]);
                let right = node.is_some_and(|node| node.flushed);
                if member.state == MemberState::Done && !right {
                    let text = format!("the sender takes {} for done", member.address);
                    self.around.safety(text);
                }
            }
        }
    }

    /// END: nobody who takes part may be without the image.
    fn check_farewell(&mut self, sender: usize) {
        let id = self.senders[sender].id;
        let lacking = self.receivers.iter().find(|node| {
            let member = node.session_id() == Some(id) && node.welcomed && !node.gave_up;
            node.is_up() && member && !node.flushed
        });
        if let Some(node) = lacking {
            let text = format!("END while {} lacks blocks", node.address);
            self.around.safety(text);
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
        };
        let receivers: Vec<ReceiverReport> = self.receivers.iter().map(receiver).collect();
        let counts = self.around.checker.counts;
        let layout = self.around.images[0].layout;
        let octets =
            u64::from(layout.symbol_size()) * (counts.group_symbols - counts.index_symbols);
        let outcome = |node: &SenderNode| node.outcome.clone().map(|(outcome, _)| outcome);
        Report {
            seed: self.config.seed,
            done_at: self.receivers.iter().filter_map(|it| it.flushed_at).max().unwrap_or_default(),
            receivers,
            senders: self.senders.iter().map(outcome).collect(),
            duration: now,
            started_at: self.senders.iter().find_map(|it| it.started_at).unwrap_or_default(),
            group_symbols: counts.group_symbols - counts.index_symbols,
            unicast_symbols: counts.unicast_symbols,
            overhead_ppm: octets * 1_000_000 / layout.bytes(),
            needs: counts.needs,
            reports: counts.reports,
            syncs: counts.syncs,
            blocks: layout.blocks(),
            happenings: self.happenings,
            trace_hash: self.around.trace.hash,
            violations: self.around.checker.violations,
            trace: self.around.trace.into_lines(),
        }
    }

    /// Octets of the image, over what the slowest part of the world carries.
    pub(crate) fn ideal(&self) -> Duration {
        let config = &self.config;
        let mut rate = config.uplink_bits_per_second;
        for sender in &config.senders {
            rate = rate.min(sender.rate_max);
        }
        let mut deaf = 0;
        for receiver in &config.receivers {
            rate = rate.min(receiver.down.bits_per_second.unwrap_or(u64::MAX));
            rate = rate.min(receiver.disk.bytes_per_second.saturating_mul(8));
            deaf += u32::from(!receiver.down.multicast_cuts.is_empty());
        }
        let octets: u64 = config.images.iter().map(|image| image.bytes).sum();
        Duration::from_nanos(octets * 8 * 1_000_000_000 / rate.max(1)) * deaf.max(1)
    }

    /// Whether nothing is to be expected of real octets.
    pub(crate) fn is_real(&self) -> bool {
        self.config.fidelity == Fidelity::Real
    }
}

fn via(to: Destination) -> (Via, bool) {
    match to {
        Destination::Rendezvous => (Via::Rendezvous, true),
        Destination::Group => (Via::Group, true),
        Destination::Unicast(_) => (Via::Unicast, false),
    }
}

/// Every node draws from its own source, so that one more changes nobody's luck.
fn seed(world: u64, number: u64) -> u64 {
    mix(mix(world ^ 0x5851_F42D_4C95_7F2D) ^ number)
}

/// Octets of DATA that are not symbol.
const DATA_OCTETS: usize = 44;
/// After so many there is nothing more to learn.
const VIOLATIONS_ENOUGH: usize = 10;
