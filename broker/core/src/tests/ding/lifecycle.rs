//! From sent to confirmed, expired or recalled, over restarts; then kept for a while.

use super::*;
use crate::limits::{DING_RECIPIENTS_A_SENDER_MAX, DING_RETENTION_MS, DINGS_KEPT_A_SENDER_MAX};
use carillon_protocol::control::UserFind;
use carillon_protocol::limits::DING_RECIPIENTS_MAX;

#[test]
fn a_ding_repeats_until_confirmed_by_all_and_not_after() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[eve, bob, ann, bob]), nagging());
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
    assert_eq!((users, update.user, update.state), (Vec::from([bob.user, ann.user]), bob.user, DingState::CONFIRMED));
    assert_eq!((update.confirmed, update.recipients), (1, 2));
    assert!(world.attach("acme", "user-1").unwrap().dings.is_empty());

    world.reload();
    // Two repeats were missed: one fires.
    assert_eq!((tick(&mut world, 45_000), tick(&mut world, 45_000)), (1, 0));
    assert_eq!(urgent(&world), (Vec::from([eve.user]), frame));
    frame!(DingConfirmed, confirm(&mut world, eve, id));
    world.restart();
    assert_eq!(tick(&mut world, 10_000_000), 0, "nothing repeats or expires after the last confirmation");
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.state, reply.confirmed, reply.attempts), (DingState::CONFIRMED, 2, 3));
    assert_eq!(frame!(DingConfirmed, confirm(&mut world, bob, id)), first);
}

#[test]
fn two_devices_that_confirm_at_once_confirm_once() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]), nagging());
    let first = frame!(DingConfirmed, confirm(&mut world, bob, id));
    let records = world.records.len();
    world.now.0 += 1;
    assert_eq!(frame!(DingConfirmed, confirm(&mut world, bob, id)), first, "the other device gets the first time");
    assert_eq!(world.records.len(), records);
    assert_eq!(status(&mut world, ann, id).confirmed, 1);
}

#[test]
fn a_ding_expires_once_even_if_repeats_were_missed_before() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve]), nagging());
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    received(&mut world, eve, id);
    world.restart();
    world.now = Timestamp(61_000);
    assert_eq!(code(remind(&mut world, ann, id, Outlet::SMS)), ErrorCode::DING_OVER, "before its timer has fired");
    assert_eq!(tick(&mut world, 61_000), 1);
    let (users, update) = urgent(&world);
    let update = DingUpdate::decode(&update).unwrap();
    assert_eq!((users, update.user, update.state), (Vec::from([eve.user, ann.user]), USER_NONE, DingState::EXPIRED));
    assert_eq!(code(confirm(&mut world, eve, id)), ErrorCode::DING_OVER);
    assert_eq!(code(remind(&mut world, ann, id, Outlet::APP)), ErrorCode::DING_OVER);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    frame!(Done, recall(&mut world, ann, id));
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.state, reply.ended_at), (DingState::EXPIRED, Timestamp(61_000)));
    assert_eq!(
        [reply.entries[0].state, reply.entries[1].state],
        [DingState::CONFIRMED, DingState::EXPIRED],
        "who had it did not fail"
    );
    assert!(world.attach("acme", "user-2").unwrap().dings.is_empty());
    world.restart();
    world.reload();
}

#[test]
fn a_ding_is_recalled_by_its_sender_or_a_service_and_kept_for_a_while() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let robot = world.service("robot");
    let id = send(&mut world, ann, ding(1, &[bob]), nagging());
    assert_eq!(code(recall(&mut world, bob, id)), ErrorCode::NOT_FOUND);
    frame!(Done, recall(&mut world, robot, id));
    let (users, update) = urgent(&world);
    assert_eq!(users, [bob.user, ann.user], "the recipients' devices take it away");
    assert_eq!(DingUpdate::decode(&update).unwrap().state, DingState::RECALLED);
    let before = world.records.len();
    frame!(Done, recall(&mut world, ann, id));
    assert_eq!(world.records.len(), before);
    assert_eq!(code(confirm(&mut world, bob, id)), ErrorCode::DING_OVER);
    let forgotten_at = world.now.0 + DING_RETENTION_MS;
    world.restart();
    assert_eq!((tick(&mut world, forgotten_at - 1), tick(&mut world, forgotten_at)), (0, 1));
    assert_eq!(code(status_of(&mut world, ann, id, 0)), ErrorCode::NOT_FOUND);
    assert_eq!(world.shard.next_timer(), None);
    let next = send(&mut world, ann, ding(1, &[bob]), nagging());
    assert_eq!(next.ordinal(), id.ordinal() + 1, "the key is free again, the id is not");
    world.restart();
    world.reload();
}

