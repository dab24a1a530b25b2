//! Canonical bytes, damaged bytes, foreign records.

use super::*;
use crate::conversation::Conversation;
use crate::delivery::Window;
use crate::directory::Tenant;
use crate::input::BoundedCatchUp;
use crate::limits::WINDOWS_A_DEVICE_MAX;
use crate::membership::{Membership, Stint};
use crate::own::{OwnMessages, Span};
use crate::record::{MembersRemoved, ReadMarked, TenantAdded, UserAdded};
use crate::user::User;
use crate::{ApplyError, Contradiction, StateError};
use alloc::format;
use alloc::sync::Arc;
use carillon_protocol::control::Leave;
use carillon_protocol::ding::{DingConfirm, DingRemind};
use carillon_protocol::ids::DingId;
use carillon_protocol::kinds::{Change, Outlet};
use carillon_protocol::receipt::MarkRead;

/// A small world with something of everything.
pub(super) fn rich() -> World {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let robot = world.service("robot");
    let named = create(ConversationKind::CHANNEL, "news", &[ann, bob]);
    world.request(robot, Request::ConversationCreate(named));
    let group = world.group(ann, &[bob, eve]);
    world.post(ann, group);
    world.post(bob, group);
    let publish = Publish { target: Target::USER, target_id: u64::from(eve.user.0), ..message(2, NOWHERE) };
    world.publish(ann, publish);
    world.request(bob, Request::MarkRead(MarkRead { request: 9, conversation: group, up_to: Seq(2) }));
    world.request(eve, Request::Leave(Leave { request: 9, conversation: group }));
    let window = BoundedCatchUp {
        tenant: bob.tenant,
        user: bob.user,
        device: DEVICE,
        from: Position(2),
        through: Position(5),
        newest: 3,
    };
    world.handle(Input::CatchUpBounded(window));
    ding::state::make_some(&mut world, [ann, bob, eve], group);
    world
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let mut world = World::new();
    world.reload();
    world = rich();
    world.reload();
    world.restart();
}

#[test]
fn a_state_cut_short_or_too_long_is_refused() {
    let world = rich();
    let mut bytes = bytes_of(&world.shard);
    for end in 0..bytes.len() {
        assert!(matches!(Shard::decode_state(SHARD, &bytes[..end]), Err(StateError::Short(_))), "cut at {end}");
    }
    bytes.push(0);
    assert_eq!(Shard::decode_state(SHARD, &bytes).err(), Some(StateError::Trailing(1)));
    for version in [0, 1, 2, 4] {
        bytes[0] = version;
        assert_eq!(Shard::decode_state(SHARD, &bytes).err(), Some(StateError::Version(version)));
    }
    bytes[0] = 3;
    assert_eq!(Shard::decode_state(ShardId(4), &bytes).err(), Some(StateError::OtherShard(SHARD)));
}

#[test]
fn users_without_conversations_are_refused_before_there_are_many_of_them() {
    let with = |users: usize| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&rich().shard)).unwrap();
        let mut tenant = Tenant::new("umbra".into());
        for nth in 0..users {
            tenant.users.push(User::new(&Arc::from(format!("{nth}")), NOWHERE));
        }
        shard.directory.tenants.push(tenant);
        Shard::decode_state(SHARD, &bytes_of(&shard)).err()
    };
    assert_eq!(with(0), Some(StateError::Damaged("a tenant has no users")));
    assert_eq!(with(1), Some(StateError::Damaged("a user has no personal conversation")));
    assert_eq!(with(100), Some(StateError::Short("conversations")));
}

#[test]
fn marks_that_cannot_be_are_refused() {
    let world = rich();
    let group = ConversationId::new(SHARD, 6);
    let check = |change: &dyn Fn(&mut Conversation), expected: &'static str| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        change(shard.conversations.get_mut(group).unwrap());
        let decoded = Shard::decode_state(SHARD, &bytes_of(&shard)).err();
        assert_eq!(decoded, (!expected.is_empty()).then_some(StateError::Damaged(expected)));
    };
    fn member(group: &mut Conversation, user: u32, change: impl FnOnce(&mut Membership)) {
        group.members.update(UserId(user), change).unwrap();
    }
    let stint = |group: &mut Conversation, user, change: &dyn Fn(&mut Stint)| {
        member(group, user, |member| change(&mut member.latest.stint));
    };
    let marked = |group: &mut Conversation, user, at| stint(group, user, &|stint| stint.marked_at = at);
    let head = world.shard.head();
    let marked_at = world.shard.conversations.get(group).unwrap().newest_mark;
    check(&|group| stint(group, 1, &|stint| assert_eq!(stint.marked_at, marked_at)), "");
    check(&|group| marked(group, 1, Position(0)), "a watermark moved without a mark, or a mark moved none");
    check(&|group| marked(group, 0, marked_at), "a watermark moved without a mark, or a mark moved none");
    check(&|group| marked(group, 1, Position(1)), "a mark is outside its stint");
    check(&|group| group.newest_mark.0 -= 1, "a mark is beyond the conversation's newest");
    check(&|group| group.newest_mark = head.next(), "a newest mark is beyond the head");
    let newest = "a member's newest message is not the newest of its own messages";
    check(&|group| member(group, 0, |member| member.latest.newest_own = Seq(2)), newest);
    let beyond = "a member's newest message is beyond the conversation's last";
    check(&|group| member(group, 0, |member| member.latest.newest_own = Seq(3)), beyond);
}

