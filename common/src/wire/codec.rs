//! Big-endian fields in and out of octets, without panics.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

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

    /// Text behind one octet of length: cut behind a word where it is too long, with question marks
    /// for control characters, which no [`Reader`] takes.
    pub(super) fn text(&mut self, text: &str, octets_max: u8) {
        let printable: String =
            text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let text = shortened(&printable, usize::from(octets_max));
        self.u8(u8::try_from(text.len()).unwrap_or(octets_max));
        self.bytes(text.as_bytes());
    }
}

/// A text in at most so many octets, at least those of an ellipsis: one that is longer ends with
/// one, behind a word, or within one that alone would be half of it.
fn shortened(text: &str, octets_max: usize) -> Cow<'_, str> {
    if text.len() <= octets_max {
        return text.into();
    }
    let room = octets_max.saturating_sub(ELLIPSIS.len_utf8());
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room);
    let (head, rest) = text.split_at(end.last().unwrap_or(0));
    let is_whole_word = rest.starts_with(char::is_whitespace);
    let behind_word = head.rfind(char::is_whitespace).filter(|at| !is_whole_word && *at > room / 2);
    let words = &head[..behind_word.unwrap_or(head.len())];
    let words = words.trim_end_matches(|c: char| c.is_whitespace() || ",;:".contains(c));
    format!("{words}{ELLIPSIS}").into()
}

/// Says that there was more.
const ELLIPSIS: char = '…';

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, octets_max: u8) -> String {
        let mut octets = Vec::new();
        Writer(&mut octets).text(text, octets_max);
        Reader(&octets).text(octets_max).unwrap()
    }

    #[test]
    fn text_that_is_too_long_ends_behind_a_word_with_an_ellipsis() {
        let all = "look at the kernel's log (dmesg) for more";
        assert_eq!(written(all, 41), all);
        assert_eq!(written(all, 40), "look at the kernel's log (dmesg) for…");
        assert_eq!(written(all, 39), "look at the kernel's log (dmesg) for…");
        assert_eq!(written(all, 38), "look at the kernel's log (dmesg)…");
        assert_eq!(written("it is so, or not", 12), "it is so…");
        assert_eq!(written("a\nb", 9), "a?b");
    }

    #[test]
    fn a_long_word_is_cut_at_a_character() {
        assert_eq!(written("nodes-of-the-cellar", 10), "nodes-o…");
        assert_eq!(written("x /dev/disk/by-id/nvme-disk", 20), "x /dev/disk/by-id…");
        assert_eq!(written("äöüß", 7), "äö…");
        assert_eq!(written("äöüß", 3), "…");
    }
}
