//! Whether the group is heard, and whether the sender is there at all.

use std::time::{Duration, Instant};

use imgcast_common::{
    id::Stream,
    wire::{Abort, AbortReason, SenderState},
};

use super::{
    Event, Failure, LackEnd, Notice, Outcome, Phase, Session, Via, is_group_counter,
    offers::OFFER_FORGOTTEN,
};

/// When what was heard last.
#[derive(Debug)]
pub(super) struct Contact {
    began_at: Instant,
    heard_at: Instant,
    group_at: Instant,
    state: SenderState,
    no_multicast: bool,
    /// Whether the group was heard in this session.
    was_heard: bool,
    /// Since when the group is heard again.
    recovering: Option<Instant>,
    /// When the memberships were last told to switches.
    renewed_at: Instant,
    orphaned: Option<Orphaned>,
    /// Whether another image of the same name was told of.
    told_of_other: bool,
}

#[derive(Debug)]
struct Orphaned {
    since: Instant,
    /// The sender's last words; `None` if it just fell silent.
    last_words: Option<String>,
    /// Whether these were that its image is not any more what it announced.
    lost_image: bool,
    /// When another session that was heard before is forgotten, unless it is heard again.
    alone_at: Option<Instant>,
}

impl Orphaned {
    const fn new(since: Instant, last_words: Option<String>) -> Self {
        Self { since, last_words, lost_image: false, alone_at: None }
    }
}

impl Contact {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            began_at: now,
            heard_at: now,
            group_at: now,
            state: SenderState::Gathering,
            no_multicast: false,
            was_heard: false,
            recovering: None,
            renewed_at: now,
            orphaned: None,
            told_of_other: false,
        }
    }

    /// A session was chosen.
    pub(super) fn begin_session(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    pub(super) const fn on_group_joined(&mut self, now: Instant) {
        self.group_at = now;
    }

    pub(super) fn on_welcome(&mut self, now: Instant, state: SenderState) {
        self.state = state;
        self.heard_at = now;
        self.group_at = now;
        self.orphaned = None;
    }

    pub(super) const fn on_state(&mut self, state: SenderState) {
        self.state = state;
    }

    /// The session was heard of on the rendezvous group.
    pub(super) const fn on_announce(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The session is over, or does not take us any more.
    pub(super) fn orphan(&mut self, now: Instant) {
        self.orphaned.get_or_insert(Orphaned::new(now, None));
    }

    /// Something is lacking that was not before: whatever the sender said last, it is waited for
    /// another one from now on.
    pub(super) const fn lack(&mut self, now: Instant) {
        self.began_at = now;
        if let Some(orphaned) = &mut self.orphaned {
            orphaned.since = now;
        }
    }

    /// Whether the sender said that the image is gone where it was.
    pub(super) fn has_lost_image(&self) -> bool {
        self.orphaned.as_ref().is_some_and(|orphaned| orphaned.lost_image)
    }

    pub(super) const fn is_orphaned(&self) -> bool {
        self.orphaned.is_some()
    }

    /// Whether the session said that it is over.
    pub(super) fn is_over(&self) -> bool {
        self.orphaned.as_ref().is_some_and(|orphaned| orphaned.last_words.is_some())
    }

    /// Whether another image of the same name is to be told of: once is enough.
    pub(super) const fn tells_of_other(&mut self) -> bool {
        !std::mem::replace(&mut self.told_of_other, true)
    }

    /// Whether nothing was heard of the session for so long that it must be gone.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now >= self.silent_at()
    }

    /// Since when that will be so if nothing comes.
    pub(super) fn silent_at(&self) -> Instant {
        self.heard_at + SENDER_SILENCE
    }

    pub(super) const fn state(&self) -> SenderState {
        self.state
    }

    pub(super) const fn no_multicast(&self) -> bool {
        self.no_multicast
    }

    /// When the group was heard last.
    pub(super) const fn group_at(&self) -> Instant {
        self.group_at
    }

    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard_at)
    }
}

impl Session {
    /// Something came from the session.
    pub(super) fn note_contact(&mut self, now: Instant, via: Via, counter: u64) {
        self.note_contacts(now, via, counter, 1);
    }

