//! Fuzz targets for everything in Carillon that reads bytes from outside: from clients, brokers, gateways and disks.
//!
//! A [`Target`] is a function of bytes that panics when a promise is broken. [`check`] runs it with one input and measures
//! what it allocates: at the peak no more than its [`Budget`] allows. The same targets run three ways: over the committed
//! corpus and seeded inputs as an ordinary test (`tests/short.rs`), for hours under libFuzzer with AddressSanitizer (`run.sh`), and
//! with one input by hand (`tests/short.rs`).
//!
//! Bytes that were drawn at random end at the first checksum. So a target whose format has checksums runs every input twice:
//! as it is, and *sealed*, with lengths and checksums made to fit what is there. Mutations of either engine thus get past them.

#![allow(clippy::unwrap_used, reason = "fuzz targets are tests")]

pub mod allocation;
pub mod input;
pub mod inputs;
mod life;
mod pipe;
pub mod random;
pub mod seal;
mod targets;

pub use targets::TARGETS;

use random::Random;

/// Something that reads bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also of its directory in `corpus/`.
    pub name: &'static str,
    /// Reads an input and asserts what is promised.
    pub run: fn(&[u8]),
    /// What it may allocate.
    pub budget: Budget,
    /// Inputs are no longer than this.
    pub input_bytes_max: usize,
    /// Makes valid inputs, to be mutated: the seeds of its corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What inputs are pieced together from, beside what the corpus has.
    pub words: &'static [&'static [u8]],
    /// Inputs drawn by the short run: as many as take some seconds in a dev build.
    pub short_inputs: u64,
}

/// What a target may allocate at its peak: `per_byte` for each byte of the input, and `fixed_bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// 4, unless the target says why.
    pub per_byte: usize,
    /// Whatever the input is.
    pub fixed_bytes: usize,
}

impl Budget {
    /// 4 bytes for each of the input's.
    pub const fn fixed(fixed_bytes: usize) -> Self {
        Self { per_byte: 4, fixed_bytes }
    }
}

impl Budget {
    /// Asserts that a peak is within the budget.
    fn check(self, name: &str, input_bytes: usize, peak_bytes: usize) {
        let allowed_bytes = self.per_byte * input_bytes + self.fixed_bytes;
        let within = peak_bytes <= allowed_bytes;
        assert!(within, "{name}: {input_bytes} bytes made it allocate {peak_bytes}, and {allowed_bytes} are allowed");
    }

    /// Runs a part of a target that has a budget of its own, because around it the target keeps copies to compare with.
    fn spend<T>(self, name: &str, input_bytes: usize, run: impl FnOnce() -> T) -> T {
        let (value, peak_bytes) = allocation::peak_of(run);
        self.check(name, input_bytes, peak_bytes);
        value
    }
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs the target with an input. Returns how much it allocated at the peak.
///
/// # Panics
/// If the target does, or if it allocates beyond its budget.
pub fn check(target: &Target, input: &[u8]) -> usize {
    let ((), peak_bytes) = allocation::peak_of(|| (target.run)(input));
    target.budget.check(target.name, input.len(), peak_bytes);
    peak_bytes
}

/// An input near those that are known: pieces of some, with bytes changed.
pub fn draw(target: &Target, known: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = match known.len() {
        0 => Vec::new(),
        count => known[random.below(count)].clone(),
    };
    for _ in 0..=random.below(6) {
        inputs::mutate(&mut input, known, target.words, random);
    }
    input.truncate(target.input_bytes_max);
    input
}
