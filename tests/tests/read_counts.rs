//! In large conversations, and where readers are not named, authors are told live how many have read.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon::clock::SystemClock;
use carillon::edge::limits::{COUNTS_A_FRAME_MAX, COUNTS_EVERY_MS, Limits};
use carillon_client::{Client, ConversationId, Event, Events, MessageKind, NewConversation, ReceiptPolicy, Seq};
use carillon_tests::harness::{Broker, group_of, next_that, patiently, say};
use carillon_transport::{Clock, TransportConfig};

/// Readers of a group that counts as large in these tests.
const READERS: u32 = 24;

/// A broker to which a conversation of more than two is large.
fn broker() -> Broker {
    Broker::start_within(TransportConfig::server(), Limits { receipts_live_members_max: 2, ..Limits::default() })
}

async fn readers(broker: &Broker) -> Vec<(Client, Events)> {
    let mut readers = Vec::new();
    for nth in 0..READERS {
        readers.push(broker.client(&format!("reader-{nth}")).await);
    }
    readers
}

/// Marks by all of them at once.
async fn all_mark(readers: &[(Client, Events)], group: ConversationId, up_to: u64) {
    let mut marking = tokio::task::JoinSet::new();
    for (reader, _) in readers {
        let reader = reader.clone();
        marking.spawn(async move { reader.mark_read(group, Seq(up_to)).await.expect("a member may mark") });
    }
    patiently(marking.join_all()).await;
}