    /// The same for datagrams with the counters `first + i` for every bit `i` of `arrived`.
    pub(super) fn note_contacts(&mut self, now: Instant, via: Via, first: u64, arrived: u64) {
        self.contact.heard_at = now;
        let silent = self.contact.orphaned.as_ref().is_some_and(|it| it.last_words.is_none());
        if silent && matches!(self.phase, Phase::Member) {
            self.contact.orphaned = None;
            self.events.push_back(Event::Notice(Notice::SenderBack));
            self.asking.attend();
        }
        if via == Via::Group && is_group_counter(first) {
            if self.contact.no_multicast && self.contact.recovering.is_none() {
                self.contact.recovering = Some(now);
                self.loss.resume(first);
            }
            self.loss.on_datagrams(first, arrived);
            self.contact.group_at = now;
            self.contact.was_heard = true;
        }
    }

    /// END or ABORT: without the whole image another session has to bring the rest.
    pub(super) fn on_over(&mut self, now: Instant, text: &str) {
        match self.phase {
            Phase::Member | Phase::Joining(_) | Phase::Flushing => {
                let known = self.contact.orphaned.as_ref();
                if known.is_none_or(|orphaned| orphaned.last_words.is_none()) {
                    let last_words = Some(text.to_owned());
                    self.contact.orphaned = Some(Orphaned::new(now, last_words));
                    let notice = Notice::SessionOver(text.to_owned());
                    self.events.push_back(Event::Notice(notice));
                }
            }
            Phase::Parting(_) => self.part_unheard(),
            _ => {}
        }
    }

    /// ABORT: where it is for the image's sake, starting the sender again would bring nothing.
    pub(super) fn on_abort(&mut self, now: Instant, abort: &Abort) {
        self.on_over(now, &abort.text);
        if abort.reason == AbortReason::Image
            && let Some(orphaned) = &mut self.contact.orphaned
        {
            orphaned.lost_image = true;
            orphaned.alone_at = Some(now + OFFER_FORGOTTEN);
        }
    }

    /// Gives up when the image is gone at the sender, no other one offers it, and all that came or
    /// was found is judged: it may be everything.
    pub(super) fn end_without_image(&mut self, now: Instant) {
        let orphaned = self.contact.orphaned.as_ref().filter(|orphaned| orphaned.lost_image);
        let Some(text) = orphaned.and_then(|orphaned| orphaned.last_words.clone()) else { return };
        self.check_what_is_over(now, Stream::Index);
        self.check_what_is_over(now, Stream::Image);
        let has_all =
            self.index_known && self.image.as_ref().is_some_and(|it| it.verified().is_full());
        if matches!(self.phase, Phase::Member | Phase::Joining(_))
            && !has_all
            && self.is_all_judged()
            && !self.is_offered_elsewhere(now)
        {
            self.finish(Outcome::Failed(Failure::ImageGone(text)));
        }
    }

    /// Looks after group, sender and progress.
    pub(super) fn watch(&mut self, now: Instant) {
        if self.contact.is_silent(now) && !self.contact.is_orphaned() {
            self.contact.orphan(now);
            self.events.push_back(Event::Notice(Notice::SenderSilent));
        }
        self.watch_passes(now);
        if let Some(orphaned) = &mut self.contact.orphaned {
            orphaned.alone_at = orphaned.alone_at.filter(|at| now < *at);
            self.look_again(now);
        }
        if self.give_up_without_sender(now) {
            return;
        }
        if self.contact.state == SenderState::Gathering {
            self.progress_at = now;
        }
        let timeout = self.config.receive_timeout;
        if timeout.is_some_and(|timeout| now >= self.progress_at + timeout)
            && !self.contact.is_orphaned()
        {
            let failure =
                if self.is_one_way() { self.lacking(LackEnd::Silence) } else { Failure::Stalled };
            self.fail(now, failure);
            return;
        }
        self.watch_group(now);
    }

    /// Gives up when there has been no sender for too long.
    pub(super) fn give_up_without_sender(&mut self, now: Instant) -> bool {
        let Some(timeout) = self.patience() else { return false };
        let since = match (&self.contact.orphaned, &self.phase) {
            (Some(orphaned), _) => self.waits_since(orphaned.since),
            (None, Phase::Joining(_)) => self.contact.began_at,
            (None, _) => return false,
        };
        if now < since + timeout {
            return false;
        }
        if self.has_everything() {
            self.begin_flush(now);
            return true;
        }
        let last_words = self.contact.orphaned.take().and_then(|it| it.last_words);
        let failure = match last_words {
            Some(text) if self.is_one_way() => self.lacking(LackEnd::Stopped(text)),
            None if self.is_one_way() => self.lacking(LackEnd::Silence),
            last_words => Failure::SenderGone(last_words),
        };
        self.leave(now, failure);
        true
    }

