//! What both ends of imgcast share: the language of the protocol, its numbers, FEC and sockets.

pub mod bits;
pub mod bucket;
pub mod console;
pub mod fec;
pub mod id;
pub mod layout;
pub mod limits;
pub mod net;
pub mod pool;
pub mod prng;
pub mod sectors;
pub mod timing;
pub mod tree;
pub mod units;
pub mod watched;
pub mod wire;

#[doc = include_str!("../PROTOCOL.md")]
pub mod protocol {}