/// Takes updates of the conversation until these messages, and no others, have these counts: how many have read, and how many have not.
/// Returns how many updates there were. Nobody but oneself is named before.
async fn counted(me: &Client, events: &mut Events, group: ConversationId, expected: &[(u64, u32, u32)]) -> usize {
    let expected: BTreeMap<_, _> = expected.iter().map(|(seq, read, unread)| (*seq, (*read, *unread))).collect();
    let (mut known, mut updates) = (BTreeMap::new(), 0);
    while known != expected {
        let next = next_that(events, |event| match event {
            Event::ReadCounts(update) => Some(Ok(update.clone())),
            Event::Read(read) => Some(Err(read.clone())),
            _ => None,
        });
        let update = match next.await {
            Ok(update) => update,
            Err(named) => {
                assert_eq!(named.user, me.user(), "readers are not named");
                continue;
            }
        };
        assert_eq!(update.conversation, group);
        assert!((1..=COUNTS_A_FRAME_MAX).contains(&update.entries.len()));
        assert!(update.entries.is_sorted_by(|a, b| a.seq < b.seq));
        for entry in &update.entries {
            assert!(expected.contains_key(&entry.seq.0), "{entry:?} is of another's message");
            known.insert(entry.seq.0, (entry.read, entry.unread));
        }
        updates += 1;
    }
    updates
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_mark_an_author_gets_one_update_an_interval() {
    let broker = broker();
    let readers = readers(&broker).await;
    let (alice, mut events) = broker.client("alice").await;
    let (_alice_phone, mut phone_events) = broker.client("alice").await;
    let group = group_of(&alice, &readers.iter().map(|(reader, _)| reader.user()).collect::<Vec<_>>()).await;
    let messages = 40;
    for nth in 1..=messages {
        say(&alice, group, nth.to_string()).await;
    }
    let begun = SystemClock.now();
    for up_to in 1..=messages {
        all_mark(&readers, group, up_to).await;
    }
    // Of each seq the last counts are right. What was marked in one interval is of 32 messages at most: the newest.
    let newest = messages + 1 - COUNTS_A_FRAME_MAX as u64..=messages;
    let (mut updates, mut known) = (0, BTreeMap::new());
    while !newest.clone().all(|seq| known.get(&seq) == Some(&(READERS, 0))) {
        let update = next_that(&mut events, |event| match event {
            Event::ReadCounts(update) => Some(update.clone()),
            _ => None,
        });
        known.extend(update.await.entries.iter().map(|entry| (entry.seq.0, (entry.read, entry.unread))));
        updates += 1;
    }
    // An upper bound however slow everything is: no two of one conversation are sent within an interval.
    let intervals = SystemClock.now().duration_since(begun).as_millis() / u128::from(COUNTS_EVERY_MS) + 1;
    assert!(
        updates <= intervals,
        "{updates} updates in {intervals} intervals, of {} marks",
        u64::from(READERS) * messages
    );
    let last = |event: &Event| match event {
        Event::ReadCounts(update) => update.entries.last().filter(|last| last.read == READERS).map(|last| last.seq),
        _ => None,
    };
    assert_eq!(next_that(&mut phone_events, |event| last(event).filter(|seq| seq.0 == messages)).await, Seq(messages));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_author_is_told_of_its_own_messages() {
    let broker = broker();
    let mut readers = readers(&broker).await;
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let mut members: Vec<_> = readers.iter().map(|(reader, _)| reader.user()).collect();
    members.push(bob.user());
    let group = group_of(&alice, &members).await;
    for (author, text) in [(&alice, "1"), (&bob, "2"), (&alice, "3")] {
        say(author, group, text).await;
    }
    all_mark(&readers, group, 3).await;
    counted(&alice, &mut alice_events, group, &[(1, READERS, 1), (3, READERS, 1)]).await;
    counted(&bob, &mut bob_events, group, &[(2, READERS, 1)]).await;
    // Only what has moved is told, and a reader's own devices are told by name.
    say(&alice, group, "4").await;
    let (reader, reader_events) = &mut readers[0];
    patiently(reader.mark_read(group, Seq(4))).await.unwrap();
    counted(&alice, &mut alice_events, group, &[(4, 1, READERS)]).await;
    let own = next_that(reader_events, |event| match event {
        Event::Read(read) if read.read_up_to == Seq(4) => Some(read.user),
        _ => None,
    });
    assert_eq!(own.await, reader.user());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_counts_names_nobody_and_one_of_off_tells_nothing() {
    let broker = Broker::start();
    let (alice, mut events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let mut groups = Vec::new();
    for receipts in [ReceiptPolicy::OFF, ReceiptPolicy::COUNTS] {
        let new = NewConversation::group([bob.user()]).with_receipts(receipts);
        let group = patiently(alice.create_conversation(new)).await.unwrap().conversation;
        patiently(alice.publish(group, MessageKind::TEXT, "read this")).await.unwrap();
        groups.push(group);
    }
    for group in &groups {
        patiently(bob.mark_read(*group, Seq(1))).await.unwrap();
    }
    // What was marked first would be told first, and `counted` takes no update of another conversation.
    assert_eq!(counted(&alice, &mut events, groups[1], &[(1, 1, 0)]).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_interval_is_over_nothing_is_told() {
    let counts_every_ms = Duration::from_secs(3_600).as_millis().try_into().unwrap();
    let limits = Limits { receipts_live_members_max: 1, counts_every_ms, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let (alice, mut events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for nth in 1..=20 {
        say(&alice, group, nth.to_string()).await;
        patiently(bob.mark_read(group, Seq(nth))).await.unwrap();
    }
    say(&alice, group, "the end").await;
    next_that(&mut events, |event| match event {
        Event::ReadCounts(update) => panic!("{update:?} within the interval"),
        Event::Message(message) => (message.payload == "the end").then_some(()),
        _ => None,
    })
    .await;
    assert_eq!(patiently(alice.read_counts(group, Seq(20))).await.unwrap().read, 1, "asked, it is known");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_an_author_is_told_of_a_message_that_has_left_memory() {
    let mut broker = Broker::start();
    let (alice, alice_events) = broker.client("alice").await;
    let (bob, bob_events) = broker.client("bob").await;
    let (carol, carol_events) = broker.client("carol").await;
    let new = NewConversation::group([bob.user(), carol.user()]).with_receipts(ReceiptPolicy::COUNTS);
    let group = patiently(alice.create_conversation(new)).await.unwrap().conversation;
    say(&alice, group, "read this").await;
    say(&bob, group, "and this").await;
    for (client, events) in [(alice, alice_events), (bob, bob_events), (carol, carol_events)] {
        drop(events);
        patiently(client.close()).await;
    }
    // What a start replays is on disk when it serves, and not in memory.
    broker.stop().await;
    broker.start_again();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    patiently(carol.mark_read(group, Seq(2))).await.unwrap();
    counted(&alice, &mut alice_events, group, &[(1, 1, 1)]).await;
    counted(&bob, &mut bob_events, group, &[(2, 1, 1)]).await;
    // A new one is in memory, those before it are not, and each is told once.
    say(&alice, group, "and that").await;
    patiently(bob.mark_read(group, Seq(3))).await.unwrap();
    counted(&alice, &mut alice_events, group, &[(3, 1, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_too_many_conversations_are_due_what_has_moved_is_told_otherwise() {
    let counts_every_ms = Duration::from_secs(3_600).as_millis().try_into().unwrap();
    let limits = Limits { counts_every_ms, counts_due_max: 1, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let (alice, mut events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let mut groups = Vec::new();
    for text in ["one", "two"] {
        let new = NewConversation::group([bob.user()]).with_receipts(ReceiptPolicy::COUNTS);
        let group = patiently(alice.create_conversation(new)).await.unwrap().conversation;
        say(&alice, group, text).await;
        patiently(bob.mark_read(group, Seq(1))).await.unwrap();
        groups.push(group);
    }
    for group in groups {
        counted(&alice, &mut events, group, &[(1, 1, 0)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authors_own_mark_is_no_news_of_how_many_have_read() {
    let broker = Broker::start();
    let (alice, mut events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let mut groups = Vec::new();
    for text in ["one", "two"] {
        let new = NewConversation::group([bob.user()]).with_receipts(ReceiptPolicy::COUNTS);
        let group = patiently(alice.create_conversation(new)).await.unwrap().conversation;
        say(&alice, group, text).await;
        groups.push(group);
    }
    patiently(alice.mark_read(groups[0], Seq(1))).await.unwrap();
    patiently(bob.mark_read(groups[1], Seq(1))).await.unwrap();
    // What was marked first would be told first, and `counted` takes no update of another conversation.
    assert_eq!(counted(&alice, &mut events, groups[1], &[(1, 1, 0)]).await, 1);
    patiently(bob.mark_read(groups[0], Seq(1))).await.unwrap();
    counted(&alice, &mut events, groups[0], &[(1, 1, 0)]).await;
}
