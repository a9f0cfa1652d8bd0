//! What a transfer costs, as a table: a change in performance is a difference in text.
//!
//! 64 blocks of 1 MiB at 1 Gbit/s. *Overhead*: octets of symbols that the group was sent, beyond
//! those of the image. *NEEDs*: for every 32 blocks. *Time*: from the first symbol until the last
//! receiver is done, over what the image alone takes on the wire.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::{
    fmt::Write,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{crowd::crowd, run};

#[test]
fn the_table_of_costs_is_as_it_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/efficiency.txt");
    let table = table();
    if std::env::var_os("IMGCAST_UPDATE").is_some() {
        fs::write(&path, &table).unwrap();
        return;
    }
    let before = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        table == before,
        "costs changed: where that is right, run this again with IMGCAST_UPDATE=1\n{table}"
    );
}

fn table() -> String {
    let cells: Vec<(usize, u32)> =
        RECEIVERS.into_iter().flat_map(|it| LOSSES_PPM.map(|loss| (it, loss))).collect();
    let rows: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
    // The largest first, so that the threads end together.
    let next = AtomicUsize::new(cells.len());
    let work = || {
        loop {
            let taken =
                next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_sub(1));
            let Ok(number) = taken else { return };
            let (receivers, loss_ppm) = cells[number - 1];
            rows.lock().unwrap().push((number, row(receivers, loss_ppm)));
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_unstable();
    let mut table = String::from("receivers   loss %   overhead %   NEEDs per window   time\n");
    rows.iter().for_each(|(_, row)| table.push_str(row));
    table
}

fn row(receivers: usize, loss_ppm: u32) -> String {
    let report = run(crowd(7, receivers, BLOCKS, loss_ppm));
    report.assert_all_done();
    let overhead = report.overhead_ppm.saturating_sub(1_000_000);
    let symbols = u128::from(BLOCKS) * 745;
    // 1,408 octets of symbol, 44 of ours and 66 of UDP, IP and Ethernet, at 8 ns each.
    let ideal_nanos = symbols * (1_408 + 44 + 66) * 8;
    let nanos = (report.done_at - report.started_at).as_nanos();
    let percent = nanos * 100 / ideal_nanos;
    let mut row = String::new();
    writeln!(
        row,
        "{receivers:>9}   {:>6}   {:>10}   {:>16}   {:>2}.{:02}",
        format!("{}.{}", loss_ppm / 10_000, loss_ppm / 1_000 % 10),
        format!("{}.{}", overhead / 10_000, overhead / 1_000 % 10),
        report.needs_per_window(),
        percent / 100,
        percent % 100
    )
    .unwrap();
    row
}

const RECEIVERS: [usize; 4] = [1, 10, 100, 1_000];
const LOSSES_PPM: [u32; 5] = [0, 1_000, 10_000, 50_000, 200_000];
const BLOCKS: u64 = 64;
