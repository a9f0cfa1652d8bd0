//! How many repair symbols go with the source symbols at once, unasked: `r`.
//!
//! Watched is φ, the share of a window's 32 blocks of which at least one receiver reported a
//! deficit. Suppression does not blur it, and it needs neither the number of receivers nor their
//! loss: kept between a quarter and 60 %, r costs no more than the repair that it replaces, and
//! the feedback does not grow with the group. Until the first window has been judged, the loss
//! that receivers report stands in.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Decides r, as a share of S.
#[derive(Debug)]
pub(super) struct RepairController {
    /// Repair symbols for a block of `symbols_full` source symbols.
    repairs: u32,
    symbols_full: u32,
    windows: VecDeque<Window>,
    /// The window that each recently sent block belongs to.
    window_of: BTreeMap<u32, u64>,
    next_window: u64,
    has_judged: bool,
}

#[derive(Debug)]
struct Window {
    number: u64,
    /// r when it began; judged only if that is still in force.
    repairs: u32,
    blocks: u32,
    deficits: BTreeMap<u32, u32>,
    began_at: Instant,
    last_sent_at: Option<Instant>,
    pending_turns: u32,
}

impl RepairController {
    pub(super) fn new(symbols_full: u32) -> Self {
        Self {
            repairs: 0,
            symbols_full: symbols_full.max(1),
            windows: VecDeque::new(),
            window_of: BTreeMap::new(),
            next_window: 0,
            has_judged: false,
        }
    }

    /// Receivers lose such a share of what they are sent: until a window says what that takes, as
    /// many repair symbols go along as a block loses on average.
    pub(super) fn expect_loss(&mut self, loss: f64) {
        if self.has_judged {
            return;
        }
        let loss = loss.clamp(0.0, 0.5);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "≤ S")]
        let lost = (f64::from(self.symbols_full) * loss / (1.0 - loss)).round() as u32;
        // What changes with every report is not r, and would keep any window from being judged.
        if lost > self.repairs * 5 / 4 || lost < self.repairs / 2 {
            self.repairs = lost.min(self.symbols_full / 2);
        }
    }

    /// Repair symbols for a block of so many source symbols.
    pub(super) fn repairs_for(&self, source_symbols: u32) -> u32 {
        let repairs = u64::from(self.repairs) * u64::from(source_symbols);
        u32::try_from(repairs.div_ceil(u64::from(self.symbols_full))).unwrap_or(0)
    }

    /// r in 65,536ths of S.
    pub(super) fn share(&self) -> u16 {
        let share = u64::from(self.repairs) * 65_536 / u64::from(self.symbols_full);
        u16::try_from(share).unwrap_or(u16::MAX)
    }

    /// A whole turn of `block` begins.
    pub(super) fn on_turn(&mut self, block: u32, now: Instant) {
        let open = self
            .windows
            .back()
            .is_some_and(|window| window.blocks < WINDOW_BLOCKS && window.repairs == self.repairs);
        if !open {
            self.windows.push_back(Window::new(self.next_window, self.repairs, now));
            self.next_window += 1;
            if self.windows.len() > WINDOWS_MAX {
                self.drop_first();
            }
        }
        if let Some(window) = self.windows.back_mut() {
            window.blocks += 1;
            window.pending_turns += 1;
            self.window_of.insert(block, window.number);
        }
    }

    /// The last symbol of a whole turn of `block` leaves at `at`.
    pub(super) fn on_turn_over(&mut self, block: u32, at: Instant) {
        if let Some(window) = self.window_mut(block) {
            window.pending_turns = window.pending_turns.saturating_sub(1);
            window.last_sent_at = window.last_sent_at.max(Some(at));
        }
    }

    /// A receiver that joined at `joined_at` reported a deficit.
    pub(super) fn on_deficit(&mut self, block: u32, deficit: u32, joined_at: Instant) {
        let Some(window) = self.window_mut(block) else { return };
        if joined_at > window.began_at {
            return;
        }
        let worst = window.deficits.entry(block).or_default();
        *worst = deficit.max(*worst);
        if let Some(repairs) = window.repairs_lacking() {
            // What is still to come can only confirm it.
            self.has_judged = true;
            self.repairs = self.repairs.max(repairs.min(self.symbols_full / 2));
        }
    }

    /// Judges the windows whose reports are in: `settling` after their last symbol.
    pub(super) fn handle_timeout(&mut self, now: Instant, settling: Duration) {
        while let Some(window) = self.windows.front() {
            let stale = window.repairs != self.repairs;
            let full = window.blocks == WINDOW_BLOCKS;
            let settled = window.last_sent_at.is_some_and(|at| now >= at + settling);
            if window.pending_turns > 0 || !settled || !(full || stale) {
                return;
            }
            let reported = u32::try_from(window.deficits.len()).unwrap_or(WINDOW_BLOCKS);
            self.drop_first();
            if !stale {
                self.has_judged = true;
                self.lower(reported);
            }
        }
    }

    /// Deficits of so many blocks of a window were reported.
    fn lower(&mut self, reported: u32) {
        if reported == 0 {
            self.repairs -= (self.repairs / 8).max(1).min(self.repairs);
        } else if reported * 100 / WINDOW_BLOCKS < 25 {
            self.repairs = self.repairs.saturating_sub(1);
        }
    }

    fn window_mut(&mut self, block: u32) -> Option<&mut Window> {
        let number = *self.window_of.get(&block)?;
        self.windows.iter_mut().find(|window| window.number == number)
    }

    fn drop_first(&mut self) {
        if let Some(window) = self.windows.pop_front() {
            self.window_of.retain(|_, number| *number != window.number);
        }
    }
}