#[test]
fn a_recall_wins_over_a_receipt_that_comes_later() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]), nagging());
    frame!(Done, recall(&mut world, ann, id));
    let records = world.records.len();
    received(&mut world, bob, id);
    assert_eq!(world.records.len(), records);
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.entries[0].state, reply.delivered), (DingState::RECALLED, 0));
}

#[test]
fn a_scheduled_ding_begins_at_its_time_and_nobody_knows_of_it_before() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let create = |key| DingCreate { starts_at: Timestamp(500_000), ..ding(key, &[bob]) };
    let signals = world.signals.len();
    let id = send(&mut world, ann, create(1), nagging());
    let recalled = send(&mut world, ann, create(2), nagging());
    assert_eq!(world.signals.len(), signals);
    assert!(world.attach("acme", "user-1").unwrap().dings.is_empty());
    assert_eq!(code(confirm(&mut world, bob, id)), ErrorCode::NOT_FOUND);
    assert_eq!(code(remind(&mut world, ann, id, Outlet::APP)), ErrorCode::INVALID);
    received(&mut world, bob, id);
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.state, reply.sent_at, reply.delivered), (DingState::SCHEDULED, Timestamp(0), 0));
    assert_eq!((reply.next_step_at, reply.entries[0].state), (Timestamp(500_000), DingState::SCHEDULED));

    frame!(Done, recall(&mut world, ann, recalled));
    assert_eq!(urgent(&world).0, [ann.user], "who was never shown it is not told");
    world.restart();
    assert_eq!((tick(&mut world, 499_999), tick(&mut world, 500_000)), (0, 1));
    assert_eq!(urgent(&world).0, [bob.user]);
    assert_eq!(status(&mut world, ann, id).sent_at, Timestamp(500_000));
    assert_eq!(world.attach("acme", "user-1").unwrap().dings.len(), 1);
}

#[test]
fn a_clock_that_moves_backwards_changes_nothing() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    world.now = Timestamp(100_000);
    let id = send(&mut world, ann, ding(1, &[bob]), nagging());
    world.restart();
    assert_eq!((tick(&mut world, 0), tick(&mut world, 99_000), tick(&mut world, 109_999)), (0, 0, 0));
    assert_eq!(tick(&mut world, 110_000), 1);
    world.now = Timestamp(5);
    assert_eq!(frame!(DingConfirmed, confirm(&mut world, bob, id)).time, Timestamp(110_000), "the shard's own time");
}

#[test]
fn a_member_removed_while_a_ding_is_pending_keeps_it() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob]);
    let create = DingCreate { target: Target::CONVERSATION, target_id: group.0, ..ding(1, &[]) };
    let id = send(&mut world, ann, create, nagging());
    let members = Vec::from([bob.user]);
    let remove = carillon_protocol::control::MembersRemove { request: 9, conversation: group, members };
    frame!(Done, world.request(ann, Request::MembersRemove(remove)));
    let members = Vec::from([eve.user]);
    let role = carillon_protocol::kinds::Role::MEMBER;
    let add = carillon_protocol::control::MembersAdd { request: 9, conversation: group, role, members };
    frame!(Done, world.request(ann, Request::MembersAdd(add)));
    assert_eq!(tick(&mut world, 11_000), 1);
    assert_eq!(urgent(&world).0, [bob.user], "its recipients are the members as they were");
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    assert_eq!(code(confirm(&mut world, eve, id)), ErrorCode::NOT_FOUND);
    assert_eq!(status(&mut world, ann, id).state, DingState::CONFIRMED);
}

#[test]
fn a_key_makes_one_ding_a_sender_whatever_configuration_says_later() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let first = send(&mut world, ann, ding(1, &[bob]), nagging());
    world.restart();
    assert_eq!(send(&mut world, ann, ding(1, &[bob]), nagging()), first);
    world.reload();
    let too_often = Refused { code: ErrorCode::LIMIT_REACHED, text: "20 a minute: wait".into() };
    let request = |create| Request::DingCreate(create, Err(too_often.clone()));
    assert!(world.shard.knows_ding_key(ann, 1) && !world.shard.knows_ding_key(ann, 2));
    assert_eq!(frame!(DingCreated, world.request(ann, request(ding(1, &[bob])))).ding, first);
    assert_eq!(code(world.request(ann, request(ding(2, &[bob])))), ErrorCode::LIMIT_REACHED);
    assert_eq!(refused(&mut world, ann, ding(1, &[eve]), nagging()), ErrorCode::INVALID);
    assert_ne!(send(&mut world, eve, ding(1, &[bob]), nagging()), first);
    assert_ne!(send(&mut world, ann, ding(2, &[bob]), nagging()), first);
}

