//! Calls: started, settled, cancelled, handed out again; what outlets report.

use super::*;
use crate::limits::{DING_OUTCOMES_A_RECORD_MAX, DING_RETENTION_MS};

const CANCELLED: CallResult = CallResult::Cancel(CancelState::DONE);

/// Ann's DING to bob, whose short message has begun.
fn messaged(world: &mut World) -> (Principal, Principal, DingId) {
    let [ann, bob] = world.users();
    let id = send(world, ann, ding(1, &[bob]), escalating());
    assert_eq!(tick(world, 11_000), 1);
    (ann, bob, id)
}

fn only_attempt(world: &mut World, who: Principal, ding: DingId, user: UserId) -> (AttemptState, CancelState) {
    let all = attempts(world, who, ding, user);
    let [_, sms] = &all[..] else { panic!("{all:?}") };
    (sms.state, sms.cancel)
}

#[test]
fn a_call_says_all_that_a_gateway_needs() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let group = world.group(ann, &[bob]);
    world.post(ann, group);
    let about = DingCreate { kind: MessageKind::VOICE, conversation: group, seq: Seq(1), ..ding(1, &[bob]) };
    let id = send(&mut world, ann, about, escalating());
    assert_eq!(tick(&mut world, 11_000), 1);
    assert_eq!((world.shard.outlets_waiting(), world.shard.calls_waiting()), (Vec::from([Outlet::SMS]), 1));
    let started = call(&mut world, Outlet::SMS);
    let expected = Call {
        key: CallKey { ding: id, user: bob.user, attempt: 1 },
        verb: Verb::Start,
        outlet: Outlet::SMS,
        tenant: "acme".into(),
        recipient: "user-1".into(),
        sender: "user-0".into(),
        step: 1,
        kind: MessageKind::VOICE,
        payload: Bytes::from_static(b"fire"),
        conversation: group,
        seq: Seq(1),
        created_at: Timestamp(1_000),
        started_at: Timestamp(11_000),
        expires_at: Timestamp(61_000),
    };
    assert_eq!(started, expected);
    assert!(world.shard.outlets_waiting().is_empty(), "it is handed out once");
    frame!(Done, recall(&mut world, ann, id));
    let cancel = call(&mut world, Outlet::SMS);
    let expected = Call { verb: Verb::Cancel, payload: Bytes::new(), ..expected };
    assert_eq!(cancel, expected, "it names the message still, of a DING that is over");
    world.reload();
    assert_eq!(call(&mut world, Outlet::SMS), expected);
}

#[test]
fn a_call_without_an_outcome_is_handed_out_again_after_a_restart_under_its_key() {
    let mut world = World::new();
    let (ann, bob, id) = messaged(&mut world);
    let first = call(&mut world, Outlet::SMS);
    for _ in 0..2 {
        world.restart();
        assert_eq!(call(&mut world, Outlet::SMS), first);
        world.reload();
        assert_eq!(call(&mut world, Outlet::SMS), first);
    }
    assert_eq!(came_to(&mut world, first.key, AttemptState::ACCEPTED), 1);
    world.restart();
    assert!(calls(&mut world, Outlet::SMS).is_empty());

    frame!(DingConfirmed, confirm(&mut world, bob, id));
    let cancel = call(&mut world, Outlet::SMS);
    assert_eq!((cancel.verb, cancel.key), (Verb::Cancel, first.key));
    world.restart();
    assert_eq!(call(&mut world, Outlet::SMS), cancel);
    assert_eq!(results(&mut world, &[result(first.key, CANCELLED)]), 1);
    world.restart();
    assert!(calls(&mut world, Outlet::SMS).is_empty());
    assert_eq!(only_attempt(&mut world, ann, id, bob.user), (AttemptState::ACCEPTED, CancelState::DONE));
}

#[test]
fn a_call_that_was_never_handed_out_is_cancelled_without_a_word() {
    let mut world = World::new();
    let (_, bob, id) = messaged(&mut world);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    let key = CallKey { ding: id, user: bob.user, attempt: 1 };
    assert_eq!(calls(&mut world, Outlet::SMS), [Next::Moot(key)]);
    assert_eq!(results(&mut world, &[result(key, CANCELLED)]), 1);
    assert_eq!(results(&mut world, &[result(key, CANCELLED)]), 0);
}

