//! The simulator: whole sessions in virtual time, on a network that loses, bends and delays.
//!
//! A [`World`] owns the clock, the queue of events and the checker. Its nodes are the real
//! sessions of both programs behind models of what surrounds them: disks, preparing threads,
//! sockets. Every datagram travels as octets through the real wire format; FEC and hashes are
//! real too, unless [`Fidelity::Rank`] is asked for.
//!
//! ```text
//!  sender node ── uplink ── backbone ────┬─ link down ─► receiver node (session, assembler, disk)
//!  (session, repair symbols)  ▲          ├─ link down ─► receiver node
//!                             └──────────┴─ link up ──── every receiver node
//! ```
//!
//! One seed explains a run: [`random::config`] draws a whole world from it.

pub mod random;

mod attach;
mod backbone;
mod checker;
mod config;
mod image;
mod network;
mod planted;
mod queue;
mod receiver_node;
mod report;
mod sender_node;
mod store;
mod world;

pub use backbone::{CROSSED_DURING, Crossed};
pub use config::{
    BackboneConfig, Disk, Fidelity, ImageConfig, IntakeConfig, LinkConfig, Loss, RackConfig,
    ReceiverConfig, Restart, SenderConfig, When, Window, WorldConfig,
};
pub use imgcast_sender::session::SlowReceivers;
pub use planted::PlantedBug;
pub use report::{Asked, Ending, ReceiverReport, Report, Sent, Violation};
pub use store::WINDOW_BLOCKS;
pub use world::World;

#[path = "../support/disks.rs"]
pub mod disks;
#[path = "../support/links.rs"]
pub mod links;
#[path = "../support/machine.rs"]
pub mod machine;
#[path = "../support/netns.rs"]
pub mod netns;
#[path = "../support/process.rs"]
pub mod process;
#[path = "../support/programs.rs"]
pub mod programs;
#[path = "../support/scratch.rs"]
pub mod scratch;
#[path = "../support/throttle.rs"]
pub mod throttle;
