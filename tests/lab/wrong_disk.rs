//! Disks that must not be written to: each is refused with words of its own and exit code 7, and is
//! afterwards what it was.
//!
//! The receiver runs in a mount namespace that a shell script prepares: what this kernel cannot
//! make, such as LVM, it finds in a tree that lies over `/sys`.

use std::fs::{self, File};

use imgcast_tests::process::{Process, run};

use crate::bench::{Bench, DEADLINE, DISK_OCTETS, number_of};
use crate::devices::LoopDevice;
use crate::image::{sha256, text};

#[test]
fn a_mounted_disk() {
    let Some(bench) = Bench::new("a_mounted_disk", &[]) else { return };
    bench.disk.format().unwrap();
    let script = "mount -o ro $DISK $DIR/mnt";
    let words = bench.words("$DISK is in use: $DISK is mounted on $DIR/mnt (umount $DIR/mnt)");
    bench.refuses("target-busy", script, &bench.name(), &words);
}

#[test]
fn a_disk_with_a_mounted_partition() {
    let Some(bench) = Bench::new("a_disk_with_a_mounted_partition", &[]) else { return };
    bench.add_partition();
    run(&["mkfs.ext4", "-q", &format!("{}p1", bench.name())]).unwrap();
    let words = bench.words("$DISK is in use: ${DISK}p1 is mounted on $DIR/mnt");
    bench.refuses("target-busy", "mount -o ro ${DISK}p1 $DIR/mnt", &bench.name(), &words);
}

#[test]
fn a_partition_of_a_disk_that_is_mounted_whole() {
    let name = "a_partition_of_a_disk_that_is_mounted_whole";
    let Some(bench) = Bench::new(name, &[]) else { return };
    bench.disk.format().unwrap();
    bench.add_partition();
    let words = bench.words("${DISK}p1 is in use: $DISK is mounted on $DIR/mnt");
    let partition = format!("{}p1", bench.name());
    bench.refuses("target-busy", "mount -o ro $DISK $DIR/mnt", &partition, &words);
}

#[test]
fn a_disk_that_is_mounted_for_others_only() {
    let Some(bench) = Bench::new("a_disk_that_is_mounted_for_others_only", &[]) else { return };
    bench.disk.format().unwrap();
    let script = "mount -o ro $DISK $DIR/mnt; echo ready >&2; exec sleep 1000";
    let mut other = Process::start("other", bench.command(script, &[]), bench.scratch.directory());
    other.say("ready", DEADLINE);
    let process = format!("in the mount namespace of process {}", other.id());
    bench.refuses("target-busy", "", &bench.name(), &process);
}

#[test]
fn a_disk_that_is_swapped_to() {
    let Some(bench) = Bench::new("a_disk_that_is_swapped_to", &[]) else { return };
    run(&["mkswap", &bench.name()]).unwrap();
    run(&["swapon", &bench.name()]).unwrap();
    let _off = OnDrop(vec!["swapoff".into(), bench.name()]);
    let words = bench.words("$DISK is used as swap (swapoff $DISK)");
    bench.refuses("target-busy", "", &bench.name(), &words);
}

#[test]
fn the_disk_that_the_system_runs_from() {
    let Some(bench) = Bench::new("the_disk_that_the_system_runs_from", &[]) else { return };
    bench.disk.format().unwrap();
    let directories = "mkdir mnt/usr mnt/proc mnt/sys mnt/dev mnt/programs";
    let links = "ln -s usr/bin usr/lib usr/lib64 mnt";
    let script = format!("cd $DIR; mount $DISK mnt; {directories}; {links}; umount mnt");
    bench.run_script(&script);
    let script = "cd $DIR; mount -o ro $DISK mnt; mount --bind ${0%/*} mnt/programs
        for i in usr proc sys dev; do mount --rbind /$i mnt/$i; done
        exec chroot mnt /programs/imgcast-receiver \"$@\"";
    let words = bench.words("this system runs from $DISK, its root file system");
    bench.refuses("target-busy", script, &bench.name(), &words);
}

#[test]
fn a_physical_volume_of_lvm() {
    let Some(bench) = Bench::new("a_physical_volume_of_lvm", &[]) else { return };
    let script = held_by("dm-0", "253:0") + "mapped dm-0 vg-root LVM-abc; $DONE";
    let words = bench.words("$DISK is held by dm-0 (vg-root) (vgchange -an");
    bench.refuses("target-busy", &script, &bench.name(), &words);
}

