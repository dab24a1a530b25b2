//! From the publisher's stream to those of the live sessions, through edge and sequencer in one thread, QUIC and the disk apart.

use carillon_bench::stage::{Publishes, Stage};
use gungraun::{library_benchmark, library_benchmark_group};

/// A thousand sessions that have had some rounds, and ten more rounds of so many messages.
fn to_fan_out(messages: u64) -> (Stage, Vec<Publishes>) {
    let mut stage = Stage::of(1_000);
    (0..3).for_each(|_| assert_eq!(stage.round(messages), messages * 1_001));
    let publishes = (0..10).map(|_| stage.publishes(messages)).collect();
    (stage, publishes)
}

fn deliver((mut stage, publishes): (Stage, Vec<Publishes>)) -> Stage {
    for publishes in publishes {
        stage.deliver(publishes);
    }
    stage
}

#[library_benchmark]
#[bench::times_10(to_fan_out(1))]
fn fan_out_of_1_to_1000(work: (Stage, Vec<Publishes>)) -> Stage {
    deliver(work)
}

#[library_benchmark]
#[bench::times_10(to_fan_out(16))]
fn fan_out_of_16_to_1000(work: (Stage, Vec<Publishes>)) -> Stage {
    deliver(work)
}

library_benchmark_group!(
    name = fan_out;
    benchmarks = fan_out_of_1_to_1000, fan_out_of_16_to_1000
);
