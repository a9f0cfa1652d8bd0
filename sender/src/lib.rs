//! The sending side.

pub mod cli;
pub mod config;
pub mod driver;
pub mod error;
pub mod image;
mod keyboard;
mod offered;
pub mod parameters;
pub mod pump;
mod reader;
mod report;
pub mod session;
