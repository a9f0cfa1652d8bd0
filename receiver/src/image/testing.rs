//! What the tests of this room share: scratch directories, loop devices, skips that are seen.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// A directory that goes with its test.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("imgcast-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The names in it, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A loop device over a file full of `FILLING`, gone with its test.
pub(super) struct LoopDevice {
    path: PathBuf,
    scratch: Scratch,
}

impl LoopDevice {
    /// `None`, said by name, where this host cannot have one.
    pub(super) fn attach(test: &str, bytes: usize) -> Option<Self> {
        Self::attach_with(&["--find", "--show", "--partscan"], test, bytes)
    }

    /// One that takes no writes.
    pub(super) fn attach_read_only(test: &str, bytes: usize) -> Option<Self> {
        Self::attach_with(&["--find", "--show", "--read-only"], test, bytes)
    }

    /// One with logical sectors of so many octets.
    pub(super) fn attach_of_sectors(test: &str, bytes: usize, octets: u32) -> Option<Self> {
        let octets = octets.to_string();
        Self::attach_with(&["--find", "--show", "--sector-size", &octets], test, bytes)
    }

    fn attach_with(options: &[&str], test: &str, bytes: usize) -> Option<Self> {
        // The owner of our own /proc entry is who we are.
        if fs::metadata("/proc/self").unwrap().uid() != 0 {
            skip(test, "loop devices need root");
            return None;
        }
        let scratch = Scratch::new();
        let backing = scratch.path().join("backing");
        fs::write(&backing, vec![FILLING; bytes]).unwrap();
        let output = run("losetup", &[options, &[backing.to_str().unwrap()]].concat());
        let Some(output) = output else {
            skip(test, "losetup cannot attach a loop device here");
            return None;
        };
        Some(Self { path: output.trim().into(), scratch })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is on it, past every cache of this process.
    pub(super) fn contents(&self) -> Vec<u8> {
        File::open(&self.path).unwrap().sync_all().unwrap();
        fs::read(&self.path).unwrap()
    }

    /// The file behind it.
    pub(super) fn backing(&self) -> PathBuf {
        self.scratch.path().join("backing")
    }

    /// A directory for mount points and other files.
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.path.to_str().unwrap()]);
    }
}

/// The standard output of a command; `None` if it is missing or fails.
pub(super) fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let spawning = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().ok()?;
    drop(spawning);
    let output = child.wait_with_output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Closes what holds a device. Before its exec, a command that another test has just started holds
/// all the same.
pub(super) fn close<T>(holder: T) {
    let _nothing_starts = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(holder);
}

/// Says that a test is skipped, and fails it where all are demanded.
pub(super) fn skip(test: &str, why: &str) {
    // Not `eprintln`: the test harness would keep it to itself.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    let demanded = std::env::var_os("IMGCAST_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!demanded, "IMGCAST_REQUIRE_ALL=1, but {test} cannot run: {why}");
}

static SPAWNING: Mutex<()> = Mutex::new(());

/// What a loop device is full of at first.
pub(super) const FILLING: u8 = 0xee;
