//! From what is owed to bursts on the wire: turns are prepared ahead of their time, a few of them
//! interleaved, and group and unicast share the rate.

use std::{collections::VecDeque, time::Instant};

use imgcast_common::{
    id::{BlockId, EncodingSymbolId, ReceiverId, Stream},
    wire::{DATA_HEAD_LEN, DataHead, TRAILER_LEN, WHOLE},
};

use super::{
    Destination, Event, Session, TurnId,
    carousel::{Plan, symbols_for},
};

/// The turns that are being prepared or sent.
#[derive(Debug, Default)]
pub(super) struct Turns {
    group: VecDeque<Turn>,
    unicast: VecDeque<Turn>,
    last_id: u64,
    /// Which of the interleaved turns is next.
    rotation: usize,
}

#[derive(Debug)]
struct Turn {
    id: TurnId,
    plan: Plan,
    to: Option<ReceiverId>,
    ready: bool,
    sent: u32,
}

/// A run of symbols of one block, to leave together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Burst {
    /// When it is to leave.
    pub at: Instant,
    /// Where to.
    pub to: Destination,
    /// The turn whose symbols these are.
    pub turn: TurnId,
    /// The block.
    pub block: BlockId,
    /// How many symbols.
    pub count: u32,
    first_esi: u32,
    turn_count: u8,
    stored_len: u32,
    still_to_come: u32,
    sources: u32,
}

impl Burst {
    /// Whether these are source symbols, not repair symbols.
    #[must_use]
    pub const fn is_of_sources(&self) -> bool {
        self.first_esi < self.sources
    }

    /// What stands before the symbol at `position`, which is below `count`.
    #[must_use]
    pub fn head(&self, position: u32) -> Option<DataHead> {
        let still_to_come = self.still_to_come.saturating_sub(position);
        Some(DataHead {
            block: self.block.number,
            esi: EncodingSymbolId::new(self.first_esi + position)?,
            turn: self.turn_count,
            stored_len: self.stored_len,
            still_to_come: u16::try_from(still_to_come).unwrap_or(u16::MAX),
        })
    }
}

#[cfg(test)]
impl Burst {
    /// The first `count` source symbols of the image's first block.
    pub(crate) fn sample(at: Instant, to: Destination, count: u32) -> Self {
        let block = BlockId { stream: Stream::Image, number: 0 };
        let plan =
            Plan { block, sources: count, first_repair: 0, repairs: 0, count: 0, stored_len: 1 };
        let turn = Turn { id: TurnId(1), plan, to: None, ready: true, sent: 0 };
        make_burst(&turn, at, to, 0, count)
    }
}

impl Turns {
    pub(super) fn is_empty(&self) -> bool {
        self.group.is_empty() && self.unicast.is_empty()
    }

    pub(super) fn has_stream(&self, stream: Stream) -> bool {
        self.group.iter().any(|turn| turn.plan.block.stream == stream)
    }

    pub(super) fn set_ready(&mut self, id: TurnId) {
        let turns = self.group.iter_mut().chain(&mut self.unicast);
        turns.filter(|turn| turn.id == id).for_each(|turn| turn.ready = true);
    }

    fn push(&mut self, plan: Plan, to: Option<ReceiverId>) -> Event {
        self.last_id += 1;
        let id = TurnId(self.last_id);
        let turn = Turn { id, plan, to, ready: false, sent: 0 };
        match to {
            Some(_) => self.unicast.push_back(turn),
            None => self.group.insert(self.place_of(&plan), turn),
        }
        let none = EncodingSymbolId::new(0);
        let first_repair = EncodingSymbolId::new(plan.first_repair).or(none);
        Event::TurnWanted {
            turn: id,
            block: plan.block,
            first_repair: first_repair.unwrap_or_else(|| unreachable!("0 has 24 bits")),
            repairs: plan.repairs,
        }
    }

    /// Position of a new turn of the group: what somebody waits for, repairs and the index, goes
    /// before whole turns that were taken up ahead of their time and have not begun.
    fn place_of(&self, plan: &Plan) -> usize {
        let is_urgent = |plan: &Plan| plan.sources == 0 || plan.block.stream == Stream::Index;
        let end = self.group.len();
        let mut waiting = INTERLEAVED_TURNS..end;
        let passed = waiting.find(|at| is_urgent(plan) && !is_urgent(&self.group[*at].plan));
        passed.unwrap_or(end)
    }

