//! A journal that is damaged where the index has to be built anew of it: what can be read is found as ever, and what cannot has a place
//! that readers are refused.

use proptest::prelude::*;

use super::world::{GROUPS, World, group};
use super::*;
use crate::index::doubt::Doubt;

/// Conversations that take turns, in many batches and segments; each has marks.
fn world(rounds: u64) -> World {
    let mut world = World::new();
    for round in 0..rounds {
        for nth in 0..GROUPS {
            world.publish(nth, 1 + (round * 7 + nth as u64 * 3) % 11);
            if (round + nth as u64).is_multiple_of(3) {
                world.mark(nth, u32::from(round.is_multiple_of(2)), world.published(nth));
            }
        }
    }
    world
}

/// What becomes of the index.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is gone when the broker starts.
    Gone,
    /// It ends where its last flush did.
    Behind,
    /// It is found damaged while it serves.
    Doubted,
}

fn meet(world: &mut World, fate: Fate) {
    match fate {
        Fate::Gone => world.restart_after(|directory| std::fs::remove_dir_all(directory).unwrap()),
        Fate::Behind => world.restart(),
        Fate::Doubted => {
            let store = world.index.store.load_full().unwrap();
            world.index.doubt(&store, &Doubt::Row(group(1)));
            drop(store);
            world.index.maintain(&world.reader);
            assert!(!world.index.is_rebuilding());
        }
    }
    world.adopt();
    world.check();
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![Just(Fate::Gone), Just(Fate::Behind), Just(Fate::Doubted)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_gone_around_and_named(
        flushed in 0..12u64,
        truncate in prop::option::of(0..60u64),
        damages in prop::collection::vec((0..1_000usize, 0..1_000usize), 1..6),
        fates in prop::collection::vec(fate(), 1..4),
    ) {
        let mut world = world(flushed);
        world.flush(0);
        if let Some(share) = truncate {
            world.truncate(Position(world.head() * share / 100), true).unwrap();
        }
        for nth in 0..GROUPS {
            world.publish(nth, 40);
            world.mark(nth, 1, world.published(nth) - 3);
        }
        for nth in (0..GROUPS).rev() {
            world.publish(nth, 60);
        }
        damages.into_iter().for_each(|place| world.damage(place));
        for fate in fates {
            meet(&mut world, fate);
            world.publish(2, 3);
            world.mark(2, 0, world.published(2));
            world.check();
            world.flush(0);
            world.check();
        }
        // All of it is written, and believed by the next start.
        let rebuilds = world.index.stats().rebuilds;
        let lost = world.lost();
        world.restart();
        prop_assert_eq!((world.index.stats().rebuilds.min(rebuilds), world.lost()), (0, lost));
        world.check();
    }
}

#[test]
fn retention_takes_what_is_lost_like_anything_else() {
    let mut world = world(40);
    for segment in [0, 300, 700, 900] {
        world.damage((segment, 400));
    }
    meet(&mut world, Fate::Gone);
    let lost = world.lost();
    assert_eq!(world.index.stats().lost, lost.count());
    assert!(lost.runs().len() >= 2, "{lost:?}");
    let (_, first_end) = lost.runs()[0];
    world.flush(0);
    for keep_from in [first_end.0 / 2, first_end.0, lost.runs()[1].0.0] {
        world.truncate(Position(keep_from), true).unwrap();
        world.check();
    }
    assert!(world.kept_from() > first_end.0);
    assert!(world.lost().runs()[0].0 > first_end, "what is gone is not lost any more");
    world.flush(0);
    world.restart();
    world.check();
}

#[test]
fn the_first_and_the_last_messages_of_a_conversation_are_named_when_they_are_lost() {
    let mut world = World::new();
    // One batch with the first and the last message of a group, and in the next segments the others.
    world.publish(0, 3);
    for nth in 1..GROUPS {
        world.publish(nth, 200);
    }
    let name = format!("{:020}.journal", 1);
    let contents = world.storage.contents(&name);
    let batches: Vec<_> =
        (0..contents.len() - 4).filter(|at| contents[*at..*at + 4] == crate::journal::format::BATCH_MAGIC).collect();
    // The second batch: its header, so that none of it can be read.
    world.storage.flip(&name, batches[1] + 17, 1);
    meet(&mut world, Fate::Gone);
    let mut places = Vec::new();
    world.index.whole().places(group(0), Seq(0), 9, &mut places).unwrap();
    assert_eq!(places.len(), 3);
    assert!(places.iter().all(|place| world.lost().contains(place.position)));
    assert_eq!(world.index.last(group(0)).0, Seq(3));
    // What comes is numbered on.
    world.publish(0, 2);
    world.check();
    meet(&mut world, Fate::Doubted);
    meet(&mut world, Fate::Behind);
}
