//! DINGs that escalate: from the app to a gateway's short messages and calls, until somebody confirms.

mod endings;
mod office;
mod rules;

use std::collections::BTreeSet;
use std::time::Duration;

use carillon_client::{AttemptState, CancelState, DingState, DingStates, Outlet, UserId};
use carillon_tests::gateway::{Answer, SECRET, call_back};
use carillon_tests::harness::patiently;
use office::{Office, minutes, next_ding, next_update, plan, to};

const STARTED: &str = "ding.step.started";
const CANCELLED: &str = "ding.step.cancelled";

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_goes_from_app_to_sms_to_phone_until_it_is_confirmed_and_the_gateway_is_told() {
    let mut office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let ding = patiently(alice.ding(plan(to(&[bob.user()])))).await.unwrap().ding;
    assert_eq!(next_ding(&mut bob_events).await.ding, ding);

    office.pass(minutes(1));
    let sms = office.gateway.next().await;
    assert_eq!((sms.event.as_str(), sms.outlet.as_str()), (STARTED, "sms"));
    let says = |field: &str| sms.data[field].as_str().unwrap_or_default().to_owned();
    assert_eq!((says("tenant"), says("recipient"), says("sender")), ("acme".into(), "bob".into(), "alice".into()));
    assert_eq!((says("text"), says("ding")), ("the server room is hot".into(), ding.to_string()));
    office.pass(minutes(2));
    let phone = office.gateway.next_key(STARTED, "phone").await;
    assert_ne!(phone, sms.key, "each attempt has a key of its own");

    patiently(bob.confirm(ding)).await.unwrap();
    // Each outlet is a queue of its own.
    let told = [office.gateway.next().await, office.gateway.next().await];
    assert!(told.iter().all(|seen| seen.event == CANCELLED), "{told:?}");
    let told = BTreeSet::from(told.map(|seen| seen.key));
    assert_eq!(told, BTreeSet::from([sms.key, phone]), "a cancel comes under the key of its start");

    let status = patiently(alice.ding_status(ding, DingStates::ALL, UserId(0), 10)).await.unwrap();
    let entry = status.entries[0];
    assert_eq!((status.state, entry.state, entry.via), (DingState::CONFIRMED, DingState::CONFIRMED, Outlet::APP));
    assert!(entry.delivered_at >= status.sent_at && entry.confirmed_at >= entry.delivered_at);
    let attempts = office.attempts_settled(&alice, ding, bob.user()).await;
    let told: Vec<_> = attempts.iter().map(|attempt| (attempt.outlet, attempt.state, attempt.cancel)).collect();
    let expected = [
        (Outlet::APP, AttemptState::STARTED, CancelState::NONE),
        (Outlet::SMS, AttemptState::ACCEPTED, CancelState::DONE),
        (Outlet::PHONE, AttemptState::ACCEPTED, CancelState::DONE),
    ];
    assert_eq!(told, expected);
    // Nothing is left to do, whatever time passes.
    office.pass(minutes(20));
    office.settle(&alice).await;
    assert!(office.gateway.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_outside_confirms_and_answering_twice_is_harmless() {
    let mut office = Office::open().await;
    let (alice, mut alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let ding = patiently(alice.ding(plan(to(&[bob.user()])))).await.unwrap().ding;
    next_ding(&mut bob_events).await;
    office.pass(minutes(1));
    let key = office.gateway.next_key(STARTED, "sms").await;
    let (callbacks, now_s) = (office.callbacks(), office.now_s());

    // Who has no secret, says another outlet, or makes up a key, confirms nothing.
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(call_back(callbacks, "sms", (other, now_s), ("ding.answered", &key)).await, 401);
    assert_eq!(call_back(callbacks, "phone", (SECRET, now_s), ("ding.answered", &key)).await, 404);
    let made_up = format!("ding-{:016x}-{}-9", ding.0, bob.user());
    assert_eq!(call_back(callbacks, "sms", (SECRET, now_s), ("ding.answered", &made_up)).await, 404);
    let open = patiently(alice.ding_status(ding, DingStates::NONE, UserId(0), 1)).await.unwrap();
    assert_eq!((open.state, open.confirmed), (DingState::SENT, 0));

    assert_eq!(call_back(callbacks, "sms", (SECRET, now_s), ("ding.delivered", &key)).await, 204);
    assert_eq!(call_back(callbacks, "sms", (SECRET, now_s), ("ding.answered", &key)).await, 204);
    let update = next_update(&mut bob_events).await;
    assert_eq!((update.ding, update.user, update.state), (ding, bob.user(), DingState::CONFIRMED));
    assert_eq!(next_update(&mut alice_events).await.user, bob.user());
    assert_eq!(call_back(callbacks, "sms", (SECRET, now_s), ("ding.answered", &key)).await, 204, "answered twice");
    assert_eq!(call_back(callbacks, "sms", (SECRET, now_s), ("ding.failed", &key)).await, 204, "late news");

    let status = patiently(alice.ding_status(ding, DingStates::ALL, UserId(0), 10)).await.unwrap();
    assert_eq!((status.entries[0].state, status.entries[0].via), (DingState::CONFIRMED, Outlet::SMS));
    let attempts = patiently(alice.ding_attempts(ding, bob.user())).await.unwrap();
    assert_eq!(attempts[1].state, AttemptState::ANSWERED);
    office.pass(minutes(20));
    office.settle(&alice).await;
    patiently(bob.confirm(ding)).await.unwrap();
    assert!(office.gateway.rest().is_empty(), "an answered attempt needs no cancel, and no call follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_unwell_is_tried_again_under_the_same_key() {
    let mut office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let bob = office.user("bob").await;
    office.gateway.answer(Answer::Status(500));
    let ding = patiently(alice.ding(plan(to(&[bob])))).await.unwrap().ding;
    office.pass(minutes(1));
    let first = office.gateway.next_key(STARTED, "sms").await;
    assert_eq!(office.gateway.next_key(STARTED, "sms").await, first, "tried again");
    office.gateway.answer(Answer::Status(202));
    let accepted = async {
        loop {
            let attempts = alice.ding_attempts(ding, bob).await.unwrap();
            if attempts[1].state != AttemptState::STARTED {
                return attempts[1];
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(patiently(accepted).await.state, AttemptState::ACCEPTED);
    assert!(office.gateway.rest().iter().all(|seen| seen.key == first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_that_reaches_nobody_has_failed_and_one_that_an_outlet_took_has_expired() {
    let mut office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let bob = office.user("bob").await;
    let short = |ding: carillon_client::Ding| plan(ding).expires_after(Duration::from_secs(120));
    office.gateway.answer(Answer::Status(400));
    let failing = patiently(alice.ding(short(to(&[bob])))).await.unwrap().ding;
    office.pass(minutes(1));
    office.gateway.next_key(STARTED, "sms").await;
    let attempts = office.attempts_settled(&alice, failing, bob).await;
    assert_eq!((attempts[1].state, attempts[1].detail), (AttemptState::FAILED, 400));
    office.gateway.answer(Answer::Status(202));
    let taken = patiently(alice.ding(short(to(&[bob])))).await.unwrap().ding;
    office.pass(minutes(1));
    let end = async |ding| loop {
        let status = alice.ding_status(ding, DingStates::ALL, UserId(0), 1).await.unwrap();
        if status.state == DingState::EXPIRED {
            break (status.failed, status.entries[0].state);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(patiently(end(failing)).await, (1, DingState::FAILED));
    office.gateway.next_key(STARTED, "sms").await;
    office.attempts_settled(&alice, taken, bob).await;
    office.pass(minutes(1));
    assert_eq!(patiently(end(taken)).await, (0, DingState::EXPIRED));
}
