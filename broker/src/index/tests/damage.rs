//! Whatever happens to the files, the index says what is true, or that it does not know yet, and mends itself.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use carillon_core::record::Record;
use carillon_protocol::ids::{Incarnation, Timestamp};
use proptest::prelude::*;

use super::world::{GROUPS, SHARD, World, group};
use super::*;
use crate::index::block::{Block, key};
use crate::index::keep::write_out;
use crate::index::store::{Mark, Row};
use crate::store::{Begin, Follow, Unwritable, Verdict};

/// Blocks, partial ones among them, some of it not in memory, and a floor.
fn world() -> World {
    let mut world = World::new();
    for nth in 0..GROUPS {
        world.publish(nth, 40 + 90 * nth as u64);
    }
    world.flush(0);
    world.publish(1, 30);
    world.truncate(Position(400), true).unwrap();
    assert!(world.kept_from() > 100);
    world.flush(0);
    world.publish(2, 30);
    world.check();
    world
}

/// Every message is asked for; where the answer is that the index is being rebuilt, it is rebuilt. Then all is well.
fn mend(world: &World) {
    for nth in 0..GROUPS {
        let mut places = Vec::new();
        if world.index.whole().places(group(nth), Seq(0), usize::MAX, &mut places).is_err() {
            assert!(world.index.is_rebuilding());
            world.index.maintain(&world.reader);
            assert!(!world.index.is_rebuilding());
        }
    }
    world.check();
}

pub(super) fn set_aside(world: &World) -> Vec<String> {
    let names = fs::read_dir(world.directory.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains("doubtful")).collect();
    names.sort_unstable();
    names
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_file());
    found.sort_unstable();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_are_survived(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..u64::MAX, 1u8..), 1..6)) {
        let mut world = world();
        world.restart_after(|directory| {
            let files = files(directory);
            for (file, at, flip) in flips {
                let path = file.get(&files);
                let mut bytes = fs::read(path).unwrap();
                // What was written lies in front of what was only made room for.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
                if used > 0 {
                    bytes[usize::try_from(at % used).unwrap()] ^= flip;
                    fs::write(path, bytes).unwrap();
                }
            }
        });
        mend(&world);
        world.publish(3, 200);
        world.flush(0);
        mend(&world);
        world.restart();
        mend(&world);
    }

    #[test]
    fn a_kill_at_any_time_is_survived(
        before in 1..200u64,
        after in 1..200u64,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut world = world();
        world.publish(4, before);
        world.flush(usize::MAX);
        world.publish(4, after);
        // A flush that does not come to its end.
        write_out(&world.index.table, &world.index.store.load_full().unwrap(), Position(world.head())).unwrap();
        let killed = world.directory.path().join("killed");
        copy(&world.index_directory(), &killed);
        world.restart_after(|directory| {
            fs::remove_dir_all(directory).unwrap();
            fs::rename(&killed, directory).unwrap();
            if let Some(cut) = cut {
                // A power failure that took the end of the file.
                let bytes = fs::read(directory.join("db")).unwrap();
                fs::write(directory.join("db"), &bytes[..cut.index(bytes.len())]).unwrap();
            }
        });
        mend(&world);
    }
}

#[test]
fn missing_files_are_survived() {
    let count = files(&world().index_directory()).len();
    assert!(count >= 2);
    for nth in 0..count {
        for empty in [false, true] {
            let mut world = world();
            world.restart_after(|directory| {
                let path = &files(directory)[nth];
                if empty { fs::write(path, []).unwrap() } else { fs::remove_file(path).unwrap() }
            });
            mend(&world);
        }
    }
}

