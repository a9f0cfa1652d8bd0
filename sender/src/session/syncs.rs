//! When the group is told what is planned, and who is polled.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{ReceiverId, Stream},
    timing::{GRTT_MIN, feedback_window, group_log2, quantise_rtt},
    wire::{Message, Poll, SenderState, Sync},
};

use super::{Destination, Session, repair::WINDOW_BLOCKS};

/// Keeps the times of SYNC.
#[derive(Debug)]
pub(super) struct SyncTimer {
    last_at: Instant,
    soon: bool,
    /// Between SYNCs while nothing is sent.
    interval: Duration,
    index_at: Instant,
    /// The index is spoken of with every SYNC until then.
    index_busy_until: Instant,
    /// For each stream, when those who do not hear the group are told again.
    unicast_at: [Instant; 2],
    /// `T_fb`, as it was told last.
    feedback_window: Duration,
    poll: Poll,
    last_poll_id: u16,
    polled_at: Instant,
    /// When to poll again at the latest.
    poll_at: Instant,
    /// Of the last SYNCs: send time, and how many symbols the group had been sent by then.
    history: VecDeque<(u64, u64)>,
}

impl SyncTimer {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            last_at: now,
            soon: false,
            interval: SYNC_INTERVAL,
            index_at: now,
            index_busy_until: now,
            unicast_at: [now; 2],
            feedback_window: Duration::ZERO,
            poll: Poll { mask_bits: 0, id: 0, nonce: 0 },
            last_poll_id: 0,
            polled_at: now,
            poll_at: now,
            history: VecDeque::new(),
        }
    }

    /// How many symbols the group had been sent by the SYNC that went out at `time_micros`.
    pub(super) fn sent_by(&self, time_micros: u64) -> Option<u64> {
        let position = self.history.binary_search_by_key(&time_micros, |(time, _)| *time).ok()?;
        self.history.get(position).map(|(_, sent)| *sent)
    }

    fn remember(&mut self, time_micros: u64, sent: u64) {
        if self.history.back().is_some_and(|(time, _)| *time >= time_micros) {
            return;
        }
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back((time_micros, sent));
    }
}

impl Session {
    /// The plan changed: receivers hear of it within one GRTT.
    pub(super) const fn sync_soon(&mut self) {
        self.syncs.soon = true;
    }

    pub(super) fn sync_at(&self) -> Instant {
        if self.first_join_at.is_none() && self.state == SenderState::Gathering {
            return self.announce_at;
        }
        let wait = match (self.syncs.soon, self.state) {
            // Thousands join within seconds, each of whom WELCOME tells the same.
            (true, SenderState::Gathering) => SYNC_INTERVAL_SENDING,
            (true, _) => self.clock.grtt().clamp(GRTT_MIN, SYNC_INTERVAL_SENDING),
            (false, SenderState::Sending) => SYNC_INTERVAL_SENDING,
            (false, _) => self.syncs.interval,
        };
        self.syncs.last_at + wait
    }

    pub(super) fn sync_when_due(&mut self, now: Instant) {
        let silent = self.first_join_at.is_none() && self.state == SenderState::Gathering;
        if silent || self.state == SenderState::Closing || now < self.sync_at() {
            return;
        }
        self.syncs.last_at = now;
        if !self.syncs.soon {
            self.syncs.interval = (2 * self.syncs.interval).min(SYNC_INTERVAL);
        }
        self.syncs.soon = false;
        self.governor.on_told(self.group_datagrams);
        self.acknowledge_to_group();
        if !self.index.is_idle() || self.turns.has_stream(Stream::Index) {
            self.syncs.index_busy_until = now + INDEX_SYNCS_FOR;
        }
        if now < self.syncs.index_busy_until || now >= self.syncs.index_at {
            self.syncs.index_at = now + SYNC_INTERVAL;
            let sync = self.sync(now, Stream::Index);
            self.broadcast(now, Stream::Index, sync);
        }
        let sync = self.sync(now, Stream::Image);
        self.broadcast(now, Stream::Image, sync);
    }

    /// To the group, and now and then to those who do not hear it.
    fn broadcast(&mut self, now: Instant, stream: Stream, sync: Sync) {
        let unicast_at = &mut self.syncs.unicast_at[stream as usize];
        if now >= *unicast_at {
            *unicast_at = now + UNICAST_SYNC_INTERVAL;
            let deaf = self.roster.active().filter(|member| member.no_multicast);
            let addresses: Vec<_> = deaf.map(|member| member.address).collect();
            for address in addresses {
                let message = Message::Sync(sync.clone());
                self.send_of(Destination::Unicast(address), stream, message, 0);
            }
        }
        self.send_of(Destination::Group, stream, Message::Sync(sync), 0);
    }

    fn sync(&mut self, now: Instant, stream: Stream) -> Sync {
        let (covers_first, covers_end, planned) = self.carousel(stream).planned(now);
        let group_log2 = group_log2(self.roster.active_count());
        let window = feedback_window(group_log2, self.clock.grtt(), self.leisure());
        self.syncs.feedback_window = window;
        let time_micros = self.clock.micros(now.max(self.pacer.last_at()));
        self.syncs.remember(time_micros, self.group_datagrams);
        Sync {
            time_micros,
            grtt: quantise_rtt(self.clock.grtt()),
            group_log2,
            feedback_window_ms: u16::try_from(window.as_millis()).unwrap_or(u16::MAX),
            rate_kilobits: u32::try_from(self.pacer.rate() / 1000).unwrap_or(u32::MAX),
            repair_share: self.repair_share(),
            state: self.state,
            poll: self.syncs.poll,
            covers_first,
            covers_end,
            planned,
        }
    }

