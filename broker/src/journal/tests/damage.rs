//! Damage that no crash explains is refused with its place; what a crash explains is cut.

use proptest::prelude::*;

use super::*;

/// Seven batches in several segments, the last segment with three batches, closed.
fn closed() -> (MemoryStorage, Expected) {
    let storage = MemoryStorage::new();
    let (opened, mut expected) = written(&storage, 7);
    drop(opened);
    let (mut opened, _) = open_all(&storage).unwrap();
    for _ in 0..2 {
        expected.commit(&mut opened.journal, 2, 1).unwrap();
    }
    assert!(segment_names(&storage).len() >= 3);
    (storage, expected)
}

/// Where the last batch begins in the last segment, and where it ends.
fn last_batch(storage: &MemoryStorage) -> (String, usize, usize) {
    let name = segment_names(storage).pop().unwrap();
    let contents = storage.contents(&name);
    let begin = contents.windows(4).rposition(|bytes| bytes == format::BATCH_MAGIC).unwrap();
    let length = u32::from_le_bytes(contents[begin + 16..begin + 20].try_into().unwrap()) as usize;
    (name, begin, begin + length)
}

fn corruption(storage: &MemoryStorage) -> Corruption {
    match open_all(storage) {
        Err(OpenError::Corrupt(corruption)) => corruption,
        Err(error) => panic!("refused for another reason: {error:?}"),
        Ok((opened, _)) => panic!("accepted: {:?}", opened.report),
    }
}

