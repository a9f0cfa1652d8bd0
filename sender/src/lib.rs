//! The sending side.

pub mod cli;
pub mod config;
pub mod driver;
pub mod error;
pub mod image;
mod keyboard;
mod member_words;
mod not_taken;
mod offered;
pub mod parameters;
pub mod pump;
mod reader;
mod report;
pub mod session;
