//! Snapshots as files: what was written is read back, and nothing else is.

use super::format::{CHUNK_BYTES, HEADER_BYTES};
use std::sync::Arc;

use super::*;
use crate::journal::{Loss, MemoryStorage, Storage, StorageFile};
use crate::store::tests::{Life, SHARD, state, written};

fn meta(position: Position) -> Meta {
    Meta { shard: SHARD, incarnation: Incarnation(0x77), position, time: Timestamp(5) }
}

/// So many bytes, of which no two pieces are alike.
fn ramp(length: usize) -> Vec<u8> {
    (0..251).cycle().take(length).collect()
}

fn put(storage: &MemoryStorage, position: Position, state: &[u8]) {
    write(storage, &meta(position), state, &mut |_| Ok(())).unwrap();
}

fn collect(storage: &MemoryStorage, position: Position) -> Result<(Meta, Vec<u8>), SnapshotError> {
    let mut state = Vec::new();
    let meta = read(storage, position, |chunk| state.extend_from_slice(chunk))?;
    Ok((meta, state))
}

#[test]
fn states_of_all_lengths_round_trip() {
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7, WRITE_BYTES + 9] {
        let storage = MemoryStorage::new();
        let state = ramp(length);
        put(&storage, Position(7), &state);
        storage.restart(Loss::Everything);
        assert_eq!(storage.names(), ["00000000000000000007.snapshot"]);
        let (found, read) = collect(&storage, Position(7)).unwrap();
        assert!(read == state && found == meta(Position(7)), "{length} bytes");
    }
}

#[test]
fn a_shard_comes_back_as_it_was() {
    let storage = MemoryStorage::new();
    let (life, _) = written(&storage, 12);
    let head = life.store.shard.head();
    put(&storage, head, &encode(&life.store.shard));
    let (found, shard) = load(&storage, SHARD, Incarnation(0x77), head).unwrap();
    assert_eq!((found.position, state(&shard)), (head, life.state()));
    let other = load(&storage, SHARD, Incarnation(0x78), head);
    assert!(matches!(other, Err(SnapshotError::Foreign { .. })), "{other:?}");
    let other = load(&storage, ShardId(4), Incarnation(0x77), head);
    assert!(matches!(other, Err(SnapshotError::Foreign { .. })), "{other:?}");
}

fn words(storage: &MemoryStorage, meanwhile: &mut dyn FnMut()) -> Vec<(Position, &'static str)> {
    let word = |standing: &Standing| match standing {
        Standing::Same => "same",
        Standing::Other => "other",
        Standing::Base => "base",
        Standing::Unreached => "unreached",
        Standing::Beyond => "beyond",
        Standing::Unreadable(_) => "unreadable",
    };
    let compared = compare(storage, &mut |_, _| meanwhile()).unwrap();
    compared.iter().map(|(position, standing)| (*position, word(standing))).collect()
}

/// A journal of some segments, and three snapshots with their states.
fn with_three(storage: &MemoryStorage) -> (Life, [(Position, Vec<u8>); 3]) {
    let (mut life, _) = written(storage, 12);
    let taken = [(); 3].map(|()| {
        let taken = (life.store.shard.head(), life.state());
        put(storage, taken.0, &taken.1);
        life.steps(9);
        taken
    });
    (life, taken)
}

#[test]
fn a_snapshot_is_compared_with_what_the_records_up_to_it_lead_to() {
    let storage = MemoryStorage::new();
    assert_eq!(words(&storage, &mut || {}), []);
    let (life, taken) = with_three(&storage);
    let [first, second, third] = [0, 1, 2].map(|nth: usize| taken[nth].0);
    let beyond = life.store.shard.head().next();
    put(&storage, beyond, &life.state());
    let check = |expected: [&'static str; 4]| {
        let expected: Vec<_> = [first, second, third, beyond].into_iter().zip(expected).collect();
        assert_eq!(words(&storage, &mut || {}), expected);
    };
    check(["same", "same", "same", "beyond"]);
    // The state of a moment before, well written under this name; and longer, and shorter.
    put(&storage, second, &taken[0].1);
    check(["same", "other", "same", "beyond"]);
    put(&storage, second, &[&taken[1].1[..], &[0]].concat());
    check(["same", "other", "same", "beyond"]);
    put(&storage, second, &taken[1].1[..taken[1].1.len() - 1]);
    check(["same", "other", "same", "beyond"]);
    // Of another history.
    let foreign = Meta { incarnation: Incarnation(0x78), ..meta(second) };
    write(&storage, &foreign, &taken[1].1, &mut |_| Ok(())).unwrap();
    storage.flip(&file_name(third), HEADER_BYTES + 3, 1);
    check(["same", "other", "unreadable", "beyond"]);

    // The first segments are gone: the oldest that reaches the rest is gone on from, if it is one.
    put(&storage, second, &taken[1].1);
    put(&storage, third, &taken[2].1);
    life.store.opened.upkeep.truncate(second.next()).unwrap();
    assert!(life.store.opened.reader.first() > first.next(), "segments left");
    check(["unreached", "base", "same", "beyond"]);
    for position in [second, third, beyond] {
        storage.flip(&file_name(position), HEADER_BYTES + 3, 1);
    }
    assert!(matches!(compare(&storage, &mut |_, _| {}), Err(CompareError::NoBase(_))));
}

