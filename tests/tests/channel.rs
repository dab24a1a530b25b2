//! Channels: few post, many read.

use carillon_client::{
    Client, ConversationKind, ErrorCode, Events, MessageKind, NewConversation, PostPolicy, Role, UserId,
};
use carillon_tests::harness::{Broker, next_message, next_texts, patiently, publish_refusal, say};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_posted_reaches_every_device_of_every_reader() {
    const READERS: usize = 12;
    let broker = Broker::start();
    let (editor, mut editor_events) = broker.client("editor").await;
    let mut readers: Vec<(Client, Events)> = Vec::new();
    for nth in 0..3 * READERS {
        readers.push(broker.client(&format!("reader-{}", nth % READERS)).await);
    }
    let users: Vec<_> = readers.iter().take(READERS).map(|(client, _)| client.user()).collect();
    let created = patiently(editor.create_conversation(NewConversation::channel(users))).await.unwrap();
    let texts: Vec<_> = (0..30).map(|nth| format!("news {nth}")).collect();
    let mut acks = Vec::new();
    for text in &texts {
        acks.push(editor.enqueue(created.conversation, MessageKind::TEXT, text.clone()).await.unwrap());
    }
    for (seq, ack) in (1..).zip(acks) {
        assert_eq!(patiently(ack).await.unwrap().seq.0, seq);
    }
    for events in readers.iter_mut().map(|(_, events)| events).chain([&mut editor_events]) {
        assert_eq!(next_texts(events, texts.len()).await, texts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_admins_post_and_members_do_not() {
    let broker = Broker::start();
    let (owner, mut owner_events) = broker.client("owner").await;
    let (admin, _admin_events) = broker.client("admin").await;
    let (member, mut member_events) = broker.client("member").await;
    let new = NewConversation::channel([admin.user(), member.user()]);
    let channel = patiently(owner.create_conversation(new)).await.unwrap().conversation;
    patiently(owner.add_members(channel, &[admin.user()], Role::ADMIN)).await.unwrap();

    say(&owner, channel, "by the owner").await;
    say(&admin, channel, "by an admin").await;
    let refused = patiently(member.publish(channel, MessageKind::TEXT, "by a member")).await;
    assert_eq!(publish_refusal(refused), ErrorCode::FORBIDDEN);

    // The role decides at the moment the message is sequenced, not the membership's age.
    patiently(owner.add_members(channel, &[member.user()], Role::ADMIN)).await.unwrap();
    let promoted = say(&member, channel, "by a new admin").await;
    assert_eq!(promoted.seq.0, 3, "a refused message takes no seq");
    patiently(owner.add_members(channel, &[member.user()], Role::MEMBER)).await.unwrap();
    let refused = patiently(member.publish(channel, MessageKind::TEXT, "once more")).await;
    assert_eq!(publish_refusal(refused), ErrorCode::FORBIDDEN);
    assert_eq!(say(&owner, channel, "the end").await.seq.0, 4);

    let all = ["by the owner", "by an admin", "by a new admin", "the end"];
    for events in [&mut owner_events, &mut member_events] {
        assert_eq!(next_texts(events, all.len()).await, all);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_post_is_a_policy_of_the_conversation_not_of_its_kind() {
    let mut broker = Broker::start();
    let (owner, _owner_events) = broker.client("owner").await;
    let (member, _member_events) = broker.client("member").await;
    let open = NewConversation { post_policy: PostPolicy::MEMBERS, ..NewConversation::channel([member.user()]) };
    let closed = NewConversation { post_policy: PostPolicy::ADMINS, ..NewConversation::group([member.user()]) };
    let open = patiently(owner.create_conversation(open)).await.unwrap().conversation;
    let closed = patiently(owner.create_conversation(closed)).await.unwrap().conversation;
    for restart in [false, true] {
        if restart {
            broker.stop().await;
            broker.start_again();
        }
        say(&member, open, "may I?").await;
        let refused = patiently(member.publish(closed, MessageKind::TEXT, "may I?")).await;
        assert_eq!(publish_refusal(refused), ErrorCode::FORBIDDEN);
        say(&owner, closed, "I may").await;
        let listed = patiently(member.conversations()).await.unwrap();
        let policy = |id| listed.iter().find(|one| one.entry.conversation == id).unwrap().entry.post_policy;
        assert_eq!((policy(open), policy(closed)), (PostPolicy::MEMBERS, PostPolicy::ADMINS));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_thousands_is_made_listed_and_heard() {
    const READERS: usize = 2_600;
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let mut naming = tokio::task::JoinSet::new();
    for nth in 0..READERS {
        let crm = crm.clone();
        naming.spawn(async move { crm.create_user(&format!("reader-{nth}")).await.unwrap() });
    }
    let mut users = patiently(naming.join_all()).await;
    users.sort_unstable();
    let new = NewConversation::channel(users.clone()).named("all hands");
    let channel = patiently(crm.create_conversation(new)).await.unwrap().conversation;
    say(&crm, channel, "hello, all").await;

    let (first, mut first_events) = broker.client("reader-0").await;
    let listed = patiently(first.members(channel)).await.unwrap();
    users.insert(0, crm.user());
    assert_eq!(listed.iter().map(|member| member.user).collect::<Vec<_>>(), users);
    let page = patiently(first.members_page(channel, UserId(0), 1_000)).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (1_000, users[1_000]));
    let listed = patiently(first.conversations()).await.unwrap();
    let entry = &listed.iter().find(|one| one.entry.kind == ConversationKind::CHANNEL).unwrap().entry;
    assert_eq!((entry.members as usize, entry.last_seq.0), (READERS + 1, 1));

    assert_eq!(next_message(&mut first_events).await.payload, "hello, all");
    // Those who were added by the last of the requests hear it too.
    let (_last, mut last_events) = broker.client(&format!("reader-{}", READERS - 1)).await;
    assert_eq!(next_message(&mut last_events).await.payload, "hello, all");
}
