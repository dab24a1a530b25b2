//! Who may do what, and that a refusal changes nothing and tells nothing.

use std::fmt::Debug;

use carillon_client::{
    Client, ConversationId, Ding, DingId, DingStates, ErrorCode, Events, MessageKind, NewConversation, Outlet,
    PublishError, Published, Recipients, RequestError, Role, Seq, StatusList, UserId,
};
use carillon_tests::harness::{
    Broker, connect, group_of, next_membership, next_message, patiently, publish_refusal, refusal, say,
};

const NOBODY: UserId = UserId(4_000_000_000);
const NOWHERE: ConversationId = ConversationId(4_711);

/// A client of another tenant.
async fn foreigner(broker: &Broker, handle: &str, role: &str) -> (Client, Events) {
    connect(broker.site.config_with(broker.address, broker.site.token_of("initech", handle, role))).await
}

/// Everything a refusal says.
fn words<T: Debug>(result: Result<T, RequestError>) -> (ErrorCode, String) {
    match result {
        Err(RequestError::Refused { code, text }) => (code, text),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn publish_words(result: Result<Published, PublishError>) -> (ErrorCode, String) {
    match result {
        Err(PublishError::Refused { code, text }) => (code, text),
        other => panic!("not a refusal: {other:?}"),
    }
}

/// What one is told who tries everything on a conversation.
async fn try_everything(client: &Client, conversation: ConversationId) -> Vec<(ErrorCode, String)> {
    let me = [client.user()];
    let ding = Ding::new(Recipients::Conversation(conversation), MessageKind::TEXT, "!");
    vec![
        publish_words(patiently(client.publish(conversation, MessageKind::TEXT, "?")).await),
        words(patiently(client.members(conversation)).await),
        words(patiently(client.add_members(conversation, &me, Role::MEMBER)).await),
        words(patiently(client.remove_members(conversation, &me)).await),
        words(patiently(client.leave(conversation)).await),
        words(patiently(client.mark_read(conversation, Seq(1))).await),
        words(patiently(client.mark_read(conversation, Seq(99))).await),
        words(patiently(client.read_counts(conversation, Seq(1))).await),
        words(patiently(client.read_counts(conversation, Seq(99))).await),
        words(patiently(client.ding(ding)).await),
    ]
}

/// What a conversation is, for its owner: nothing of it may change by what is refused.
async fn state(owner: &Client, conversation: ConversationId) -> impl PartialEq + Debug + use<> {
    let members = patiently(owner.members(conversation)).await.expect("the owner may list them");
    let listed = patiently(owner.conversations()).await.expect("one's own");
    (members, listed.into_iter().find(|one| one.entry.conversation == conversation))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_a_member_cannot_tell_a_conversation_from_none() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (foreign, _foreign_events) = foreigner(&broker, "mallory", "user").await;
    let (foreign_service, _foreign_service_events) = foreigner(&broker, "crm", "service").await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    let direct = say(&alice, bob.user(), "between us").await.conversation;
    let personal = next_membership(&mut alice_events).await.personal;
    say(&alice, group, "one").await;
    patiently(alice.remove_members(group, &[carol.user()])).await.unwrap();
    let (mallory, _mallory_events) = broker.client("mallory").await;

    let before = (state(&alice, group).await, state(&alice, direct).await);
    // Carol was a member once.
    for outsider in [&mallory, &carol, &foreign, &foreign_service] {
        let absent = try_everything(outsider, NOWHERE).await;
        assert!(absent.iter().all(|(code, _)| *code == ErrorCode::NOT_FOUND), "{absent:?}");
        for hidden in [group, direct, personal] {
            assert_eq!(try_everything(outsider, hidden).await, absent, "{hidden:?} and none answer alike");
        }
    }
    assert_eq!((state(&alice, group).await, state(&alice, direct).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_of_another_tenant_is_another_user() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    // More users there, so that some ids exist in the other tenant alone.
    let (foreign_crm, _crm_events) = foreigner(&broker, "crm", "service").await;
    let mut theirs = Vec::new();
    for nth in 0..10 {
        theirs.push(patiently(foreign_crm.create_user(&format!("theirs-{nth}"))).await.unwrap());
    }
    let (foreign_bob, mut foreign_bob_events) = foreigner(&broker, "bob", "user").await;
    let (foreign_alice, _foreign_alice_events) = foreigner(&broker, "alice", "user").await;

    let only_there = *theirs.iter().max().unwrap();
    for unknown in [only_there, NOBODY] {
        let refused = patiently(alice.publish(unknown, MessageKind::TEXT, "hello?")).await;
        assert_eq!(publish_refusal(refused), ErrorCode::UNKNOWN_USER);
        let made = patiently(alice.create_conversation(NewConversation::group([bob.user(), unknown]))).await;
        assert_eq!(refusal(made), ErrorCode::UNKNOWN_USER);
        let ding = Ding::new(Recipients::Users(vec![bob.user(), unknown]), MessageKind::TEXT, "!");
        assert_eq!(refusal(patiently(alice.ding(ding)).await), ErrorCode::UNKNOWN_USER);
    }
    assert_eq!(patiently(alice.handles(&[bob.user(), only_there])).await.unwrap(), [Some("bob".to_owned()), None]);
    assert_eq!(refusal(patiently(alice.find_user("theirs-0")).await), ErrorCode::UNKNOWN_USER);
    assert_eq!(patiently(alice.find_user("bob")).await.unwrap(), bob.user());
    assert_eq!(patiently(foreign_alice.find_user("bob")).await.unwrap(), foreign_bob.user());

    // Each bob hears his own alice only.
    let here = say(&alice, bob.user(), "to our bob").await;
    let there = say(&foreign_alice, foreign_bob.user(), "to their bob").await;
    assert_ne!(here.conversation, there.conversation);
    for (events, text) in [(&mut bob_events, "to our bob"), (&mut foreign_bob_events, "to their bob")] {
        assert_eq!(next_message(events).await.payload, text);
    }
    // And the DINGs of a tenant are nobody else's, not even to ask about.
    let ding = Ding::new(Recipients::Users(vec![bob.user()]), MessageKind::TEXT, "!");
    let ding = patiently(alice.ding(ding)).await.unwrap().ding;
    for foreign in [&foreign_bob, &foreign_alice, &foreign_crm] {
        assert_eq!(try_ding(foreign, ding).await, try_ding(foreign, DingId(ding.0 + 1)).await);
    }
}

async fn try_ding(client: &Client, ding: DingId) -> [(ErrorCode, String); 6] {
    let told = [
        words(patiently(client.confirm(ding)).await),
        words(patiently(client.recall_ding(ding)).await),
        words(patiently(client.ding_status(ding, DingStates::NONE, UserId(0), 1)).await),
        words(patiently(client.ding_attempts(ding, client.user())).await),
        words(patiently(client.remind_ding(ding, Outlet::APP)).await),
        words(patiently(client.watch_ding(ding)).await),
    ];
    assert!(told.iter().all(|(code, _)| *code == ErrorCode::NOT_FOUND), "{told:?}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_managed_by_owners_admins_and_services() {
    let broker = Broker::start();
    let (owner, _owner_events) = broker.client("owner").await;
    let (admin, _admin_events) = broker.client("admin").await;
    let (member, _member_events) = broker.client("member").await;
    let (guest, _guest_events) = broker.client("guest").await;
    let (crm, _crm_events) = broker.service("crm").await;
    let [owner_id, admin_id, member_id, guest_id] = [&owner, &admin, &member, &guest].map(Client::user);
    let group = group_of(&owner, &[admin_id, member_id]).await;
    patiently(owner.add_members(group, &[admin_id], Role::ADMIN)).await.unwrap();

    let before = state(&owner, group).await;
    for refused in [
        patiently(member.add_members(group, &[guest_id], Role::MEMBER)).await,
        patiently(member.remove_members(group, &[admin_id])).await,
        // Not even oneself: that is `leave`.
        patiently(member.remove_members(group, &[member_id])).await,
        patiently(member.add_members(group, &[member_id], Role::ADMIN)).await,
        // An admin is no owner, and makes none.
        patiently(admin.remove_members(group, &[owner_id])).await,
        patiently(admin.add_members(group, &[owner_id], Role::MEMBER)).await,
        patiently(admin.add_members(group, &[admin_id], Role::OWNER)).await,
        patiently(admin.add_members(group, &[guest_id], Role::OWNER)).await,
        // One who may not be removed spares those beside it.
        patiently(admin.remove_members(group, &[member_id, owner_id])).await,
        // The last owner stays, whoever asks among the members.
        patiently(owner.remove_members(group, &[owner_id])).await,
        patiently(owner.add_members(group, &[owner_id], Role::ADMIN)).await,
    ] {
        assert_eq!(refusal(refused), ErrorCode::FORBIDDEN);
    }
    // All or nothing: an unknown user, an unknown role, nobody.
    let unknown = patiently(owner.add_members(group, &[guest_id, NOBODY], Role::MEMBER)).await;
    assert_eq!(refusal(unknown), ErrorCode::UNKNOWN_USER);
    let role = patiently(owner.add_members(group, &[guest_id], Role(77))).await;
    assert_eq!(refusal(role), ErrorCode::INVALID);
    assert_eq!(state(&owner, group).await, before);

    patiently(admin.add_members(group, &[guest_id], Role::ADMIN)).await.unwrap();
    patiently(guest.remove_members(group, &[admin_id])).await.unwrap();
    assert_eq!(refusal(patiently(admin.members(group)).await), ErrorCode::NOT_FOUND);
    patiently(owner.add_members(group, &[member_id], Role::OWNER)).await.unwrap();
    patiently(member.remove_members(group, &[owner_id])).await.unwrap();

    // A service manages what it is no member of, last owners included.
    patiently(crm.remove_members(group, &[member_id])).await.unwrap();
    patiently(crm.add_members(group, &[owner_id], Role::OWNER)).await.unwrap();
    let members = patiently(crm.members(group)).await.unwrap();
    let members: Vec<_> = members.iter().map(|member| (member.user, member.role)).collect();
    assert_eq!(members, [(owner_id, Role::OWNER), (guest_id, Role::ADMIN)]);
    say(&crm, group, "from outside").await;
    let (operator, _operator_events) =
        connect(broker.site.config_with(broker.address, broker.site.token("operator", "admin"))).await;
    patiently(operator.add_members(group, &[admin_id], Role::MEMBER)).await.unwrap();
    assert_eq!(patiently(admin.members(group)).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_and_personal_conversations_have_their_members_for_good() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (crm, _crm_events) = broker.service("crm").await;
    let direct = say(&alice, bob.user(), "between us").await.conversation;
    let personal = next_membership(&mut alice_events).await.personal;
    let before = (state(&alice, direct).await, state(&alice, personal).await);
    for fixed in [direct, personal] {
        for who in [&alice, &crm] {
            let added = patiently(who.add_members(fixed, &[carol.user()], Role::MEMBER)).await;
            assert_eq!(refusal(added), ErrorCode::FORBIDDEN);
            let removed = patiently(who.remove_members(fixed, &[alice.user()])).await;
            assert_eq!(refusal(removed), ErrorCode::FORBIDDEN);
        }
        assert_eq!(refusal(patiently(alice.leave(fixed)).await), ErrorCode::FORBIDDEN);
        let by_service = patiently(crm.publish(fixed, MessageKind::TEXT, "an advertisement")).await;
        assert_eq!(publish_refusal(by_service), ErrorCode::NOT_FOUND);
    }
    let own = patiently(alice.publish(personal, MessageKind::TEXT, "dear diary")).await;
    assert_eq!(publish_refusal(own), ErrorCode::FORBIDDEN, "only the broker writes there");
    assert_eq!((state(&alice, direct).await, state(&alice, personal).await), before);
    // Whoever asks for one is told: these kinds make themselves.
    for kind in [carillon_client::ConversationKind::DIRECT, carillon_client::ConversationKind::PERSONAL] {
        let new = NewConversation { kind, ..NewConversation::group([bob.user()]) };
        assert_eq!(refusal(patiently(alice.create_conversation(new)).await), ErrorCode::INVALID);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_reach_as_far_as_there_are_messages() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    assert_eq!(refusal(patiently(bob.mark_read(group, Seq(1))).await), ErrorCode::INVALID, "nothing is there");
    for _ in 0..3 {
        say(&alice, group, "news").await;
    }
    for beyond in [4, 5, u64::MAX] {
        assert_eq!(refusal(patiently(bob.mark_read(group, Seq(beyond))).await), ErrorCode::INVALID);
    }
    assert_eq!(patiently(alice.read_counts(group, Seq(3))).await.unwrap().read, 0, "a refused mark is none");
    assert_eq!(patiently(bob.mark_read(group, Seq(3))).await.unwrap(), Seq(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_read_is_told_to_authors_and_to_those_who_manage() {
    let broker = Broker::start();
    let (owner, _owner_events) = broker.client("owner").await;
    let (author, _author_events) = broker.client("author").await;
    let (reader, _reader_events) = broker.client("reader").await;
    let (late, _late_events) = broker.client("late").await;
    let (stranger, _stranger_events) = broker.client("stranger").await;
    let (crm, _crm_events) = broker.service("crm").await;
    let group = group_of(&owner, &[author.user(), reader.user()]).await;
    let seq = say(&author, group, "who reads this?").await.seq;
    patiently(owner.add_members(group, &[late.user()], Role::MEMBER)).await.unwrap();

    for may in [&author, &owner, &crm] {
        assert_eq!(patiently(may.read_counts(group, seq)).await.unwrap().unread, 2, "{may:?}");
        assert_eq!(refusal(patiently(may.read_counts(group, seq.next())).await), ErrorCode::NOT_FOUND);
        assert_eq!(refusal(patiently(may.read_counts(group, Seq(0))).await), ErrorCode::NOT_FOUND);
        let list = patiently(may.read_status(group, seq, StatusList(9), UserId(0), 1)).await;
        assert_eq!(refusal(list), ErrorCode::INVALID);
    }
    let refused = patiently(reader.read_counts(group, seq)).await;
    assert_eq!(refusal(refused), ErrorCode::FORBIDDEN, "a member may see the message, and not who has read it");
    // Who may not have the message learns nothing of it, a member or not.
    for may_not in [&late, &stranger] {
        let hidden = words(patiently(may_not.read_counts(group, seq)).await);
        let absent = words(patiently(may_not.read_counts(group, Seq(99))).await);
        assert_eq!(hidden.0, ErrorCode::NOT_FOUND);
        assert_eq!(hidden, absent);
    }
    // The author is one still, though a member no longer.
    patiently(owner.remove_members(group, &[author.user()])).await.unwrap();
    assert_eq!(patiently(author.read_counts(group, seq)).await.unwrap().unread, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_is_its_senders_and_its_recipients() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    let (carol, _carol_events) = broker.client("carol").await;
    let (crm, _crm_events) = broker.service("crm").await;
    let ding = Ding::new(Recipients::Users(vec![bob.user()]), MessageKind::TEXT, "!");
    let ding = patiently(alice.ding(ding)).await.unwrap().ding;
    assert_eq!(try_ding(&carol, ding).await, try_ding(&carol, DingId(ding.0 + 1)).await, "hidden and absent alike");
    // A recipient confirms, and does not look over the sender's shoulder.
    assert_eq!(refusal(patiently(bob.recall_ding(ding)).await), ErrorCode::NOT_FOUND);
    let status = patiently(bob.ding_status(ding, DingStates::NONE, UserId(0), 1)).await;
    assert_eq!(refusal(status), ErrorCode::NOT_FOUND);
    assert_eq!(refusal(patiently(alice.confirm(ding)).await), ErrorCode::NOT_FOUND, "the sender is no recipient");
    let status = patiently(crm.ding_status(ding, DingStates::NONE, UserId(0), 1)).await.unwrap();
    assert_eq!((status.recipients, status.confirmed, status.sender), (1, 0, alice.user()));
    patiently(bob.confirm(ding)).await.unwrap();

    let nobody = Ding::new(Recipients::Users(Vec::new()), MessageKind::TEXT, "!");
    assert_eq!(refusal(patiently(alice.ding(nobody)).await), ErrorCode::INVALID);
    let oneself = Ding::new(Recipients::Users(vec![alice.user()]), MessageKind::TEXT, "!");
    assert_eq!(refusal(patiently(alice.ding(oneself)).await), ErrorCode::INVALID);
    let system = Ding::new(Recipients::Users(vec![bob.user()]), MessageKind::SYSTEM, "!");
    assert_eq!(refusal(patiently(alice.ding(system)).await), ErrorCode::INVALID);
}