#[test]
fn a_call_that_may_have_been_handed_out_before_a_crash_is_cancelled_aloud() {
    let mut world = World::new();
    let (_, bob, id) = messaged(&mut world);
    world.reload();
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    assert_eq!(call(&mut world, Outlet::SMS).verb, Verb::Cancel);
}

#[test]
fn news_of_an_attempt_moves_forward_whatever_their_order() {
    let mut world = World::new();
    let (ann, bob, id) = messaged(&mut world);
    let key = call(&mut world, Outlet::SMS).key;
    for (state, is_news) in [
        (AttemptState(0), 0),
        (AttemptState::STARTED, 0),
        (AttemptState::FAILED, 1),
        (AttemptState::ACCEPTED, 0),
        (AttemptState::DELIVERED, 1),
        (AttemptState::DELIVERED, 0),
        (AttemptState::FAILED, 0),
        (AttemptState(6), 0),
        (AttemptState(255), 0),
    ] {
        assert_eq!(came_to(&mut world, key, state), is_news, "{state:?}");
    }
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.delivered, reply.entries[0].state), (1, DingState::DELIVERED));
    assert_eq!(came_to(&mut world, key, AttemptState::ANSWERED), 2, "what it came to, and that it confirms");
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.state, reply.delivered, reply.entries[0].via), (DingState::CONFIRMED, 0, Outlet::SMS));
    assert!(calls(&mut world, Outlet::SMS).is_empty(), "an answered attempt needs no cancel");
    assert_eq!(only_attempt(&mut world, ann, id, bob.user), (AttemptState::ANSWERED, CancelState::NONE));
    world.restart();
}

#[test]
fn a_cancel_ends_once_and_only_when_it_is_due() {
    let mut world = World::new();
    let (_, bob, id) = messaged(&mut world);
    let key = call(&mut world, Outlet::SMS).key;
    assert_eq!(results(&mut world, &[result(key, CANCELLED)]), 0, "it is not moot");
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    for (cancel, is_news) in [
        (CancelState::NONE, 0),
        (CancelState::DUE, 0),
        (CancelState(9), 0),
        (CancelState::GAVE_UP, 1),
        (CancelState::DONE, 0),
    ] {
        assert_eq!(results(&mut world, &[result(key, CallResult::Cancel(cancel))]), is_news, "{cancel:?}");
    }
    world.restart();
    assert!(calls(&mut world, Outlet::SMS).is_empty());
}

#[test]
fn an_attempt_that_failed_is_cancelled_only_if_it_worked_after_all() {
    let mut world = World::new();
    let (_, bob, id) = messaged(&mut world);
    let key = call(&mut world, Outlet::SMS).key;
    came_to(&mut world, key, AttemptState::FAILED);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    assert!(calls(&mut world, Outlet::SMS).is_empty());
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::DELIVERED), Reported::Done);
    assert_eq!(call(&mut world, Outlet::SMS).verb, Verb::Cancel);
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::DELIVERED), Reported::Done);
    assert!(calls(&mut world, Outlet::SMS).is_empty(), "it is told once");
    world.restart();
}

