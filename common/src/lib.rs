//! What both ends of imgcast share: the language of the protocol, its numbers, FEC and sockets.

pub mod id;
pub mod prng;
