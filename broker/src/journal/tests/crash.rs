//! A crash, or a failure, at every call of a small workload and of the recovery after it.

use std::io;

use super::*;

const BATCHES: usize = 9;
/// Enough that every kind of tear comes up at most calls; raise it to search harder.
const SEEDS: u64 = 50;

fn losses(seeds: u64) -> impl Iterator<Item = Loss> {
    [Loss::Nothing, Loss::Everything].into_iter().chain((0..seeds).map(Loss::Random))
}

/// Opens, commits and reads, with a spare segment ready for some rolls; ends at the first error.
fn work(storage: &MemoryStorage, expected: &mut Expected, life: u8) -> Result<(), Box<dyn std::error::Error>> {
    let (mut opened, found) = open_all(storage)?;
    expected.settle(found, "at the begin of the workload");
    for number in 0..BATCHES {
        let batch = expected.commit(&mut opened.journal, 1 + number % 3, life)?;
        opened.reader.read(&[batch.first()], 100)?;
        if number % 4 == 2 {
            opened.preparer.prepare()?;
        }
    }
    Ok(())
}

/// Opens after a crash, and once more after a power failure that drops all that open did not make durable.
fn recover(storage: &MemoryStorage, expected: &mut Expected, scenario: &str) -> RecoveryReport {
    let (opened, found) = open_all(storage).unwrap_or_else(|error| panic!("{scenario}: {error:?}"));
    expected.settle(found, scenario);
    storage.restart(Loss::Everything);
    let (_, found) = open_all(storage).unwrap_or_else(|error| panic!("{scenario}, served: {error:?}"));
    assert_eq!(found, expected.acknowledged, "{scenario}: what was served is durable");
    opened.report
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_every_call() {
    let (mut crashes, mut cuts, mut in_doubt_kept) = (0, 0, 0);
    for loss in losses(SEEDS) {
        for call in 1.. {
            let scenario = format!("crash at call {call}, then {loss:?}");
            let storage = MemoryStorage::new();
            let mut expected = Expected::default();
            storage.crash_at(call);
            if work(&storage, &mut expected, 1).is_ok() {
                assert!(!storage.crashed());
                break;
            }
            assert!(storage.crashed(), "call {call}: failed without a crash");
            crashes += 1;
            storage.restart(loss);
            let acknowledged = expected.acknowledged.len();
            let report = recover(&storage, &mut expected, &scenario);
            cuts += u32::from(report.cut.is_some());
            in_doubt_kept += u32::from(expected.acknowledged.len() > acknowledged);
            storage.restart(Loss::Nothing);
            work(&storage, &mut expected, 2).unwrap_or_else(|error| panic!("{scenario}, second life: {error:?}"));
            recover(&storage, &mut expected, &format!("{scenario}, third life"));
            let audit = verify(&storage, &mut |_| {}).unwrap();
            assert!(audit.findings.is_empty(), "{scenario}: {audit:?}");
        }
    }
    assert!(crashes > 1000 && cuts > 100 && in_doubt_kept > 20, "{crashes} crashes, {cuts} cuts, {in_doubt_kept} kept");
}

#[test]
fn a_crash_at_every_call_of_recovery_is_recovered_from() {
    let mut crashes = 0;
    for loss in losses(6) {
        for call in 1.. {
            let first = MemoryStorage::new();
            first.crash_at(call);
            if work(&first, &mut Expected::default(), 1).is_ok() {
                break;
            }
            assert!(first.crashed(), "call {call}: failed without a crash");
            for again in 1.. {
                let scenario = format!("crash at call {call}, then {loss:?}, crash at call {again} of recovery");
                let storage = MemoryStorage::new();
                let mut expected = Expected::default();
                storage.crash_at(call);
                assert!(work(&storage, &mut expected, 1).is_err());
                storage.restart(loss);
                storage.crash_at(storage.calls() + again);
                if open_all(&storage).is_ok() {
                    break;
                }
                assert!(storage.crashed(), "{scenario}: refused without a crash");
                crashes += 1;
                storage.restart(loss);
                recover(&storage, &mut expected, &scenario);
            }
        }
    }
    assert!(crashes > 5000, "{crashes} crashes");
}

#[test]
fn many_lives_of_crashes_lose_nothing() {
    for seed in 0..200 {
        let storage = MemoryStorage::new();
        let mut expected = Expected::default();
        for life in 1..12_u8 {
            let lot = seed * 1000 + u64::from(life);
            storage.crash_at(storage.calls() + 1 + lot.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 90);
            let scenario = format!("seed {seed}, life {life}");
            match open_all(&storage) {
                Ok((mut opened, found)) => {
                    expected.settle(found, &scenario);
                    while expected.commit(&mut opened.journal, 1 + (lot % 3) as usize, life).is_ok() {}
                }
                Err(error) => assert!(storage.crashed(), "{scenario}: {error:?}"),
            }
            storage.restart(if lot % 4 == 0 { Loss::Nothing } else { Loss::Random(lot) });
        }
        recover(&storage, &mut expected, &format!("seed {seed}, at the end"));
        assert!(storage.names().len() < 40 + expected.acknowledged.len());
    }
}

#[test]
fn a_failure_of_any_call_poisons_or_changes_nothing() {
    let mut poisoned = 0;
    for call in 1.. {
        let storage = MemoryStorage::new();
        let mut expected = Expected::default();
        // Not for want of room, which a file that is being made may do without.
        storage.fail_at(call, io::ErrorKind::Other);
        let Ok((mut opened, _)) = open_all(&storage) else {
            storage.restart(Loss::Random(call));
            recover(&storage, &mut expected, &format!("failure at call {call} of the first open"));
            continue;
        };
        let failed = (0..BATCHES).find_map(|number| expected.commit(&mut opened.journal, 1 + number % 3, 1).err());
        let Some(error) = failed else { break };
        assert!(matches!(error, CommitError::Write(_) | CommitError::Sync(_) | CommitError::Roll(_)), "{error:?}");
        let in_doubt = expected.in_doubt.clone();
        let calls = storage.calls();
        let again = expected.commit(&mut opened.journal, 1, 1);
        assert!(matches!(again, Err(CommitError::Poisoned)), "call {call}: {again:?}");
        assert_eq!(storage.calls(), calls, "a poisoned journal touches no file");
        assert_eq!(opened.journal.head(), Position(expected.acknowledged.len() as u64));
        expected.in_doubt = in_doubt;
        storage.restart(if call % 2 == 0 { Loss::Nothing } else { Loss::Random(call) });
        recover(&storage, &mut expected, &format!("failure at call {call}"));
        poisoned += 1;
    }
    assert!(poisoned > BATCHES * 2, "{poisoned} poisoned");
}

#[test]
fn a_batch_that_only_the_page_cache_has_is_made_durable_by_open() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 1);
    storage.fail_at(storage.calls() + 2, io::ErrorKind::Other);
    assert!(matches!(expected.commit(&mut opened.journal, 2, 1), Err(CommitError::Sync(_))));
    storage.restart(Loss::Nothing);
    let (opened, found) = open_all(&storage).unwrap();
    assert_eq!(opened.report.rewritten, Some((Position(2), Position(3))));
    assert_eq!(found.len(), 3);
    storage.restart(Loss::Everything);
    assert_eq!(open_all(&storage).unwrap().1, found);
}

