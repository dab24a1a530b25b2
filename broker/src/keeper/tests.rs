//! The keeper by hand, turn for turn, on simulated storage.

use std::sync::Mutex;

use carillon_protocol::ids::Incarnation;
use crossbeam::channel::{Sender, bounded};
use proptest::prelude::*;

use super::*;
use crate::clock::SystemClock;
use crate::index::LookupError;
use crate::journal::{Loss, MemoryStorage, ReadError, SegmentFile};
use crate::store::tests::{Diary, Life, SHARD, state};

/// Remembers what it was told, and whether the journal still had it then.
struct Told {
    storage: MemoryStorage,
    through: Mutex<Vec<(Position, usize)>>,
    refuse: bool,
}

impl Floor for Told {
    fn truncate(&self, through: Position, _: bool) -> Result<(), TruncateError> {
        if self.refuse {
            return Err(LookupError::Rebuilding.into());
        }
        self.through.lock().unwrap().push((through, segments(&self.storage)));
        Ok(())
    }
}

fn segments(storage: &MemoryStorage) -> usize {
    storage.names().iter().filter(|name| name.ends_with(".journal")).count()
}

/// Takes a snapshot as often as it is told to, and keeps two segments' worth of bytes.
fn options() -> KeeperOptions {
    KeeperOptions {
        snapshot_journal_bytes: u64::MAX,
        snapshot_interval: Duration::from_secs(u64::MAX / 2_000),
        snapshot_bytes_a_second: u64::MAX,
        retention: Retention { age: None, bytes_max: Some(2 * crate::store::tests::SEGMENT_BYTES) },
    }
}

fn keeper(storage: &MemoryStorage, life: &Life, refuse: bool) -> (Keeper, Arc<Told>, Sender<()>) {
    let told = Arc::new(Told { storage: storage.clone(), through: Mutex::default(), refuse });
    let parts = Parts {
        shard: SHARD,
        storage: Arc::new(storage.clone()),
        reader: life.store.opened.reader.clone(),
        upkeep: life.store.opened.upkeep.clone(),
        floor: told.clone(),
        clock: Arc::new(SystemClock),
        options: options(),
        uncovered_bytes: life.store.uncovered_bytes,
    };
    let (running, stop) = bounded(0);
    (Keeper::new(parts, stop), told, running)
}

fn life(storage: &MemoryStorage) -> Life {
    Life::open(storage, &mut Diary::default()).unwrap()
}

#[test]
fn a_snapshot_is_the_state_that_the_sequencer_has() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &life, false);
    for steps in [1, 1, 7, 20] {
        life.steps(steps);
        let position = keeper.take().unwrap();
        assert_eq!(position, life.store.shard.head());
        let (_, shard) = snapshot::load(&storage, SHARD, Incarnation(0x77), position).unwrap();
        assert_eq!(state(&shard), life.state());
    }
    assert_eq!(snapshot::list(&storage).unwrap().len(), 2);
    assert_eq!(keeper.generations, snapshot::list(&storage).unwrap());
}

#[test]
fn a_snapshot_goes_on_from_the_one_before() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &life, false);
    life.steps(20);
    keeper.take().unwrap();
    life.steps(5);
    // The first segment is damaged: only who begins anew would notice.
    let first = storage.names().into_iter().find(|name| name.ends_with(".journal")).unwrap();
    storage.flip(&first, 4096 + 20, 1);
    let newest = keeper.take().unwrap();
    assert_eq!(newest, life.store.shard.head());
    storage.flip(&snapshot::file_name(newest), 70, 1);
    life.steps(1);
    let newest = keeper.take().unwrap();
    let (_, shard) = snapshot::load(&storage, SHARD, Incarnation(0x77), newest).unwrap();
    assert_eq!(state(&shard), life.state(), "from the older generation");
    for position in snapshot::list(&storage).unwrap() {
        storage.flip(&snapshot::file_name(position), 70, 1);
    }
    assert!(matches!(keeper.take(), Err(KeepError::Read(ReadError::Corrupt { .. }))), "from the begin, and damaged");
}

