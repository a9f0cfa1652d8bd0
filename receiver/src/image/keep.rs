//! What is to be known of a transfer beyond the run that makes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::file::{beside, kept_beside};
use super::journal::Journal;
use super::target::Kind;
use crate::error::{Error, TargetError};

/// What the operator wants to be kept, and looked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Keep {
    /// Go on with what an earlier run, or an older image, left on the target.
    pub resumes: bool,
    /// Where the journal is; without it, a run that resumes has one beside a file, and none for a
    /// device.
    pub journal: Option<PathBuf>,
    /// Read the whole target back before it counts as right.
    pub reads_back: bool,
}

impl Keep {
    /// Whether a run that ends early leaves behind what it has.
    pub(super) const fn leaves_a_trace(&self) -> bool {
        self.resumes || self.journal.is_some()
    }
}

/// Where a run that keeps what it has will leave that.
#[derive(Clone, Debug)]
pub struct Keeper {
    path: PathBuf,
    is_file: bool,
    journal: Option<PathBuf>,
}

impl Keeper {
    /// For a target of this kind, which the operator calls `shown`; `None` if nothing is kept.
    pub(super) fn new(kind: &Kind, shown: &Path, keep: &Keep) -> Option<Self> {
        let (path, is_file) = match kind {
            Kind::File(file) => (kept_beside(file.path()), true),
            Kind::Device(_) => (shown.to_owned(), false),
        };
        let journal = keep.journal.clone();
        keep.leaves_a_trace().then_some(Self { path, is_file, journal })
    }

    /// What there is, once the target is closed: a file that nothing was written to is gone.
    #[must_use]
    pub fn remains(self) -> Option<Remains> {
        let Self { path, is_file, journal } = self;
        (!is_file || path.exists()).then_some(Remains { path, journal })
    }
}

/// What an earlier end leaves to a later run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remains {
    /// The disk or file that has a part of the image.
    pub path: PathBuf,
    /// The journal that the operator named.
    pub journal: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) journal: Option<Journal>,
    /// Whether the target itself may hold parts of the image.
    pub(super) in_place: bool,
    /// The file that is to be replaced.
    pub(super) old: Option<File>,
    pub(super) reads_back: bool,
}

impl Kept {
    /// Looks for what there is of a target.
    ///
    /// # Errors
    /// [`Error::Usage`] if the journal cannot be used, [`Error::Target`] if the file that is
    /// there cannot be read.
    pub(super) fn open(kind: &Kind, keep: &Keep) -> Result<Self, Error> {
        let reads_back = keep.reads_back;
        if !keep.leaves_a_trace() {
            return Ok(Self { reads_back, ..Self::default() });
        }
        let (beside, in_place, old) = match kind {
            Kind::Device(_) => (None, keep.resumes, None),
            Kind::File(file) => {
                let path = file.path();
                let old = if keep.resumes { open_old(path)? } else { None };
                (Some(beside(path, ".imgcast-journal")), file.had_before(), old)
            }
        };
        if let (Some(journal), Kind::File(file)) = (&keep.journal, kind)
            && is_same_path(journal, file.path())
        {
            let text = format!("{} is the output", journal.display());
            return Err(Error::Usage { option: "--journal", text });
        }
        let option = if keep.journal.is_some() { "--journal" } else { "--resume" };
        let path = keep.journal.clone().or(beside);
        let journal = path.map(|path| Journal::open(&path, option, !keep.resumes)).transpose()?;
        Ok(Self { journal, in_place, old, reads_back })
    }
}

/// The file that will be replaced, if there is one.
fn open_old(path: &Path) -> Result<Option<File>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let opened = File::open(path);
    opened.map(Some).map_err(|source| TargetError::Open { path: path.into(), source }.into())
}

fn is_same_path(one: &Path, canonical: &Path) -> bool {
    let parent = one.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = fs::canonicalize(parent).ok();
    one.file_name() == canonical.file_name() && directory.as_deref() == canonical.parent()
}
