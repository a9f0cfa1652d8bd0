//! What the tests need of the machine, tried out rather than guessed, and what is missing.

use std::env;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use imgcast_tests::netns::{self, Lab};
use imgcast_tests::process::run;
use imgcast_tests::scratch::{self, Scratch};
use imgcast_tests::throttle::{self, Throttle};
use imgcast_tests::{
    machine::skip,
    netns::{is_installed, is_root},
};

use crate::image::free_bytes;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// Namespaces with bridge, loss and link rate.
    Lab,
    /// Loop devices and permission to mount them.
    Mounts,
    /// Control groups that hold up who writes to a loop device.
    Throttle,
    /// What builds and checks the Debian image, and room for it and four copies.
    DebianImage,
}

/// Begins `test`: waits until no other one runs and returns the guard that keeps it so, or says
/// on standard error what is missing and returns `None`.
///
/// # Panics
///
/// If something is missing and `IMGCAST_REQUIRE_ALL=1` is set.
pub(crate) fn begin(test: &str, needs: &[Need]) -> Option<MutexGuard<'static, ()>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // Poisoned or not: a test that failed has cleaned up like any other.
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    scratch::delete_orphans(&env::temp_dir());
    scratch::delete_orphans(Path::new(scratch::MEMORY));
    netns::delete_orphans();
    throttle::delete_orphans();
    let mut missing: Vec<String> = needs.iter().filter_map(|need| lacking(*need)).collect();
    missing.dedup();
    if missing.is_empty() {
        return Some(guard);
    }
    skip(test, &missing.join("; "));
    None
}

/// Why the machine cannot give `need`, if it cannot.
fn lacking(need: Need) -> Option<String> {
    if !is_root() {
        return Some("not root".to_owned());
    }
    let missing: Vec<String> = programs_of(need)
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(program, package)| format!("{program} is not installed (package {package})"))
        .collect();
    if !missing.is_empty() {
        return Some(missing.join("; "));
    }
    match need {
        Need::Lab => {
            static LAB: OnceLock<Option<String>> = OnceLock::new();
            LAB.get_or_init(|| try_lab().err()).clone()
        }
        Need::Mounts => {
            static MOUNTS: OnceLock<Option<String>> = OnceLock::new();
            MOUNTS.get_or_init(|| try_mounts().err()).clone()
        }
        Need::Throttle => {
            static THROTTLE: OnceLock<Option<String>> = OnceLock::new();
            THROTTLE.get_or_init(|| try_throttle().err()).clone()
        }
        Need::DebianImage => {
            let free = free_bytes(&env::temp_dir());
            (free < ROOM_BYTES_MIN).then(|| {
                let directory = env::temp_dir().display().to_string();
                format!("{directory} has {free} bytes free, {ROOM_BYTES_MIN} are needed")
            })
        }
    }
}

/// The programs behind `need` and the Debian packages that have them.
fn programs_of(need: Need) -> &'static [(&'static str, &'static str)] {
    match need {
        Need::Lab => &[
            ("ip", "iproute2"),
            ("tc", "iproute2"),
            ("nft", "nftables"),
            ("ethtool", "ethtool"),
            ("unshare", "util-linux"),
            ("setpriv", "util-linux"),
            ("taskset", "util-linux"),
            ("hostname", "hostname"),
        ],
        Need::Throttle => &[("losetup", "mount")],
        Need::Mounts => &[("losetup", "mount"), ("mount", "mount"), ("mkfs.ext4", "e2fsprogs")],
        // The script installs what else it needs.
        Need::DebianImage => &[
            ("apt-get", "apt"),
            ("b3sum", "b3sum"),
            ("sha256sum", "coreutils"),
            ("e2fsck", "e2fsprogs"),
            ("sfdisk", "fdisk"),
        ],
    }
}

fn try_lab() -> Result<(), String> {
    let lab = Lab::new(1)?;
    lab.lose(0, 1)?;
    lab.cut_multicast(0)?;
    lab.count(0, "trial", "meta l4proto udp udp length > 0")?;
    lab.counted(0, "trial")?;
    lab.limit_rate(100)
}

fn try_mounts() -> Result<(), String> {
    let scratch = Scratch::temporary();
    let device = crate::devices::LoopDevice::new(&scratch.path("trial"), 8)?;
    device.format()?;
    let mounted = device.mount(&scratch.path("trial.mounted"))?;
    run(&["ls", mounted.path()]).map(drop)
}

fn try_throttle() -> Result<(), String> {
    let scratch = Scratch::temporary();
    let device = crate::devices::LoopDevice::new(&scratch.path("trial"), 1)?;
    Throttle::new(device.path(), 1 << 20).map(drop)
}

/// The source image and four copies at their largest, and some room to work.
const ROOM_BYTES_MIN: u64 = 10 << 30;
