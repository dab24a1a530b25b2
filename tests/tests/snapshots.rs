//! Snapshots that are taken while messages and marks come: each is the state that the journal makes at its position, byte for byte.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::ops::ControlFlow;
use std::sync::Arc;

use carillon::clock::SystemClock;
use carillon::journal::{JournalOptions, MemoryStorage, Storage, open};
use carillon::keeper::{KeeperOptions, Retention};
use carillon::server::{Options, Server};
use carillon::snapshot;
use carillon_client::MessageKind;
use carillon_core::Shard;
use carillon_core::effect::Effects;
use carillon_core::record::Record;
use carillon_protocol::ids::{Position, ShardId};
use carillon_tests::harness::{PATIENCE, Site, connect, group_of, patiently};
use carillon_transport::Clock as _;

const SHARD: ShardId = ShardId(0);

/// So many are waited for.
const SNAPSHOTS: usize = 4;

fn broker(site: &Site, storage: &MemoryStorage) -> Server {
    // Retention would wait for each: they keep in step whatever else the machine does.
    let retention = Retention { bytes_max: Some(u64::MAX), age: None };
    let keeper = KeeperOptions { snapshot_journal_bytes: 64 * 1024, retention, ..KeeperOptions::default() };
    let options = Options { keeper, ..site.options() };
    Server::start_on(options, Arc::new(storage.clone())).unwrap()
}

/// The state that a journal makes at a position, from its begin.
fn state_at(storage: &MemoryStorage, position: Position) -> Vec<u8> {
    let opened = open(Arc::new(storage.clone()), JournalOptions::new(SHARD), Position(0), &mut |_| Ok(())).unwrap();
    let (mut shard, mut effects) = (Shard::new(SHARD), Effects::default());
    let flow = opened.reader.replay(Position(0), position, |batch| {
        for entry in batch.entries().filter(|entry| entry.position <= position) {
            shard.apply(&Record::decode(entry.private, entry.frame).unwrap(), &mut effects).unwrap();
            effects.signals.clear();
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(flow.unwrap().is_continue());
    assert_eq!(shard.head(), position);
    snapshot::encode(&shard)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_the_state_at_its_position() {
    let (site, storage) = (Site::new(), MemoryStorage::new());
    let server = broker(&site, &storage);
    let (alice, _alices) = connect(site.config(server.address(), "alice")).await;
    let (bob, _bobs) = connect(site.config(server.address(), "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    let begun = SystemClock.now();
    // Copied as they come: only two are kept.
    let mut taken = Vec::new();
    while taken.len() < SNAPSHOTS {
        assert!(begun.elapsed() < PATIENCE, "{} snapshots came", taken.len());
        let publishes: Vec<_> = (0..64).map(|_| alice.publish(group, MessageKind::TEXT, "x".repeat(300))).collect();
        let mut last = None;
        for publish in publishes {
            last = Some(patiently(publish).await.unwrap().seq);
        }
        patiently(bob.mark_read(group, last.unwrap())).await.unwrap();
        for position in snapshot::list(&storage as &dyn Storage).unwrap() {
            // It may have been replaced by newer ones since it was listed.
            if taken.iter().all(|(known, _)| *known != position)
                && let Ok((meta, state)) = snapshot::read_whole(&storage, position)
            {
                assert_eq!((meta.shard, meta.position), (SHARD, position));
                taken.push((position, state));
            }
        }
    }
    drop((alice, bob));
    server.stop().unwrap();
    for (position, state) in taken {
        assert!(state == state_at(&storage, position), "the snapshot at {position} is another state");
    }
}
