//! Receivers that are far slower than all others: who they are, and that nobody waits for them.
//!
//! ```text
//!             gets through far less            it has done so for a second,
//!             than any other does              or lost much for five
//!  keeps up ──────────────────────► suspected ─────────────────────────────► detached, or dropped
//!     ▲ ▲           not so any more     │                                        │
//!     │ └───────────────────────────────┘                                        │
//!     └──── keeps up for long enough, or too few others are left ────────────────┘
//! ```
//!
//! Who is suspected or detached is *aside*: it counts neither for the rate (`samples` spares the
//! former, and does not hear of the latter) nor for r, and is sent what it needs by unicast
//! (`needs`). It is an active member all the same: in the end nobody is left to be spared its pace.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imgcast_common::id::ReceiverId;

use super::{
    Event, Member, MemberState, Session, Slow, SlowReceivers, floor::Keeping, samples::SPARED_PART,
    search::part,
};

/// Those who are aside, or may soon be.
#[derive(Debug, Default)]
pub(super) struct Slowness {
    watched: BTreeMap<ReceiverId, Watch>,
    detached: u32,
    /// The loss that half of the members do not exceed.
    median_loss: f64,
}

#[derive(Debug, Default)]
struct Watch {
    /// How long all its reports have said that it is far slower.
    slow: Option<(Span, Slow)>,
    /// How long it has been losing much.
    lossy: Option<Span>,
    is_detached: bool,
    /// Since when it has kept up again.
    keeps_up_since: Option<Instant>,
    /// How often it has come back.
    returns: u32,
}

/// From the first to the last time that something was seen.
#[derive(Clone, Copy, Debug)]
struct Span {
    since: Instant,
    seen: Instant,
}

impl Slowness {
    pub(super) const fn detached(&self) -> u32 {
        self.detached
    }

    pub(super) fn is_detached(&self, id: ReceiverId) -> bool {
        self.watched.get(&id).is_some_and(|watch| watch.is_detached)
    }

    /// Whether the others do not wait for this one now.
    pub(super) fn is_aside(&self, now: Instant, id: ReceiverId) -> bool {
        let suspected = |watch: &Watch| watch.slow.is_some_and(|(span, _)| span.is_fresh(now));
        self.watched.get(&id).is_some_and(|watch| watch.is_detached || suspected(watch))
    }

    /// Those who have been slow for long enough, the worst first, and why they are.
    fn due(&self, now: Instant, losses: &BTreeMap<ReceiverId, f64>) -> Vec<(ReceiverId, Slow)> {
        let due = |(id, watch): (&ReceiverId, &Watch)| {
            let slow = watch.slow.filter(|(span, _)| span.lasts(now, SLOW_FOR));
            let lossy = watch.lossy.filter(|span| span.lasts(now, LOSSY_FOR));
            let lossy = lossy.and_then(|_| losses.get(id)).map(|loss| Slow::Loss(*loss));
            let why = slow.map(|(_, why)| why).or(lossy)?;
            (!watch.is_detached).then_some((*id, why))
        };
        let mut due: Vec<_> = self.watched.iter().filter_map(due).collect();
        due.sort_by(|(_, one), (_, other)| gets(*one).total_cmp(&gets(*other)));
        due
    }

    /// Those who may come back: who has kept up for long, and who is too many, the fastest first.
    fn returning(
        &self,
        now: Instant,
        most: u32,
        slow: impl Fn(ReceiverId) -> f64,
    ) -> Vec<ReceiverId> {
        let detached = self.watched.iter().filter(|(_, watch)| watch.is_detached);
        let (mut back, mut left) = (Vec::new(), Vec::new());
        for (id, watch) in detached {
            let long = RETURN_AFTER * (1 << watch.returns.min(RETURNS_COUNTED));
            let keeps_up = watch.keeps_up_since.is_some_and(|since| now >= since + long);
            if keeps_up { back.push(*id) } else { left.push(*id) }
        }
        left.sort_by(|one, other| slow(*other).total_cmp(&slow(*one)));
        let too_many = left.len().saturating_sub(most as usize);
        back.extend(left.into_iter().take(too_many));
        back
    }
}

