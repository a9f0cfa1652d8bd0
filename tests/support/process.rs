//! Processes that are always ended: by exit, by deadline, or with the value that owns them.
#![expect(clippy::disallowed_methods, reason = "real processes run in real time")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running or finished command with its output in files. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    started: Instant,
    end: Option<End>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; `name` names it in messages and its output files in `logs`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Self {
        let stdout = logs.join(format!("{name}.stdout"));
        let stderr = logs.join(format!("{name}.stderr"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a log file can be created"))
            .stderr(File::create(&stderr).expect("a log file can be created"));
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        Self { name: name.to_owned(), child, started: Instant::now(), end: None, stdout, stderr }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time that processors have spent on it so far, in its own code and in the kernel.
    ///
    /// # Panics
    /// If it has been waited for.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.id());
        let text = fs::read_to_string(path).expect("the kernel tells of a child");
        // The name, in parentheses, may hold anything; behind it the fields are proc_pid_stat(5)'s
        // from the third on, of which the 14th and 15th count.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(14 - 3).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * TICK_MILLIS)
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// If the kernel does not tell.
    pub fn poll(&mut self) -> Option<End> {
        if self.end.is_none() {
            let status = self.child.try_wait().expect("a child can be waited for");
            self.end = status.map(|status| End { status, elapsed: self.started.elapsed() });
        }
        self.end
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// With its output when `deadline` has passed since now.
    pub fn wait(&mut self, deadline: Duration) -> End {
        wait_all(std::slice::from_mut(self), deadline)[0]
    }

    /// Waits likewise until it exits with `code`. Returns how long it ran.
    ///
    /// # Panics
    /// With its output if it ends otherwise.
    pub fn exit_with(&mut self, code: i32, deadline: Duration) -> Duration {
        let end = self.wait(deadline);
        let (name, status) = (&self.name, end.status);
        assert_eq!(status.code(), Some(code), "{name} ended with {status}\n{}", self.output());
        end.elapsed
    }

    /// Waits likewise until it exits with 0. Returns how long it ran.
    ///
    /// # Panics
    /// With its output if it ends otherwise.
    pub fn succeed(&mut self, deadline: Duration) -> Duration {
        self.exit_with(0, deadline)
    }

    /// Waits until it has written `text` to standard error, whether it runs on or not.
    ///
    /// # Panics
    /// With its output when `deadline` has passed, or if it ends without.
    pub fn say(&mut self, text: &str, deadline: Duration) {
        let until = Instant::now() + deadline;
        loop {
            // Asked first: what it wrote before its end is there when it has ended.
            let ended = self.poll();
            if self.stderr().contains(text) {
                return;
            }
            let waits = ended.is_none() && Instant::now() < until;
            assert!(waits, "no {text:?} ({ended:?})\n{}", self.output());
            sleep(POLL_INTERVAL);
        }
    }

    /// Symbols of the image that came to a receiver, wanted or not, and those that it needed, as it
    /// logs them at the end with `-v`.
    ///
    /// # Panics
    /// If it has not.
    pub fn symbols_logged(&self) -> (u64, u64) {
        let log = self.stderr();
        let line = log.lines().find(|line| line.contains("symbols of the image"));
        let number = |name: &str| -> u64 {
            let mut words = line.expect("it is logged").split_whitespace();
            let word = words.find_map(|word| word.strip_prefix(name)).expect("a number");
            word.parse().expect("a number")
        };
        (number("received="), number("needed="))
    }

    /// How many of the image's blocks, so many with data, a receiver says that its target held.
    pub fn found_of(&self, blocks: u64) -> Option<u64> {
        let log = self.stderr();
        let words = format!(" of {blocks} blocks were on the target before");
        log.split_once(&words)?.0.split_whitespace().last()?.parse().ok()
    }

    /// Sends `signal`, to this process alone.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.poll().is_none(), "it has ended\n{}", self.output());
        let pid = i32::try_from(self.id()).expect("a process id is an i32");
        kill(Pid::from_raw(pid), signal).expect("a child can be signalled");
    }

    /// SIGKILL, to this process alone.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn kill_nine(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    /// All it has written so far, for messages.
    pub fn output(&self) -> String {
        format!("{} stdout:\n{}{0} stderr:\n{}", self.name, self.stdout(), self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: a child that has been reaped is left alone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Its exit code or signal.
    pub status: ExitStatus,
    /// From start to exit, late by at most a few milliseconds while somebody waits.
    pub elapsed: Duration,
}

/// Waits until all have ended, each timed on its own.
///
/// # Panics
/// With the output of all when `deadline` has passed.
pub fn wait_all(processes: &mut [Process], deadline: Duration) -> Vec<End> {
    let until = Instant::now() + deadline;
    loop {
        let ends: Vec<End> = processes.iter_mut().filter_map(Process::poll).collect();
        if ends.len() == processes.len() {
            return ends;
        }
        if Instant::now() > until {
            let outputs: Vec<String> = processes.iter().map(Process::output).collect();
            panic!("not all done after {deadline:?}\n{}", outputs.join("\n"));
        }
        sleep(POLL_INTERVAL);
    }
}

/// Runs `condition` again and again until it holds.
///
/// # Panics
/// When `deadline` has passed.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < until, "{what}: not after {deadline:?}");
        sleep(POLL_INTERVAL);
    }
}

/// Runs a short command to its end and returns its standard output.
///
/// # Errors
///
/// The command with its standard error, if it cannot start or does not exit with 0.
pub fn run(command: &[&str]) -> Result<String, String> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("`{}` does not start: {e}", command.join(" ")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}` failed ({}): {}", command.join(" "), output.status, stderr.trim()))
}

/// Fine enough for ratios of run times, coarse enough to take no CPU time from what is measured.
const POLL_INTERVAL: Duration = Duration::from_millis(3);

/// The kernel tells programs of a hundred ticks a second, whatever its own clock.
const TICK_MILLIS: u64 = 10;
