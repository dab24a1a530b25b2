//! A device that was away for long may have the newest messages alone; what is left out is named, and can be had as history.

use std::collections::BTreeMap;

use carillon_client::{ConversationId, Cursor, DeviceId, Direction, Event, Events, Seq, Skipped, Start};
use carillon_tests::harness::{Broker, connect, group_of, next_message, next_that, patiently, say};

/// What a device gets until it has everything that was there: seqs by conversation, skipped ranges likewise.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    seqs: BTreeMap<ConversationId, Vec<u64>>,
    skipped: BTreeMap<ConversationId, Vec<(u64, u64)>>,
}

/// Up to the message that says so.
async fn until_the_end(events: &mut Events) -> Got {
    let mut got = Got::default();
    loop {
        let message = next_that(events, |event| match event {
            Event::Message(message) => Some(Some(message.clone())),
            Event::Skipped(Skipped { conversation, first, last, .. }) => {
                assert!(got.seqs.is_empty(), "gaps are named before what lies behind them");
                got.skipped.entry(*conversation).or_default().push((first.0, last.0));
                Some(None)
            }
            _ => None,
        });
        let Some(message) = message.await else { continue };
        if message.payload == "the end" {
            return got;
        }
        got.seqs.entry(message.conversation).or_default().push(message.seq.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_each_conversation_come_and_the_rest_is_named() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let busy = group_of(&alice, &[bob.user()]).await;
    let quiet = group_of(&alice, &[bob.user()]).await;
    for number in 1..=30 {
        say(&alice, busy, "busy").await;
        if number % 10 == 0 {
            say(&alice, quiet, "quiet").await;
        }
    }
    let config = broker.site.config(broker.address, "bob").device(DeviceId(77)).newest(5);
    let (phone, mut events) = connect(config).await;
    // What comes after the session was opened is bounded no more.
    for _ in 0..8 {
        say(&alice, quiet, "live").await;
    }
    say(&alice, phone.user(), "the end").await;
    let got = until_the_end(&mut events).await;
    assert_eq!(got.skipped, BTreeMap::from([(busy, vec![(1, 25)])]));
    let expected = BTreeMap::from([(busy, (26..=30).collect()), (quiet, (1..=11).collect())]);
    assert_eq!(got.seqs, expected);

    let page = patiently(phone.history(busy, Seq(25), Direction::BACKWARD, 100)).await.unwrap();
    let seqs: Vec<_> = page.messages.iter().map(|message| message.seq.0).collect();
    assert_eq!(seqs, (1..=25).collect::<Vec<_>>(), "what was skipped can be had");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_may_begin_at_the_head() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for _ in 0..10 {
        say(&alice, group, "old").await;
    }
    let config = broker.site.config(broker.address, "bob").device(DeviceId(77)).newest(0);
    let (_phone, mut events) = connect(config).await;
    let skipped = next_that(&mut events, |event| match event {
        Event::Skipped(skipped) if skipped.conversation == group => Some((skipped.first, skipped.last)),
        Event::Message(message) => panic!("{message:?} is of the past"),
        _ => None,
    });
    assert_eq!(skipped.await, (Seq(1), Seq(10)));
    say(&alice, group, "new").await;
    let first = next_message(&mut events).await;
    assert_eq!((first.seq, &first.payload[..]), (Seq(11), &b"new"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_counts_from_the_cursor() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for _ in 0..20 {
        say(&alice, group, "a line").await;
    }
    let mut tenth = next_message(&mut bob_events).await;
    while tenth.seq != Seq(10) {
        tenth = next_message(&mut bob_events).await;
    }
    let welcome = bob.welcome();
    let (shard, incarnation) = (welcome.shard, welcome.incarnation);
    let cursor = Cursor { shard, incarnation, position: tenth.position, receipts_through: tenth.position };
    for (newest, skipped, seqs) in [(4, vec![(11, 16)], 17..=20), (10, vec![], 11..=20), (100, vec![], 11..=20)] {
        let config = broker.site.config(broker.address, "bob").newest(newest);
        let config = config.device(DeviceId(100 + u64::from(newest))).start(Start::From(vec![cursor]));
        let (phone, mut events) = connect(config).await;
        say(&alice, phone.user(), "the end").await;
        let got = until_the_end(&mut events).await;
        assert_eq!(got.skipped.get(&group).cloned().unwrap_or_default(), skipped, "newest {newest}");
        assert_eq!(got.seqs[&group], seqs.collect::<Vec<_>>(), "newest {newest}");
    }
}
