//! Reading around damage: every position comes once, in order, as it was or as one that cannot be read.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// What is done to a file; places are shares of it.
#[derive(Clone, Debug)]
enum Harm {
    Flip { at: prop::sample::Index },
    Zero { from: prop::sample::Index, count: usize },
    Swap { left: prop::sample::Index, right: prop::sample::Index },
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => index().prop_map(|at| Harm::Flip { at }),
        2 => (index(), 1..800usize).prop_map(|(from, count)| Harm::Zero { from, count }),
        1 => (index(), index()).prop_map(|(left, right)| Harm::Swap { left, right }),
    ]
}

/// Behind the segment's header, which is looked at by every start.
fn apply(contents: &mut [u8], harm: &Harm) {
    let used = contents.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
    let batches = &mut contents[format::SEGMENT_HEADER_BYTES..used.max(format::SEGMENT_HEADER_BYTES + 1)];
    match harm {
        Harm::Flip { at } => *at.get_mut(batches) ^= 0x10,
        Harm::Zero { from, count } => {
            let from = from.index(batches.len());
            let end = (from + count).min(batches.len());
            batches[from..end].fill(0);
        }
        Harm::Swap { left, right } => {
            let pages = batches.len() / 64;
            if pages > 0 {
                let (left, right) = (left.index(pages) * 64, right.index(pages) * 64);
                for byte in 0..64 {
                    batches.swap(left + byte, right + byte);
                }
            }
        }
    }
}

impl Harm {
    fn do_to(&self, storage: &MemoryStorage, name: &str) {
        let mut contents = storage.contents(name);
        apply(&mut contents, self);
        storage.put(name, contents);
    }
}

