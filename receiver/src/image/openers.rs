//! Which processes have a device or file open, as far as `/proc` shows them: to root, all that run
//! beside this one.

use std::fs;
use std::path::Path;

use nix::libc::{O_ACCMODE, O_RDWR, O_WRONLY};

/// A process that has something open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Opener<T> {
    /// Its number.
    pub(super) process: u32,
    /// What its program is called.
    pub(super) name: String,
    /// What it has open.
    pub(super) what: T,
    /// Whether it may write to it.
    pub(super) may_write: bool,
    /// Whether it has locked it by flock(2).
    pub(super) holds_lock: bool,
}

/// Those other than this one, by number, that have something open of which `which` can tell, by
/// its link in `/proc/PID/fd`, what it is; once for each such thing. `root` is `/` but in tests.
pub(super) fn openers<T: PartialEq>(
    root: &Path,
    which: impl Fn(&Path) -> Option<T>,
) -> Vec<Opener<T>> {
    let proc = root.join("proc");
    let own = fs::read_link(proc.join("self")).unwrap_or_default();
    let mut found: Vec<Opener<T>> = Vec::new();
    for process in processes(root) {
        let directory = proc.join(process.to_string());
        if own == Path::new(&process.to_string()) {
            continue;
        }
        for entry in fs::read_dir(directory.join("fd")).into_iter().flatten().flatten() {
            let Some(what) = which(&entry.path()) else { continue };
            let about = directory.join("fdinfo").join(entry.file_name());
            let about = fs::read_to_string(about).unwrap_or_default();
            let (may_write, holds_lock) = (is_for_writing(&about), is_locked(&about));
            match found.iter_mut().find(|it| it.process == process && it.what == what) {
                Some(opener) => {
                    opener.may_write |= may_write;
                    opener.holds_lock |= holds_lock;
                }
                None => {
                    let name = name_of(&directory);
                    found.push(Opener { process, name, what, may_write, holds_lock });
                }
            }
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

/// Whether it shows something that is open for writing, by the flags of open(2), in octal.
fn is_for_writing(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
    flags.is_some_and(|flags| matches!(flags & O_ACCMODE, O_WRONLY | O_RDWR))
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

    /// Adds a process that has these files open, the first for writing, the second one locked.
    fn run(machine: &Machine, process: u32, comm: &str, cmdline: &str, files: &[&str]) {
        machine.write(&format!("proc/{process}/comm"), comm);
        machine.write(&format!("proc/{process}/cmdline"), cmdline);
        machine.write(&format!("proc/{process}/fdinfo/0"), "pos:\t0\nflags:\t0100002\n");
        let lock = "pos:\t0\nflags:\t0100000\nlock:\t1: FLOCK  ADVISORY  WRITE 7 00:05:9 0 EOF\n";
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
        run(&machine, 71, "both\n", "", &["/b", "/b"]);
        run(&machine, 8, "kworker\n", "", &["/a"]);
        run(&machine, 7, "ourselves\n", "", &["/b"]);
        symlink("7", machine.root().join("proc/self")).unwrap();
        let is_b = |link: &Path| fs::read_link(link).unwrap() == Path::new("/b");
        let found = openers(machine.root(), |link| is_b(link).then_some('b'));
        let opener = |process, name: &str, may_write, holds_lock| {
            let name = name.into();
            Opener { process, name, what: 'b', may_write, holds_lock }
        };
        let expected = [
            opener(9, "b?[2Jd", true, false),
            opener(70, "imgcast-receiver", false, true),
            opener(71, "both", true, true),
        ];
        assert_eq!(found, expected);
        assert_eq!(openers(machine.root(), |_| None::<()>), []);
    }
}