#[test]
fn a_broker_beside_the_comparison_may_remove_what_was_to_be_read() {
    let storage = MemoryStorage::new();
    let (life, taken) = with_three(&storage);
    // Once, in the midst of it: segments leave, and the snapshot that reached them.
    let mut done = false;
    let compared = words(&storage, &mut || {
        if !std::mem::replace(&mut done, true) {
            life.store.opened.upkeep.truncate(taken[1].0.next()).unwrap();
            storage.remove(&file_name(taken[0].0)).unwrap();
        }
    });
    assert_eq!(compared, [(taken[1].0, "base"), (taken[2].0, "same")]);
    // Each time a segment is about to be read, it is gone.
    let ended = compare(&Vanishing(storage), &mut |_, _| {});
    assert!(matches!(ended, Err(CompareError::Outrun)), "{ended:?}");
}

/// Whose files are listed, and cannot be opened.
struct Vanishing(MemoryStorage);

impl Storage for Vanishing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Arc<dyn StorageFile>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn StorageFile>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

#[test]
fn any_flipped_byte_and_any_other_length_is_refused() {
    let state = ramp(CHUNK_BYTES + 300);
    let pristine = MemoryStorage::new();
    put(&pristine, Position(7), &state);
    let name = file_name(Position(7));
    let bytes = pristine.contents(&name);
    let head = HEADER_BYTES + 8;
    let sampled = (0..head).chain((head..bytes.len()).step_by(4_999)).chain([bytes.len() - 1]);
    for offset in sampled {
        let storage = MemoryStorage::new();
        storage.put(&name, bytes.clone());
        storage.flip(&name, offset, 0x10);
        let refused = collect(&storage, Position(7)).unwrap_err();
        let place = match refused {
            SnapshotError::Damaged { offset, .. } => offset,
            SnapshotError::Version { .. } => 8,
            other => panic!("at {offset}: {other:?}"),
        };
        assert!(place <= offset as u64 || offset < head, "at {offset}: {place}");
    }
    for length in (0..head).chain([head + 5, bytes.len() - 1, bytes.len() + 1]) {
        let storage = MemoryStorage::new();
        let mut other = bytes.clone();
        other.resize(length, 0);
        storage.put(&name, other);
        assert!(matches!(collect(&storage, Position(7)), Err(SnapshotError::Damaged { .. })), "{length} bytes");
    }
}

#[test]
fn a_snapshot_under_another_name_is_refused() {
    let storage = MemoryStorage::new();
    put(&storage, Position(7), b"state");
    storage.put(&file_name(Position(8)), storage.contents(&file_name(Position(7))));
    assert!(matches!(collect(&storage, Position(8)), Err(SnapshotError::Foreign { .. })));
}

#[test]
fn a_crash_at_any_call_leaves_the_whole_snapshot_or_none() {
    for loss in [Loss::Nothing, Loss::Everything, Loss::Random(1), Loss::Random(2), Loss::Random(3)] {
        for call in 1.. {
            let storage = MemoryStorage::new();
            put(&storage, Position(3), b"the older one");
            storage.crash_at(storage.calls() + call);
            let state = vec![7; CHUNK_BYTES + 9];
            if write(&storage, &meta(Position(9)), &state, &mut |_| Ok(())).is_ok() {
                break;
            }
            storage.restart(loss);
            remove_unfinished(&storage).unwrap();
            for position in list(&storage).unwrap() {
                let (_, found) = collect(&storage, position).unwrap_or_else(|error| panic!("call {call}: {error}"));
                let expected = if position == Position(3) { &b"the older one"[..] } else { &state };
                assert!(found == expected, "call {call}, {loss:?}, {position}");
            }
            assert!(storage.names().iter().all(|name| !name.ends_with(".tmp")), "call {call}");
        }
    }
}

#[test]
fn two_generations_are_kept_and_damaged_ones_are_not_counted() {
    let storage = MemoryStorage::new();
    for position in [1, 5, 9, 12] {
        put(&storage, Position(position), b"state");
    }
    assert_eq!(set_aside(&storage, Position(12)).unwrap(), "00000000000000000012.snapshot.damaged");
    put(&storage, Position(99), b"of another history");
    assert_eq!(prune(&storage, &[1, 5, 9].map(Position)).unwrap(), [Position(5), Position(9)]);
    storage.restart(Loss::Everything);
    assert_eq!(list(&storage).unwrap(), [5, 9, 99].map(Position), "what is not known to be good is not touched");
    assert!(storage.names().contains(&"00000000000000000012.snapshot.damaged".to_owned()));
}
