//! The journal: encode so many records into a draft, write them, `fdatasync`. The disk below the build directory is what
//! is measured; on a memory file system the figures mean nothing.

use std::time::Duration;

use carillon::journal::Journal;
use carillon_bench::group::Group;
use carillon_bench::record::{draft, journal_in};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Records a commit: a quiet broker, a busy one, a flooded one. The last stays below a batch's 256 KiB.
const BATCHES: [usize; 3] = [1, 100, 1_000];

/// Short, so that the largest batch writes a few gigabytes and not some dozens.
const MEASURED: Duration = Duration::from_secs(2);

fn main() {
    let mut criterion =
        Criterion::default().measurement_time(MEASURED).warm_up_time(MEASURED / 4).configure_from_args();
    let record = Group::of(1).publish_record();
    for (name, unit) in [("commit_records", Unit::Records), ("commit_bytes", Unit::Bytes)] {
        let mut benches = criterion.benchmark_group(name);
        for records in BATCHES {
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory below target/");
            let mut journal = journal_in(directory.path());
            benches.throughput(match unit {
                Unit::Records => Throughput::Elements(records as u64),
                Unit::Bytes => Throughput::Bytes(draft(journal.head().next(), &record, records).bytes() as u64),
            });
            benches.bench_function(BenchmarkId::from_parameter(records), |bencher| {
                bencher.iter(|| journal.commit(draft(journal.head().next(), &record, records)).expect("durable"));
            });
        }
        benches.finish();
    }
    criterion.final_summary();
}

/// What a commit's rate is told in.
#[derive(Clone, Copy)]
enum Unit {
    Records,
    Bytes,
}