    /// Since when nothing has come of waiting without a sender: what is found on the target, or
    /// gets there, is as good as what comes.
    fn waits_since(&self, orphaned_since: Instant) -> Instant {
        let looks = self.image.as_ref().is_some_and(|image| !image.claimed().is_empty());
        let goes_on = looks || !self.writing.is_empty();
        if goes_on { orphaned_since.max(self.progress_at) } else { orphaned_since }
    }

    fn group_silence_max(&self) -> Duration {
        let floor = match self.contact.state {
            SenderState::Sending => GROUP_SILENCE_SENDING,
            _ => GROUP_SILENCE,
        };
        floor.max(5 * self.asking.window())
    }

    /// Switches that nobody asks for it forget who listens: they are told now and then.
    pub(super) fn refresh_when_due(&mut self, now: Instant) {
        if now >= self.refresh_at() {
            self.renew(now);
        }
    }

    pub(super) fn refresh_at(&self) -> Instant {
        self.contact.renewed_at + REFRESH
    }

    fn watch_group(&mut self, now: Instant) {
        self.refresh_when_due(now);
        if self.contact.is_over() {
            return;
        }
        let silent = now >= self.contact.group_at + self.group_silence_max();
        if silent && self.contact.recovering.is_some() {
            self.contact.recovering = None;
        }
        if silent && !self.contact.no_multicast {
            self.contact.no_multicast = true;
            let any_more = self.contact.was_heard;
            self.events.push_back(Event::Notice(Notice::NoMulticast { any_more }));
            self.asking.report_soon(now, &mut self.prng);
            self.renew(now);
        } else if self.contact.no_multicast {
            let recovered = self.contact.recovering.filter(|since| now >= *since + RECOVERY);
            if let Some(since) = recovered {
                self.contact.no_multicast = false;
                self.contact.recovering = None;
                let by_joining = since < self.contact.renewed_at + REJOINED;
                self.events.push_back(Event::Notice(Notice::MulticastAgain { by_joining }));
                self.asking.report_soon(now, &mut self.prng);
            } else if now >= self.contact.renewed_at + RENEWAL {
                self.renew(now);
                self.asking.report_soon(now, &mut self.prng);
            }
        }
    }

    fn renew(&mut self, now: Instant) {
        self.contact.renewed_at = now;
        self.events.push_back(Event::RenewMembership);
    }

    pub(super) fn contact_timeout(&self) -> Instant {
        let contact = &self.contact;
        let mut at = contact.renewed_at + RENEWAL;
        if let Some(orphaned) = contact.orphaned.as_ref().filter(|_| contact.is_over()) {
            at = orphaned.since + FAR_OFF;
        } else if !contact.no_multicast {
            at = self.refresh_at().min(contact.group_at + self.group_silence_max());
        } else if let Some(since) = contact.recovering {
            at = at.min(since + RECOVERY).min(contact.group_at + self.group_silence_max());
        }
        match &contact.orphaned {
            None => at = at.min(contact.silent_at()),
            Some(orphaned) => {
                let gives_up = self.config.receive_timeout;
                let gives_up = gives_up.map(|timeout| self.waits_since(orphaned.since) + timeout);
                at = gives_up.map_or(at, |gives_up| at.min(gives_up));
                at = orphaned.alone_at.map_or(at, |alone| at.min(alone));
                at = self.look_again_at().map_or(at, |look| at.min(look));
            }
        }
        if let Some(timeout) = self.config.receive_timeout
            && contact.orphaned.is_none()
        {
            at = at.min(self.progress_at + timeout);
        }
        at
    }
}

/// Where nothing is to be looked after.
const FAR_OFF: Duration = Duration::from_secs(365 * 86_400);
/// The sender says something every half second: three in a row are not lost by chance.
const GROUP_SILENCE: Duration = Duration::from_millis(1_500);
/// While it sends, every ten milliseconds; a host that is busy may look the other way for long.
const GROUP_SILENCE_SENDING: Duration = Duration::from_millis(500);
/// Nothing by any way for so long: it is gone, or the path to it.
const SENDER_SILENCE: Duration = Duration::from_secs(2);
/// The group counts as heard again after so long without a gap.
const RECOVERY: Duration = Duration::from_secs(2);
/// A switch that lost the membership learns it anew, and the sender is reminded.
const RENEWAL: Duration = Duration::from_secs(5);
/// What is heard so soon behind a renewal is heard because of it.
const REJOINED: Duration = Duration::from_millis(500);
/// Switches forget members after 260 s, those set to half the usual query interval after 135 s.
const REFRESH: Duration = Duration::from_secs(60);
