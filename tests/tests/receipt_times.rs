//! When each member read a message, and to whom it was delivered and not read.

use std::collections::BTreeMap;

use carillon_client::{
    Client, ConversationId, Cursor, DeviceId, Event, Events, Position, ReadEntry, ReadState, Seq, Start, StatusList,
    Timestamp, UserId, Welcome,
};
use carillon_tests::harness::{Broker, Process, connect, group_of, next_message, patiently, say};

/// Everybody entitled to a message, in the order of the pages of `limit`: who has read it, then who has not.
async fn entries(client: &Client, group: ConversationId, seq: u64, limit: u16) -> Vec<ReadEntry> {
    let mut entries = Vec::new();
    for list in [StatusList::DONE, StatusList::OPEN] {
        let mut from = UserId(0);
        while from != UserId(u32::MAX) {
            let page = patiently(client.read_status(group, Seq(seq), list, from, limit)).await;
            let page = page.expect("the author may ask");
            entries.extend(page.entries);
            from = page.next;
        }
    }
    entries
}

/// How a message stands with a member.
async fn entry(client: &Client, group: ConversationId, seq: u64, user: UserId) -> ReadEntry {
    let found = entries(client, group, seq, 1_000).await.into_iter().find(|entry| entry.user == user);
    found.expect("the member is entitled to it")
}

/// When a member read each of these messages.
async fn times<const N: usize>(client: &Client, group: ConversationId, seqs: [u64; N], user: UserId) -> [Timestamp; N] {
    let mut times = [Timestamp(0); N];
    for (time, seq) in times.iter_mut().zip(seqs) {
        *time = entry(client, group, seq, user).await.read_at;
    }
    times
}

/// The broker takes in acknowledgements once a second: asked until it has this one.
async fn until_delivered(client: &Client, group: ConversationId, seq: u64, user: UserId) {
    patiently(async { while entry(client, group, seq, user).await.state != ReadState::DELIVERED {} }).await;
}

