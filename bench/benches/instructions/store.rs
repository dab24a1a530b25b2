//! The journal, the index and what is planned from it, each alone.

use std::hint::black_box;

use carillon::index::Index;
use carillon::journal::{Journal, SegmentJournal};
use carillon_bench::catch_up::Missed;
use carillon_bench::group::Group;
use carillon_bench::index::Messages;
use carillon_bench::record::{draft, journal_in};
use carillon_core::record::Record;
use gungraun::{library_benchmark, library_benchmark_group};
use tempfile::TempDir;

/// A journal on files that has some batches, and the record that each of the next ones has so many times.
struct Commits {
    journal: SegmentJournal,
    record: Record,
    records: usize,
    /// Removed when the journal is gone.
    _directory: TempDir,
}

impl Commits {
    fn of(records: usize) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory below target/");
        let journal = journal_in(directory.path());
        let mut commits = Self { journal, record: Group::of(1).publish_record(), records, _directory: directory };
        (0..10).for_each(|_| commits.commit());
        commits
    }

    fn commit(&mut self) {
        let draft = draft(self.journal.head().next(), &self.record, self.records);
        black_box(self.journal.commit(draft).expect("durable"));
    }
}

/// An index in memory in which each of so many conversations has its first messages.
fn to_append(conversations: u64) -> (Index, Messages) {
    let (index, mut messages) = (Index::new(), Messages::new(conversations));
    (0..conversations * 2).for_each(|_| messages.append(&index));
    (index, messages)
}

#[library_benchmark]
#[bench::times_100(Commits::of(1))]
fn journal_commit_of_1(mut commits: Commits) -> Commits {
    (0..100).for_each(|_| commits.commit());
    commits
}

#[library_benchmark]
#[bench::times_10(Commits::of(100))]
fn journal_commit_of_100(mut commits: Commits) -> Commits {
    (0..10).for_each(|_| commits.commit());
    commits
}

#[library_benchmark]
#[bench::times_10000(to_append(1_000))]
fn index_append_to_1000_conversations((index, mut messages): (Index, Messages)) -> (Index, Messages) {
    (0..10_000).for_each(|_| messages.append(&index));
    (index, messages)
}

#[library_benchmark]
#[bench::times_1(Missed::of(1_000, 100, 50_000))]
fn plan_all_of_1000_missed_in_100_conversations(missed: Missed) -> Missed {
    assert_eq!(missed.plan_all(), 1_000);
    missed
}

library_benchmark_group!(
    name = storage;
    benchmarks =
        journal_commit_of_1,
        journal_commit_of_100,
        index_append_to_1000_conversations,
        plan_all_of_1000_missed_in_100_conversations
);
