//! How DINGs begin later, are taken back, and whom they go to.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use carillon_client::{CancelState, DingState, DingStates, ErrorCode, Event, Outlet, Recipients, UserId};
use carillon_tests::harness::{connect, group_of, next_that, patiently, refusal, say};

use crate::office::{Office, minutes, next_ding, next_update, plan, to};
use crate::{CANCELLED, STARTED};

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_for_later_is_nobody_s_business_until_it_starts() {
    let office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let later = plan(to(&[bob.user()])).starts_after(minutes(30));
    let created = patiently(alice.ding(later)).await.unwrap();
    assert!(created.starts_at.0 > created.expires_at.0 - 24 * 3_600_000 - 1);
    let status = patiently(alice.ding_status(created.ding, DingStates::ALL, UserId(0), 1)).await.unwrap();
    assert_eq!((status.state, status.entries[0].state), (DingState::SCHEDULED, DingState::SCHEDULED));
    assert_eq!(refusal(patiently(bob.confirm(created.ding)).await), ErrorCode::NOT_FOUND, "it is not known yet");
    // What comes first is the one that has started.
    let now = patiently(alice.ding(to(&[bob.user()]))).await.unwrap().ding;
    assert_eq!(next_ding(&mut bob_events).await.ding, now);
    let (_tablet, mut tablet_events) = office.client("bob").await;
    assert_eq!(next_ding(&mut tablet_events).await.ding, now);
    office.pass(minutes(30));
    assert_eq!(next_ding(&mut bob_events).await.ding, created.ding);
    assert_eq!(next_ding(&mut tablet_events).await.ding, created.ding);
    patiently(bob.confirm(created.ding)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recalled_ding_is_taken_off_the_devices_and_its_gateways_are_told() {
    let mut office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let carol = office.user("carol").await;
    let ding = patiently(alice.ding(plan(to(&[bob.user(), carol])))).await.unwrap().ding;
    next_ding(&mut bob_events).await;
    office.pass(minutes(1));
    let mut keys = [office.gateway.next_key(STARTED, "sms").await, office.gateway.next_key(STARTED, "sms").await];
    patiently(alice.recall_ding(ding)).await.unwrap();
    assert_eq!(next_update(&mut bob_events).await.state, DingState::RECALLED);
    let mut told = [office.gateway.next_key(CANCELLED, "sms").await, office.gateway.next_key(CANCELLED, "sms").await];
    keys.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, keys);
    let attempts = office.attempts_settled(&alice, ding, carol).await;
    assert_eq!(attempts[1].cancel, CancelState::DONE);
    // Who comes late is not shown it, and a confirmation that crossed the recall is told so.
    let later = patiently(alice.ding(to(&[carol]))).await.unwrap().ding;
    let (_carol, mut carol_events) = office.client("carol").await;
    assert_eq!(next_ding(&mut carol_events).await.ding, later);
    assert_eq!(refusal(patiently(bob.confirm(ding)).await), ErrorCode::DING_OVER);
    office.pass(minutes(20));
    office.settle(&alice).await;
    assert!(office.gateway.rest().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_confirm_at_once_confirm_once() {
    let office = Office::open().await;
    let (alice, mut alice_events) = office.client("alice").await;
    let (phone, mut phone_events) = office.client("bob").await;
    let (tablet, mut tablet_events) = office.client("bob").await;
    let ding = patiently(alice.ding(to(&[phone.user()]))).await.unwrap().ding;
    next_ding(&mut phone_events).await;
    next_ding(&mut tablet_events).await;
    let (first, second) = tokio::join!(patiently(phone.confirm(ding)), patiently(tablet.confirm(ding)));
    assert_eq!(first.unwrap(), second.unwrap(), "both are told of the one confirmation");
    let update = next_update(&mut alice_events).await;
    assert_eq!((update.confirmed, update.recipients, update.state), (1, 1, DingState::CONFIRMED));
    for events in [&mut phone_events, &mut tablet_events] {
        assert_eq!(next_update(events).await.user, phone.user());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_from_the_conversation_is_called_all_the_same() {
    let mut office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let (carol, carol_events) = office.client("carol").await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    drop((carol, carol_events));
    let message = say(&alice, group, "look at this").await;
    let ding = carillon_client::Ding::new(Recipients::Conversation(group), carillon_client::MessageKind::TEXT, "!");
    let created = patiently(alice.ding(plan(ding).about(group, message.seq))).await.unwrap();
    assert_eq!(created.recipients, 2, "its members but the sender");
    let push = next_ding(&mut bob_events).await;
    assert_eq!((push.conversation, push.seq), (group, message.seq));
    patiently(alice.remove_members(group, &[bob.user()])).await.unwrap();
    let late = connect_and_join(&office, &alice, group).await;
    office.pass(minutes(1));
    let called = [office.gateway.next().await, office.gateway.next().await];
    let mut names: Vec<_> = called.iter().map(|seen| seen.data["recipient"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bob", "carol"], "the members as they were, not {late}");
    patiently(bob.confirm(created.ding)).await.unwrap();
}

/// Somebody who becomes a member afterwards.
async fn connect_and_join(
    office: &Office,
    owner: &carillon_client::Client,
    group: carillon_client::ConversationId,
) -> UserId {
    let dave = office.user("dave").await;
    patiently(owner.add_members(group, &[dave], carillon_client::Role::MEMBER)).await.unwrap();
    dave
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_have_not_confirmed_are_reminded_by_hand() {
    let mut office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let (carol, mut carol_events) = office.client("carol").await;
    let ding = patiently(alice.ding(to(&[bob.user(), carol.user()]))).await.unwrap().ding;
    next_ding(&mut bob_events).await;
    next_ding(&mut carol_events).await;
    patiently(bob.confirm(ding)).await.unwrap();
    assert_eq!(patiently(alice.remind_ding(ding, Outlet::PHONE)).await.unwrap(), 1);
    let seen = office.gateway.next().await;
    assert_eq!((seen.outlet.as_str(), seen.data["recipient"].as_str()), ("phone", Some("carol")));
    assert_eq!(refusal(patiently(bob.remind_ding(ding, Outlet::APP)).await), ErrorCode::NOT_FOUND, "not the sender");
    assert_eq!(refusal(patiently(alice.remind_ding(ding, Outlet::MAIL)).await), ErrorCode::INVALID, "not allowed");
    patiently(carol.confirm(ding)).await.unwrap();
    assert_eq!(refusal(patiently(alice.remind_ding(ding, Outlet::APP)).await), ErrorCode::DING_OVER);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unconfirmed_comes_first_to_who_connects_with_a_backlog() {
    let office = Office::open().await;
    let (alice, _alice_events) = office.client("alice").await;
    let bob = office.user("bob").await;
    let group = group_of(&alice, &[bob]).await;
    let ding = patiently(alice.ding(to(&[bob]))).await.unwrap().ding;
    for nth in 0..500 {
        say(&alice, group, format!("message {nth}")).await;
    }
    let mut config = office.config("bob");
    config.limits.events_queued = 16;
    let (_bob, mut events) = connect(config).await;
    // The urgent lane is not held up by an inbox of which nobody takes anything.
    let pushed = next_that(&mut events, |event| match event {
        Event::Ding(push) => Some(Some(push.ding)),
        Event::Message(message) if message.seq.0 > 400 => Some(None),
        _ => None,
    });
    assert_eq!(pushed.await, Some(ding));
}
