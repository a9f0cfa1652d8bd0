//! What the tests need of the machine, tried out rather than guessed, and what is missing.

use std::env;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use imgcast_tests::machine::skip;
use imgcast_tests::process::run;

use crate::image::{self, Scratch, free_bytes};
use crate::netns::{self, Lab};

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// Namespaces with bridge, loss and link rate.
    Lab,
    /// Loop devices and permission to mount them.
    Mounts,
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
    image::delete_orphans();
    netns::delete_orphans();
    let mut missing: Vec<String> = needs.iter().filter_map(|need| lacking(*need)).collect();
    missing.dedup();
    if missing.is_empty() {
        return Some(guard);
    }
    skip(test, &missing.join("; "));
    None
}

/// Whether `name` is of the form `imgcast-lab-PID-…`, with a process that is no more.
pub(crate) fn is_orphan(name: &str) -> bool {
    let pid = name.strip_prefix("imgcast-lab-").and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
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
            ("hostname", "hostname"),
        ],
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

/// Whether this process's effective user is root: it owns its entry in /proc.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn try_lab() -> Result<(), String> {
    let lab = Lab::new(1)?;
    lab.lose(0, 1)?;
    lab.cut_multicast(0)?;
    lab.limit_rate(100)
}

fn try_mounts() -> Result<(), String> {
    let scratch = Scratch::new();
    let device = crate::devices::LoopDevice::new(&scratch.path("trial"), 8)?;
    device.format()?;
    let mounted = device.mount(&scratch.path("trial.mounted"))?;
    run(&["ls", mounted.path()]).map(drop)
}

/// The source image and four copies at their largest, and some room to work.
const ROOM_BYTES_MIN: u64 = 10 << 30;
