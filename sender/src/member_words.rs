//! What is said of a receiver: its name, what became of it, and why.

use std::time::Instant;

use imgcast_common::units::BitRate;

use crate::session::{Member, MemberState, Session, Slow};

/// A member's host and where it is.
pub(crate) fn named(session: &Session, member: &Member) -> String {
    let is_another_there = session.members().any(|other| {
        let same_address = other.address.ip() == member.address.ip();
        same_address && other.id != member.id && other.host == member.host
    });
    format!("{} ({})", member.host, place(member, is_another_there))
}

/// Where a member is; with its port, if that alone tells it from another one.
pub(crate) fn place(member: &Member, is_another_there: bool) -> String {
    if is_another_there { member.address.to_string() } else { member.address.ip().to_string() }
}

/// One word for the table.
pub(crate) const fn state_name(state: MemberState) -> &'static str {
    match state {
        MemberState::Active => "active",
        MemberState::Done => "done",
        MemberState::Failed => "failed",
        MemberState::Left => "left",
        MemberState::Lost => "lost",
        MemberState::Dropped => "dropped",
        MemberState::Ejected => "replaced",
    }
}

/// What became of a member, as of now.
pub(crate) fn fate(now: Instant, member: &Member) -> String {
    match member.state {
        MemberState::Lost => {
            let silent = now.saturating_duration_since(member.heard_at).as_secs();
            format!("nothing heard for {silent} s")
        }
        _ => reason(member),
    }
}

/// Why a member is in its state, if there is more to say than that.
pub(crate) fn reason(member: &Member) -> String {
    match (member.state, &member.done) {
        (MemberState::Failed, Some(done)) if done.succeeded => {
            "it has another image than was sent".into()
        }
        (MemberState::Failed, Some(done)) => format!("{} (exit {})", done.text, done.error_code),
        (MemberState::Left, _) => "stopped at the node".into(),
        (MemberState::Lost, _) => "not heard any more".into(),
        (MemberState::Ejected, _) => "joined anew".into(),
        (MemberState::Active, _) => "not finished".into(),
        (MemberState::Dropped, _) => member.slow.map(too_slow).unwrap_or_default(),
        (MemberState::Done, _) => {
            member.slow.map(|slow| format!("was detached: {}", too_slow(slow))).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// What shows that a receiver is too slow for the others.
pub(crate) fn too_slow(slow: Slow) -> String {
    match slow {
        Slow::Host { takes, of } => {
            format!("it takes {} of {}", BitRate(takes), BitRate(of))
        }
        Slow::Path { carries, of } => {
            format!("{} of {} get through to it", BitRate(carries), BitRate(of))
        }
        Slow::Loss(share) => format!("{:.0} % are lost on the way to it", share * 100.0),
    }
}

/// Worst first.
pub(crate) const fn rank(state: MemberState) -> u8 {
    match state {
        MemberState::Lost => 0,
        MemberState::Failed => 1,
        MemberState::Left => 2,
        MemberState::Dropped => 3,
        MemberState::Active => 4,
        MemberState::Done => 5,
        MemberState::Ejected => 6,
    }
}
