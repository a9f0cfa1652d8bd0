//! The fuzz targets behind libFuzzer, which looks for inputs that reach what no other did.
//! `tests/fuzz/run` builds it, with the coverage and the address checks that it needs, and names
//! the target in `IMGCAST_FUZZ_TARGET`.
#![no_main]

mod targets;

use std::{env, sync::LazyLock};

use targets::{TARGETS, Target};

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("IMGCAST_FUZZ_TARGET").unwrap_or_default();
    targets::find(&name).unwrap_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("IMGCAST_FUZZ_TARGET is {name:?}, and none of {}", names.join(" "));
        std::process::exit(2);
    })
});