#[test]
fn an_encrypted_disk_whose_contents_are_mounted() {
    let name = "an_encrypted_disk_whose_contents_are_mounted";
    let Some(bench) = Bench::new(name, &[]) else { return };
    let inner = LoopDevice::new(&bench.scratch.path("inner"), 4).unwrap();
    inner.format().unwrap();
    let mount = format!("mount -o ro {} $DIR/mnt;", text(inner.path()));
    let held = held_by("dm-1", &number_of(inner.path()));
    let script = mount + &held + "mapped dm-1 home CRYPT-LUKS2-abc; $DONE";
    let words = "/dev/dm-1 is mounted on $DIR/mnt (umount $DIR/mnt); \
                 $DISK is held by dm-1 (home) (cryptsetup close home)";
    bench.refuses("target-busy", &script, &bench.name(), &bench.words(words));
}

#[test]
fn a_member_of_a_raid() {
    let Some(bench) = Bench::new("a_member_of_a_raid", &[]) else { return };
    let script = held_by("md127", "9:127") + "$DONE";
    let words = bench.words("$DISK is held by md127 (mdadm --stop /dev/md127)");
    bench.refuses("target-busy", &script, &bench.name(), &words);
}

#[test]
fn one_path_of_several_to_a_disk() {
    let Some(bench) = Bench::new("one_path_of_several_to_a_disk", &[]) else { return };
    let script = held_by("dm-2", "253:2") + "mapped dm-2 mpatha mpath-3600; $DONE";
    let words = "multipath -f mpatha, or write to /dev/mapper/mpatha";
    bench.refuses("target-busy", &script, &bench.name(), words);
}

#[test]
fn a_disk_behind_a_loop_device() {
    let Some(bench) = Bench::new("a_disk_behind_a_loop_device", &[]) else { return };
    let upper = run(&["losetup", "--find", "--show", &bench.name()]).unwrap().trim().to_owned();
    let _off = OnDrop(vec!["losetup".into(), "--detach".into(), upper.clone()]);
    let words = format!("(losetup -d {upper})");
    bench.refuses("target-busy", "", &bench.name(), &words);
}

#[test]
fn a_file_that_a_loop_device_shows() {
    let Some(bench) = Bench::new("a_file_that_a_loop_device_shows", &[]) else { return };
    bench.disk.format().unwrap();
    fs::hard_link(bench.scratch.path("disk"), bench.scratch.path("second-name")).unwrap();
    let held = "is held by $NAME (losetup -d $DISK)";
    let held = bench.words(&held.replace("$NAME", &bench.name()["/dev/".len()..]));
    for (option, script, mounted) in [
        ("--overwrite", "", ""),
        ("--resume", "", ""),
        ("--overwrite", "mount -o ro $DISK $DIR/mnt", "$DISK is mounted on $DIR/mnt (umount "),
    ] {
        for name in ["disk", "second-name"] {
            let output = bench.scratch.path(name);
            let before = sha256(&output);
            let said = bench.receive(script, text(&output), &[option]);
            assert!(said.contains("error[target-busy]: "), "{said}");
            assert!(said.contains(&format!("{} {held}", text(&output))), "{said}");
            assert!(said.contains(&bench.words(mounted)), "{said}");
            assert!(said.contains("\nexit code 7\n"), "{said}");
            assert_eq!(sha256(&output), before);
        }
    }
    // Without it the file is like any other.
    fs::write(bench.scratch.path("other"), "old").unwrap();
    let end = bench.receive("", text(&bench.scratch.path("other")), &["--overwrite"]);
    assert!(end.contains("error[no-sender]"), "{end}");
}

#[test]
fn a_read_only_disk() {
    let Some(bench) = Bench::new("a_read_only_disk", &[]) else { return };
    run(&["blockdev", "--setro", &bench.name()]).unwrap();
    // It would stay so for whoever gets this loop device next.
    let _off = OnDrop(vec!["blockdev".into(), "--setrw".into(), bench.name()]);
    let words = bench.words("$DISK is read-only; check its write-protect switch");
    bench.refuses("target-read-only", "", &bench.name(), &words);
}

#[test]
fn a_disk_without_a_medium() {
    let Some(bench) = Bench::new("a_disk_without_a_medium", &[]) else { return };
    File::options().write(true).open(bench.scratch.path("disk")).unwrap().set_len(0).unwrap();
    run(&["losetup", "--set-capacity", &bench.name()]).unwrap();
    bench.refuses("target-kind", "", &bench.name(), "a block device without a medium");
}

