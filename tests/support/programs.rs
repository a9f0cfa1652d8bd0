//! The two programs under test, built once per test process by the cargo that built the test.
//!
//! A test target cannot name another package's binaries as its dependency, so they are built on
//! first use, in the profile of the test itself and in the same target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Paths of the built programs.
#[derive(Debug)]
pub struct Programs {
    /// `imgcast-sender`.
    pub sender: PathBuf,
    /// `imgcast-receiver`.
    pub receiver: PathBuf,
}

/// Builds both programs, the first time, and returns where they are.
///
/// # Panics
///
/// If they do not build: no test that asks for them could go on.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(build)
}

fn build() -> Programs {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--bins", "--message-format=json-render-diagnostics"])
        .args(["-p", "imgcast-sender", "-p", "imgcast-receiver"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stderr(Stdio::inherit());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().unwrap_or_else(|e| panic!("{cargo:?} does not start: {e}"));
    assert!(output.status.success(), "{cargo:?} failed: {}", output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    Programs {
        sender: executable(&messages, "imgcast-sender"),
        receiver: executable(&messages, "imgcast-receiver"),
    }
}

/// The path that cargo's messages, one JSON object a line, name for the binary `name`.
fn executable(messages: &str, name: &str) -> PathBuf {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built no program named {name}"))
}