#[test]
fn every_part_of_a_request_tells_a_conflict_from_a_repeat() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    send(&mut world, ann, ding(1, &[bob]), nagging());
    let base = ding(1, &[bob]);
    let asked = carillon_protocol::ding::DingStep { outlet: Outlet::APP, times: 1, after_ms: 0, repeat_every_ms: 0 };
    for other in [
        DingCreate { target: Target::CONVERSATION, ..base.clone() },
        DingCreate { target_id: 1, ..base.clone() },
        DingCreate { starts_at: Timestamp(1), ..base.clone() },
        DingCreate { expires_after_ms: 1, ..base.clone() },
        DingCreate { quiet: QuietHours::OVERRIDE, ..base.clone() },
        DingCreate { kind: MessageKind::CARD, ..base.clone() },
        DingCreate { conversation: ConversationId(1), ..base.clone() },
        DingCreate { seq: Seq(1), ..base.clone() },
        DingCreate { recipients: Vec::from([eve.user]), ..base.clone() },
        DingCreate { steps: Vec::from([asked]), ..base.clone() },
        DingCreate { payload: Bytes::from_static(b"flood"), ..base.clone() },
    ] {
        let text = frame!(Error, ask(&mut world, ann, other, nagging())).text;
        assert!(text.as_str().contains("the key was used"), "{text:?}");
    }
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
        handle(Request::DingCreate(ding(key, &[bob]), Ok(nagging())));
        // The first stays open, and so is not the one to go.
        if key > 1 {
            handle(Request::DingRecall(DingRecall { request: 9, ding: DingId::new(SHARD, key) }));
        }
    }
    let records = handle(Request::DingCreate(ding(kept + 1, &[bob]), Ok(nagging())));
    let second = DingId::new(SHARD, 2);
    assert!(matches!(
        &records[..],
        [Record::DingForgotten(forgotten), Record::DingAdded(_), Record::DingAttempted(_)] if forgotten.ding == second
    ));
    assert_eq!(world.shard.dings.by_id.len(), DINGS_KEPT_A_SENDER_MAX);
}

#[test]
fn the_recipients_of_a_sender_s_dings_are_bounded_and_the_oldest_ended_ones_make_room() {
    let mut world = World::new();
    let ann = world.user("ann");
    // Straight into the shard: a look at the whole state after each would take minutes.
    let admin = Principal { authority: Authority::Admin, ..ann };
    let mut users = Vec::new();
    let many = DING_RECIPIENTS_MAX;
    for nth in 0..many {
        let handle = std::format!("user-{nth}").as_str().into();
        let find = Request::UserFind(UserFind { request: 9, create: 1, handle });
        let mut effects = Effects::default();
        world.shard.handle(world.now, Input::Request { who: admin, request: find }, &mut effects);
        let Some(Reply::Frame(frame)) = effects.reply else { panic!("not found") };
        users.push(frame!(UserFound, frame).user);
    }
    let now = world.now;
    let handle_of = |shard: &mut Shard, request| {
        let mut effects = Effects::default();
        shard.handle(now, Input::Request { who: ann, request }, &mut effects);
        (effects.reply, effects.records)
    };
    let create = |key| Request::DingCreate(DingCreate { recipients: users.clone(), ..ding(key, &[]) }, Ok(nagging()));
    let most = (DING_RECIPIENTS_A_SENDER_MAX / many) as u64;
    for key in 1..=most {
        let (reply, _) = handle_of(&mut world.shard, create(key));
        assert!(matches!(reply, Some(Reply::Frame(Frame::DingCreated(_)))), "{key}: {reply:?}");
    }
    let (reply, records) = handle_of(&mut world.shard, create(most + 1));
    let Some(Reply::Frame(refused)) = reply else { panic!("no reply") };
    assert_eq!((code(refused), records.len()), (ErrorCode::LIMIT_REACHED, 0), "all are open");
    handle_of(&mut world.shard, Request::DingRecall(DingRecall { request: 9, ding: DingId::new(SHARD, 3) }));
    let (_, records) = handle_of(&mut world.shard, create(most + 1));
    assert!(matches!(&records[0], Record::DingForgotten(forgotten) if forgotten.ding == DingId::new(SHARD, 3)));
    let reread = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
    let tenant = |shard: &Shard| shard.directory.tenant(ann.tenant).unwrap().dings_sent_to;
    assert_eq!((tenant(&world.shard), tenant(&reread)), (DING_RECIPIENTS_A_SENDER_MAX, DING_RECIPIENTS_A_SENDER_MAX));
}
