//! How late the steps of DINGs begin after a restart.
//!
//! ```console
//! cargo run --release -p carillon-bench --example ding_timers -- DINGS [directory]
//! ```
//!
//! Makes so many DINGs on a journal in a directory whose disk is what is measured, and ends without a word, as a kill does. Then starts
//! on what lies there, and compares when each step began, by its record, with when it was due:
//!
//! - *spread*: half of them are due one after the other, a tenth of them a second, from two seconds after the start on;
//! - *missed*: the others were due while nobody was there, all at once at the start.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carillon::clock::{Clock, SystemClock};
use carillon::index::Index;
use carillon::journal::{Draft, FileStorage, Journal, JournalOptions};
use carillon::sequencer::ring::{Found, ring};
use carillon::sequencer::{self, NoOutlets, Sequencer, submissions};
use carillon::store::{self, Store, StoreOptions};
use carillon_bench::SHARD;
use carillon_bench::dings::{DINGS_MAX, Dings};
use carillon_core::record::Record;
use carillon_protocol::ids::Timestamp;

/// Those that are due one after the other are over after this.
const SPREAD_MS: u64 = 10_000;

/// Time to make the DINGs, and a tenth of a millisecond each.
const MAKING_MS: u64 = 5_000;

fn main() -> io::Result<()> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000).clamp(100, DINGS_MAX);
    let base = std::env::args_os().nth(2).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = base.join(format!("ding_timers-{}", std::process::id()));
    let measured = measure(&directory, count);
    std::fs::remove_dir_all(&directory)?;
    let mut out = io::stdout().lock();
    for (name, mut late_ms) in measured {
        late_ms.sort_unstable();
        let at = |percent: usize| late_ms[(late_ms.len() - 1) * percent / 100];
        let (p50, p99, max) = (at(50), at(99), at(100));
        writeln!(out, "{name}: {} steps, late by p50 {p50} ms, p99 {p99} ms, at most {max} ms", late_ms.len())?;
    }
    Ok(())
}

/// How late each step began, of those that were due one after the other and of those that were missed.
fn measure(directory: &Path, count: u32) -> [(&'static str, Vec<u64>); 2] {
    let clock = SystemClock;
    let start = clock.wall().0 + MAKING_MS + u64::from(count) / 10;
    let (begin, spread) = (start + 2_000, count / 2);
    let due = |nth: u32| {
        if nth < spread { begin + u64::from(nth) * SPREAD_MS / u64::from(spread) } else { start - 1_000 }
    };
    make(directory, count, due);
    let early = start.saturating_sub(clock.wall().0);
    assert!(early > 1_000, "this machine is too slow for so many: ask for fewer");
    std::thread::sleep(std::time::Duration::from_millis(early));

    let Store { shard, opened, .. } = open(directory);
    let (writer, ring) = ring(4_096, 64 * 1_024 * 1_024);
    let (_submit, queues) = submissions();
    let parts = sequencer::Parts {
        shard,
        journal: opened.journal,
        ring: writer,
        index: Arc::new(Index::new()),
        clock: Arc::new(clock),
        queues,
        edges: Vec::new(),
        outlets: Box::new(NoOutlets),
        policies: Arc::default(),
    };
    let mut sequencer = Sequencer::new(parts);
    let started_at = clock.wall().0;
    let (mut ordinal, mut late) = (0, [("spread", Vec::new()), ("missed", Vec::new())]);
    while late.iter().map(|(_, late)| late.len()).sum::<usize>() < count as usize {
        sequencer.step().expect("the journal works");
        while let Found::Batch(committed) = ring.at(ordinal) {
            ordinal += 1;
            for entry in committed.batch.entries() {
                let record = Record::decode(entry.private, entry.frame).expect("a record");
                let Record::DingAttempted(begun) = record else { continue };
                let nth = u32::try_from(begun.ding.ordinal() - 1).expect("there are not so many");
                // What was missed can begin no earlier than the start.
                let due = due(nth).max(started_at);
                late[usize::from(nth >= spread)].1.push(begun.time.0.saturating_sub(due));
            }
        }
    }
    late
}

/// A journal with so many DINGs, of which nothing has begun.
fn make(directory: &Path, count: u32, due: impl Fn(u32) -> u64) {
    let mut journal = open(directory).opened.journal;
    let mut draft = Draft::new(journal.head().next());
    let commit = |draft: &mut Draft, journal: &mut carillon::journal::SegmentJournal| {
        let next = Draft::new(draft.next_position());
        journal.commit(std::mem::replace(draft, next)).expect("the journal works");
    };
    Dings::due_at(
        SystemClock.wall(),
        count,
        |nth| Timestamp(due(nth)),
        |record| {
            draft.push(|private, frame| record.encode(private, frame));
            if draft.bytes() > 128 * 1_024 {
                commit(&mut draft, &mut journal);
            }
        },
    );
    commit(&mut draft, &mut journal);
}

fn open(directory: &Path) -> Store {
    let storage = Arc::new(FileStorage::open(directory.to_owned()).expect("a directory"));
    let options = StoreOptions { journal: JournalOptions::new(SHARD), clock: Arc::new(SystemClock), progress: None };
    store::open(storage, &options, &mut &Index::new()).expect("a journal")
}