    /// Position of the next turn of the group that can send, among those that are interleaved.
    fn next_group(&self) -> Option<usize> {
        let together = self.group.len().min(INTERLEAVED_TURNS);
        (0..together)
            .map(|step| (self.rotation + step) % together)
            .find(|position| self.group[*position].ready)
    }

    fn next_unicast(&self) -> Option<usize> {
        self.unicast.iter().position(|turn| turn.ready)
    }
}

impl Turn {
    const fn total(&self) -> u32 {
        self.plan.sources + self.plan.repairs
    }

    /// The next symbols, at most `count_max`: their first ESI and how many.
    fn next_run(&self, count_max: u32) -> (u32, u32) {
        match self.plan.sources.checked_sub(self.sent) {
            Some(sources_left) if sources_left > 0 => (self.sent, count_max.min(sources_left)),
            _ => {
                let repair = self.sent - self.plan.sources;
                (self.plan.first_repair + repair, count_max.min(self.total() - self.sent))
            }
        }
    }
}

impl Session {
    /// Takes up turns ahead of their time.
    pub(super) fn fill_turns(&mut self, now: Instant) {
        if !self.is_running() {
            return;
        }
        while self.turns.unicast.len() < UNICAST_TURNS_AHEAD
            && let Some((receiver, block, symbols)) = self.unicast.next(now)
        {
            let loss = self.roster.member(receiver).map_or(0.0, |member| member.network_loss);
            let repairs = if symbols == WHOLE { 0 } else { symbols_for(u32::from(symbols), loss) };
            let carousel = self.carousel(block.stream);
            if let Some(plan) = carousel.unicast_turn(block.number, symbols == WHOLE, repairs) {
                self.unicast.note_turn(receiver, block, plan.sources + plan.repairs);
                let event = self.turns.push(plan, Some(receiver));
                self.events.push_back(event);
            }
        }
        while self.has_listeners
            && self.turns.group.len() < self.turns_ahead()
            && let Some(plan) = self.next_plan(now)
        {
            let event = self.turns.push(plan, None);
            self.events.push_back(event);
        }
    }

    /// Turns that are prepared ahead of their time.
    fn turns_ahead(&self) -> usize {
        let blocks = TURNS_AHEAD_OCTETS / self.config.layout.block_size();
        usize::try_from(blocks).unwrap_or(usize::MAX).clamp(INTERLEAVED_TURNS, TURNS_AHEAD_MAX)
    }

    fn next_plan(&mut self, now: Instant) -> Option<Plan> {
        let index_repairs = |symbols: u32| symbols.div_ceil(10).max(INDEX_REPAIRS_MIN);
        if let Some(plan) = self.index.next_turn(index_repairs) {
            return Some(plan);
        }
        let repairs_for = |symbols| match &self.passes {
            Some(passes) => passes.repairs_for(symbols),
            None => self.repair.repairs_for(symbols),
        };
        let plan = self.image.next_turn(repairs_for)?;
        if plan.sources > 0 && self.passes.is_none() {
            self.repair.on_turn(plan.block.number, now);
        }
        Some(plan)
    }

    /// Whether a burst could leave as soon as the pacer agrees.
    pub(super) fn has_ready_turn(&self) -> bool {
        self.turns.next_group().is_some() || self.next_unicast().is_some()
    }

    /// The next burst, if its time has come.
    pub(super) fn next_burst(&mut self, now: Instant) -> Option<Burst> {
        let flowing = self.is_running();
        if !flowing || now < self.pacer.ready_at() {
            return None;
        }
        match (self.next_unicast(), self.turns.next_group()) {
            (Some(position), _) => self.unicast_burst(now, position, self.group_wants()),
            (None, Some(position)) => self.group_burst(now, position),
            (None, None) => {
                self.pacer.rest(now);
                None
            }
        }
    }

    /// Whether the group is owed anything, be it ready or not.
    pub(super) fn group_wants(&self) -> bool {
        let idle = self.turns.group.is_empty() && self.image.is_idle() && self.index.is_idle();
        self.has_listeners && !idle
    }

    /// Position of the next turn by unicast, if its share of the rate allows one.
    fn next_unicast(&self) -> Option<usize> {
        let allowed = !self.group_wants() || self.pacer.unicast_has_credit();
        self.turns.next_unicast().filter(|_| allowed)
    }

