//! Catching up: what it costs to find out what a user missed. It must follow what they missed, and not what the shard carried
//! meanwhile.

use carillon_bench::catch_up::Missed;
use criterion::{BenchmarkId, Criterion, Throughput};

/// What was missed, and in how many of the user's conversations: some hours away, weeks away, and a user of very many.
const MISSED: [(u64, u64); 3] = [(1_000, 100), (1_000, 1_000), (100_000, 1_000)];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (missed, conversations) in MISSED {
        let name = format!("plan_all_of_{missed}_missed_in_{conversations}_conversations_of");
        let mut benches = criterion.benchmark_group(name);
        benches.throughput(Throughput::Elements(missed));
        for carried in [200_000, 2_000_000] {
            let user = Missed::of(missed, conversations, carried);
            benches.bench_function(BenchmarkId::from_parameter(carried), |bencher| {
                bencher.iter(|| assert_eq!(user.plan_all(), missed));
            });
        }
        benches.finish();
    }
    criterion.final_summary();
}
