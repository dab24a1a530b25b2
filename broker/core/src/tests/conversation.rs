//! Conversations: made, found, listed.

use super::*;
use carillon_protocol::control::{ConversationFind, ConversationList};
use carillon_protocol::limits::FRAME_BYTES_MAX;

fn make(world: &mut World, who: Principal, create: ConversationCreate) -> Frame {
    world.request(who, Request::ConversationCreate(create))
}

#[test]
fn what_cannot_be_made_is_refused() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let service = world.service("robot");
    let group = |name: &str| create(ConversationKind::GROUP, name, &[bob]);
    let long = "x".repeat(129);
    let nobody = Principal { user: NOBODY, ..ann };
    let mut check = |who, create, expected| assert_eq!(code(make(&mut world, who, create)), expected);
    check(ann, create(ConversationKind::DIRECT, "", &[bob]), ErrorCode::INVALID);
    check(ann, create(ConversationKind::PERSONAL, "", &[]), ErrorCode::INVALID);
    check(ann, create(ConversationKind(0), "", &[]), ErrorCode::INVALID);
    check(ann, ConversationCreate { post_policy: PostPolicy(3), ..group("") }, ErrorCode::INVALID);
    check(ann, ConversationCreate { receipts: ReceiptPolicy(4), ..group("") }, ErrorCode::INVALID);
    check(ann, group("news"), ErrorCode::FORBIDDEN);
    check(service, group(&long), ErrorCode::TOO_LARGE);
    check(service, group("a\tb"), ErrorCode::INVALID);
    check(ann, create(ConversationKind::GROUP, "", &[bob, nobody]), ErrorCode::UNKNOWN_USER);
    check(ann, ConversationCreate { members: [bob.user; 1_001].into(), ..group("") }, ErrorCode::TOO_LARGE);
}

#[test]
fn a_name_is_unique_and_one_s_own_is_found_again() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let (robot, other) = (world.service("robot"), world.service("other"));
    let news = create(ConversationKind::CHANNEL, "news", &[ann]);
    let made = frame!(ConversationCreated, make(&mut world, robot, news.clone()));
    assert_eq!(made.existed, 0);
    world.reload();
    let records = world.records.len();
    let again = frame!(ConversationCreated, make(&mut world, robot, news.clone()));
    assert_eq!((again.conversation, again.existed, world.records.len()), (made.conversation, 1, records));
    assert_eq!(code(make(&mut world, other, news.clone())), ErrorCode::NAME_TAKEN);
    let member = Principal { authority: Authority::Service, ..ann };
    assert_eq!(code(make(&mut world, member, news)), ErrorCode::NAME_TAKEN, "a member is no owner");
    let find = |name: &str| Request::ConversationFind(ConversationFind { request: 9, name: name.into() });
    for who in [ann, robot, other] {
        let found = frame!(ConversationCreated, world.request(who, find("news")));
        assert_eq!((found.conversation, found.existed), (made.conversation, 1));
    }
    assert_eq!(code(world.request(bob, find("news"))), ErrorCode::NOT_FOUND);
    assert_eq!(code(world.request(bob, find("olds"))), ErrorCode::NOT_FOUND);
    world.restart();
}

#[test]
fn every_member_is_told_once() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let before = world.signals.len();
    let group = world.group(ann, &[bob, ann, bob]);
    let told: Vec<_> = world
        .signals_since(before)
        .iter()
        .filter_map(|signal| match signal {
            Signal::Message { conversation, .. } => Some(conversation.ordinal()),
            _ => None,
        })
        .collect();
    assert_eq!(told, [1, 2]);
    let users = Vec::from([ann.user, bob.user]);
    assert!(matches!(&world.signals_since(before)[0],
        Signal::MembersAdded { conversation, users: added, .. } if *conversation == group && *added == users));
}

#[test]
fn the_list_comes_in_pages_that_fit_a_frame() {
    let mut world = World::new();
    let robot = world.service("robot");
    let names: Vec<_> = (0..1_050).map(|number| std::format!("{number:0>128}")).collect();
    for name in &names {
        frame!(ConversationCreated, make(&mut world, robot, create(ConversationKind::GROUP, name, &[])));
    }
    let (mut from, mut seen, mut pages) = (ConversationId(0), 0, 0);
    while from != ConversationId(u64::MAX) {
        let list = ConversationList { request: 9, from, limit: u16::MAX };
        let frame = world.request(robot, Request::ConversationList(list));
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        assert!(bytes.len() <= FRAME_BYTES_MAX, "{}", bytes.len());
        let page = frame!(Conversations, frame);
        assert!(page.entries.is_sorted_by(|a, b| a.conversation < b.conversation));
        assert!(page.entries.iter().all(|entry| entry.conversation >= from && entry.peer == UserId(u32::MAX)));
        seen += page.entries.len();
        (from, pages) = (page.next, pages + 1);
    }
    assert_eq!((seen, pages), (1_051, 2));
    let list = ConversationList { request: 9, from: ConversationId(0), limit: 0 };
    let page = frame!(Conversations, world.request(robot, Request::ConversationList(list)));
    assert_eq!((page.entries.len(), page.next.ordinal()), (1, 2));
}

#[test]
fn a_direct_conversation_names_the_peer() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let publish = Publish { target: Target::USER, target_id: u64::from(ann.user.0), ..message(1, NOWHERE) };
    let direct = frame!(Published, world.publish(bob, publish)).conversation;
    for (who, peer) in [(ann, bob), (bob, ann)] {
        let list = ConversationList { request: 9, from: direct, limit: 10 };
        let page = frame!(Conversations, world.request(who, Request::ConversationList(list)));
        let [entry] = page.entries[..] else { panic!("{page:?}") };
        assert_eq!((entry.peer, entry.members, entry.last_seq), (peer.user, 2, Seq(1)));
    }
}