    /// Octets of one DATA datagram on the wire.
    pub(super) fn datagram_octets(&self) -> u64 {
        let framed = DATA_HEAD_LEN + TRAILER_LEN;
        framed as u64
            + u64::from(self.config.layout.symbol_size())
            + u64::from(self.config.framing_octets)
    }

    /// How many symbols the next burst has at most. Where somebody set the rate they know what else
    /// the links carry.
    fn burst_symbols(&mut self) -> u32 {
        let octets = self.datagram_octets();
        if self.governor.may_share_a_link() {
            self.pacer.burst_out_of_step(octets, &mut self.prng)
        } else {
            self.pacer.burst(octets)
        }
    }

    fn group_burst(&mut self, now: Instant, position: usize) -> Option<Burst> {
        let octets = self.datagram_octets();
        let symbols_max = self.burst_symbols();
        let turn = self.turns.group.get_mut(position)?;
        let (first_esi, count) = turn.next_run(symbols_max);
        let at = self.pacer.take(now, octets * u64::from(count));
        self.pacer.grant_unicast(octets * u64::from(count));
        self.group_datagrams += u64::from(count);
        let burst = make_burst(turn, at, Destination::Group, first_esi, count);
        turn.sent += count;
        let (over, plan) = (turn.sent == turn.total(), turn.plan);
        self.carousel(plan.block.stream).note_sent(plan.block.number, count, at);
        if over {
            if plan.sources > 0 && plan.block.stream == Stream::Image {
                self.repair.on_turn_over(plan.block.number, at);
            }
            self.turns.group.remove(position);
            self.turns.rotation = position;
            self.finish_turn(now, burst.turn);
        } else {
            self.turns.rotation = position + 1;
        }
        Some(burst)
    }

    fn unicast_burst(&mut self, now: Instant, position: usize, shared: bool) -> Option<Burst> {
        let octets = self.datagram_octets();
        let symbols_max = self.burst_symbols();
        let turn = self.turns.unicast.get_mut(position)?;
        let receiver = turn.to?;
        let (first_esi, count) = turn.next_run(symbols_max);
        let at = self.pacer.take(now, octets * u64::from(count));
        if shared {
            // They share with those who cannot hear the group, and delay others by less.
            let times = if self.slowness.is_aside(now, receiver) { ASIDE_TIMES } else { 1 };
            self.pacer.spend_unicast(octets * u64::from(count) * times);
        }
        let address = self.roster.member(receiver)?.address;
        let burst = make_burst(turn, at, Destination::Unicast(address), first_esi, count);
        turn.sent += count;
        let (over, block) = (turn.sent == turn.total(), turn.plan.block);
        self.unicast.note_sent(receiver, block, count, at);
        if over {
            self.turns.unicast.remove(position);
            self.finish_turn(now, burst.turn);
        }
        Some(burst)
    }

    fn finish_turn(&mut self, now: Instant, turn: TurnId) {
        self.events.push_back(Event::TurnOver(turn));
        // When the last turn is handed out the group is told at once that nothing follows; before
        // that each turn's last symbol says so of its block.
        if self.turns.is_empty() {
            self.sync_soon();
        }
        self.settle(now);
    }
}

const fn make_burst(
    turn: &Turn,
    at: Instant,
    to: Destination,
    first_esi: u32,
    count: u32,
) -> Burst {
    Burst {
        at,
        to,
        turn: turn.id,
        block: turn.plan.block,
        count,
        first_esi,
        turn_count: turn.plan.count,
        stored_len: turn.plan.stored_len,
        still_to_come: turn.total() - turn.sent - 1,
        sources: turn.plan.sources,
    }
}

/// A microburst in a switch costs each of them little.
const INTERLEAVED_TURNS: usize = 4;
/// Reading, hashing and coding a block takes a few milliseconds; at 10 Gbit/s it is sent in one.
const TURNS_AHEAD_MAX: usize = 16;
/// The largest blocks are eight times as large as the usual ones.
const TURNS_AHEAD_OCTETS: u64 = 32 << 20;
/// Unicast is slower, and a new NEED changes what is wanted.
const UNICAST_TURNS_AHEAD: usize = 4;
/// An octet to a receiver that is aside costs so many of unicast's share: half of it is theirs.
const ASIDE_TIMES: u64 = 2;
/// The index is small and all wait for it: it goes out with more repair than loss needs.
const INDEX_REPAIRS_MIN: u32 = 4;
