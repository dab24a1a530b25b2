//! Thousands of processes that die in any call to the disk, on disks that fail, tear and forget, with all that clients do meanwhile.
//!
//! A failure names its seed and the command that replays it; `carillon-tests`' command `sim` runs more of them.

use std::hash::{BuildHasher, RandomState};

use carillon_tests::sim::{Coverage, Machine, RunOptions, attempt, run_on};

/// About 20 ms of one core each (dev profile). The two tests run side by side.
const FIXED_SEEDS: u64 = 3_000;
const FRESH_SEEDS: u64 = 3_000;

/// Seeds that once found a bug (docs/RELIABILITY.md). What a seed draws changes with the simulation: these may find others.
const ONCE_FOUND: [u64; 7] = [100_649, 140_547, 178_834, 323_882, 509_068, 547_463, 61_761_447_263_422];

fn check(seeds: impl Iterator<Item = u64>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        match run_on(seed, Machine::Failing) {
            Ok(covered) => coverage.add(&covered),
            Err(failure) => panic!(
                "the last actions:\n{}\n\nseed {} fails in step {}: {}\nreplay it with: cargo run --release -p carillon-tests \
                 --bin sim -- --seed {}",
                failure.last_actions(60).join("\n"),
                failure.seed,
                failure.step,
                failure.why,
                failure.seed
            ),
        }
    }
    coverage
}

#[test]
fn nothing_acknowledged_is_lost_nor_served_twice_nor_served_damaged() {
    let coverage = check((0..FIXED_SEEDS).chain(ONCE_FOUND));
    // What the oracle can judge only if it happens does happen.
    let happened = [
        ("deaths", coverage.deaths, 4_000),
        ("deaths at the disk", coverage.deaths_at_disk, 1_000),
        ("deaths while starting", coverage.deaths_starting, 400),
        ("starts from a snapshot", coverage.from_snapshot, 400),
        ("batches in doubt that were there", coverage.doubts_kept, 100),
        ("batches in doubt that were gone", coverage.doubts_gone, 100),
        ("torn tails", coverage.tails_cut, 50),
        ("failed commits", coverage.commits_failed, 50),
        ("snapshots", coverage.snapshots, 1_000),
        ("segments that left", coverage.segments_removed, 400),
        ("spare segments", coverage.spares, 1_000),
        ("flips that were refused", coverage.flips_refused, 400),
        ("flips in the last batch", coverage.flips_cut, 50),
        ("flips in snapshots", coverage.flips_in_snapshot, 100),
        ("flips that were found by reading", coverage.flips_unread, 20),
        ("flips that were gone around", coverage.flips_gone_around, 20),
        ("times that the disk was full", coverage.filled_up, 2_000),
        ("rounds on the reserve", coverage.rounds_on_reserve, 5_000),
        ("rounds on the last of it", coverage.rounds_on_last, 300),
        ("confirmations on the last of it", coverage.confirmed_on_last, 2),
        ("publishes refused for want of room", coverage.publishes_without_room, 1_000),
        ("requests refused for want of room", coverage.requests_without_room, 200),
        ("sessions refused for want of room", coverage.sessions_without_room, 10),
        ("journals that ended without room", coverage.ended_full, 10),
        ("starts that found no room", coverage.starts_full, 50),
        ("repeated publishes", coverage.repeated, 1_000),
        ("repeated DINGs", coverage.dings_repeated, 20),
        ("calls of the gateway", coverage.calls, 1_000),
    ];
    for (what, count, least) in happened {
        assert!(count >= least, "{count} {what}");
    }
}

#[test]
fn nor_do_seeds_that_nobody_has_tried_find_a_way_around_it() {
    let base = RandomState::new().hash_one("a fresh set") >> 16;
    println!("the seeds from {base} on");
    check(base..base + FRESH_SEEDS);
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in 0..40 {
        let options = RunOptions { seed, machine: Machine::Failing, steps_max: usize::MAX, noted: false };
        let first = attempt(options).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.why));
        let second = attempt(RunOptions { noted: true, ..options });
        assert_eq!(first, second.unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.why)), "seed {seed}");
    }
}
