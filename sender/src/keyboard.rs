//! The keyboard while receivers gather: any key starts the transfer with those who have joined.
//!
//! A key counts at once, without Enter, and is not shown: the terminal hands over each octet and
//! never makes a reader wait (non-canonical mode, termios(3)). It is used only while this program
//! is in its foreground. From the background a read would stop the program (SIGTTIN), and one from
//! another session's terminal would take what is typed for somebody else. As it was found it is
//! left, as soon as nobody is waited for and whenever this goes out of scope.

use std::{
    io::{self, IsTerminal, Stdin},
    os::fd::AsFd,
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        termios::{
            FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcflush, tcgetattr,
            tcsetattr,
        },
    },
    unistd::{getpgrp, read, tcgetpgrp},
};

use crate::{report::Report, session::Session};

/// The operator's keys.
#[derive(Debug)]
pub(crate) struct Keyboard {
    /// Standard input, if it is a terminal to take keys from.
    terminal: Option<Stdin>,
    /// What the terminal was like, once that has been changed.
    found: Option<Termios>,
    is_heard: bool,
}

impl Keyboard {
    /// Standard input's, if it has one and `is_wanted`; touches nothing yet.
    pub(crate) fn new(is_wanted: bool) -> Self {
        let terminal = Some(io::stdin()).filter(|input| is_wanted && input.is_terminal());
        if terminal.is_some() {
            // Sent to the background between a look and a read, the read fails instead of
            // stopping us. Blocking a signal that exists cannot fail.
            let _ = SigSet::from_iter([Signal::SIGTTIN]).thread_block();
        }
        Self { terminal, found: None, is_heard: false }
    }

    /// Whether a key would be heard now.
    pub(crate) const fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Starts the transfer if a key was pressed while receivers gather, and otherwise leaves the
    /// terminal alone.
    pub(crate) fn follow(&mut self, now: Instant, session: &mut Session, report: &Report) {
        if session.is_gathering() {
            // A terminal that fails, or is gone, has no keys.
            let is_pressed = self.listen().unwrap_or(false);
            if is_pressed && !session.handle_start(now) {
                report.say("no receiver has joined yet: there is nobody to start with");
            }
        }
        if !session.is_gathering() {
            self.release();
        }
    }

    /// Whether a key was pressed since the last call.
    fn listen(&mut self) -> Result<bool, Errno> {
        self.is_heard = false;
        let Some(terminal) = self.terminal.as_ref().filter(|terminal| is_ours(terminal)) else {
            return Ok(false);
        };
        let found = tcgetattr(terminal)?;
        let has_lines = found.local_flags.intersects(LINES);
        if has_lines || self.found.is_none() {
            tcsetattr(terminal, SetArg::TCSANOW, &for_keys(&found))?;
            // Typed before anybody was told that keys count.
            tcflush(terminal, FlushArg::TCIFLUSH)?;
            self.found = Some(found);
        }
        self.is_heard = true;
        // Should somebody else have changed the terminal meanwhile, a read could wait.
        let mut input = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        let is_there = poll(&mut input, PollTimeout::ZERO)? > 0;
        Ok(is_there && read(terminal, &mut [0; KEYS_AT_ONCE])? > 0)
    }

    /// Leaves the terminal as it was found. If it is not ours now, its shell has seen to it, but
    /// may give it back to us as we made it: then it is done the next time.
    fn release(&mut self) {
        self.is_heard = false;
        if let (Some(terminal), Some(found)) = (&self.terminal, &self.found)
            && is_ours(terminal)
            && tcsetattr(terminal, SetArg::TCSANOW, found).is_ok()
        {
            self.found = None;
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.release();
    }
}

/// Whether this program is in the foreground of the terminal that controls it.
fn is_ours(terminal: &Stdin) -> bool {
    tcgetpgrp(terminal) == Ok(getpgrp())
}

/// The same, but keys come one by one and unseen, and a read without any returns at once.
fn for_keys(found: &Termios) -> Termios {
    let mut changed = found.clone();
    changed.local_flags.remove(LINES);
    changed.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
    changed.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    changed
}

/// Input by lines that can be edited, and are seen.
const LINES: LocalFlags = LocalFlags::ICANON.union(LocalFlags::ECHO);
/// Some keys send several octets, and are one all the same.
const KEYS_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use nix::pty::openpty;

    use super::*;

    #[test]
    fn keys_come_at_once_and_unseen_and_still_make_signals() {
        let terminal = openpty(None, None).unwrap();
        let found = tcgetattr(&terminal.slave).unwrap();
        assert!(found.local_flags.contains(LINES));
        tcsetattr(&terminal.slave, SetArg::TCSANOW, &for_keys(&found)).unwrap();
        let changed = tcgetattr(&terminal.slave).unwrap();
        assert!(!changed.local_flags.intersects(LINES));
        assert!(changed.local_flags.contains(LocalFlags::ISIG));
        assert_eq!(read(&terminal.slave, &mut [0; KEYS_AT_ONCE]), Ok(0), "it does not wait");
        nix::unistd::write(&terminal.master, b"x").unwrap();
        let mut input = [PollFd::new(terminal.slave.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut input, PollTimeout::NONE), Ok(1));
        assert_eq!(read(&terminal.slave, &mut [0; KEYS_AT_ONCE]), Ok(1));
        tcsetattr(&terminal.slave, SetArg::TCSANOW, &found).unwrap();
        assert_eq!(tcgetattr(&terminal.slave), Ok(found));
    }

    #[test]
    fn a_terminal_that_is_not_wanted_is_not_touched() {
        let mut keyboard = Keyboard::new(false);
        assert!(keyboard.terminal.is_none());
        assert_eq!((keyboard.listen(), keyboard.is_heard()), (Ok(false), false));
    }
}
