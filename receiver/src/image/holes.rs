//! What becomes of ranges that are all zero.

use clap::ValueEnum;

/// How a range of a device comes to read as zeroes. In a file it is a hole, whichever is chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Holes {
    /// Zeroes are written, by the device itself where it can do that
    #[default]
    Zero,
    /// What reads as zeroes already is left alone, the rest is written
    Skip,
    /// The space is given back where the device promises zeroes for it, else written
    Discard,
}
