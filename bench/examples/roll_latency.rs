//! How long commits take when segments roll, with the next segment prepared by its thread and without, side by side.
//!
//! `cargo run --release -p carillon-bench --example roll_latency [directory]`: the directory's disk is what is measured; half a
//! minute, and about 2 GiB that are removed at the end. Each variant has its turn again and again, so that both meet the same
//! neighbours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carillon::clock::{Clock, SystemClock};
use carillon::journal::{FileStorage, Journal, JournalOptions, SEGMENT_BYTES_DEFAULT, open};
use carillon_bench::SHARD;
use carillon_bench::group::Group;
use carillon_bench::record::draft;
use carillon_core::record::Record;
use carillon_protocol::ids::Position;

/// Records a commit: about 64 KiB, a busy broker.
const RECORDS: usize = 280;
/// Segments filled in a turn.
const SEGMENTS: u64 = 4;
/// Turns of each variant.
const TURNS: usize = 4;

/// Times of commits.
#[derive(Default)]
struct Times {
    all: Vec<Duration>,
    rolls: Vec<Duration>,
}

fn main() {
    let base = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let record = Group::of(1).publish_record();
    let (mut prepared, mut unprepared) = (Times::default(), Times::default());
    for turn in 0..TURNS {
        for (is_prepared, times) in [(true, &mut prepared), (false, &mut unprepared)] {
            let directory = base.join(format!("roll_latency-{}-{turn}-{is_prepared}", std::process::id()));
            fill(&directory, &record, is_prepared, times);
            std::fs::remove_dir_all(&directory).expect("it is ours");
        }
    }
    let mut text =
        String::from("next segment        commits    median       p99       max   at a roll: median       max\n");
    for (name, times) in [("prepared by a thread", prepared), ("made by the roll", unprepared)] {
        text += &times.row(name);
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).expect("somebody reads");
}

/// Fills some segments with equal batches and notes how long each commit takes.
fn fill(directory: &Path, record: &Record, is_prepared: bool, times: &mut Times) {
    let clock: &dyn Clock = &SystemClock;
    let storage = Arc::new(FileStorage::open(directory).expect("a directory that is free"));
    let opened = open(storage, JournalOptions::new(SHARD), Position(0), &mut |_| Ok(())).expect("a fresh journal");
    let _preparing = is_prepared.then(|| opened.preparer.clone().start().expect("a thread"));
    let mut journal = opened.journal;
    let (mut written, mut segments) = (0, opened.upkeep.segments().expect("listed").len());
    while written < SEGMENTS * SEGMENT_BYTES_DEFAULT {
        let draft = draft(journal.head().next(), record, RECORDS);
        written += draft.bytes() as u64;
        let begin = clock.now();
        journal.commit(draft).expect("durable");
        let took = clock.now() - begin;
        times.all.push(took);
        let now = opened.upkeep.segments().expect("listed").len();
        if now > segments {
            times.rolls.push(took);
            segments = now;
        }
    }
}

impl Times {
    fn row(mut self, name: &str) -> String {
        self.all.sort_unstable();
        self.rolls.sort_unstable();
        let ms = |time: &Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        let at = |times: &[Duration], percent: usize| ms(&times[(times.len() - 1) * percent / 100]);
        let (all, rolls) = (&self.all, &self.rolls);
        let (count, median, p99, max) = (all.len(), at(all, 50), at(all, 99), at(all, 100));
        format!("{name:<20} {count:>6} {median:>9} {p99:>9} {max:>9} {:>19} {:>9}\n", at(rolls, 50), at(rolls, 100))
    }
}
