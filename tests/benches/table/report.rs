//! What people and programs read: each transfer at once, the table at the end.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::cases::Case;
use crate::checks::{Repetition, median, sorted};
use crate::machine::BUSY_MAX;
use crate::measure::Outcome;
use crate::peers::Peer;
use crate::rows::Row;

/// Collects rows until the table is printed.
#[derive(Debug)]
pub(crate) struct Report {
    json: Option<File>,
    targets: Vec<String>,
    figures: Vec<String>,
    /// How many transfers failed, by row and case.
    failures: BTreeMap<(String, &'static str), usize>,
    disturbed: usize,
    is_good: bool,
}

impl Report {
    /// Figures of every transfer go to `json`, too.
    ///
    /// # Errors
    ///
    /// If that file cannot be opened.
    pub(crate) fn new(json: Option<&Path>) -> Result<Self, String> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(|e| format!("{}: {e}", path.display()))
        };
        Ok(Self {
            json: json.map(open).transpose()?,
            targets: Vec::new(),
            figures: Vec::new(),
            failures: BTreeMap::new(),
            disturbed: 0,
            is_good: true,
        })
    }

    /// Says how one transfer went.
    ///
    /// # Errors
    ///
    /// If the file for the figures cannot be written.
    pub(crate) fn note(
        &mut self,
        row: &Row,
        case: &Case,
        repetition: usize,
        outcome: &Result<Outcome, String>,
    ) -> Result<(), String> {
        let label = format!("{} #{} {}", row.name, repetition + 1, case.name);
        match outcome {
            Err(error) => {
                eprintln!("{label}: FAILED: {error}");
                *self.failures.entry((row.name.clone(), case.name)).or_default() += 1;
                self.is_good = false;
            }
            Ok(outcome) => {
                let disturbed = outcome.busy_before > BUSY_MAX;
                self.disturbed += usize::from(disturbed);
                eprintln!(
                    "{label}: {:.3} s, {:.3} Gbit/s, CPU {:.2} + {:.2} s, idle {:.0} %{}",
                    outcome.seconds,
                    outcome.goodput * 1e-9,
                    outcome.sender_cpu_seconds,
                    outcome.receivers_cpu_seconds,
                    outcome.idle * 100.0,
                    if disturbed { ", others were busy" } else { "" }
                );
            }
        }
        let Some(file) = &mut self.json else { return Ok(()) };
        let mut json = match outcome {
            Ok(outcome) => outcome.to_json(),
            Err(error) => serde_json::json!({ "failed": error }),
        };
        json["row"] = row.name.as_str().into();
        json["case"] = case.name.into();
        json["repetition"] = repetition.into();
        writeln!(file, "{json}").map_err(|e| format!("the figures cannot be written: {e}"))
    }

    /// Compares a row with its targets.
    pub(crate) fn judge(&mut self, row: &Row, repetitions: &[Repetition]) {
        // Whatever the others took: those that failed took for ever.
        let is_ours = |case: &&Case| matches!(case.peer, Peer::Imgcast { .. });
        let failed = row.cases.iter().filter(is_ours).any(|case| self.has_failed(row, case));
        for check in &row.checks {
            let values = check.values(&row.cases, repetitions);
            let (measured, verdict) = match median(&values) {
                None => ("nothing".to_owned(), "not measured"),
                Some(value) => {
                    let spread = [0, values.len() - 1].map(|at| check.value.format(values[at]));
                    let measured =
                        format!("{} ({}–{})", check.value.format(value), spread[0], spread[1]);
                    (measured, if failed { "MISSED" } else { check.verdict(value) })
                }
            };
            self.is_good &= ["met", "measured"].contains(&verdict);
            let line = format!("| {} | {} | {measured} | {verdict} |", row.name, check.target());
            eprintln!("{line}");
            self.targets.push(line);
        }
        if row.checks.is_empty() {
            let verdict = if failed { "MISSED" } else { "met" };
            self.targets.push(format!("| {} | works | | {verdict} |", row.name));
        }
        let mut names: Vec<&str> = row.cases.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let outcomes = repetitions.iter().filter_map(|repetition| repetition.get(name));
            let outcomes: Vec<&Outcome> = outcomes.flatten().collect();
            if !outcomes.is_empty() {
                self.figures.push(figures_line(&row.name, name, &outcomes));
            }
        }
        eprintln!();
    }

    fn has_failed(&self, row: &Row, case: &Case) -> bool {
        self.failures.contains_key(&(row.name.clone(), case.name))
    }

    /// Prints the table; returns whether all is as it should be.
    pub(crate) fn finish(&self) -> bool {
        println!("| row | target | measured: median (range) | |\n| --- | --- | --- | --- |");
        self.targets.iter().for_each(|line| println!("{line}"));
        println!("\n{FIGURES_HEAD}");
        self.figures.iter().for_each(|line| println!("{line}"));
        for ((row, case), count) in &self.failures {
            println!("\n{row}: {count} transfers of {case} failed");
        }
        if self.disturbed > 0 {
            println!("\n{} transfers began while other programs were busy", self.disturbed);
        }
        self.is_good
    }
}

impl Outcome {
    /// What all the programs needed for each octet of the image.
    pub(crate) fn cpu_seconds_an_octet(&self) -> f64 {
        (self.sender_cpu_seconds + self.receivers_cpu_seconds) / self.octets.max(1.0)
    }

    fn to_json(self) -> serde_json::Value {
        serde_json::json!({
            "seconds": self.seconds,
            "goodput_bits_per_second": self.goodput,
            "octets": self.octets,
            "sender_cpu_seconds": self.sender_cpu_seconds,
            "receivers_cpu_seconds": self.receivers_cpu_seconds,
            "sender_resident_bytes": self.sender_resident_bytes,
            "receiver_resident_bytes": self.receiver_resident_bytes,
            "sent_bytes": self.sent_bytes,
            "socket_drops": self.socket_drops,
            "sender_tail_seconds": self.sender_tail_seconds,
            "busy_before": self.busy_before,
            "idle": self.idle,
        })
    }
}

/// The medians of one case.
fn figures_line(row: &str, case: &str, outcomes: &[&Outcome]) -> String {
    let figure = |figure: fn(&Outcome) -> f64| {
        median(&sorted(outcomes.iter().map(|outcome| figure(outcome)).collect()))
            .unwrap_or(f64::NAN)
    };
    let mib = f64::from(1 << 20);
    let figures = [
        format!("{:.2}", figure(|outcome| outcome.seconds)),
        format!("{:.3}", figure(|outcome| outcome.goodput * 1e-9)),
        format!("{:.2}", figure(|outcome| outcome.sender_cpu_seconds)),
        format!("{:.2}", figure(|outcome| outcome.receivers_cpu_seconds)),
        format!("{:.2}", figure(|outcome| outcome.cpu_seconds_an_octet() * 1e9)),
        format!("{:.0}", figure(|outcome| outcome.sender_resident_bytes) / mib),
        format!("{:.0}", figure(|outcome| outcome.receiver_resident_bytes) / mib),
        format!("{:.3}", figure(|outcome| outcome.sent_bytes / outcome.octets.max(1.0))),
        format!("{:.0}", figure(|outcome| outcome.socket_drops)),
        format!("{:.0} %", figure(|outcome| outcome.idle * 100.0)),
    ];
    format!("| {row} | {case} | {} |", figures.join(" | "))
}

const FIGURES_HEAD: &str = "\
| row | program | s | Gbit/s | sender CPU s | receivers CPU s | CPU ns/octet | sender MiB \
| receiver MiB | sent/image | socket drops | idle |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";
