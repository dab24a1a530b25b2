//! Publishing: idempotence, targets, post policies, isolation.

use super::*;
use carillon_protocol::control::MembershipChanged;
use carillon_protocol::deliver::AUTHOR_BROKER;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::kinds::Change;
use carillon_protocol::limits::PAYLOAD_BYTES_MAX;

fn to_user(number: u64, user: UserId) -> Publish {
    Publish { target: Target::USER, target_id: u64::from(user.0), ..message(number, NOWHERE) }
}

#[test]
fn a_repeat_gets_the_first_answer_even_after_a_restart() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let group = world.group(ann, &[bob]);
    let first = frame!(Published, world.publish(ann, message(1, group)));
    assert_eq!((first.seq, first.repeated), (Seq(1), 0));
    assert_eq!(frame!(Published, world.publish(bob, message(1, group))).seq, Seq(2));
    for _ in 0..2 {
        world.now.0 += 500;
        let again = frame!(Published, world.publish(ann, message(1, group)));
        assert_eq!(again, Published { repeated: 1, ..first.clone() });
        let other = Publish { payload: Bytes::from_static(b"other"), ..message(1, group) };
        assert_eq!(code(world.publish(ann, other)), ErrorCode::PRODUCER_CONFLICT);
        world.restart();
    }
    let second = Publish { low: 2, ..message(2, group) };
    frame!(Published, world.publish(ann, second));
    assert_eq!(code(world.publish(ann, message(1, group))), ErrorCode::ALREADY_SETTLED);
    assert_eq!(world.attach("acme", "user-0").unwrap().producer_highest, 2);
    world.reload();
    assert_eq!(code(world.publish(ann, message(1, group))), ErrorCode::ALREADY_SETTLED);
}

#[test]
fn low_counts_only_in_a_recorded_publish() {
    let mut world = World::new();
    let [ann] = world.users();
    let group = world.group(ann, &[]);
    frame!(Published, world.publish(ann, message(1, group)));
    assert_eq!(code(world.publish(ann, message(9, NOWHERE))), ErrorCode::NOT_FOUND);
    assert_eq!(frame!(Published, world.publish(ann, message(1, group))).repeated, 1);
}

#[test]
fn the_window_and_the_producer_are_checked_first() {
    let mut world = World::new();
    let [ann] = world.users();
    let mut check = |number, low, expected| {
        let publish = Publish { low, kind: MessageKind::SYSTEM, ..message(number, NOWHERE) };
        assert_eq!(code(world.publish(ann, publish)), expected, "{number} with low {low}");
    };
    check(0, 0, ErrorCode::INVALID);
    check(1, 0, ErrorCode::INVALID);
    check(1, 2, ErrorCode::INVALID);
    check(1_025, 1, ErrorCode::OUTSIDE_WINDOW);
    check(u64::MAX, 1, ErrorCode::OUTSIDE_WINDOW);
    check(1_024, 1, ErrorCode::INVALID);
    for producer in [None, Some(ProducerId(1))] {
        assert_eq!(code(world.publish_by(ann, producer, message(1, NOWHERE))), ErrorCode::NO_PRODUCER);
    }
}

#[test]
fn content_out_of_range_is_refused() {
    let mut world = World::new();
    let [ann] = world.users();
    let group = world.group(ann, &[]);
    let large = Publish { payload: std::vec![0; PAYLOAD_BYTES_MAX + 1].into(), ..message(1, group) };
    assert_eq!(code(world.publish(ann, large)), ErrorCode::TOO_LARGE);
    for kind in [MessageKind(0), MessageKind::SYSTEM, MessageKind(200)] {
        assert_eq!(code(world.publish(ann, Publish { kind, ..message(1, group) })), ErrorCode::INVALID);
    }
    for target in [Target(0), Target::USERS, Target(9)] {
        assert_eq!(code(world.publish(ann, Publish { target, ..message(1, group) })), ErrorCode::INVALID);
    }
    let full = Publish { payload: std::vec![0; PAYLOAD_BYTES_MAX].into(), ..message(1, group) };
    frame!(Published, world.publish(ann, full));
}

