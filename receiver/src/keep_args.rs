//! The options on what outlives a run, and how sure it has to be of its end.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;

use crate::cli::IMAGE;
use crate::image::Keep;

/// What to keep, and what to look for.
#[derive(Clone, Debug, clap::Args)]
pub struct KeepArgs {
    /// Fetch only what the target does not hold yet
    ///
    /// Blocks that an earlier run wrote, or that the image has in common with
    /// what is on the target, are hashed and kept. A file that is there is
    /// replaced in the end, as with --overwrite. One that is not complete
    /// stays, as .NAME.imgcast-part, with .NAME.imgcast-journal beside it;
    /// a disk is hashed as a whole, unless there is a --journal.
    #[arg(long, env = "IMGCAST_RESUME", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = IMAGE)]
    pub resume: bool,

    /// Note in PATH what is on disk, so that --resume hashes only that
    ///
    /// Without --resume it begins anew. Best on another disk or in memory
    /// (/run); it is removed when the image is complete.
    #[arg(long, value_name = "PATH", env = "IMGCAST_JOURNAL", hide_env_values = true)]
    #[arg(help_heading = IMAGE)]
    pub journal: Option<PathBuf>,

    /// Read everything back from the disk, and compare it, before it counts
    ///
    /// What the disk did not keep is fetched again. Takes as long as reading
    /// the disk does.
    #[arg(long, env = "IMGCAST_READ_BACK", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new(), help_heading = IMAGE)]
    pub read_back: bool,
}

impl From<KeepArgs> for Keep {
    fn from(args: KeepArgs) -> Self {
        let KeepArgs { resume: resumes, journal, read_back: reads_back } = args;
        Self { resumes, journal, reads_back }
    }
}
