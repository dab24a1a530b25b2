//! kill -9 of the real broker in the midst of an escalation: what was handed to a gateway and has no outcome is handed to it again,
//! under the same key, and what was confirmed stays confirmed.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::time::Duration;

use carillon_client::{AttemptState, DingState, DingStates, Event, UserId};
use carillon_client::{Client, Ding, DingId, MessageKind, Outlet, Recipients, Step};
use carillon_tests::gateway::{Answer, Gateway, SECRET};
use carillon_tests::harness::{Process, connect, next_that, patiently};

const STARTED: &str = "ding.step.started";
const CANCELLED: &str = "ding.step.cancelled";

/// A broker with an outlet for short messages at this gateway.
fn serve(gateway: &Gateway) -> Process {
    let secret = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::write(&secret, SECRET).unwrap();
    let secret = secret.keep().unwrap();
    let outlet = format!(
        "[outlet.sms]\nurl = \"http://{}/sms\"\nsecret_files = [\"{}\"]\nallow = [\"127.0.0.0/8\"]\ntimeout_ms = 60000\n\
         [ding]\noutlets = [\"app\", \"sms\"]\n",
        gateway.address,
        secret.display()
    );
    Process::start_with(&outlet)
}

async fn status(client: &Client, ding: DingId) -> DingState {
    patiently(client.ding_status(ding, DingStates::NONE, UserId(0), 1)).await.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_outcome_is_made_again_under_its_key_after_every_kill() {
    let mut gateway = Gateway::start().await;
    let mut broker = serve(&gateway);
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, mut bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    // The gateway takes the call and never says what it made of it.
    gateway.answer(Answer::Never);
    let ding = Ding::new(Recipients::Users(vec![bob.user()]), MessageKind::TEXT, "wake up")
        .step(Step::after(Outlet::APP, Duration::ZERO))
        .step(Step::after(Outlet::SMS, Duration::ZERO));
    let ding = patiently(alice.ding(ding)).await.unwrap().ding;
    let key = gateway.next_key(STARTED, "sms").await;
    for _ in 0..3 {
        broker.kill();
        broker.start_again();
        assert_eq!(gateway.next_key(STARTED, "sms").await, key, "the same attempt");
    }
    gateway.answer(Answer::Status(202));
    broker.kill();
    broker.start_again();
    assert_eq!(gateway.next_key(STARTED, "sms").await, key);
    let accepted = async {
        loop {
            let attempts = alice.ding_attempts(ding, bob.user()).await;
            if attempts.is_ok_and(|attempts| attempts[1].state == AttemptState::ACCEPTED) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    patiently(accepted).await;

    // Confirmed, durably: the gateway is told, once more if need be, and no further call comes.
    gateway.answer(Answer::Never);
    next_that(&mut bob_events, |event| matches!(event, Event::Ding(push) if push.ding == ding).then_some(())).await;
    patiently(bob.confirm(ding)).await.unwrap();
    assert_eq!(gateway.next_key(CANCELLED, "sms").await, key);
    broker.kill();
    gateway.answer(Answer::Status(204));
    broker.start_again();
    assert_eq!(gateway.next_key(CANCELLED, "sms").await, key);
    assert_eq!(status(&alice, ding).await, DingState::CONFIRMED);
    broker.terminate();
    broker.start_again();
    assert_eq!(status(&alice, ding).await, DingState::CONFIRMED);
    assert!(gateway.rest().is_empty(), "nothing is left to say");
}
