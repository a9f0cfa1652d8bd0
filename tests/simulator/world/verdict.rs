//! The checks that look at a whole world: in time, and as it should be.

use std::time::Duration;

use imgcast_common::wire::EjectReason;
use imgcast_receiver::session::{Failure, Outcome};
use imgcast_sender::session::{MemberState, SlowReceivers};

use super::World;
use crate::{
    config::{LinkConfig, Loss, ReceiverConfig, SenderConfig, When, Window, WorldConfig},
    receiver_node::ReceiverNode,
    sender_node::SenderNode,
};

impl World {
    /// The sender says that a receiver is done: is it?
    pub(super) fn look_into_claims(&mut self) {
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

    /// END: nobody who takes part may be without the image; who was sent away may not know it yet.
    pub(super) fn check_farewell(&mut self, sender: usize) {
        let SenderNode { id, session, .. } = &self.senders[sender];
        let sent_away = |node: &ReceiverNode| {
            let mut dropped = session.members().filter(|it| it.state == MemberState::Dropped);
            dropped.any(|it| it.address == node.address)
        };
        let lacking = self.receivers.iter().find(|node| {
            let member = node.session_id() == Some(*id) && node.welcomed && !node.gave_up;
            node.is_up() && member && !node.flushed && !sent_away(node)
        });
        if let Some(node) = lacking {
            let text = format!("END while {} lacks blocks", node.address);
            self.around.safety(text);
        }
    }

    /// Whether somebody should have finished by now; says who.
    pub(super) fn is_too_late(&mut self) -> bool {
        let now = self.around.now;
        let due = self.last_fault_at + 3 * self.ideal + PATIENCE;
        if now <= due {
            return false;
        }
        // Whoever has the image may wait for the sender's last word for as long again.
        let acknowledged_due = due + PATIENCE;
        let late = self
            .receivers
            .iter()
            .filter(|node| node.is_up() && (!node.flushed || now > acknowledged_due));
        let late: Vec<String> = late.map(|node| late_text(node, self)).collect();
        let senders_due = due + LOST_AFTER;
        for text in &late {
            self.around.checker.liveness(now, text.clone());
        }
        if now <= senders_due {
            return !late.is_empty();
        }
        let up = self.senders.iter().filter(|node| node.is_up());
        let texts: Vec<String> =
            up.map(|it| format!("the sender does not end: {:?}", it.session.status())).collect();
        for text in texts {
            self.around.checker.liveness(now, text);
        }
        true
    }

    /// What must hold when all is over.
    pub(super) fn check_end(&mut self) {
        let now = self.around.now;
        let mut safety = Vec::new();
        let mut liveness = Vec::new();
        for (number, node) in self.receivers.iter().enumerate() {
            match &node.outcome {
                Some((Outcome::Done { acknowledged }, at)) => {
                    if self.is_real() && !node.is_right() {
                        safety.push(format!("receiver {number} is done, its target is wrong"));
                    }
                    let config = &self.config.receivers[node.host];
                    let may_tell = node.offer.as_ref().is_some_and(|it| !it.announce.one_way);
                    if may_tell
                        && !acknowledged
                        && !node.heard_end
                        && self.was_answerable(node, config)
                    {
                        liveness.push(format!("receiver {number} at {at:?}: nobody knows of it"));
                    }
                }
                Some((Outcome::Failed(failure), at)) if !self.may_fail(node, failure) => {
                    liveness.push(format!("receiver {number} at {at:?}: {failure:?}"));
                }
                _ => {}
            }
            if node.polluted > 0 && !self.config.has_forgery() {
                safety.push(format!("receiver {number} found wrong blocks in honest company"));
            }
        }
        safety.into_iter().for_each(|text| self.around.checker.safety(now, text));
        liveness.into_iter().for_each(|text| self.around.checker.liveness(now, text));
        self.check_thrift();
    }

    /// Nobody is sent more than a multiple of what was needed.
    fn check_thrift(&mut self) {
        let sources: u64 = self.around.images.iter().map(|image| image.source_symbols()).sum();
        let (runs, senders) = (self.receivers.len() as u64, self.senders.len() as u64);
        let joins_apart = runs.min(self.config.joins_apart()) + senders;
        let counts = self.around.checker.counts;
        let group = counts.group_symbols - counts.index_symbols;
        // A sender that hears needs and is not heard itself answers until they cease; one that is
        // too fast for a link until it knows.
        let in_vain = if self.config.has_one_way_cut() { self.symbols_in(UNHEARD_MAX) } else { 0 };
        let slow = self
            .config
            .receivers
            .iter()
            .any(|it| it.down.bits_per_second.is_some() || it.intake.is_some());
        let passes = |it: &SenderConfig| it.one_way.map_or(1, |one_way| u64::from(one_way.passes));
        let passes = self.config.senders.iter().map(passes).max().unwrap_or(1);
        let factor = if slow { 2 * GROUP_SYMBOLS_FACTOR } else { GROUP_SYMBOLS_FACTOR };
        let wanted = sources * joins_apart * factor * passes;
        let sent = wanted * 1_000_000 / self.config.least_arriving_ppm().max(1);
        let allowed = sent + GROUP_SYMBOLS_MORE + in_vain;
        if group > allowed {
            let text = format!("{group} symbols to the group, at most {allowed} were expected");
            self.around.checker.thrift(self.around.now, text);
        }
    }

    /// Symbols that all senders together send in so long.
    fn symbols_in(&self, time: Duration) -> u64 {
        let bits: u64 = self.config.senders.iter().map(|it| it.rate_max).sum();
        let symbol_size = u64::from(self.around.images[0].layout.symbol_size());
        bits / 8 / symbol_size * u64::try_from(time.as_millis()).unwrap_or(0) / 1_000
    }

    /// Whether the way between a receiver and its sender was good all the time.
    fn was_answerable(&self, node: &ReceiverNode, config: &ReceiverConfig) -> bool {
        let good = |link: &LinkConfig| {
            link.loss == Loss::None
                && link.cuts.is_empty()
                && link.truncate_ppm + link.flip_ppm == 0
                && link.bits_per_second.is_none()
        };
        let sender = self.senders.iter().find(|it| Some(it.id) == node.session_id());
        config.intake.is_none()
            && good(&config.up)
            && good(&config.down)
            && sender.is_some_and(|it| !it.crashed)
    }

    /// Whether this failure was to be expected.
    fn may_fail(&self, node: &ReceiverNode, failure: &Failure) -> bool {
        let config = &self.config.receivers[node.host];
        let sender = self.senders.iter().find(|it| Some(it.id) == node.session_id());
        let served = node.welcomed && sender.is_some_and(|it| !it.crashed);
        match failure {
            Failure::Driver => config.disk.fails_at_write.is_some(),
            Failure::Ejected(EjectReason::Slow) => {
                let drops = |it: &SenderConfig| it.slow_receivers == SlowReceivers::Drop;
                self.config.senders.iter().any(drops)
            }
            Failure::Index => self.config.senders.iter().any(|it| it.hostile_index),
            Failure::SeveralImages(_) => self.config.images.len() > 1 && config.wants.is_none(),
            Failure::NoSender
            | Failure::Ending(_)
            | Failure::NotOffered(_)
            | Failure::SenderGone(_) => !served,
            Failure::Lacking(_) => self.config.senders.iter().any(|it| it.one_way.is_some()),
            Failure::Refused(_) => !served && !self.senders.iter().any(|it| it.is_up()),
            _ => false,
        }
    }
}

impl WorldConfig {
    /// Octets of the image, over what the slowest part of the world carries.
    pub(crate) fn ideal(&self) -> Duration {
        let backbone = self.backbone.map_or(u64::MAX, |it| it.bits_per_second);
        let mut rate = self.uplink_bits_per_second.min(backbone);
        for sender in &self.senders {
            rate = rate.min(sender.link_bits_per_second.unwrap_or(u64::MAX)).min(sender.rate_max);
        }
        let mut deaf = 0;
        for receiver in &self.receivers {
            rate = rate.min(receiver.down.bits_per_second.unwrap_or(u64::MAX));
            let intake = receiver.intake.map_or(u64::MAX, |it| it.bytes_per_second);
            rate = rate.min(intake.min(receiver.disk.bytes_per_second).saturating_mul(8));
            deaf += u32::from(!receiver.down.multicast_cuts.is_empty());
        }
        let octets: u64 = self.images.iter().map(|image| image.bytes).sum();
        Duration::from_secs_f64(octets as f64 * 8.0 / rate.max(1) as f64) * deaf.max(1)
    }

