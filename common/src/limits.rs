//! What the operating system grants a process, and what can be done where that is not enough.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

/// Makes a write beyond the limit to the size of files (`ulimit -f`) fail with EFBIG, for which
/// there are words. By itself SIGXFSZ ends a program: this belongs at the very beginning of `main`,
/// before there are other threads.
pub fn hold_file_size_signal() {
    // The kernel knows this signal and how to block it: there is nothing to fail.
    let _ = SigSet::from_iter([Signal::SIGXFSZ]).thread_block();
}

/// Whether so many more files can be open at a time as either program takes: the event loop panics
/// where it gets none. To be asked before that is made.
///
/// # Errors
/// EMFILE or ENFILE; whatever else keeps the root directory from being opened.
pub fn check_files() -> io::Result<()> {
    let opened: io::Result<Vec<File>> = (0..FILES_LEAST).map(|_| File::open("/")).collect();
    opened.map(drop)
}

/// What to do when the system refuses to start something, for `source`.
#[must_use]
pub fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => "raise the limit to the open files of this process (ulimit -n)",
        Some(Errno::ENFILE) => {
            "the whole system has as many files open as it may: raise /proc/sys/fs/file-max, or \
             end other programs"
        }
        Some(Errno::EAGAIN | Errno::ENOMEM) => {
            "there is not enough memory, or no more processes and threads are allowed: end other \
             programs, lower --memory if it is given, or raise the limits of this user (ulimit \
             -u, -v) or its control group (pids.max, memory.max)"
        }
        _ => "check the limits of this process (ulimit -a)",
    }
}

/// Six of the event loop, as many of sockets, with some for the image or target, its directory, its
/// journal and what is read in passing: none of them has to fail by itself.
const FILES_LEAST: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_has_an_advice_of_its_own() {
        for (errno, words) in [
            (Errno::EMFILE, "ulimit -n"),
            (Errno::ENFILE, "file-max"),
            (Errno::EAGAIN, "not enough memory, or no more processes"),
            (Errno::ENOMEM, "memory.max"),
            (Errno::EPERM, "ulimit -a"),
        ] {
            let advice = advice(&errno.into());
            assert!(advice.contains(words), "{errno}: {advice}");
        }
        check_files().unwrap();
    }
}
