//! Why an output is not written to.
//!
//! Nearly all of it is found before the first octet changes there. What only the image itself can
//! tell is found before a device can be mistaken for a whole one, or a file has its name.

use std::io;
use std::path::PathBuf;

use imgcast_common::sectors::SectorSize;
use imgcast_common::units::ByteSize;

use super::evidence::listed;
use crate::image::{DeviceUse, Disk};

/// Why an output is refused.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// No device is called so.
    #[error("no disk here is {wanted}; there are: {}", listed(.disks))]
    NotFound {
        /// What `--output` says.
        wanted: String,
        /// What there is.
        disks: Vec<Disk>,
    },
    /// Several devices are called so.
    #[error(
        "{wanted} is more than one disk; name the one that is meant by something that the others \
         are not: {}",
        listed(.candidates)
    )]
    Ambiguous {
        /// What `--output` says.
        wanted: String,
        /// All that it fits.
        candidates: Vec<Disk>,
    },
    /// The output is nothing an image can be written to.
    #[error(
        "cannot write an image to {}: it is {kind}; name a block device such as /dev/sda, or a \
         file in an existing directory",
        .path.display()
    )]
    Kind {
        /// The output.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// There is a file of that name.
    #[error(
        "{} is there already{}; remove it, name another output, or allow it to be replaced with \
         --overwrite",
        .path.display(),
        kept_text(.kept.as_ref())
    )]
    Exists {
        /// The output.
        path: PathBuf,
        /// Where the image is, if it was complete before the name was taken.
        kept: Option<PathBuf>,
    },
    /// The operator does not want it overwritten.
    #[error("{} is left as it is, as nobody said yes; --yes says so beforehand", .path.display())]
    Declined {
        /// The output.
        path: PathBuf,
    },
    /// The operator sits at a terminal that nothing can be shown on.
    #[error(
        "{} is left as it is, as nobody can be asked: standard error is no terminal, and neither \
         the one at standard input nor /dev/tty can be written to; start again with --yes if it \
         is to be overwritten",
        .path.display()
    )]
    Unasked {
        /// The output.
        path: PathBuf,
    },
    /// The device is in use.
    #[error("{} is in use: {}", .path.display(), listed(.uses))]
    Busy {
        /// The output.
        path: PathBuf,
        /// Everything that uses it; at least one.
        uses: Vec<DeviceUse>,
    },
    /// The device takes no writes.
    #[error(
        "{} is read-only; check its write-protect switch, or allow writes with: \
         blockdev --setrw {}",
        .path.display(),
        .path.display()
    )]
    ReadOnly {
        /// The output.
        path: PathBuf,
    },
    /// The image is larger than the device.
    #[error(
        "{} is too small: it holds {target_bytes} octets ({}), the image has {image_bytes} ({})",
        .path.display(),
        ByteSize(*.target_bytes),
        ByteSize(*.image_bytes)
    )]
    TooSmall {
        /// The output.
        path: PathBuf,
        /// Octets of the image.
        image_bytes: u64,
        /// Octets of the device.
        target_bytes: u64,
    },
    /// The image's partition table means nothing on this device.
    #[error(
        "{} has sectors of {target_octets} octets, and the image's partition table (GPT) is for \
         sectors of {image_octets}: no system would find its partitions; use an image made for \
         such disks, or switch the sector size of the disk if it has several",
        .path.display()
    )]
    SectorSize {
        /// The output.
        path: PathBuf,
        /// Octets in a logical sector of the device.
        target_octets: u32,
        /// What the table counts in.
        image_octets: SectorSize,
    },
    /// The image does not fit into the file system of the output.
    #[error(
        "not enough room for {}: its file system has {free_bytes} octets ({}) free, the image \
         needs {needed_bytes} ({}); make room, or name an output elsewhere",
        .path.display(),
        ByteSize(*.free_bytes),
        ByteSize(*.needed_bytes)
    )]
    NoRoom {
        /// The output.
        path: PathBuf,
        /// Octets of the image that are to be stored.
        needed_bytes: u64,
        /// Octets free for this user.
        free_bytes: u64,
    },
    /// The directory of the output cannot be opened, which is to be synced at the end.
    #[error(
        "cannot open directory {}: {source}; without that a new name in it cannot be made to last; \
         allow it to be read, or name an output elsewhere",
        .path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The output cannot be opened or created.
    #[error(
        "cannot open {} for writing: {source}; check the path and its permissions",
        .path.display()
    )]
    Open {
        /// The file, device or directory that was tried.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl TargetError {
    /// The name of the variant for programs: it never changes.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "target-not-found",
            Self::Ambiguous { .. } => "target-ambiguous",
            Self::Kind { .. } => "target-kind",
            Self::Exists { .. } => "target-exists",
            Self::Declined { .. } => "target-declined",
            Self::Unasked { .. } => "target-unasked",
            Self::Busy { .. } => "target-busy",
            Self::ReadOnly { .. } => "target-read-only",
            Self::TooSmall { .. } => "target-too-small",
            Self::SectorSize { .. } => "target-sector-size",
            Self::NoRoom { .. } => "target-no-room",
            Self::Directory { .. } => "target-directory",
            Self::Open { .. } => "target-open",
        }
    }
}