/// Does something to the store of a running index, which has to see it and to mend itself while it serves.
fn check_while_serving(damage: impl Fn(&Store)) {
    let mut world = world();
    damage(&world.index.store.load_full().unwrap());
    let mut places = Vec::new();
    let found = world.index.whole().places(group(4), Seq(0), usize::MAX, &mut places);
    assert_eq!((found, places), (Err(LookupError::Rebuilding), Vec::new()));
    assert_eq!(world.index.recent().rank(group(4), Position(world.head() / 2)), Err(LookupError::Rebuilding));
    assert_eq!(world.index.truncate(Position(700), true), Err(LookupError::Rebuilding.into()));
    assert_eq!(world.index.truncated_through(), Position(world.kept_from() - 1), "the journal is needed as it is");
    // What is in memory serves on, and grows.
    world.publish(4, 300);
    let mut newest = Vec::new();
    world.index.recent().places(group(4), Seq(500), 1, &mut newest).unwrap();
    assert_eq!(newest.len(), 1);
    world.index.maintain(&world.reader);
    assert_eq!(set_aside(&world), ["index.doubtful-1"]);
    assert_eq!((world.index.stats().rebuilds, world.index.is_rebuilding()), (1, false));
    world.check();
    world.restart();
    world.check();
    assert_eq!(set_aside(&world), ["index.doubtful-1"], "what was built anew is believed");
}

#[test]
fn a_lost_block_is_rebuilt() {
    check_while_serving(|store| drop(store.raw_blocks().remove(key(group(4), Seq(129))).unwrap().unwrap()));
}

#[test]
fn a_damaged_block_is_rebuilt() {
    check_while_serving(|store| {
        let key = key(group(4), Seq(129));
        let mut value = store.raw_blocks().get(key).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        store.raw_blocks().insert(key, value).unwrap();
    });
}

#[test]
fn a_block_that_ends_too_early_is_rebuilt() {
    check_while_serving(|store| {
        let true_one = store.block(group(4), Seq(257)).unwrap();
        let place = true_one.places().next().unwrap();
        let mut block = Block::new(place.seq, true_one.before());
        block.push(true_one.before(), place.position, place.author);
        store.raw_blocks().insert(key(group(4), Seq(257)), block.encode(group(4))).unwrap();
    });
}

#[test]
fn a_block_that_does_not_meet_the_one_before_is_rebuilt() {
    check_while_serving(|store| {
        let true_one = store.block(group(4), Seq(257)).unwrap();
        let mut block = Block::new(Seq(257), Position(true_one.before().0 - 1));
        let mut last = block.before();
        for place in true_one.places() {
            block.push(last, place.position, place.author);
            last = place.position;
        }
        store.raw_blocks().insert(key(group(4), Seq(257)), block.encode(group(4))).unwrap();
    });
}

/// Does something to the store before a restart, which has to see it.
fn check_at_restart(damage: impl Fn(&World, &Store)) {
    let mut world = world();
    {
        let store = world.index.store.load_full().unwrap();
        damage(&world, &store);
    }
    world.restart();
    assert_eq!(set_aside(&world), ["index.doubtful-1"]);
    world.check();
}

#[test]
fn a_lost_conversation_is_seen_at_the_start() {
    check_at_restart(|_, store| drop(store.raw_rows().remove(group(1).0.to_be_bytes()).unwrap().unwrap()));
}

#[test]
fn a_damaged_conversation_is_seen_at_the_start() {
    check_at_restart(|_, store| drop(store.raw_rows().insert(group(1).0.to_be_bytes(), vec![1; 36]).unwrap()));
}

#[test]
fn a_conversation_that_nobody_knows_is_seen_at_the_start() {
    check_at_restart(|_, store| {
        let row = Row { last: (Seq(1), Position(5)), floor: (Seq(0), Position(0)) };
        store.put_row(group(GROUPS), &row).unwrap();
    });
}

#[test]
fn a_conversation_that_is_ahead_is_seen_at_the_start() {
    check_at_restart(|world, store| {
        let row = Row { last: (Seq(9_999), Position(world.head() + 1)), floor: (Seq(0), Position(0)) };
        store.put_row(group(1), &row).unwrap();
    });
}

#[test]
fn a_truncation_that_was_cut_short_is_brought_to_its_end_at_the_next_start() {
    let mut world = world();
    let through = world.kept(1)[20];
    {
        // Its row is on disk; the mark, and the rows of the others, are not.
        let store = world.index.store.load_full().unwrap();
        let last = store.row(group(1)).unwrap().unwrap().last;
        store.put_row(group(1), &Row { last, floor: (through.seq, through.position) }).unwrap();
    }
    world.restart();
    assert!(set_aside(&world).is_empty());
    assert_eq!(world.index.truncated_through(), through.position, "so that whoever is behind is told");
    for nth in 0..GROUPS {
        let gone = world.kept(nth).iter().rfind(|place| place.position <= through.position);
        if let Some(gone) = gone {
            assert_eq!(world.index.floor(group(nth)), (gone.seq, gone.position), "group {nth}");
        }
    }
}

