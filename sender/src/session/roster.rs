//! Who takes part: admission, what each member last said, and who counts as lost.
//!
//! ```text
//!  JOIN ──► Active ──► Done | Failed | Left | Dropped | Ejected
//!             │ ▲
//!   silence   ▼ │ heard again
//!            Lost
//! ```

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use imgcast_common::{
    bucket::Bucket,
    id::ReceiverId,
    wire::{Done, Join, Need},
};

use super::{Slow, half_open::HalfOpen, lacked::Lacked};

/// All receivers that ever joined this session.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: BTreeMap<ReceiverId, Member>,
    by_nonce: BTreeMap<[u8; 16], ReceiverId>,
    by_key: BTreeMap<[u8; 16], ReceiverId>,
    next_id: u32,
    active: u32,
    done: u32,
    phantoms_forgotten_at: Option<Instant>,
    half_open: HalfOpen,
}

/// One receiver, as the sender knows it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub id: ReceiverId,
    /// Where its unicast goes.
    pub address: SocketAddr,
    /// Its host name, as it says.
    pub host: String,
    /// How it stands.
    pub state: MemberState,
    /// When it was welcomed.
    pub joined_at: Instant,
    /// When anything came from it last.
    pub heard_at: Instant,
    /// When its DONE or LEAVE came.
    pub finished_at: Option<Instant>,
    /// Whether it hears nothing from the group.
    pub no_multicast: bool,
    /// Blocks of the image that it has verified.
    pub done_blocks: u32,
    /// Share of the group's datagrams that the network lost, smoothed.
    pub network_loss: f64,
    /// Share that its own socket dropped, smoothed.
    pub socket_loss: f64,
    /// Blocks that it has memory for.
    pub memory_blocks: u32,
    /// Symbols that it asked for beyond what it was sent at first; each counts once, however often
    /// it asked.
    pub repaired_symbols: u64,
    /// Its last words.
    pub done: Option<Done>,
    /// Whether the others do not wait for it.
    pub detached: bool,
    /// Why it was detached last, or dropped.
    pub slow: Option<Slow>,
    pub(super) lacked: Lacked,
    pub(super) confirmed: bool,
    /// It is there only to say why it cannot take part.
    unfit: bool,
    pub(super) need_counter: u64,
    pub(super) polls_unanswered: u32,
    pub(super) polled_at: Option<Instant>,
    pub(super) bucket: Bucket,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemberState {
    /// It takes part.
    Active,
    /// It has the whole image, verified and flushed.
    Done,
    /// It said that it failed.
    Failed,
    /// It said that it goes.
    Left,
    /// Nothing was heard from it for too long.
    Lost,
    /// It was too slow, and was sent away.
    Dropped,
    /// Another run of the same receiver took its place.
    Ejected,
}

/// What became of a JOIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// A new member; perhaps in the place of an older one, which is ejected.
    New { id: ReceiverId, replaced: Option<ReceiverId> },
    /// The same run asks again.
    Known(ReceiverId),
    /// No room.
    Full,
    /// Too many that never confirmed; this one may try again.
    Busy,
}

impl Roster {
    /// Admits a receiver, or finds that it is a member already.
    pub(super) fn admit(&mut self, now: Instant, from: SocketAddr, join: &Join) -> Admission {
        if let Some(id) = self.by_nonce.get(&join.nonce) {
            return Admission::Known(*id);
        }
        if self.members.len() >= MEMBERS_MAX {
            self.forget_phantoms(now);
        }
        if self.members.len() >= MEMBERS_MAX {
            return Admission::Full;
        }
        if self.is_busy_for(from) {
            return Admission::Busy;
        }
        let id = ReceiverId(self.next_id);
        self.next_id += 1;
        let replaced = self.by_key.insert(join.key, id);
        self.by_nonce.insert(join.nonce, id);
        self.members.insert(id, Member::new(now, id, from, join));
        self.active += u32::from(!join.unfit);
        self.half_open.add(from.ip());
        if let Some(old) = replaced {
            self.set_state(old, MemberState::Ejected);
        }
        Admission::New { id, replaced }
    }

    /// Whether a JOIN from there would have to wait until others have confirmed theirs.
    pub(super) fn is_busy_for(&self, from: SocketAddr) -> bool {
        !self.half_open.has_room(from.ip())
    }

    /// Makes room: whoever was welcomed, never said anything and is gone may never have been there,
    /// as with JOINs that somebody forges with ever new nonces. Not for each of these: it takes a
    /// look at all members.
    fn forget_phantoms(&mut self, now: Instant) {
        if self.phantoms_forgotten_at.is_some_and(|at| now < at + FORGET_INTERVAL) {
            return;
        }
        self.phantoms_forgotten_at = Some(now);
        let is_gone = |state| matches!(state, MemberState::Ejected | MemberState::Lost);
        self.members.retain(|_, it| !is_gone(it.state) || it.heard_at > it.joined_at);
        let members = &self.members;
        self.by_nonce.retain(|_, id| members.contains_key(id));
        self.by_key.retain(|_, id| members.contains_key(id));
    }