fn kept_text(kept: Option<&PathBuf>) -> String {
    let text = |kept: &PathBuf| {
        format!(", since a moment ago: the image is complete, and kept as {}", kept.display())
    };
    kept.map(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::error::Error;

    fn samples() -> Vec<TargetError> {
        let path = || PathBuf::from("/dev/sdz");
        let wanted = || "serial=1".to_owned();
        let image_octets = SectorSize::from_octets(512).unwrap();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        vec![
            TargetError::NotFound { wanted: wanted(), disks: vec![] },
            TargetError::Ambiguous { wanted: wanted(), candidates: vec![] },
            TargetError::Kind { path: path(), kind: "a directory" },
            TargetError::Exists { path: path(), kept: Some(path()) },
            TargetError::Declined { path: path() },
            TargetError::Unasked { path: path() },
            TargetError::Busy { path: path(), uses: vec![DeviceUse::Unknown] },
            TargetError::ReadOnly { path: path() },
            TargetError::TooSmall { path: path(), image_bytes: 3 << 30, target_bytes: 1 << 30 },
            TargetError::SectorSize { path: path(), target_octets: 4096, image_octets },
            TargetError::NoRoom { path: path(), needed_bytes: 4096, free_bytes: 512 },
            TargetError::Directory { path: path(), source: denied() },
            TargetError::Open { path: path(), source: denied() },
        ]
    }

    #[test]
    fn every_refusal_ends_with_7_and_has_a_code_of_its_own() {
        let samples = samples();
        let codes: BTreeSet<&str> = samples.iter().map(TargetError::code).collect();
        assert_eq!(codes.len(), samples.len());
        assert!(codes.iter().all(|code| code.starts_with("target-")));
        for refusal in samples {
            let code = refusal.code();
            let error = Error::from(refusal);
            assert_eq!((error.exit_code(), error.code()), (7, code));
        }
    }

    #[test]
    fn texts_say_what_and_leave_no_gaps() {
        for refusal in samples() {
            let text = refusal.to_string();
            assert!(!text.contains("  ") && !text.contains('\n') && !text.ends_with('.'), "{text}");
            assert!(text.contains("/dev/sdz") || text.contains("serial=1"), "{text}");
        }
        assert_eq!(
            samples()[8].to_string(),
            "/dev/sdz is too small: it holds 1073741824 octets (1.0 GiB), the image has \
             3221225472 (3.0 GiB)"
        );
        let path = PathBuf::from("/srv/x");
        assert_eq!(
            TargetError::Exists { path, kept: None }.to_string(),
            "/srv/x is there already; remove it, name another output, or allow it to be replaced \
             with --overwrite"
        );
    }
}
