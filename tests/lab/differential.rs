//! A new version of a real image, to receivers that hold the old one: what differs is sent, to all
//! of them at once, and little else.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use imgcast_tests::netns::Lab;
use imgcast_tests::process::{Process, run, wait_all};
use imgcast_tests::scratch::Scratch;

use crate::devices::LoopDevice;
use crate::image::{debian, root_partition, text};
use crate::needs::{Need, begin};
use crate::transfer::{SENDER_DEADLINE, TRANSFER_DEADLINE, Transfer};

#[test]
fn a_new_version_of_a_debian_image_costs_what_differs_and_a_tenth_at_most() {
    let name = "a_new_version_of_a_debian_image_costs_what_differs_and_a_tenth_at_most";
    let needs = [Need::Lab, Need::Mounts, Need::DebianImage];
    let Some(_guard) = begin(name, &needs) else { return };
    let scratch = Scratch::temporary();
    let lab = Lab::new(RECEIVERS).unwrap();
    let disks: Vec<LoopDevice> = (0..RECEIVERS)
        .map(|number| {
            let file = copy_of(debian(), scratch.path(&format!("disk-{number}")));
            LoopDevice::on(&file, &[]).unwrap()
        })
        .collect();
    let image = copy_of(debian(), scratch.path("new.img"));
    change(&image, &scratch.path("mounted"));
    let changed = changed_blocks(debian(), &image);

    let transfer = Transfer { lab: &lab, scratch: &scratch, image: &image, max_bitrate: "300M" };
    let mut sender = transfer.start_sender(RECEIVERS);
    let resume = |(number, disk): (usize, &LoopDevice)| {
        transfer.start_receiver_with(number, disk.path(), &["--resume"])
    };
    let mut receivers: Vec<Process> = disks.iter().enumerate().map(resume).collect();
    wait_all(&mut receivers, TRANSFER_DEADLINE);
    for receiver in &mut receivers {
        receiver.succeed(TRANSFER_DEADLINE);
    }
    sender.succeed(SENDER_DEADLINE);
    for disk in &disks {
        run(&["cmp", text(&image), text(disk.path())]).unwrap();
    }
    let (sent, differs) = (lab.sent_bytes(), changed << 20);
    let factor = sent as f64 / differs as f64;
    println!("{changed} blocks of a MiB differ; {sent} octets for {differs}: {factor:.3}");
    assert!(changed >= ADDED_MIB, "{changed} blocks");
    assert!(factor <= 1.1, "{sent} octets were sent where {differs} differ: {factor:.3}");
}

/// Does to the root file system of an image, mounted at `directory`, what an upgrade does: files
/// come, change and go.
fn change(image: &Path, directory: &Path) {
    std::fs::create_dir(directory).unwrap();
    let (offset, octets) = root_partition(image).unwrap();
    let options = format!("loop,offset={offset},sizelimit={octets}");
    run(&["mount", "-o", &options, text(image), text(directory)]).unwrap();
    let script = "cd \"$1\"
        head -c \"$2\" /dev/urandom >usr/lib/new-library
        cp -a usr/share/perl usr/share/perl-next
        for file in etc/*.conf; do echo '# changed' >>\"$file\"; done
        rm -r usr/share/man";
    let added = (ADDED_MIB << 20).to_string();
    let changed = run(&["sh", "-euc", script, "change", text(directory), &added]);
    run(&["umount", text(directory)]).unwrap();
    changed.unwrap();
}

/// Blocks of 1 MiB in which the new image differs from the old one, but those of zeroes.
fn changed_blocks(old: &Path, new: &Path) -> u64 {
    let (old, new) = (File::open(old).unwrap(), File::open(new).unwrap());
    let octets = new.metadata().unwrap().len();
    let (mut before, mut after) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let differs = |block: &u64| {
        old.read_exact_at(&mut before, block << 20).unwrap();
        new.read_exact_at(&mut after, block << 20).unwrap();
        before != after && after.iter().any(|octet| *octet != 0)
    };
    (0..octets >> 20).filter(differs).count() as u64
}

fn copy_of(image: &Path, copy: PathBuf) -> PathBuf {
    run(&["cp", "--sparse=always", text(image), text(&copy)]).unwrap();
    copy
}

const RECEIVERS: usize = 3;
/// Of a file that is new: enough for what a session says besides symbols to be little.
const ADDED_MIB: u64 = 48;
