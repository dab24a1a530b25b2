//! The journal's side: drafts of message records, and a journal in a directory.

use std::path::Path;
use std::sync::Arc;

use carillon::journal::{Draft, FileStorage, JournalOptions, SegmentJournal, open};
use carillon_core::record::Record;
use carillon_protocol::ids::Position;

use crate::SHARD;

/// A fresh journal in a directory, on files as the broker's.
///
/// # Panics
/// If it cannot be made.
pub fn journal_in(directory: &Path) -> SegmentJournal {
    let storage = FileStorage::open(directory.join("journal")).expect("a directory that is free");
    let opened = open(Arc::new(storage), JournalOptions::new(SHARD), Position(0), &mut |_| Ok(()));
    opened.expect("a fresh journal").journal
}

/// A draft with the same record so many times. Its deliver frames all say the same position; the journal reads none.
pub fn draft(first: Position, record: &Record, records: usize) -> Draft {
    let mut draft = Draft::new(first);
    for _ in 0..records {
        draft.push(|private, frame| record.encode(private, frame));
    }
    draft
}
