//! Listening for senders, and choosing one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use imgcast_common::{
    id::{SessionId, Stream},
    layout::Layout,
    wire::{Join, Leave, LeaveReason, Message, QUESTION_OCTETS, SenderState, padded_len},
};

use super::{
    Event, Failure, Ledger, Notice, Offer, OneWay, Outcome, Phase, Session, SessionConfig,
    Transmit, Wanted,
};

/// What was heard on the rendezvous group.
#[derive(Debug)]
pub(super) struct Offers {
    heard: BTreeMap<SessionId, (Offer, Instant)>,
    /// The last one that was heard to end.
    ending: Option<Offer>,
    since: Instant,
    looked_at: Instant,
    look_at: Instant,
    other_version: Option<u8>,
}

impl Offers {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            heard: BTreeMap::new(),
            ending: None,
            since: now,
            looked_at: now,
            look_at: now,
            other_version: None,
        }
    }

    /// Notes another version; only the first one is news, or forged ones would fill the log.
    pub(super) fn note_version(&mut self, version: u8) -> bool {
        self.other_version.replace(version).is_none()
    }

    /// Sessions that are not ending.
    pub(super) fn len(&self) -> usize {
        self.open().count()
    }

    /// Whether all are ending.
    pub(super) fn is_ending(&self) -> bool {
        !self.heard.is_empty() && self.open().next().is_none()
    }

    /// The next time to look at what is on offer.
    pub(super) fn poll_timeout(&self, config: &SessionConfig) -> Instant {
        let timeout = config.start_timeout.map(|timeout| self.since + timeout);
        let times = [Some(self.since + LISTEN_MIN), timeout];
        let later = times.into_iter().flatten().filter(|at| *at > self.looked_at);
        later.fold(self.look_at, Instant::min)
    }

    /// Whoever was heard longest ago makes room: forged ANNOUNCEs cannot shut out a real one.
    fn make_room_for(&mut self, session: SessionId) {
        if self.heard.len() < OFFERS_MAX || self.heard.contains_key(&session) {
            return;
        }
        let oldest = self.heard.iter().min_by_key(|(_, (_, at))| *at).map(|(oldest, _)| *oldest);
        if let Some(oldest) = oldest {
            self.heard.remove(&oldest);
        }
    }

    fn open(&self) -> impl Iterator<Item = &Offer> {
        let offers = self.heard.values().map(|(offer, _)| offer);
        offers.filter(|offer| offer.announce.state != SenderState::Closing)
    }
}

impl Session {
    pub(super) fn on_announce(&mut self, now: Instant, offer: Offer) {
        self.offers.make_room_for(offer.session);
        if offer.announce.state == SenderState::Closing {
            self.offers.ending = Some(offer.clone());
        }
        let own = self.offer.as_ref().is_some_and(|own| own.session == offer.session);
        if own {
            if let Some(own) = &mut self.offer {
                own.announce.state = offer.announce.state;
                own.announce.start_in_ms = offer.announce.start_in_ms;
                own.announce.receivers_expected = offer.announce.receivers_expected;
                own.announce.receivers_joined = offer.announce.receivers_joined;
            }
            self.contact.on_announce(now);
        }
        self.offers.heard.insert(offer.session, (offer.clone(), now));
        let lost = match self.phase {
            Phase::Member => self.contact.is_orphaned(),
            Phase::Joining(_) => self.contact.is_orphaned() || self.contact.is_silent(now),
            _ => self.tells_another(now) && !offer.announce.one_way,
        };
        let orphaned = lost && !own;
        match self.phase {
            Phase::Listening => self.choose_when_due(now),
            _ if orphaned && offer.announce.state != SenderState::Closing => {
                self.tell_of_other(&offer);
                self.follow(now, &offer);
            }
            _ => {}
        }
    }

    /// Another session of the same image takes the place of one that went away.
    fn follow(&mut self, now: Instant, offer: &Offer) {
        if self.has_same_image(offer) {
            self.choose(now, offer.clone());
        }
    }

    fn has_same_image(&self, offer: &Offer) -> bool {
        self.offer.as_ref().is_some_and(|own| {
            own.announce.image == offer.announce.image
                && own.announce.layout.bytes() == offer.announce.layout.bytes()
                && own.announce.layout.block_log2() == offer.announce.layout.block_log2()
        })
    }

    /// Whoever waits for a sender with the image again learns once that the name means another one.
    fn tell_of_other(&mut self, offer: &Offer) {
        let is_other = self.offer.as_ref().is_some_and(|own| {
            own.announce.name == offer.announce.name && own.announce.image != offer.announce.image
        });
        // Whoever has everything waits for nothing.
        if is_other && !self.has_everything() && self.contact.tells_of_other() {
            self.events.push_back(Event::Notice(Notice::OtherImage(Box::new(offer.clone()))));
        }
    }

    /// Whether another session with this image was heard lately.
    pub(super) fn is_offered_elsewhere(&self, now: Instant) -> bool {
        let own = self.offer.as_ref().map(|own| own.session);
        self.offers.heard.values().any(|(offer, at)| {
            Some(offer.session) != own
                && offer.announce.state != SenderState::Closing
                && now < *at + OFFER_FORGOTTEN
                && self.has_same_image(offer)
        })
    }

