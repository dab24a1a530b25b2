//! Stints, roles, limits of memberships.

use super::*;
use crate::effect::{Forgotten, Moment};
use crate::limits::{CONVERSATIONS_A_USER_MAX, STINTS_MAX};
use carillon_protocol::control::{Leave, MemberList, MembersAdd, MembersRemove};
use carillon_protocol::kinds::Role;

fn add(conversation: ConversationId, role: Role, users: &[Principal]) -> Request {
    let members = users.iter().map(|user| user.user).collect();
    Request::MembersAdd(MembersAdd { request: 9, conversation, role, members })
}

fn remove(conversation: ConversationId, users: &[Principal]) -> Request {
    let members = users.iter().map(|user| user.user).collect();
    Request::MembersRemove(MembersRemove { request: 9, conversation, members })
}

fn leave(conversation: ConversationId) -> Request {
    Request::Leave(Leave { request: 9, conversation })
}

fn check(world: &mut World, who: Principal, request: Request, expected: Option<ErrorCode>) {
    let what = std::format!("{who:?} {request:?}");
    let frame = world.request(who, request);
    match expected {
        Some(expected) => assert_eq!(code(frame), expected, "{what}"),
        None => _ = frame!(Done, frame),
    }
}

#[test]
fn stints_begin_after_joining_and_end_with_leaving() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let group = world.group(ann, &[]);
    world.post(ann, group);
    check(&mut world, ann, add(group, Role::MEMBER, &[bob]), None);
    let joined = Moment { seq: Seq(1), position: Position(world.shard.head().0 - 1) };
    world.post(ann, group);
    check(&mut world, bob, leave(group), None);
    let left = Moment { seq: Seq(2), position: Position(world.shard.head().0 - 1) };
    let before = world.signals.len();
    check(&mut world, ann, add(group, Role::ADMIN, &[bob]), None);
    assert!(matches!(world.signals_since(before)[0], Signal::MembersAdded { .. }));
    world.restart();
    world.reload();
    let stints = world.attach("acme", "user-1").unwrap().stints;
    let stints: Vec<_> = stints.iter().filter(|stint| stint.conversation == group).collect();
    assert_eq!((stints[0].joined, stints[0].left, stints[1].left), (joined, Some(left), None));
    assert_eq!(stints.len(), 2);
    let list = MemberList { request: 9, conversation: group, from: UserId(0), limit: 10 };
    let members = frame!(Members, world.request(bob, Request::MemberList(list)));
    assert_eq!(
        members.entries.iter().map(|entry| (entry.role, entry.joined)).collect::<Vec<_>>(),
        [(Role::OWNER, Seq(0)), (Role::ADMIN, Seq(2))]
    );
}

#[test]
fn roles_decide_who_changes_members() {
    let mut world = World::new();
    let [ann, bob, eve, dan] = world.users();
    let robot = world.service("robot");
    let group = world.group(ann, &[bob]);
    let w = &mut world;
    let (forbidden, not_found) = (Some(ErrorCode::FORBIDDEN), Some(ErrorCode::NOT_FOUND));
    check(w, bob, add(group, Role::MEMBER, &[eve]), forbidden);
    check(w, eve, add(group, Role::MEMBER, &[eve]), not_found);
    check(w, eve, remove(group, &[ann]), not_found);
    check(w, eve, leave(group), not_found);
    check(w, ann, add(group, Role::ADMIN, &[bob]), None);
    check(w, bob, add(group, Role::MEMBER, &[eve]), None);
    check(w, bob, add(group, Role::OWNER, &[eve]), forbidden);
    check(w, bob, add(group, Role::MEMBER, &[ann]), forbidden);
    check(w, bob, remove(group, &[eve, ann]), forbidden);
    check(w, ann, remove(group, &[ann]), forbidden);
    check(w, ann, add(group, Role::MEMBER, &[ann]), forbidden);
    check(w, ann, leave(group), forbidden);
    check(w, ann, add(group, Role::OWNER, &[eve]), None);
    check(w, ann, leave(group), None);
    check(w, ann, leave(group), not_found);
    check(w, eve, remove(group, &[eve, bob]), forbidden);
    check(w, robot, remove(group, &[eve]), None);
    check(w, robot, add(group, Role::OWNER, &[dan]), None);
    check(w, ann, add(group, Role(0), &[ann]), not_found);
    check(w, robot, add(group, Role(9), &[ann]), Some(ErrorCode::INVALID));
    check(w, robot, add(group, Role::MEMBER, &[]), Some(ErrorCode::INVALID));
    check(w, robot, add(group, Role::MEMBER, &[ann; 1_001]), Some(ErrorCode::TOO_LARGE));
    check(w, robot, add(group, Role::MEMBER, &[Principal { user: NOBODY, ..ann }]), Some(ErrorCode::UNKNOWN_USER));
    let personal = ConversationId::new(SHARD, 1);
    check(w, ann, add(personal, Role::MEMBER, &[bob]), forbidden);
    check(w, ann, leave(personal), forbidden);
    check(w, bob, leave(personal), not_found);
    let alone = w.group(dan, &[]);
    check(w, dan, leave(alone), None);
    world.restart();
    world.reload();
}

