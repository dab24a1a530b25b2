//! DINGs in snapshots and journals that are damaged, or another's.

use super::*;
use crate::ding::Ding;
use crate::record::{
    DingAdded, DingAttempted, DingConfirmed, DingDeferred, DingDelivery, DingEnded, DingForgotten, DingOutcome,
    DingOutcomes, DingsDelivered,
};
use crate::tests::state::{not_next, rich};
use crate::{Contradiction, StateError};

/// One that is confirmed by one of two and delivered to the other, one recalled, one open, one that quiet hours put off.
pub(in crate::tests) fn make_some(world: &mut World, [ann, bob, eve]: [Principal; 3], group: ConversationId) {
    let short = |key, to: &[Principal]| DingCreate { payload: Bytes::new(), ..ding(key, to) };
    let to_group = DingCreate { target: Target::CONVERSATION, target_id: group.0, ..short(2, &[]) };
    let first = send(world, ann, short(1, &[bob, eve]), escalating());
    send(world, ann, to_group, terms(&[step(Outlet::APP, 0)]));
    send(world, ann, short(3, &[bob]), terms(&[step(Outlet::APP, 1_000)]));
    let patient = PlannedStep { heeds_quiet: 1, times: 3, repeat_every_ms: 1_000, ..step(Outlet::SMS, 0) };
    // All day but for its first minute.
    let quiet = QuietWindow { from_min: 1, to_min: 0 };
    let put_off = DingTerms { quiet, expires_after_ms: 86_400_000, ..terms(&[patient, step(Outlet::APP, 0)]) };
    send(world, ann, short(4, &[bob]), put_off);
    assert_eq!(tick(world, 11_000), 3, "a step of each but the recalled one");
    let second = DingId::new(SHARD, 2);
    world.request(ann, Request::DingRecall(DingRecall { request: 9, ding: second }));
    let remind = DingRemind { request: 9, ding: first, outlet: Outlet::PHONE };
    world.request(ann, Request::DingRemind(remind, Ok(())));
    let result = |user, attempt, state, detail| OutletResult {
        key: CallKey { ding: first, user, attempt },
        result: CallResult::Attempt(state),
        detail,
    };
    let failed = result(eve.user, 2, AttemptState::FAILED, 503);
    world.handle(Input::OutletResults(Vec::from([result(bob.user, 1, AttemptState::ACCEPTED, 0), failed])));
    world.request(bob, Request::DingConfirm(DingConfirm { request: 9, ding: first }));
    let receipt = DingReceipt { tenant: eve.tenant, user: eve.user, ding: first };
    world.handle(Input::DingsReceived(Vec::from([receipt])));
    assert_eq!(tick(world, 60_000), 2, "a step began, and one was put off");
}

