//! Reads by position, from segments that were written, scanned or never looked at.

use std::sync::mpsc::sync_channel;

use super::*;

fn positions(range: std::ops::RangeInclusive<u64>) -> Vec<Position> {
    range.map(Position).collect()
}

#[test]
fn a_read_crosses_segments() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    assert!(segment_names(&storage).len() > 4);
    let head = opened.reader.head().0;
    assert_eq!(opened.reader.read(&positions(1..=head), usize::MAX).unwrap(), expected.acknowledged);
    let odd: Vec<_> = expected.acknowledged.iter().step_by(3).cloned().collect();
    let wanted: Vec<_> = odd.iter().map(|entry| entry.position).collect();
    assert_eq!(opened.reader.read(&wanted, usize::MAX).unwrap(), odd);
    assert!(opened.reader.read(&[], 0).unwrap().is_empty());
}

#[test]
fn a_read_is_bounded_but_makes_progress() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let head = opened.reader.head().0;
    for bytes_max in [0, 1, 50, 100, 400, 1000] {
        let mut found = Vec::new();
        while found.len() < expected.acknowledged.len() {
            let entries = opened.reader.read(&positions(found.len() as u64 + 1..=head), bytes_max).unwrap();
            let bytes: usize = entries.iter().map(|entry| entry.frame.len()).sum();
            assert!(entries.len() == 1 || bytes <= bytes_max);
            assert!(!entries.is_empty());
            found.extend(entries);
        }
        assert_eq!(found, expected.acknowledged);
    }
}

#[test]
fn positions_beyond_the_head_are_refused() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 2);
    let result = opened.reader.read(&positions(3..=4), 10);
    assert!(matches!(result, Err(ReadError::NotYet { head: Position(3) })));
    storage.fail_at(storage.calls() + 2, std::io::ErrorKind::Other);
    expected.commit(&mut opened.journal, 1, 1).unwrap_err();
    let result = opened.reader.read(&[Position(4)], 10);
    assert!(matches!(result, Err(ReadError::NotYet { head: Position(3) })), "written is not durable");
    assert_eq!(opened.reader.read(&[Position(3)], 10).unwrap().len(), 1);
}

#[test]
fn segments_that_open_skipped_are_indexed_when_read() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let head = opened.reader.head();
    drop(opened);
    let (mut opened, found) = open_from(&storage, Position(head.0 - 1)).unwrap();
    assert!(found.len() < 4);
    let mut expected = expected;
    expected.commit(&mut opened.journal, 2, 1).unwrap();
    let all = positions(1..=opened.reader.head().0);
    assert_eq!(opened.reader.read(&all, usize::MAX).unwrap(), expected.acknowledged);
}

#[test]
fn truncation_removes_whole_segments_and_is_told() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let names = segment_names(&storage);
    assert_eq!(opened.upkeep.truncate(Position(1)).unwrap(), 0);
    let keep_from = expected.acknowledged[expected.acknowledged.len() / 2].position;
    let removed = opened.upkeep.truncate(keep_from).unwrap();
    assert!(removed > 0);
    assert_eq!(segment_names(&storage), names[removed..]);
    let first = opened.reader.first();
    assert!(first <= keep_from);
    let result = opened.reader.read(&[Position(1), first], 10);
    assert!(matches!(result, Err(ReadError::Truncated { first: found }) if found == first));
    assert_eq!(opened.reader.read(&[first], 10).unwrap().len(), 1);
    // Never the one that is written to.
    opened.upkeep.truncate(Position(u64::MAX)).unwrap();
    assert_eq!(segment_names(&storage).len(), 1);
    drop(opened);
    assert!(matches!(open_from(&storage, keep_from), Err(OpenError::Truncated { .. })));
    let (_, found) = open_from(&storage, Position(expected.acknowledged.len() as u64 - 1)).unwrap();
    assert_eq!(found.last(), expected.acknowledged.last());
}

#[test]
fn damage_behind_the_head_is_named_and_its_neighbours_stay_readable() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let name = &segment_names(&storage)[0];
    let contents = storage.contents(name);
    let last = contents.iter().rposition(|byte| *byte != 0).unwrap();
    storage.flip(name, last, 1);
    let mut bad = Vec::new();
    for entry in &expected.acknowledged {
        match opened.reader.read(&[entry.position], 10) {
            Ok(found) => assert_eq!(found[0], *entry),
            Err(ReadError::Corrupt { segment, .. }) => {
                assert_eq!(segment, *name);
                bad.push(entry.position);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(bad.len(), 1, "one record's checksum covers the byte: {bad:?}");
    let before = opened.reader.read(&positions(1..=bad[0].0), usize::MAX).unwrap();
    assert_eq!(before.len() as u64, bad[0].0 - 1, "what can be read is read");
}

#[test]
fn the_pool_answers_and_hands_back_what_does_not_fit() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 5);
    let pool = ReaderPool::start(&opened.reader, 1, 1).unwrap();
    let (hold, held) = sync_channel::<()>(0);
    let (started, starts) = sync_channel::<()>(0);
    let (done, results) = sync_channel(4);
    let request = |done: ReadDone| ReadRequest { positions: positions(1..=2), bytes_max: usize::MAX, done };
    let first = done.clone();
    let blocking = request(Box::new(move |result| {
        started.send(()).unwrap();
        held.recv().unwrap();
        first.send(result).unwrap();
    }));
    assert!(pool.submit(blocking).is_ok());
    starts.recv().unwrap();
    let second = done.clone();
    assert!(pool.submit(request(Box::new(move |result| second.send(result).unwrap()))).is_ok());
    assert_eq!(pool.queued(), 1);
    let refused = pool.submit(request(Box::new(|_| {}))).err().unwrap();
    assert_eq!(refused.positions.len(), 2);
    hold.send(()).unwrap();
    drop(pool);
    drop(done);
    let answers: Vec<_> = results.iter().map(Result::unwrap).collect();
    assert_eq!(answers, [&expected.acknowledged[..2], &expected.acknowledged[..2]]);
}