#[test]
fn restarts_do_not_pile_up_files() {
    let storage = MemoryStorage::new();
    let (_, expected) = written(&storage, 5);
    storage.restart(Loss::Nothing);
    open_all(&storage).unwrap();
    let names = storage.names();
    for _ in 0..5 {
        storage.restart(Loss::Nothing);
        assert_eq!(open_all(&storage).unwrap().1, expected.acknowledged);
        assert_eq!(storage.names(), names);
    }
}

#[test]
fn a_durable_copy_has_what_was_synced_and_is_another_directory() {
    let storage = MemoryStorage::new();
    let (mut opened, mut expected) = written(&storage, 4);
    storage.create("unsynced", 8).unwrap();
    let copy = storage.durable_copy();
    assert!(!copy.names().contains(&"unsynced".to_owned()), "its name was not synced");
    let (_, found) = open_all(&copy).unwrap();
    assert_eq!(found, expected.acknowledged, "what was acknowledged is durable");
    expected.commit(&mut opened.journal, 1, 1).unwrap();
    assert!(open_all(&copy).unwrap().1.len() < expected.acknowledged.len(), "the copy knows nothing of it");
}

#[test]
fn a_failure_that_was_set_is_counted_once_it_happens_or_taken_back() {
    let storage = MemoryStorage::new();
    storage.fail_at(1, io::ErrorKind::StorageFull);
    storage.calm();
    storage.list().unwrap();
    assert_eq!(storage.failures(), 0);
    storage.fail_at(2, io::ErrorKind::StorageFull);
    assert_eq!(storage.list().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(storage.failures(), 1);
    storage.list().unwrap();
}