#[test]
fn own_messages_that_cannot_be_are_refused() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let group = world.group(ann, &[bob]);
    for who in [ann, bob, ann, ann, bob] {
        world.post(who, group);
    }
    world.request(ann, Request::MarkRead(MarkRead { request: 9, conversation: group, up_to: Seq(1) }));
    let check = |spans: &[(u64, u64, u64)], expected: &'static str| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        let span = |&(first, last, own): &(u64, u64, u64)| Span { first: Seq(first), last: Seq(last), own };
        // As the newest of them says, so that the rest is judged.
        let newest = spans.last().map_or(0, |(_, last, _)| *last);
        let members = &mut shard.conversations.get_mut(group).unwrap().members;
        let changed = members.update(ann.user, |member| {
            member.rest.own = OwnMessages::from_spans(&spans.iter().map(span).collect::<Vec<_>>());
            member.latest.newest_own = Seq(newest.min(5));
        });
        assert!(changed.is_some());
        let decoded = Shard::decode_state(SHARD, &bytes_of(&shard)).err();
        assert_eq!(decoded, (!expected.is_empty()).then_some(StateError::Damaged(expected)), "{spans:?}");
    };
    check(&[(3, 4, 2)], "");
    check(&[(1, 2, 1), (4, 4, 1)], "");
    check(&[(3, 5, 2)], "");
    check(&[(3, 4, 3)], "a span has no own messages or too many");
    check(&[(3, 4, 0)], "a span has no own messages or too many");
    check(&[(4, 3, 1)], "a span has no own messages or too many");
    check(&[(2, 2, 1), (3, 3, 1)], "spans of own messages touch");
    check(&[(1, 1, 1)], "own messages are outside their stint or before its watermark");
    check(&[(0, 4, 1)], "own messages are outside their stint or before its watermark");
    check(&[(4, 6, 1)], "own messages are outside their stint or before its watermark");
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let world = rich();
    let check = |count: usize, (from, through): (u64, u64), expected: &'static str| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        let device = &mut shard.directory.known_user(TenantId(0), UserId(1)).unwrap().clients_mut().devices[0];
        device.windows = alloc::vec![Window { from: Position(from), through: Position(through), newest: 1 }; count];
        let decoded = Shard::decode_state(SHARD, &bytes_of(&shard)).err();
        assert_eq!(decoded, (!expected.is_empty()).then_some(StateError::Damaged(expected)));
    };
    check(WINDOWS_A_DEVICE_MAX, (3, 3), "");
    check(WINDOWS_A_DEVICE_MAX + 1, (3, 3), "a device has too many windows");
    check(1, (0, 3), "a window ends before it begins");
    check(1, (4, 3), "a window ends before it begins");
    check(1, (4, 1 << 47), "a number is beyond what can be counted to");
}