impl Session {
    /// A receiver that is not detached reported, and `samples` knows.
    pub(super) fn watch(&mut self, now: Instant, id: ReceiverId) {
        let rate = self.governor.rate();
        let Some((sample, is_spared)) = self.governor.samples().standing(id) else { return };
        if sample.at != now {
            return;
        }
        if !is_spared {
            if let Some(watch) = self.slowness.watched.get_mut(&id) {
                watch.slow = None;
            }
            return;
        }
        let through = part(rate, 1.0 - sample.misses());
        let why = if sample.is_host && sample.excess >= sample.loss {
            Slow::Host { takes: through, of: rate }
        } else {
            Slow::Path { carries: through, of: rate }
        };
        let watch = self.slowness.watched.entry(id).or_default();
        watch.slow = Some((Span::note(watch.slow.map(|(span, _)| span), now), why));
    }

    /// A detached receiver, which takes so many octets of the image in a second, reported.
    pub(super) fn watch_detached(
        &mut self,
        now: Instant,
        id: ReceiverId,
        keeping: Keeping,
        drain: u64,
    ) {
        let needed = part(self.governor.rate(), TAKES_ENOUGH);
        let takes = drain == 0 || self.on_the_wire(drain) * 8 >= needed;
        let loss_max = LOSS_MIN.max(self.slowness.median_loss * LOSS_RATIO / 2.0);
        let keeps_up = takes && keeping.network_loss + keeping.socket_loss <= loss_max;
        if let Some(watch) = self.slowness.watched.get_mut(&id) {
            watch.keeps_up_since = keeps_up.then(|| watch.keeps_up_since.unwrap_or(now));
        }
    }

    /// Finds out who is to be detached, or dropped, and who comes back.
    pub(super) fn review_slowness(&mut self, now: Instant) {
        let drops = match self.config.slow_receivers {
            SlowReceivers::Wait => return,
            SlowReceivers::Detach => false,
            SlowReceivers::Drop => true,
        };
        self.forget_finished();
        let listeners = u32::try_from(self.roster.listeners().count());
        let listeners = listeners.unwrap_or(u32::MAX);
        let gone = if drops { self.roster.count(MemberState::Dropped) } else { 0 };
        let part = u32::try_from(SPARED_PART).unwrap_or(u32::MAX);
        let most = ((listeners + gone) / part).max(1).saturating_sub(gone);
        // Somebody has to set the pace.
        let most = most.min(listeners.saturating_sub(1));
        let roster = &self.roster;
        let pace = |id| roster.member(id).and_then(|member| member.slow).map_or(1.0, gets);
        for id in self.slowness.returning(now, most, pace) {
            self.attach(id);
        }
        let losses = self.losses(now);
        let mut left = most.saturating_sub(self.slowness.detached);
        for (id, why) in self.slowness.due(now, &losses) {
            if left > 0 {
                left -= 1;
                self.detach(now, id, why, drops);
            }
        }
        self.governor.samples().spare(left);
    }

    /// Whoever is finished, lost, or hears no multicast any more, is slow in no way that counts.
    fn forget_finished(&mut self) {
        let roster = &mut self.roster;
        self.slowness.watched.retain(|id, _| {
            let Some(member) = roster.member_mut(*id) else { return false };
            let stays = member.state == MemberState::Active && !member.no_multicast;
            member.detached &= stays;
            stays
        });
        self.count_detached();
    }

