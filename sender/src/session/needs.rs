//! Merging what receivers say they need: by maximum into the group's schedule, or into what one of
//! them gets by unicast.

use std::{net::SocketAddr, time::Instant};

use imgcast_common::{
    id::{BlockId, Stream},
    timing::GRTT_MIN,
    wire::{BlockRange, Header, Need, RefuseReason, WHOLE, is_much},
};

use super::{
    Event, MemberState, Session,
    carousel::{Carousel, Reporters},
    floor::Keeping,
};

impl Session {
    pub(super) fn on_need(&mut self, now: Instant, from: SocketAddr, header: &Header, need: &Need) {
        let Some(member) = self.roster.member_mut(need.receiver) else {
            self.refuse(from, [0; 16], RefuseReason::Rejoin);
            return;
        };
        if member.address != from {
            return;
        }
        member.need_counter = header.counter;
        match member.state {
            MemberState::Active | MemberState::Lost => {}
            MemberState::Ejected | MemberState::Dropped => return self.eject(need.receiver),
            MemberState::Done | MemberState::Failed | MemberState::Left => {
                return self.acknowledge(need.receiver, from);
            }
        }
        let was_deaf = member.no_multicast;
        if self.roster.heard(now, need.receiver) {
            self.events.push_back(Event::Changed(need.receiver));
            self.note_listeners();
        }
        if self.tell_that_it_is_over(from) {
            return;
        }
        self.roster.note_report(need, self.config.layout.blocks());
        if was_deaf != need.flags.no_multicast {
            self.note_listeners();
        }
        // SYNC and symbols do not take equally long: they queue behind bursts.
        let described_at = self.clock.described_at(now, need.echo_micros, need.hold_micros)
            + self.pacer.burst_time(self.datagram_octets()).max(GRTT_MIN);
        if !need.flags.no_multicast {
            self.follow(now, need);
        } else {
            self.governor.on_sign_of_life();
        }
        self.merge(now, header.stream, need, described_at);
    }

    /// Lets the rate follow what a receiver says of how it keeps up.
    fn follow(&mut self, now: Instant, need: &Need) {
        let Some(member) = self.roster.member(need.receiver) else { return };
        let is_short =
            u32::from(need.free_blocks) < member.memory_blocks.min(u32::from(u16::MAX)) / 4;
        let drain = u64::from(need.drain_kilobytes) * 1000;
        // Whoever has all of it and only writes is in nobody's way.
        let needs_data = need.done_blocks < self.config.layout.blocks();
        let keeping = Keeping {
            network_loss: f64::from(need.network_loss.unwrap_or(0)) / 65_536.0,
            socket_loss: f64::from(need.socket_loss) / 65_536.0,
            limit: (needs_data && (is_short || need.flags.behind) && drain > 0)
                .then(|| self.on_the_wire(drain)),
            was_asked: need.poll != 0,
        };
        if self.slowness.is_detached(need.receiver) {
            self.governor.on_sign_of_life();
            self.watch_detached(now, need.receiver, keeping, drain);
            return;
        }
        let sent_by_then = self.syncs.sent_by(need.echo_micros);
        let active = self.roster.active_count();
        let sent = sent_by_then.unwrap_or(self.group_datagrams);
        self.governor.on_heard(now, need.receiver, sent);
        // Of losses that are not known yet it says nothing.
        let sent_by_then = sent_by_then.filter(|_| need.network_loss.is_some());
        if self.governor.on_report(now, need.receiver, keeping, sent_by_then, active) {
            self.pacer.set_rate(self.governor.rate());
            self.sync_soon();
        }
        self.watch(now, need.receiver);
    }

    /// Octets on the wire that bring so many octets of the image.
    pub(super) fn on_the_wire(&self, octets: u64) -> u64 {
        octets * self.datagram_octets() / u64::from(self.config.layout.symbol_size())
    }

    fn merge(&mut self, now: Instant, stream: Stream, need: &Need, described_at: Instant) {
        let layout = *self.carousel(stream).layout();
        let inside = need.needs.last().is_none_or(|range| range.end() <= layout.blocks());
        if !inside || need.needs.is_empty() {
            return;
        }
        self.closing.is_wanted |= stream == Stream::Image;
        let mut blocks = 0;
        for range in &need.needs {
            let mut next = self.next_unowed(now, stream, range, need, range.first);
            while let Some(block) = next {
                if range.symbols != WHOLE {
                    blocks += 1;
                    if blocks > DEFICITS_PER_NEED_MAX {
                        return;
                    }
                }
                let id = BlockId { stream, number: block };
                if !self.merge_block(now, id, range, need, described_at) {
                    return;
                }
                next = self.next_unowed(now, stream, range, need, block + 1);
            }
        }
        self.sync_soon();
    }