#[test]
fn floors_rise_together() {
    let world = world();
    let before = world.index.floors_version().expect("nobody truncates");
    world.index.truncate(Position(world.head() - 5), true).unwrap();
    assert!(world.index.floors_version().expect("nobody truncates any more") > before);
}

fn check_mark(change: impl Fn(&mut Mark)) {
    check_at_restart(|world, store| {
        let work = world.index.lock();
        let mut mark = world.index.mark(&work, work.flushed_through);
        change(&mut mark);
        store.commit(&mark).unwrap();
    });
}

#[test]
fn the_index_of_another_journal_is_not_believed() {
    check_mark(|mark| mark.incarnation = Incarnation(8));
    check_mark(|mark| mark.shard = ShardId(4));
}

#[test]
fn an_index_beyond_the_journal_or_before_it_is_not_believed() {
    check_mark(|mark| mark.flushed_through.0 += 1_000);
    check_mark(|mark| mark.flushed_through.0 = 1);
}

#[test]
fn a_few_of_those_set_aside_are_kept() {
    let mut world = world();
    for _ in 0..4 {
        drop(world.index.store.load_full().unwrap().raw_rows().remove(group(1).0.to_be_bytes()).unwrap().unwrap());
        world.restart();
        world.flush(0);
    }
    assert_eq!(set_aside(&world), ["index.doubtful-3", "index.doubtful-4"]);
    world.check();
}

