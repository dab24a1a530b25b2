//! The index: what an append costs the sequencer, and lookups their edge or reader thread, from memory and from disk.

use std::sync::Arc;

use carillon::index::{Index, Lookup};
use carillon_bench::index::{Messages, conversation, opened, writer};
use carillon_protocol::ids::{Position, Seq};
use criterion::{BatchSize, BenchmarkId, Criterion};

/// Messages of each conversation.
const MESSAGES_EACH: u64 = 100;

/// Conversations in the index that is looked at: a million messages, and four million, of which the user missed as many.
const CONVERSATIONS: [u64; 2] = [10_000, 40_000];

/// Conversations of the user who catches up.
const CONVERSATIONS_OF_USER: u64 = 1_000;

/// What a plan asks of each conversation at most.
const PLAN_POSITIONS: usize = 257;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    appends(&mut criterion);
    for conversations in CONVERSATIONS {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory below target/");
        let path = directory.path().join("index");
        let recent = opened(&path);
        let mut messages = Messages::new(conversations);
        (0..conversations * MESSAGES_EACH).for_each(|_| messages.append(&recent));
        lookups(&mut criterion, ("memory", conversations), &recent, &recent.recent());
        drop(writer(&recent));
        drop(recent);
        let old = opened(&path);
        lookups(&mut criterion, ("disk", conversations), &old, &old.whole());
    }
    criterion.final_summary();
}

fn appends(criterion: &mut Criterion) {
    let mut benches = criterion.benchmark_group("append_to_conversations");
    for conversations in [1, 1_000, 100_000] {
        benches.bench_function(BenchmarkId::from_parameter(conversations), |bencher| {
            let fresh = || {
                // Each conversation has its first messages already.
                let (index, mut messages) = (Index::new(), Messages::new(conversations));
                (0..conversations * 2).for_each(|_| messages.append(&index));
                (index, messages)
            };
            bencher.iter_batched_ref(
                fresh,
                |(index, messages)| (0..1_000).for_each(|_| messages.append(index)),
                BatchSize::LargeInput,
            );
        });
    }
    benches.finish();
}

fn lookups(criterion: &mut Criterion, (place, conversations): (&str, u64), index: &Arc<Index>, lookup: &impl Lookup) {
    let messages = conversations * MESSAGES_EACH;
    let mut benches = criterion.benchmark_group(format!("lookup_{place}_of_{messages}"));
    let mut nth = 0;
    let mut turn = || {
        nth = (nth + 7_919) % conversations;
        conversation(nth)
    };
    benches.bench_function("rank", |bencher| {
        bencher.iter(|| lookup.rank(turn(), Position(messages / 2)).expect("it is there"));
    });
    benches.bench_function("page_of_50", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut places = Vec::new();
            lookup.places(turn(), Seq(25), 50, &mut places).expect("they are there");
            places
        });
    });
    // A tenth of each conversation was missed.
    let after = Position(messages - messages / 10);
    benches.bench_function(BenchmarkId::new("merge_missed_of_conversations", CONVERSATIONS_OF_USER), |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut positions = Vec::new();
            for nth in (0..CONVERSATIONS_OF_USER).map(|nth| nth * (conversations / CONVERSATIONS_OF_USER)) {
                if index.last(conversation(nth)).1 > after {
                    let through = Position(messages);
                    let found = lookup.positions(conversation(nth), after, through, PLAN_POSITIONS, &mut positions);
                    found.expect("they are there");
                }
            }
            positions.sort_unstable();
            positions
        });
    });
    benches.finish();
}
