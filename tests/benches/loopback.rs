//! A transfer over `lo`, from a tmpfs to itself, beside what `lo` carries without a protocol. It
//! takes no root.
//!
//! ```sh
//! cargo bench -p imgcast-tests --bench loopback
//! ```
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use imgcast_tests::process::{Process, run};
use imgcast_tests::programs::programs;
use imgcast_tests::scratch::{self, Scratch};

/// Measures a transfer over lo.
#[derive(Debug, Parser)]
#[command(name = "loopback")]
struct Args {
    /// How often
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// How large the image is
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    size: u64,
    /// Where image and copy are, a tmpfs
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    memory: PathBuf,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    scratch::delete_orphans(&args.memory);
    let scratch = Scratch::below(&args.memory);
    let image = scratch.random_image(args.size);
    // Other users of this host may run the same.
    let port_base = 20_000 + std::process::id() % 20_000 / 2 * 2;
    let mut goodputs = Vec::new();
    let mut ratios = Vec::new();
    for _ in 0..args.repeat {
        let raw = raw(&scratch, port_base);
        let goodput = transfer(&scratch, &image, port_base);
        println!("{goodput:.2} Gbit/s, {raw:.2} without a protocol");
        goodputs.push(goodput);
        ratios.push(goodput / raw);
    }
    println!(
        "median of {}: {:.2} Gbit/s, {:.3} of raw",
        args.repeat,
        median(goodputs),
        median(ratios)
    );
}

/// Gbit/s of the image, from the start of the sender until the receiver has exited.
fn transfer(scratch: &Scratch, image: &Path, port_base: u32) -> f64 {
    let copy = scratch.path("copy.img");
    let port_base = port_base.to_string();
    let network = ["--interface", "lo", "--portbase", &port_base];
    let mut receiver = Command::new(&programs().receiver);
    receiver.arg("receive").args(network).arg("--output").arg(&copy);
    let mut sender = Command::new(&programs().sender);
    sender.arg("send").args(network).arg(image);
    sender.env("XDG_CACHE_HOME", scratch.path("index-cache"));

    let mut receiver = Process::start("receiver", receiver, scratch.directory());
    sleep(SETTLE);
    let begun = Instant::now();
    let mut sender = Process::start("sender", sender, scratch.directory());
    receiver.succeed(DEADLINE);
    let seconds = begun.elapsed().as_secs_f64();
    sender.succeed(DEADLINE);
    run(&["cmp", &image.to_string_lossy(), &copy.to_string_lossy()]).expect("the copy is right");
    std::fs::remove_file(&copy).expect("a copy can be removed");
    let octets = std::fs::metadata(image).expect("the image is there").len();
    octets as f64 * 8e-9 / seconds
}

/// Gbit/s of payload that arrive.
fn raw(scratch: &Scratch, port_base: u32) -> f64 {
    let group = format!("239.255.77.1:{}", port_base + 1);
    let start = |role: &str, options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imgcast-raw"));
        command.args([role, "--interface", "lo", "--group", &group]).args(options);
        Process::start(&format!("raw-{role}"), command, scratch.directory())
    };
    let mut receiver = start("receive", &["--work", "copy+crc"]);
    sleep(SETTLE);
    start("send", &["--seconds", "3"]).succeed(DEADLINE);
    receiver.succeed(DEADLINE);
    let json: serde_json::Value =
        serde_json::from_str(&receiver.stdout()).expect("it prints an object");
    json["gbit_per_second"].as_f64().expect("it says how fast it was")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// So that the receiver listens when the sender starts.
const SETTLE: Duration = Duration::from_millis(500);

/// Far more than any of it takes.
const DEADLINE: Duration = Duration::from_secs(180);
