//! JOIN, WELCOME and REFUSE: how a receiver becomes a member of a session.
//!
//! ```text
//! JOIN                                        WELCOME
//! | nonce                           16 |      | nonce                           16 |
//! | key                             16 |      | receiver id                      4 |
//! | have                             1 |      | state                            1 |
//! | flags: bit 0 mtu, bit 1 unfit    1 |      | NEEDs per second                 2 |
//! | capabilities                     2 |      | burst of NEEDs                   2 |
//! | target bytes                     8 |      | report after silence of, ms      4 |
//! | memory for blocks, blocks        4 |      | handshake: length 2, octets        |
//! | host name: length 1, octets        |      | zeroes, where padded               |
//! | handshake: length 2, octets        |
//! | zeroes, where padded               |      REFUSE
//!                                             | nonce 16 | reason 1 | MTU 2        |
//! ```
//!
//! JOIN and WELCOME are padded to 40 + T + 16 octets in all: a receiver that was welcomed can
//! receive symbols, and a forged JOIN is never answered with more than it cost.

use super::{
    SenderState, WireError,
    codec::{Reader, Writer},
};
use crate::id::ReceiverId;

/// A receiver asks to become a member; in session 0 it asks for ANNOUNCEs by unicast.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Join {
    /// Random: tells this run of the receiver from another.
    pub nonce: [u8; 16],
    /// Hash of hardware address, host name and canonical target: the same in every run on this
    /// node and target.
    pub key: [u8; 16],
    /// Whether some blocks are verified already: the receiver then asks by NEED.
    pub have: bool,
    /// Not padded, because padded ones were not answered: asks for REFUSE(mtu).
    pub mtu: bool,
    /// It cannot take part, and asks to be let in only to say why: DONE with a failure follows.
    pub unfit: bool,
    /// What it can do; no bit has a meaning yet, unknown ones are ignored.
    pub capabilities: u16,
    /// Octets that the target holds; `u64::MAX` for a file.
    pub target_bytes: u64,
    /// How many incomplete blocks it can hold.
    pub memory_blocks: u32,
    /// Its host name, for the operator's eyes.
    pub host: String,
    /// The handshake of a sealed session; empty in a plain one.
    pub handshake: Vec<u8>,
}

/// The sender's answer to a JOIN.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Welcome {
    /// The JOIN's nonce.
    pub nonce: [u8; 16],
    /// The member's number from now on.
    pub receiver: ReceiverId,
    /// What the sender is doing.
    pub state: SenderState,
    /// NEEDs that it may send per second …
    pub needs_per_second: u16,
    /// … and in one burst.
    pub needs_burst: u16,
    /// After so many silent milliseconds it sends a plain report.
    pub silence_ms: u32,
    /// The handshake of a sealed session; empty in a plain one.
    pub handshake: Vec<u8>,
}

/// The sender's no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refuse {
    /// The JOIN's nonce; zeroes where a NEED is answered.
    pub nonce: [u8; 16],
    /// Why.
    pub reason: RefuseReason,
    /// MTU of the sender's interface.
    pub mtu: u16,
}

/// Why a receiver cannot be a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefuseReason {
    /// The session has as many receivers as it can take.
    Full,
    /// Datagrams of this session do not fit through the path to the receiver.
    Mtu,
    /// The session is closing.
    Ending,
    /// The receiver id is unknown: join again.
    Rejoin,
    /// The sender does not trust the receiver.
    Untrusted,
}

impl Join {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let (nonce, key) = (reader.array()?, reader.array()?);
        let have = match reader.u8()? {
            have @ 0..=1 => have == 1,
            _ => return Err(WireError::Field("have")),
        };
        let flags = reader.u8()?;
        if flags & !(MTU | UNFIT) != 0 {
            return Err(WireError::Field("flags"));
        }
        let join = Self {
            nonce,
            key,
            have,
            mtu: flags & MTU != 0,
            unfit: flags & UNFIT != 0,
            capabilities: reader.u16()?,
            target_bytes: reader.u64()?,
            memory_blocks: reader.u32()?,
            host: reader.text(HOST_OCTETS_MAX)?,
            handshake: handshake(&mut reader)?,
        };
        reader.padding()?;
        Ok(join)
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.nonce);
        writer.bytes(&self.key);
        writer.u8(u8::from(self.have));
        let mtu = if self.mtu { MTU } else { 0 };
        let unfit = if self.unfit { UNFIT } else { 0 };
        writer.u8(mtu | unfit);
        writer.u16(self.capabilities);
        writer.u64(self.target_bytes);
        writer.u32(self.memory_blocks);
        writer.text(&self.host, HOST_OCTETS_MAX);
        emit_handshake(writer, &self.handshake);
    }
}

impl Welcome {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let welcome = Self {
            nonce: reader.array()?,
            receiver: ReceiverId(reader.u32()?),
            state: SenderState::parse(reader.u8()?)?,
            needs_per_second: reader.u16()?,
            needs_burst: reader.u16()?,
            silence_ms: reader.u32()?,
            handshake: handshake(&mut reader)?,
        };
        reader.padding()?;
        if welcome.needs_per_second == 0 || welcome.needs_burst == 0 {
            return Err(WireError::Field("limits"));
        }
        if !(SILENCE_MS_MIN..=SILENCE_MS_MAX).contains(&welcome.silence_ms) {
            return Err(WireError::Field("silence"));
        }
        Ok(welcome)
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.nonce);
        writer.u32(self.receiver.0);
        writer.u8(self.state as u8);
        writer.u16(self.needs_per_second);
        writer.u16(self.needs_burst);
        writer.u32(self.silence_ms);
        emit_handshake(writer, &self.handshake);
    }
}

impl Refuse {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let nonce = reader.array()?;
        let reason = match reader.u8()? {
            0 => RefuseReason::Full,
            1 => RefuseReason::Mtu,
            2 => RefuseReason::Ending,
            3 => RefuseReason::Rejoin,
            4 => RefuseReason::Untrusted,
            _ => return Err(WireError::Field("reason")),
        };
        let mtu = reader.u16()?;
        reader.end()?;
        Ok(Self { nonce, reason, mtu })
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.nonce);
        writer.u8(self.reason as u8);
        writer.u16(self.mtu);
    }
}

fn handshake(reader: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    let len = usize::from(reader.u16()?);
    if len > HANDSHAKE_OCTETS_MAX {
        return Err(WireError::Field("handshake"));
    }
    Ok(reader.bytes(len)?.to_vec())
}

fn emit_handshake(writer: &mut Writer<'_>, handshake: &[u8]) {
    let handshake = &handshake[..handshake.len().min(HANDSHAKE_OCTETS_MAX)];
    writer.u16(u16::try_from(handshake.len()).unwrap_or(0));
    writer.bytes(handshake);
}

/// Flags of a JOIN.
const MTU: u8 = 1;
const UNFIT: u8 = 2;
/// As long as Linux allows a host name to be.
const HOST_OCTETS_MAX: u8 = 64;
/// A shorter one would make every receiver report all the time.
const SILENCE_MS_MIN: u32 = 1_000;
/// After a longer one the sender would take the receiver for lost.
const SILENCE_MS_MAX: u32 = 60_000;
/// A Noise message with a key and a tag or two.
const HANDSHAKE_OCTETS_MAX: usize = 256;
