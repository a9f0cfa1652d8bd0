//! Both programs as real processes over real multicast on loopback: what they write, what they
//! say, and what they end with. No verdict hangs on speed; only disks that fail need privileges.
//!
//! Each test has a [`Stage`](stage::Stage) with ports of its own, so that all can run at once.

#![expect(clippy::unwrap_used, reason = "test code")]

mod control;
mod disks;
mod fake_sender;
mod hostile;
mod ipv6;
mod one_way;
mod receiver_exits;
mod resuming;
mod sender_exits;
mod signals;
mod sources;
mod stage;
mod targets;
mod terminal;
mod transfers;
mod words;