#[test]
fn a_disk_that_is_too_small() {
    let Some(bench) = Bench::new("a_disk_that_is_too_small", &[]) else { return };
    let mut image = vec![7; DISK_OCTETS + 1];
    image[..11].copy_from_slice(b"a beginning");
    let mut sender = bench.send(&image);
    let words = bench.words(
        "$DISK is too small: it holds 4194304 octets (4.0 MiB), the image has \
                             4194305",
    );
    bench.refuses("target-too-small", "", &bench.name(), &words);
    sender.say(&format!("failed: {}", bench.words("$DISK is too small: it holds")), DEADLINE);
}

#[test]
fn a_disk_whose_sectors_are_not_those_of_the_partition_table() {
    let name = "a_disk_whose_sectors_are_not_those_of_the_partition_table";
    let Some(bench) = Bench::new(name, &["--sector-size", "4096"]) else { return };
    let mut image = vec![0; DISK_OCTETS];
    image[450] = 0xee;
    image[510..520].copy_from_slice(b"\x55\xaaEFI PART");
    image[536] = 1;
    let mut sender = bench.send(&image);
    let words = bench.words(
        "$DISK has sectors of 4096 octets, and the image's partition table (GPT) \
                             is for sectors of 512:",
    );
    bench.refuses("target-sector-size", "", &bench.name(), &words);
    sender.say(&format!("failed: {}", bench.words("$DISK has sectors of 4096")), DEADLINE);
}

#[test]
fn no_disk_with_this_serial_number() {
    let Some(bench) = Bench::new("no_disk_with_this_serial_number", &[]) else { return };
    let script = format!("{SYSFS} device $NAME $NUMBER; put $NAME/serial S1; $DONE");
    let words = bench.words("no disk here is serial=S2; there are: $DISK (4.0 MiB, serial=S1)");
    bench.refuses("target-not-found", &script, "serial=S2", &words);
}

#[test]
fn a_serial_number_that_two_disks_have() {
    let Some(bench) = Bench::new("a_serial_number_that_two_disks_have", &[]) else { return };
    let script = format!(
        "{SYSFS} device $NAME $NUMBER; device sdb 8:16; put $NAME/serial S1; put sdb/serial S1; \
         $DONE"
    );
    let words = bench.words(
        "serial=S1 is more than one disk; name the one that is meant by \
                             something that the others are not: $DISK (4.0 MiB, serial=S1); \
                             /dev/sdb (4.0 MiB, serial=S1)",
    );
    bench.refuses("target-ambiguous", &script, "serial=S1", &words);
}

#[test]
fn a_world_wide_name_that_two_disks_have() {
    let Some(bench) = Bench::new("a_world_wide_name_that_two_disks_have", &[]) else { return };
    let script = format!(
        "{SYSFS} device $NAME $NUMBER; device sdb 8:16; put $NAME/wwid naa.5000c5; \
         put sdb/device/wwid eui.5000c5; $DONE"
    );
    let words = bench.words("wwn=0x5000C5 is more than one disk");
    bench.refuses("target-ambiguous", &script, "wwn=0x5000C5", &words);
}

#[test]
fn a_label_that_two_disks_have() {
    let Some(bench) = Bench::new("a_label_that_two_disks_have", &[]) else { return };
    let script = format!(
        "{SYSFS} device $NAME $NUMBER; device sdb 8:16; $DONE; {DEV}
        mount -t tmpfs none /run; links=/run/udev/links/'disk\\x2fby-label\\x2froot'
        mkdir -p $links; ln -s 0:$DISK $links/b$NUMBER; ln -s 0:/dev/sdb $links/b8:16
        ln -s $DISK /dev/disk/by-label/root"
    );
    let words = "/dev/disk/by-label/root is more than one disk";
    bench.refuses("target-ambiguous", &script, "/dev/disk/by-label/root", words);
}

#[test]
fn a_stable_name_that_no_disk_has() {
    let Some(bench) = Bench::new("a_stable_name_that_no_disk_has", &[]) else { return };
    let name = "/dev/disk/by-id/ata-imgcast";
    let words = format!("no disk here is {name}; there are: ");
    bench.refuses("target-not-found", DEV, name, &words);
}

#[test]
fn a_link_to_a_mounted_disk() {
    let Some(bench) = Bench::new("a_link_to_a_mounted_disk", &[]) else { return };
    bench.disk.format().unwrap();
    let script = "ln -s $DISK $DIR/link; ln -s link $DIR/again; mount -o ro $DISK $DIR/mnt";
    let link = bench.scratch.path("again");
    let words = bench.words("$DIR/again is $DISK\nerror[target-busy]: $DISK is in use: ");
    bench.refuses("target-busy", script, text(&link), &words);
}