/// Marks, and returns the broker's time before and after.
async fn mark_between(
    marker: &Client,
    clock: (&Client, ConversationId),
    group: ConversationId,
    seq: u64,
) -> (Timestamp, Timestamp) {
    let before = say(clock.0, clock.1, "tick").await.time;
    patiently(marker.mark_read(group, Seq(seq))).await.expect("a member may");
    (before, say(clock.0, clock.1, "tock").await.time)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_was_read_when_the_mark_that_passed_it_was_made() {
    let mut broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (clock, _clock_events) = broker.client("clock").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let clock = (&clock, group_of(&clock, &[]).await);
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    for nth in 1..=6 {
        say(&alice, group, nth.to_string()).await;
    }
    let mut spans = Vec::new();
    for up_to in [2, 3, 5] {
        spans.push(mark_between(&bob, clock, group, up_to).await);
    }
    // One that moves nothing is no mark.
    mark_between(&bob, clock, group, 1).await;
    let known = times(&alice, group, [1, 2, 3, 4, 5, 6], bob.user()).await;
    for (time, mark) in known.into_iter().zip([0, 0, 1, 2, 2]) {
        let (before, after) = spans[mark];
        assert!(before <= time && time <= after, "{time} is in {before} to {after}");
    }
    assert_eq!(known[5], Timestamp(0), "not read");
    assert_eq!([known[0], known[3]], [known[1], known[4]], "one mark, one time");
    assert_eq!(times(&alice, group, [1], carol.user()).await, [Timestamp(0)]);
    for lose_index in [false, true] {
        broker.stop().await;
        if lose_index {
            std::fs::remove_dir_all(broker.site.data().join("index")).expect("the index can be deleted");
        }
        broker.start_again();
        assert_eq!(times(&alice, group, [1, 2, 3, 4, 5, 6], bob.user()).await, known);
    }
    // A mark of after the restart, beside those of before it.
    let (before, after) = mark_between(&bob, clock, group, 6).await;
    let [five, six] = times(&alice, group, [5, 6], bob.user()).await;
    assert!(five == known[4] && before <= six && six <= after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_about_times_survives_sigkill() {
    let mut broker = Process::start();
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, _bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    let mut known = BTreeMap::new();
    for seq in 1..=3 {
        say(&alice, group, seq.to_string()).await;
        patiently(bob.mark_read(group, Seq(seq))).await.expect("a member may");
        known.insert(seq, entry(&alice, group, seq, bob.user()).await);
        assert!(known[&seq].read_at > Timestamp(0));
        broker.kill();
        broker.start_again();
        for (seq, before) in &known {
            assert_eq!(entry(&alice, group, *seq, bob.user()).await.read_at, before.read_at);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_delivered_when_one_of_two_devices_has_it_and_read_when_it_is_marked() {
    let mut broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, mut phone) = broker.client("bob").await;
    let (_bob_tablet, mut tablet) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    say(&alice, group, "one").await;
    assert_eq!(entry(&alice, group, 1, bob.user()).await.state, ReadState::NOT_DELIVERED, "nobody acknowledged it");
    next_message(&mut tablet).await;
    until_delivered(&alice, group, 1, bob.user()).await;
    say(&alice, group, "two").await;
    assert_eq!(entry(&alice, group, 2, bob.user()).await.state, ReadState::NOT_DELIVERED);
    assert_eq!(entry(&alice, group, 1, bob.user()).await.state, ReadState::DELIVERED);
    next_message(&mut phone).await;
    next_message(&mut phone).await;
    until_delivered(&alice, group, 2, bob.user()).await;
    patiently(bob.mark_read(group, Seq(1))).await.expect("a member may");
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        let one = entry(&alice, group, 1, bob.user()).await;
        assert_eq!((one.state, one.read_up_to), (ReadState::READ, Seq(1)));
        let two = entry(&alice, group, 2, bob.user()).await;
        assert_eq!((two.state, two.read_at), (ReadState::DELIVERED, Timestamp(0)));
        let counts = patiently(alice.read_counts(group, Seq(2))).await.expect("the author may ask");
        assert_eq!((counts.read, counts.unread), (0, 1), "delivered is not read");
    }
}

/// Takes in everything up to the message that says so.
async fn until_the_end(events: &mut Events) {
    while next_message(events).await.payload != "the end" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bounded_catch_up_left_out_is_not_delivered() {
    let mut broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, _alice_events) = broker.client("alice").await;
    let bob = patiently(crm.create_user("bob")).await.expect("a service may");
    let busy = group_of(&alice, &[bob]).await;
    let quiet = group_of(&alice, &[bob]).await;
    for number in 1..=12 {
        say(&alice, busy, "busy").await;
        if number <= 3 {
            say(&alice, quiet, "quiet").await;
        }
    }
    let config = broker.site.config(broker.address, "bob").device(DeviceId(77)).newest(4);
    let (phone, mut events) = connect(config).await;
    say(&alice, bob, "the end").await;
    until_the_end(&mut events).await;
    // What comes later is bounded no more.
    for _ in 0..6 {
        say(&alice, busy, "live").await;
        next_message(&mut events).await;
    }
    until_delivered(&alice, busy, 18, bob).await;
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        for seq in 1..=18 {
            let expected = if seq <= 8 { ReadState::NOT_DELIVERED } else { ReadState::DELIVERED };
            assert_eq!(entry(&alice, busy, seq, bob).await.state, expected, "message {seq}");
        }
        for seq in 1..=3 {
            assert_eq!(entry(&alice, quiet, seq, bob).await.state, ReadState::DELIVERED, "message {seq}");
        }
    }
    // A device that gets it all makes good for it, and so does a mark.
    patiently(phone.mark_read(busy, Seq(2))).await.expect("a member may");
    assert_eq!(entry(&alice, busy, 2, bob).await.state, ReadState::READ);
    let (_tablet, mut events) = broker.client("bob").await;
    until_the_end(&mut events).await;
    until_delivered(&alice, busy, 8, bob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_out_is_known_before_anything_behind_it_is_offered() {
    let mut broker = Process::start();
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    for nth in 1..=5 {
        say(&alice, group, nth.to_string()).await;
    }
    let user = bob.user();
    drop((bob, bob_events));
    let config = |broker: &Process| broker.site.config(broker.address, "bob").device(DeviceId(77));
    // It is told what it skips and gets the rest, and the broker is gone before any of it is acknowledged.
    let (phone, mut events) = connect(config(&broker).newest(1)).await;
    let mut skipped = false;
    let last = loop {
        match patiently(events.next()).await.expect("the client is open") {
            Event::Skipped(_) => skipped = true,
            Event::Message(message) if message.conversation == group => break message.position,
            _ => {}
        }
    };
    assert!(skipped);
    let Welcome { shard, incarnation, .. } = phone.welcome();
    drop((phone, events));
    broker.kill();
    broker.start_again();
    // Its own copy of the cursor lies behind what was skipped.
    let cursor = Cursor { shard, incarnation, position: last, receipts_through: Position(0) };
    let (_phone, mut events) = connect(config(&broker).start(Start::From(vec![cursor]))).await;
    say(&alice, group, "the end").await;
    until_the_end(&mut events).await;
    until_delivered(&alice, group, 6, user).await;
    for seq in 1..=5 {
        let expected = if seq == 5 { ReadState::DELIVERED } else { ReadState::NOT_DELIVERED };
        assert_eq!(entry(&alice, group, seq, user).await.state, expected, "message {seq}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_in_the_order_of_users_whatever_their_size() {
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, _alice_events) = broker.client("alice").await;
    let mut members = Vec::new();
    for nth in 0..20 {
        members.push(patiently(crm.create_user(&format!("member-{nth}"))).await.expect("a service may"));
    }
    let group = group_of(&alice, &members).await;
    say(&alice, group, "one").await;
    let mut devices = Vec::new();
    for nth in [11, 3, 17, 5, 0] {
        let (client, mut events) = broker.client(&format!("member-{nth}")).await;
        next_message(&mut events).await;
        if nth != 5 {
            patiently(client.mark_read(group, Seq(1))).await.expect("a member may");
        }
        devices.push((client, events));
    }
    until_delivered(&alice, group, 1, members[5]).await;
    let all = entries(&alice, group, 1, 1_000).await;
    for limit in [1, 3, 7] {
        assert_eq!(entries(&alice, group, 1, limit).await, all, "in pages of {limit}");
    }
    let (read, open) = all.split_at(4);
    assert_eq!(read.iter().map(|entry| entry.user).collect::<Vec<_>>(), [0, 3, 11, 17].map(|nth| members[nth]));
    assert!(read.iter().all(|entry| entry.state == ReadState::READ && entry.read_at > Timestamp(0)));
    // Marked in another order than listed: each has the time of its own mark.
    let time = |nth: usize| read[nth].read_at;
    assert!(time(2) <= time(1) && time(1) <= time(3) && time(3) <= time(0));
    assert!(open.iter().map(|entry| entry.user).is_sorted() && open.len() == 16);
    let delivered: Vec<_> = open.iter().filter(|entry| entry.state == ReadState::DELIVERED).collect();
    assert_eq!(delivered.iter().map(|entry| entry.user).collect::<Vec<_>>(), [members[5]]);
}
