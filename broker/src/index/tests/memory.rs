//! Memory is bounded, by counting.

use std::thread;

use carillon_protocol::ids::Incarnation;
use tempfile::TempDir;

use super::world::World;
use super::*;
use crate::store::{Begin, Follow};

fn open(directory: &TempDir) -> Index {
    let directory = Some(directory.path().join("index"));
    let index = Index::open(IndexOptions { directory, shard: ShardId(0), memory_bytes_max: 0 });
    (&index).begin(Begin { incarnation: Incarnation(1), first: Position(1) });
    index
}

/// Appends to so many conversations in turn. `tidy` is what the writer does.
fn fill(index: &Index, conversations: u64, messages: u64, mut tidy: impl FnMut()) {
    for position in 1..=messages {
        let (seq, nth) = ((position - 1) / conversations + 1, (position - 1) % conversations);
        index.append(ConversationId(nth + 1), Seq(seq), Position(position), UserId(u32::from(position % 500 > 200)));
        if index.is_due() {
            tidy();
        }
        assert!(index.table.messages_bytes() <= index.room(), "after {position} messages");
    }
}

fn check_bound(conversations: u64, messages: u64) -> Stats {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    fill(&index, conversations, messages, || index.tidy(&mut index.lock()).unwrap());
    let stats = index.stats();
    assert!(stats.flushes > 0);
    assert_eq!((stats.over_budget, stats.rebuilding), (0, false));
    let (mut first, mut positions) = (Vec::new(), Vec::new());
    index.whole().places(ConversationId(1), Seq(1), 1, &mut first).unwrap();
    assert_eq!(first[0].position, Position(1));
    assert_eq!(index.recent().places(ConversationId(1), Seq(1), 1, &mut first), Err(LookupError::OnDisk));
    let all = (Position(0), Position(messages));
    index.whole().positions(ConversationId(2), all.0, all.1, usize::MAX, &mut positions).unwrap();
    assert_eq!(
        positions,
        (2..=messages).step_by(usize::try_from(conversations).unwrap()).map(Position).collect::<Vec<_>>()
    );
    stats
}

#[test]
fn few_conversations_stay_within_the_memory() {
    check_bound(3, 500_000);
}

#[test]
fn many_conversations_stay_within_the_memory_beside_40_bytes_each() {
    let stats = check_bound(20_000, 100_000);
    assert!(stats.conversations_bytes <= (20_000 + 256) * 40);
    assert!(stats.messages_bytes + stats.conversations_bytes < usize::try_from(MEMORY_BYTES_MIN).unwrap());
}

#[test]
fn without_a_disk_that_keeps_up_it_grows_and_says_so() {
    let index = open(&TempDir::new().unwrap());
    let mut bytes = 0;
    for position in 1..=400_000 {
        index.append(ConversationId(1), Seq(position), Position(position), UserId(0));
        if position == 1 {
            // The store is lost, and nothing rebuilds it.
            let store = index.store.load_full().unwrap();
            index.doubt(&store, &Doubt::Unmarked);
        }
        bytes = bytes.max(index.table.messages_bytes());
    }
    assert!(bytes > index.room());
    index.tidy(&mut index.lock()).unwrap();
    index.tidy(&mut index.lock()).unwrap();
    assert_eq!((index.stats().over_budget, index.stats().messages_bytes), (1, bytes));
}

#[test]
fn the_writer_flushes_when_it_is_woken_and_when_it_ends() {
    let mut world = World::new();
    let writer = Writer::start(&world.index, &world.reader).unwrap();
    world.publish(0, 200);
    world.index.unflushed.store(UNFLUSHED_MAX, Ordering::Relaxed);
    world.publish(0, 1);
    while world.index.stats().flushes == 0 {
        thread::yield_now();
    }
    world.publish(1, 1);
    drop(writer);
    assert_eq!(world.index.lock().flushed_through.0, world.head());
    world.check();
}

#[test]
fn the_writer_rebuilds_what_is_doubted() {
    let mut world = World::new();
    world.publish(0, 300);
    world.flush(0);
    let writer = Writer::start(&world.index, &world.reader).unwrap();
    let store = world.index.store.load_full().unwrap();
    world.index.doubt(&store, &Doubt::Unmarked);
    while world.index.is_rebuilding() {
        thread::yield_now();
    }
    world.check();
    drop(writer);
    assert_eq!(world.index.stats().rebuilds, 1);
}