    /// Notes who loses far more than the others; returns what they lose.
    fn losses(&mut self, now: Instant) -> BTreeMap<ReceiverId, f64> {
        let lost = |member: &Member| member.network_loss + member.socket_loss;
        let mut all: Vec<f64> = self.roster.listeners().map(lost).collect();
        let middle = all.len() / 2;
        let median = match all.len() {
            0 => 0.0,
            _ => *all.select_nth_unstable_by(middle, f64::total_cmp).1,
        };
        self.slowness.median_loss = median;
        let much = LOSS_MIN.max(LOSS_RATIO * median);
        let talks = |member: &&Member| now < member.heard_at + FRESH;
        let lossy = self.roster.listeners().filter(talks);
        let lossy = lossy.map(|member| (member.id, lost(member))).filter(|(_, loss)| *loss > much);
        let lossy: BTreeMap<ReceiverId, f64> = lossy.collect();
        for (id, watch) in &mut self.slowness.watched {
            watch.lossy = watch.lossy.filter(|_| lossy.contains_key(id));
        }
        for id in lossy.keys() {
            let watch = self.slowness.watched.entry(*id).or_default();
            watch.lossy = Some(Span::note(watch.lossy, now));
        }
        lossy
    }

    /// The others wait for this receiver no longer.
    fn detach(&mut self, now: Instant, id: ReceiverId, why: Slow, drops: bool) {
        self.governor.samples().forget(id);
        if let Some(member) = self.roster.member_mut(id) {
            member.slow = Some(why);
            member.detached = !drops;
        }
        if drops {
            self.slowness.watched.remove(&id);
            self.finish_member(now, id, MemberState::Dropped);
            self.eject(id);
            return;
        }
        if let Some(watch) = self.slowness.watched.get_mut(&id) {
            watch.is_detached = true;
            watch.keeps_up_since = None;
        }
        self.count_detached();
        self.events.push_back(Event::Detached(id));
    }

    /// A detached receiver is one like the others again.
    fn attach(&mut self, id: ReceiverId) {
        if let Some(watch) = self.slowness.watched.get_mut(&id) {
            *watch = Watch { returns: watch.returns + 1, ..Watch::default() };
        }
        if let Some(member) = self.roster.member_mut(id) {
            member.detached = false;
        }
        self.count_detached();
        self.events.push_back(Event::Detached(id));
    }

    fn count_detached(&mut self) {
        let detached = self.slowness.watched.values().filter(|watch| watch.is_detached).count();
        self.slowness.detached = u32::try_from(detached).unwrap_or(u32::MAX);
    }
}

impl Span {
    /// What began some time ago is seen again, or something new for the first time.
    fn note(known: Option<Self>, now: Instant) -> Self {
        let known = known.filter(|span| span.is_fresh(now));
        Self { since: known.map_or(now, |span| span.since), seen: now }
    }

    fn is_fresh(self, now: Instant) -> bool {
        now < self.seen + FRESH
    }

    fn lasts(self, now: Instant, time: Duration) -> bool {
        self.is_fresh(now) && self.seen >= self.since + time
    }
}

/// The share of what is sent that gets through to a receiver.
fn gets(slow: Slow) -> f64 {
    match slow {
        Slow::Host { takes: through, of } | Slow::Path { carries: through, of } => {
            through as f64 / of.max(1) as f64
        }
        Slow::Loss(share) => 1.0 - share,
    }
}

/// Ten reports of a host that is behind, five of any other: no stall of a moment.
const SLOW_FOR: Duration = Duration::from_secs(1);
/// Bursts of loss are over by then.
const LOSSY_FOR: Duration = Duration::from_secs(5);
/// Less loss than this costs the others little …
const LOSS_MIN: f64 = 0.05;
/// … as does what most of them lose nearly as well.
const LOSS_RATIO: f64 = 4.0;
/// Small groups are asked five times a second, and whoever lacks something speaks as often.
const FRESH: Duration = Duration::from_secs(2);
/// Whoever takes this share of the rate holds nobody up for long.
const TAKES_ENOUGH: f64 = 0.9;
/// Who keeps up for so long comes back, …
const RETURN_AFTER: Duration = Duration::from_secs(2);
/// … and after each return for twice as long, up to a minute: it may have kept up only because
/// little was sent.
const RETURNS_COUNTED: u32 = 5;
