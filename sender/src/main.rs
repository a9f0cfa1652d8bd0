//! Sends a disk image to many machines at once.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;

use clap::Parser;
use imgcast_common::console::hold_questions;
use imgcast_common::limits::hold_file_size_signal;
use imgcast_sender::cli::Args;
use imgcast_sender::config::Config;
use imgcast_sender::driver::{self, Outcome};
use imgcast_sender::error::{Error, exit};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

fn main() -> ExitCode {
    hold_questions();
    hold_file_size_signal();
    // A panic has said what it is; all that is left to say is the exit code for it.
    let Ok(ended) = panic::catch_unwind(|| run(Args::parse())) else {
        return ExitCode::from(exit::INTERNAL);
    };
    match ended {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            // Whoever closed our standard error does not want to know.
            let _ = writeln!(io::stderr(), "error[{}]: {error}", error.code());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: Args) -> Result<Outcome, Error> {
    let config = Config::try_from(args)?;
    start_log(config.log.clone());
    driver::run(&config)
}

fn start_log(filter: Targets) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}