#[test]
fn who_may_not_post_cannot_tell_why_unless_a_member() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let service = world.service("robot");
    let group = world.group(ann, &[bob]);
    let channel = create(ConversationKind::CHANNEL, "", &[bob]);
    let channel = frame!(ConversationCreated, world.request(ann, Request::ConversationCreate(channel))).conversation;
    let direct = frame!(Published, world.publish(ann, to_user(1, bob.user))).conversation;
    let personal = ConversationId::new(SHARD, 1);
    let foreign = world.attach("globex", "mallory").unwrap();
    let foreign = Principal { tenant: foreign.tenant, user: foreign.user, authority: Authority::Admin };
    let mut check = |who, conversation, expected: Option<ErrorCode>| {
        let frame = world.publish(who, message(5, conversation));
        match expected {
            Some(expected) => assert_eq!(code(frame), expected, "{who:?} to {conversation}"),
            None => _ = frame!(Published, frame),
        }
    };
    let not_found = Some(ErrorCode::NOT_FOUND);
    let forbidden = Some(ErrorCode::FORBIDDEN);
    check(eve, group, not_found);
    check(eve, NOWHERE, not_found);
    check(eve, ConversationId(0), not_found);
    check(eve, ConversationId(u64::MAX), not_found);
    check(eve, ConversationId::new(ShardId(4), group.ordinal()), not_found);
    check(eve, direct, not_found);
    check(eve, personal, not_found);
    check(ann, personal, forbidden);
    check(bob, channel, forbidden);
    check(service, direct, not_found);
    check(service, personal, not_found);
    check(foreign, group, not_found);
    check(service, channel, None);
    check(ann, channel, None);
    check(bob, group, None);
}

#[test]
fn the_first_message_to_a_user_makes_the_direct_conversation() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let before = (world.records.len(), world.signals.len());
    let first = frame!(Published, world.publish(bob, to_user(1, ann.user)));
    let direct = first.conversation;
    assert_eq!((world.records.len() - before.0, first.seq), (4, Seq(1)));
    let users = Vec::from([ann.user, bob.user]);
    let position = Position(before.0 as u64 + 1);
    let (tenant, seq, history) = (ann.tenant, Seq(0), HistoryPolicy::JOINED);
    let added = Signal::MembersAdded { position, tenant, conversation: direct, seq, history, users };
    assert_eq!(world.signals_since(before.1)[0], added);
    for (record, owner) in world.records[before.0 + 1..before.0 + 3].iter().zip([1, 2]) {
        let Record::Message(event) = record else { panic!("{record:?}") };
        assert_eq!(event.deliver.conversation, ConversationId::new(SHARD, owner));
        assert_eq!((event.deliver.author, event.deliver.kind), (AUTHOR_BROKER, MessageKind::SYSTEM));
        let changed = MembershipChanged::decode(&RawFrame::new(event.deliver.payload.clone()).unwrap()).unwrap();
        assert_eq!((changed.conversation, changed.change, changed.by), (direct, Change::ADDED, bob.user));
    }
    let answer = frame!(Published, world.publish(ann, to_user(1, bob.user)));
    assert_eq!((answer.conversation, answer.seq), (direct, Seq(2)));
    assert_eq!(frame!(Published, world.publish(bob, to_user(1, ann.user))).repeated, 1);
    assert_eq!(code(world.publish(ann, to_user(2, ann.user))), ErrorCode::INVALID);
    assert_eq!(code(world.publish(ann, to_user(2, NOBODY))), ErrorCode::UNKNOWN_USER);
    let far = Publish { target_id: u64::MAX, ..to_user(2, NOBODY) };
    assert_eq!(code(world.publish(ann, far)), ErrorCode::UNKNOWN_USER);
    world.restart();
    world.reload();
    assert_eq!(frame!(Published, world.publish(ann, to_user(2, bob.user))).seq, Seq(3));
}

#[test]
fn shard_time_never_goes_back() {
    let mut world = World::new();
    let [ann] = world.users();
    let group = world.group(ann, &[]);
    world.now = Timestamp(10);
    let late = frame!(Published, world.publish(ann, message(1, group)));
    assert_eq!(late.time, Timestamp(1_000));
    assert_eq!(world.shard.last_position(group), Some(late.position));
    assert_eq!(world.shard.last_position(NOWHERE), None);
}
