//! What was read while a device was away: it is told when it is back, once, and nothing of what it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use carillon::edge::limits::{COUNTS_WALK_MAX, Limits};
use carillon_client::{
    Client, ConversationId, Event, Events, MemoryStore, NewConversation, Position, ReceiptPolicy, Seq, Store, UserId,
};
use carillon_tests::harness::{Broker, Process, connect, group_of, next_that, patiently, say};
use carillon_transport::TransportConfig;

/// A device that remembers what it acknowledged.
async fn device(broker: &Broker, handle: &str, store: &Arc<MemoryStore>) -> (Client, Events) {
    let config = broker.site.config(broker.address, handle).store(Arc::clone(store) as Arc<dyn Store>);
    let (client, mut events) = connect(config).await;
    events.auto_ack(true);
    (client, events)
}

/// Who has read, and how far.
type Named = Vec<(UserId, u64)>;

/// A conversation in which a user's other device marks, so that the device under test has had all that moved before it.
struct Sentinel {
    marker: Client,
    conversation: ConversationId,
    marked: u64,
}

impl Sentinel {
    async fn of(marker: &Client, author: &Client) -> Self {
        let conversation = group_of(author, &[marker.user()]).await;
        for nth in 0..4 {
            say(author, conversation, nth.to_string()).await;
        }
        Self { marker: marker.clone(), conversation, marked: 0 }
    }

    /// The read updates up to a mark that is made now, which comes behind everything, whoever tells it.
    async fn told_before(&mut self, events: &mut Events) -> Named {
        self.marked += 1;
        let marked = patiently(self.marker.mark_read(self.conversation, Seq(self.marked))).await;
        marked.expect("a member may mark");
        let mut named = Named::new();
        next_that(events, |event| {
            let Event::Read(read) = event else { return None };
            if read.conversation == self.conversation {
                return (read.read_up_to == Seq(self.marked)).then_some(());
            }
            named.push((read.user, read.read_up_to.0));
            None
        })
        .await;
        named
    }
}

/// The read updates up to the message with this text, which is the last of all that was sent.
async fn told_before(events: &mut Events, text: &str) -> Named {
    let (mut named, mut through) = (Named::new(), Position(0));
    next_that(events, |event| {
        if let Event::Read(read) = event {
            assert!(read.through >= through, "{read:?} after {through}");
            through = read.through;
            named.push((read.user, read.read_up_to.0));
        }
        matches!(event, Event::Message(message) if message.payload == text).then_some(())
    })
    .await;
    named
}

