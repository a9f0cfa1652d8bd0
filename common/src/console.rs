//! What people see while they wait: one line that changes on a terminal, plain lines elsewhere.
//!
//! Everything goes to standard error, so that standard output carries results only.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The place where a program tells how it fares.
#[derive(Debug)]
pub struct Console {
    shows: Shows,
    printed: Option<(Instant, String)>,
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
        Self { shows, printed: None }
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

    /// Takes the changing line away.
    pub fn clear(&self) {
        if let Shows::Line(bar) = &self.shows {
            bar.finish_and_clear();
        }
    }
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

fn print(text: &str) {
    // Whoever closed our standard error does not want to know.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Often enough to show life, seldom enough not to fill a log.
const LINE_INTERVAL: Duration = Duration::from_secs(3);
