//! The style as a test: sizes, the walls between rooms, and what the map promises.
//!
//! Judges by the text of the files alone. What the compiler, clippy and rustfmt enforce is theirs;
//! what a reviewer would otherwise have to remember is here. The text is read as rustfmt leaves
//! it: a block ends at the first line that begins with its brace as far left as the block began.
#![expect(clippy::unwrap_used, reason = "test code")]

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;

use source::{Source, is_named, module_files, read, root};

/// Names that code below a folder, or in all but it, may not use, and why.
struct Wall {
    place: &'static str,
    inside: bool,
    names: &'static [&'static str],
    reason: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        place: "sender/src/session",
        inside: true,
        names: SESSION_KNOWS_NO,
        reason: "a session decides and does no I/O: it is told the time and what arrived",
    },
    Wall {
        place: "receiver/src/session",
        inside: true,
        names: SESSION_KNOWS_NO,
        reason: "a session decides and does no I/O: it is told the time and what arrived",
    },
    Wall {
        place: "sender/src/image",
        inside: true,
        names: IMAGE_KNOWS_NO,
        reason: "an image room holds bytes; it meets the session and the network in the driver",
    },
    Wall {
        place: "receiver/src/image",
        inside: true,
        names: IMAGE_KNOWS_NO,
        reason: "an image room holds bytes; it meets the session and the network in the driver",
    },
    Wall {
        place: "common/src/wire",
        inside: true,
        names: &["tokio", "socket2", "nix", "std::fs", "std::thread", "UdpSocket", "crate::net"],
        reason: "the wire turns bytes into messages and back, wherever they come from",
    },
    Wall {
        place: "common/src/net",
        inside: true,
        names: &["crate::wire", "Message", "crate::fec", "crate::tree"],
        reason: "the network moves datagrams and does not know what they mean",
    },
    Wall {
        place: "common/src/fec",
        inside: false,
        names: &["raptorq"],
        reason: "raptorq panics on bad input: the checked types of common::fec stand before it",
    },
    Wall {
        place: "sender/src",
        inside: true,
        names: &["imgcast_receiver"],
        reason: "the two programs share common and nothing else",
    },
    Wall {
        place: "receiver/src",
        inside: true,
        names: &["imgcast_sender"],
        reason: "the two programs share common and nothing else",
    },
    Wall { place: "common/src", inside: true, names: &["SystemTime"], reason: NO_CALENDAR },
    Wall { place: "sender/src", inside: true, names: &["SystemTime"], reason: NO_CALENDAR },
    Wall { place: "receiver/src", inside: true, names: &["SystemTime"], reason: NO_CALENDAR },
];

const NO_CALENDAR: &str = "that clock jumps when somebody sets it: whatever waits goes by Instant";

const SESSION_KNOWS_NO: &[&str] = &[
    "tokio",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "UdpSocket",
    "socket2",
    "nix",
    "raptorq",
    "imgcast_common::net",
    "crate::image",
    "super::image",
    "crate::driver",
];

const IMAGE_KNOWS_NO: &[&str] = &[
    "crate::session",
    "super::session",
    "crate::driver",
    "imgcast_common::net",
    "imgcast_common::wire",
    "UdpSocket",
    "socket2",
    "tokio",
];

/// What no file may hold. The list stands in this file, which is therefore not searched for it.
const BANNED: &[(&str, &str)] = &[
    ("TODO", "do it, or say in the issue tracker that it is not done"),
    ("FIXME", "fix it, or say in the issue tracker that it is broken"),
    ("todo!", "unfinished"),
    ("unimplemented!", "unfinished"),
    (
        "#[ignore",
        "a test that does not run proves nothing; skip with a notice if tools are missing",
    ),
    ("unsafe", "nix and socket2 have safe calls for all that is needed but vector instructions"),
    ("\t", "indent with spaces"),
];

/// The files that may: vector instructions chosen at run time take raw pointers, and one ioctl has
/// no safe wrapper.
const UNSAFE_PLACES: &[&str] = &["common/src/fec/gf256/kernel.rs", "receiver/src/image/rescan.rs"];

/// Every crate that is named in a Cargo.toml: a new one is a decision, made here.
const DEPENDENCIES: &[(&str, &str)] = &[
    ("common", "blake3 crc32fast indicatif nix proptest raptorq socket2 thiserror tokio tracing"),
    ("sender", "clap imgcast-common nix thiserror tokio tracing tracing-subscriber"),
    (
        "receiver",
        "blake3 clap crc32fast imgcast-common nix serde_json thiserror tokio tracing \
         tracing-subscriber",
    ),
    (
        "tests",
        "blake3 clap crc32fast criterion imgcast-common imgcast-receiver imgcast-sender \
         libfuzzer-sys nix proptest serde_json",
    ),
];