    pub(super) fn choose_when_due(&mut self, now: Instant) {
        self.offers.heard.retain(|_, (_, at)| now < *at + OFFER_FORGOTTEN);
        self.offers.looked_at = now;
        if now >= self.offers.look_at {
            self.offers.look_at = now + ASK_INTERVAL;
            self.ask_for_offers();
        }
        let wanted = &self.config.wanted;
        let fitting: Vec<Offer> =
            self.offers.open().filter(|offer| wanted.accepts(&offer.announce)).cloned().collect();
        let listened = now >= self.offers.since + LISTEN_MIN;
        // Only a hash leaves no doubt which image is meant.
        let beyond_doubt = matches!(wanted, Wanted::Image(_));
        // Where both are there, the session that can be asked for what is lost.
        match fitting.iter().min_by_key(|offer| offer.announce.one_way) {
            Some(offer) if listened || beyond_doubt => {
                if fitting.iter().all(|other| other.announce.image == offer.announce.image) {
                    self.choose(now, offer.clone());
                } else {
                    self.finish(Outcome::Failed(Failure::SeveralImages(fitting)));
                }
            }
            Some(_) => {}
            _ => self.give_up_when_due(now),
        }
    }

    fn give_up_when_due(&mut self, now: Instant) {
        let timeout = self.config.start_timeout;
        if timeout.is_none_or(|timeout| now < self.offers.since + timeout) {
            return;
        }
        let others: Vec<Offer> = self.offers.open().cloned().collect();
        let ending = self.offers.ending.take();
        self.finish(Outcome::Failed(match (ending, self.offers.other_version) {
            (Some(offer), _) if self.config.wanted.accepts(&offer.announce) => {
                Failure::Ending(Box::new(offer))
            }
            _ if !others.is_empty() => Failure::NotOffered(others),
            (Some(offer), _) => Failure::NotOffered(vec![offer]),
            (None, Some(version)) => Failure::OtherVersion(version),
            (None, None) => Failure::NoSender,
        }));
    }

    /// Where there is no rendezvous group, a session that took the place of one that went away has
    /// to be asked for.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.look_again_at().is_some_and(|at| now >= at) {
            self.offers.look_at = now + ASK_INTERVAL;
            self.ask_for_offers();
        }
    }

    pub(super) fn look_again_at(&self) -> Option<Instant> {
        self.config.ask.map(|_| self.offers.look_at)
    }

    /// Where there is no rendezvous group, the sender is asked what it offers.
    fn ask_for_offers(&mut self) {
        let Some(to) = self.config.ask else { return };
        let join = Join { handshake: Vec::new(), ..self.join_message(false) };
        self.transmits.push_back(Transmit {
            to,
            session: SessionId::NONE,
            stream: Stream::Image,
            message: Message::Join(join),
            octets_min: QUESTION_OCTETS,
        });
    }

    fn choose(&mut self, now: Instant, offer: Offer) {
        let layout = offer.announce.layout;
        let datagram_octets = padded_len(layout.symbol_size());
        if datagram_octets > self.config.datagram_octets_max {
            if self.has_everything() {
                // What is here needs no session, and this one cannot be told.
                return;
            }
            let failure = Failure::Mtu { datagram_octets, sender_mtu: None };
            self.finish(Outcome::Failed(failure));
            return;
        }
        if let Some(member) = self.member {
            // Once is enough: a sender that does not hear it waits for nobody.
            let leave = Leave { receiver: member.receiver, reason: LeaveReason::Moved };
            self.send(Stream::Image, Message::Leave(leave), 0);
        }
        self.prepare_ledgers(&layout, offer.announce.index_hash);
        self.plans.iter_mut().for_each(super::PlanView::clear);
        self.member = None;
        self.one_way = offer.announce.one_way.then(|| OneWay::new(now));
        self.loss = super::LossMeter::default();
        self.lag = super::Lag::default();
        self.behind_kilobytes = None;
        self.contact.begin_session(now);
        self.offer = Some(offer.clone());
        self.phase = Phase::Opening;
        self.events.push_back(Event::Chosen(Box::new(offer)));
    }

    /// What a new session can go on with: verified blocks always, partial ones with equal T.
    fn prepare_ledgers(&mut self, layout: &Layout, index_hash: [u8; 32]) {
        let before = self.offer.as_ref().map(|offer| &offer.announce);
        let same_index = before.is_some_and(|before| before.index_hash == index_hash);
        let same_cut = before.is_some_and(|before| before.layout == *layout);
        let (Some(image), Some(index)) = (&mut self.image, &mut self.index) else {
            self.writing = imgcast_common::bits::BitSet::new(layout.blocks());
            self.image = Some(Ledger::new(*layout));
            self.index = Some(Ledger::new(layout.of_index()));
            return;
        };
        if same_cut {
            image.begin_session();
            index.begin_session();
        } else {
            let held = image.recut(*layout).into_iter().map(imgcast_common::id::BlockId::image);
            self.events.extend(held.map(Event::Forget));
        }
        let index_stands = self.index_known || (same_index && same_cut);
        if !index_stands {
            *index = Ledger::new(layout.of_index());
            let blocks = 0..layout.of_index().blocks();
            self.events.extend(
                blocks.map(|block| Event::Forget(imgcast_common::id::BlockId::index(block))),
            );
        }
    }
}

/// Long enough to hear every sender once.
const LISTEN_MIN: Duration = Duration::from_millis(300);
/// A sender that announced nothing for so long is gone.
pub(super) const OFFER_FORGOTTEN: Duration = Duration::from_secs(5);
/// A site runs a handful of sessions at once.
const OFFERS_MAX: usize = 256;
/// Between two questions to a sender, and between two looks at what is on offer.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
