//! What a transfer costs, as a table: a change in performance is a difference in text.
//!
//! 320 blocks of 1 MiB, ten windows, at 1 Gbit/s to receivers that lose as much of what they say as
//! of what they are sent: each on its own, the 40 of a rack together, all together, or each in
//! bursts of 50 datagrams on average. The whole of `efficiency.txt`, in an hour, then only its
//! rows with some words in their names, and then those of up to 256 receivers and of 10,000 at 1 %,
//! which every run of the tests compares:
//!
//! ```sh
//! export IMGCAST_UPDATE=1
//! IMGCAST_GRID=full cargo test --release -p imgcast-tests --test scenarios efficiency
//! IMGCAST_GRID='4096 racks' cargo test --release -p imgcast-tests --test scenarios efficiency
//! cargo test -p imgcast-tests --test scenarios efficiency
//! ```
//!
//! | column | |
//! | --- | --- |
//! | bytes | octets of the symbols that the group was sent, over those of the image |
//! | NEEDs | for every 32 blocks, by the last block that each names: mean, and worst window |
//! | peak | most NEEDs within one GRTT |
//! | askers | receivers that asked for any block of a window: mean from the fifth window on |
//! | tail ms | from the last source symbol until the last receiver has everything |
//! | time | from the first symbol until then, over what the image alone takes on the wire |
//! | of one | the same, over that of one receiver that loses as much on its own |
//!
//! `inf`: they were not finished within three times what it takes without loss and a minute.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{
    collections::BTreeMap,
    fmt,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use imgcast_tests::{Loss, RackConfig, Report, WorldConfig};

use crate::{crowd::crowd, run};

#[test]
fn the_table_of_costs_is_as_it_was() {
    let grid = std::env::var("IMGCAST_GRID").ok();
    let is_run = |cell: &Cell| match grid.as_deref() {
        Some("full") => true,
        Some(words) => cell.is_called(words) || cell.is_one(),
        None => cell.is_always_run(),
    };
    let measured = measure(&Cell::all().into_iter().filter(is_run).collect::<Vec<_>>());
    if std::env::var_os("IMGCAST_UPDATE").is_some() {
        let mut rows = rows_of_file();
        rows.extend(measured);
        fs::write(path(), table(&rows)).unwrap();
        return;
    }
    let before = rows_of_file();
    let changed = measured.iter().filter(|(cell, row)| before.get(cell) != Some(row));
    let changed: BTreeMap<Cell, Row> = changed.map(|(cell, row)| (*cell, row.clone())).collect();
    assert!(
        changed.is_empty(),
        "costs changed: where that is right, run this again with IMGCAST_UPDATE=1\n{}",
        table(&changed)
    );
}

/// What the table must show, whoever made it: a row for every world of the grid, and each but those
/// of bursts within the same limits, for one receiver as for ten thousand.
#[test]
fn every_row_of_the_table_is_within_its_target() {
    let rows = rows_of_file();
    let lacking: Vec<Cell> =
        Cell::all().into_iter().filter(|cell| !rows.contains_key(cell)).collect();
    assert!(lacking.is_empty(), "rows are missing: {lacking:#?}");
    let text = fs::read_to_string(path()).unwrap();
    assert_eq!(text, table(&rows), "the table is what is measured, and nothing else");
    for (cell, row) in &rows {
        assert!(row.time.is_finite(), "{row}");
        // The limits are for losses of each on its own, of racks and of all. A burst takes a
        // fifteenth of a block in one place, and what repairs it for all is as long as the longest
        // of thousands of them: that costs what is measured, whatever the protocol.
        if cell.model == Model::Bursts {
            continue;
        }
        assert!(cell.loss_ppm > 0 || row.needs_worst == 0.0, "{row}");
        assert!(row.bytes <= if cell.loss_ppm > 10_000 { 1.12 } else { 1.05 }, "{row}");
        assert!(row.needs_worst <= 200.0 && row.peak <= 30.0, "{row}");
        assert!(row.askers <= 25.0, "{row}");
        assert!(cell.loss_ppm > 10_000 || row.of_one <= 1.05, "{row}");
    }
}

/// One world of the grid.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Cell {
    receivers: usize,
    loss_ppm: u32,
    model: Model,
}

/// Who loses what together.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Model {
    Independent,
    Racks,
    Shared,
    Bursts,
}

/// What a world cost.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    bytes: f64,
    needs_mean: f64,
    needs_worst: f64,
    peak: f64,
    askers: f64,
    tail_millis: f64,
    time: f64,
    of_one: f64,
}

impl Cell {
    /// The whole grid. Without loss, and for one receiver, the models are the same.
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for receivers in RECEIVERS {
            for loss_ppm in LOSSES_PPM {
                for model in Model::ALL {
                    let apart = match model {
                        Model::Independent => true,
                        Model::Racks | Model::Shared => loss_ppm > 0 && receivers > 1,
                        Model::Bursts => loss_ppm > 0,
                    };
                    if apart {
                        cells.push(Self { receivers, loss_ppm, model });
                    }
                }
            }
        }
        cells
    }

    /// Whether every run of the tests looks at it.
    fn is_always_run(&self) -> bool {
        let large =
            self.receivers == 10_000 && self.loss_ppm == 10_000 && self.model != Model::Bursts;
        self.receivers <= 256 || large
    }

    fn world(&self) -> WorldConfig {
        let mut config = crowd(7, self.receivers, BLOCKS, 0);
        let independent = Loss::Bernoulli(self.loss_ppm);
        let mut own = Loss::None;
        match self.model {
            Model::Independent => own = independent,
            Model::Racks => {
                config.racks = Some(RackConfig { receivers: RACK, loss: independent });
            }
            Model::Shared => config.shared_loss = independent,
            Model::Bursts => own = Loss::in_bursts(BURST, self.loss_ppm),
        }
        config.each_receiver(|_, receiver| {
            receiver.down.loss = own;
            receiver.up.loss = independent;
        })
    }

    /// The one whose time it is compared with.
    fn one(&self) -> Self {
        Self { receivers: 1, model: Model::Independent, ..*self }
    }

    fn is_one(&self) -> bool {
        *self == self.one()
    }

    /// Whether all of these words stand in its name.
    fn is_called(&self, words: &str) -> bool {
        let name = self.name();
        words.split_whitespace().all(|word| name.split_whitespace().any(|it| it == word))
    }

    fn name(&self) -> String {
        let model = match self.model {
            _ if self.loss_ppm == 0 => "none",
            Model::Independent => "each",
            Model::Racks => "racks",
            Model::Shared => "shared",
            Model::Bursts => "bursts",
        };
        let loss = format!("{}.{}", self.loss_ppm / 10_000, self.loss_ppm / 1_000 % 10);
        format!("{:>9}  {loss:>6}  {model:>6}", self.receivers)
    }
}

