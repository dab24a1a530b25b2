//! When who read what: from memory, from disk, after a rebuild; and what retention takes of it.

use carillon_protocol::ids::Timestamp;

use super::world::{World, group};
use super::*;
use crate::index::limits::MARKS_SWEPT_A_STEP;
use crate::index::marks::key as key_of;

/// Three marks of bob in group 2 (10, 20, 30 of 40), one of ann's; all on disk and none in memory.
fn world() -> World {
    let mut world = World::new();
    world.publish(2, 40);
    for up_to in [10, 20, 30] {
        world.mark(2, 1, up_to);
    }
    world.mark(2, 0, 40);
    world.flush(0);
    assert_eq!((world.index.stats().marks_bytes, world.marks.len()), (0, 4));
    world.check();
    world
}

/// When bob read a message of group 2, from wherever it is.
fn read_at(world: &World, seq: u64) -> Result<Timestamp, LookupError> {
    let place = world.kept(2).iter().find(|place| place.seq == Seq(seq)).unwrap();
    let message = MessageAt { conversation: group(2), seq: Seq(seq), position: place.position };
    world.index.whole().read_times(&message, &[UserId(1)]).map(|times| times[0])
}

/// The times of bob's marks.
fn bobs(world: &World) -> [Timestamp; 3] {
    [0, 1, 2].map(|nth| world.marks[nth].time)
}

#[test]
fn a_message_was_read_when_the_mark_that_passed_it_was_made() {
    let world = world();
    let [ten, twenty, thirty] = bobs(&world);
    assert!(ten < twenty && twenty < thirty);
    let expected = [(1, ten), (10, ten), (11, twenty), (20, twenty), (21, thirty), (30, thirty), (31, Timestamp(0))];
    for (seq, time) in expected {
        assert_eq!(read_at(&world, seq), Ok(time), "message {seq}");
    }
}

#[test]
fn memory_answers_for_what_is_newer_than_what_it_let_go_of() {
    let mut world = world();
    let recent = |world: &World, seq: u64| {
        let place = world.kept(2)[usize::try_from(seq - 1).unwrap()];
        let message = MessageAt { conversation: group(2), seq: place.seq, position: place.position };
        world.index.recent().read_times(&message, &[UserId(1), UserId(0)])
    };
    assert_eq!(recent(&world, 31), Err(LookupError::OnDisk), "a mark on disk may have passed it");
    world.publish(2, 1);
    assert_eq!(recent(&world, 41), Ok(vec![Timestamp(0); 2]));
    world.mark(2, 1, 41);
    let newest = world.marks[4].time;
    assert_eq!(recent(&world, 41), Ok(vec![newest, Timestamp(0)]));
    // One mark in memory, the one before it on disk.
    assert_eq!([30, 31].map(|seq| read_at(&world, seq)), [Ok(bobs(&world)[2]), Ok(newest)]);
    world.check();
}

#[test]
fn marks_survive_a_restart_with_and_without_a_flush_and_without_the_files() {
    let mut world = world();
    world.publish(2, 5);
    world.mark(2, 1, 43);
    for lose in [false, true, false] {
        world.restart_after(|directory| {
            if lose {
                std::fs::remove_dir_all(directory).unwrap()
            }
        });
        world.check();
        world.flush(0);
        world.check();
    }
}

#[test]
fn what_retention_took_is_not_told_and_goes_from_the_disk_in_steps() {
    let mut world = World::new();
    world.publish(2, 100);
    world.mark(2, 1, 50);
    // Segments of 16 KiB: the next ones begin behind the mark.
    world.publish(0, 400);
    world.flush(0);
    world.publish(2, 100);
    // This one stays in memory.
    world.mark(2, 1, 150);
    let old = world.kept(2)[20];
    world.truncate(Position(450), true).unwrap();
    assert!(Position(world.kept_from()) > world.marks[0].position);
    let message = MessageAt { conversation: group(2), seq: old.seq, position: old.position };
    for lookup in [&world.index.whole() as &dyn Lookup, &world.index.recent()] {
        // Not the time of the next mark, which is all that is left.
        assert_eq!(lookup.read_times(&message, &[UserId(1)]), Ok(vec![Timestamp(0)]));
    }
    let on_disk = |world: &World| world.index.store.load_full().unwrap().raw_marks().len();
    assert_eq!(on_disk(&world), 2);
    world.flush(0);
    assert_eq!(on_disk(&world), 1);
    world.check();
    world.restart();
    world.check();
}

