//! What a disk did not take or keep: which blocks have to be fetched again, and when to give up.

use std::collections::BTreeMap;
use std::ops::Range;

use nix::errno::Errno;

use crate::error::Error;

/// How often writing has failed.
#[derive(Debug, Default)]
pub(super) struct Losses {
    of_blocks: BTreeMap<u32, u8>,
    in_a_row: u32,
}

impl Losses {
    /// These blocks are lost for this reason, which is given back when there is no use in writing
    /// them again.
    ///
    /// # Errors
    /// `error`, when another try would end alike, or enough have.
    pub(super) fn note(&mut self, blocks: &[u32], error: Error) -> Result<Error, Error> {
        self.in_a_row += 1;
        let mut most = 0;
        for block in blocks {
            let times = self.of_blocks.entry(*block).or_default();
            *times = times.saturating_add(1);
            most = most.max(*times);
        }
        let is_hopeless = most > BLOCK_LOSSES_MAX || self.in_a_row > LOSSES_IN_A_ROW_MAX;
        if is_hopeless || !may_pass(&error) { Err(error) } else { Ok(error) }
    }

    /// Whether one of these blocks was lost before.
    pub(super) fn have_any_of(&self, blocks: &Range<u32>) -> bool {
        self.of_blocks.range(blocks.clone()).next().is_some()
    }

    /// Something was written, and is on disk.
    pub(super) const fn note_success(&mut self) {
        self.in_a_row = 0;
    }
}

/// Whether a second write may fare better: a disk that finds a bad sector takes another one for it
/// when that is written again. What is full, gone or read-only stays so.
fn may_pass(error: &Error) -> bool {
    let source = match error {
        Error::Write { source, .. } | Error::Flush { source, .. } => source,
        Error::ReadBack { .. } => return true,
        _ => return false,
    };
    let passing = [
        Errno::EIO,
        Errno::EREMOTEIO,
        Errno::ETIMEDOUT,
        Errno::EILSEQ,
        Errno::ENODATA,
        Errno::EAGAIN,
        Errno::ENOMEM,
    ];
    source.raw_os_error().is_some_and(|code| passing.contains(&Errno::from_raw(code)))
}

/// A sector that fails more often will not be replaced.
const BLOCK_LOSSES_MAX: u8 = 3;
/// Between them nothing worked: that is no bad sector, the disk is gone.
const LOSSES_IN_A_ROW_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn error(errno: Errno) -> Error {
        Error::Write { path: "disk".into(), offset: 0, source: io::Error::from(errno) }
    }

    #[test]
    fn a_block_is_worth_three_tries_more_and_a_dead_disk_eight() {
        let mut losses = Losses::default();
        for _ in 0..3 {
            losses.note(&[7], error(Errno::EIO)).unwrap();
            losses.note_success();
        }
        assert_eq!(losses.note(&[7], error(Errno::EIO)).unwrap_err().code(), "write");
        let mut losses = Losses::default();
        for block in 0..8 {
            losses.note(&[block], error(Errno::EIO)).unwrap();
        }
        losses.note(&[8], error(Errno::EIO)).unwrap_err();
    }

    #[test]
    fn what_was_lost_once_is_known() {
        let mut losses = Losses::default();
        losses.note(&[7, 9], error(Errno::EIO)).unwrap();
        losses.note_success();
        for (run, had_any) in [(0..7, false), (0..8, true), (8..9, false), (9..20, true)] {
            assert_eq!(losses.have_any_of(&run), had_any, "{run:?}");
        }
    }

    #[test]
    fn what_is_full_or_gone_is_not_tried_again() {
        for errno in [Errno::ENOSPC, Errno::EROFS, Errno::ENODEV, Errno::EDQUOT, Errno::EFBIG] {
            Losses::default().note(&[1], error(errno)).unwrap_err();
        }
    }
}
