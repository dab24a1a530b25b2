//! Every target over its corpus, and over inputs drawn near it: half from fixed seeds, half from seeds that nobody has tried.
//!
//! A failure leaves its input in a file and names it; `CARILLON_FUZZ=<target> CARILLON_FUZZ_INPUT=<file>` runs that one alone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a failed test says")]

use std::cell::RefCell;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use carillon_fuzz::random::Random;
use carillon_fuzz::{TARGETS, Target, check, draw, target};

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Writes the input down when its check panics.
struct Tried<'a> {
    target: &'a Target,
    input: RefCell<Vec<u8>>,
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let input = self.input.borrow();
        let file = std::env::temp_dir().join(format!("carillon-fuzz-{}-{}", self.target.name, std::process::id()));
        match fs::write(&file, &*input) {
            Ok(()) => eprintln!("the input is in {}", file.display()),
            Err(error) => eprintln!("the input cannot be written to {}: {error}", file.display()),
        }
    }
}

fn short_run(name: &str) {
    let target = target(name).expect("a target");
    let tried = Tried { target, input: RefCell::default() };
    let try_one = |input: Vec<u8>| {
        tried.input.replace(input);
        check(target, &tried.input.borrow())
    };
    if let Some(input) = asked_for(name) {
        println!("it allocated {} bytes at the peak", try_one(input));
        return;
    }
    let known = corpus(target);
    assert!(!known.is_empty(), "{name} has a corpus");
    let mut above_bytes = 0;
    let mut measure = |input: Vec<u8>| {
        let input_bytes = input.len();
        above_bytes = try_one(input).saturating_sub(4 * input_bytes).max(above_bytes);
    };
    known.iter().for_each(|input| measure(input.clone()));
    let base = RandomState::new().hash_one("a fresh set");
    for nth in 0..target.short_inputs {
        let seed = if nth % 2 == 0 { nth } else { base.wrapping_add(nth) };
        measure(draw(target, &known, &mut Random::new(seed)));
    }
    println!("{name} allocated up to {above_bytes} bytes beyond 4 for each of its input's");
}

/// The one input that is to be run.
fn asked_for(name: &str) -> Option<Vec<u8>> {
    let file = std::env::var("CARILLON_FUZZ_INPUT").ok()?;
    let asked = std::env::var("CARILLON_FUZZ").is_ok_and(|asked| asked == name);
    Some(if asked { fs::read(&file).expect("the input") } else { Vec::new() })
}

macro_rules! short_runs {
    ($($name:ident)*) => {
        $(#[test] fn $name() { short_run(stringify!($name)); })*

        #[test]
        fn every_target_has_its_test() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
        }
    };
}

short_runs! {
    decoder frames records journal snapshot state index token http callbacks answer config packets broker client_log
    session
}
