//! What people see while they wait: one line that changes on a terminal, plain lines elsewhere.
//!
//! Everything goes to standard error, so that standard output carries results only. `SIGUSR1` asks
//! how things stand, as with dd(1): whoever owns the console looks now and then whether it came.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// The place where a program tells how it fares.
#[derive(Debug)]
pub struct Console {
    shows: Shows,
    printed: Option<(Instant, String)>,
    /// Where `SIGUSR1` arrives; without it nothing is ever asked.
    questions: Option<SignalFd>,
}

#[derive(Debug)]
enum Shows {
    Line(ProgressBar),
    Lines,
    Nothing,
}

impl Console {
    /// A console; `shows_progress` false silences [`status`](Self::status), not
    /// [`say`](Self::say).
    #[must_use]
    pub fn new(shows_progress: bool) -> Self {
        let shows = match (shows_progress, io::stderr().is_terminal()) {
            (false, _) => Shows::Nothing,
            (true, false) => Shows::Lines,
            (true, true) => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                    bar.set_style(style);
                }
                Shows::Line(bar)
            }
        };
        let questions = SignalFd::with_flags(&question(), QUESTION_FLAGS).ok();
        Self { shows, printed: None, questions }
    }

    /// Whether `SIGUSR1` has come since this was last asked; never unless
    /// [`hold_questions`] was called.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.questions
            .as_ref()
            .is_some_and(|questions| matches!(questions.read_signal(), Ok(Some(_))))
    }

    /// Shows how things stand: at once on a terminal; elsewhere every few seconds, or when `topic`,
    /// the thing that is being done or waited for, is another than before.
    pub fn status(&mut self, now: Instant, topic: &str, text: &str) {
        match &self.shows {
            Shows::Nothing => {}
            Shows::Line(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
            Shows::Lines => {
                let same = self.printed.as_ref().filter(|(_, before)| before == topic);
                if same.is_none_or(|(at, _)| now >= *at + LINE_INTERVAL) {
                    self.printed = Some((now, topic.to_owned()));
                    print(text);
                }
            }
        }
    }

    /// Says something once.
    pub fn say(&self, text: &str) {
        match &self.shows {
            Shows::Line(bar) => bar.suspend(|| print(text)),
            Shows::Lines | Shows::Nothing => print(text),
        }
    }

    /// A line for scripts, on standard output. Where it cannot be written people are told so: what
    /// has been done is done.
    pub fn result(&self, text: &str) {
        if let Err(error) = writeln!(io::stdout(), "{text}") {
            self.say(&format!("cannot write to standard output: {error}: {text}"));
        }
    }

    /// Takes the changing line away.
    pub fn clear(&self) {
        if let Shows::Line(bar) = &self.shows {
            bar.finish_and_clear();
        }
    }
}

/// Makes `SIGUSR1` a question that waits for a [`Console`] to ask for it. By itself it ends a
/// program: this belongs at the very beginning of `main`, before there are other threads.
pub fn hold_questions() {
    // The kernel knows this signal and how to block it: there is nothing to fail.
    let _ = question().thread_block();
}

/// Time left of a job of which `share` is done after `elapsed`; empty until there is something to
/// go by.
#[must_use]
pub fn time_left(share: f64, elapsed: Duration) -> String {
    if share < 0.01 || elapsed < Duration::from_secs(1) {
        return String::new();
    }
    let left = elapsed.as_secs_f64() * (1.0 - share).max(0.0) / share;
    let left = Duration::from_secs(Duration::from_secs_f64(left.min(1e9)).as_secs());
    format!(", {} left", crate::units::Seconds(left))
}

fn question() -> SigSet {
    SigSet::from_iter([Signal::SIGUSR1])
}

fn print(text: &str) {
    // Whoever closed our standard error does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Looked at in passing: nobody waits there.
const QUESTION_FLAGS: SfdFlags = SfdFlags::SFD_NONBLOCK.union(SfdFlags::SFD_CLOEXEC);
/// Often enough to show life, seldom enough not to fill a log.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