/// Closes a device that was given everything up to a message of this author, and has acknowledged it.
async fn close(client: Client, mut events: Events, author: &Client, group: ConversationId) {
    let said = say(author, group, "bye").await;
    next_that(&mut events, |event| match event {
        Event::Message(message) => (message.position == said.position).then_some(()),
        _ => None,
    })
    .await;
    client.ack(group.shard(), said.position);
    patiently(client.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_its_own_marks_and_who_has_read_what_it_wrote() {
    let mut broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (phone, _phone_events) = broker.client("alice").await;
    let (alice, mut events) = device(&broker, "alice", &store).await;
    let mut sentinel = Sentinel::of(&phone, &bob).await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    for text in ["one", "two", "three"] {
        say(&alice, group, text).await;
    }
    patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    say(&bob, group, "before").await;
    assert_eq!(told_before(&mut events, "before").await, [(bob.user(), 1)]);
    close(alice, events, &bob, group).await;

    // Away: bob reads on twice, carol once, and the user's own phone.
    patiently(bob.mark_read(group, Seq(2))).await.unwrap();
    patiently(carol.mark_read(group, Seq(1))).await.unwrap();
    patiently(phone.mark_read(group, Seq(4))).await.unwrap();
    patiently(bob.mark_read(group, Seq(3))).await.unwrap();
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
    }
    let (alice, mut events) = device(&broker, "alice", &store).await;
    let newest = [(carol.user(), 1), (alice.user(), 4), (bob.user(), 3)];
    assert_eq!(sentinel.told_before(&mut events).await, newest, "of each the newest, in the order of marks");
    close(alice, events, &bob, group).await;

    // And now nothing has moved.
    let (_alice, mut events) = device(&broker, "alice", &store).await;
    assert_eq!(sentinel.told_before(&mut events).await, Named::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_of_large_groups_how_many_and_of_none_with_policy_off() {
    let limits = Limits { receipts_live_members_max: 2, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let store = Arc::new(MemoryStore::new());
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (alice, events) = device(&broker, "alice", &store).await;
    let large = group_of(&alice, &[bob.user(), carol.user()]).await;
    let new = |policy| NewConversation::group([bob.user()]).with_receipts(policy);
    let off = patiently(alice.create_conversation(new(ReceiptPolicy::OFF))).await.unwrap().conversation;
    let counts = patiently(alice.create_conversation(new(ReceiptPolicy::COUNTS))).await.unwrap().conversation;
    for group in [large, off, counts] {
        say(&alice, group, "read this").await;
    }
    // So many by others that the message is found by the shard's knowledge alone.
    for nth in 0..COUNTS_WALK_MAX {
        say(&bob, large, nth.to_string()).await;
    }
    close(alice, events, &bob, large).await;

    for group in [off, counts, large] {
        patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    }
    patiently(carol.mark_read(large, Seq(1))).await.unwrap();
    let (_alice, mut events) = device(&broker, "alice", &store).await;
    let mut due = BTreeMap::from([(counts, (1, 0)), (large, (2, 0))]);
    while !due.is_empty() {
        next_that(&mut events, |event| match event {
            Event::Read(read) => panic!("{read:?} names a reader"),
            Event::ReadCounts(update) => {
                let [entry] = update.entries[..] else { panic!("{update:?} is of one message") };
                assert!(update.conversation != off && entry.seq == Seq(1), "{update:?}");
                if due.get(&update.conversation) == Some(&(entry.read, entry.unread)) {
                    due.remove(&update.conversation);
                }
                Some(())
            }
            _ => None,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_for_the_first_time_is_told_nothing_of_the_past() {
    let broker = Broker::start();
    let (bob, _bob_events) = broker.client("bob").await;
    let (alice, _alice_events) = broker.client("alice").await;
    let group = group_of(&alice, &[bob.user()]).await;
    say(&alice, group, "read this").await;
    patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    patiently(alice.mark_read(group, Seq(1))).await.unwrap();
    let mut sentinel = Sentinel::of(&alice, &bob).await;
    say(&bob, group, "hello").await;
    let store = Arc::new(MemoryStore::new());
    let (tablet, mut events) = device(&broker, "alice", &store).await;
    assert_eq!(sentinel.told_before(&mut events).await, Named::new());
    let listed = patiently(tablet.conversations()).await.unwrap();
    let entry = listed.iter().find(|one| one.entry.conversation == group).unwrap().entry;
    assert_eq!((entry.read_up_to, entry.unread), (Seq(1), 1), "it asks");
    close(tablet, events, &bob, group).await;

    // From then on it is told, though it has never had a read update.
    patiently(alice.mark_read(group, Seq(2))).await.unwrap();
    let (_tablet, mut events) = device(&broker, "alice", &store).await;
    assert_eq!(sentinel.told_before(&mut events).await, [(alice.user(), 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_an_answer_holds_comes_in_pages_and_each_once() {
    let limits = Limits { receipts_waiting_max: 4, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let store = Arc::new(MemoryStore::new());
    let mut readers = Vec::new();
    for nth in 0..13 {
        readers.push(broker.client(&format!("reader-{nth}")).await);
    }
    let (alice, events) = device(&broker, "alice", &store).await;
    let group = group_of(&alice, &readers.iter().map(|(reader, _)| reader.user()).collect::<Vec<_>>()).await;
    say(&alice, group, "read this").await;
    close(alice, events, &readers[0].0, group).await;
    for (reader, _) in &readers {
        patiently(reader.mark_read(group, Seq(1))).await.unwrap();
    }
    let (_alice, mut events) = device(&broker, "alice", &store).await;
    // The pages are asked for one by one: the message may be before some of them.
    let mut named = Vec::new();
    while named.len() < readers.len() {
        let read = next_that(&mut events, |event| match event {
            Event::Read(read) => Some((read.user, read.read_up_to.0)),
            _ => None,
        });
        named.push(read.await);
    }
    let expected: Vec<_> = readers.iter().map(|(reader, _)| (reader.user(), 1)).collect();
    assert_eq!(named, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_sigkill_is_told_after_it() {
    let mut broker = Process::start();
    let store = Arc::new(MemoryStore::new());
    let config =
        |broker: &Process| broker.site.config(broker.address, "alice").store(Arc::clone(&store) as Arc<dyn Store>);
    let (alice, _events) = connect(config(&broker)).await;
    let (bob, _bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    say(&alice, group, "read this").await;
    patiently(alice.close()).await;
    patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    broker.kill();
    broker.start_again();
    let (_alice, mut events) = connect(config(&broker)).await;
    let read = next_that(&mut events, |event| match event {
        Event::Read(read) => Some((read.user, read.read_up_to)),
        _ => None,
    });
    assert_eq!(read.await, (bob.user(), Seq(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_were_due_when_the_connection_ended_are_told_after_it() {
    let an_hour_ms = 3_600_000;
    let limits = Limits { receipts_live_members_max: 2, counts_every_ms: an_hour_ms, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let store = Arc::new(MemoryStore::new());
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (alice, mut events) = device(&broker, "alice", &store).await;
    let large = group_of(&alice, &[bob.user(), carol.user()]).await;
    let small = group_of(&alice, &[bob.user()]).await;
    for group in [large, small] {
        say(&alice, group, "read this").await;
        patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    }
    let named = next_that(&mut events, |event| match event {
        Event::Read(read) => Some(read.clone()),
        Event::ReadCounts(update) => panic!("{update:?} within the hour"),
        _ => None,
    });
    let named = named.await;
    assert!((named.conversation, named.user) == (small, bob.user()) && named.through < named.position, "{named:?}");
    close(alice, events, &bob, small).await;
    let (_alice, mut events) = device(&broker, "alice", &store).await;
    let counted = next_that(&mut events, |event| match event {
        Event::ReadCounts(update) => Some(update.clone()),
        _ => None,
    });
    let counted = counted.await;
    let entries: Vec<_> = counted.entries.iter().map(|entry| (entry.seq.0, entry.read, entry.unread)).collect();
    assert_eq!((counted.conversation, entries), (large, vec![(1, 1, 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_counts_held_back_is_not_told_again_after_progress_said_the_rest() {
    let limits = Limits { receipts_live_members_max: 1, ..Limits::default() };
    let broker = Broker::start_within(TransportConfig::server(), limits);
    let store = Arc::new(MemoryStore::new());
    let (bob, _bob_events) = broker.client("bob").await;
    let (phone, _phone_events) = broker.client("alice").await;
    let (alice, mut events) = device(&broker, "alice", &store).await;
    let mut sentinel = Sentinel::of(&phone, &bob).await;
    let group = group_of(&bob, &[alice.user()]).await;
    say(&bob, group, "read this").await;
    patiently(phone.mark_read(group, Seq(1))).await.unwrap();
    let mut marked_at = None;
    next_that(&mut events, |event| match event {
        Event::Read(read) => {
            marked_at = Some(read.position);
            None
        }
        Event::Progress(progress) => marked_at.filter(|at| *at <= progress.receipts_through),
        _ => None,
    })
    .await;
    close(alice, events, &bob, group).await;
    let (_alice, mut events) = device(&broker, "alice", &store).await;
    assert_eq!(sentinel.told_before(&mut events).await, Named::new());
}
