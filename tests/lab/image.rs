//! Images to send and how copies are judged: with the system's own tools, not the project's code.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use imgcast_tests::process::{Process, run};
use imgcast_tests::scratch::Scratch;

/// A real, bootable Debian disk: built on first use and kept with the build's other products.
pub(crate) fn debian() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target has a path");
        let image = target.join("lab/debian.img");
        let scratch = Scratch::temporary();
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/lab/make-image"));
        command.arg(&image);
        Process::start("make-image", command, scratch.directory()).succeed(BUILD_DEADLINE);
        image
    })
}

pub(crate) fn sha256(path: &Path) -> String {
    first_word(&["sha256sum", text(path)])
}

pub(crate) fn b3sum(path: &Path) -> String {
    first_word(&["b3sum", text(path)])
}

/// The BLAKE3 hash that a program printed: the first word of 64 hexadecimal digits.
pub(crate) fn printed_image_id(output: &str) -> Option<String> {
    output
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find(|word| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()))
        .map(str::to_ascii_lowercase)
}

/// Where the last partition of a disk image, its root file system, begins and how long it is, in
/// octets.
///
/// # Errors
///
/// What `sfdisk` said.
pub(crate) fn root_partition(disk: &Path) -> Result<(u64, u64), String> {
    let table = run(&["sfdisk", "--json", text(disk)])?;
    let table: serde_json::Value = serde_json::from_str(&table).map_err(|e| e.to_string())?;
    let partitions = table["partitiontable"]["partitions"].as_array();
    let root = partitions.and_then(|all| all.last()).ok_or("no partitions")?;
    let sectors = |field: &str| root[field].as_u64().ok_or(format!("no {field}: {root}"));
    Ok((sectors("start")? * SECTOR_BYTES, sectors("size")? * SECTOR_BYTES))
}

/// Checks the root file system of a disk image as Debian itself would.
///
/// # Errors
///
/// What `sfdisk` or `e2fsck` said.
pub(crate) fn check_root_file_system(disk: &Path, scratch: &Scratch) -> Result<(), String> {
    let (start, octets) = root_partition(disk)?;
    let (input, copy) = (format!("if={}", text(disk)), scratch.path("root.ext4"));
    let (output, skip) = (format!("of={}", text(&copy)), format!("skip={start}"));
    let count = format!("count={octets}");
    let flags = ["bs=1M", "iflag=skip_bytes,count_bytes", "conv=sparse", "status=none"];
    run(&[&["dd", &input, &output, &skip, &count], flags.as_slice()].concat())?;
    run(&["e2fsck", "-fn", text(&copy)]).map(drop)
}

pub(crate) fn free_bytes(directory: &Path) -> u64 {
    let facts = nix::sys::statvfs::statvfs(directory).expect("the file system tells its size");
    facts.blocks_available() * facts.fragment_size()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("the lab's paths are UTF-8")
}

fn first_word(command: &[&str]) -> String {
    let output = run(command).unwrap_or_else(|e| panic!("{e}"));
    output.split_whitespace().next().unwrap_or_default().to_owned()
}

/// The unit of sfdisk's numbers.
const SECTOR_BYTES: u64 = 512;

/// Two minutes on two cores, plus the download of some 200 MB.
const BUILD_DEADLINE: Duration = Duration::from_secs(900);
