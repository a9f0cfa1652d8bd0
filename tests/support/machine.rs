//! What not every machine has: tests that need it are left out by name, and say so.

use std::env;
use std::io::{self, Write};
use std::process::Command;

/// Says on standard error that `test` is left out, past the runner's capture.
///
/// # Panics
///
/// If `IMGCAST_REQUIRE_ALL=1` is set.
pub fn skip(test: &str, reason: &str) {
    let notice = format!("SKIPPED {test}: {reason}");
    assert!(env::var_os("IMGCAST_REQUIRE_ALL").is_none_or(|value| value != "1"), "{notice}");
    let _ = writeln!(io::stderr(), "{notice}");
}

/// Whether this is a network namespace made for `test`, its name as the runner knows it. If not,
/// the same test runs in one, with `lo` up and prepared by the shell's `setup`, before this
/// returns; where this user may make none, or iproute2 is missing, it is left out.
///
/// # Panics
///
/// With what it said, if the test fails in there.
#[must_use]
pub fn is_in_namespace(test: &str, setup: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshared = |script: &str| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-ec", script])
            .arg(env::current_exe().expect("a test knows its own program"))
            .arg(test)
            .env(INSIDE, "1")
            .output()
    };
    let setup = format!("ip link set lo up; {setup}");
    if !unshared(&setup).is_ok_and(|output| output.status.success()) {
        skip(test, "no such network namespaces for this user");
        return false;
    }
    let output = unshared(&format!("{setup}; exec \"$0\" --exact \"$1\"")).expect("it did start");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Set where a test finds itself in its namespace.
const INSIDE: &str = "IMGCAST_TEST_NAMESPACE";
