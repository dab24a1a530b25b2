//! The same on a real directory.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn open_files(storage: FileStorage) -> (Opened, Vec<Entry>) {
    let mut found = Vec::new();
    let opened = open(Arc::new(storage), options(), Position(0), &mut |batch| {
        found.extend(batch.entries());
        Ok(())
    });
    (opened.unwrap(), found)
}

#[test]
fn a_journal_in_files_survives_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shard-3");
    let mut expected = Expected::default();
    for life in 1..6 {
        let (mut opened, found) = open_files(FileStorage::open(&path).unwrap());
        assert_eq!(found, expected.acknowledged);
        for number in 0..9 {
            expected.commit(&mut opened.journal, 1 + number % 3, life).unwrap();
        }
        let all: Vec<_> = expected.acknowledged.iter().map(|entry| entry.position).collect();
        assert_eq!(opened.reader.read(&all, usize::MAX).unwrap(), expected.acknowledged);
    }
    let report = verify(&FileStorage::open(&path).unwrap(), &mut |_| {}).unwrap();
    assert_eq!(report.records, expected.acknowledged.len() as u64);
    assert!(report.findings.is_empty() && report.segments > 9, "{report:?}");
}

#[test]
fn only_the_owner_can_look_into_a_new_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    drop(FileStorage::open(path.join("journal")).unwrap());
    for made in [&path, &path.join("journal")] {
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
    }
}

#[test]
fn a_second_owner_is_kept_off() {
    let directory = tempfile::tempdir().unwrap();
    let (opened, _) = open_files(FileStorage::open(directory.path()).unwrap());
    assert!(matches!(FileStorage::open(directory.path()), Err(StorageError::Locked(_))));
    drop(opened);
    assert!(FileStorage::open(directory.path()).is_ok());
}

#[test]
fn a_batch_larger_than_a_segment_gets_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (mut opened, _) = open_files(FileStorage::open(directory.path()).unwrap());
    for _ in 0..2 {
        let mut draft = Draft::new(opened.journal.head().next());
        draft.push(|_, frames| frames.put_bytes(9, 100_000));
        opened.journal.commit(draft).unwrap();
    }
    drop(opened);
    let (mut opened, found) = open_files(FileStorage::open(directory.path()).unwrap());
    assert_eq!(found.iter().map(|entry| entry.frame.len()).sum::<usize>(), 200_000);
    let mut draft = Draft::new(Position(3));
    draft.push(|_, frames| frames.put_bytes(9, BATCH_BYTES_HARD_MAX));
    assert!(matches!(opened.journal.commit(draft), Err(CommitError::TooLarge { .. })));
    let mut draft = Draft::new(Position(3));
    draft.push(|_, _| {});
    assert!(matches!(opened.journal.commit(draft), Err(CommitError::Poisoned)));
}
