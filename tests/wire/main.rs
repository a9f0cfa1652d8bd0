//! The wall for hostile input, from both sides: golden datagrams keep every octet of protocol
//! version 1 where it is, and nothing else than what `PROTOCOL.md` describes comes through.
#![expect(clippy::unwrap_used, reason = "test code")]

mod data_limits;
mod farewell_limits;
mod golden;
mod header_limits;
mod hostile;
mod membership_limits;
mod range_limits;
mod round_trip;
mod vector;
