//! The state machine: what the sequencer's thread spends on one input before it is committed.

use carillon_bench::group::Group;
use criterion::{BenchmarkId, Criterion};

/// A team, a company, and the largest group there may be. An input's cost must not grow from the one to the other.
const GROUPS: [u32; 3] = [10, 10_000, 1_000_000];

/// Groups that an attaching user is in, the first one apart: its stints are listed one by one.
const ENROLMENTS: [u32; 2] = [0, 1_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    publish(&mut criterion);
    mark_read(&mut criterion);
    attach(&mut criterion);
    criterion.final_summary();
}

fn publish(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("publish_into_group_of");
    for members in GROUPS {
        let mut group = Group::of(members);
        benches.bench_function(BenchmarkId::from_parameter(members), |bencher| bencher.iter(|| group.publish()));
    }
    benches.finish();
}

/// Every member reads the newest message in turn, so that each mark moves a watermark. When all have, another message is
/// published: one in as many iterations as there are members, a tenth of the figure in the small group.
fn mark_read(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("mark_read_in_group_of");
    for members in GROUPS {
        let mut group = Group::of(members);
        let mut member = 0;
        benches.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter(|| {
                if member == 0 {
                    group.publish();
                }
                group.mark_read(member);
                member = (member + 1) % group.members();
            });
        });
    }
    benches.finish();
}

/// A device that was here before comes back.
fn attach(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("attach_again_with_groups");
    for enrolments in ENROLMENTS {
        let mut group = Group::of(10);
        group.enrol_first(enrolments);
        group.attach(0);
        benches.bench_function(BenchmarkId::from_parameter(1 + enrolments), |bencher| {
            bencher.iter(|| group.attach(0));
        });
    }
    benches.finish();
}