    /// The end of the last disturbance that is known from the start.
    pub(crate) fn last_window_end(&self) -> Duration {
        let windows = self.receivers.iter().flat_map(|it| {
            let links = [&it.down, &it.up].into_iter();
            let cuts = links.flat_map(|link| link.cuts.iter().chain(&link.multicast_cuts));
            cuts.chain(&it.disk.stalls)
        });
        let ends = windows.map(|window: &Window| window.until);
        ends.filter(|until| *until < Duration::MAX).max().unwrap_or_default()
    }

    /// The share of multicast that reaches the receiver that loses most, in parts of a million.
    fn least_arriving_ppm(&self) -> u64 {
        let arriving = |loss: &Loss| 1_000_000 - u64::from(loss.mean_ppm());
        let racks = self.racks.map_or(1_000_000, |racks| arriving(&racks.loss));
        let least = self.receivers.iter().map(|it| arriving(&it.down.loss)).min();
        let least = least.unwrap_or(1_000_000) * racks / 1_000_000;
        least * arriving(&self.shared_loss) / 1_000_000
    }

    /// Whether some receiver is heard for a while without hearing anything, or any multicast: at
    /// first it does not know that either.
    fn has_one_way_cut(&self) -> bool {
        self.receivers.iter().any(|it| {
            let hears_nothing = it.up.cuts.is_empty() && !it.down.cuts.is_empty();
            hears_nothing || !it.down.multicast_cuts.is_empty()
        })
    }

