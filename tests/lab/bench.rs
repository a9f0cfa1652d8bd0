//! A disk that must not be written to, and a receiver that is told to, in a mount namespace that a
//! shell script prepares.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::MutexGuard;
use std::time::Duration;

use imgcast_tests::process::{Process, run, wait_until};
use imgcast_tests::programs::programs;
use imgcast_tests::scratch::Scratch;
use nix::sys::stat::{major, minor};

use crate::devices::LoopDevice;
use crate::image::{sha256, text};
use crate::needs::{Need, begin};

/// A disk that is not to be touched, and a place for what is around it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) disk: LoopDevice,
    pub(crate) scratch: Scratch,
    _alone: MutexGuard<'static, ()>,
}

impl Bench {
    /// `None` where `test` cannot run; `options` are those of losetup.
    pub(crate) fn new(test: &str, options: &[&str]) -> Option<Self> {
        let alone = begin(test, &[Need::Mounts])?;
        let scratch = Scratch::temporary();
        fs::create_dir(scratch.path("mnt")).unwrap();
        let options = [&["--partscan"], options].concat();
        let disk = LoopDevice::with(&scratch.path("disk"), DISK_OCTETS as u64 >> 20, &options);
        let disk = disk.unwrap();
        let octets: Vec<u8> = (0..=255).cycle().take(DISK_OCTETS).collect();
        File::options().write(true).open(disk.path()).unwrap().write_all(&octets).unwrap();
        Some(Self { disk, scratch, _alone: alone })
    }

    pub(crate) fn name(&self) -> String {
        text(self.disk.path()).to_owned()
    }

    /// Has the receiver told to write to `output` where `script` was run before, and checks that it
    /// does not, and why.
    pub(crate) fn refuses(&self, code: &str, script: &str, output: &str, words: &str) {
        let before = sha256(self.disk.path());
        let said = self.receive(script, output, &[]);
        assert_eq!(sha256(self.disk.path()), before, "{said}");
        assert!(said.contains(&format!("error[{code}]: ")), "{said}");
        assert!(said.contains(words), "no {words:?}: {said}");
        assert!(said.contains("\nexit code 7\n"), "{said}");
        assert!(!said.contains("overwriting "), "{said}");
    }

    /// What the receiver says there, with its exit code.
    pub(crate) fn receive(&self, script: &str, output: &str, options: &[&str]) -> String {
        let portbase = PORTBASE.to_string();
        let network = ["--interface", "lo", "--portbase", &portbase, "--start-timeout", "3"];
        let arguments = [&["receive", "--output", output][..], &network, options].concat();
        let command = self.command(script, &arguments);
        let mut receiver = Process::start("receiver", command, self.scratch.directory());
        let code = receiver.wait(DEADLINE).status.code();
        format!("{}\nexit code {}\n", receiver.stderr(), code.unwrap_or(-1))
    }

    /// The receiver in a mount namespace of its own, after `script`.
    pub(crate) fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let script = format!("{script}\nexec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", &script]).arg(&programs().receiver).args(arguments);
        command
            .env("DISK", self.disk.path())
            .env("NAME", self.disk.path().file_name().unwrap())
            .env("NUMBER", number_of(self.disk.path()))
            .env("DIR", self.scratch.directory())
            .env("DONE", "mount --bind sys /sys");
        command
    }

    pub(crate) fn run_script(&self, script: &str) {
        let script = format!("{script}; exit 0");
        let command = self.command(&script, &[]);
        Process::start("script", command, self.scratch.directory()).succeed(DEADLINE);
    }

    /// Adds a partition of 1 MiB behind the first MiB.
    pub(crate) fn add_partition(&self) {
        run(&["addpart", &self.name(), "1", "2048", "2048"]).unwrap();
        let partition = format!("{}p1", self.name());
        wait_until("the partition is there", DEADLINE, || Path::new(&partition).exists());
    }

    /// Offers an image.
    pub(crate) fn send(&self, image: &[u8]) -> Process {
        let path = self.scratch.path("image");
        fs::write(&path, image).unwrap();
        self.send_from(&path, PORTBASE)
    }

    /// Offers what is at `path`, on a port of the sender's own or on that of all receivers here.
    pub(crate) fn send_from(&self, path: &Path, portbase: u16) -> Process {
        let mut command = Command::new(&programs().sender);
        command.arg("send").arg(path).args(["--interface", "lo", "--portbase"]);
        command.arg(portbase.to_string());
        let name = format!("sender-{portbase}");
        let mut sender = Process::start(&name, command, self.scratch.directory());
        sender.say("waiting for receivers", DEADLINE);
        sender
    }

    /// Words with what they stand for.
    pub(crate) fn words(&self, words: &str) -> String {
        let words = words.replace("${DISK}", &self.name()).replace("$DISK", &self.name());
        words.replace("$DIR", text(self.scratch.directory()))
    }
}

/// `7:0`.
pub(crate) fn number_of(device: &Path) -> String {
    let number = device.metadata().unwrap().rdev();
    format!("{}:{}", major(number), minor(number))
}

/// Of every disk here.
pub(crate) const DISK_OCTETS: usize = 4 << 20;
/// Nobody else's on loopback: the tests of this program run one at a time.
const PORTBASE: u16 = 9630;
/// Much longer than any of it takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