/// What is accepted is whole: it is written again as it was read, and goes on working.
fn check_total(bytes: &[u8]) {
    let Ok(mut shard) = Shard::decode_state(SHARD, bytes) else {
        return;
    };
    assert!(bytes_of(&shard) == bytes, "another state than was read");
    shard.resume();
    for outlet in shard.outlets_waiting() {
        while ding::next(&mut shard, outlet).is_some() {}
    }
    let mut effects = Effects::default();
    // Half-way first, so that steps begin, and then to the end of all.
    for now in [70_000, u64::MAX] {
        while shard.next_timer().is_some_and(|next| next.0 <= now) {
            shard.handle(Timestamp(now), Input::Tick, &mut effects);
            effects = Effects::default();
            if now == u64::MAX {
                break;
            }
        }
    }
    for handle in ["user-0", "user-2", "robot", "new"] {
        let (tenant, handle, authority) = ("acme".into(), handle.into(), Authority::Admin);
        let attach = Attach { tenant, handle, authority, device: DEVICE, producer: Some(PRODUCER) };
        shard.handle(Timestamp(u64::MAX), Input::Attach(attach), &mut effects);
        let Some(Reply::Attached(attached)) = effects.reply.take() else { continue };
        let who = Principal { tenant: attached.tenant, user: attached.user, authority: Authority::Admin };
        for ordinal in 0..8 {
            let id = ConversationId::new(SHARD, ordinal);
            let publish = message(attached.producer_highest.saturating_add(1), id);
            shard.handle(Timestamp(0), Input::Publish { who, producer: Some(PRODUCER), publish }, &mut effects);
            let leave = Request::Leave(Leave { request: 9, conversation: id });
            shard.handle(Timestamp(0), Input::Request { who, request: leave }, &mut effects);
            let confirm = Request::DingConfirm(DingConfirm { request: 9, ding: DingId::new(SHARD, ordinal) });
            shard.handle(Timestamp(0), Input::Request { who, request: confirm }, &mut effects);
            let remind = DingRemind { request: 9, ding: DingId::new(SHARD, ordinal), outlet: Outlet::SMS };
            let remind = Request::DingRemind(remind, Ok(()));
            shard.handle(Timestamp(0), Input::Request { who, request: remind }, &mut effects);
        }
    }
}

#[test]
fn a_state_with_any_byte_changed_is_refused_or_whole() {
    let world = rich();
    let bytes = bytes_of(&world.shard);
    let mut accepted = 0;
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            check_total(&damaged);
            accepted += usize::from(Shard::decode_state(SHARD, &damaged).is_ok());
        }
    }
    assert!(accepted > 0, "some changes make another valid state, such as another fingerprint");
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_no_state(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        check_total(&bytes);
        // Behind a good header, so that the lists are reached.
        let mut header = bytes_of(&Shard::new(SHARD));
        header.truncate(19);
        header.append(&mut bytes);
        check_total(&header);
    }
}

#[test]
fn a_record_that_contradicts_the_state_is_named() {
    let world = rich();
    let time = Timestamp(65_000);
    let (tenant, user, group) = (TenantId(0), UserId(0), ConversationId::new(SHARD, 6));
    let check = |record: Record, expected: Contradiction| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        let position = shard.head().next();
        let error = shard.apply(&record, &mut Effects::default());
        assert_eq!(error, Err(ApplyError { position, contradiction: expected }));
    };
    let name = || "acme".into();
    check(TenantAdded { time, tenant: TenantId(7), name: name() }.into(), not_next("tenant", 7));
    let double = TenantAdded { time, tenant: TenantId(1), name: name() };
    check(double.into(), Contradiction::Present { what: "name of tenant", id: 1 });
    let personal = ConversationId::new(SHARD, 2);
    let added = UserAdded { time, tenant, user: UserId(4), personal, handle: "zoe".into() };
    check(added.into(), not_next("conversation", personal.0));
    let past = ReadMarked { time: Timestamp(1), conversation: group, user, up_to: Seq(1) };
    check(past.into(), Contradiction::Backwards { what: "time", id: 1 });
    let marked = |user, up_to| ReadMarked { time, conversation: group, user: UserId(user), up_to: Seq(up_to) };
    check(marked(1, 1).into(), Contradiction::Backwards { what: "watermark", id: 1 });
    check(marked(1, 3).into(), Contradiction::Range { what: "watermark", id: 3 });
    check(marked(2, 2).into(), Contradiction::Unknown { what: "member", id: 2 });
    let users = Vec::from([UserId(2)]);
    let removed = MembersRemoved { time, conversation: group, change: Change::LEFT, by: user, users };
    check(removed.into(), Contradiction::Unknown { what: "member", id: 2 });
    let Some(message @ Record::Message(_)) = world.records.iter().find(|record| matches!(record, Record::Message(_)))
    else {
        panic!("rich has messages")
    };
    let mut message = message.clone();
    if let Record::Message(message) = &mut message {
        message.deliver.time = time;
    }
    check(message.clone(), not_next("position of message", message_position(&message)));
}

pub(super) fn not_next(what: &'static str, id: u64) -> Contradiction {
    Contradiction::NotNext { what, id }
}

fn message_position(record: &Record) -> u64 {
    match record {
        Record::Message(message) => message.deliver.position.0,
        other => panic!("{other:?}"),
    }
}
