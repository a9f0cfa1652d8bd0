//! The golden datagrams of `vectors/v1`: read, taken apart by field name, changed and made
//! consistent again.
//!
//! A file holds one datagram. `## …` says what it is, `# field: note` begins a field, and the
//! lines of hexadecimal digits behind it are its octets.

use std::{fs, ops::Range, path::PathBuf};

use imgcast_common::wire::{HEADER_LEN, Header, Message, Role, TRAILER_LEN, WireError};

/// One golden datagram, changed or not.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    pub(crate) octets: Vec<u8>,
    fields: Vec<(String, Range<usize>)>,
}

impl Vector {
    pub(crate) fn load(name: &str) -> Self {
        let path = folder().join(format!("{name}.hex"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut vector = Self { octets: Vec::new(), fields: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with("##")) {
            let len = vector.octets.len();
            if let Some(comment) = line.strip_prefix("# ") {
                let name = comment.split_once(':').map_or(comment, |(name, _)| name);
                vector.fields.push((name.to_owned(), len..len));
            } else {
                vector.octets.extend(line.as_bytes().chunks(2).map(|pair| {
                    u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()
                }));
                vector.fields.last_mut().unwrap().1.end = vector.octets.len();
            }
        }
        vector
    }

    /// Puts other octets, as many as one likes, in place of a field's. Body length and checksum
    /// are made right again unless they are that field themselves.
    pub(crate) fn with(mut self, field: &str, octets: impl AsRef<[u8]>) -> Self {
        let octets = octets.as_ref();
        let at = self.range(field);
        self.octets.splice(at.clone(), octets.iter().copied());
        let grown = octets.len().wrapping_sub(at.len());
        let this = self.fields.iter().position(|(name, _)| name == field).unwrap();
        self.fields[this].1.end = at.start + octets.len();
        for (_, range) in &mut self.fields[this + 1..] {
            *range = range.start.wrapping_add(grown)..range.end.wrapping_add(grown);
        }
        if field == "crc" {
            return self;
        }
        if field != "body length" {
            make_length_right(&mut self.octets);
        }
        make_crc_right(&mut self.octets);
        self
    }

    pub(crate) fn field(&self, field: &str) -> &[u8] {
        &self.octets[self.range(field)]
    }

    /// The end that takes this kind of message: receivers say the odd ones out.
    pub(crate) fn role(&self) -> Role {
        match self.octets[3] {
            0x02 | 0x20 | 0x21 | 0x22 => Role::Sender,
            _ => Role::Receiver,
        }
    }

    pub(crate) fn parse(&self) -> Result<(Header, Message<'_>), WireError> {
        Message::parse(&self.octets, self.role())
    }

    fn range(&self, field: &str) -> Range<usize> {
        let found = self.fields.iter().find(|(name, _)| name == field);
        found.unwrap_or_else(|| panic!("no field {field:?} in {:?}", self.fields)).1.clone()
    }
}

/// The names of all golden datagrams, sorted.
pub(crate) fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> =
        names.map(|name| name.strip_suffix(".hex").unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Checks that the golden datagram comes through with each of `accepted` in place of the field,
/// and not with any of `rejected`.
pub(crate) fn assert_limits<const N: usize>(
    name: &str,
    field: &str,
    accepted: &[[u8; N]],
    rejected: &[[u8; N]],
    reason: WireError,
) {
    for octets in accepted {
        let vector = Vector::load(name).with(field, octets);
        let parsed = vector.parse().map(|(header, _)| header);
        assert!(parsed.is_ok(), "{name}: {field} = {octets:02x?}: {parsed:?}");
    }
    for octets in rejected {
        let vector = Vector::load(name).with(field, octets);
        assert_eq!(vector.parse(), Err(reason), "{name}: {field} = {octets:02x?}");
    }
}

/// Puts a text of `octets` with its length behind one octet into the golden datagram.
pub(crate) fn with_text(name: &str, field: &str, octets: &[u8]) -> Vector {
    let length = [u8::try_from(octets.len()).unwrap()];
    Vector::load(name).with(&format!("{field} length"), length).with(field, octets)
}

pub(crate) fn make_length_right(datagram: &mut [u8]) {
    if let Some(len) = datagram.len().checked_sub(HEADER_LEN + TRAILER_LEN) {
        datagram[14..16].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    }
}

pub(crate) fn make_crc_right(datagram: &mut [u8]) {
    if let Some((covered, trailer)) = datagram.split_last_chunk_mut::<TRAILER_LEN>() {
        *trailer = crc32(covered).to_be_bytes();
    }
}

/// CRC-32 as IEEE 802.3 has it, written down apart from the one under test.
fn crc32(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |crc, octet| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ CRC_TABLE[usize::from(low ^ octet)]
    })
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/v1")
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut octet = 0u8;
    loop {
        let mut crc = octet as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[octet as usize] = crc;
        if octet == u8::MAX {
            break table;
        }
        octet += 1;
    }
};