    /// Ends a control period: sets the rate and polls a sample of the group.
    pub(super) fn govern(&mut self, now: Instant) {
        let settling = self.feedback_window() + 2 * self.clock.grtt();
        self.repair.handle_timeout(now, settling);
        if let Some(loss) = self.governor.lasting_loss(now) {
            self.repair.expect_loss(loss);
        }
        let (grtt, pacer) = (self.clock.grtt(), &mut self.pacer);
        if self.governor.handle_timeout(now, grtt, || pacer.uptake(now)) {
            self.sync_soon();
            self.pacer.set_rate(self.governor.rate());
        }
        if self.governor.poll_is_due(self.group_datagrams) || now >= self.syncs.poll_at {
            self.sync_soon();
            let since = now.saturating_duration_since(self.syncs.polled_at).min(POLL_INTERVAL);
            self.syncs.polled_at = now;
            self.syncs.poll_at = now + POLL_INTERVAL;
            self.poll_sample(since);
        }
    }

    pub(super) fn poll_while_gathering(&mut self, now: Instant) {
        if now >= self.syncs.poll_at {
            self.syncs.polled_at = now;
            self.syncs.poll_at = now + SYNC_INTERVAL;
            self.poll_sample(SYNC_INTERVAL);
        }
    }

    /// About 64 receivers a second are asked to report.
    fn poll_sample(&mut self, period: Duration) {
        let least = if self.governor.is_starting() { POLL_ANSWERS_STARTING } else { 1.0 };
        let answers = (POLL_ANSWERS_PER_SECOND * period.as_secs_f64()).max(least);
        let ratio = f64::from(self.roster.active_count()) / answers;
        let mask_bits = (0..14).find(|bits| f64::from(1u32 << bits) >= ratio).unwrap_or(14);
        let nonce = u32::try_from(self.prng.bits() >> 32).unwrap_or(0);
        self.syncs.poll = Poll { mask_bits, id: self.next_poll_id(), nonce };
    }

    /// Asks one receiver whether it is still there.
    pub(super) fn poll_one(&mut self, now: Instant, id: ReceiverId) {
        let Some(address) = self.roster.member(id).map(|member| member.address) else { return };
        let mut sync = self.sync(now, Stream::Image);
        sync.poll = Poll { mask_bits: 0, id: self.next_poll_id(), nonce: 0 };
        self.send(Destination::Unicast(address), Message::Sync(sync));
    }

    fn next_poll_id(&mut self) -> u16 {
        self.syncs.last_poll_id = self.syncs.last_poll_id.checked_add(1).unwrap_or(1);
        self.syncs.last_poll_id
    }

    /// `T_fb`, as receivers were told last.
    pub(super) const fn feedback_window(&self) -> Duration {
        self.syncs.feedback_window
    }

    /// How long answers may wait without holding anybody up: half a window of [`Self::repair`], or
    /// a part of what is left to send for the first time.
    fn leisure(&self) -> Duration {
        let blocks = (self.image.owed() / LEISURE_SHARE).min(WINDOW_BLOCKS / 2);
        self.pacer.time_for(u64::from(blocks) * self.image.layout().block_size())
    }

    /// Whether the session is waiting for nothing but words.
    pub(super) fn note_idleness(&mut self) {
        let idle = self.turns.is_empty()
            && self.unicast.is_idle()
            && (!self.has_listeners || (self.image.is_idle() && self.index.is_idle()));
        match (self.state, idle) {
            (SenderState::Sending, true) => {
                self.state = SenderState::Idle;
                self.syncs.soon = true;
                self.syncs.interval = SYNC_INTERVAL_SENDING;
            }
            (SenderState::Idle, false) => {
                self.state = SenderState::Sending;
                self.syncs.soon = true;
            }
            _ => {}
        }
    }
}

/// While symbols flow the plan changes all the time.
const SYNC_INTERVAL_SENDING: Duration = Duration::from_millis(10);
/// Otherwise, after a word soon and others at intervals that double up to this for whoever lost it,
/// SYNC shows that multicast works and measures round trips.
const SYNC_INTERVAL: Duration = Duration::from_millis(500);
/// Those who do not hear the group need the sender's clock, not its plan.
const UNICAST_SYNC_INTERVAL: Duration = Duration::from_millis(50);
/// Whoever lost the end of the index hears soon that no more of it comes.
const INDEX_SYNCS_FOR: Duration = Duration::from_secs(2);
/// Whatever the rate, somebody says so often that they are there.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Enough for the 0.95-quantile, whatever the size of the group.
const POLL_ANSWERS_PER_SECOND: f64 = 64.0;
/// The first few periods are short, and a sample of two or three may answer none of them.
const POLL_ANSWERS_STARTING: f64 = 16.0;
/// So much of the time that new blocks still take: when there are none left, answers are urgent.
const LEISURE_SHARE: u32 = 8;
/// Seconds of SYNCs while sending: a longer echo is not counted.
const HISTORY_MAX: usize = 1_024;
