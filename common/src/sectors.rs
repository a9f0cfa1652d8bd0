//! The sectors that a partition table counts in: a GPT written for one size means nothing to a
//! disk of another.

use std::fmt;

/// How long a logical sector is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SectorSize {
    octets_log2: u8,
}

impl SectorSize {
    /// `None` for a size that GPTs are not written for: anything but 512, 1024, 2048 and 4096.
    #[must_use]
    pub fn from_octets(octets: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.octets() == octets)
    }

    /// What the GPT at the beginning of a disk or image counts in; `None` without one, and where
    /// there are several, as in images made for disks of either kind.
    ///
    /// A GPT counts only behind an MBR that says so: what an older table left there does not.
    #[must_use]
    pub fn of_gpt(beginning: &[u8]) -> Option<Self> {
        let types = (0..MBR_ENTRIES).map(|entry| MBR_TABLE + entry * MBR_ENTRY_OCTETS + MBR_TYPE);
        let mut types = types.filter_map(|at| beginning.get(at));
        if beginning.get(MBR_MAGIC_AT..MBR_MAGIC_AT + 2) != Some(&MBR_MAGIC)
            || !types.any(|kind| *kind == GPT_TYPE)
        {
            return None;
        }
        let mut found = Self::ALL.into_iter().filter(|size| {
            let header = beginning.get(size.octets() as usize..).unwrap_or_default();
            let place = header.get(GPT_PLACE_AT..GPT_PLACE_AT + 8);
            header.starts_with(GPT_MAGIC) && place == Some(&1u64.to_le_bytes()[..])
        });
        found.next().filter(|_| found.next().is_none())
    }

    /// Octets in a sector.
    #[must_use]
    pub const fn octets(self) -> u32 {
        1 << self.octets_log2
    }

    /// The number of the size in ANNOUNCE: 1 for 512 octets, 4 for 4096.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.octets_log2 - CODE_OFFSET
    }

    /// The size of this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.code() == code)
    }

    const ALL: [Self; 4] = [
        Self { octets_log2: 9 },
        Self { octets_log2: 10 },
        Self { octets_log2: 11 },
        Self { octets_log2: 12 },
    ];
}

impl fmt::Display for SectorSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.octets().fmt(f)
    }
}

/// So much of an image tells what its GPT counts in: the header begins in the second sector.
pub const GPT_OCTETS: usize = 4096 + GPT_PLACE_AT + 8;

/// UEFI specification, table 5-5: the header's first field.
const GPT_MAGIC: &[u8] = b"EFI PART";
/// And where in it the number of the sector stands that it is in.
const GPT_PLACE_AT: usize = 24;
/// UEFI specification, section 5.2.3: the protective MBR.
const GPT_TYPE: u8 = 0xee;
const MBR_TABLE: usize = 446;
const MBR_ENTRIES: usize = 4;
const MBR_ENTRY_OCTETS: usize = 16;
const MBR_TYPE: usize = 4;
const MBR_MAGIC_AT: usize = 510;
const MBR_MAGIC: [u8; 2] = [0x55, 0xaa];
/// 0 is for images without a GPT.
const CODE_OFFSET: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn image(sectors: &[usize]) -> Vec<u8> {
        let mut image = vec![0; GPT_OCTETS];
        image[MBR_TABLE + MBR_ENTRY_OCTETS + MBR_TYPE] = GPT_TYPE;
        image[MBR_MAGIC_AT..MBR_MAGIC_AT + 2].copy_from_slice(&MBR_MAGIC);
        for at in sectors {
            image[*at..*at + 8].copy_from_slice(GPT_MAGIC);
            image[*at + GPT_PLACE_AT] = 1;
        }
        image
    }

    #[test]
    fn a_gpt_is_found_in_the_second_sector_of_each_size() {
        for octets in [512, 1024, 2048, 4096] {
            let found = SectorSize::of_gpt(&image(&[octets as usize])).unwrap();
            assert_eq!(found.octets(), octets);
            assert_eq!(SectorSize::from_octets(octets), Some(found));
            assert_eq!(SectorSize::from_code(found.code()), Some(found));
            assert_eq!(found.to_string(), octets.to_string());
        }
        assert_eq!(SectorSize::from_octets(512).unwrap().code(), 1);
        assert_eq!(SectorSize::from_octets(8192), None);
        assert!([0, 5, 255].into_iter().all(|code| SectorSize::from_code(code).is_none()));
    }

    #[test]
    fn what_is_no_gpt_or_one_for_every_disk_has_no_size() {
        assert_eq!(SectorSize::of_gpt(&image(&[])), None, "an MBR alone");
        assert_eq!(SectorSize::of_gpt(&image(&[512, 4096])), None, "for both");
        let mut stale = image(&[512]);
        stale[MBR_TABLE + MBR_ENTRY_OCTETS + MBR_TYPE] = 0x83;
        assert_eq!(SectorSize::of_gpt(&stale), None, "left over from before the MBR");
        let mut backup = image(&[512]);
        backup[512 + GPT_PLACE_AT] = 2;
        assert_eq!(SectorSize::of_gpt(&backup), None, "not its place");
        for short in [0, 511, 512, 520, 543] {
            assert_eq!(SectorSize::of_gpt(&image(&[512])[..short]), None, "{short}");
        }
        assert!(SectorSize::of_gpt(&image(&[512])[..544]).is_some());
    }
}
