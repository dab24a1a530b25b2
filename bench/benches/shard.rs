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
    read_counts(&mut criterion);
    readers(&mut criterion);
    moved(&mut criterion);
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
/// published: one in as many iterations as there are members beside the service, a ninth of a publish in the small group.
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

/// How many have read a message, in a group of which each four members have read up to another one.
fn read_counts(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("read_counts_in_group_of");
    for members in GROUPS {
        let mut group = Group::of(members);
        let messages = group.read_apart(4);
        let mut seq = 0;
        benches.bench_function(BenchmarkId::from_parameter(members), |bencher| {
            bencher.iter(|| {
                // A prime step, so that each question follows another path.
                seq = (seq + 7_919) % messages;
                group.read_counts(seq + 1)
            });
        });
    }
    benches.finish();
}

/// A page that finds nobody: it looks at as many members as a page may.
fn readers(criterion: &mut Criterion) {
    let mut group = Group::of(GROUPS[2]);
    group.publish();
    criterion.bench_function("page_of_no_readers", |bencher| bencher.iter(|| group.page_of_readers()));
}

/// What has moved since an author was away: one member has read, in a group where all had before.
fn moved(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("one_moved_in_group_of");
    for members in [10, 1_000, 1_000_000] {
        let mut group = Group::of(members);
        group.publish();
        (0..group.members()).for_each(|member| group.mark_read(member));
        group.publish();
        let since = group.head();
        group.mark_read(0);
        assert_eq!(group.moved(since), 1);
        benches.bench_function(BenchmarkId::from_parameter(members), |bencher| bencher.iter(|| group.moved(since)));
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
