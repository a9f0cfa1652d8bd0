//! The room of bytes: symbols become blocks, blocks are verified, verified blocks are stored.
//!
//! It holds bytes and decides nothing about the protocol: which symbol is wanted, which block may
//! take memory and what happens after a failed check is the session's business, and no socket is
//! known here. Only blocks whose hash matched may be given to the [`Writer`].
//!
//! ```text
//! symbols -> Assembler -> Workbench (decode, verify) -> Writer -> Target
//!                           index blocks -> IndexAssembly -> Index
//!                 Target, old file -> Search -> Writer
//! ```

mod assembler;
mod books;
mod device;
mod direct;
mod disk;
mod ends;
mod file;
mod finish;
mod flusher;
mod guard;
mod holes;
mod index_assembly;
mod journal;
mod keep;
mod losses;
mod medium;
mod openers;
mod order;
mod rate;
mod reading;
mod rescan;
mod search;
mod select;
mod store;
mod sysfs;
mod target;
mod workbench;
mod writer;
mod zeroes;

#[cfg(test)]
mod flaky;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod power_cuts;
#[cfg(test)]
mod testing;

pub use assembler::Assembler;
pub use disk::{Disk, Partition};
pub use guard::DeviceUse;
pub use holes::Holes;
pub use index_assembly::{IndexAssembly, IndexError};
pub use journal::Journal;
pub use keep::{Keep, Keeper, Remains};
pub use rate::DrainRate;
pub use search::Found;
pub use select::Selected;
pub use store::{Progress, Store, Work};
pub use target::{Target, TargetOptions};
pub use workbench::{Checked, Workbench, ZeroBatch};
pub use writer::{Writer, Written};
