//! DINGs: recipients, confirmation, timers over restarts, retention.

use super::*;
use crate::limits::{
    DING_EXPIRES_AFTER_MS_DEFAULT, DING_RETENTION_MS, DINGS_KEPT_A_SENDER_MAX, DINGS_OPEN_A_USER_MAX, TIMERS_A_TICK_MAX,
};
use carillon_protocol::ding::{
    DingConfirm, DingCreate, DingPush, DingRecall, DingStatus, DingStatusReply, DingUpdate, USER_NONE,
};
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::DingId;
use carillon_protocol::kinds::{DingState, StatusList};

fn ding(key: u64, recipients: &[Principal]) -> DingCreate {
    DingCreate {
        request: 9,
        key,
        target: Target::USERS,
        target_id: 0,
        expires_after_ms: 60_000,
        repeat_every_ms: 10_000,
        kind: MessageKind::TEXT,
        recipients: recipients.iter().map(|recipient| recipient.user).collect(),
        payload: Bytes::from_static(b"fire"),
    }
}

fn send(world: &mut World, who: Principal, create: DingCreate) -> DingId {
    frame!(DingCreated, world.request(who, Request::DingCreate(create))).ding
}

fn refused(world: &mut World, who: Principal, create: DingCreate) -> ErrorCode {
    code(world.request(who, Request::DingCreate(create)))
}

fn confirm(world: &mut World, who: Principal, ding: DingId) -> Frame {
    world.request(who, Request::DingConfirm(DingConfirm { request: 9, ding }))
}

fn recall(world: &mut World, who: Principal, ding: DingId) -> Frame {
    world.request(who, Request::DingRecall(DingRecall { request: 9, ding }))
}

fn status(world: &mut World, who: Principal, ding: DingId, list: StatusList) -> Frame {
    let status = DingStatus { request: 9, ding, list, from: UserId(0), limit: 10 };
    world.request(who, Request::DingStatus(status))
}

fn tick(world: &mut World, now: u64) -> usize {
    world.now = Timestamp(now);
    let before = world.records.len();
    assert_eq!(world.handle(Input::Tick), None);
    world.records.len() - before
}

/// The last signal's users and frame.
fn urgent(world: &World) -> (Vec<UserId>, RawFrame) {
    match world.signals.last() {
        Some(Signal::Urgent { users, frame, .. }) => (users.clone(), RawFrame::new(frame.clone()).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ding_repeats_until_confirmed_by_all_and_not_after() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[eve, bob, ann, bob]));
    let (users, frame) = urgent(&world);
    let push = DingPush::decode(&frame).unwrap();
    assert_eq!((users, push.ding, push.sender), (Vec::from([bob.user, eve.user]), id, ann.user));
    assert_eq!(push.expires_at, Timestamp(61_000));
    assert_eq!(world.attach("acme", "user-1").unwrap().dings, core::slice::from_ref(&frame.bytes));
    assert_eq!(world.shard.next_timer(), Some(Timestamp(11_000)));

    world.restart();
    assert_eq!((tick(&mut world, 10_999), tick(&mut world, 11_000), tick(&mut world, 11_000)), (0, 1, 0));
    assert_eq!(urgent(&world), (Vec::from([bob.user, eve.user]), frame.clone()));

    let first = frame!(DingConfirmed, confirm(&mut world, bob, id));
    let (users, update) = urgent(&world);
    let update = DingUpdate::decode(&update).unwrap();
    assert_eq!((users, update.user, update.state), (Vec::from([ann.user, bob.user]), bob.user, DingState::CONFIRMED));
    assert_eq!((update.confirmed, update.recipients), (1, 2));
    world.now.0 += 1;
    assert_eq!(frame!(DingConfirmed, confirm(&mut world, bob, id)), first, "a late confirmation changes nothing");
    assert!(world.attach("acme", "user-1").unwrap().dings.is_empty());

    world.reload();
    // Two repeats were missed: one fires.
    assert_eq!((tick(&mut world, 45_000), tick(&mut world, 45_000)), (1, 0));
    assert_eq!(urgent(&world), (Vec::from([eve.user]), frame));
    frame!(DingConfirmed, confirm(&mut world, eve, id));
    world.restart();
    assert_eq!(tick(&mut world, 10_000_000), 0, "nothing repeats or expires after the last confirmation");
    let reply = frame!(DingStatusReply, status(&mut world, ann, id, StatusList::DONE));
    assert_eq!((reply.state, reply.confirmed, reply.entries.len()), (DingState::CONFIRMED, 2, 2));
}

