//! Attaching, users, devices, producers, cursors.

use super::*;
use crate::effect::Moment;
use crate::input::CursorMove;
use crate::limits::{CURSORS_A_RECORD_MAX, DEVICES_A_USER_MAX, PRODUCERS_A_USER_MAX};
use carillon_protocol::control::{UserFind, UserLookup};
use carillon_protocol::kinds::Retired;
use carillon_protocol::session::Retire;

#[test]
fn the_first_attach_makes_tenant_user_device_producer_and_personal_conversation() {
    let mut world = World::new();
    let attached = world.attach("acme", "ann").unwrap();
    assert_eq!((attached.tenant, attached.user, attached.as_of), (TenantId(0), UserId(0), Position(4)));
    let [stint] = attached.stints[..] else { panic!("{:?}", attached.stints) };
    let joined = Moment { seq: Seq(0), position: Position(2) };
    assert_eq!((stint.conversation, stint.joined, stint.left), (ConversationId::new(SHARD, 1), joined, None));
    let again = world.attach("acme", "ann").unwrap();
    assert_eq!(again, attached, "the second attach makes nothing");
    assert_eq!(world.attach("acme", "bob").unwrap().user, UserId(1));
    let other = world.attach("globex", "ann").unwrap();
    assert_eq!((other.tenant, other.user), (TenantId(1), UserId(0)));
    world.restart();
}

#[test]
fn names_out_of_range_are_refused() {
    let mut world = World::new();
    let long = "x".repeat(65);
    for (tenant, handle) in [("", "ann"), ("acme", ""), (&long, "ann"), ("acme", &long), ("acme", "a\nb")] {
        assert_eq!(world.attach(tenant, handle), Err(ErrorCode::UNAUTHENTICATED), "{tenant:?} {handle:?}");
    }
    assert!(world.records.is_empty());
    world.attach("acme", &"ü".repeat(32)).unwrap();
}

#[test]
fn devices_and_producers_are_bounded_until_one_is_retired() {
    let mut world = World::new();
    for id in 0..DEVICES_A_USER_MAX as u64 {
        world.attach_as("acme", "ann", DeviceId(id), None).unwrap();
    }
    let refused = world.attach_as("acme", "ann", DeviceId(99), None);
    assert_eq!(refused, Err(ErrorCode::TOO_MANY_DEVICES));
    for id in 0..PRODUCERS_A_USER_MAX as u64 {
        world.attach_as("acme", "ann", DeviceId(0), Some(ProducerId(id))).unwrap();
    }
    let refused = world.attach_as("acme", "ann", DeviceId(0), Some(ProducerId(99)));
    assert_eq!(refused, Err(ErrorCode::TOO_MANY_PRODUCERS));
    let ann = Principal { tenant: TenantId(0), user: UserId(0), authority: Authority::User };
    for what in [Retired::DEVICE, Retired::PRODUCER] {
        let retire = Retire { request: 9, what, id: 3 };
        frame!(Done, world.request(ann, Request::Retire(retire.clone())));
        assert_eq!(code(world.request(ann, Request::Retire(retire))), ErrorCode::NOT_FOUND);
    }
    assert!(matches!(
        world.signals[1..],
        [Signal::DeviceRetired { device: DeviceId(3), .. }, Signal::ProducerRetired { producer: ProducerId(3), .. }]
    ));
    world.attach_as("acme", "ann", DeviceId(99), Some(ProducerId(99))).unwrap();
    let strange = Retire { request: 9, what: Retired(7), id: 3 };
    assert_eq!(code(world.request(ann, Request::Retire(strange))), ErrorCode::INVALID);
    world.restart();
}

#[test]
fn users_are_found_and_named_on_purpose() {
    let mut world = World::new();
    let [ann] = world.users();
    let admin = Principal { authority: Authority::Admin, ..ann };
    let find = |handle: &str, create| Request::UserFind(UserFind { request: 9, create, handle: handle.into() });
    assert_eq!(frame!(UserFound, world.request(ann, find("user-0", 0))).user, ann.user);
    assert_eq!(code(world.request(ann, find("bob", 0))), ErrorCode::UNKNOWN_USER);
    assert_eq!(code(world.request(ann, find("bob", 1))), ErrorCode::FORBIDDEN);
    assert_eq!(code(world.request(admin, find("b\u{7}b", 1))), ErrorCode::INVALID);
    let bob = frame!(UserFound, world.request(admin, find("bob", 1))).user;
    assert_eq!(frame!(UserFound, world.request(ann, find("bob", 1))).user, bob);
    assert_eq!(world.attach("acme", "bob").unwrap().user, bob);

    let lookup = |users| Request::UserLookup(UserLookup { request: 9, users });
    let found = frame!(UserHandles, world.request(ann, lookup(Vec::from([bob, NOBODY, ann.user]))));
    assert_eq!(found.handles.as_str(), "bobuser-0");
    assert_eq!(found.entries.iter().map(|entry| entry.handle_bytes).collect::<Vec<_>>(), [3, 0, 6]);
    assert_eq!(code(world.request(ann, lookup(Vec::new()))), ErrorCode::INVALID);
    assert_eq!(code(world.request(ann, lookup([bob; 1_001].into()))), ErrorCode::TOO_LARGE);
}

#[test]
fn a_principal_that_is_not_attached_is_refused() {
    let mut world = World::new();
    let [ann] = world.users();
    for who in [Principal { tenant: ELSEWHERE, ..ann }, Principal { user: NOBODY, ..ann }] {
        let list = carillon_protocol::control::ConversationList { request: 9, from: ConversationId(0), limit: 1 };
        assert_eq!(code(world.request(who, Request::ConversationList(list))), ErrorCode::UNKNOWN_USER);
        assert_eq!(code(world.publish(who, message(1, NOWHERE))), ErrorCode::NO_PRODUCER);
    }
}

#[test]
fn cursors_move_forward_up_to_the_head() {
    let mut world = World::new();
    let [ann] = world.users();
    let (tenant, user, device) = (ann.tenant, ann.user, DEVICE);
    let moved = |position| CursorMove { tenant, user, device, position: Position(position) };
    let cursor = |world: &World| world.shard.directory.user(tenant, user).unwrap().devices()[0].cursor.0;
    let mut check = |moves: &[CursorMove], records: usize, expected: u64| {
        let before = world.records.len();
        assert_eq!(world.handle(Input::Cursors(moves.into())), None);
        assert_eq!((world.records.len() - before, cursor(&world)), (records, expected), "{moves:?}");
    };
    check(&[], 0, 0);
    check(&[moved(5)], 0, 0);
    check(&[moved(1), moved(3), moved(2)], 1, 3);
    check(&[moved(3), moved(1)], 0, 3);
    check(&[CursorMove { user: NOBODY, ..moved(4) }, CursorMove { device: DeviceId(1), ..moved(4) }], 0, 3);
    check(&[CursorMove { tenant: ELSEWHERE, ..moved(4) }, moved(4)], 1, 4);
    world.restart();
}

#[test]
fn many_cursors_take_several_records() {
    let mut world = World::new();
    let count = CURSORS_A_RECORD_MAX + 1;
    let moves = (0..count).map(|number| {
        let Attached { tenant, user, .. } = world.attach("acme", &std::format!("{number}")).unwrap();
        CursorMove { tenant, user, device: DEVICE, position: FIRST }
    });
    let moves: Vec<_> = moves.collect();
    let before = world.records.len();
    world.handle(Input::Cursors(moves));
    assert_eq!(world.records.len() - before, 2);
    world.restart();
}
