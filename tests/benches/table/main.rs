//! The table of `tests/PERFORMANCE.md`: whole transfers in network namespaces, beside the tools
//! that admins know and beside what the machine carries without a protocol.
//!
//! It needs root, the system tools of `tests/lab`, and for the rows that compare with them the
//! packages udpcast and uftp. Nothing it sends leaves the machine.
//!
//! ```sh
//! cargo bench -p imgcast-tests --bench table -- fast-1 gigabit --repeat 5 --json figures.json
//! ```

mod cases;
mod checks;
mod images;
mod machine;
mod measure;
mod peers;
mod report;
mod rows;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use imgcast_common::units::Seconds;
use imgcast_tests::netns;
use imgcast_tests::netns::is_root;
use imgcast_tests::programs::programs;
use imgcast_tests::scratch;

use checks::Repetition;
use machine::RaisedLimits;
use measure::Bench;
use report::Report;
use rows::{Row, rows};

/// Measures whole transfers and judges them.
#[derive(Debug, Parser)]
#[command(name = "table")]
struct Args {
    /// Rows that begin so; all if none is named
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Say which rows there are
    #[arg(long)]
    list: bool,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// Append the figures of every transfer to FILE, an object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Images of this size instead of the row's, to see whether it works
    #[arg(long, value_name = "MIB")]
    size: Option<u64>,
    /// Where images and copies are, a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    memory: PathBuf,
    /// Where images are that are to be read from a disk
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    disk: PathBuf,
    /// How long to wait before each transfer for other programs to leave the machine alone
    #[arg(long, value_name = "TIME", default_value = "30")]
    idle_wait: Seconds,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_MISSED),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all targets are met.
fn run(args: &Args) -> Result<bool, String> {
    let is_wanted = |row: &Row| {
        args.rows.is_empty() || args.rows.iter().any(|wanted| row.name.starts_with(wanted.as_str()))
    };
    let rows: Vec<Row> = rows().into_iter().filter(is_wanted).collect();
    if args.list {
        rows.iter().for_each(|row| println!("{:14} {}", row.name, row.what));
        return Ok(true);
    }
    if !is_root() {
        return Err("network namespaces take root".to_owned());
    }
    if rows.is_empty() {
        return Err("no such row: --list names them".to_owned());
    }
    netns::delete_orphans();
    scratch::delete_orphans(&args.memory);
    scratch::delete_orphans(&args.disk);
    // Built now, or that would fall into the first transfer.
    programs();
    let _limits = RaisedLimits::raise()?;
    let mut bench = Bench::new(&args.memory, &args.disk, args.idle_wait.0);
    let mut report = Report::new(args.json.as_deref())?;
    for mut row in rows {
        if let Some(mib) = args.size {
            row.cases.iter_mut().for_each(|case| case.image = case.image.scaled_to(mib));
        }
        let repetitions = repeat(&row, args.repeat, &mut bench, &mut report)?;
        report.judge(&row, &repetitions);
        bench.clear();
    }
    Ok(report.finish())
}

fn repeat(
    row: &Row,
    times: usize,
    bench: &mut Bench,
    report: &mut Report,
) -> Result<Vec<Repetition>, String> {
    let missing = row.cases.iter().filter_map(|case| case.peer.missing_package());
    for package in missing.collect::<BTreeSet<&str>>() {
        eprintln!("{}: without {package}, which is not installed", row.name);
    }
    let mut repetitions = Vec::new();
    for number in 0..times {
        let mut repetition = Repetition::new();
        for case in row.cases.iter().filter(|case| case.peer.missing_package().is_none()) {
            let outcome = bench.measure(case);
            report.note(row, case, number, &outcome)?;
            if let Ok(outcome) = outcome {
                repetition.entry(case.name).or_default().push(outcome);
            }
        }
        repetitions.push(repetition);
    }
    Ok(repetitions)
}

/// Some target is missed, or could not be judged.
const EXIT_MISSED: u8 = 2;