#[test]
fn retention_by_age_goes_on_behind_damage() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &life, false);
    keeper.parts.options.retention = Retention { age: Some(Duration::from_secs(1)), bytes_max: None };
    life.steps(20);
    keeper.take().unwrap();
    life.steps(5);
    keeper.take().unwrap();
    let names: Vec<_> = storage.names().into_iter().filter(|name| name.ends_with(".journal")).collect();
    assert!(names.len() > 4);
    // The first batch of each but the last, so that no segment's first record can be read.
    for name in &names[..names.len() - 1] {
        storage.flip(name, 4096 + 17, 1);
    }
    let before = segments(&storage);
    keeper.retain().unwrap();
    assert!(segments(&storage) < before - 1, "its records are of 1970");
}

#[test]
fn a_snapshot_is_due_by_bytes_and_by_time() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &life, false);
    keeper.examine().unwrap();
    assert!(!keeper.is_due().unwrap(), "nothing is there");
    life.steps(9);
    assert!(!keeper.is_due().unwrap());
    keeper.parts.options.snapshot_interval = Duration::from_secs(60);
    assert!(keeper.is_due().unwrap(), "its records are of 1970");
    keeper.take().unwrap();
    assert!(!keeper.is_due().unwrap());
    life.steps(1);
    assert!(!keeper.is_due().unwrap(), "the newest is of now");
    keeper.newest_time = Timestamp(keeper.parts.clock.wall().0 - 60_000);
    assert!(keeper.is_due().unwrap());
    keeper.newest_time = keeper.parts.clock.wall();
    keeper.parts.options.snapshot_journal_bytes = 1_000;
    life.steps(2);
    assert!(!keeper.is_due().unwrap());
    life.steps(8);
    assert!(keeper.is_due().unwrap());
    keeper.take().unwrap();
    assert!(!keeper.is_due().unwrap());
}

#[test]
fn what_a_restart_replays_counts_for_the_next_snapshot() {
    let storage = MemoryStorage::new();
    let mut first = life(&storage);
    first.steps(20);
    let again = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &again, false);
    keeper.parts.options.snapshot_journal_bytes = 2_000;
    assert!(keeper.is_due().unwrap());
}

/// A keeper whose next snapshot is due, or is late, and that may read a byte a second.
fn late_keeper(storage: &MemoryStorage, life: &mut Life, late: bool) -> (Keeper, Sender<()>) {
    let (mut keeper, _, running) = keeper(storage, life, false);
    life.steps(30);
    let bytes = keeper.uncovered.bytes();
    keeper.parts.options.snapshot_journal_bytes = if late { bytes / 2 } else { bytes / 2 + 1 };
    keeper.parts.options.snapshot_bytes_a_second = 1;
    assert!(keeper.is_due().unwrap());
    (keeper, running)
}

#[test]
fn a_snapshot_rests_unless_retention_waits_for_it() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let rest = |keeper: &Keeper| keeper.due_rest(&mut keeper.pace(), 60);
    let (keeper, _running) = late_keeper(&storage, &mut life, false);
    assert!(rest(&keeper) > Duration::from_secs(30));
    let (mut keeper, _running) = late_keeper(&storage, &mut life, true);
    let kept = std::mem::take(&mut keeper.parts.options.retention);
    assert!(rest(&keeper) > Duration::from_secs(30), "nothing is to leave");
    keeper.parts.options.retention = kept;
    assert_eq!(rest(&keeper), Duration::ZERO);
    // At a byte a second it would take hours.
    keeper.take().unwrap();
    assert_eq!(keeper.uncovered.bytes(), 0);
    assert!(!keeper.is_late());
}

#[cfg(target_os = "linux")]
#[test]
fn a_snapshot_gives_way_unless_retention_waits_for_it() {
    let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
    for late in [false, true] {
        let storage = MemoryStorage::new();
        let mut life = life(&storage);
        let (mut keeper, _running) = late_keeper(&storage, &mut life, late);
        let its = keeper.aside(|_| Ok(nice())).unwrap();
        assert_eq!(its > nice(), !late, "{its} beside {}", nice());
    }
}

#[test]
fn what_fails_aside_fails() {
    let storage = MemoryStorage::new();
    let (mut keeper, _, _running) = keeper(&storage, &life(&storage), false);
    assert!(matches!(keeper.aside(|_| Err::<(), _>(KeepError::Stopped)), Err(KeepError::Stopped)));
}

