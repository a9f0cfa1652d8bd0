//! A terminal of a test's own, with somebody at its keyboard and a shell that starts programs.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::stage::under;

/// A pseudo-terminal. Dropping it hangs it up.
#[derive(Debug)]
pub(crate) struct Terminal {
    keyboard: PtyMaster,
    path: PathBuf,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let keyboard = posix_openpt(flags).expect("there are pseudo-terminals");
        grantpt(&keyboard).expect("it is ours");
        unlockpt(&keyboard).expect("it is ours");
        let path = ptsname_r(&keyboard).expect("it has a name").into();
        Self { keyboard, path }
    }

    /// Types `keys`.
    pub(crate) fn press(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).expect("the terminal takes it");
    }

    /// Whether input comes in lines that are shown and can be edited, as it is at first.
    pub(crate) fn has_lines(&self) -> bool {
        let lines = LocalFlags::ICANON | LocalFlags::ECHO;
        tcgetattr(&self.keyboard).expect("it is a terminal").local_flags.contains(lines)
    }

    /// `script` as the shell that this terminal controls and is controlled by, with `command` as
    /// its `"$0" "$@"` and the terminal's path as `$TERMINAL`.
    pub(crate) fn shell(&self, script: &str, command: &Command) -> Command {
        let login = "exec setsid --ctty sh -c \"$SESSION\" \"$0\" \"$@\" <\"$TERMINAL\"";
        let mut shell = under(login, command);
        shell.env("SESSION", script).env("TERMINAL", &self.path);
        shell
    }
}
