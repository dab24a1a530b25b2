//! Segments that are made in advance.

use super::*;
use crate::journal::spare::READY;

fn is_spare(storage: &MemoryStorage) -> bool {
    storage.names().iter().any(|name| name == READY)
}

#[test]
fn a_roll_takes_the_spare_and_another_is_made() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 1);
    assert!(opened.preparer.prepare().unwrap());
    assert!(!opened.preparer.prepare().unwrap(), "one is enough");
    let segments = segment_names(&storage).len();
    let mut rolled = false;
    while !rolled {
        let before = storage.calls();
        expected.commit(&mut opened.journal, 2, 1).unwrap();
        rolled = segment_names(&storage).len() > segments;
        // A roll into a spare: header, batch, sync, rename, sync of the directory, note. A plain commit: write, sync, note.
        assert_eq!(storage.calls() - before, if rolled { 6 } else { 3 });
    }
    assert!(!is_spare(&storage));
    assert!(opened.preparer.prepare().unwrap() && is_spare(&storage));
    storage.restart(Loss::Everything);
    assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
}

#[test]
fn a_start_takes_the_spare_that_was_left() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 4);
    opened.preparer.prepare().unwrap();
    storage.restart(Loss::Nothing);
    let (opened, found) = open_all(&storage).unwrap();
    assert_eq!(found, expected.acknowledged);
    assert!(!is_spare(&storage) && opened.preparer.prepare().unwrap());
}

#[test]
fn a_spare_that_holds_something_or_has_another_size_is_not_used() {
    for spoil in [
        |storage: &MemoryStorage| storage.flip(READY, storage.contents(READY).len() - 3, 1),
        |storage: &MemoryStorage| {
            storage.put(READY, vec![0; 5000]);
        },
    ] {
        let storage = MemoryStorage::new();
        let (opened, expected) = written(&storage, 4);
        opened.preparer.prepare().unwrap();
        spoil(&storage);
        storage.restart(Loss::Nothing);
        let (_, found) = open_all(&storage).unwrap();
        assert_eq!(found, expected.acknowledged);
        assert!(!is_spare(&storage));
        let last = storage.contents(segment_names(&storage).last().unwrap());
        assert_eq!(last.len() as u64, SEGMENT_BYTES);
        assert!(last.ends_with(&[0; 8]));
    }
}

#[test]
fn a_spare_too_small_for_the_batch_is_left_for_the_next_roll() {
    let storage = MemoryStorage::new();
    let (mut opened, _) = written(&storage, 1);
    opened.preparer.prepare().unwrap();
    let mut draft = Draft::new(opened.journal.head().next());
    draft.push(|_, frames| frames.put_bytes(9, 5_000));
    opened.journal.commit(draft).unwrap();
    assert!(is_spare(&storage));
    let head = opened.journal.head();
    drop(opened);
    assert_eq!(open_all(&storage).unwrap().0.journal.head(), head);
}

#[test]
fn a_failed_preparation_changes_nothing_and_is_tried_with_another_file() {
    for call in 1.. {
        let storage = MemoryStorage::new();
        let (mut opened, mut expected) = written(&storage, 1);
        storage.fail_at(storage.calls() + call, std::io::ErrorKind::StorageFull);
        if opened.preparer.prepare().is_ok() {
            assert!(call > 3, "call {call}");
            break;
        }
        expected.commit(&mut opened.journal, 2, 1).unwrap();
        assert!(opened.preparer.prepare().unwrap(), "call {call}");
        for _ in 0..9 {
            expected.commit(&mut opened.journal, 2, 1).unwrap();
        }
        storage.restart(Loss::Everything);
        assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
    }
}

#[test]
fn the_thread_keeps_a_spare_ready() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 1);
    let preparing = opened.preparer.clone().start().unwrap();
    for _ in 0..500 {
        expected.commit(&mut opened.journal, 3, 1).unwrap();
    }
    // The journal is written to while spares are made; no spare takes the name of another that is being used.
    drop(preparing);
    opened.preparer.prepare().unwrap();
    assert!(is_spare(&storage));
    let all: Vec<_> = (1..=opened.reader.head().0).map(Position).collect();
    assert_eq!(opened.reader.read(&all, usize::MAX).unwrap(), expected.acknowledged);
    storage.restart(Loss::Everything);
    assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
}

#[test]
fn a_spare_in_use_keeps_its_name() {
    let storage = MemoryStorage::new();
    let (opened, _) = written(&storage, 1);
    let shelf = &opened.reader.segments.shelf;
    opened.preparer.prepare().unwrap();
    assert!(shelf.take(SEGMENT_BYTES).is_some());
    assert!(!opened.preparer.prepare().unwrap(), "the roll has not renamed it yet");
    storage.rename(READY, "another").unwrap();
    shelf.renamed();
    assert!(opened.preparer.prepare().unwrap());
}
