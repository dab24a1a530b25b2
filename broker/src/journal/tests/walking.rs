//! What tools read, beside a broker that writes.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::journal::scan::{Scanner, Step};

/// A file whose first reads find it as it was a moment ago.
struct Growing {
    before: Vec<u8>,
    after: Vec<u8>,
    reads_before: usize,
    reads: AtomicUsize,
}

impl StorageFile for Growing {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let old = self.reads.fetch_add(1, Ordering::Relaxed) < self.reads_before;
        let bytes = if old { &self.before } else { &self.after };
        let begin = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&bytes[begin..begin + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, _: &[&[u8]], _: u64) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn sync_data(&self) -> io::Result<()> {
        unreachable!("it is only read")
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.after.len() as u64)
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        unreachable!("it is only read")
    }
}

#[test]
fn a_batch_that_is_being_written_is_not_called_damaged() {
    let storage = MemoryStorage::new();
    let (_, expected) = written(&storage, 3);
    let after = storage.contents(&segment_names(&storage)[0]);
    let batches: Vec<_> =
        after.windows(4).enumerate().filter(|(_, bytes)| *bytes == format::BATCH_MAGIC).map(|(at, _)| at).collect();
    let mut more = 0;
    for torn in batches[0]..batches[1] {
        // Of the first batch a part was there, of the second nothing.
        let mut before = after.clone();
        before[torn + 1..].fill(0);
        // The window is read once for the batch, and again by the search for a later one.
        for reads_before in 1..3 {
            let reads = AtomicUsize::new(0);
            let file = Growing { before: before.clone(), after: after.clone(), reads_before, reads };
            let mut scanner = Scanner::new(&file, IDENTITY, Position(1)).unwrap();
            let mut found = 0;
            while let Step::Batch(_, batch) = scanner.step_live().unwrap() {
                found += batch.count();
            }
            assert!(found <= expected.acknowledged.len());
            more += found;
        }
    }
    assert!(more > 0, "what is there by the second look is found");
}

#[test]
fn a_walk_hands_over_all_of_a_journal_and_a_copy_opens_as_another_history() {
    let storage = MemoryStorage::new();
    let (_opened, expected) = written(&storage, 20);
    let walk = Walk::of(&storage).unwrap().unwrap();
    for from in [1, 2, 9, expected.acknowledged.len() as u64] {
        let mut found = Vec::new();
        let last = walk.batches(Position(from), |batch| {
            found.extend(batch.entries().filter(|entry| entry.position.0 >= from));
            Ok::<_, io::Error>(())
        });
        assert_eq!(last.unwrap().0, expected.acknowledged.len() as u64);
        assert_eq!(
            found,
            expected.acknowledged.iter().filter(|entry| entry.position.0 >= from).cloned().collect::<Vec<_>>()
        );
    }
    let copy = MemoryStorage::new();
    let other = Identity { incarnation: Incarnation(5), salt: 6 };
    for (nth, first) in walk.segments().iter().enumerate() {
        let mut bytes = Vec::new();
        let extent = walk.copy(nth, Some(other), &mut |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok::<_, io::Error>(())
        });
        assert_eq!(extent.unwrap().bytes, bytes.len() as u64);
        copy.put(&segment_file_name(*first), bytes);
    }
    let mut found = Vec::new();
    let options = JournalOptions { identity: None, ..options() };
    let opened = open(Arc::new(copy), options, Position(0), &mut |batch| {
        found.extend(batch.entries());
        Ok(())
    });
    assert_eq!(opened.unwrap().reader.incarnation(), Incarnation(5));
    assert_eq!(found, expected.acknowledged);
}

#[test]
fn a_segment_that_retention_removes_under_a_verification_is_no_damage() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let head = Position(expected.acknowledged.len() as u64);
    let mut removed = 0;
    let report = verify(&storage, &mut |progress| {
        if progress.segments_done == 1 {
            removed = opened.upkeep.truncate(head).unwrap();
        }
    });
    let report = report.unwrap();
    assert!(removed > 2 && report.findings.is_empty() && report.last == Some(head), "{report:?}");
}