#[test]
fn a_ding_expires_once_even_if_repeats_were_missed_before() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve]));
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    world.restart();
    assert_eq!(tick(&mut world, 61_000), 1);
    let (users, update) = urgent(&world);
    let update = DingUpdate::decode(&update).unwrap();
    assert_eq!((users, update.user, update.state), (Vec::from([eve.user, ann.user]), USER_NONE, DingState::EXPIRED));
    assert_eq!(code(confirm(&mut world, eve, id)), ErrorCode::DING_OVER);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    frame!(Done, recall(&mut world, ann, id));
    let reply = frame!(DingStatusReply, status(&mut world, ann, id, StatusList::OPEN));
    assert_eq!((reply.state, reply.entries[0].state), (DingState::EXPIRED, DingState::EXPIRED));
    assert_eq!(reply.entries[0].time, Timestamp(61_000));
    assert!(world.attach("acme", "user-2").unwrap().dings.is_empty());
    world.restart();
    world.reload();
}

#[test]
fn a_ding_is_recalled_by_its_sender_or_a_service_and_kept_for_a_while() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let robot = world.service("robot");
    let id = send(&mut world, ann, ding(1, &[bob]));
    assert_eq!(code(recall(&mut world, bob, id)), ErrorCode::NOT_FOUND);
    frame!(Done, recall(&mut world, robot, id));
    let before = world.records.len();
    frame!(Done, recall(&mut world, ann, id));
    assert_eq!(world.records.len(), before);
    assert_eq!(code(confirm(&mut world, bob, id)), ErrorCode::DING_OVER);
    let forgotten_at = world.now.0 + DING_RETENTION_MS;
    world.restart();
    assert_eq!((tick(&mut world, forgotten_at - 1), tick(&mut world, forgotten_at)), (0, 1));
    assert_eq!(code(status(&mut world, ann, id, StatusList::COUNTS)), ErrorCode::NOT_FOUND);
    assert_eq!(world.shard.next_timer(), None);
    let next = send(&mut world, ann, ding(1, &[bob]));
    assert_eq!(next.ordinal(), id.ordinal() + 1, "the key is free again, the id is not");
    world.restart();
    world.reload();
}

#[test]
fn a_key_makes_one_ding_a_sender() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let first = send(&mut world, ann, ding(1, &[bob]));
    world.restart();
    assert_eq!(send(&mut world, ann, ding(1, &[bob])), first);
    world.reload();
    assert_eq!(send(&mut world, ann, ding(1, &[bob])), first);
    assert_eq!(refused(&mut world, ann, ding(1, &[eve])), ErrorCode::INVALID);
    assert_ne!(send(&mut world, eve, ding(1, &[bob])), first);
    assert_ne!(send(&mut world, ann, ding(2, &[bob])), first);
}

#[test]
fn a_ding_that_makes_no_sense_is_refused() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob]);
    let to = |target, id: ConversationId| DingCreate { target, target_id: id.0, ..ding(1, &[]) };
    let nobody = Principal { user: NOBODY, ..ann };
    let base = ding(1, &[bob]);
    let invalid = ErrorCode::INVALID;
    let mut check = |create: DingCreate, expected| assert_eq!(refused(&mut world, ann, create), expected);
    check(ding(1, &[]), invalid);
    check(ding(1, &[ann]), invalid);
    check(ding(1, &[bob, nobody]), ErrorCode::UNKNOWN_USER);
    check(DingCreate { repeat_every_ms: 999, ..base.clone() }, invalid);
    check(DingCreate { expires_after_ms: 31 * 86_400_000, ..base.clone() }, invalid);
    check(DingCreate { expires_after_ms: u64::MAX, ..base.clone() }, invalid);
    check(DingCreate { kind: MessageKind::SYSTEM, ..base.clone() }, invalid);
    check(DingCreate { payload: std::vec![0; 65_537].into(), ..base.clone() }, ErrorCode::TOO_LARGE);
    check(DingCreate { recipients: std::vec![bob.user; 10_001], ..base.clone() }, ErrorCode::TOO_LARGE);
    check(to(Target::USER, group), invalid);
    check(to(Target(0), group), invalid);
    check(to(Target::CONVERSATION, NOWHERE), ErrorCode::NOT_FOUND);
    check(to(Target::CONVERSATION, ConversationId::new(SHARD, 1)), ErrorCode::NOT_FOUND);
    assert_eq!(refused(&mut world, eve, to(Target::CONVERSATION, group)), ErrorCode::NOT_FOUND);
    let created = world.request(bob, Request::DingCreate(to(Target::CONVERSATION, group)));
    assert_eq!(frame!(DingCreated, created).recipients, 1);
    assert_eq!(urgent(&world).0, [ann.user]);
    let plain = DingCreate { expires_after_ms: 0, repeat_every_ms: 0, ..base };
    send(&mut world, ann, plain);
    let push = DingPush::decode(&urgent(&world).1).unwrap();
    assert_eq!(push.expires_at.0, world.now.0 + DING_EXPIRES_AFTER_MS_DEFAULT);
}

