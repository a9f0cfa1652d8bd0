//! Which processes have a device or file open, as far as `/proc` shows them: to root, all that run
//! beside this one.

use std::fs;
use std::path::Path;

/// A process that has something open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Opener {
    /// Its number.
    pub(super) process: u32,
    /// What its program is called.
    pub(super) name: String,
    /// Whether it has locked it by flock(2).
    pub(super) holds_lock: bool,
}

/// Those other than this one, by number, that have something open whose link in `/proc/PID/fd`
/// `is_it` accepts; `root` is `/` but in tests.
pub(super) fn openers(root: &Path, is_it: impl Fn(&Path) -> bool) -> Vec<Opener> {
    let proc = root.join("proc");
    let own = fs::read_link(proc.join("self")).unwrap_or_default();
    let mut found = Vec::new();
    for process in processes(root) {
        let directory = proc.join(process.to_string());
        if own == Path::new(&process.to_string()) {
            continue;
        }
        let (mut is_open, mut holds_lock) = (false, false);
        for entry in fs::read_dir(directory.join("fd")).into_iter().flatten().flatten() {
            if is_it(&entry.path()) {
                is_open = true;
                let about = directory.join("fdinfo").join(entry.file_name());
                holds_lock |= is_locked(&fs::read_to_string(about).unwrap_or_default());
            }
        }
        if is_open {
            found.push(Opener { process, name: name_of(&directory), holds_lock });
        }
    }
    found
}

/// All processes that `/proc` shows, in order.
pub(super) fn processes(root: &Path) -> Vec<u32> {
    let entries = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
    let mut processes: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    processes.sort_unstable();
    processes
}

/// Whether a file of `/proc/PID/fdinfo` shows a lock (proc_pid_fdinfo(5)).
fn is_locked(fdinfo: &str) -> bool {
    fdinfo.lines().any(|line| line.starts_with("lock:") && line.contains(" FLOCK "))
}

/// What the kernel calls a process, which is no more than 15 octets, or, if that begins so, what it
/// was started as. Both are its own choice, and must not steer a terminal.
fn name_of(directory: &Path) -> String {
    let short = fs::read_to_string(directory.join("comm")).unwrap_or_default();
    let short = short.trim_end_matches('\n');
    let command = fs::read(directory.join("cmdline")).unwrap_or_default();
    let program = command.split(|octet| *octet == 0).next().unwrap_or_default();
    let long = String::from_utf8_lossy(program);
    let long = long.rsplit('/').next().unwrap_or_default();
    let name = if long.starts_with(short) { long } else { short };
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image::machine::Machine;

    /// Adds a process that has these files open, the second one locked.
    fn run(machine: &Machine, process: u32, comm: &str, cmdline: &str, files: &[&str]) {
        machine.write(&format!("proc/{process}/comm"), comm);
        machine.write(&format!("proc/{process}/cmdline"), cmdline);
        machine.write(&format!("proc/{process}/fdinfo/0"), "pos:\t0\nflags:\t0100002\n");
        let lock = "pos:\t0\nlock:\t1: FLOCK  ADVISORY  WRITE 7 00:05:9 0 EOF\n";
        machine.write(&format!("proc/{process}/fdinfo/1"), lock);
        let directory = machine.root().join(format!("proc/{process}/fd"));
        fs::create_dir_all(&directory).unwrap();
        for (number, file) in files.iter().enumerate() {
            symlink(file, directory.join(number.to_string())).unwrap();
        }
    }

    #[test]
    fn processes_are_found_by_what_they_have_open_and_called_as_people_know_them() {
        let machine = Machine::new();
        run(&machine, 70, "imgcast-receive\n", "/opt/imgcast-receiver\0receive\0", &["/a", "/b"]);
        run(&machine, 9, "b\u{1b}[2Jd\n", "/usr/bin/python3\0-c\0", &["/b"]);
        run(&machine, 8, "kworker\n", "", &["/a"]);
        run(&machine, 7, "ourselves\n", "", &["/b"]);
        symlink("7", machine.root().join("proc/self")).unwrap();
        let found = openers(machine.root(), |link| fs::read_link(link).unwrap() == Path::new("/b"));
        let opener =
            |process, name: &str, holds_lock| Opener { process, name: name.into(), holds_lock };
        assert_eq!(found, [opener(9, "b?[2Jd", false), opener(70, "imgcast-receiver", true)]);
        assert_eq!(openers(machine.root(), |_| false), []);
    }
}