#[test]
fn a_report_of_another_outlet_or_of_nothing_is_unknown() {
    let mut world = World::new();
    let (ann, bob, id) = messaged(&mut world);
    let key = call(&mut world, Outlet::SMS).key;
    let records = world.records.len();
    for (outlet, key) in [
        (Outlet::PHONE, key),
        (Outlet::APP, key),
        (Outlet::APP, CallKey { attempt: 0, ..key }),
        (Outlet::SMS, CallKey { attempt: 0, ..key }),
        (Outlet::SMS, CallKey { attempt: 2, ..key }),
        (Outlet::SMS, CallKey { attempt: u16::MAX, ..key }),
        (Outlet::SMS, CallKey { user: ann.user, ..key }),
        (Outlet::SMS, CallKey { user: NOBODY, ..key }),
        (Outlet::SMS, CallKey { user: USER_NONE, ..key }),
        (Outlet::SMS, CallKey { ding: DingId(0), ..key }),
        (Outlet::SMS, CallKey { ding: DingId(u64::MAX), ..key }),
    ] {
        assert_eq!(report(&mut world, outlet, key, AttemptState::ANSWERED), Reported::Unknown, "{outlet:?} {key:?}");
        assert_eq!(came_to(&mut world, CallKey { ding: DingId(7), ..key }, AttemptState::ANSWERED), 0);
    }
    assert_eq!(world.records.len(), records);
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::ANSWERED), Reported::Done);
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::ANSWERED), Reported::Done, "a repeat is harmless");
    let forgotten_at = world.now.0 + DING_RETENTION_MS;
    tick(&mut world, forgotten_at);
    assert_eq!(code(confirm(&mut world, bob, id)), ErrorCode::NOT_FOUND);
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::ANSWERED), Reported::Unknown, "it is forgotten");
}

#[test]
fn an_answer_that_comes_too_late_says_so() {
    let mut world = World::new();
    let (ann, bob, id) = messaged(&mut world);
    let key = call(&mut world, Outlet::SMS).key;
    frame!(Done, recall(&mut world, ann, id));
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::DELIVERED), Reported::Done);
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::ANSWERED), Reported::Over);
    assert_eq!(report(&mut world, Outlet::SMS, key, AttemptState::ANSWERED), Reported::Over);
    let reply = status(&mut world, ann, id);
    assert_eq!((reply.entries[0].state, reply.delivered), (DingState::RECALLED, 0));
    assert_eq!(only_attempt(&mut world, ann, id, bob.user), (AttemptState::ANSWERED, CancelState::DUE));
}

#[test]
fn results_of_one_attempt_are_judged_one_after_the_other() {
    let mut world = World::new();
    let (_, bob, id) = messaged(&mut world);
    let key = call(&mut world, Outlet::SMS).key;
    let states = [AttemptState::FAILED, AttemptState::ACCEPTED, AttemptState::DELIVERED, AttemptState::DELIVERED];
    let batch = states.map(|state| result(key, CallResult::Attempt(state)));
    assert_eq!(results(&mut world, &batch), 2);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    world.restart();
}

#[test]
fn many_results_take_several_records() {
    let mut world = World::new();
    let everybody: Vec<_> = (0..2_500).map(|number| world.user_alone(&std::format!("user-{number}"))).collect();
    let robot = world.service("robot");
    let id = send(&mut world, robot, ding(1, &everybody), terms(&[step(Outlet::SMS, 0), step(Outlet::APP, 0)]));
    let keys = calls(&mut world, Outlet::SMS).into_iter().map(|next| match next {
        Next::Call(call) => call.key,
        Next::Moot(key) => panic!("{key:?}"),
    });
    let all: Vec<_> = keys.map(|key| result(key, CallResult::Attempt(AttemptState::DELIVERED))).collect();
    assert_eq!(all.len(), everybody.len());
    let signals = world.signals.len();
    let records = everybody.len().div_ceil(DING_OUTCOMES_A_RECORD_MAX);
    assert_eq!(results(&mut world, &all), records);
    assert_eq!(world.signals_since(signals).len(), records, "the sender is told once a record");
    assert_eq!(status(&mut world, robot, id).delivered, 2_500);
    world.restart();
}

#[test]
fn a_ding_that_is_forgotten_leaves_no_call_behind() {
    let mut world = World::new();
    let (ann, _, id) = messaged(&mut world);
    call(&mut world, Outlet::SMS);
    frame!(Done, recall(&mut world, ann, id));
    assert_eq!(world.shard.calls_waiting(), 1);
    let forgotten_at = world.now.0 + DING_RETENTION_MS;
    assert_eq!(tick(&mut world, forgotten_at), 1);
    assert_eq!(world.shard.calls_waiting(), 0);
    world.restart();
}
