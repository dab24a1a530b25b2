//! A disk that fills up: met before a write fails, lived through on the reserve, and left by itself.

use super::*;
use crate::journal::spare::{READY, RESERVE};

/// Fills the disk: nothing more can be made from now on.
fn fill(storage: &MemoryStorage) {
    storage.set_capacity(Some(storage.used_bytes()));
}

fn room_is_missing(result: std::io::Result<bool>) -> bool {
    result.is_err_and(|error| is_no_room(&error))
}

/// Commits until the journal ends or has committed so much that it must have; returns the rooms it went through, and why it
/// ended.
fn live(opened: &mut Opened, expected: &mut Expected, life: u8) -> (Vec<Room>, Option<CommitError>) {
    let mut rooms = vec![opened.journal.room()];
    for nth in 0..60 {
        if let Err(error) = expected.commit(&mut opened.journal, 1 + nth % 3, life) {
            return (rooms, Some(error));
        }
        rooms.push(opened.journal.room());
        rooms.dedup();
    }
    (rooms, None)
}

#[test]
fn a_full_disk_is_met_before_it_can_fail_a_write_and_the_reserve_is_lived_on() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 2);
    opened.preparer.prepare().unwrap();
    fill(&storage);
    assert_eq!(opened.journal.room(), Room::Enough, "the spare is there");
    while storage.names().contains(&READY.to_owned()) {
        expected.commit(&mut opened.journal, 2, 1).unwrap();
    }
    assert!(room_is_missing(opened.preparer.prepare()));
    assert_eq!(opened.journal.room(), Room::Reserve);
    let prepared = opened.journal.prepared_bytes();
    assert!((RESERVE_BYTES..RESERVE_BYTES + SEGMENT_BYTES).contains(&prepared));
    let (rooms, ended) = live(&mut opened, &mut expected, 1);
    assert_eq!(rooms, [Room::Reserve, Room::Last]);
    assert!(matches!(ended, Some(CommitError::NoRoom(_))), "{ended:?}");
    assert!(!storage.names().contains(&RESERVE.to_owned()), "it was used");
    // Nothing of the last batch was written, and nothing that was acknowledged is lost.
    storage.restart(Loss::Nothing);
    storage.set_capacity(None);
    let (mut opened, found) = open_all(&storage).unwrap();
    assert_eq!(found, expected.acknowledged);
    assert!(opened.preparer.prepare().unwrap());
    assert_eq!(live(&mut opened, &mut expected, 2).0, [Room::Enough]);
}

#[test]
fn the_journal_grows_again_by_itself_when_there_is_room() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 2);
    opened.preparer.prepare().unwrap();
    fill(&storage);
    while storage.names().contains(&RESERVE.to_owned()) {
        expected.commit(&mut opened.journal, 2, 1).unwrap();
    }
    // Also when nobody looked in between: the roll itself found out.
    assert_ne!(opened.journal.room(), Room::Enough);
    storage.set_capacity(Some(storage.used_bytes() + RESERVE_BYTES));
    assert!(room_is_missing(opened.preparer.prepare()));
    assert!(storage.names().contains(&RESERVE.to_owned()), "the reserve comes first");
    assert_eq!(opened.journal.room(), Room::Reserve);
    storage.set_capacity(Some(storage.used_bytes() + SEGMENT_BYTES));
    assert!(opened.preparer.prepare().unwrap());
    assert_eq!(opened.journal.room(), Room::Enough);
    drop(opened);
    assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
}

#[test]
fn less_free_room_than_configured_is_as_a_full_disk_and_more_is_wanted_to_leave_it() {
    const FREE_MIN: u64 = 100_000;
    let storage = MemoryStorage::new();
    let with_minimum = JournalOptions { free_bytes_min: FREE_MIN, ..options() };
    let opened = open(Arc::new(storage.clone()), with_minimum, Position(0), &mut |_| Ok(())).unwrap();
    let check = |free: u64, room: Room| {
        storage.set_capacity(Some(storage.used_bytes() + free));
        assert_eq!(room_is_missing(opened.preparer.prepare()), room != Room::Enough, "{free} bytes free");
        assert_eq!(opened.journal.room(), room, "{free} bytes free");
    };
    // Enough for the reserve and a spare above the minimum, but one byte.
    check(FREE_MIN + RESERVE_BYTES + SEGMENT_BYTES - 1, Room::Reserve);
    check(FREE_MIN / 4 * 5 + SEGMENT_BYTES, Room::Enough);
    check(FREE_MIN, Room::Enough);
    check(FREE_MIN - 1, Room::Reserve);
    check(FREE_MIN / 4 * 5 - 1, Room::Reserve);
    check(FREE_MIN / 4 * 5, Room::Enough);
}

#[test]
fn a_file_that_could_not_be_made_whole_takes_no_room() {
    let storage = MemoryStorage::new();
    let (opened, _) = written(&storage, 2);
    let before = storage.used_bytes();
    for free in [0, 1, RESERVE_BYTES - 1] {
        storage.set_capacity(Some(before + free));
        assert!(room_is_missing(opened.preparer.prepare()));
        assert_eq!(storage.used_bytes(), before, "{free} bytes were free");
    }
}