/// How a start with this directory ends, when memory is full at the first record and this was done before.
fn end_of_start(directory: PathBuf, sabotage: impl FnOnce(&Index)) -> Result<Verdict, Unwritable> {
    let mut world = World::new();
    world.publish(0, 3);
    let index = Index::open(IndexOptions { directory: Some(directory), shard: SHARD, memory_bytes_max: 0 });
    let mut follower = &index;
    follower.begin(Begin { incarnation: Incarnation(7), first: Position(1) });
    sabotage(&index);
    // So many marks that memory is full.
    for up_to in (1..).map(Seq).take_while(|_| index.held() <= index.high_water()) {
        let (time, position) = (Timestamp(1), Position(1));
        index.marks.append(&ReadMark { conversation: group(0), user: UserId(1), up_to, time, position });
    }
    let flow = world.reader.replay(Position(0), Position(world.head()), |batch| {
        for entry in batch.entries() {
            follower.follow(entry.position, &Record::decode(entry.private, entry.frame).unwrap());
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(flow.unwrap().is_continue());
    follower.end(world.shard())
}

fn fail(index: &Index) {
    index.store.store(Some(Arc::new(Store::failing())));
}

#[test]
fn an_index_that_cannot_be_written_at_the_start_is_an_error_that_says_where_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "no directory").unwrap();
    let check = |directory: PathBuf, sabotage: fn(&Index)| {
        let error = end_of_start(directory.clone(), sabotage).unwrap_err().to_string();
        assert!(error.contains(&directory.display().to_string()) && error.contains("room"), "{error}");
    };
    check(file.join("index"), |_| {});
    // What lies in its place cannot be set aside.
    fs::create_dir(directory.path().join(format!("file.doubtful-{}", u64::MAX))).unwrap();
    check(file, |_| {});
    check(directory.path().join("index"), fail);
    assert_eq!(end_of_start(directory.path().join("good"), |_| {}).unwrap(), Verdict::InStep);
}

#[test]
fn an_older_index_that_fails_at_the_start_may_be_damaged_and_is_built_anew() {
    let directory = tempfile::tempdir().unwrap();
    let older = |index: &Index| {
        index.lock().is_fresh = false;
        fail(index);
    };
    assert_eq!(end_of_start(directory.path().join("index"), older).unwrap(), Verdict::Again);
    let failed = |kind: std::io::ErrorKind| Doubt::Store(sled::Error::Io(kind.into())).is_of_disk();
    assert!(failed(std::io::ErrorKind::StorageFull) && failed(std::io::ErrorKind::ReadOnlyFilesystem));
    assert!(!failed(std::io::ErrorKind::InvalidData) && !Doubt::Unmarked.is_of_disk());
}

#[test]
fn a_disk_that_takes_nothing_gives_up_nothing() {
    let mut world = world();
    let kept_from = world.kept_from();
    for _ in 0..2 {
        world.publish(3, 50);
        let store = world.index.store.load_full().unwrap();
        // Some of a flush that did not end: its mark is not there.
        write_out(&world.index.table, &store, Position(world.head() - 20)).unwrap();
        world.index.doubt(&store, &Doubt::Store(sled::Error::Io(std::io::ErrorKind::StorageFull.into())));
        drop(store);
        assert!(world.index.is_rebuilding());
        world.publish(0, 5);
        world.index.maintain(&world.reader);
        assert!(!world.index.is_rebuilding());
        assert_eq!(set_aside(&world), Vec::<String>::new(), "the files are as good as before");
        assert_eq!(world.index.stats().rebuilds, 0);
        assert!(world.kept_from() >= kept_from, "nothing was read from the journal");
        world.check();
        world.flush(0);
        world.check();
    }
    world.restart();
    world.check();
}

#[test]
fn floors_that_rose_on_a_full_disk_come_there_when_it_has_room() {
    let mut world = world();
    world.flush(0);
    let on_disk = |world: &World| {
        let store = world.index.store.load_full().unwrap();
        (store.row(group(3)).unwrap().unwrap().floor, store.raw_blocks().len())
    };
    let before = on_disk(&world);
    assert_eq!(world.index.truncate(Position(world.head() + 1), false), Err(TruncateError::Unwritten), "not flushed");
    for keep_from in [world.head() * 2 / 3, world.head() * 4 / 5] {
        world.truncate_with(Position(keep_from), true, false).unwrap();
        world.check();
        assert_eq!(on_disk(&world), before, "nothing is written");
    }
    // A flush, and the process dies before it comes to the floors.
    world.publish(0, 5);
    let store = world.index.store.load_full().unwrap();
    let mut work = world.index.lock();
    world.index.flush(&mut work, &store).unwrap();
    drop((work, store));
    world.restart();
    world.check();
    assert_eq!(on_disk(&world).0, before.0);
    world.flush(0);
    assert_eq!(on_disk(&world).0, world.index.floor(group(3)));
    assert!(on_disk(&world).1 < before.1, "blocks below the floors are gone");
    world.check();
    assert_eq!((set_aside(&world), world.index.stats().rebuilds), (Vec::new(), 0));
    world.restart();
    assert!(world.index.lock().floors_behind.is_none());
    world.check();
}

#[test]
fn a_rebuild_that_cannot_end_leaves_what_was_set_aside_and_ends_when_it_can() {
    let world = world();
    let segment = format!("{:020}.journal", world.kept_from());
    let contents = world.storage.contents(&segment);
    // A file that cannot be opened is another matter than one that is damaged.
    crate::journal::Storage::remove(&world.storage, &segment).unwrap();
    let store = world.index.store.load_full().unwrap();
    world.index.doubt(&store, &Doubt::Row(group(1)));
    drop(store);
    for _ in 0..4 {
        world.index.maintain(&world.reader);
        assert!(world.index.is_rebuilding());
        assert_eq!(set_aside(&world), ["index.doubtful-1"], "the one that was in doubt");
    }
    world.storage.put(&segment, contents);
    world.index.maintain(&world.reader);
    assert!(!world.index.is_rebuilding());
    world.check();
}

#[test]
fn a_start_that_brings_messages_to_disk_leaves_the_floors_to_its_end() {
    let mut world = world();
    world.flush(0);
    world.truncate_with(Position(world.head() * 3 / 4), true, false).unwrap();
    world.publish(0, 20);
    let begin = Begin { incarnation: Incarnation(7), first: Position(world.kept_from()) };
    world.restart_after(|directory| {
        // It wants memory while it replays, and ends before the end.
        let directory = Some(directory.to_owned());
        let index = Index::open(IndexOptions { directory, shard: SHARD, memory_bytes_max: 0 });
        (&index).begin(begin);
        index.tidy(&mut index.lock()).unwrap();
    });
    world.check();
    world.flush(0);
    world.restart();
    world.check();
}
