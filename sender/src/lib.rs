//! The sending side.

pub mod cli;
pub mod config;
pub mod error;
pub mod image;
pub mod session;
