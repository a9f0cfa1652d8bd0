//! From the nodes' outboxes through the network to other nodes.

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, time::Duration};

use imgcast_common::wire::{Kind, Message, Role};
use imgcast_receiver::session::Via;
use imgcast_sender::session::Destination;

use super::World;
use crate::{
    attach::Outgoing,
    network::{Copy, DATA_OCTETS},
    queue::{Happening, SymbolRun},
    receiver_node::{Arrival, ReceiverNode, What, run_arrival},
};

impl World {
    pub(super) fn deliver(
        &mut self,
        datagram: &Rc<[u8]>,
        from: SocketAddr,
        via: Via,
        to: &[u32],
        altered: bool,
    ) {
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
                    if !node.is_up() {
                        continue;
                    }
                    if let Some(socket) = node.socket(via) {
                        let what = What::Datagram { datagram: Rc::clone(datagram), from };
                        let arrival = Arrival { what, datagrams: 1, octets: datagram.len() };
                        node.arrive(around, socket, arrival);
                    } else {
                        node.deliver(around, via, from, &header, &message);
                    }
                }
            }
            Err(_) if altered => {}
            Err(error) => around.safety(format!("nobody takes {datagram:?}: {error}")),
        }
    }

    pub(super) fn deliver_run(&mut self, run: &Rc<SymbolRun>, via: Via, to: &[u32]) {
        let (sender, now) = (&self.senders[run.sender], self.around.now);
        let (session, symbol_octets) = (sender.id, sender.image.layout.symbol_size().into());
        for number in to {
            let node = &mut self.receivers[*number as usize];
            if node.is_up() {
                let rack = self.network.rack_of(node.host);
                let link = &mut self.network.hosts[node.host].down;
                let arrived = run.left(rack) & !link.loses_of(now, run.burst.count);
                if let Some(socket) = node.socket(via) {
                    let arrival = run_arrival(run, session, symbol_octets, arrived);
                    node.arrive(&mut self.around, socket, arrival);
                } else if arrived != 0 {
                    node.deliver_run(&mut self.around, via, run, session, arrived);
                }
            }
        }
    }

    pub(super) fn deliver_feedback(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        to: usize,
        altered: bool,
    ) {
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

    pub(super) fn send_all(&mut self) {
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
        let Some(at) = self.network.backbone.cross(at, sender, datagram.len()) else { return };
        let racks_lost = if multicast { self.network.racks_lose(now) } else { Vec::new() };
        let mut unaltered: Vec<(Duration, u32)> = Vec::new();
        for number in self.reached(sender, to).iter().copied() {
            let host = self.receivers[number as usize].host;
            if racks_lost.get(self.network.rack_of(host)) == Some(&true) {
                continue;
            }
            let link = &mut self.network.hosts[host].down;
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
                    to: Rc::new([number]),
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

    fn send_run(&mut self, mut run: SymbolRun) {
        let now = self.around.now;
        let symbol_size = usize::from(self.senders[run.sender].image.layout.symbol_size());
        let count = u64::from(run.burst.count);
        let octets = symbol_size + DATA_OCTETS;
        let Some(left_at) = self.network.leave(now, run.sender, count, octets) else { return };
        let (via, multicast) = via(run.burst.to);
        if multicast {
            (run.lost, run.racks_lost) = self.network.shared_loses_of(now, run.burst.count);
        }
        let mut at = left_at;
        for bit in (0..run.burst.count).map(|symbol| 1 << symbol) {
            if run.lost & bit == 0 {
                match self.network.backbone.cross(left_at, run.sender, octets) {
                    Some(through) => at = through,
                    None => run.lost |= bit,
                }
            }
        }
        let reached = self.reached(run.sender, run.burst.to);
        let run = Rc::new(run);
        if let Some(delay) = self.network.delay_of_all() {
            self.around.queue.push(at + delay, Happening::Run { run, via, to: reached });
            return;
        }
        let mut by_delay: BTreeMap<Duration, Vec<u32>> = BTreeMap::new();
        for number in reached.iter().copied() {
            let link = &self.network.hosts[self.receivers[number as usize].host].down;
            if !link.is_cut(at, multicast) {
                by_delay.entry(link.delay()).or_default().push(number);
            }
        }
        for (delay, to) in by_delay {
            let (run, to) = (Rc::clone(&run), to.into());
            self.around.queue.push(at + delay, Happening::Run { run, via, to });
        }
    }

    /// Receivers that a sender's datagram is on its way to.
    fn reached(&mut self, sender: usize, to: Destination) -> Rc<[u32]> {
        if let Destination::Unicast(address) = to {
            let known = self.by_address.get(&address).copied();
            return known.and_then(|it| u32::try_from(it).ok()).into_iter().collect();
        }
        if std::mem::take(&mut self.around.audience_changed) {
            self.audiences.clear();
        }
        let group = Some(self.senders[sender].group).filter(|_| to != Destination::Rendezvous);
        let audience = self.audiences.entry(group).or_insert_with(|| {
            let listens =
                |node: &ReceiverNode| node.is_up() && (group.is_none() || node.group == group);
            let numbered = (0..).zip(&self.receivers);
            numbered.filter(|(_, node)| listens(node)).map(|(it, _)| it).collect()
        });
        Rc::clone(audience)
    }

    fn send_from_receiver(&mut self, receiver: usize, to: SocketAddr, datagram: &Rc<[u8]>) {
        let node = &self.receivers[receiver];
        let from = node.address;
        self.around.checker.counts.from_receivers += 1;
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
}

fn via(to: Destination) -> (Via, bool) {
    match to {
        Destination::Rendezvous => (Via::Rendezvous, true),
        Destination::Group => (Via::Group, true),
        Destination::Unicast(_) => (Via::Unicast, false),
    }
}
