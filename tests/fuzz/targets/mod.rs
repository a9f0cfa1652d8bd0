//! What is fuzzed: one function an entrance, from any octets, that panics where something is wrong.
//!
//! Each reads its input as a list of steps, so that a small change of the input is a small change
//! of what happens. Octets that the input lacks are zeroes. A target asserts what holds whatever
//! comes in; that nothing panics, overflows, leaks or runs away is the engine's to see.

mod commands;
mod fec;
mod index;
mod index_cache;
mod input;
mod journal;
mod messages;
mod needs;
mod offers;
mod receiver;
mod sender;
mod worlds;

/// An entrance for hostile input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// What it is called on the command line, and its folder below `corpus`.
    pub(crate) name: &'static str,
    /// Does everything with one input.
    pub(crate) run: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: [Target; 11] = [
    Target { name: "messages", run: messages::run },
    Target { name: "needs", run: needs::run },
    Target { name: "offers", run: offers::run },
    Target { name: "sender", run: sender::run },
    Target { name: "receiver", run: receiver::run },
    Target { name: "worlds", run: worlds::run },
    Target { name: "index", run: index::run },
    Target { name: "index_cache", run: index_cache::run },
    Target { name: "journal", run: journal::run },
    Target { name: "fec", run: fec::run },
    Target { name: "commands", run: commands::run },
];

/// The target of this name.
pub(crate) fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
