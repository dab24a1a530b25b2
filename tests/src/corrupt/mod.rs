//! A real data directory is damaged in one place after the other, and the broker's own code opens it.
//!
//! What may come of it: it is refused with the file and the place; or what is served is exactly what it was; or the last batch,
//! which no later one proves, is cut as a torn tail and reported. Never is anything else served, damage does not reach beyond
//! its batch, also when the index is gone as well and is built anew of what can be read, `verify` names its place, and no file is deleted because a snapshot or an index is bad.
//!
//! # The map
//!
//! [`pristine`] the directory and what is true of it · [`damage`] what is done to a copy · [`judge`] what comes of it ·
//! [`files`] copies and listings.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use carillon::clock::SystemClock;
use carillon_transport::Clock;
use serde_json::{Value, json};

use crate::sim::rng::Rng;
use damage::Damage;
use judge::{Case, Verdict};
use pristine::Pristine;

pub mod damage;
pub mod files;
pub mod judge;
pub mod pristine;

/// Wrong cases kept as text.
const WRONG_MAX: usize = 20;

/// What was seen.
#[derive(Debug, Default)]
pub struct Summary {
    /// Cases by what was damaged.
    pub kinds: BTreeMap<String, u64>,
    /// Cases by what came of it.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Records that were read back and compared.
    pub read_back: u64,
    /// Cases in which something was wrong.
    pub wrong_count: u64,
    /// The first of them.
    pub wrong: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs so many cases, from the case of this number on; each is a choice of its own.
///
/// # Panics
/// If the pristine directory cannot be made, or not copied.
pub fn run(directory: &Path, (seed, first, cases): (u64, u64, u64), show: &mut dyn FnMut(u64)) -> Summary {
    let begun = SystemClock.now();
    let mut summary = Summary::default();
    let pristine = Pristine::make(&directory.join("pristine"), seed);
    for nth in first..first + cases {
        let mut rng = Rng::new(seed.wrapping_mul(0x1_0000_0001) ^ nth);
        let copy = directory.join("copy");
        let damage = loop {
            files::copy(&pristine.directory, &copy);
            let damage = Damage::draw(&mut rng, &copy, pristine.batches.last().expect("there are batches"));
            damage.apply(&copy);
            // Zeroes in the place of zeroes are no damage.
            if let Some(changed) = files::changed(&pristine.listing, &copy) {
                break (damage, changed);
            }
        };
        let is_noted = copy.join(judge::NOTE).exists();
        let (damage, changed) = damage;
        let is_swap = damage.is_swap();
        // Of every other one the index is gone as well.
        if damage.is_of_journal() && rng.percent(50) {
            files::empty(&copy.join("index"));
        }
        let case = Case { pristine: &pristine, directory: &copy, changed, is_swap, is_noted };
        let judged = case.judge();
        *summary.kinds.entry(damage.kind()).or_default() += 1;
        *summary.verdicts.entry(judged.verdict).or_default() += 1;
        summary.read_back += judged.read_back;
        if !judged.wrong.is_empty() {
            summary.wrong_count += 1;
            if summary.wrong.len() < WRONG_MAX {
                summary.wrong.push(format!("case {nth}, {damage}: {}", judged.wrong.join("; ")));
            }
        }
        show(nth + 1 - first);
    }
    summary.took = SystemClock.now().duration_since(begun);
    summary
}

impl Summary {
    /// How often this came of it.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.verdicts.get(&verdict).copied().unwrap_or(0)
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        let verdicts = Verdict::ALL.map(|verdict| (verdict.name().to_owned(), json!(self.count(verdict))));
        json!({
            "cases": self.kinds.values().sum::<u64>(),
            "kinds": self.kinds,
            "verdicts": verdicts.into_iter().collect::<serde_json::Map<_, _>>(),
            "read_back": self.read_back,
            "wrong_count": self.wrong_count,
            "wrong": self.wrong,
            "took_s": self.took.as_secs_f64(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cases         {}, {:.1} s", self.kinds.values().sum::<u64>(), self.took.as_secs_f64())?;
        for (kind, count) in &self.kinds {
            writeln!(f, "  {count:>7} {kind}")?;
        }
        writeln!(f, "verdicts")?;
        for verdict in Verdict::ALL {
            writeln!(f, "  {:>7} {}", self.count(verdict), verdict.name())?;
        }
        writeln!(f, "read back     {} records", self.read_back)?;
        writeln!(f, "wrong         {}", self.wrong_count)?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "  {wrong}"))
    }
}
