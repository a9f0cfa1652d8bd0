//! ANNOUNCE: which image a sender offers, and where. Goes to the rendezvous group four times a
//! second, and by unicast to whoever asked with a JOIN of session 0.
//!
//! ```text
//! | image id                                              32 |
//! | index hash                                            32 |
//! | image bytes                                            8 |
//! | log2 B                                                 1 |
//! | T                                                      2 |
//! | data group: family 1, address 16, port 2              19 |
//! | sender's unicast port                                  2 |
//! | one way: top bit; sectors of its GPT: 3 bits; state    1 |
//! | start in ms                                            4 |
//! | receivers expected, or passes                          4 |
//! | receivers joined, or the pass under way                4 |
//! | session salt                                          16 |
//! | signer's key                                          32 |
//! | signature                                             64 |
//! | name: length 1, octets                           1 + len |
//! | zeroes, where padded                                     |
//! ```

use std::net::SocketAddr;

use super::{
    NAME_OCTETS_MAX, Name, WireError,
    codec::{Reader, Writer},
};
use crate::{id::ImageId, layout::Layout, sectors::SectorSize};

/// One offer of one image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announce {
    /// The image's BLAKE3 hash.
    pub image: ImageId,
    /// The BLAKE3 hash of the index, which is stream 1.
    pub index_hash: [u8; 32],
    /// How the image is cut: its length, B and T.
    pub layout: Layout,
    /// The group and port that carry DATA and SYNC.
    pub data_group: SocketAddr,
    /// Where the sender takes unicast; its address is the one that this datagram came from.
    pub unicast_port: u16,
    /// Whether nothing that a receiver says reaches the sender: receivers only listen.
    pub one_way: bool,
    /// What the GPT of the image counts in; `None` if it has none, or one for any disk.
    pub sector_size: Option<SectorSize>,
    /// What the sender is doing.
    pub state: SenderState,
    /// Milliseconds until sending begins at the latest; `u32::MAX` where no time is set.
    pub start_in_ms: u32,
    /// How many receivers the sender waits for, or has welcomed if these are more; one way: how
    /// often all of the image is sent.
    pub receivers_expected: u32,
    /// How many have joined and are not done or lost; one way: the pass under way, from 1, and 0
    /// before the start.
    pub receivers_joined: u32,
    /// Random octets that session keys are derived with.
    pub salt: [u8; 16],
    /// The ed25519 key that signed; zeroes if unsigned.
    pub signer: [u8; 32],
    /// The ed25519 signature; zeroes if unsigned.
    pub signature: [u8; 64],
    /// What people call the image. Never used as a path.
    pub name: Name,
}

/// What a sender is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SenderState {
    /// Waiting for receivers.
    Gathering,
    /// Symbols flow.
    Sending,
    /// Nobody needs anything just now.
    Idle,
    /// The session is over.
    Closing,
}

impl SenderState {
    pub(super) fn parse(octet: u8) -> Result<Self, WireError> {
        Ok(match octet {
            0 => Self::Gathering,
            1 => Self::Sending,
            2 => Self::Idle,
            3 => Self::Closing,
            _ => return Err(WireError::Field("state")),
        })
    }
}

impl Announce {
    pub(super) fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader(body);
        let image = ImageId(reader.array()?);
        let index_hash = reader.array()?;
        let (bytes, block_log2, symbol_size) = (reader.u64()?, reader.u8()?, reader.u16()?);
        let layout = Layout::new(bytes, block_log2, symbol_size);
        let data_group = reader.address()?;
        if !data_group.ip().is_multicast() || data_group.port() == 0 {
            return Err(WireError::Field("data group"));
        }
        let unicast_port = reader.u16()?;
        let state = reader.u8()?;
        let announce = Self {
            image,
            index_hash,
            layout: layout.ok_or(WireError::Field("layout"))?,
            data_group,
            unicast_port,
            one_way: state & ONE_WAY != 0,
            state: SenderState::parse(state & STATE_MASK)?,
            sector_size: parse_sectors(state >> SECTORS_SHIFT & SECTORS_MASK)?,
            start_in_ms: reader.u32()?,
            receivers_expected: reader.u32()?,
            receivers_joined: reader.u32()?,
            salt: reader.array()?,
            signer: reader.array()?,
            signature: reader.array()?,
            name: Name::new(&reader.text(NAME_OCTETS_MAX)?).ok_or(WireError::Field("name"))?,
        };
        if announce.unicast_port == 0 {
            return Err(WireError::Field("unicast port"));
        }
        reader.padding()?;
        Ok(announce)
    }

    pub(super) fn emit(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.image.0);
        writer.bytes(&self.index_hash);
        writer.u64(self.layout.bytes());
        writer.u8(self.layout.block_log2());
        writer.u16(self.layout.symbol_size());
        writer.address(self.data_group);
        writer.u16(self.unicast_port);
        let sectors = self.sector_size.map_or(0, SectorSize::code) << SECTORS_SHIFT;
        writer.u8(self.state as u8 | sectors | if self.one_way { ONE_WAY } else { 0 });
        writer.u32(self.start_in_ms);
        writer.u32(self.receivers_expected);
        writer.u32(self.receivers_joined);
        writer.bytes(&self.salt);
        writer.bytes(&self.signer);
        writer.bytes(&self.signature);
        writer.text(self.name.as_str(), NAME_OCTETS_MAX);
    }
}

fn parse_sectors(code: u8) -> Result<Option<SectorSize>, WireError> {
    match SectorSize::from_code(code) {
        None if code != 0 => Err(WireError::Field("sector size")),
        sector_size => Ok(sector_size),
    }
}

/// Beside the state: nobody is to answer.
const ONE_WAY: u8 = 0x80;
/// Where the code of the sector size is in the same octet.
const SECTORS_SHIFT: u32 = 4;
const SECTORS_MASK: u8 = 0x07;
/// The rest of it.
const STATE_MASK: u8 = 0x0f;