#[test]
fn segments_leave_when_two_snapshots_cover_them_and_the_index_knows() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, told, _running) = keeper(&storage, &life, false);
    life.steps(30);
    assert_eq!(keeper.retain().unwrap(), 0, "no snapshot");
    let older = keeper.take().unwrap();
    assert_eq!(keeper.retain().unwrap(), 0, "one snapshot");
    life.steps(30);
    keeper.take().unwrap();
    let before = segments(&storage);
    let removed = keeper.retain().unwrap();
    assert!(removed > 2 && segments(&storage) == before - removed);
    let through = Position(life.store.opened.reader.first().0 - 1);
    assert_eq!(told.through.lock().unwrap()[..], [(through, before)], "told before it happens");
    assert!(through <= older);
    assert!(matches!(life.store.opened.reader.read(&[through], 1), Err(ReadError::Truncated { .. })));
    // A restart from the older generation alone.
    storage.flip(&snapshot::file_name(*keeper.generations.last().unwrap()), 70, 1);
    let mut diary = Diary::default();
    let again = Life::open(&storage, &mut diary).unwrap();
    assert_eq!((again.state(), again.store.snapshot), (life.state(), older));
    assert_eq!(diary.begun[0].first, through.next());
}

#[test]
fn an_index_that_needs_the_journal_keeps_it() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &life, true);
    for _ in 0..2 {
        life.steps(30);
        keeper.take().unwrap();
    }
    let before = segments(&storage);
    assert!(matches!(keeper.retain(), Err(KeepError::Floor(_))));
    assert_eq!(segments(&storage), before);
}

#[test]
fn a_keeper_that_is_stopped_leaves_its_work() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    life.steps(30);
    let (mut keeper, _, running) = keeper(&storage, &life, false);
    keeper.parts.options.snapshot_bytes_a_second = 1;
    drop(running);
    assert!(matches!(keeper.take(), Err(KeepError::Stopped)));
    storage.restart(Loss::Nothing);
    assert_eq!(snapshot::list(&storage).unwrap(), []);
    assert_eq!(self::life(&storage).state(), life.state());
}

/// Serves, takes snapshots, truncates; ends at the first error.
fn work(storage: &MemoryStorage, served: &mut Vec<Vec<u8>>) -> Result<(), Box<dyn std::error::Error>> {
    let mut life = Life::open(storage, &mut Diary::default())?;
    let (mut keeper, _, _running) = keeper(storage, &life, false);
    keeper.examine()?;
    for steps in [9, 6, 5] {
        for _ in 0..steps {
            let done = life.step();
            served.push(life.state());
            done?;
        }
        life.store.opened.preparer.prepare()?;
        keeper.take()?;
        keeper.retain()?;
    }
    Ok(())
}

#[test]
fn a_crash_at_any_call_leaves_what_opens_to_the_same_state() {
    let mut crashes = 0;
    for loss in [Loss::Nothing, Loss::Everything, Loss::Random(1), Loss::Random(2), Loss::Random(3), Loss::Random(4)] {
        for call in 1.. {
            let scenario = format!("crash at call {call}, then {loss:?}");
            let storage = MemoryStorage::new();
            let mut served = vec![state(&Shard::new(SHARD))];
            storage.crash_at(call);
            if work(&storage, &mut served).is_ok() {
                break;
            }
            assert!(storage.crashed(), "{scenario}: failed without a crash");
            crashes += 1;
            storage.restart(loss);
            // The last step was in doubt, if it was not acknowledged.
            let newest = &served[served.len().saturating_sub(2)..];
            let found =
                Life::open(&storage, &mut Diary::default()).unwrap_or_else(|error| panic!("{scenario}: {error}"));
            assert!(newest.contains(&found.state()), "{scenario}");
            let found = found.state();
            storage.restart(Loss::Everything);
            let again =
                Life::open(&storage, &mut Diary::default()).unwrap_or_else(|error| panic!("{scenario}: {error}"));
            assert_eq!(again.state(), found, "{scenario}: what was served is durable");
            work(&storage, &mut served).unwrap_or_else(|error| panic!("{scenario}, second life: {error}"));
            assert!(snapshot::list(&storage).unwrap().len() == 2, "{scenario}");
        }
    }
    assert!(crashes > 500, "{crashes} crashes");
}

/// A keeper that has two generations, the newer perhaps damaged, and more to cover; its turn does all that a turn can do.
fn with_all_to_do(storage: &MemoryStorage, damaged: bool) -> (Life, Keeper, Sender<()>) {
    let mut life = life(storage);
    let (mut keeper, _, running) = keeper(storage, &life, false);
    keeper.parts.options.snapshot_journal_bytes = 1;
    for _ in 0..2 {
        life.steps(30);
        keeper.turn().unwrap();
    }
    life.steps(30);
    if damaged {
        storage.flip(&snapshot::file_name(keeper.generations[1]), 70, 1);
    }
    (life, keeper, running)
}

