//! Sends a disk image to many machines at once.
fn main() {}