/// What a reading around damage hands out in a range, judged as it comes; what is lost of it.
fn salvage(reader: &Reader, expected: &[Entry], (after, through): (u64, u64)) -> Lost {
    let (mut lost, mut next) = (Lost::default(), after + 1);
    let entry = |entry: &Entry, next: &mut u64| {
        if entry.position.0 > after {
            assert_eq!(entry, &expected[usize::try_from(*next).unwrap() - 1]);
            *next += 1;
        }
    };
    let flow = reader.salvage(Position(after), Position(through), |piece| {
        match piece {
            Piece::Batch(batch) => batch.entries().for_each(|found| entry(&found, &mut next)),
            Piece::Record(found) => entry(found, &mut next),
            Piece::Lost(position) => {
                assert_eq!(position, Position(next));
                lost.push(position);
                next += 1;
            }
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(flow.unwrap().is_continue());
    assert!(next > through, "it ends at {next}");
    lost
}

/// What reading one by one refuses.
fn refused(reader: &Reader, expected: &[Entry]) -> Lost {
    let mut refused = Lost::default();
    for entry in expected {
        match reader.read(&[entry.position], 1) {
            Ok(found) => assert_eq!(found, std::slice::from_ref(entry)),
            Err(ReadError::Corrupt { .. }) => refused.push(entry.position),
            Err(error) => panic!("{error:?}"),
        }
    }
    refused
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_position_comes_once_as_it_was_or_as_lost(
        harms in prop::collection::vec((any::<prop::sample::Index>(), harm()), 1..6),
        is_open in any::<bool>(),
        ends in any::<[prop::sample::Index; 2]>(),
    ) {
        let storage = MemoryStorage::new();
        let (opened, expected) = written(&storage, 30);
        let head = opened.reader.head();
        let mut names = segment_names(&storage);
        // A start looks at the last one.
        names.pop();
        // A reader that knew the way before the damage came, or one that has seen nothing else.
        let known = is_open.then(|| salvage(&opened.reader, &expected.acknowledged, (0, head.0)));
        prop_assert!(known.is_none_or(|lost| lost.is_empty()));
        let reader = if is_open { opened.reader } else { drop(opened); open_from(&storage, head).unwrap().0.reader };
        for (segment, harm) in &harms {
            harm.do_to(&storage, &names[segment.index(names.len())]);
        }
        let lost = salvage(&reader, &expected.acknowledged, (0, head.0));
        prop_assert_eq!(&lost, &refused(&reader, &expected.acknowledged));
        let ends = ends.map(|end| end.index(usize::try_from(head.0).unwrap() + 1) as u64);
        let (after, through) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
        let inside = salvage(&reader, &expected.acknowledged, (after, through));
        let wanted = |position: &Position| after < position.0 && position.0 <= through;
        for position in expected.acknowledged.iter().map(|entry| entry.position).filter(wanted) {
            prop_assert_eq!(inside.contains(position), lost.contains(position));
        }
    }
}

#[test]
fn what_was_left_out_once_stays_so_whatever_is_read_there() {
    let storage = MemoryStorage::new();
    let (opened, expected) = written(&storage, 20);
    let mut left_out = Lost::default();
    [4, 5, 9].into_iter().for_each(|position| left_out.push(Position(position)));
    opened.reader.leave_out(&left_out);
    for entry in &expected.acknowledged {
        match opened.reader.read(&[entry.position], 1) {
            Ok(found) => assert_eq!(found, std::slice::from_ref(entry)),
            Err(ReadError::LeftOut { position }) => assert!(position == entry.position && left_out.contains(position)),
            Err(error) => panic!("{error:?}"),
        }
    }
    let all: Vec<_> = expected.acknowledged.iter().map(|entry| entry.position).collect();
    assert_eq!(opened.reader.read(&all, usize::MAX).unwrap(), expected.acknowledged[..3], "what comes before it");
    assert_eq!(opened.reader.read(&all[5..], usize::MAX).unwrap(), expected.acknowledged[5..8]);
}

#[test]
fn more_damaged_places_than_it_goes_around_are_an_error() {
    let storage = MemoryStorage::new();
    let mut opened = open_all(&storage).unwrap().0;
    let mut expected = Expected::default();
    for _ in 0..2 * LOST_RUNS_MAX + 20 {
        expected.commit(&mut opened.journal, 1, 1).unwrap();
    }
    let mut lengths = Vec::new();
    for name in segment_names(&storage) {
        let contents = storage.contents(&name);
        let is_batch = |at: &usize| contents[*at..*at + 4] == format::BATCH_MAGIC;
        lengths.extend((0..contents.len() - 4).filter(is_batch).map(|at| (name.clone(), at + 17)));
    }
    // The last segment is left alone.
    for (name, offset) in lengths.iter().skip(1).step_by(2).take(LOST_RUNS_MAX + 1) {
        storage.flip(name, *offset, 1);
    }
    let lost_up_to = |through: u64| {
        let mut lost = 0;
        let flow = opened.reader.salvage(Position(0), Position(through), |piece| {
            lost += usize::from(matches!(piece, Piece::Lost(_)));
            ControlFlow::<()>::Continue(())
        });
        (flow.map(|_| ()), lost)
    };
    let places = 2 * LOST_RUNS_MAX as u64;
    let (flow, lost) = lost_up_to(places);
    assert!(flow.is_ok() && lost == LOST_RUNS_MAX, "{flow:?} after {lost}");
    let (flow, lost) = lost_up_to(places + 2);
    assert!(matches!(flow, Err(ReadError::Corrupt { .. })) && lost == LOST_RUNS_MAX, "{flow:?} after {lost}");
}

/// How a reading of everything around damage ends.
fn end(reader: &Reader) -> Result<ControlFlow<()>, ReadError> {
    reader.salvage(Position(0), reader.head(), |_| ControlFlow::Continue(()))
}

#[test]
fn a_segment_that_is_gone_is_not_taken_for_damage() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 10);
    // More small records than can have lain where the segment before ends.
    let kept = segment_names(&storage).len();
    let mut draft = Draft::new(opened.journal.head().next());
    for _ in 0..100 {
        draft.push(|_, frames| frames.put_u8(1));
    }
    opened.journal.commit(draft).unwrap();
    for _ in 0..20 {
        expected.commit(&mut opened.journal, 1, 1).unwrap();
    }
    assert!(segment_names(&storage).len() > kept + 2);
    let head = opened.reader.head();
    drop(opened);
    storage.remove(&segment_names(&storage)[kept]).unwrap();
    let (opened, _) = open_from(&storage, head).unwrap();
    assert!(matches!(end(&opened.reader), Err(ReadError::Corrupt { .. })), "it can be put back");
}

#[test]
fn a_batch_of_another_version_is_not_taken_for_damage() {
    let storage = MemoryStorage::new();
    let (opened, _) = written(&storage, 30);
    let name = segment_names(&storage).remove(1);
    let contents = storage.contents(&name);
    let batches: Vec<_> = (0..contents.len() - 4).filter(|at| contents[*at..*at + 4] == format::BATCH_MAGIC).collect();
    let mut newer = contents.clone();
    newer[batches[1] + 4] += 1;
    let header = &newer[batches[1]..batches[1] + format::BATCH_HEADER_BYTES];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &header[12..]);
    newer[batches[1] + 8..batches[1] + 12].copy_from_slice(&crc.to_le_bytes());
    let is_version = |end: Result<ControlFlow<()>, ReadError>| matches!(end, Err(ReadError::Corrupt { .. }));
    storage.put(&name, newer.clone());
    assert!(is_version(end(&opened.reader)));
    newer[batches[0] + 17] ^= 1;
    storage.put(&name, newer);
    assert!(is_version(end(&opened.reader)), "behind damage");
}