#[test]
fn a_ding_is_nobody_else_s_business() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]));
    let other = world.attach("globex", "mallory").unwrap();
    let other = Principal { tenant: other.tenant, user: other.user, authority: Authority::Admin };
    for who in [eve, other] {
        assert_eq!(code(confirm(&mut world, who, id)), ErrorCode::NOT_FOUND);
        assert_eq!(code(recall(&mut world, who, id)), ErrorCode::NOT_FOUND);
        assert_eq!(code(status(&mut world, who, id, StatusList::COUNTS)), ErrorCode::NOT_FOUND);
    }
    assert_eq!(code(status(&mut world, bob, id, StatusList::COUNTS)), ErrorCode::NOT_FOUND);
    assert_eq!(code(status(&mut world, ann, id, StatusList(9))), ErrorCode::INVALID);
    let admin = Principal { authority: Authority::Admin, ..eve };
    let DingStatusReply { state, sender, recipients, confirmed, .. } =
        frame!(DingStatusReply, status(&mut world, admin, id, StatusList::OPEN));
    assert_eq!((state, sender, recipients, confirmed), (DingState::OPEN, ann.user, 1, 0));
}

#[test]
fn open_dings_are_bounded_and_a_tick_fires_so_many() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let count = DINGS_OPEN_A_USER_MAX as u64;
    let mut shard_only = |create| {
        let mut effects = Effects::default();
        world.shard.handle(world.now, Input::Request { who: ann, request: Request::DingCreate(create) }, &mut effects);
        world.records.append(&mut effects.records);
        world.signals.append(&mut effects.signals);
    };
    (0..count).for_each(|key| shard_only(ding(key, &[bob])));
    assert_eq!(refused(&mut world, ann, ding(count, &[eve])), ErrorCode::LIMIT_REACHED, "sent");
    assert_eq!(refused(&mut world, eve, ding(1, &[bob])), ErrorCode::LIMIT_REACHED, "waiting");
    frame!(DingConfirmed, confirm(&mut world, bob, DingId::new(SHARD, 1)));
    send(&mut world, eve, ding(1, &[bob]));
    assert_eq!(refused(&mut world, eve, ding(2, &[bob])), ErrorCode::LIMIT_REACHED);
    send(&mut world, ann, ding(count, &[eve]));
    assert_eq!(tick(&mut world, 11_000), TIMERS_A_TICK_MAX);
    assert_eq!(world.shard.next_timer(), Some(Timestamp(11_000)), "the rest stays due");
    let rest = core::iter::from_fn(|| Some(tick(&mut world, 11_000)).filter(|fired| *fired > 0)).sum::<usize>();
    assert_eq!(rest + TIMERS_A_TICK_MAX, DINGS_OPEN_A_USER_MAX + 1);
    world.restart();
    world.reload();
}

#[test]
fn the_oldest_ended_ding_of_a_sender_is_forgotten_for_a_new_one() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let kept = DINGS_KEPT_A_SENDER_MAX as u64;
    let mut handle = |request| {
        let mut effects = Effects::default();
        world.shard.handle(world.now, Input::Request { who: ann, request }, &mut effects);
        effects.records
    };
    for key in 1..=kept {
        handle(Request::DingCreate(ding(key, &[bob])));
        // The first stays open, and so is not the one to go.
        if key > 1 {
            handle(Request::DingRecall(DingRecall { request: 9, ding: DingId::new(SHARD, key) }));
        }
    }
    let records = handle(Request::DingCreate(ding(kept + 1, &[bob])));
    let second = DingId::new(SHARD, 2);
    assert!(
        matches!(&records[..], [Record::DingForgotten(forgotten), Record::DingAdded(_)] if forgotten.ding == second)
    );
    assert_eq!(world.shard.dings.by_id.len(), DINGS_KEPT_A_SENDER_MAX);
}
