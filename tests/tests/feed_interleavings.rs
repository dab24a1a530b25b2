//! Thousands of interleavings of what the edge does: live and catching up, rounds cut into chunks, falls off the ring.
//!
//! A failure names its seed and shows what happened last; `SIM_SEED=n` replays that one alone.

use std::hash::{BuildHasher, RandomState};

use carillon_tests::sim::{Coverage, run};

/// About 15 ms each (2 cores, dev profile). The two tests run side by side.
const FIXED_SEEDS: u64 = 2_000;
const FRESH_SEEDS: u64 = 2_000;

/// Runs the seeds, or the one that was asked for.
fn check(seeds: impl Iterator<Item = u64>) -> Option<Coverage> {
    let asked: Option<u64> = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().expect("SIM_SEED is a number"));
    let seeds: Vec<u64> = asked.map_or_else(|| seeds.collect(), |seed| vec![seed]);
    let mut coverage = Coverage::default();
    for seed in seeds {
        match run(seed) {
            Ok(covered) => coverage.add(&covered),
            Err(failure) => panic!(
                "{}\n\nthe last actions:\n{}\n\n{}\nreplay it with SIM_SEED={}",
                failure.why,
                failure.last_actions(60).join("\n"),
                failure.why,
                failure.seed
            ),
        }
    }
    asked.is_none().then_some(coverage)
}

#[test]
fn every_device_gets_what_it_is_entitled_to_once_and_in_order() {
    let Some(coverage) = check(0..FIXED_SEEDS) else { return };
    // What the oracle can judge only if it happens does happen.
    assert!(coverage.delivered_live > 10_000);
    assert!(coverage.delivered_catching_up > 10_000);
    assert!(coverage.rounds_cut > 1_000);
    assert!(coverage.fell_behind > 1_000);
    assert!(coverage.fell_off_ring > 1_000);
    assert!(coverage.reads > 1_000);
    assert!(coverage.receipts_let_go > 0);
    assert!(coverage.fenced > 100);
    assert!(coverage.retired > 100);
    assert!(coverage.misbehaved > 100);
}

#[test]
fn nor_do_seeds_that_nobody_has_tried_find_a_way_around_it() {
    let base = RandomState::new().hash_one("a fresh set");
    println!("the seeds from {base} on");
    check((0..FRESH_SEEDS).map(|nth| base.wrapping_add(nth)));
}
