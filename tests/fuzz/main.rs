//! The fuzz targets as tests: each over its committed corpus and what is near it.
//!
//! An input of the corpus reached something that no other did, or broke something once. The
//! engine that finds them is `tests/fuzz/run`; here they are played with an ordinary build, and
//! with them some thousand variants that follow from a seed.
#![expect(clippy::unwrap_used, reason = "test code")]

mod targets;

use std::{fs, path::PathBuf, thread};

use imgcast_common::prng::Prng;
use targets::{TARGETS, Target};

macro_rules! targets {
    ($($test:ident: $name:literal, $variants:literal;)*) => {
        $(#[test]
        fn $test() {
            play($name, $variants);
        })*
        const NAMED: &[&str] = &[$($name),*];
    };
}

targets! {
    datagrams_are_read_or_dropped_and_mean_what_they_meant: "messages", 50_000;
    needs_bring_what_was_asked_for_and_nothing_else: "needs", 2_000;
    offers_are_chosen_only_if_wanted_and_shut_nobody_out: "offers", 5_000;
    a_sender_stands_whatever_it_hears_and_answers_strangers_briefly: "sender", 2_000;
    a_receiver_stands_whatever_it_hears_and_claims_nothing_too_early: "receiver", 3_000;
    transfers_on_the_worst_of_networks_store_nothing_wrong: "worlds", 300;
    an_index_is_believed_only_as_far_as_it_goes: "index", 5_000;
    a_bent_index_in_the_cache_is_not_there: "index_cache", 5_000;
    a_journal_that_was_hurt_claims_what_is_its_image_s_or_nothing: "journal", 3_000;
    symbols_in_any_company_never_break_the_decoder: "fec", 5_000;
    command_lines_are_understood_or_refused: "commands", 3_000;
}

#[test]
fn each_target_has_its_test_and_its_corpus() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, NAMED);
    for target in TARGETS {
        let inputs = corpus(target).len();
        assert!(inputs >= CORPUS_MIN, "{}: {inputs} inputs", target.name);
    }
    let folders = fs::read_dir(folder()).unwrap().count();
    assert_eq!(folders, TARGETS.len(), "each folder of the corpus is a target's");
}

/// Runs a target on its corpus, and on so many variants of it: a second's worth or two.
fn play(name: &str, variants: u32) {
    let target = targets::find(name).unwrap();
    let corpus = corpus(target);
    for (path, input) in &corpus {
        run(target, input, &path.display().to_string());
    }
    let mut prng = Prng::new(0x1CA5);
    for number in 0..variants {
        let pick =
            |prng: &mut Prng| &corpus[usize::try_from(prng.below(corpus.len() as u64)).unwrap()].1;
        let mut input = pick(&mut prng).clone();
        for _ in 0..=prng.below(4) {
            let other = pick(&mut prng).clone();
            vary(&mut prng, &mut input, &other);
        }
        input.truncate(INPUT_OCTETS_MAX);
        run(target, &input, &format!("variant {number}"));
    }
}

fn run(target: Target, input: &[u8], what: &str) {
    let hex: String = input.iter().map(|octet| format!("{octet:02x}")).collect();
    let told = Told(format!("{} fails on {what}: {hex}", target.name));
    (target.run)(input);
    drop(told);
}

/// Says which input it was if it is dropped by a panic.
struct Told(String);

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

fn vary(prng: &mut Prng, input: &mut Vec<u8>, other: &[u8]) {
    let below = |prng: &mut Prng, end: usize| usize::try_from(prng.below(end as u64)).unwrap();
    let at = below(prng, input.len() + 1);
    match prng.below(5) {
        0 => input.truncate(at),
        1 => input.insert(at, prng.bits().to_be_bytes()[0]),
        2 => {
            input.splice(at.., other[below(prng, other.len() + 1)..].iter().copied()).for_each(drop)
        }
        _ => {
            if let Some(octet) = input.get_mut(at) {
                *octet = prng.bits().to_be_bytes()[0];
            }
        }
    }
}

/// The inputs of a target, with the files that they are from.
fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(folder().join(target.name)).unwrap();
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Fewer say that the corpus has been forgotten.
const CORPUS_MIN: usize = 10;
/// As `run` limits the engine's.
const INPUT_OCTETS_MAX: usize = 4_096;
