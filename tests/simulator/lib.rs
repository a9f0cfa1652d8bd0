//! The simulator.

#[path = "../support/programs.rs"]
pub mod programs;