#[test]
fn a_call_that_fails_is_made_up_for_in_the_next_turn() {
    let mut failed = 0;
    for (damaged, call) in [false, true].into_iter().flat_map(|damaged| (1..120).map(move |call| (damaged, call))) {
        let storage = MemoryStorage::new();
        let (life, mut keeper, _running) = with_all_to_do(&storage, damaged);
        storage.fail_at(storage.calls() + call, io::ErrorKind::Other);
        let turned = keeper.turn();
        failed += u32::from(turned.is_err());
        storage.calm();
        let scenario = format!("call {call} failed: {turned:?}, damaged: {damaged}");
        keeper.turn().unwrap_or_else(|error| panic!("{scenario}, and then {error}"));
        keeper.take().unwrap_or_else(|error| panic!("{scenario}, and then {error}"));
        let kept = snapshot::list(&storage).unwrap();
        assert_eq!((kept.len(), &kept), (2, &keeper.generations), "{scenario}");
        assert_eq!(keeper.uncovered.bytes(), 0, "{scenario}");
        storage.restart(Loss::Everything);
        let again = Life::open(&storage, &mut Diary::default()).unwrap();
        assert_eq!((again.state(), again.store.snapshot), (life.state(), kept[1]), "{scenario}");
    }
    assert!((80..240).contains(&failed), "{failed} turns failed: all of the calls, and not only of the calls");
}

#[test]
fn a_call_of_the_first_look_that_fails_is_made_up_for_too() {
    let storage = MemoryStorage::new();
    let (mut life, mut first, _running) = with_all_to_do(&storage, false);
    first.turn().unwrap();
    life.steps(30);
    let retained = first.retain().unwrap() + segments(&storage);
    assert!(life.store.opened.reader.first() > Position(1), "{retained} segments, and no way back to the begin");
    for call in 1..60 {
        let (mut keeper, _, _running) = keeper(&storage, &life, false);
        storage.fail_at(storage.calls() + call, io::ErrorKind::Other);
        let turned = keeper.turn();
        storage.calm();
        for nth in 0..2 {
            let again = keeper.turn();
            assert!(nth == 0 || again.is_ok(), "call {call} failed: {turned:?}, and then {again:?}");
        }
        assert_eq!(keeper.generations, snapshot::list(&storage).unwrap(), "call {call} failed: {turned:?}");
    }
}

#[test]
fn snapshots_that_somebody_takes_away_are_taken_anew() {
    let storage = MemoryStorage::new();
    let (life, mut keeper, _running) = with_all_to_do(&storage, false);
    storage.remove(&snapshot::file_name(keeper.generations[1])).unwrap();
    assert!(keeper.turn().is_err());
    keeper.turn().unwrap();
    assert_eq!(keeper.generations.last(), Some(&life.store.shard.head()));
    assert_eq!(keeper.generations, snapshot::list(&storage).unwrap());
}

#[test]
fn a_damaged_generation_is_found_at_the_start_and_does_not_cover() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut first, _, _running) = keeper(&storage, &life, false);
    for _ in 0..2 {
        life.steps(30);
        first.take().unwrap();
    }
    let newest = first.generations[1];
    storage.flip(&snapshot::file_name(first.generations[0]), 70, 1);
    let (mut keeper, _, _running) = keeper(&storage, &life, false);
    keeper.examine().unwrap();
    assert_eq!(keeper.generations, [newest]);
    assert_eq!(keeper.retain().unwrap(), 0);
    assert_eq!(snapshot::list(&storage).unwrap(), [newest]);
}

fn check(retention: Retention, sizes: &[u64], times: &[u64], covered: u64, expected: Option<u64>) {
    let segments: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(nth, bytes)| SegmentFile { first: Position(nth as u64 * 10 + 1), bytes: *bytes })
        .collect();
    let begins = |first: Position| -> Result<_, std::convert::Infallible> {
        Ok(usize::try_from(first.0 / 10).ok().and_then(|nth| times.get(nth)).map(|time| Timestamp(*time)))
    };
    let Ok(through) = retention.through(&segments, Position(covered), Timestamp(100_000), begins);
    assert_eq!(through, expected.map(Position), "{retention:?} {sizes:?} {times:?} covered to {covered}");
}

