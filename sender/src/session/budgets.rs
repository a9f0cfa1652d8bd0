//! How much of what arrives is looked at, so that nobody who says too much keeps the sender from
//! hearing the others.
//!
//! ```text
//!  JOIN ────────────────────────────────────► joins
//!  NEED, DONE, LEAVE ─┬─ a member, from its address ─► its own ─► members
//!                     └─ anybody else ──────────────────────────► strangers
//! ```
//!
//! Source addresses can be forged: who can do that on this network can also take a member's share,
//! and the whole of what members have together.

use std::{net::SocketAddr, time::Instant};

use imgcast_common::{
    bucket::Bucket,
    wire::{Header, Message},
};

use super::{
    Session,
    roster::{NEEDS_BURST, NEEDS_PER_SECOND},
};

/// What is left of each.
#[derive(Debug)]
pub(super) struct Budgets {
    members: Bucket,
    strangers: Bucket,
    joins: Bucket,
}

impl Budgets {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            members: Bucket::new(now, MEMBERS_PER_SECOND),
            strangers: Bucket::new(now, STRANGERS_PER_SECOND),
            joins: Bucket::new(now, JOINS_BURST),
        }
    }
}

impl Session {
    /// Whether this message is of this session and within what its sender may still say.
    pub(super) fn has_time_for(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: &Header,
        message: &Message<'_>,
    ) -> bool {
        let (receiver, counter) = match message {
            Message::Join(_) => {
                return self.budgets.joins.take(now, JOINS_PER_SECOND, JOINS_BURST);
            }
            _ if header.session != self.config.session || self.is_one_way() => return false,
            Message::Need(need) => (need.receiver, Some(header.counter)),
            Message::Done(done) => (done.receiver, None),
            Message::Leave(leave) => (leave.receiver, None),
            _ => return false,
        };
        let member = self.roster.member_mut(receiver).filter(|member| member.address == from);
        let Some(member) = member else {
            let budget = &mut self.budgets.strangers;
            return budget.take(now, STRANGERS_PER_SECOND, STRANGERS_PER_SECOND);
        };
        // What comes a second time costs nothing.
        counter.is_none_or(|counter| counter > member.need_counter)
            && member.bucket.take(now, f64::from(NEEDS_PER_SECOND), f64::from(NEEDS_BURST))
            && self.budgets.members.take(now, MEMBERS_PER_SECOND, MEMBERS_PER_SECOND)
    }
}

/// A core parses several hundred thousand a second; more than this is an attack or a bug.
const MEMBERS_PER_SECOND: f64 = 5_000.0;
/// Each hears that it has to join again, which is news to a handful.
const STRANGERS_PER_SECOND: f64 = 500.0;
/// All that a session admits may start at once, and after that ask again within seconds.
const JOINS_BURST: f64 = 16_384.0;
/// An answer is as long as a DATA datagram: no more than a twentieth of a gigabit a second.
const JOINS_PER_SECOND: f64 = 5_000.0;