impl Model {
    const ALL: [Self; 4] = [Self::Independent, Self::Racks, Self::Shared, Self::Bursts];
}

impl Row {
    fn new(cell: &Cell, report: &Report, one: Duration) -> Self {
        let is_done = report.done() == report.receivers.len();
        if is_done {
            report.assert_all_done();
        }
        // A row that has no end says so; which may is asserted.
        let ended = |value: f64| if is_done { value } else { f64::INFINITY };
        let windows = report.needs_by_window();
        let askers = report.askers_by_window();
        let steady = &askers[STEADY_FROM.min(askers.len())..];
        let took = report.done_at.saturating_sub(report.started_at);
        // 1,408 octets of symbol, 44 of ours and 66 of UDP, IP and Ethernet, at 8 ns each.
        let ideal = Duration::from_nanos(BLOCKS * 745 * (1_408 + 44 + 66) * 8);
        let tail = report.done_at.saturating_sub(report.last_source_at);
        Self {
            name: cell.name(),
            bytes: rounded(report.overhead_ppm as f64 / 1e6, 3),
            needs_mean: rounded(windows.iter().sum::<u64>() as f64 / windows.len() as f64, 0),
            needs_worst: windows.iter().copied().max().unwrap_or(0) as f64,
            peak: report.needs_within_grtt() as f64,
            askers: rounded(steady.iter().sum::<usize>() as f64 / steady.len() as f64, 0),
            tail_millis: ended(rounded(tail.as_secs_f64() * 1e3, 0)),
            time: ended(rounded(took.as_secs_f64() / ideal.as_secs_f64(), 3)),
            of_one: ended(rounded(took.as_secs_f64() / one.as_secs_f64(), 3)),
        }
    }

    fn parse(line: &str) -> Self {
        let (name, figures) = line.split_at(NAME_COLUMNS);
        let figures: Vec<f64> =
            figures.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
        let [bytes, needs_mean, needs_worst, peak, askers, tail_millis, time, of_one] =
            figures.try_into().unwrap();
        let name = name.to_owned();
        Self { name, bytes, needs_mean, needs_worst, peak, askers, tail_millis, time, of_one }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}  {:.3}  {:>10}  {:>11}  {:>4}  {:>6}  {:>7}  {:.3}   {:.3}",
            self.name,
            self.bytes,
            self.needs_mean,
            self.needs_worst,
            self.peak,
            self.askers,
            self.tail_millis,
            self.time,
            self.of_one
        )
    }
}

/// Runs these worlds on two threads, the largest first, so that these end together.
fn measure(cells: &[Cell]) -> BTreeMap<Cell, Row> {
    let reports: Mutex<BTreeMap<Cell, Report>> = Mutex::default();
    let next = AtomicUsize::new(cells.len());
    let work = || {
        loop {
            let taken =
                next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_sub(1));
            let Ok(number) = taken else { return };
            let cell = cells[number - 1];
            let report = run(cell.world());
            reports.lock().unwrap().insert(cell, report);
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let reports = reports.into_inner().unwrap();
    let took = |report: &Report| report.done_at.saturating_sub(report.started_at);
    let row = |(cell, report): (&Cell, &Report)| {
        (*cell, Row::new(cell, report, took(&reports[&cell.one()])))
    };
    reports.iter().map(row).collect()
}

fn rows_of_file() -> BTreeMap<Cell, Row> {
    let text = fs::read_to_string(path()).unwrap_or_default();
    let mut rows = BTreeMap::new();
    for cell in Cell::all() {
        let line = text.lines().find(|line| line.starts_with(&cell.name()));
        rows.extend(line.map(|line| (cell, Row::parse(line))));
    }
    rows
}

fn table(rows: &BTreeMap<Cell, Row>) -> String {
    let mut table = String::from(HEAD);
    rows.values().for_each(|row| writeln!(table, "{row}").unwrap());
    table
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/efficiency.txt")
}

const RECEIVERS: [usize; 5] = [1, 16, 256, 4_096, 10_000];
const LOSSES_PPM: [u32; 4] = [0, 1_000, 10_000, 50_000];
const BLOCKS: u64 = 320;
/// Receivers of one rack.
const RACK: usize = 40;
/// Datagrams that a burst takes on average.
const BURST: u32 = 50;
/// By this window the repair has been adapted.
const STEADY_FROM: usize = 4;
const HEAD: &str =
    "receivers  loss %  by      bytes  NEEDs mean  worst  peak  askers  tail ms  time   of one\n";
/// The width of a row's name.
const NAME_COLUMNS: usize = 25;
