//! A receiver's disk or memory gives out: it ends with the reason, the others do not notice, and
//! the sender's table says why.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use imgcast_tests::disks::{LoopDisk, MemoryLimit, SmallFileSystem};
use imgcast_tests::machine::skip;
use imgcast_tests::process::{Process, run as command};
use nix::sys::signal::Signal;

use crate::stage::{BLOCK, DEADLINE, SLOW, Stage, assert_holds, random};

#[test]
fn a_file_system_without_room_for_the_image_is_refused_before_anything_is_written() {
    let name = "a_file_system_without_room_for_the_image_is_refused_before_anything_is_written";
    let stage = Stage::new();
    let small = match SmallFileSystem::new(&stage.path("small"), 2 * BLOCK as u64) {
        Ok(small) => small,
        Err(reason) => return skip(name, &reason),
    };
    let run = Run::start(&stage, 4, &small.path("copy"));
    let said = run.end(7);
    assert!(said.contains("error[target-no-room]: ") && said.contains("small/copy"), "{said}");
}

#[test]
fn a_file_system_that_fills_up_on_the_way_ends_its_receiver_and_nobody_else() {
    let name = "a_file_system_that_fills_up_on_the_way_ends_its_receiver_and_nobody_else";
    let stage = Stage::new();
    let small = match SmallFileSystem::new(&stage.path("small"), 40 * BLOCK as u64) {
        Ok(small) => small,
        Err(reason) => return skip(name, &reason),
    };
    let mut run = Run::start(&stage, 32, &small.path("copy"));
    run.failing.say("loss 0.0 %", DEADLINE);
    small.fill();
    let said = run.end(8);
    assert!(said.contains("error[write]: cannot write ") && said.contains("small/copy"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
}

#[test]
fn a_device_that_fails_while_it_is_written_ends_its_receiver_and_nobody_else() {
    let name = "a_device_that_fails_while_it_is_written_ends_its_receiver_and_nobody_else";
    let stage = Stage::new();
    // The device is large enough, what is behind it is not: a write fails that had no reason to.
    let disk = SmallFileSystem::new(&stage.path("behind"), 5 * BLOCK as u64).and_then(|behind| {
        let file = behind.path("disk");
        let made = File::create(&file).and_then(|made| made.set_len(64 * BLOCK as u64));
        made.map_err(|error| error.to_string())?;
        LoopDisk::new(&file).map(|disk| (disk, behind))
    });
    let (disk, _behind) = match disk {
        Ok(disk) => disk,
        Err(reason) => return skip(name, &reason),
    };
    let said = Run::start(&stage, 16, disk.path()).end(8);
    let words = ["error[write]: ", "error[flush]: "];
    assert!(words.iter().any(|words| said.contains(words)), "{said}");
    assert!(said.contains(disk.path().to_str().unwrap()) && said.contains("os error "), "{said}");
}

#[test]
fn a_device_that_vanishes_while_it_is_written_ends_its_receiver_and_nobody_else() {
    let name = "a_device_that_vanishes_while_it_is_written_ends_its_receiver_and_nobody_else";
    let stage = Stage::new();
    let disk = match LoopDisk::new(&stage.image("disk", &vec![0; 64 * BLOCK])) {
        Ok(disk) => disk,
        Err(reason) => return skip(name, &reason),
    };
    let mut run = Run::start(&stage, 32, disk.path());
    run.failing.say("loss 0.0 %", DEADLINE);
    // As with a disk that is unplugged: it has no sectors any more.
    disk.cut_to(0);
    command(&["losetup", "--set-capacity", disk.path().to_str().unwrap()]).unwrap();
    let said = run.end(8);
    let words = ["error[write]: ", "error[flush]: "];
    assert!(words.iter().any(|words| said.contains(words)), "{said}");
    assert!(said.contains(disk.path().to_str().unwrap()) && said.contains("os error "), "{said}");
}

#[test]
fn a_receiver_that_is_killed_for_want_of_memory_starts_again_and_finishes() {
    let name = "a_receiver_that_is_killed_for_want_of_memory_starts_again_and_finishes";
    let limit = match MemoryLimit::new(6 << 20) {
        Ok(limit) => limit,
        Err(reason) => return skip(name, &reason),
    };
    let stage = Stage::new();
    let octets = random(24 * BLOCK);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &[&SLOW[..], &["--min-receivers", "2"]].concat());
    let mut killed = stage.receive("killed", &["--memory", "64M"]);
    if let Err(reason) = limit.hold(&killed) {
        return skip(name, &reason);
    }
    let mut other = stage.receive("other", &[]);
    let end = killed.wait(DEADLINE);
    assert_eq!(end.status.signal(), Some(Signal::SIGKILL as i32), "{}", killed.output());
    let again = stage.receiver(&stage.output("killed"), &[]);
    let mut again = stage.start("again", again);
    again.succeed(DEADLINE);
    other.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("killed"), &octets);
    assert_holds(&stage.output("other"), &octets);
}

#[test]
fn a_receiver_that_stands_still_for_thirty_seconds_goes_on_and_nobody_waits_for_it() {
    let stage = Stage::new();
    let octets = random(16 * BLOCK);
    let image = stage.image("image", &octets);
    let mut sender = stage.send(&image, &[&SLOW[..], &["--min-receivers", "2"]].concat());
    let mut still = stage.receive("still", &[]);
    let mut other = stage.receive("other", &[]);
    still.say("loss 0.0 %", DEADLINE);
    still.signal(Signal::SIGSTOP);
    other.succeed(DEADLINE);
    let left = STANDS_STILL.saturating_sub(other.age());
    sleep(left);
    still.signal(Signal::SIGCONT);
    still.succeed(DEADLINE);
    sender.succeed(DEADLINE);
    assert_holds(&stage.output("still"), &octets);
    assert_holds(&stage.output("other"), &octets);
}

/// A transfer to a receiver whose disk will give out, and to a healthy one.
struct Run<'a> {
    stage: &'a Stage,
    octets: Vec<u8>,
    sender: Process,
    healthy: Process,
    failing: Process,
}

impl<'a> Run<'a> {
    /// An image of so many blocks, to `target` among others.
    fn start(stage: &'a Stage, blocks: usize, target: &Path) -> Self {
        let octets = random(blocks * BLOCK);
        let image = stage.image("image", &octets);
        let sender = stage.send(&image, &[&SLOW[..], &["--min-receivers", "2"]].concat());
        let healthy = stage.receive("healthy", &[]);
        let failing = stage.start("failing", stage.receiver(target, &[]));
        Self { stage, octets, sender, healthy, failing }
    }

    /// The one ends with this code, the other well; the sender's table has both. Returns what the
    /// failing one said.
    fn end(mut self, code: i32) -> String {
        self.failing.exit_with(code, DEADLINE);
        self.healthy.succeed(DEADLINE);
        self.sender.exit_with(5, DEADLINE);
        assert_holds(&self.stage.output("healthy"), &self.octets);
        let table = self.sender.stdout();
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert!(rows.len() == 2 && rows[0].contains(" failed ") && rows[1].contains(" done "));
        assert!(rows[0].ends_with(&format!("(exit {code})")), "{table}");
        assert_eq!(self.stage.outputs(), ["healthy"]);
        self.failing.stderr()
    }
}

/// A little longer than a sender waits before it asks whether a receiver is still there.
const STANDS_STILL: Duration = Duration::from_secs(31);