    /// Whether symbols may be wrong without their checksum showing it.
    fn has_forgery(&self) -> bool {
        let forged = self.receivers.iter().any(|it| it.down.forge_ppm > 0);
        forged || self.senders.iter().any(|it| it.hostile_index)
    }

    /// How many receivers, at most, begin after the others, and need everything once more.
    fn joins_apart(&self) -> u64 {
        let apart = self
            .receivers
            .iter()
            .filter(|it| it.starts != When::At(Duration::ZERO) || it.restart_after.is_some());
        apart.count() as u64
    }
}

fn late_text(node: &ReceiverNode, world: &World) -> String {
    let sender = world.senders.iter().find(|it| Some(it.id) == node.session_id());
    let status = node.session.status(world.around.instant());
    let sender = sender.map(|it| it.session.status());
    format!("{} is not finished: {status:?}; its sender: {sender:?}", node.address)
}

/// What everybody gets beyond three times the ideal.
const PATIENCE: Duration = Duration::from_secs(60);
/// A sender notices lost receivers within 60 s and 20 polls, and lingers for 10 s.
const LOST_AFTER: Duration = Duration::from_secs(95);
/// Receivers that hear nothing ask seldom after 2 s.
const UNHEARD_MAX: Duration = Duration::from_millis(2_500);
/// Three times the image for everybody who begins apart from the others, as it arrives.
const GROUP_SYMBOLS_FACTOR: u64 = 3;
/// Tiny images cost a few turns more.
const GROUP_SYMBOLS_MORE: u64 = 400;
