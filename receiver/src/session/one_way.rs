//! Taking an image from a sender that hears nothing: no JOIN, no NEED, no DONE. What comes is
//! taken, pass for pass; what is still lacking at the end is told.

use std::time::{Duration, Instant};

use imgcast_common::{bits::BitSet, id::Stream, layout::Layout};

use super::{Failure, Phase, Session, Verdict};

/// What is known of a one-way session while it lasts.
#[derive(Debug)]
pub(super) struct OneWay {
    /// Passes of which something came, by the turn that its symbols are of.
    heard: BitSet,
    /// Symbols were dropped because the memory was full of blocks that lack others.
    was_full: bool,
    /// END came: nothing more will be sent.
    has_ended: bool,
    /// When to look next at what is lost.
    look_at: Instant,
}

/// What a one-way session left behind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lack {
    /// Blocks that are missing.
    pub blocks: u32,
    /// Octets of the image in them.
    pub bytes: u64,
    /// The first runs of them: first block, and how many.
    pub runs: Vec<(u32, u32)>,
    /// Symbols that they need at least, as far as anything of them arrived: blocks, symbols.
    pub begun: (u32, u64),
    /// Whether the index is missing as well: without it no block can be verified.
    pub index: bool,
    /// Passes of which something was heard.
    pub passes_heard: u32,
    /// Passes that were announced.
    pub passes: u32,
    /// Share of the group's datagrams that was lost since the first one came.
    pub loss_percent: u8,
    /// Whether there was no room for some of what came.
    pub was_full: bool,
    /// How it ended.
    pub end: LackEnd,
}

/// How a one-way session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LackEnd {
    /// The sender said that all is sent.
    Sent,
    /// Nothing came from the group any more.
    Silence,
    /// The sender was stopped; these were its words.
    Stopped(String),
}

impl OneWay {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: BitSet::new(PASSES_MAX), was_full: false, has_ended: false, look_at: now }
    }

    /// A symbol of the image came.
    pub(super) fn on_symbol(&mut self, turn: u8, verdict: Verdict) {
        self.heard.insert(turn.into());
        self.was_full |= verdict == Verdict::NoRoom;
    }

    pub(super) const fn on_end(&mut self) {
        self.has_ended = true;
    }

    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl Session {
    /// Whether nothing is to be said in this session.
    pub(super) const fn is_one_way(&self) -> bool {
        self.one_way.is_some()
    }

    /// Takes part without a word.
    pub(super) fn begin_listening(&mut self, now: Instant) {
        let Some(state) = self.offer.as_ref().map(|offer| offer.announce.state) else { return };
        self.phase = Phase::Member;
        self.progress_at = now;
        self.contact.on_welcome(now, state);
        self.asking.begin_session(now, &mut self.prng, 0.0);
    }

    /// Looks after what is lost, which nobody else asks for here; as long as something comes from
    /// the group it goes on.
    pub(super) fn watch_passes(&mut self, now: Instant) {
        let Some(one_way) = self.one_way.as_mut() else { return };
        self.progress_at = self.progress_at.max(self.contact.group_at());
        if now >= one_way.look_at {
            one_way.look_at = now + LOOK_INTERVAL;
            if let Some((network_loss, _)) = self.loss.report() {
                self.asking.note_loss(network_loss);
            }
        }
    }

    /// Gives up when everything was sent, all that came is judged, and some of it is not there.
    pub(super) fn end_lacking(&mut self, now: Instant) {
        let over = self.one_way.as_ref().is_some_and(OneWay::has_ended);
        if over && matches!(self.phase, Phase::Member) {
            self.check_what_is_over(now, Stream::Index);
            self.check_what_is_over(now, Stream::Image);
        }
        if over
            && matches!(self.phase, Phase::Member)
            && self.is_all_judged()
            && self.image.as_ref().is_some_and(|image| !image.verified().is_full())
        {
            let lacking = self.lacking(LackEnd::Sent);
            self.fail(now, lacking);
        }
    }

    /// What is missing, as the reason to give up.
    pub(super) fn lacking(&mut self, end: LackEnd) -> Failure {
        let passes = self.offer.as_ref().map_or(0, |offer| offer.announce.receivers_expected);
        let one_way = self.one_way.as_ref();
        let heard = one_way.map_or(0, |one_way| one_way.heard.count());
        let was_full = one_way.is_some_and(|one_way| one_way.was_full);
        let percent = (self.loss.overall() * 100.0).round().clamp(0.0, 100.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "≤ 100")]
        let mut lack = Lack {
            blocks: 0,
            bytes: 0,
            runs: Vec::new(),
            begun: (0, 0),
            index: !self.index_known,
            passes_heard: heard,
            passes,
            loss_percent: percent as u8,
            was_full,
            end,
        };
        if let Some(image) = &self.image {
            let mut missing = BitSet::full(image.layout().blocks());
            image.verified().iter().for_each(|block| {
                missing.remove(block);
            });
            lack.blocks = missing.count();
            lack.bytes = octets(image.layout(), &missing);
            lack.runs = missing.runs().take(RUNS_TOLD_MAX).collect();
            for (_, partial) in image.partial() {
                lack.begun.0 += 1;
                lack.begun.1 += u64::from(partial.deficit());
            }
        }
        Failure::Lacking(Box::new(lack))
    }
}

fn octets(layout: &Layout, blocks: &BitSet) -> u64 {
    blocks.iter().map(|block| u64::from(layout.block_len(block))).sum()
}

/// Turn counts have 8 bits.
const PASSES_MAX: u32 = 256;
/// Often enough for people.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// They fit on a line.
const RUNS_TOLD_MAX: usize = 4;