#[test]
fn whole_segments_past_retention_and_covered_may_go() {
    let old = |seconds| Retention { age: Some(Duration::from_secs(seconds)), bytes_max: None };
    let large = |bytes_max| Retention { age: None, bytes_max: Some(bytes_max) };
    let times = [10_000, 20_000, 30_000, 40_000];
    let sizes = [5, 5, 5, 5];
    check(Retention::default(), &sizes, &times, 100, None);
    // The first segment's records are at most as young as the second one's first.
    check(old(80), &sizes, &times, 100, None);
    check(old(79), &sizes, &times, 100, Some(10));
    check(old(69), &sizes, &times, 100, Some(20));
    check(old(0), &sizes, &times, 100, Some(30));
    check(old(0), &sizes, &times, 29, Some(20));
    check(old(0), &sizes, &times, 9, None);
    check(old(0), &sizes, &times[..3], 100, Some(20));
    check(large(20), &sizes, &times, 100, None);
    check(large(19), &sizes, &times, 100, Some(10));
    check(large(10), &sizes, &times, 100, Some(20));
    check(large(0), &sizes, &times, 100, Some(30));
    check(large(0), &sizes, &times, 10, Some(10));
    let either = Retention { age: Some(Duration::from_secs(79)), bytes_max: Some(10) };
    check(either, &sizes, &times, 100, Some(20));
    check(large(0), &[5], &times, 100, None);
    check(large(0), &[], &times, 100, None);
}

proptest! {
    #[test]
    fn retention_keeps_what_it_should(
        sizes in prop::collection::vec(1..100_u64, 0..12),
        age_s in prop::option::of(0..120_u64),
        bytes_max in prop::option::of(0..800_u64),
        covered in 0..150_u64,
    ) {
        let firsts: Vec<_> = (0..sizes.len() as u64).map(|nth| nth * 10 + 1).collect();
        let segments: Vec<_> = firsts.iter().zip(&sizes).map(|(first, bytes)| SegmentFile { first: Position(*first), bytes: *bytes }).collect();
        let retention = Retention { age: age_s.map(Duration::from_secs), bytes_max };
        let begins = |first: Position| -> Result<_, std::convert::Infallible> { Ok(Some(Timestamp(first.0 * 1_000))) };
        let now = Timestamp(120_000);
        let Ok(through) = retention.through(&segments, Position(covered), now, begins);
        let gone = usize::try_from(through.map_or(0, |through| through.0 / 10)).unwrap();
        prop_assert!(gone < sizes.len().max(1));
        prop_assert!(through.is_none_or(|through| through.0 <= covered));
        let goes = |nth: usize| {
            let old = age_s.is_some_and(|age| 120 - firsts[nth + 1] > age);
            let large = bytes_max.is_some_and(|max| sizes[nth..].iter().sum::<u64>() > max);
            (old || large) && firsts[nth + 1] - 1 <= covered
        };
        prop_assert!((0..gone).all(goes));
        if gone + 1 < sizes.len() {
            prop_assert!(!goes(gone));
        }
    }
}

#[test]
fn a_snapshot_that_does_not_fit_is_not_begun_and_one_that_fails_takes_no_room() {
    let storage = MemoryStorage::new();
    let mut life = life(&storage);
    let (mut keeper, _, _running) = keeper(&storage, &life, false);
    life.steps(30);
    let full = storage.used_bytes();
    storage.set_capacity(Some(full + 100));
    assert!(matches!(keeper.take(), Err(KeepError::NoRoom { free: 100, .. })));
    assert_eq!(storage.used_bytes(), full);
    // Its header goes beyond, which nobody counted.
    let bytes = state(&life.store.shard).len() as u64;
    storage.set_capacity(Some(full + bytes + 10));
    assert!(matches!(keeper.take(), Err(KeepError::Files(_))));
    assert_eq!(storage.used_bytes(), full);
    storage.set_capacity(Some(full + bytes + 1_000));
    keeper.take().unwrap();
    storage.set_capacity(None);
    life.steps(5);
    let full = storage.used_bytes();
    storage.set_capacity(Some(full));
    let calls = storage.calls();
    assert!(matches!(keeper.take(), Err(KeepError::NoRoom { free: 0, .. })));
    assert!(storage.calls() < calls + 5, "it reads neither journal nor snapshot to find out");
}
