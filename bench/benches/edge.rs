//! The edge without QUIC: what a delivery costs before the transport has it, over connections that take everything.

use carillon_bench::stage::Stage;
use criterion::{BenchmarkId, Criterion, Throughput};

/// Sessions of the group: all that one request makes, below and above the chunk of a round.
const SESSIONS: [u32; 2] = [100, 1_000];

/// Messages at once: a chat, a busy moment.
const MESSAGES: [u64; 2] = [1, 16];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for messages in MESSAGES {
        let mut benches = criterion.benchmark_group(format!("fanout_of_{messages}_to"));
        for sessions in SESSIONS {
            let mut stage = Stage::of(sessions);
            benches.throughput(Throughput::Elements(messages * u64::from(sessions + 1)));
            benches.bench_function(BenchmarkId::from_parameter(sessions), |bencher| {
                bencher.iter(|| stage.round(messages));
            });
        }
        benches.finish();
    }
    criterion.final_summary();
}
