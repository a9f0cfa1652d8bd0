//! Group sockets, batches and interfaces: the only I/O that both programs share.
//!
//! This room moves octets between a socket and memory and says in words what went wrong. It knows
//! no message and no clock; what the octets mean is the business of `wire`, when to send them that
//! of the sessions.
//!
//! ```text
//!                    ┌── NodeSocket ──┐             ┌── GroupSocket ──┐
//!  BatchSender ────> │ address:port   │ ── group ─> │ group:port      │ ──> BatchReceiver ─> Batch
//!   (UDP_SEGMENT,    │ of this node   │             │ joined, shared  │      (UDP_GRO, recvmmsg)
//!    sendmmsg)       └────── ^ ───────┘             └─────────────────┘
//!                            └── unicast, both ways: a BatchReceiver reads it too
//! ```
//!
//! A node has one [`NodeSocket`] for all it sends and all unicast it hears, so that several nodes
//! share a host, and one [`GroupSocket`] for each group it listens to.

mod batch;
mod error;
mod interface;
mod options;
mod receive;
mod route;
mod send;
mod socket;

pub use batch::{Batch, BatchLayout, BatchPool};
pub use error::NetError;
pub use interface::{Family, Interface, max_datagram_octets};
pub use options::BufferGrant;
pub use receive::BatchReceiver;
pub use send::{BatchSender, Datagram, Offload, Sent};
pub use socket::{GroupSocket, NodeSocket};