#[test]
fn the_pool_does_other_jobs_in_turn_and_hands_back_what_does_not_fit() {
    let (opened, _) = written(&MemoryStorage::new(), 1);
    let pool = ReaderPool::start(&opened.reader, 1, 1).unwrap();
    let (hold, held) = sync_channel::<()>(0);
    let (started, starts) = sync_channel::<()>(0);
    let (done, results) = sync_channel(4);
    let (first, second) = (done.clone(), done);
    let blocking = Box::new(move || {
        started.send(()).unwrap();
        held.recv().unwrap();
        first.send(1).unwrap();
    });
    assert!(pool.run(blocking).is_ok());
    starts.recv().unwrap();
    assert!(pool.run(Box::new(move || second.send(2).unwrap())).is_ok());
    assert!(pool.run(Box::new(|| {})).is_err());
    hold.send(()).unwrap();
    drop(pool);
    assert_eq!(results.iter().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn damage_to_one_batch_leaves_the_others_of_its_segment_readable() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let head = opened.reader.head();
    drop(opened);
    let name = segment_names(&storage).remove(1);
    let first = segment::parse_segment_name(&name).unwrap();
    let contents = storage.contents(&name);
    let begins: Vec<_> = (0..contents.len() - 4).filter(|at| contents[*at..*at + 4] == format::BATCH_MAGIC).collect();
    assert!(begins.len() >= 3, "{begins:?}");
    for (nth, begin) in begins.iter().enumerate() {
        let first_of = |begin: usize| u64::from_le_bytes(contents[begin + 32..begin + 40].try_into().unwrap());
        let count = u64::from(u32::from_le_bytes(contents[begin + 20..begin + 24].try_into().unwrap()));
        let lost = first_of(*begin)..first_of(*begin) + count;
        // The magic, the length, and a byte of a frame.
        for offset in [0, 17, format::BATCH_HEADER_BYTES + format::ROW_BYTES * 3 + 40] {
            storage.put(&name, contents.clone());
            storage.flip(&name, begin + offset, 1);
            let (opened, _) = open_from(&storage, head).unwrap();
            for entry in &expected.acknowledged {
                let found = opened.reader.read(&[entry.position], 1);
                if !lost.contains(&entry.position.0) {
                    assert_eq!(found.unwrap(), std::slice::from_ref(entry), "batch {nth}, byte {offset}");
                } else if let Ok(found) = found {
                    assert_eq!(found, std::slice::from_ref(entry), "another record of the batch");
                }
            }
            let refused = opened.reader.read(&[Position(lost.start)], 1);
            assert!(offset > 17 || matches!(refused, Err(ReadError::Corrupt { .. })), "batch {nth}, byte {offset}");
        }
    }
    assert!(first > Position(1));
}

#[test]
fn damage_that_comes_while_it_is_read_leaves_the_other_batches_readable() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let names = segment_names(&storage);
    for name in [&names[1], names.last().unwrap()] {
        let contents = storage.contents(name);
        let is_batch = |at: &usize| contents[*at..*at + 4] == format::BATCH_MAGIC;
        for begin in (0..contents.len() - 4).filter(is_batch) {
            // A reader that knows the way.
            assert!(opened.reader.read(&positions(1..=opened.reader.head().0), usize::MAX).is_ok());
            let first = u64::from_le_bytes(contents[begin + 32..begin + 40].try_into().unwrap());
            let count = u64::from(u32::from_le_bytes(contents[begin + 20..begin + 24].try_into().unwrap()));
            storage.flip(name, begin + 17, 1);
            for entry in &expected.acknowledged {
                let found = opened.reader.read(&[entry.position], 1);
                // A batch that the next segment repeats is read from there.
                match found {
                    Ok(found) => assert_eq!(found, std::slice::from_ref(entry)),
                    Err(error) => assert!(
                        matches!(error, ReadError::Corrupt { .. })
                            && (first..first + count).contains(&entry.position.0),
                        "{name}, {begin}: {}: {error}",
                        entry.position
                    ),
                }
            }
            let lost = opened.reader.read(&[Position(first)], 1);
            assert!(lost.is_err() || begin > format::SEGMENT_HEADER_BYTES, "{name}, {begin}");
            storage.flip(name, begin + 17, 1);
        }
    }
}
