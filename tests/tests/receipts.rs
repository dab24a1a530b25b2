//! Read receipts: who has read a message, and who is told when somebody reads on.

use std::collections::{BTreeMap, BTreeSet};

use carillon_client::{
    Client, ConversationId, ErrorCode, Event, Events, MessageKind, NewConversation, ReadCounts, ReadUpdate,
    ReceiptPolicy, Role, Seq, StatusList, UserId,
};
use carillon_tests::harness::{Broker, Process, connect, group_of, next_message, next_that, patiently, refusal, say};

/// One of the two lists, in pages of 7, and how many pages there were.
async fn listed(client: &Client, group: ConversationId, seq: Seq, list: StatusList) -> (BTreeMap<UserId, Seq>, usize) {
    let (mut entries, mut pages, mut from) = (BTreeMap::new(), 0, UserId(0));
    while from != UserId(u32::MAX) {
        let page = patiently(client.read_status(group, seq, list, from, 7)).await.expect("the author may ask");
        assert!(page.entries.len() <= 7);
        assert!(page.entries.iter().all(|entry| (from..page.next).contains(&entry.user)), "{page:?}");
        entries.extend(page.entries.iter().map(|entry| (entry.user, entry.read_up_to)));
        from = page.next;
        pages += 1;
    }
    (entries, pages)
}

