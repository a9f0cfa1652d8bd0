//! Processes that are always ended: by exit, by deadline, or with the value that owns them.
#![expect(clippy::disallowed_methods, reason = "real processes are measured in real time")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A running or finished command with its output in files. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    started: Instant,
    end: Option<End>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; `name` names it in messages and its output files in `logs`.
    pub(crate) fn start(name: &str, mut command: Command, logs: &Path) -> Self {
        let stdout = logs.join(format!("{name}.stdout"));
        let stderr = logs.join(format!("{name}.stderr"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a log file can be created"))
            .stderr(File::create(&stderr).expect("a log file can be created"));
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        Self { name: name.to_owned(), child, started: Instant::now(), end: None, stdout, stderr }
    }

    /// How it ended, if it has.
    pub(crate) fn poll(&mut self) -> Option<End> {
        if self.end.is_none() {
            let status = self.child.try_wait().expect("a child can be waited for");
            self.end = status.map(|status| End { status, elapsed: self.started.elapsed() });
        }
        self.end
    }

    /// Waits until it ends; panics with its output when `deadline` has passed since now.
    pub(crate) fn wait(&mut self, deadline: Duration) -> End {
        wait_all(std::slice::from_mut(self), deadline)[0]
    }

    /// Waits likewise and panics with its output unless it exits with 0. Returns how long it ran.
    pub(crate) fn succeed(&mut self, deadline: Duration) -> Duration {
        let end = self.wait(deadline);
        assert!(end.status.success(), "{} ended with {}\n{}", self.name, end.status, self.output());
        end.elapsed
    }

    /// SIGKILL, to this process alone.
    pub(crate) fn kill_nine(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// What it has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// All it has written so far, for messages.
    pub(crate) fn output(&self) -> String {
        let stderr = fs::read(&self.stderr).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        format!("{} stdout:\n{}{0} stderr:\n{stderr}", self.name, self.stdout())
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
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    /// From start to exit, late by at most `POLL_INTERVAL` while somebody waits.
    pub(crate) elapsed: Duration,
}

/// Waits until all have ended, each timed on its own.
pub(crate) fn wait_all(processes: &mut [Process], deadline: Duration) -> Vec<End> {
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

/// Runs `condition` again and again until it holds; panics when `deadline` has passed.
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
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
pub(crate) fn run(command: &[&str]) -> Result<String, String> {
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

/// Whether `name` is of the form `imgcast-lab-PID-…`, with a process that is no more.
pub(crate) fn is_orphan(name: &str) -> bool {
    let pid = name.strip_prefix("imgcast-lab-").and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// Fine enough for the lab's ratios, coarse enough to take no CPU time from what is measured.
const POLL_INTERVAL: Duration = Duration::from_millis(3);
