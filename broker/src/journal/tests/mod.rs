//! Whole journals on simulated and real directories.

use std::sync::Arc;

use bytes::BufMut;
use carillon_protocol::ids::{Epoch, Incarnation, Position, ShardId};

use super::*;

mod crash;
mod damage;
mod files;
mod reading;
mod room;
mod salvage;
mod spare;
mod walking;

const IDENTITY: Identity = Identity { incarnation: Incarnation(0x1111), salt: 0x2222 };

/// Small enough that a few batches of [`Expected::commit`] fill a segment.
const SEGMENT_BYTES: u64 = format::SEGMENT_HEADER_BYTES as u64 + 900;

/// Takes each of those batches.
const RESERVE_BYTES: u64 = SEGMENT_BYTES;

fn options() -> JournalOptions {
    JournalOptions {
        epoch: Epoch(1),
        segment_bytes: SEGMENT_BYTES,
        reserve_bytes: RESERVE_BYTES,
        free_bytes_min: 0,
        identity: Some(IDENTITY),
        ..JournalOptions::new(ShardId(3))
    }
}

/// What a journal should hold.
#[derive(Clone, Default, PartialEq, Debug)]
struct Expected {
    acknowledged: Vec<Entry>,
    /// The records of a batch whose commit did not return `Ok`.
    in_doubt: Vec<Entry>,
}

impl Expected {
    /// Commits a batch of `count` records, some of them large, whose content depends on position and `life`.
    fn commit(&mut self, journal: &mut SegmentJournal, count: usize, life: u8) -> Result<Batch, CommitError> {
        let mut draft = Draft::new(journal.head().next());
        self.in_doubt.clear();
        for _ in 0..count {
            let position = draft.next_position();
            let private = vec![life; (position.0 % 7) as usize * 5];
            let frame = format!("{position}/{life} ").repeat((position.0 * position.0 % 23) as usize).into_bytes();
            self.in_doubt.push(Entry { position, private: private.clone().into(), frame: frame.clone().into() });
            draft.push(|privates, frames| {
                privates.put_slice(&private);
                frames.put_slice(&frame);
            });
        }
        let batch = journal.commit(draft)?;
        assert!(batch.entries().eq(self.in_doubt.iter().cloned()));
        self.acknowledged.append(&mut self.in_doubt);
        Ok(batch)
    }

    /// Asserts that exactly the acknowledged records were found, or these and the batch in doubt, and takes what was
    /// found for the truth from now on.
    fn settle(&mut self, found: Vec<Entry>, scenario: &str) {
        let both = [self.acknowledged.clone(), self.in_doubt.clone()].concat();
        assert!(
            found == self.acknowledged || found == both,
            "{scenario}: found up to {:?} of {} acknowledged and {} in doubt",
            found.last().map(|entry| entry.position),
            self.acknowledged.len(),
            self.in_doubt.len(),
        );
        *self = Self { acknowledged: found, in_doubt: Vec::new() };
    }
}

/// Opens the journal and collects what it replays.
fn open_from(storage: &MemoryStorage, from: Position) -> Result<(Opened, Vec<Entry>), OpenError> {
    let mut found = Vec::new();
    let opened = open(Arc::new(storage.clone()), options(), from, &mut |batch| {
        found.extend(batch.entries());
        Ok(())
    })?;
    Ok((opened, found))
}

fn open_all(storage: &MemoryStorage) -> Result<(Opened, Vec<Entry>), OpenError> {
    open_from(storage, Position(0))
}

/// A journal of several segments: `batches` batches of one to three records.
fn written(storage: &MemoryStorage, batches: usize) -> (Opened, Expected) {
    let (mut opened, found) = open_all(storage).unwrap();
    assert!(found.is_empty() && opened.report.created);
    let mut expected = Expected::default();
    for number in 0..batches {
        expected.commit(&mut opened.journal, 1 + number % 3, 1).unwrap();
    }
    (opened, expected)
}

fn segment_names(storage: &MemoryStorage) -> Vec<String> {
    storage.names().into_iter().filter(|name| name.ends_with(".journal")).collect()
}