/// Both lists hold exactly these users, and the counts say so.
async fn check_lists(client: &Client, group: ConversationId, seq: Seq, read: &[UserId], unread: &[UserId]) {
    let counts = patiently(client.read_counts(group, seq)).await.expect("the author may ask");
    assert_eq!((counts.read as usize, counts.unread as usize), (read.len(), unread.len()));
    for (list, expected) in [(StatusList::DONE, read), (StatusList::OPEN, unread)] {
        let (entries, pages) = listed(client, group, seq, list).await;
        assert_eq!(entries.keys().collect::<BTreeSet<_>>(), expected.iter().collect());
        assert_eq!(pages, expected.len().div_ceil(7).max(1));
        assert!(entries.values().all(|up_to| (*up_to >= seq) == (list == StatusList::DONE)), "{entries:?}");
    }
    let page = patiently(client.read_status(group, seq, StatusList::COUNTS, UserId(0), 7)).await;
    assert!(page.expect("the author may ask").entries.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_of_fifty_it_is_known_who_has_read_what() {
    let mut broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, _alice_events) = broker.client("alice").await;
    let mut members = Vec::new();
    for nth in 0..49 {
        members.push(patiently(crm.create_user(&format!("member-{nth}"))).await.unwrap());
    }
    let group = group_of(&alice, &members).await;
    let mut devices = Vec::new();
    for nth in 0..25 {
        devices.push(broker.client(&format!("member-{nth}")).await);
    }
    for text in ["one", "two", "three"] {
        say(&alice, group, text).await;
    }
    check_lists(&alice, group, Seq(2), &[], &members).await;
    // 20 read up to 2, 5 of them on to 3, 5 more up to 1; the rest is away or does not look.
    for (nth, (client, events)) in devices.iter_mut().enumerate() {
        let up_to = match nth {
            0..5 => 3,
            5..20 => 2,
            _ => 1,
        };
        let mut last = next_message(events).await;
        for _ in 1..up_to {
            last = next_message(events).await;
        }
        assert_eq!(patiently(client.mark_read(group, last.seq)).await.unwrap(), Seq(up_to));
    }
    // What the author has read of others is another thing, and in no list.
    patiently(alice.mark_read(group, Seq(3))).await.unwrap();
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        for (seq, read) in [(1, 25), (2, 20), (3, 5)] {
            check_lists(&alice, group, Seq(seq), &members[..read], &members[read..]).await;
        }
    }
    // Those who were away come, and read.
    for (nth, member) in members.iter().enumerate().skip(25) {
        let (client, mut events) = broker.client(&format!("member-{nth}")).await;
        assert_eq!(client.user(), *member);
        for _ in 0..3 {
            next_message(&mut events).await;
        }
        patiently(client.mark_read(group, Seq(3))).await.unwrap();
    }
    let (read, unread): (Vec<_>, Vec<_>) = members.iter().partition(|user| !members[5..25].contains(user));
    check_lists(&alice, group, Seq(3), &read, &unread).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_only_move_forward() {
    let mut broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for nth in 1..=5 {
        say(&alice, group, nth.to_string()).await;
    }
    for (mark, watermark) in [(0, 0), (2, 2), (2, 2), (1, 2), (4, 4), (0, 4), (3, 4)] {
        assert_eq!(patiently(bob.mark_read(group, Seq(mark))).await.unwrap(), Seq(watermark));
    }
    broker.stop().await;
    broker.start_again();
    assert_eq!(patiently(bob.mark_read(group, Seq(1))).await.unwrap(), Seq(4));
    for (seq, read) in [(3, 1), (4, 1), (5, 0)] {
        let counts = patiently(alice.read_counts(group, Seq(seq))).await.unwrap();
        assert_eq!(counts, ReadCounts { read, unread: 1 - read });
    }
    let members = patiently(alice.members(group)).await.unwrap();
    assert_eq!(members.iter().find(|member| member.user == bob.user()).unwrap().read_up_to, Seq(4));
    let listed = patiently(bob.conversations()).await.unwrap();
    let entry = &listed.iter().find(|one| one.entry.conversation == group).unwrap().entry;
    assert_eq!((entry.read_up_to, entry.last_seq), (Seq(4), Seq(5)));
    // Marks at once, in any order: the furthest counts.
    let mut marking = tokio::task::JoinSet::new();
    for nth in 1..=5 {
        let bob = bob.clone();
        marking.spawn(async move { bob.mark_read(group, Seq(nth)).await.unwrap() });
    }
    assert!(patiently(marking.join_all()).await.into_iter().all(|watermark| watermark >= Seq(4)));
    assert_eq!(patiently(alice.read_counts(group, Seq(5))).await.unwrap(), ReadCounts { read: 1, unread: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_count_who_may_have_the_message() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (late, _late_events) = broker.client("late").await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    let [bob_id, carol_id, late_id] = [&bob, &carol, &late].map(Client::user);
    say(&alice, group, "one").await;
    patiently(alice.add_members(group, &[late_id], Role::MEMBER)).await.unwrap();
    say(&alice, group, "two").await;
    check_lists(&alice, group, Seq(1), &[], &[bob_id, carol_id]).await;
    check_lists(&alice, group, Seq(2), &[], &[bob_id, carol_id, late_id]).await;
    // Who reads two and came after one has not read one.
    patiently(late.mark_read(group, Seq(2))).await.unwrap();
    patiently(bob.mark_read(group, Seq(2))).await.unwrap();
    check_lists(&alice, group, Seq(1), &[bob_id], &[carol_id]).await;
    check_lists(&alice, group, Seq(2), &[bob_id, late_id], &[carol_id]).await;

    // Who was removed counts for what it had, as far as it had read, and for nothing later.
    patiently(alice.remove_members(group, &[bob_id, carol_id])).await.unwrap();
    say(&alice, group, "three").await;
    check_lists(&alice, group, Seq(2), &[bob_id, late_id], &[carol_id]).await;
    check_lists(&alice, group, Seq(3), &[], &[late_id]).await;

    // Back again, a mark is of the new stint: what lies before it stays as it was.
    patiently(alice.add_members(group, &[carol_id], Role::MEMBER)).await.unwrap();
    say(&alice, group, "four").await;
    patiently(carol.mark_read(group, Seq(4))).await.unwrap();
    check_lists(&alice, group, Seq(4), &[carol_id], &[late_id]).await;
    check_lists(&alice, group, Seq(3), &[], &[late_id]).await;
    check_lists(&alice, group, Seq(2), &[bob_id, late_id], &[carol_id]).await;

    // A member's own message is the others' to read.
    say(&carol, group, "five, by carol").await;
    check_lists(&carol, group, Seq(5), &[], &[alice.user(), late_id]).await;
    patiently(alice.mark_read(group, Seq(5))).await.unwrap();
    check_lists(&carol, group, Seq(5), &[alice.user()], &[late_id]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_survive_sigkill() {
    let mut broker = Process::start();
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, _bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    for nth in 1..=6 {
        say(&alice, group, nth.to_string()).await;
        let marked = patiently(bob.mark_read(group, Seq(nth))).await.unwrap();
        broker.kill();
        broker.start_again();
        let counts = patiently(alice.read_counts(group, marked)).await.unwrap();
        assert_eq!(counts, ReadCounts { read: 1, unread: 0 }, "what was answered is durable");
    }
}

/// The read updates before the next message, and its text.
async fn updates_before_message(events: &mut Events) -> (Vec<ReadUpdate>, String) {
    let mut updates = Vec::new();
    loop {
        let next = next_that(events, |event| match event {
            Event::Read(update) => Some(Ok(update.clone())),
            Event::Message(message) => Some(Err(String::from_utf8(message.payload.to_vec()).expect("text"))),
            _ => None,
        });
        match next.await {
            Ok(update) => updates.push(update),
            Err(text) => return (updates, text),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_author_and_the_readers_own_devices_are_told_live() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (_alice_phone, mut alice_phone_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (_bob_phone, mut bob_phone_events) = broker.client("bob").await;
    let (carol, mut carol_events) = broker.client("carol").await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    say(&alice, group, "by alice").await;
    for events in
        [&mut alice_events, &mut alice_phone_events, &mut bob_events, &mut bob_phone_events, &mut carol_events]
    {
        assert_eq!(updates_before_message(events).await, (Vec::new(), "by alice".to_owned()));
    }
    patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    patiently(bob.mark_read(group, Seq(1))).await.unwrap();
    // By carol: bob reads both, alice's and hers.
    say(&carol, group, "by carol").await;
    for events in [&mut alice_events, &mut alice_phone_events, &mut bob_events, &mut bob_phone_events] {
        let (updates, text) = updates_before_message(events).await;
        let [update] = &updates[..] else { panic!("a mark that moves is told once: {updates:?}") };
        assert_eq!((update.conversation, update.user, update.read_up_to), (group, bob.user(), Seq(1)));
        assert_eq!(text, "by carol");
    }
    let nothing = (Vec::new(), "by carol".to_owned());
    assert_eq!(updates_before_message(&mut carol_events).await, nothing, "carol wrote nothing that was read");

    patiently(bob.mark_read(group, Seq(2))).await.unwrap();
    say(&alice, group, "the end").await;
    let (updates, _) = updates_before_message(&mut carol_events).await;
    assert_eq!(
        updates.iter().map(|update| (update.user, update.read_up_to)).collect::<Vec<_>>(),
        [(bob.user(), Seq(2))]
    );
    let (updates, _) = updates_before_message(&mut alice_events).await;
    assert_eq!(updates, [], "alice's message had been read before");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_large_group_the_author_asks_and_the_readers_devices_are_told() {
    use carillon::edge::limits::RECEIPTS_LIVE_MEMBERS_MAX;
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (_bob_phone, mut bob_phone_events) = broker.client("bob").await;
    let mut naming = tokio::task::JoinSet::new();
    for nth in 2..RECEIPTS_LIVE_MEMBERS_MAX {
        let crm = crm.clone();
        naming.spawn(async move { crm.create_user(&format!("member-{nth}")).await.unwrap() });
    }
    let mut members = patiently(naming.join_all()).await;
    members.push(bob.user());
    let small = group_of(&alice, &members).await;
    members.push(patiently(crm.create_user("one too many")).await.unwrap());
    let large = group_of(&alice, &members).await;
    for (group, told) in [(small, true), (large, false)] {
        say(&alice, group, "read this").await;
        patiently(bob.mark_read(group, Seq(1))).await.unwrap();
        patiently(alice.publish(group, MessageKind::TEXT, "the end")).await.unwrap();
        for (events, told) in [(&mut alice_events, told), (&mut bob_phone_events, true)] {
            assert_eq!(updates_before_message(events).await, (Vec::new(), "read this".to_owned()));
            let (updates, text) = updates_before_message(events).await;
            assert_eq!((updates.len(), text.as_str()), (usize::from(told), "the end"));
        }
        assert_eq!(patiently(alice.read_counts(group, Seq(1))).await.unwrap().read, 1, "asked, it is known");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_are_told_what_the_conversations_policy_says() {
    let mut broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (_bob_phone, mut bob_phone_events) = broker.client("bob").await;
    let cases =
        [(ReceiptPolicy::ON, true, true), (ReceiptPolicy::COUNTS, true, false), (ReceiptPolicy::OFF, false, false)];
    let mut groups = Vec::new();
    for (receipts, _, names) in cases {
        let new = NewConversation::group([bob.user()]).with_receipts(receipts);
        let group = patiently(alice.create_conversation(new)).await.unwrap().conversation;
        groups.push(group);
        say(&alice, group, "read this").await;
        assert_eq!(patiently(bob.mark_read(group, Seq(1))).await.unwrap(), Seq(1));
        say(&alice, group, "the end").await;
        for (events, told) in [(&mut alice_events, names), (&mut bob_phone_events, true)] {
            assert_eq!(updates_before_message(events).await, (Vec::new(), "read this".to_owned()));
            let (updates, text) = updates_before_message(events).await;
            assert_eq!((updates.len(), text.as_str()), (usize::from(told), "the end"), "{receipts:?}");
        }
    }
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        for (group, (receipts, counts, names)) in groups.iter().zip(cases) {
            for (list, told) in [(StatusList::COUNTS, counts), (StatusList::DONE, names), (StatusList::OPEN, names)] {
                match patiently(alice.read_status(*group, Seq(1), list, UserId(0), 7)).await {
                    Ok(page) => assert!(told && (page.read, page.unread) == (1, 0), "{receipts:?} {list:?}"),
                    refused => assert!(!told && refusal(refused) == ErrorCode::FORBIDDEN, "{receipts:?} {list:?}"),
                }
            }
        }
        let listed = patiently(bob.conversations()).await.unwrap();
        let policies: Vec<_> = listed.iter().filter(|one| groups.contains(&one.entry.conversation)).collect();
        assert_eq!(policies.iter().map(|one| one.entry.receipts).collect::<Vec<_>>(), cases.map(|case| case.0));
    }
}

/// What the list of conversations says of one: the last seq, how far the user has read, and how many are unread.
async fn unread(client: &Client, group: ConversationId) -> (u64, u64, u64) {
    let listed = patiently(client.conversations()).await.expect("one's own conversations");
    let entry = listed.iter().map(|one| one.entry).find(|entry| entry.conversation == group).expect("a member");
    (entry.last_seq.0, entry.read_up_to.0, entry.unread)
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_is_what_others_wrote_after_the_watermark() {
    let mut broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (bob_phone, _bob_phone_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    assert_eq!(unread(&bob, group).await, (0, 0, 0));
    for text in ["1", "2", "3"] {
        say(&alice, group, text).await;
    }
    assert_eq!(unread(&alice, group).await, (3, 0, 0), "one's own are not unread");
    assert_eq!(unread(&bob, group).await, (3, 0, 3));
    say(&bob, group, "4").await;
    say(&alice, group, "5").await;
    say(&bob, group, "6").await;
    assert_eq!(unread(&alice, group).await, (6, 0, 2));
    assert_eq!(unread(&bob, group).await, (6, 0, 4), "publishing does not move the watermark");
    // By another device of the user, up to before, at and behind an own message.
    for (mark, unread_then) in [(2, 2), (3, 1), (4, 1), (5, 0), (6, 0)] {
        patiently(bob_phone.mark_read(group, Seq(mark))).await.unwrap();
        assert_eq!(unread(&bob, group).await, (6, mark, unread_then));
        assert_eq!(unread(&bob_phone, group).await, (6, mark, unread_then));
    }
    say(&bob, group, "7").await;
    say(&alice, group, "8").await;
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        assert_eq!(unread(&alice, group).await, (8, 0, 3));
        assert_eq!(unread(&bob, group).await, (8, 6, 1));
    }
}
