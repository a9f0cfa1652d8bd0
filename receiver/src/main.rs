//! Receives a disk image that is sent to many machines at once.
fn main() {}
