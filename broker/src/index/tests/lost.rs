//! A journal that is damaged where the index has to be built anew of it: what can be read is found as ever, and what cannot has a place
//! that readers are refused.

use proptest::prelude::*;

use super::damage::set_aside;
use super::world::{GROUPS, World, group};
use super::*;
use crate::index::doubt::Doubt;
use crate::index::keep::write_out;

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
        let known = (set_aside(&world), world.lost());
        world.restart();
        prop_assert_eq!((set_aside(&world), world.lost()), known);
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
    // One batch with all messages of a group, and in the next segments the others.
    let first = Position(world.head() + 1);
    world.publish(0, 3);
    for nth in 1..GROUPS {
        world.publish(nth, 200);
    }
    world.damage_batch(first);
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

/// Two conversations with two messages each, the first ones at these positions, and others behind them. Before them an index was flushed.
fn side_by_side() -> (World, Position, Position) {
    let mut world = World::new();
    world.publish(2, 1);
    world.flush(usize::MAX);
    let (first, second) = (Position(world.head() + 1), Position(world.head() + 2));
    for nth in [0, 1, 0, 1] {
        world.publish(nth, 1);
    }
    for nth in 2..GROUPS {
        world.publish(nth, 200);
    }
    (world, first, second)
}

#[test]
fn conversations_may_share_a_lost_position() {
    let (mut world, first, second) = side_by_side();
    world.damage_batch(first);
    world.damage_batch(second);
    meet(&mut world, Fate::Gone);
    for nth in [0, 1] {
        let mut places = Vec::new();
        world.index.whole().places(group(nth), Seq(0), 1, &mut places).unwrap();
        assert_eq!(places[0].position, second, "whose the first one was is not known");
    }
}

#[test]
fn what_heals_while_it_is_served_does_not_keep_a_rebuild_from_its_end() {
    let (mut world, first, second) = side_by_side();
    world.damage_batch(first);
    world.damage_batch(second);
    let truth = world.messages.clone();
    meet(&mut world, Fate::Gone);
    world.flush(0);
    world.damage_batch(second);
    meet(&mut world, Fate::Doubted);
    assert!(world.lost().contains(second), "memory has another message there");
    // The next start has all that can be read.
    world.messages = truth;
    meet(&mut world, Fate::Behind);
    assert!(!world.lost().contains(second) && world.lost().contains(first));
}

#[test]
fn a_start_that_meets_damage_late_does_not_go_through_all_before_it_twice() {
    let mut world = World::new();
    for _ in 0..20 {
        world.publish(0, 1_000);
    }
    // Half as much again as memory may have.
    for up_to in 1..=20_000 {
        world.mark(0, 1, up_to);
    }
    let late = Position(world.head() + 1);
    world.publish(1, 1);
    for nth in 2..GROUPS {
        world.publish(nth, 300);
    }
    world.damage_batch(late);
    meet(&mut world, Fate::Gone);
    assert_eq!(world.lost().count(), 1);
    let flushes = world.index.stats().flushes;
    assert!((1..20).contains(&flushes), "{flushes}");
}

#[test]
fn a_rebuild_while_serving_begins_at_the_floors_that_memory_knows() {
    let mut world = world(30);
    world.flush(0);
    world.truncate(Position(world.head() / 2), true).unwrap();
    // The first segment that is left, whole, and with it what lies above the floors.
    let first = world.kept_from();
    for position in first..first + 60 {
        world.damage_batch(Position(position));
    }
    let floors = (0..GROUPS).map(|nth| world.index.floor(group(nth))).collect::<Vec<_>>();
    meet(&mut world, Fate::Doubted);
    assert!(world.lost().count() > 20);
    assert!(floors.into_iter().eq((0..GROUPS).map(|nth| world.index.floor(group(nth)))));
    world.flush(0);
    meet(&mut world, Fate::Behind);
    meet(&mut world, Fate::Gone);
}

#[test]
fn a_flush_that_does_not_end_leaves_no_place_that_nobody_knows_to_be_lost() {
    let (mut world, first, second) = side_by_side();
    let truth = world.messages.clone();
    world.damage_batch(first);
    world.damage_batch(second);
    world.restart();
    world.adopt();
    // As a flush does, but for the mark at its end.
    {
        let store = world.index.store.load_full().unwrap();
        world.index.mark_lost(&mut world.index.lock(), &store).unwrap();
        write_out(&world.index.table, &store, Position(world.head())).unwrap();
    }
    // The file is put back.
    world.damage_batch(first);
    world.damage_batch(second);
    world.messages = truth;
    world.restart();
    assert!(world.lost().is_empty());
    world.check();
}
