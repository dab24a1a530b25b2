//! Messages in groups: to every device of every member, in one order, and to nobody else.

use std::collections::BTreeSet;

use carillon_client::{
    Change, Client, ConversationKind, ErrorCode, Event, Events, MessageKind, NewConversation, PostPolicy, PublishError,
    Role, UserId,
};
use carillon_tests::harness::{
    Broker, TENANT, connect, group_of, next_membership, next_message, next_texts, next_that, patiently,
    publish_refusal, refusal, say,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_reaches_every_device_of_every_member_and_nobody_else() {
    let broker = Broker::start();
    let mut devices = Vec::new();
    for handle in ["alice", "bob", "carol", "alice", "bob", "carol", "alice", "bob", "carol"] {
        devices.push(broker.client(handle).await);
    }
    let (dave, mut dave_events) = broker.client("dave").await;
    let publishers: Vec<Client> = devices.iter().map(|(client, _)| client.clone()).collect();
    let group = group_of(&publishers[0], &[publishers[1].user(), publishers[2].user()]).await;

    let mut expected = Vec::new();
    for (seq, publisher) in (1..).zip(&publishers) {
        let text = format!("the message of device {seq}");
        let published = say(publisher, group, text.clone()).await;
        assert_eq!((published.conversation, published.seq.0, published.repeated), (group, seq, 0));
        expected.push((published.seq, published.position, published.time, publisher.user(), text));
    }
    assert!(expected.is_sorted_by(|a, b| a.1 < b.1), "positions ascend: {expected:?}");

    for (_, events) in &mut devices {
        for expected in &expected {
            let got = next_message(events).await;
            let text = String::from_utf8(got.payload.to_vec()).unwrap();
            assert_eq!((got.seq, got.position, got.time, got.author, text), *expected);
            assert_eq!(got.conversation, group);
        }
    }
    // What dave gets first is what was published last: nothing of the group came before.
    say(&publishers[0], dave.user(), "not of the group").await;
    assert_eq!(next_message(&mut dave_events).await.payload, "not of the group");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_hear_of_the_group_before_its_messages() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    say(&alice, group, "welcome").await;
    for events in [&mut alice_events, &mut bob_events] {
        let first = next_that(events, |event| match event {
            Event::Membership(_) | Event::Message(_) => Some(format!("{event:?}")),
            _ => None,
        });
        assert!(first.await.starts_with("Membership"));
        assert_eq!(next_message(events).await.payload, "welcome");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_members_hear_of_the_group_says_all_about_it() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for (events, role) in [(&mut alice_events, Role::OWNER), (&mut bob_events, Role::MEMBER)] {
        let heard = next_membership(events).await;
        let changed = heard.changed;
        assert_eq!((changed.conversation, changed.kind, changed.by), (group, ConversationKind::GROUP, alice.user()));
        assert_eq!((changed.change, changed.role), (Change::ADDED, role));
        assert_eq!(heard.seq.0, 1, "the first event of the personal conversation");
        assert_ne!(heard.personal, group);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_of_every_kind_and_size_arrive_as_they_are() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    let kinds = [
        MessageKind::TEXT,
        MessageKind::VOICE,
        MessageKind::PICTURE,
        MessageKind::FILE,
        MessageKind::MAIL,
        MessageKind::CARD,
        MessageKind::RECALL,
        MessageKind::EDIT,
    ];
    let sizes = [0, 1, 7, 1_200, 16_384, 65_535, 65_536, 3];
    let payload = |kind: MessageKind, size: usize| -> Vec<u8> {
        (0..size).map(|at| u8::try_from(at % 251).unwrap() ^ kind.0).collect()
    };
    for (kind, size) in kinds.into_iter().zip(sizes) {
        patiently(alice.publish(group, kind, payload(kind, size))).await.unwrap();
    }
    for (kind, size) in kinds.into_iter().zip(sizes) {
        let message = next_message(&mut bob_events).await;
        assert_eq!((message.kind, message.payload.len()), (kind, size));
        assert!(message.payload == payload(kind, size), "{kind:?}: the bytes are the same");
    }
    let refused = patiently(alice.publish(group, MessageKind::TEXT, vec![0; 65_537])).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { bytes: 65_537, bytes_max: 65_536 })), "{refused:?}");
    let system = patiently(alice.publish(group, MessageKind::SYSTEM, "I am the broker")).await;
    assert_eq!(publish_refusal(system), ErrorCode::INVALID);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_do_not_mix() {
    const GROUPS: usize = 20;
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let mut friends = Vec::new();
    for nth in 0..GROUPS {
        friends.push(broker.client(&format!("friend-{nth}")).await);
    }
    let mut groups = Vec::new();
    for (friend, _) in &friends {
        groups.push(group_of(&alice, &[friend.user()]).await);
    }
    assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), GROUPS, "each is another");
    let mut acks = Vec::new();
    for turn in 0..5 {
        for (nth, group) in groups.iter().enumerate() {
            acks.push(patiently(alice.enqueue(*group, MessageKind::TEXT, format!("{nth}/{turn}"))).await.unwrap());
        }
    }
    for ack in acks {
        patiently(ack).await.unwrap();
    }
    for (nth, (_, events)) in friends.iter_mut().enumerate() {
        for turn in 0..5 {
            let message = next_message(events).await;
            assert_eq!((message.conversation, message.seq.0), (groups[nth], turn + 1));
            assert_eq!(message.payload, format!("{nth}/{turn}"));
        }
    }
    let all = next_texts(&mut alice_events, 5 * GROUPS).await;
    let expected = (0..5).flat_map(|turn| (0..GROUPS).map(move |nth| format!("{nth}/{turn}")));
    assert_eq!(all, expected.collect::<Vec<_>>(), "in the order they were published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_group_is_found_again() {
    let mut broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (mailer, _mailer_events) = broker.service("mailer").await;
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let foreign = broker.site.token_of("initech", "crm", "service");
    let (foreign_crm, _foreign_events) = connect(broker.site.config_with(broker.address, foreign)).await;

    let new = NewConversation::group([alice.user()]).named("order 4711 · Grüße");
    let created = patiently(crm.create_conversation(new.clone())).await.unwrap();
    assert_eq!(created.existed, 0);
    for _ in 0..2 {
        let again = patiently(crm.create_conversation(new.clone())).await.unwrap();
        assert_eq!((again.conversation, again.existed), (created.conversation, 1));
    }
    let taken = patiently(mailer.create_conversation(NewConversation::group([]).named("order 4711 · Grüße"))).await;
    assert_eq!(refusal(taken), ErrorCode::NAME_TAKEN);
    let named = patiently(alice.create_conversation(NewConversation::group([]).named("mine"))).await;
    assert_eq!(refusal(named), ErrorCode::FORBIDDEN, "a user gives no names");
    let elsewhere = NewConversation::group([]).named("order 4711 · Grüße");
    let elsewhere = patiently(foreign_crm.create_conversation(elsewhere)).await.unwrap();
    assert_eq!(elsewhere.existed, 0, "names are of a tenant");
    assert_ne!(elsewhere.conversation, created.conversation);

    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        for knows in [&crm, &mailer, &alice] {
            let found = patiently(knows.find_conversation("order 4711 · Grüße")).await.unwrap();
            assert_eq!(found, created.conversation);
        }
        let (hidden, absent) = (bob.find_conversation("order 4711 · Grüße"), bob.find_conversation("no such"));
        assert_eq!(refusal(patiently(hidden).await), ErrorCode::NOT_FOUND);
        assert_eq!(refusal(patiently(absent).await), ErrorCode::NOT_FOUND);
        let again = patiently(crm.create_conversation(new.clone())).await.unwrap();
        assert_eq!((again.conversation, again.existed), (created.conversation, 1));
        let listed = patiently(alice.conversations()).await.unwrap();
        let listed = listed.iter().find(|listed| listed.entry.conversation == created.conversation).unwrap();
        assert_eq!(listed.name.as_deref(), Some("order 4711 · Grüße"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_conversations_longer_than_a_page_has_each_once() {
    const GROUPS: u64 = 1_203;
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, _alice_events) = broker.client("alice").await;
    // The longest names: entries of a page are cut by bytes too.
    let name = |nth: u64| format!("{nth:0>128}");
    let mut creating = tokio::task::JoinSet::new();
    for nth in 0..GROUPS {
        let (crm, alice) = (crm.clone(), alice.user());
        let new = NewConversation::group([alice]).named(name(nth));
        creating.spawn(async move { (nth, crm.create_conversation(new).await.unwrap().conversation) });
    }
    let mut made = patiently(creating.join_all()).await;
    made.sort_unstable_by_key(|(_, conversation)| *conversation);
    let (nth, busy) = made[700];
    for _ in 0..3 {
        say(&crm, busy, "news").await;
    }
    patiently(alice.mark_read(busy, carillon_client::Seq(2))).await.unwrap();

    let listed = patiently(alice.conversations()).await.unwrap();
    let groups: Vec<_> = listed.iter().filter(|one| one.entry.kind == ConversationKind::GROUP).collect();
    let ids: Vec<_> = groups.iter().map(|group| group.entry.conversation).collect();
    assert_eq!(ids, made.iter().map(|(_, conversation)| *conversation).collect::<Vec<_>>());
    assert_eq!(listed.len(), groups.len() + 1, "and the personal one");
    for (group, (nth, _)) in groups.iter().zip(&made) {
        assert_eq!(group.name, Some(name(*nth)));
        let entry = &group.entry;
        assert_eq!((entry.role, entry.post_policy, entry.members), (Role::MEMBER, PostPolicy::MEMBERS, 2));
        assert_eq!(entry.peer, UserId(u32::MAX));
    }
    let entry = &groups.iter().find(|group| group.name == Some(name(nth))).unwrap().entry;
    assert_eq!((entry.last_seq.0, entry.read_up_to.0), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed_in_pages() {
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, mut alice_events) = broker.client("alice").await;
    let mut members = vec![crm.user(), alice.user()];
    for nth in 0..28 {
        members.push(patiently(crm.create_user(&format!("member-{nth}"))).await.unwrap());
    }
    let gone = members[5];
    let group = group_of(&crm, &members[1..]).await;
    say(&crm, group, "one").await;
    patiently(crm.remove_members(group, &[gone])).await.unwrap();
    patiently(crm.add_members(group, &members[9..=9], Role::ADMIN)).await.unwrap();
    members.retain(|member| *member != gone);
    members.sort_unstable();

    let (mut paged, mut from, mut pages) = (Vec::new(), UserId(0), 0);
    while from != UserId(u32::MAX) {
        let page = patiently(alice.members_page(group, from, 7)).await.unwrap();
        assert!((1..=7).contains(&page.entries.len()));
        paged.extend(page.entries);
        from = page.next;
        pages += 1;
    }
    assert_eq!(pages, 5, "29 members in pages of 7");
    assert_eq!(paged.iter().map(|entry| entry.user).collect::<Vec<_>>(), members);
    assert_eq!(paged, patiently(alice.members(group)).await.unwrap());
    let admins: Vec<_> = paged.iter().filter(|entry| entry.role == Role::ADMIN).collect();
    assert_eq!(admins.len(), 1, "a role does not begin another stint");
    assert_eq!(admins[0].joined.0, 0, "a role does not begin another stint");
    assert_eq!(paged.iter().find(|entry| entry.user == crm.user()).unwrap().role, Role::OWNER);

    let handles = patiently(alice.handles(&members)).await.unwrap();
    assert_eq!(handles[0].as_deref(), Some("crm"));
    assert!(handles.iter().all(Option::is_some));
    assert_eq!(next_message(&mut alice_events).await.payload, "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_was_never_there_is_named_by_a_service_and_finds_everything_later() {
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, _alice_events) = broker.client("alice").await;
    assert_eq!(refusal(patiently(alice.find_user("newcomer")).await), ErrorCode::UNKNOWN_USER);
    assert_eq!(refusal(patiently(alice.create_user("newcomer")).await), ErrorCode::FORBIDDEN);
    let newcomer = patiently(crm.create_user("newcomer")).await.unwrap();
    assert_eq!(patiently(crm.create_user("newcomer")).await.unwrap(), newcomer, "made once");
    assert_eq!(patiently(alice.find_user("newcomer")).await.unwrap(), newcomer);
    let group = group_of(&alice, &[newcomer]).await;
    for nth in 0..10 {
        say(&alice, group, format!("{nth}")).await;
    }
    // `acme`, as every token here; another tenant's newcomer is another user, who finds nothing.
    let token = broker.site.token_of(TENANT, "newcomer", "user");
    let (client, mut events): (Client, Events) = connect(broker.site.config_with(broker.address, token)).await;
    assert_eq!(client.user(), newcomer);
    assert_eq!(next_texts(&mut events, 10).await, (0..10).map(|nth| nth.to_string()).collect::<Vec<_>>());
}
