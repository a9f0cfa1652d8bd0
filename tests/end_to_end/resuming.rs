//! What an earlier run or an older image left on the target is not sent again, and is believed only
//! as far as it is right.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::{self, sleep};
use std::time::Duration;

use imgcast_common::prng::Prng;
use imgcast_tests::disks::LoopDisk;
use imgcast_tests::machine::skip;
use imgcast_tests::process::{Process, wait_until};

use crate::stage::{BLOCK, DEADLINE, Stage, assert_holds, random};

#[test]
fn killed_at_two_hundred_random_moments_receivers_resume_and_no_image_is_wrong() {
    let wanted = std::env::var("IMGCAST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let octets = random(48 * BLOCK + 77);
    let (mut kills, mut hits, mut found) = (0, 0, 0);
    for round in 0.. {
        if kills >= wanted {
            break;
        }
        let stage = Stage::new();
        let image = stage.image("image", &octets);
        let least = GROUP.to_string();
        let mut sender = stage.send(&image, &["--max-bitrate", "400M", "--min-receivers", &least]);
        let lives = thread::scope(|scope| {
            let live = |number| {
                let (stage, octets) = (&stage, &octets);
                scope.spawn(move || live(stage, number, round * GROUP + number, octets))
            };
            let threads: Vec<_> = (0..GROUP).map(live).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        sender.succeed(DEADLINE);
        for life in lives {
            kills += life.kills;
            hits += life.hits;
            found += life.found;
        }
    }
    println!("{kills} killed, {hits} of which had written something; {found} blocks found");
    assert!(hits * 4 >= kills * 3, "of {kills} who were killed only {hits} had written something");
    assert!(found > 0, "of {kills} who were killed none had anything that could be used");
}

/// Octets of a file that take space: what is not written yet does not.
fn written(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

#[derive(Debug)]
struct Life {
    kills: u32,
    /// Those of them that struck when blocks were on the target already.
    hits: u32,
    /// Blocks that the last run found where the ones before had written them.
    found: u64,
}

/// A receiver that is killed and started again a few times, until it has the image.
fn live(stage: &Stage, number: u64, seed: u64, octets: &[u8]) -> Life {
    let (name, mut prng) = (format!("copy-{number}"), Prng::new(seed));
    let part = stage.output(&format!(".{name}.imgcast-part"));
    let (mut kills, mut hits) = (0, 0);
    loop {
        let before = written(&part);
        let mut receiver = stage.receive(&name, &["--resume"]);
        if kills < KILLS_OF_ONE {
            // Few are killed before they write: not much can go wrong for those.
            if !prng.chance(KILLED_SOONER_PPM) {
                wait_until("it writes or goes", DEADLINE, || {
                    written(&part) > before || receiver.poll().is_some()
                });
            }
            sleep(Duration::from_micros(prng.below(MOMENT_MAX_MICROS)));
            if receiver.poll().is_none() {
                receiver.kill_nine();
                kills += 1;
                hits += u32::from(written(&part) > 0);
                continue;
            }
        }
        receiver.succeed(DEADLINE);
        assert_holds(&stage.output(&name), octets);
        let of_it = |part: &String| part.starts_with(&format!(".{name}."));
        assert!(!stage.outputs().iter().any(of_it), "{:?}", stage.outputs());
        return Life { kills, hits, found: receiver.found_of(49).unwrap_or(0) };
    }
}

/// As many as `IMGCAST_KILLS` says, or so many.
const KILLS: u32 = 200;
const KILLS_OF_ONE: u32 = 6;
/// Receivers at a time.
const GROUP: u64 = 4;
/// From the first write on a transfer takes about a second, and what is left of one less.
const MOMENT_MAX_MICROS: u64 = 600_000;
/// One in ten is killed at any moment.
const KILLED_SOONER_PPM: u32 = 100_000;

#[test]
fn what_a_run_that_was_killed_had_is_not_sent_again() {
    let stage = Stage::new();
    let octets = random(96 * BLOCK);
    let image = stage.image("image", &octets);
    let options = ["--max-bitrate", "200M", "--min-receivers", "2"];
    let mut sender = stage.send(&image, &options);
    let mut other = stage.receive("other", &[]);
    let mut killed = stage.receive("copy", &["--resume", "--read-back"]);
    let part = stage.output(".copy.imgcast-part");
    wait_for_blocks(&part, 70 * BLOCK as u64);
    killed.kill_nine();
    let journal = fs::metadata(stage.output(".copy.imgcast-journal")).unwrap().len();
    assert!(journal >= 64 + 12, "one window of 32 MiB is flushed: {journal} octets");
    other.succeed(DEADLINE);
    let mut resumed = stage.receive("copy", &["--resume", "--read-back", "-v"]);
    resumed.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
    // Two windows of 32 MiB, and what was not flushed when it was killed.
    let share = percent_received(&resumed);
    assert!(share < 75, "{share} %\n{}", resumed.output());
    assert_eq!(stage.outputs(), ["copy", "other"]);
}

#[test]
fn of_an_image_that_is_there_but_for_a_fiftieth_a_fiftieth_is_sent() {
    let stage = Stage::new();
    let old = random(100 * BLOCK + 5);
    let mut new = old.clone();
    new[31 * BLOCK + 9] ^= 1;
    new[70 * BLOCK..71 * BLOCK].fill(0x55);
    let image = stage.image("image", &new);
    for name in ["one", "two"] {
        fs::write(stage.output(name), &old).unwrap();
    }
    let mut sender = stage.send(&image, &["--min-receivers", "2", "-v"]);
    let mut receivers = ["one", "two"].map(|name| stage.receive(name, &["--resume", "-v"]));
    for receiver in &mut receivers {
        receiver.succeed(DEADLINE);
        let share = percent_received(receiver);
        assert!((1..4).contains(&share), "{share} %\n{}", receiver.output());
    }
    sender.succeed(DEADLINE);
    for name in ["one", "two"] {
        assert_holds(&stage.output(name), &new);
    }
    assert_eq!(stage.outputs(), ["one", "two"]);
}

#[test]
fn a_journal_of_its_own_place_is_used_and_removed_and_nothing_else_is_taken_for_one() {
    let stage = Stage::new();
    let octets = random(3 * BLOCK);
    let image = stage.image("image", &octets);
    let precious = stage.image("precious", b"precious");
    let mut refused = stage.receive("copy", &["--journal", precious.to_str().unwrap()]);
    refused.exit_with(2, DEADLINE);
    assert!(refused.stderr().contains("not a journal"), "{}", refused.output());
    assert_holds(&precious, b"precious");
    let itself = stage.output("copy");
    let mut refused = stage.receive("copy", &["--journal", itself.to_str().unwrap()]);
    refused.exit_with(2, DEADLINE);
    assert_eq!(stage.outputs(), [""; 0]);
    let journal = stage.path("journal");
    let mut sender = stage.send(&image, &[]);
    stage.receive("copy", &["--journal", journal.to_str().unwrap()]).succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &octets);
    assert_eq!(stage.outputs(), ["copy"]);
    assert!(!journal.exists());
}

#[test]
fn a_journal_of_another_disk_is_believed_only_as_far_as_that_disk_is_right() {
    let name = "a_journal_of_another_disk_is_believed_only_as_far_as_that_disk_is_right";
    let stage = Stage::new();
    let octets = random(96 * BLOCK);
    let mut others: Vec<u8> = octets.iter().map(|octet| !octet).collect();
    let right = 3 * BLOCK..8 * BLOCK;
    others[right.clone()].copy_from_slice(&octets[right]);
    let disks = [stage.image("one", &vec![0; octets.len()]), stage.image("two", &others)];
    let [one, two] = match disks.map(|file| LoopDisk::new(&file)) {
        [Ok(one), Ok(two)] => [one, two],
        [Err(reason), _] | [_, Err(reason)] => return skip(name, &reason),
    };
    let journal = stage.path("journal");
    let options = ["--resume", "--journal", journal.to_str().unwrap(), "-v"];
    let _sender = stage.send(&stage.image("image", &octets), &["--max-bitrate", "100M"]);
    let mut first = stage.start("first", stage.receiver(one.path(), &options));
    wait_until("one window is flushed", DEADLINE, || {
        fs::metadata(&journal).is_ok_and(|it| it.len() >= 64 + 12)
    });
    first.kill_nine();
    let mut second = stage.start("second", stage.receiver(two.path(), &options));
    second.succeed(DEADLINE);
    assert_holds(two.path(), &octets);
    let found = second.found_of(96).unwrap_or(0);
    assert!(found <= 5, "{found} found where 5 are right\n{}", second.output());
    assert!(!journal.exists());
}

#[test]
fn what_was_zeroed_since_is_zero_though_the_older_run_wrote_something_there() {
    let stage = Stage::new();
    let old = random(6 * BLOCK);
    let part = stage.output(".copy.imgcast-part");
    fs::write(&part, &old).unwrap();
    let mut new = old.clone();
    new[2 * BLOCK..4 * BLOCK].fill(0);
    let mut sender = stage.send(&stage.image("image", &new), &[]);
    stage.receive("copy", &["--resume"]).succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("copy"), &new);
    assert_eq!(stage.outputs(), ["copy"]);
}

fn wait_for_blocks(path: &Path, octets: u64) {
    let allocated = || fs::metadata(path).map_or(0, |it| it.blocks() * 512);
    wait_until("so much is written", DEADLINE, || allocated() >= octets);
}

/// Symbols that came, wanted or not, over those of the whole image, as the log has it.
fn percent_received(receiver: &Process) -> u64 {
    let (received, needed) = receiver.symbols_logged();
    received * 100 / needed
}