#[test]
fn a_flipped_byte_anywhere_is_refused_or_cuts_the_last_batch_only() {
    let (pristine, expected) = closed();
    let (last_name, last_begin, last_end) = last_batch(&pristine);
    let images: Vec<_> =
        segment_names(&pristine).into_iter().map(|name| (name.clone(), pristine.contents(&name))).collect();
    let mut refused = 0;
    for (name, contents) in &images {
        let used = contents.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let meaningful = (0..64).chain(format::SEGMENT_HEADER_BYTES..used);
        for offset in meaningful {
            let storage = MemoryStorage::new();
            for (name, contents) in &images {
                storage.put(name, contents.clone());
            }
            storage.flip(name, offset, 0x40);
            let before = storage.contents(name);
            match open_all(&storage) {
                Err(OpenError::Corrupt(_) | OpenError::Foreign { .. }) => {
                    assert_eq!(storage.contents(name), before, "a refused journal is left alone");
                    refused += 1;
                    let audit = verify(&storage, &mut |_| {}).unwrap();
                    assert!(!audit.findings.is_empty(), "{name} at {offset}");
                }
                Err(error) => panic!("{name} at {offset}: {error:?}"),
                Ok((opened, found)) => {
                    assert!(*name == last_name && (last_begin..last_end).contains(&offset), "{name} at {offset}");
                    let cut = opened.report.cut.unwrap();
                    assert_eq!((cut.offset, cut.bytes), (last_begin as u64, (used - last_begin) as u64));
                    assert_eq!(found[..], expected.acknowledged[..expected.acknowledged.len() - 2]);
                }
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn a_torn_tail_is_cut_and_reported_at_every_length() {
    let (pristine, expected) = closed();
    let (name, begin, end) = last_batch(&pristine);
    for kept in begin..end {
        let storage = pristine_copy(&pristine);
        let mut contents = pristine.contents(&name);
        contents[kept..].fill(0);
        let torn_bytes = contents.iter().rposition(|byte| *byte != 0).unwrap() + 1 - begin.min(kept);
        storage.put(&name, contents);
        let (opened, found) = open_all(&storage).unwrap();
        let left = expected.acknowledged.len() - 2;
        if found.len() == left {
            assert_eq!(opened.report.cut.is_some(), kept > begin && torn_bytes > 0, "kept {}", kept - begin);
        } else {
            // The bytes taken away were zeroes anyway.
            assert_eq!(found, expected.acknowledged);
        }
    }
}

fn pristine_copy(pristine: &MemoryStorage) -> MemoryStorage {
    let storage = MemoryStorage::new();
    for name in segment_names(pristine) {
        storage.put(&name, pristine.contents(&name));
    }
    storage
}

#[test]
fn zeroes_in_the_middle_are_refused_with_the_place() {
    let (pristine, _) = closed();
    let (name, begin, _) = last_batch(&pristine);
    let mut contents = pristine.contents(&name);
    contents[format::SEGMENT_HEADER_BYTES..begin].fill(0);
    pristine.put(&name, contents);
    let corruption = corruption(&pristine);
    assert_eq!((corruption.segment.as_str(), corruption.offset), (name.as_str(), format::SEGMENT_HEADER_BYTES as u64));
    assert!(corruption.to_string().contains("a later batch follows"), "{corruption}");
}

#[test]
fn a_missing_segment_is_refused() {
    let (pristine, _) = closed();
    let names = segment_names(&pristine);
    pristine.remove(&names[1]).unwrap();
    assert_eq!(corruption(&pristine).segment, names[0]);
    let audit = verify(&pristine, &mut |_| {}).unwrap();
    assert_eq!(audit.findings_count, 1, "{audit:?}");

    let (pristine, _) = closed();
    pristine.remove(&segment_names(&pristine)[0]).unwrap();
    let found = corruption(&pristine);
    assert_eq!((found.segment, found.position), (segment_names(&pristine)[0].clone(), Position(1)));
    assert!(found.what.contains(begin::NAME), "{}", found.what);
    pristine.remove(begin::NAME).unwrap();
    assert!(matches!(open_all(&pristine), Err(OpenError::Truncated { from: Position(0), .. })), "given up");
}

#[test]
fn a_journal_that_ends_before_the_snapshot_is_refused() {
    let (storage, expected) = closed();
    let head = Position(expected.acknowledged.len() as u64);
    assert!(open_from(&storage, head).is_ok());
    let result = open_from(&storage, head.next());
    assert!(matches!(result, Err(OpenError::Behind { head: found, .. }) if found == head));
    assert!(matches!(open_from(&MemoryStorage::new(), Position(1)), Err(OpenError::Behind { .. })));
}

#[test]
fn a_damaged_last_batch_that_a_snapshot_covers_is_refused_with_its_place() {
    let (storage, expected) = closed();
    let (name, begin, _) = last_batch(&storage);
    storage.flip(&name, begin + 40, 1);
    let head = Position(expected.acknowledged.len() as u64);
    let refused = open_from(&storage, head).err().unwrap().to_string();
    assert!(refused.contains(&format!("{name} is damaged from byte {begin} on")), "{refused}");
}

#[test]
fn another_journals_segment_is_refused() {
    let (storage, _) = closed();
    let stray = MemoryStorage::new();
    let foreign = JournalOptions { identity: Some(Identity { incarnation: Incarnation(9), salt: 1 }), ..options() };
    open(Arc::new(stray.clone()), foreign, Position(0), &mut |_| Ok(())).unwrap();
    let contents = stray.contents(&segment_names(&stray)[0]);
    storage.put("00000000000000009000.journal", contents);
    assert!(matches!(open_all(&storage), Err(OpenError::Foreign { .. })));
    let other_shard = JournalOptions { shard: ShardId(4), ..options() };
    let result = open(Arc::new(closed().0), other_shard, Position(0), &mut |_| Ok(()));
    assert!(matches!(result, Err(OpenError::Foreign { .. })));
}

#[test]
fn an_overlap_with_other_content_is_refused() {
    let storage = MemoryStorage::new();
    let (opened, _) = written(&storage, 2);
    drop(opened);
    let old = storage.contents(&segment_names(&storage)[0]);
    open_all(&storage).unwrap();
    let names = segment_names(&storage);
    assert_eq!(names.len(), 2);
    // The crash hit before the old segment was cut: it still ends with the batch that the new one begins with.
    storage.put(&names[0], old.clone());
    let copy = pristine_copy(&storage);
    assert_eq!(open_all(&copy).unwrap().1.len(), 3);
    let other = MemoryStorage::new();
    let (mut opened, _) = open_all(&other).unwrap();
    let mut expected = Expected::default();
    expected.commit(&mut opened.journal, 1, 1).unwrap();
    expected.commit(&mut opened.journal, 2, 77).unwrap();
    storage.put(&names[0], other.contents(&names[0]));
    assert_eq!(corruption(&storage).segment, names[1]);
}

#[test]
fn a_damaged_header_with_nothing_behind_it_is_set_aside() {
    let (storage, expected) = closed();
    let name = "00000000000000000900.journal";
    storage.put(name, [vec![7; 100], vec![0; 5000]].concat());
    let (opened, found) = open_all(&storage).unwrap();
    assert_eq!(found, expected.acknowledged);
    let aside = opened.report.set_aside.unwrap();
    assert_eq!(storage.contents(&aside)[..100], [7; 100]);
    assert!(!storage.names().iter().any(|found| found == name));
}

#[test]
fn an_unfinished_segment_is_removed() {
    let (storage, expected) = closed();
    storage.put("00000000000000000900.journal.tmp", vec![7; 100]);
    let (opened, found) = open_all(&storage).unwrap();
    assert_eq!((found, opened.report.removed.len()), (expected.acknowledged, 1));
}

#[test]
fn a_payload_cannot_pretend_to_be_a_later_batch() {
    let storage = MemoryStorage::new();
    let (mut opened, expected) = written(&storage, 1);
    let mut forged = Draft::new(Position(1000));
    forged.push(|_, frames| frames.put_slice(b"forged"));
    // Whoever publishes knows the incarnation, but not the salt.
    let forged = forged.seal(Identity { salt: 0x2223, ..IDENTITY }, Epoch(1)).parts().concat();
    let mut draft = Draft::new(Position(2));
    draft.push(|_, frames| frames.put_slice(&forged));
    opened.journal.commit(draft).unwrap();
    let (name, ..) = last_batch(&storage);
    let begin = format::SEGMENT_HEADER_BYTES + opened_batch_bytes(&storage, &name);
    storage.flip(&name, begin + 20, 1);
    // As if the machine had lost power in the commit: nothing notes that it was durable.
    storage.remove(proof::NAME).unwrap();
    let (opened, found) = open_all(&storage).unwrap();
    assert_eq!(found, expected.acknowledged);
    assert_eq!(opened.report.cut.unwrap().position, Position(2));
}

#[test]
fn an_end_that_is_missing_is_refused_although_what_is_left_is_whole() {
    let (pristine, expected) = closed();
    let (name, begin, end) = last_batch(&pristine);
    let contents = pristine.contents(&name);
    let head = expected.acknowledged.len() as u64;
    let zeroed = [&contents[..begin], &vec![0; contents.len() - begin]].concat();
    let mut damaged = contents.clone();
    damaged[end - 1] ^= 1;
    for left in [contents[..begin].to_vec(), contents[..end - 1].to_vec(), zeroed, damaged] {
        pristine.put(&name, left);
        let found = corruption(&pristine);
        assert_eq!((found.segment.as_str(), found.offset, found.position), (&*name, begin as u64, Position(head - 1)));
        assert!(found.what.contains(proof::NAME), "{found}");
        let audit = verify(&pristine, &mut |_| {}).unwrap();
        let finding = audit.findings.last().unwrap();
        assert_eq!(
            (finding.offset, finding.from, finding.to),
            (begin as u64, Position(head - 1), Some(Position(head)))
        );
    }
    pristine.remove(proof::NAME).unwrap();
    assert_eq!(
        open_all(&pristine).unwrap().1[..],
        expected.acknowledged[..expected.acknowledged.len() - 2],
        "given up"
    );
    // What was opened is noted from there on.
    assert!(open_all(&pristine).is_ok());
}

#[test]
fn a_journal_that_is_gone_is_not_begun_anew() {
    let (storage, expected) = closed();
    let head = Position(expected.acknowledged.len() as u64);
    for name in storage.names().into_iter().filter(|name| name.ends_with(".journal")) {
        storage.remove(&name).unwrap();
    }
    let names = storage.names();
    // Of another identity than the one that a new journal would get.
    for identity in [Some(IDENTITY), None] {
        let options = JournalOptions { identity, ..options() };
        let refused = Survey::of(Arc::new(storage.clone()), options).err().unwrap();
        assert!(matches!(refused, OpenError::Gone { noted } if noted == head), "{refused}");
    }
    assert_eq!(storage.names(), names, "nothing is changed");
    let audit = verify(&storage, &mut |_| {}).unwrap();
    let [finding] = &audit.findings[..] else { panic!("{audit:?}") };
    assert_eq!((finding.segment.as_str(), finding.from, finding.to), (proof::NAME, Position(1), Some(head)));
    storage.remove(proof::NAME).unwrap();
    assert_eq!(open_all(&storage).unwrap().1, [], "given up");
}

/// Bytes of the first batch in a segment.
fn opened_batch_bytes(storage: &MemoryStorage, name: &str) -> usize {
    let at = format::SEGMENT_HEADER_BYTES + 16;
    u32::from_le_bytes(storage.contents(name)[at..at + 4].try_into().unwrap()) as usize
}

#[test]
fn a_newer_version_at_the_tail_is_not_cut() {
    let (storage, _) = closed();
    let (name, begin, _) = last_batch(&storage);
    let mut contents = storage.contents(&name);
    contents[begin + 4] = 2;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&contents[begin..begin + 8]), &contents[begin + 12..begin + 64]);
    contents[begin + 8..begin + 12].copy_from_slice(&sum.to_le_bytes());
    storage.put(&name, contents);
    assert!(matches!(open_all(&storage), Err(OpenError::Version { version: 2, .. })));
}

/// Everything that reads must answer, whatever lies there.
fn check_no_panic(storage: &MemoryStorage) {
    let _report = verify(storage, &mut |_| {});
    if let Ok((opened, found)) = open_all(storage) {
        for entry in found {
            assert_eq!(opened.reader.read(&[entry.position], 10).unwrap(), [entry]);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_as_a_segment_never_panic(
        header in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
    ) {
        let storage = MemoryStorage::new();
        let (opened, _) = written(&storage, 1);
        drop(opened);
        let name = segment_names(&storage).pop().unwrap();
        let mut contents = storage.contents(&name);
        if header {
            contents.truncate(format::SEGMENT_HEADER_BYTES);
            contents.extend_from_slice(&bytes);
        } else {
            contents = bytes;
        }
        storage.put(&name, contents);
        check_no_panic(&storage);
    }

    #[test]
    fn a_mutated_segment_never_panics(
        segment in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..200_usize), 1..4),
        length in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        let (storage, _) = closed();
        let names = segment_names(&storage);
        let name = &names[segment.index(names.len())];
        let mut contents = storage.contents(name);
        for (at, byte, run) in edits {
            let at = at.index(contents.len());
            let end = contents.len().min(at + run);
            contents[at..end].fill(byte);
        }
        if shorten {
            contents.truncate(length.index(contents.len()));
        }
        storage.put(name, contents);
        check_no_panic(&storage);
    }
}
