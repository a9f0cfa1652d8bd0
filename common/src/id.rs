//! Numbers that must never be mixed up, each with its own type.

use std::fmt;

/// One run of one sender (the TSI of RFC 5651); zero means "none yet".
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The session of a datagram that belongs to none yet.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A receiver's number within one session, given by the sender's WELCOME.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReceiverId(pub u32);

impl fmt::Display for ReceiverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The BLAKE3 hash of the raw image: what `b3sum` prints.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ImageId(pub [u8; 32]);

impl ImageId {
    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which of a session's two byte streams a block belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stream {
    /// Stream 0: the image.
    Image,
    /// Stream 1: the index that every block of the image is verified against.
    Index,
}

/// Position of an encoding symbol in its source block (RFC 6330 section 3.2): below K a source
/// symbol, from K on a repair symbol.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EncodingSymbolId(u32);

impl EncodingSymbolId {
    /// The first value that does not fit RFC 6330's 24 bits.
    pub const END: u32 = 1 << 24;

    /// Returns `None` above 24 bits, so that no datagram can make the FEC library panic.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value < Self::END { Some(Self(value)) } else { None }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One source block of one stream.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockId {
    /// The stream it is cut from.
    pub stream: Stream,
    /// Its number, from 0; 32 bits wide, unlike RFC 6330's SBN.
    pub number: u32,
}

impl BlockId {
    /// A block of the image.
    #[must_use]
    pub const fn image(number: u32) -> Self {
        Self { stream: Stream::Image, number }
    }

    /// A block of the index.
    #[must_use]
    pub const fn index(number: u32) -> Self {
        Self { stream: Stream::Index, number }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream {
            Stream::Image => write!(f, "block {}", self.number),
            Stream::Index => write!(f, "index block {}", self.number),
        }
    }
}
