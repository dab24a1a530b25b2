//! Thousands of interleavings of what the edge does: live and catching up, rounds cut into chunks, falls off the ring.
//!
//! `SIM_SEED=n` replays one seed alone.

use carillon_tests::sim::{Coverage, run};

const FIXED_SEEDS: u64 = 1_000;

fn run_seeds(seeds: impl Iterator<Item = u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        match run(seed) {
            Ok(covered) => coverage.add(&covered),
            Err(failure) => panic!(
                "{}\n\nthe last actions:\n{}\n\nreplay it with SIM_SEED={}",
                failure.why,
                failure.actions.join("\n"),
                failure.seed
            ),
        }
    }
    coverage
}

#[test]
fn every_device_gets_what_it_is_entitled_to_once_and_in_order() {
    if let Some(seed) = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().unwrap()) {
        println!("{:?}", run_seeds(std::iter::once(seed)));
        return;
    }
    let coverage = run_seeds(0..FIXED_SEEDS);
    println!("{coverage:#?}");
}
