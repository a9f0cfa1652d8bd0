//! The bytes of the image: where they come from, what they hash to, and the symbols made of them.
//!
//! This room reads the image, builds or remembers its index, and prepares the symbols of a turn.
//! It knows no receiver and no clock; which block is sent when is decided by the session.
//!
//! ```text
//!  ImageSource ── build_index ──> Index <── IndexCache
//!       │                           │
//!       └──> Preparer: read, verify, encode ──> PreparedBlock: symbols 0 … S−1, repairs
//! ```

mod cache;
mod indexer;
mod preparer;
mod source;
mod watch;

pub use cache::IndexCache;
pub use indexer::build_index;
pub use preparer::{Prepared, PreparedBlock, Preparer, TurnRequest};
pub use source::{Identity, ImageSource};
pub use watch::Watch;

#[cfg(test)]
mod testing;