#[test]
fn files_functions_and_lines_keep_their_size() {
    let mut faults = String::new();
    for file in Source::all() {
        let lines = file.counted_lines();
        if lines > FILE_LINES_MAX {
            let rule = format!("{lines} lines outside test modules, {FILE_LINES_MAX} are allowed");
            file.fault(&mut faults, lines, &rule, "a file is one thing; find the second one in it");
        }
        for (number, line) in file.numbered() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                let rule = format!("{columns} columns, {COLUMNS_MAX} are allowed");
                file.fault(&mut faults, number, &rule, "rustfmt does not break comments: you do");
            }
        }
        for (number, lines) in file.functions() {
            if lines > FUNCTION_LINES_MAX {
                let rule = format!("a function of {lines} lines, {FUNCTION_LINES_MAX} are allowed");
                file.fault(&mut faults, number, &rule, "give a step of it a name");
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn rooms_keep_to_their_side_of_the_walls() {
    let mut faults = String::new();
    let files = Source::all();
    for wall in WALLS {
        assert!(root().join(wall.place).is_dir(), "the walls name {}: no folder", wall.place);
        for file in files.iter().filter(|file| file.is_below(wall.place) == wall.inside) {
            for (number, code) in file.production_code() {
                for name in wall.names.iter().filter(|name| is_named(&code, name)) {
                    file.fault(&mut faults, number, &format!("names {name}"), wall.reason);
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn nothing_is_unfinished_unsafe_or_switched_off() {
    let mut faults = String::new();
    for file in Source::all().iter().filter(|file| file.path != "tests/tidy.rs") {
        for (number, line) in file.numbered() {
            // A word in prose is no code, but an intention left undone in prose is one.
            let code = if line.trim_start().starts_with("//") { "" } else { line };
            for (word, reason) in BANNED {
                let text = match *word {
                    "unsafe" if UNSAFE_PLACES.contains(&&*file.path) => "",
                    "unsafe" => code,
                    _ => line,
                };
                if is_named(text, word) {
                    file.fault(&mut faults, number, &format!("has {word:?}"), reason);
                }
            }
        }
        // The tests of a room are explained by the room's own head.
        if !file.begins_with("//!") && !file.path.ends_with("/tests.rs") {
            file.fault(&mut faults, 1, "has no head", "say what it decides or owns");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn each_crate_has_the_dependencies_it_was_decided_to_have() {
    for (member, decided) in DEPENDENCIES {
        let decided: BTreeSet<&str> = decided.split_whitespace().collect();
        let manifest = read(&format!("{member}/Cargo.toml"));
        let found: BTreeSet<&str> = dependencies(&manifest).collect();
        assert_eq!(found, decided, "{member}/Cargo.toml: decide here what it may depend on");
    }
    for (member, other) in [("sender", "imgcast-receiver"), ("receiver", "imgcast-sender")] {
        let manifest = read(&format!("{member}/Cargo.toml"));
        assert!(!manifest.contains(other), "{member}/Cargo.toml names {other}");
    }
}

#[test]
fn every_file_below_tests_belongs_to_a_target() {
    let manifest = read("tests/Cargo.toml");
    let mut reached = BTreeSet::new();
    for path in manifest.lines().filter_map(|line| quoted(line, "path = ")) {
        let path = root().join("tests").join(path);
        assert!(path.is_file(), "tests/Cargo.toml names {}: no file", path.display());
        module_files(&path, &mut reached);
    }
    for file in Source::all().iter().filter(|file| file.path.starts_with("tests/")) {
        let is_reached = reached.contains(&root().join(&file.path));
        assert!(is_reached, "{}: no target of tests/Cargo.toml has it as a module", file.path);
    }
}

#[test]
fn the_map_in_the_readme_names_what_is_there() {
    let readme = read("README.md");
    let (_, after) = readme.split_once("\n## The house\n").expect("README.md has the map");
    let map = after.split("```").nth(1).expect("the map is a fenced block");
    let rooms: Vec<&str> =
        map.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    for place in rooms.iter().copied().chain(readme.split('`').filter(|text| is_path(text))) {
        assert!(root().join(place).exists(), "README.md names {place}: it does not exist");
    }
    for file in Source::all() {
        // tests/lab/main.rs is in the room tests/lab, sender/src/session/mod.rs in its own.
        let depth = if file.path.starts_with("tests/") { 2 } else { 3 };
        let parts: Vec<&str> = file.path.split('/').collect();
        let room = parts[..depth.min(parts.len() - 1)].join("/");
        let is_one_file = root().join(format!("{room}.rs")).exists();
        let is_there = rooms.iter().any(|listed| listed.starts_with(&room));
        assert!(is_there || is_one_file, "{}: the map in README.md lacks its room", file.path);
    }
}

#[test]
fn each_fault_has_tests_that_there_are() {
    let sources = Source::all();
    let code: String = sources.iter().flat_map(Source::numbered).map(|(_, line)| line).collect();
    let text = read("tests/FAULTS.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| F")).collect();
    for (number, row) in (1..).zip(&rows) {
        assert!(row.starts_with(&format!("| F{number} | ")), "out of order: {row}");
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test is named: {row}");
        for test in named {
            let forms = [format!("fn {test}("), format!(" {test}: \"")];
            let is_there = forms.iter().any(|form| code.contains(form));
            assert!(is_there, "tests/FAULTS.md names {test}: no such test");
        }
    }
    assert_eq!(rows.len(), FAULTS, "tests/FAULTS.md has another number of faults");
}

#[test]
fn the_changelog_has_the_version() {
    let manifest = read("Cargo.toml");
    let version = manifest.lines().find_map(|line| quoted(line, "version = ")).unwrap();
    let heading = format!("\n## [{version}]");
    assert!(read("CHANGELOG.md").contains(&heading), "CHANGELOG.md lacks {}", heading.trim());
}

/// The crates that a manifest names, in whichever table.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            is_inside = line.ends_with("dependencies]");
            // [dependencies.name] is a table of its own.
            return line.split_once("dependencies.").map(|(_, name)| name.trim_end_matches(']'));
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        (is_inside && !name.is_empty() && !name.starts_with('#')).then_some(name)
    })
}

/// The value in quotes that follows `key` at the beginning of `line`.
fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.trim().strip_prefix('"')?.split('"').next()
}

/// Whether something in backquotes is a path of this tree, not of a built or installed one.
fn is_path(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
    begins && text.contains('/') && text.chars().all(is_plain) && !text.starts_with("target/")
}

/// What a transfer has to survive.
const FAULTS: usize = 32;
const FILE_LINES_MAX: usize = 400;
/// As clippy's threshold, but with comments, blank lines and the signature.
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;