impl Window {
    const fn new(number: u64, repairs: u32, began_at: Instant) -> Self {
        Self {
            number,
            repairs,
            blocks: 0,
            deficits: BTreeMap::new(),
            began_at,
            last_sent_at: None,
            pending_turns: 0,
        }
    }

    /// What r should have been, if deficits of so many blocks were reported that it was too low: as
    /// much higher as half of these took.
    fn repairs_lacking(&self) -> Option<u32> {
        let reported = u32::try_from(self.deficits.len()).unwrap_or(WINDOW_BLOCKS);
        if reported * 100 / WINDOW_BLOCKS <= 60 {
            return None;
        }
        let mut worst: Vec<u32> = self.deficits.values().copied().collect();
        worst.sort_unstable();
        Some(self.repairs + worst.get(worst.len() / 2).copied().unwrap_or(1).max(1))
    }
}

/// Enough for φ to mean something, few enough to react within a second.
pub(super) const WINDOW_BLOCKS: u32 = 32;
/// Windows whose reports may still be on their way.
const WINDOWS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one window, with `deficits` reported of its first blocks, and judges it.
    fn window(controller: &mut RepairController, now: &mut Instant, deficits: &[u32]) {
        for block in 0..WINDOW_BLOCKS {
            controller.on_turn(block, *now);
            controller.on_turn_over(block, *now);
        }
        for (block, deficit) in (0..).zip(deficits) {
            controller.on_deficit(block, *deficit, *now);
        }
        *now += Duration::from_secs(1);
        controller.handle_timeout(*now, Duration::from_millis(10));
    }

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn r_jumps_to_the_median_deficit_and_then_sinks_slowly() {
        let (mut controller, mut now) = (RepairController::new(745), start());
        assert_eq!(controller.repairs_for(745), 0);
        window(&mut controller, &mut now, &[9; 32]);
        assert_eq!(controller.repairs_for(745), 9);
        assert_eq!(controller.repairs_for(100), 2);
        window(&mut controller, &mut now, &[1; 14]);
        assert_eq!(controller.repairs_for(745), 9, "44 % is where it should be");
        window(&mut controller, &mut now, &[1; 3]);
        assert_eq!(controller.repairs_for(745), 8);
        for _ in 0..8 {
            window(&mut controller, &mut now, &[]);
        }
        assert_eq!(controller.repairs_for(745), 0);
    }

    #[test]
    fn most_of_a_window_is_enough_to_raise_r_and_what_follows_raises_it_further() {
        let (mut controller, now) = (RepairController::new(745), start());
        (0..20).for_each(|block| controller.on_turn(block, now));
        (0..19).for_each(|block| controller.on_deficit(block, 4, now));
        assert_eq!(controller.repairs_for(745), 0, "59 %");
        controller.on_deficit(19, 4, now);
        assert_eq!(controller.repairs_for(745), 4);
        (20..40).for_each(|block| controller.on_turn(block, now));
        (0..20).for_each(|block| controller.on_deficit(block, 9, now));
        assert_eq!(controller.repairs_for(745), 9, "they were sent without any");
        (20..40).for_each(|block| controller.on_deficit(block, 2, now));
        assert_eq!(controller.repairs_for(745), 9, "these with four, and six would have done");
        (20..40).for_each(|block| controller.on_deficit(block, 8, now));
        assert_eq!(controller.repairs_for(745), 12);
    }

    #[test]
    fn the_loss_that_receivers_report_counts_until_a_window_is_judged() {
        let (mut controller, mut now) = (RepairController::new(745), start());
        controller.expect_loss(0.05);
        assert_eq!(controller.repairs_for(745), 39);
        controller.expect_loss(0.04);
        assert_eq!(controller.repairs_for(745), 39, "as good as the same");
        controller.expect_loss(0.01);
        assert_eq!(controller.repairs_for(745), 8);
        window(&mut controller, &mut now, &[4; 32]);
        controller.expect_loss(0.5);
        assert_eq!(controller.repairs_for(745), 12);
    }

    #[test]
    fn r_never_exceeds_half_of_the_block() {
        let (mut controller, mut now) = (RepairController::new(100), start());
        for _ in 0..5 {
            window(&mut controller, &mut now, &[60; 32]);
        }
        assert_eq!(controller.repairs_for(100), 50);
    }

    #[test]
    fn who_joined_later_does_not_count() {
        let (mut controller, mut now) = (RepairController::new(745), start());
        for block in 0..WINDOW_BLOCKS {
            controller.on_turn(block, now);
            controller.on_turn_over(block, now);
        }
        let joined_at = now + Duration::from_millis(1);
        for block in 0..WINDOW_BLOCKS {
            controller.on_deficit(block, 50, joined_at);
        }
        now += Duration::from_secs(1);
        controller.handle_timeout(now, Duration::ZERO);
        assert_eq!(controller.repairs_for(745), 0);
    }

    #[test]
    fn a_window_sent_with_another_r_is_not_judged() {
        let (mut controller, mut now) = (RepairController::new(745), start());
        for block in 0..WINDOW_BLOCKS * 2 {
            controller.on_turn(block, now);
            controller.on_turn_over(block, now);
        }
        for block in 0..WINDOW_BLOCKS * 2 {
            controller.on_deficit(block, 9, now);
        }
        now += Duration::from_secs(1);
        controller.handle_timeout(now, Duration::ZERO);
        assert_eq!(controller.repairs_for(745), 9, "the second window was sent with r = 0 too");
    }
}
