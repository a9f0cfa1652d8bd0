//! Disks that other programs use: who writes to one, has locked it or has it to itself is named,
//! and the disk stays what it was.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;

use imgcast_tests::process::{Process, run};
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_EXCL;

use crate::bench::{Bench, DEADLINE};
use crate::devices::LoopDevice;
use crate::image::text;

#[test]
fn a_disk_that_another_program_has_locked() {
    let Some(bench) = Bench::new("a_disk_that_another_program_has_locked", &[]) else { return };
    let file = File::open(bench.disk.path()).unwrap();
    let _lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    bench.refuses("target-busy", "", &bench.name(), &bench.words("$DISK is locked by lab-"));
    let words = format!(", process {0} (kill {0})", std::process::id());
    bench.refuses("target-busy", "", &bench.name(), &words);
}

#[test]
fn a_disk_that_is_being_sent() {
    let Some(bench) = Bench::new("a_disk_that_is_being_sent", &[]) else { return };
    bench.add_partition();
    let (disk, partition) = (bench.name(), bench.name() + "p1");
    // By itself, of a disk whose part is sent, and of a part of what is sent.
    for (sent, output) in [(&disk, &disk), (&partition, &disk), (&disk, &partition)] {
        let _senders = [9632, 9634].map(|portbase| bench.send_from(sent.as_ref(), portbase));
        let words = format!("{sent} is locked by imgcast-sender, process ");
        bench.refuses("target-busy", "", output, &words);
    }
    let end = bench.receive("", &disk, &[]);
    assert!(end.contains("error[no-sender]"), "{end}");
}

#[test]
fn a_loop_device_whose_file_is_being_sent() {
    let name = "a_loop_device_whose_file_is_being_sent";
    let Some(bench) = Bench::new(name, &[]) else { return };
    bench.add_partition();
    let file = bench.scratch.path("disk");
    let sender = bench.send_from(&file, 9632);
    let words = format!("{} is locked by imgcast-sender, process {}", text(&file), sender.id());
    for output in [bench.name(), bench.name() + "p1"] {
        bench.refuses("target-busy", "", &output, &words);
    }
    drop(sender);
    let end = bench.receive("", &bench.name(), &[]);
    assert!(end.contains("error[no-sender]"), "{end}");
}

#[test]
fn a_disk_that_another_program_has_open_for_writing() {
    let name = "a_disk_that_another_program_has_open_for_writing";
    let Some(bench) = Bench::new(name, &[]) else { return };
    bench.add_partition();
    let (disk, partition) = (bench.name(), bench.name() + "p1");
    for (open, output) in [(&disk, &disk), (&partition, &disk), (&disk, &partition)] {
        let _writer = File::options().write(true).open(open).unwrap();
        let words = format!("{open} is open for writing in lab-");
        bench.refuses("target-busy", "", output, &words);
        let words = format!(
            ", process {0} (end that as it should be ended, or: kill {0})",
            std::process::id()
        );
        bench.refuses("target-busy", "", output, &words);
    }
    // Who only reads it is in nobody's way.
    let _reader = File::open(&disk).unwrap();
    let end = bench.receive("", &disk, &[]);
    assert!(end.contains("error[no-sender]"), "{end}");
}

#[test]
fn a_disk_that_another_program_has_to_itself() {
    let Some(bench) = Bench::new("a_disk_that_another_program_has_to_itself", &[]) else { return };
    let mut options = File::options();
    let _held = options.read(true).custom_flags(O_EXCL).open(bench.disk.path()).unwrap();
    bench.refuses("target-busy", "", &bench.name(), &bench.words("$DISK is open in lab-"));
    let words = format!(", process {0} (kill {0})", std::process::id());
    bench.refuses("target-busy", "", &bench.name(), &words);
}

#[test]
fn a_disk_that_another_receiver_is_to_write_to() {
    let name = "a_disk_that_another_receiver_is_to_write_to";
    let Some(bench) = Bench::new(name, &[]) else { return };
    bench.add_partition();
    let arguments = ["receive", "--output", &bench.name(), "--interface", "lo"];
    let command = bench.command("", &[&arguments[..], &["--portbase", "9640"]].concat());
    let mut first = Process::start("first", command, bench.scratch.directory());
    first.say("listening for a sender", DEADLINE);
    // The shell and unshare have become the receiver.
    let words = format!("is open for writing in imgcast-receiver, process {}", first.id());
    for output in [bench.name(), bench.name() + "p1"] {
        bench.refuses("target-busy", "", &output, &format!("{} {words}", bench.name()));
    }
    first.kill_nine();
    let end = bench.receive("", &bench.name(), &[]);
    assert!(end.contains("error[no-sender]"), "{end}");
}

#[test]
fn a_disk_that_holds_the_journal_of_a_mounted_file_system() {
    let name = "a_disk_that_holds_the_journal_of_a_mounted_file_system";
    let Some(bench) = Bench::new(name, &[]) else { return };
    run(&["mke2fs", "-q", "-F", "-b", "1024", "-O", "journal_dev", &bench.name()]).unwrap();
    let other = LoopDevice::new(&bench.scratch.path("other"), 8).unwrap();
    let journal = format!("device={}", bench.name());
    run(&["mkfs.ext4", "-q", "-F", "-b", "1024", "-J", &journal, text(other.path())]).unwrap();
    // Read-only would not open the journal for good.
    let script = format!("mount {} $DIR/mnt", text(other.path()));
    let said = bench.receive(&script, &bench.name(), &[]);
    assert!(said.contains("error[target-busy]: ") && said.contains("\nexit code 7\n"), "{said}");
    assert!(said.contains("belong to a mounted file system as its external journal"), "{said}");
}