#[test]
fn a_record_that_contradicts_a_ding_is_named() {
    let world = rich();
    let time = Timestamp(65_000);
    let check = |record: Record, expected: Contradiction| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        let error = shard.apply(&record, &mut Effects::default()).map_err(|error| error.contradiction);
        assert_eq!(error, Err(expected), "{record:?}");
    };
    let unknown = |what, id| Contradiction::Unknown { what, id };
    let range = |what, id| Contradiction::Range { what, id };
    let [first, second, third, fourth, none] = [1, 2, 3, 4, 5].map(|ordinal| DingId::new(SHARD, ordinal));
    let [ann, bob, eve] = [0, 1, 2].map(UserId);
    let attempted = |ding, step, outlet| DingAttempted { time, ding, step, outlet }.into();
    check(attempted(none, 0, Outlet::APP), unknown("DING", none.0));
    check(attempted(second, 255, Outlet::APP), unknown("open DING", second.0));
    check(attempted(first, 0, Outlet::SMS), range("step of DING", first.0));
    check(attempted(first, 0, Outlet::APP), range("step of DING", first.0));
    check(attempted(first, 3, Outlet::APP), range("step of DING", first.0));
    check(DingForgotten { time, ding: third }.into(), unknown("ended DING", third.0));
    check(DingEnded { time, ding: second, state: DingState::EXPIRED }.into(), unknown("open DING", second.0));
    check(DingEnded { time, ding: third, state: DingState::CONFIRMED }.into(), range("state of DING", 4));
    let confirmed = |ding, user| DingConfirmed { time, ding, user, via: Outlet::APP }.into();
    check(confirmed(first, bob), unknown("unconfirmed recipient", 1));
    check(confirmed(first, ann), unknown("unconfirmed recipient", 0));
    check(confirmed(second, bob), unknown("open DING", second.0));
    let deferred = |step| DingDeferred { time, ding: fourth, step, until: time }.into();
    check(deferred(2), unknown("step of DING", fourth.0));
    let delivered = |ding, user| DingsDelivered { time, entries: Vec::from([DingDelivery { ding, user }]) }.into();
    check(delivered(first, eve), unknown("recipient without it", 2));
    check(delivered(first, bob), unknown("recipient without it", 1));
    check(delivered(second, bob), unknown("open DING", second.0));
    let outcome = |user, attempt, state, cancel| {
        let entry = DingOutcome { ding: first, user, attempt, state, cancel, detail: 0 };
        DingOutcomes { time, entries: Vec::from([entry]) }.into()
    };
    let (accepted, none) = (AttemptState::ACCEPTED, CancelState::NONE);
    check(outcome(eve, 0, accepted, none), unknown("attempt of DING", first.0));
    check(outcome(eve, 9, accepted, none), unknown("attempt of DING", first.0));
    check(outcome(ann, 1, accepted, none), unknown("attempt of DING", first.0));
    check(outcome(eve, 2, accepted, none), Contradiction::Backwards { what: "attempt of DING", id: first.0 });
    check(outcome(eve, 1, AttemptState(6), none), Contradiction::Backwards { what: "attempt of DING", id: first.0 });
    check(outcome(eve, 1, AttemptState(0), CancelState::DONE), range("cancel of DING", first.0));
    check(outcome(bob, 1, AttemptState(0), CancelState::DUE), range("cancel of DING", first.0));
    check(outcome(bob, 1, AttemptState(0), CancelState(4)), range("cancel of DING", first.0));
}

#[test]
fn a_ding_that_contradicts_the_state_is_not_added() {
    let world = rich();
    let good = world.records.iter().find_map(|record| match record {
        Record::DingAdded(added) => Some(added.clone()),
        _ => None,
    });
    let (time, ding) = (Timestamp(65_000), DingId::new(SHARD, 5));
    let good = DingAdded { time, ding, key: 99, ..good.expect("rich has DINGs") };
    let check = |record: DingAdded, expected: Option<Contradiction>| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        let error = shard.apply(&record.into(), &mut Effects::default()).map_err(|error| error.contradiction);
        assert_eq!(error.err(), expected);
        // What is taken in can be written down and read again.
        assert!(expected.is_some() || Shard::decode_state(SHARD, &bytes_of(&shard)).is_ok());
    };
    check(good.clone(), None);
    let third = DingId::new(SHARD, 3);
    check(DingAdded { ding: third, ..good.clone() }, Some(not_next("DING", third.0)));
    check(DingAdded { key: 1, ..good.clone() }, Some(Contradiction::Present { what: "key of DING", id: ding.0 }));
    let to = |users: &[u32]| DingAdded { recipients: users.iter().copied().map(UserId).collect(), ..good.clone() };
    let recipients = Some(Contradiction::Range { what: "recipients of DING", id: ding.0 });
    for users in [&[][..], &[2, 1], &[1, 1], &[0, 1]] {
        check(to(users), recipients);
    }
    check(to(&[1, 9]), Some(Contradiction::Unknown { what: "user", id: 9 }));
    check(to(&(1..10_002).collect::<Vec<_>>()), recipients);
    let by = |steps: &[PlannedStep]| DingAdded { steps: steps.into(), ..good.clone() };
    let plan = Some(Contradiction::Range { what: "plan of DING", id: ding.0 });
    check(by(&[]), plan);
    check(by(&[step(Outlet::APP, 0); 9]), plan);
    check(by(&[PlannedStep { times: 257, ..step(Outlet::APP, 0) }]), plan);
    check(DingAdded { quiet_to_min: 1_440, ..good.clone() }, plan);
}