#[test]
fn what_changes_nothing_makes_no_record_and_a_role_alone_no_stint() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob]);
    let before = world.records.len();
    check(&mut world, ann, add(group, Role::MEMBER, &[bob]), None);
    check(&mut world, ann, remove(group, &[eve, Principal { user: NOBODY, ..eve }]), None);
    assert_eq!(world.records.len(), before);
    let signals = world.signals.len();
    check(&mut world, ann, add(group, Role::ADMIN, &[bob]), None);
    assert!(matches!(world.signals_since(signals), [Signal::Message { .. }]), "an event for bob, no stint");
    assert_eq!(world.records.len(), before + 2);
}

#[test]
fn the_oldest_stints_are_dropped() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let group = world.group(ann, &[]);
    world.post(ann, group);
    let mut left = Vec::new();
    for _ in 0..STINTS_MAX + 5 {
        check(&mut world, ann, add(group, Role::MEMBER, &[bob]), None);
        world.post(ann, group);
        check(&mut world, ann, remove(group, &[bob]), None);
        left.push(Moment { seq: Seq(left.len() as u64 + 2), position: Position(world.shard.head().0 - 1) });
    }
    let attached = world.attach("acme", "user-1").unwrap();
    let stints: Vec<_> = attached.stints.iter().filter(|stint| stint.conversation == group).collect();
    assert_eq!(stints.len(), STINTS_MAX);
    assert!(stints.is_sorted_by(|a, b| a.left.unwrap().position < b.joined.position));
    assert_eq!(attached.forgotten, [Forgotten { conversation: group, first: Seq(2), last: left[4] }]);
    world.restart();
    world.reload();
    assert_eq!(world.attach("acme", "user-1").unwrap(), attached, "what was forgotten is still known to be");
}

#[test]
fn a_user_is_in_so_many_conversations_at_most_and_past_ones_are_forgotten() {
    let mut shard = Shard::new(SHARD);
    let mut effects = Effects::default();
    let mut handle = |shard: &mut Shard, input| {
        effects = Effects::default();
        shard.handle(Timestamp(1), input, &mut effects);
        effects.reply.take()
    };
    let attach = Attach {
        tenant: "acme".into(),
        handle: "ann".into(),
        authority: Authority::User,
        device: DEVICE,
        producer: None,
    };
    handle(&mut shard, Input::Attach(attach.clone()));
    let who = Principal { tenant: TenantId(0), user: UserId(0), authority: Authority::User };
    let request = |request| Input::Request { who, request };
    let group = || request(Request::ConversationCreate(create(ConversationKind::GROUP, "", &[])));
    for _ in 1..CONVERSATIONS_A_USER_MAX {
        assert!(matches!(handle(&mut shard, group()), Some(Reply::Frame(Frame::ConversationCreated(_)))));
    }
    let Some(Reply::Frame(full)) = handle(&mut shard, group()) else { panic!("no reply") };
    assert_eq!(code(full), ErrorCode::LIMIT_REACHED);
    let mut fourth_left = Position(0);
    for ordinal in 2..=CONVERSATIONS_A_USER_MAX as u64 {
        let head = shard.head();
        handle(&mut shard, request(leave(ConversationId::new(SHARD, ordinal))));
        if ordinal == 5 {
            fourth_left = head.next();
        }
    }
    for ordinal in 1..=5 {
        handle(&mut shard, group());
        let ordinal = CONVERSATIONS_A_USER_MAX as u64 + ordinal;
        handle(&mut shard, request(leave(ConversationId::new(SHARD, ordinal))));
    }
    let Some(Reply::Attached(attached)) = handle(&mut shard, Input::Attach(attach)) else { panic!("refused") };
    assert_eq!(attached.stints.len(), CONVERSATIONS_A_USER_MAX + 1);
    assert_eq!(attached.stints[1].conversation, ConversationId::new(SHARD, 6), "the four left first are forgotten");
    let last = Moment { seq: Seq(0), position: fourth_left };
    assert_eq!(attached.forgotten, [Forgotten { conversation: ConversationId(0), first: Seq(0), last }]);
    let again = Shard::decode_state(SHARD, &bytes_of(&shard)).unwrap();
    assert_eq!(again.directory.user(who.tenant, who.user).unwrap().past(), {
        shard.directory.user(who.tenant, who.user).unwrap().past()
    });
}

#[test]
fn members_are_listed_in_pages_to_those_who_may_know() {
    let mut world = World::new();
    let users: [Principal; 7] = world.users();
    let robot = world.service("robot");
    let group = world.group(users[3], &users[..6]);
    let list = |from| Request::MemberList(MemberList { request: 9, conversation: group, from, limit: 4 });
    let first = frame!(Members, world.request(robot, list(UserId(0))));
    assert_eq!((first.entries.len(), first.next), (4, UserId(4)));
    let last = frame!(Members, world.request(users[0], list(first.next)));
    assert_eq!((last.entries.len(), last.next), (2, UserId(u32::MAX)));
    assert_eq!(code(world.request(users[6], list(UserId(0)))), ErrorCode::NOT_FOUND);
}
