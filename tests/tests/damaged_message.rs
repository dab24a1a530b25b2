//! Messages whose bytes are damaged on disk, in a part of the journal that a start need not read: they are named, and all others come.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use carillon::clock::SystemClock;
use carillon::journal::{MemoryStorage, Storage};
use carillon::keeper::KeeperOptions;
use carillon::server::{Options, Server};
use carillon::snapshot;
use carillon_client::{Client, ConversationId, Direction, Event, Seq};
use carillon_tests::harness::{PATIENCE, Site, connect, group_of, next_that, patiently, say};
use carillon_transport::Clock as _;

/// Enough for several segments, and for several reads of a device that catches up.
const MESSAGES: u64 = 400;

/// One alone, some in a row, and the first.
const DAMAGED: [u64; 5] = [1, 100, 201, 202, 203];

fn start(site: &Site, storage: &MemoryStorage) -> Server {
    let keeper = KeeperOptions { snapshot_journal_bytes: 64 * 1024, ..KeeperOptions::default() };
    let options = Options { segment_bytes: 64 * 1024, keeper, ..site.options() };
    Server::start_on(options, Arc::new(storage.clone())).unwrap()
}

fn text(number: u64) -> String {
    format!("message {number:>4} {}", "x".repeat(1_000))
}

/// Flips a bit in the text of a message.
fn damage(storage: &MemoryStorage, number: u64) {
    let needle = text(number).into_bytes();
    let segments = storage.names().into_iter().filter(|name| name.ends_with(".journal"));
    let found = segments.filter_map(|name| {
        let at = storage.contents(&name).windows(needle.len()).position(|bytes| bytes == needle)?;
        Some((name, at))
    });
    // A roll may have moved it: the copy that lies first is not read.
    for (name, at) in found.collect::<Vec<_>>() {
        storage.flip(&name, at + 20, 1);
    }
}

async fn pages(client: &Client, group: ConversationId, direction: Direction) -> BTreeSet<u64> {
    let (mut found, mut from) = (BTreeSet::new(), Seq(if direction == Direction::FORWARD { 1 } else { u64::MAX }));
    loop {
        let page = patiently(client.history(group, from, direction, 70)).await.unwrap();
        for message in &page.messages {
            assert_eq!(message.payload, text(message.seq.0));
            assert!(found.insert(message.seq.0), "once");
        }
        let Some(next) = page.next else { return found };
        from = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_messages_are_named_and_all_others_come() {
    check(|_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_are_when_the_index_has_to_be_built_anew() {
    check(|site| std::fs::remove_dir_all(site.data().join("index")).unwrap()).await;
}

/// Damages messages of a broker that stands still, does something else to it, and starts it again.
async fn check(harm: impl FnOnce(&Site)) {
    let (site, storage) = (Site::new(), MemoryStorage::new());
    let server = start(&site, &storage);
    let (alice, _events) = connect(site.config(server.address(), "alice")).await;
    let group = group_of(&alice, &[]).await;
    for number in 1..=MESSAGES {
        say(&alice, group, text(number)).await;
    }
    snapshot_beyond(&storage, MESSAGES / 2 + 10).await;
    alice.close().await;
    server.stop().unwrap();
    for number in DAMAGED {
        damage(&storage, number);
    }
    harm(&site);
    let server = start(&site, &storage);
    let (phone, mut events) = connect(site.config(server.address(), "alice")).await;
    let (mut came, mut gone) = (Vec::new(), Vec::new());
    while came.last() != Some(&MESSAGES) {
        next_that(&mut events, |event| match event {
            Event::Message(message) => {
                assert_eq!(message.payload, text(message.seq.0));
                came.push(message.seq.0);
                Some(())
            }
            Event::Truncated(truncated) => {
                assert_eq!((truncated.conversation, truncated.first), (group, truncated.last));
                // Before anything that lies behind it.
                assert!(came.last().is_none_or(|last| *last < truncated.first.0), "{truncated:?} after {came:?}");
                gone.push(truncated.first.0);
                Some(())
            }
            _ => None,
        })
        .await;
    }
    let others: Vec<u64> = (1..=MESSAGES).filter(|number| !DAMAGED.contains(number)).collect();
    assert_eq!((gone, &came), (DAMAGED.to_vec(), &others));
    for direction in [Direction::FORWARD, Direction::BACKWARD] {
        assert!(pages(&phone, group, direction).await.into_iter().eq(others.iter().copied()), "{direction:?}");
    }
    server.stop().unwrap();
}

/// Waits until a snapshot covers so many records.
async fn snapshot_beyond(storage: &MemoryStorage, position: u64) {
    let begun = SystemClock.now();
    while snapshot::list(storage as &dyn Storage).unwrap().last().is_none_or(|newest| newest.0 < position) {
        assert!(begun.elapsed() < PATIENCE, "no snapshot came");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_a_lost_message_was_is_not_known_and_everybody_is_told() {
    let (site, storage) = (Site::new(), MemoryStorage::new());
    let server = start(&site, &storage);
    let (alice, _events) = connect(site.config(server.address(), "alice")).await;
    let groups = [group_of(&alice, &[]).await, group_of(&alice, &[]).await];
    // They take turns, so that what is lost of both lies side by side.
    for number in 1..=MESSAGES {
        say(&alice, groups[(number % 2) as usize], text(number)).await;
    }
    snapshot_beyond(&storage, MESSAGES / 2 + 10).await;
    alice.close().await;
    server.stop().unwrap();
    for number in [100, 101, 150] {
        damage(&storage, number);
    }
    std::fs::remove_dir_all(site.data().join("index")).unwrap();
    let server = start(&site, &storage);
    let (phone, mut events) = connect(site.config(server.address(), "alice")).await;
    let (mut came, mut gone) = (Vec::new(), Vec::new());
    while came.len() as u64 != MESSAGES - 3 {
        next_that(&mut events, |event| match event {
            Event::Message(message) => {
                came.push(message.payload.clone());
                Some(())
            }
            Event::Truncated(truncated) => {
                gone.push((truncated.conversation, truncated.first.0, truncated.last.0));
                Some(())
            }
            _ => None,
        })
        .await;
    }
    let others = (1..=MESSAGES).filter(|number| ![100, 101, 150].contains(number)).map(text);
    assert!(came.into_iter().eq(others), "each once, in order");
    gone.sort_unstable();
    let mut expected = vec![(groups[0], 50, 50), (groups[1], 51, 51), (groups[0], 75, 75)];
    expected.sort_unstable();
    assert_eq!(gone, expected);
    drop(phone);
    server.stop().unwrap();
}