#[test]
fn a_sweep_goes_on_where_it_stopped() {
    let world = world();
    let store = world.index.store.load_full().unwrap();
    let (through, mut after, mut steps) = (world.marks[2].position, Vec::new(), 0);
    while let Some(next) = store.sweep_marks(&after, through, 2).unwrap() {
        after = next;
        steps += 1;
    }
    assert_eq!((steps, store.raw_marks().len()), (2, 1));
    assert_eq!(store.sweep_marks(&[], through, MARKS_SWEPT_A_STEP).unwrap(), None);
}

/// Does something to the marks on disk, which has to be seen and mended while the index serves.
fn check_mended(damage: impl Fn(&sled::Tree, [u8; 20])) {
    let world = world();
    let expected = bobs(&world)[1];
    damage(world.index.store.load_full().unwrap().raw_marks(), key_of(group(2), UserId(1), Seq(20)));
    assert_eq!(read_at(&world, 15), Err(LookupError::Rebuilding));
    world.index.maintain(&world.reader);
    assert_eq!(world.index.stats().rebuilds, 1);
    assert_eq!(read_at(&world, 15), Ok(expected));
    world.check();
}

#[test]
fn a_lost_mark_is_rebuilt() {
    check_mended(|marks, key| drop(marks.remove(key).unwrap().unwrap()));
}

#[test]
fn a_damaged_mark_is_rebuilt() {
    check_mended(|marks, key| {
        let mut value = marks.get(key).unwrap().unwrap().to_vec();
        value[15] ^= 1;
        marks.insert(key, value).unwrap();
    });
}

#[test]
fn a_mark_of_somebody_else_is_rebuilt() {
    check_mended(|marks, key| {
        let other = marks.get(key_of(group(2), UserId(0), Seq(40))).unwrap().unwrap();
        marks.insert(key, other).unwrap();
    });
}

#[test]
fn marks_that_come_while_the_index_is_rebuilt_are_there_after_it() {
    let mut world = world();
    let store = world.index.store.load_full().unwrap();
    world.index.doubt(&store, &Doubt::NoMarks);
    world.publish(2, 2);
    world.mark(2, 1, 42);
    world.index.maintain(&world.reader);
    world.flush(0);
    assert_eq!(read_at(&world, 42), Ok(world.marks[4].time));
    world.restart();
    world.check();
}

#[test]
fn a_store_without_marks_is_built_anew() {
    let mut world = world();
    world.restart_after(|directory| {
        let db = sled::open(directory).unwrap();
        assert!(db.drop_tree("marks").unwrap());
    });
    assert!(world.index.is_rebuilding() || read_at(&world, 15) == Ok(bobs(&world)[1]));
    assert!(world.directory.path().join("index.doubtful-1").exists());
    world.check();
}

#[test]
fn marks_count_against_the_memory_and_are_let_go_of() {
    let directory = tempfile::tempdir().unwrap();
    let options =
        IndexOptions { directory: Some(directory.path().join("index")), shard: ShardId(0), memory_bytes_max: 0 };
    let index = Index::open(options);
    let incarnation = carillon_protocol::ids::Incarnation(1);
    crate::store::Follow::begin(&mut &index, crate::store::Begin { incarnation, first: Position(1) });
    let marks = 60_000u64;
    for position in 1..=marks {
        let (user, up_to) = (UserId(u32::try_from(position % 1_000).unwrap()), Seq(position / 1_000 + 1));
        let (time, position) = (Timestamp(position + 5), Position(position));
        index.append_mark(&ReadMark { conversation: CONVERSATION, user, up_to, time, position });
        index.reach(position);
        if index.is_due() {
            index.tidy(&mut index.lock()).unwrap();
        }
        assert!(index.held() <= index.room(), "after {position} marks");
    }
    assert!(index.stats().flushes > 0 && index.stats().marks_bytes > 0);
    let users: Vec<_> = (0..1_000).map(UserId).collect();
    for (seq, position) in [(1, 1), (30, 28_999), (60, 58_999)] {
        let message = MessageAt { conversation: CONVERSATION, seq: Seq(seq), position: Position(position) };
        let times = index.whole().read_times(&message, &users).unwrap();
        assert!(times.iter().all(|time| *time > Timestamp(0)));
        assert_eq!(times[7], Timestamp((seq - 1) * 1_000 + 7 + 5));
    }
}
