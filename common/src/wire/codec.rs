//! Big-endian fields in and out of octets, without panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::WireError;

/// Takes fields off the front of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(WireError::Length)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(WireError::Length)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u24(&mut self) -> Result<u32, WireError> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// An address family octet (4 or 6), 16 octets of address and a port.
    pub(super) fn address(&mut self) -> Result<SocketAddr, WireError> {
        let family = self.u8()?;
        let octets: [u8; 16] = self.array()?;
        let port = self.u16()?;
        let ip = match family {
            4 => {
                let (head, tail) = octets.split_at(4);
                if tail.iter().any(|byte| *byte != 0) {
                    return Err(WireError::Field("address"));
                }
                IpAddr::V4(Ipv4Addr::new(head[0], head[1], head[2], head[3]))
            }
            6 => IpAddr::V6(Ipv6Addr::from(octets)),
            _ => return Err(WireError::Field("address family")),
        };
        Ok(SocketAddr::new(ip, port))
    }

    /// UTF-8 text without control characters behind one octet of length.
    pub(super) fn text(&mut self, octets_max: u8) -> Result<String, WireError> {
        let len = self.u8()?;
        if len > octets_max {
            return Err(WireError::Field("text"));
        }
        let bytes = self.bytes(usize::from(len))?;
        let text = std::str::from_utf8(bytes).map_err(|_| WireError::Field("text"))?;
        if text.chars().any(char::is_control) {
            return Err(WireError::Field("text"));
        }
        Ok(text.to_owned())
    }

    /// Nothing may be left.
    pub(super) const fn end(self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Length) }
    }

    /// Nothing but zeroes may be left.
    pub(super) fn padding(self) -> Result<(), WireError> {
        if self.0.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(WireError::Length) }
    }
}

/// Appends fields to a datagram.
#[derive(Debug)]
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn address(&mut self, address: SocketAddr) {
        let mut octets = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => {
                self.u8(4);
                octets[..4].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.u8(6);
                octets = ip.octets();
            }
        }
        self.bytes(&octets);
        self.u16(address.port());
    }

    /// Text behind one octet of length: cut at a character where it is too long, with question
    /// marks for control characters, which no [`Reader`] takes.
    pub(super) fn text(&mut self, text: &str, octets_max: u8) {
        let start = self.0.len();
        self.u8(0);
        let mut len = 0;
        for character in text.chars().map(|c| if c.is_control() { '?' } else { c }) {
            let mut utf8 = [0; 4];
            let utf8 = character.encode_utf8(&mut utf8).as_bytes();
            len += utf8.len();
            if len > usize::from(octets_max) {
                break;
            }
            self.bytes(utf8);
            self.0[start] = u8::try_from(len).unwrap_or(octets_max);
        }
    }
}