/// What a DING's part of a state may not say, each by one change of a good one.
#[test]
fn dings_that_cannot_be_are_refused() {
    let world = rich();
    let check = |ordinal, change: &dyn Fn(&mut Ding), expected: &'static str| {
        let mut shard = Shard::decode_state(SHARD, &bytes_of(&world.shard)).unwrap();
        change(shard.dings.by_id.get_mut(&DingId::new(SHARD, ordinal)).unwrap());
        let decoded = Shard::decode_state(SHARD, &bytes_of(&shard)).err();
        assert_eq!(decoded, (!expected.is_empty()).then_some(StateError::Damaged(expected)));
    };
    check(1, &|ding| ding.recipients.clear(), "a DING has no recipients or too many");
    check(1, &|ding| ding.recipients.reverse(), "recipients are out of order");
    check(1, &|ding| ding.sender = UserId(1), "a DING goes to its sender");
    check(1, &|ding| ding.plan.quiet.to_min = 1_440, "quiet hours are not of a day");
    check(1, &|ding| ding.plan.steps[0].planned.times = 0, "an attempt is of no step, or of one that began too often");
    check(
        1,
        &|ding| ding.plan.steps[0].planned.times = 255,
        "more attempts of a DING are begun or planned than may be",
    );
    check(1, &|ding| ding.attempts[0].step = 3, "an attempt is of no step, or of one that began too often");
    check(1, &|ding| ding.attempts[1].outlet = Outlet::APP, "an attempt is of no step, or of one that began too often");
    check(1, &|ding| ding.attempts[0].time = Timestamp(64_000), "attempts are out of order");
    let later = Timestamp(world.shard.last_time().0 + 1);
    check(1, &|ding| ding.attempts.last_mut().unwrap().time = later, "an attempt is later than the last record");
    check(1, &|ding| ding.recipients[0].reaches.reverse(), "attempts of a recipient are out of order");
    check(1, &|ding| ding.recipients[1].reaches[0].attempt = 0, "an attempt of a recipient was never begun");
    check(1, &|ding| ding.recipients[1].reaches[2].attempt = 4, "an attempt of a recipient was never begun");
    check(1, &|ding| ding.recipients[1].reaches[0].state = AttemptState(6), "the state of an attempt is unknown");
    let due = CancelState::DUE;
    check(1, &|ding| ding.recipients[1].reaches[0].cancel = due, "an attempt was cancelled that is not moot");
    check(1, &|ding| ding.recipients[0].reaches[0].cancel = CancelState::NONE, "a moot attempt is under way");
    check(1, &|ding| ding.recipients[1].failed = true, "a recipient of an open DING has failed");
    check(1, &|ding| ding.recipients[0].failed = true, "a recipient has failed and confirmed");
    check(1, &|ding| ding.push = Bytes::new(), "a DING's push is not its own");
    check(1, &|ding| ding.key = 2, "two DINGs have one key");
    let confirmed = |ding: &mut Ding| ding.recipients[1].confirmed = ding.recipients[0].confirmed;
    check(
        1,
        &|ding| {
            confirmed(ding);
            ding.recipients[1].reaches.clear();
        },
        "a confirmed DING is open",
    );
    check(
        1,
        &|ding| {
            let before = ding.recipients[0].confirmed.as_mut().unwrap();
            before.attempts = 1;
        },
        "an attempt began for who had confirmed",
    );
    check(
        1,
        &|ding| ding.recipients[0].confirmed.as_mut().unwrap().attempts = 5,
        "a recipient confirmed before or after all attempts",
    );
    check(3, &|ding| ding.attempts.clear(), "");
    check(
        3,
        &|ding| {
            ding.attempts.clear();
            ding.recipients[0].delivered_at = Some(Timestamp(60_000));
        },
        "a recipient has a DING that has not begun",
    );
    let state = |state| move |ding: &mut Ding| ding.ended.as_mut().unwrap().state = state;
    check(2, &state(DingState::CONFIRMED), "a DING's confirmations contradict its state");
    check(2, &state(DingState::SENT), "an ended DING's state is unknown");
    check(2, &|ding| ding.recipients[0].failed = true, "a recipient has failed before the DING expired");
}
