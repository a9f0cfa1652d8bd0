//! Receives a disk image that is sent to many machines at once.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;

use clap::Parser;
use imgcast_common::console::hold_questions;
use imgcast_common::limits::hold_file_size_signal;
use imgcast_receiver::cli::{Args, Command};
use imgcast_receiver::config::{ListConfig, ReceiveConfig};
use imgcast_receiver::error::Error;
use imgcast_receiver::{driver, list};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

fn main() -> ExitCode {
    hold_questions();
    hold_file_size_signal();
    // A panic has said what it is; all that is left to say is the exit code for it.
    let Ok(ended) = panic::catch_unwind(|| run(Args::parse())) else {
        return ExitCode::from(EXIT_INTERNAL);
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever closed our standard error does not want to know.
            let _ = writeln!(io::stderr(), "error[{}]: {error}", error.code());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(args: Args) -> Result<(), Error> {
    match args.command {
        Command::Receive(args) => {
            let config = ReceiveConfig::try_from(args)?;
            start_log(config.log.clone());
            driver::run(&config).map(drop)
        }
        Command::List(args) => list::run(&ListConfig::try_from(args)?),
    }
}

fn start_log(filter: Targets) {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// What [`Error::Internal`] ends with, too.
const EXIT_INTERNAL: u8 = 1;