#[test]
fn a_start_on_a_full_disk_takes_what_is_prepared() {
    let storage = MemoryStorage::new();
    // As by default, a segment is some times the reserve.
    let large = || JournalOptions { segment_bytes: 4 * RESERVE_BYTES, ..options() };
    let open_large = || {
        let mut found = Vec::new();
        let opened = open(Arc::new(storage.clone()), large(), Position(0), &mut |batch| {
            found.extend(batch.entries());
            Ok(())
        });
        opened.map(|opened| (opened, found))
    };
    let (mut opened, mut expected) = (open_large().unwrap().0, Expected::default());
    opened.preparer.prepare().unwrap();
    expected.commit(&mut opened.journal, 3, 1).unwrap();
    drop(opened);
    fill(&storage);
    // The spare at first, the reserve then, and after that what the starts before have given back.
    for start in 0..5 {
        let (mut opened, found) = open_large().unwrap_or_else(|error| panic!("start {start}: {error}"));
        assert_eq!(found, expected.acknowledged, "start {start}");
        opened.preparer.prepare().ok();
        expected.commit(&mut opened.journal, 1, 1).unwrap();
        drop(opened);
        storage.restart(Loss::Everything);
    }
}

#[test]
fn the_journal_goes_on_in_what_is_just_enough_when_nothing_else_is_left() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 2);
    opened.preparer.prepare().unwrap();
    fill(&storage);
    while storage.names().iter().any(|name| name == READY || name == RESERVE) {
        expected.commit(&mut opened.journal, 1, 1).unwrap();
    }
    // Less than a segment is free: a few batches, each in a file of its own.
    storage.set_capacity(Some(storage.used_bytes() + SEGMENT_BYTES - 1));
    let segments = || storage.names().iter().filter(|name| name.ends_with(".journal")).count();
    let (before, committed) = (segments(), expected.acknowledged.len());
    let (_, ended) = live(&mut opened, &mut expected, 1);
    assert!(matches!(ended, Some(CommitError::NoRoom(_))), "{ended:?}");
    assert!(segments() > before && expected.acknowledged.len() > committed, "it went on");
    storage.restart(Loss::Nothing);
    storage.set_capacity(None);
    assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
}

#[test]
fn a_start_that_lacks_room_for_a_small_file_uses_up_nothing() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 2);
    opened.preparer.prepare().unwrap();
    drop(opened);
    // As an earlier version left it, or an operator.
    storage.remove("head").unwrap();
    fill(&storage);
    let prepared = || storage.names().into_iter().filter(|name| name.ends_with(".ready")).collect::<Vec<_>>();
    let before = prepared();
    for _ in 0..3 {
        let Err(OpenError::Io { source, .. }) = open_all(&storage) else { panic!("there is no room for the file") };
        assert!(is_no_room(&source), "{source}");
        assert_eq!(prepared(), before);
    }
    storage.set_capacity(Some(storage.used_bytes() + 2_048));
    assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
}

#[test]
fn a_start_on_a_full_disk_after_a_loss_of_power_finds_all_that_it_needs() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 2);
    opened.preparer.prepare().unwrap();
    drop(opened);
    // As a roll would soon; no more of it is durable.
    storage.sync_directory().unwrap();
    storage.restart(Loss::Everything);
    fill(&storage);
    assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
}

#[test]
fn a_spare_that_is_too_small_for_the_last_batch_is_there_for_the_next_ones() {
    let storage = MemoryStorage::new();
    let small = || JournalOptions { segment_bytes: SEGMENT_BYTES, ..options() };
    let (mut opened, mut expected) = written(&storage, 2);
    // A batch that takes a segment of its own, larger than others.
    while expected.commit(&mut opened.journal, 200, 1).is_ok() && !storage.names().contains(&READY.to_owned()) {
        opened.preparer.prepare().unwrap();
    }
    drop(opened);
    let opened = open(Arc::new(storage.clone()), small(), Position(0), &mut |_| Ok(())).unwrap();
    assert!(storage.names().contains(&READY.to_owned()), "it was too small");
    fill(&storage);
    assert!(!opened.preparer.prepare().unwrap(), "both files are there");
}

#[test]
fn wherever_the_disk_ends_no_write_fails_and_nothing_acknowledged_is_lost() {
    let mut ends = 0;
    for capacity in (SEGMENT_BYTES..12 * SEGMENT_BYTES).step_by(97) {
        let storage = MemoryStorage::new();
        storage.set_capacity(Some(capacity));
        let Ok((mut opened, _)) = open_all(&storage) else { continue };
        let mut expected = Expected::default();
        for nth in 0..60 {
            // A preparation is as often late as in time.
            if nth % 2 == 0 {
                opened.preparer.prepare().ok();
            }
            match expected.commit(&mut opened.journal, 1 + nth % 3, 1) {
                Ok(_) => {}
                Err(CommitError::NoRoom(_)) => {
                    ends += 1;
                    assert!(matches!(expected.commit(&mut opened.journal, 1, 1), Err(CommitError::Poisoned)));
                    break;
                }
                Err(error) => panic!("{capacity} bytes: {error:?}"),
            }
        }
        storage.restart(Loss::Everything);
        storage.set_capacity(None);
        assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged, "{capacity} bytes");
    }
    assert!(ends > 50, "{ends} ends");
}