    /// Notes a sign of life; returns whether it had been lost.
    pub(super) fn heard(&mut self, now: Instant, id: ReceiverId) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        member.heard_at = now;
        member.polls_unanswered = 0;
        member.confirm(&mut self.half_open);
        let was_lost = member.state == MemberState::Lost;
        if was_lost {
            self.set_state(id, MemberState::Active);
        }
        was_lost
    }

    /// Takes in what a NEED says of its sender, who has no more than the image's blocks.
    pub(super) fn note_report(&mut self, need: &Need, blocks: u32) {
        let Some(member) = self.members.get_mut(&need.receiver) else { return };
        member.no_multicast = need.flags.no_multicast;
        member.done_blocks = need.done_blocks.min(blocks);
        let smooth = |old: &mut f64, new: u16| *old += (f64::from(new) / 65_536.0 - *old) / 4.0;
        if let Some(network_loss) = need.network_loss {
            smooth(&mut member.network_loss, network_loss);
            smooth(&mut member.socket_loss, need.socket_loss);
        }
    }

    pub(super) fn set_state(&mut self, id: ReceiverId, state: MemberState) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let was = std::mem::replace(&mut member.state, state);
        let is_active = state == MemberState::Active;
        if !is_active && state != MemberState::Lost {
            member.lacked = Lacked::default();
        }
        if !is_active {
            member.confirm(&mut self.half_open);
        }
        let change = |count: u32, of| count + u32::from(state == of) - u32::from(was == of);
        if !member.unfit {
            self.active = change(self.active, MemberState::Active);
        }
        self.done = change(self.done, MemberState::Done);
    }

    pub(super) fn member(&self, id: ReceiverId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn member_mut(&mut self, id: ReceiverId) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Members that take part and are not finished.
    pub(super) fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|it| it.state == MemberState::Active && !it.unfit)
    }

    /// Those of them that hear the group.
    pub(super) fn listeners(&self) -> impl Iterator<Item = &Member> {
        self.active().filter(|member| !member.no_multicast)
    }

    pub(super) const fn active_count(&self) -> u32 {
        self.active
    }

    /// Members that have the image.
    pub(super) const fn done_count(&self) -> u32 {
        self.done
    }

    /// Members that are there, or were until they had the image: as many as a start waits for.
    pub(super) const fn joined_count(&self) -> u32 {
        self.active + self.done
    }

    pub(super) fn count(&self, state: MemberState) -> u32 {
        let count = self.members.values().filter(|member| member.state == state).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Members ever welcomed, those that were replaced left out.
    pub(super) fn welcomed(&self) -> u32 {
        let all = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        all - self.count(MemberState::Ejected)
    }

    /// Those whom to ask by unicast whether they are still there: silent for long, or merely idle
    /// when `all_idle` says that the session waits for nothing else.
    pub(super) fn due_for_poll(&mut self, now: Instant, all_idle: bool) -> Vec<ReceiverId> {
        let silence = if all_idle { POLL_INTERVAL } else { SILENCE_BEFORE_POLLS };
        let is_due = |member: &&mut Member| {
            member.state == MemberState::Active
                && now >= member.heard_at + silence
                && member.polled_at.is_none_or(|at| now >= at + POLL_INTERVAL)
        };
        let mut due: Vec<&mut Member> = self.members.values_mut().filter(is_due).collect();
        due.sort_by_key(|member| member.polled_at);
        due.truncate(POLLS_AT_ONCE.max(self.active as usize / POLLS_SHARE));
        due.into_iter()
            .map(|member| {
                member.polled_at = Some(now);
                member.polls_unanswered += 1;
                member.id
            })
            .collect()
    }

    /// Those that are lost as of now.
    pub(super) fn newly_lost(&mut self, now: Instant) -> Vec<ReceiverId> {
        let gone = |member: &&Member| {
            member.polls_unanswered >= POLLS_BEFORE_LOST
                && now >= member.heard_at + SILENCE_BEFORE_LOST
        };
        let silent = self.members.values().filter(|it| it.state == MemberState::Active);
        let lost: Vec<_> = silent.filter(gone).map(|member| member.id).collect();
        for id in &lost {
            self.set_state(*id, MemberState::Lost);
        }
        lost
    }
}

impl Member {
    fn new(now: Instant, id: ReceiverId, address: SocketAddr, join: &Join) -> Self {
        Self {
            id,
            address,
            host: join.host.clone(),
            state: MemberState::Active,
            joined_at: now,
            heard_at: now,
            finished_at: None,
            no_multicast: false,
            done_blocks: 0,
            network_loss: 0.0,
            socket_loss: 0.0,
            memory_blocks: join.memory_blocks,
            repaired_symbols: 0,
            lacked: Lacked::default(),
            done: None,
            detached: false,
            slow: None,
            confirmed: false,
            unfit: join.unfit,
            need_counter: 0,
            polls_unanswered: 0,
            polled_at: None,
            bucket: Bucket::new(now, f64::from(NEEDS_BURST)),
        }
    }

    /// It is half-open no longer: it has said something, or is gone.
    fn confirm(&mut self, half_open: &mut HalfOpen) {
        if !std::mem::replace(&mut self.confirmed, true) {
            half_open.remove(self.address.ip());
        }
    }
}

/// What the tables of one sender hold comfortably.
pub const MEMBERS_MAX: usize = 16_384;
/// A receiver's needs change at the pace of blocks, not of datagrams.
pub(super) const NEEDS_PER_SECOND: u16 = 20;
/// A long list of needs comes in several datagrams at once.
pub(super) const NEEDS_BURST: u16 = 10;

/// Between two looks for members that may never have been there.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);
/// Long before it is lost a silent receiver is asked.
const SILENCE_BEFORE_POLLS: Duration = Duration::from_secs(30);
/// Between two questions to the same receiver.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Of a crowd that is silent together some are asked now and the others next time, who was asked
/// longest ago first; of thousands so many more that they are given up within a few minutes.
const POLLS_AT_ONCE: usize = 256;
/// One in so many.
const POLLS_SHARE: usize = 16;
/// As often as RFC 5740 repeats what must arrive (its ROBUST factor).
const POLLS_BEFORE_LOST: u32 = 20;
/// A node that reboots or hangs on its disk is back by then.
const SILENCE_BEFORE_LOST: Duration = Duration::from_secs(60);
