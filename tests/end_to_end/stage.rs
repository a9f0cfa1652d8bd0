//! A place for one test: a directory, a pair of ports, and the two programs' command lines.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use imgcast_tests::process::Process;
use imgcast_tests::programs::programs;

/// Dropping it removes the directory with all that is in it.
#[derive(Debug)]
pub(crate) struct Stage {
    logs: PathBuf,
    outputs: PathBuf,
    pub(crate) portbase: u16,
}

impl Stage {
    pub(crate) fn new() -> Self {
        static STAGES: AtomicU16 = AtomicU16::new(0);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let root = std::env::temp_dir().join(format!("imgcast-end-to-end-{process}-{number}"));
        let (logs, outputs) = (root.join("logs"), root.join("outputs"));
        for directory in [&logs, &outputs] {
            fs::create_dir_all(directory).expect("a directory can be made");
        }
        let block = u16::try_from(process % PORT_BLOCKS).expect("there are few blocks");
        let portbase = PORT_MIN + block * PORTS_PER_PROCESS + number % (PORTS_PER_PROCESS / 2) * 2;
        Self { logs, outputs, portbase }
    }

    /// A path for an output file, in a directory where nothing else is.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.outputs.join(name)
    }

    /// What lies beside the output files now, these included; sorted.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.outputs).expect("the directory is there");
        let names = entries.map(|entry| entry.expect("it can be listed").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A path for anything else.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }

    /// Writes an image.
    pub(crate) fn image(&self, name: &str, octets: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, octets).expect("an image can be written");
        path
    }

    /// Starts a sender of `image`.
    pub(crate) fn send(&self, image: &Path, options: &[&str]) -> Process {
        self.start("sender", self.sender(image, options))
    }

    /// The command line of a sender.
    pub(crate) fn sender(&self, image: &Path, options: &[&str]) -> Command {
        let mut command = self.program(&programs().sender);
        command.arg("send").arg(image).args(options);
        command
    }

    /// Starts a receiver that writes to `name` among the outputs.
    pub(crate) fn receive(&self, name: &str, options: &[&str]) -> Process {
        self.start(&format!("receiver-{name}"), self.receiver(&self.output(name), options))
    }

    /// The command line of a receiver.
    pub(crate) fn receiver(&self, output: &Path, options: &[&str]) -> Command {
        let mut command = self.program(&programs().receiver);
        command.args(["receive", "--output"]).arg(output).args(options);
        command
    }

    /// Starts `imgcast-receiver list`.
    pub(crate) fn list(&self, options: &[&str]) -> Process {
        self.start("list", self.lister(options))
    }

    pub(crate) fn lister(&self, options: &[&str]) -> Command {
        let mut command = self.program(&programs().receiver);
        command.arg("list").args(options);
        command
    }

    pub(crate) fn start(&self, name: &str, command: Command) -> Process {
        Process::start(name, command, &self.logs)
    }

    fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let ours = std::env::vars_os()
            .filter(|(name, _)| name.to_string_lossy().starts_with("IMGCAST_"))
            .map(|(name, _)| name);
        ours.for_each(|name| {
            command.env_remove(name);
        });
        // By environment, so that a test can give the options themselves other values.
        command
            .env("IMGCAST_INTERFACE", "lo")
            .env("IMGCAST_PORTBASE", self.portbase.to_string())
            .env("XDG_CACHE_HOME", self.logs.join("cache"));
        command
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(root) = self.logs.parent() {
            let _ = fs::remove_dir_all(root);
        }
    }
}

/// The same command behind `script`, which ends in `exec "$0" "$@"`.
pub(crate) fn under(script: &str, command: &Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Runs `command` with room for ever more open files, from none beside its standard ones to
/// nearly enough, and returns what it said whenever it ended with 1. A limit to files holds for
/// root, too, and where it strikes differs only a little from system to system.
pub(crate) fn said_without_files(name: &str, stage: &Stage, command: &Command) -> String {
    let mut said = String::new();
    for files in (4..=12).chain([20, 32]) {
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let mut process = stage.start(name, under(&script, command));
        let code = process.wait(DEADLINE).status.code();
        // Without libraries, without an interface or a socket, or just so with all it needs.
        assert!(matches!(code, Some(1 | 3 | 4 | 127)), "{files}: {code:?}\n{}", process.output());
        assert!(!process.stderr().contains("panicked"), "{files}: {}", process.output());
        if code == Some(1) {
            said += &process.stderr();
        }
    }
    said
}

/// Octets that do not compress, the same in every run.
pub(crate) fn random(count: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut stream = blake3::Hasher::new().update(b"end to end").finalize_xof();
    io::copy(&mut (&mut stream).take(count as u64), &mut octets).expect("memory takes it");
    octets
}

/// Checks that the file holds exactly `octets`, without printing either.
pub(crate) fn assert_holds(path: &Path, octets: &[u8]) {
    let copy = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let same = copy == octets;
    assert!(same, "{}: {} octets, not the {} sent", path.display(), copy.len(), octets.len());
}

/// What the sender calls an image, as `b3sum` prints it.
pub(crate) fn image_id(octets: &[u8]) -> String {
    blake3::hash(octets).to_hex().to_string()
}

/// Much longer than anything here takes on a machine that is busy with something else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Octets in a block of any image here.
pub(crate) const BLOCK: usize = 1 << 20;
/// So slow that a transfer of [`LONG`] takes a quarter of a minute: the test cuts it short.
pub(crate) const SLOW: [&str; 2] = ["--max-bitrate", "40M"];
/// Octets of an image whose transfer is not to end by itself.
pub(crate) const LONG: usize = 64 * BLOCK;

/// Below the ports that the kernel hands out.
const PORT_MIN: u16 = 10_000;
/// Two for each stage.
const PORTS_PER_PROCESS: u16 = 200;
/// Test processes that run at the same time have neighbouring ids.
const PORT_BLOCKS: u32 = 100;