#[test]
fn a_serial_number_of_a_mounted_disk() {
    let Some(bench) = Bench::new("a_serial_number_of_a_mounted_disk", &[]) else { return };
    bench.disk.format().unwrap();
    let script = format!(
        "mount -o ro $DISK $DIR/mnt; {SYSFS} device $NAME $NUMBER; put $NAME/serial S1; $DONE"
    );
    let words = bench.words("serial=S1 is $DISK\nerror[target-busy]: $DISK is in use: ");
    bench.refuses("target-busy", &script, "serial=S1", &words);
}

#[test]
fn a_misspelt_disk() {
    let Some(bench) = Bench::new("a_misspelt_disk", &[]) else { return };
    let misspelt = format!("{}x", bench.name());
    bench.refuses("target-kind", "", &misspelt, "a plain file in /dev would only fill the memory");
}

#[test]
fn a_disk_about_which_somebody_at_the_terminal_says_no() {
    let name = "a_disk_about_which_somebody_at_the_terminal_says_no";
    let Some(bench) = Bench::new(name, &[]) else { return };
    bench.add_partition();
    let at_terminal =
        |answer: &str| format!("echo {answer} | script -qec \"$0 $*\" $DIR/screen >&2; exit $?");
    let words = bench.words("error[target-declined]: $DISK is left as it is");
    bench.refuses("target-declined", &at_terminal("no"), &bench.name(), &words);
    let screen = fs::read_to_string(bench.scratch.path("screen")).unwrap();
    let shown = bench.words(
        "this overwrites $DISK (4.0 MiB, loop device on $DIR/disk)\r\n  \
                             ${DISK}p1  1.0 MiB\r\noverwrite it? Type yes or no: ",
    );
    assert!(screen.contains(&shown), "{screen:?}");
    // Who says yes gets further, and so does who said it beforehand.
    for (answer, options) in [("yes", &[][..]), ("no", &["--yes"])] {
        let end = bench.receive(&at_terminal(answer), &bench.name(), options);
        assert!(end.contains("error[no-sender]"), "{answer}: {end}");
    }
}

#[test]
fn a_disk_about_which_is_asked_though_what_is_said_goes_elsewhere() {
    let name = "a_disk_about_which_is_asked_though_what_is_said_goes_elsewhere";
    let Some(bench) = Bench::new(name, &[]) else { return };
    let at_terminal = |answer: &str| {
        let run = "script -qec \"$0 $* 2>$DIR/said\" $DIR/screen >&2 && code=0 || code=$?";
        format!("echo {answer} | {{ {run}; cat $DIR/said >&2; exit $code; }}; exit $?")
    };
    let words = bench.words("error[target-declined]: $DISK is left as it is");
    bench.refuses("target-declined", &at_terminal("no"), &bench.name(), &words);
    let screen = fs::read_to_string(bench.scratch.path("screen")).unwrap();
    assert!(screen.contains(&bench.words("this overwrites $DISK (4.0 MiB, ")), "{screen:?}");
    assert!(screen.contains("overwrite it? Type yes or no: "), "{screen:?}");
    let end = bench.receive(&at_terminal("yes"), &bench.name(), &[]);
    assert!(end.contains("error[no-sender]"), "{end}");
}

/// The script that has `holder` on the disk; `$DONE` is to follow.
fn held_by(holder: &str, number: &str) -> String {
    format!(
        "{SYSFS} device $NAME $NUMBER; device {holder} {number}; mkdir sys/devices/$NAME/holders
        ln -s ../../{holder} sys/devices/$NAME/holders/{holder};"
    )
}

/// Runs a command when it goes out of scope.
struct OnDrop(Vec<String>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let command: Vec<&str> = self.0.iter().map(String::as_str).collect();
        let _ = run(&command);
    }
}

/// Begins a tree like that of `/sys`, below `$DIR`.
const SYSFS: &str = "cd $DIR; mkdir -p sys/block sys/dev/block
    put() { mkdir -p sys/devices/${1%/*}; echo \"$2\" >sys/devices/$1; }
    device() { put $1/dev $2; put $1/size 8192; ln -s ../devices/$1 sys/block/
        ln -s ../../devices/$1 sys/dev/block/$2; }
    mapped() { put $1/dm/name $2; put $1/dm/uuid $3; }
    ";
/// A `/dev` of the namespace's own, with places for links.
const DEV: &str = "mount -t tmpfs none /dev; mkdir -p /dev/disk/by-id /dev/disk/by-label
    mknod $DISK b ${NUMBER%:*} ${NUMBER#*:}; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9";
