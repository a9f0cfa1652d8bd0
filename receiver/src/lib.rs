//! The receiving side.

pub mod cli;
pub mod config;
mod consent;
pub mod driver;
pub mod error;
pub mod image;
pub mod keep_args;
pub mod list;
pub mod memory;
pub mod outcome;
pub mod pace;
mod report;
pub mod session;
mod sockets;
