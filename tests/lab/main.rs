//! Both programs as real processes in network namespaces: real sockets, a bridge with IGMP and
//! MLD snooping, loss, cut links, block devices.
//!
//! The tests need root and some system tools. What is missing is named on standard error and the
//! test passes, unless `IMGCAST_REQUIRE_ALL=1` is set: then it fails. They measure, so they run
//! one at a time.

mod bench;
mod broken;
mod crowd;
mod devices;
mod differential;
mod failing;
mod image;
mod loss;
mod needs;
mod paths;
mod rate;
mod resuming;
mod slow;
mod timing;
mod transfer;
mod wrong_disk;
mod wrong_disk_in_use;