    /// The first block of a range, from `block` on, that is not owed as asked for already: whoever
    /// asks for all of a large image again and again costs next to nothing.
    fn next_unowed(
        &mut self,
        now: Instant,
        stream: Stream,
        range: &BlockRange,
        need: &Need,
        block: u32,
    ) -> Option<u32> {
        let is_whole = range.symbols == WHOLE;
        let aside = self.slowness.is_aside(now, need.receiver) && !need.flags.no_multicast;
        if aside && is_whole && stream == Stream::Image && self.group_wants() {
            // It begins as many of the blocks that are being sent as it can hold.
            return None;
        }
        let group_does = is_whole && !aside && !need.flags.no_multicast && !need.flags.by_unicast;
        let block = if group_does { self.carousel(stream).first_unowed(block)? } else { block };
        (block < range.end()).then_some(block)
    }

    /// False when there is no room for more needs of this receiver.
    fn merge_block(
        &mut self,
        now: Instant,
        block: BlockId,
        range: &BlockRange,
        need: &Need,
        described_at: Instant,
    ) -> bool {
        let aside = self.slowness.is_aside(now, need.receiver) && !need.flags.no_multicast;
        self.note_deficit(block, range.symbols, need, !aside);
        let apart = aside || need.flags.no_multicast || need.flags.by_unicast;
        if apart || self.is_for_one(now, block, need.receiver) {
            let carousel = self.carousel(block.stream);
            if !apart {
                carousel.note_reporter(block.number, need.receiver);
            }
            if carousel.sendable().contains(block.number) {
                let source_symbols = carousel.layout().source_symbols(block.number);
                let wanted = (block, range.symbols, source_symbols);
                return self.unicast.need(now, need.receiver, described_at, wanted);
            }
            return true;
        }
        let member = self.roster.member(need.receiver);
        let loss = member.map_or(0.0, |member| member.network_loss);
        let joined_at = member.map(|member| member.joined_at);
        let carousel = self.carousel(block.stream);
        if range.symbols == WHOLE || is_left_to_its_turn(carousel, block.number, range, joined_at) {
            carousel.need_whole(block.number, described_at);
        } else {
            let deficit = u32::from(range.symbols);
            carousel.need_symbols(block.number, deficit, loss, described_at);
        }
        carousel.note_reporter(block.number, need.receiver);
        true
    }

    /// Keeps the books on a deficit: for the final table, and for the proactive repair.
    fn note_deficit(&mut self, block: BlockId, symbols: u16, need: &Need, with_others: bool) {
        if symbols == WHOLE {
            return;
        }
        let Some(member) = self.roster.member_mut(need.receiver) else { return };
        member.repaired_symbols += u64::from(member.lacked.note(block, symbols));
        let counts = with_others && !need.flags.no_multicast && !need.flags.by_unicast;
        if block.stream == Stream::Image && counts {
            let joined_at = member.joined_at;
            self.repair.on_deficit(block.number, u32::from(symbols), joined_at);
        }
    }

    /// Whether nobody but this receiver needs the block, and nothing new waits for the group. Of a
    /// block that the group has not been sent others may have to find out yet that they lack it.
    fn is_for_one(
        &mut self,
        now: Instant,
        block: BlockId,
        id: imgcast_common::id::ReceiverId,
    ) -> bool {
        if !self.image.has_nothing_new() || !self.index.has_nothing_new() {
            return false;
        }
        let alone = self.roster.active_count() == 1;
        // By then all that need it have said so.
        let settling = self.feedback_window() + 2 * self.clock.grtt();
        let carousel = self.carousel(block.stream);
        let others = match carousel.reporters(block.number) {
            Reporters::None => false,
            Reporters::One(one) => one != id,
            Reporters::Many => true,
        };
        let settled = carousel.was_sent_to_all(block.number)
            && carousel.last_sent(block.number).is_none_or(|at| now >= at + settling);
        !others && !carousel.is_planned(block.number) && (alone || settled)
    }
}

/// Whether a receiver lacks much of a block because it joined while that was being sent: repairs at
/// once would be of use to nobody else, and whole turns are still owed.
fn is_left_to_its_turn(
    carousel: &Carousel,
    block: u32,
    range: &BlockRange,
    joined_at: Option<Instant>,
) -> bool {
    is_much(u32::from(range.symbols), carousel.layout().source_symbols(block))
        && !carousel.has_nothing_new()
        && joined_at.is_some_and(|at| carousel.had_begun(block, at))
}

/// As many incomplete blocks as a receiver with 64 GiB for them could hold.
const DEFICITS_PER_NEED_MAX: u32 = 65_536;
