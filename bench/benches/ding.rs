//! DINGs: what the sequencer's thread spends on their timers and on one of them, when very many are pending.

use carillon_bench::dings::Dings;
use criterion::{BenchmarkId, Criterion};

/// The cost must grow no more than a search in a tree does from the one to the other.
const PENDING: [u32; 2] = [100_000, 1_000_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for pending in PENDING {
        let mut dings = Dings::of(pending);
        let mut group = |name: &str, run: &mut dyn FnMut(&mut Dings)| {
            let mut benches = criterion.benchmark_group(name);
            benches.bench_function(BenchmarkId::from_parameter(pending), |bencher| bencher.iter(|| run(&mut dings)));
            benches.finish();
        };
        group("tick_that_fires_nothing_of", &mut |dings| assert_eq!(dings.tick(), 0, "none is due"));
        group("tick_that_fires_one_of", &mut |dings| {
            assert_eq!(dings.tick_when_due(), 1, "one is due each millisecond")
        });
        group("create_and_confirm_one_among", &mut Dings::create_and_confirm);
    }
    criterion.final_summary();
}
