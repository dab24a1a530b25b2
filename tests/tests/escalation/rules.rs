//! Who may, how often, and who is told how far it has come.

use std::time::Duration;

use carillon::dings::rates::Rates;
use carillon::dings::{Allowed, DingPolicy, Quiet};
use carillon_client::{DingState, DingStates, ErrorCode, Event, Outlet, RequestError, Step, UserId};
use carillon_core::input::Audience;
use carillon_tests::harness::{group_of, next_that, patiently, refusal};

use crate::STARTED;
use crate::office::{Office, minutes, next_ding, next_progress, plan, policy, to};

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_has_so_many_dings_a_minute_and_is_told_when_to_try_again() {
    // So few that no machine is slow enough to earn another one meanwhile.
    let rates = Rates { per_sender_a_minute: 1, per_tenant_a_minute: 2 };
    let office = Office::with(DingPolicy { rates, ..policy() }).await;
    let (alice, _alice_events) = office.client("alice").await;
    let (carol, _carol_events) = office.client("carol").await;
    let (dave, _dave_events) = office.client("dave").await;
    let bob = office.user("bob").await;
    let first = patiently(alice.ding(to(&[bob]))).await.unwrap().ding;
    match patiently(alice.ding(to(&[bob]))).await {
        Err(RequestError::Refused { code: ErrorCode::RATE_LIMITED, text }) => {
            assert!(text.contains("you may send 1 DINGs and reminders a minute: try again in"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let reminded = patiently(alice.remind_ding(first, Outlet::APP)).await;
    assert_eq!(refusal(reminded), ErrorCode::RATE_LIMITED, "a reminder counts too");
    // Another sender has a share of its own, until the tenant's is used up. What is refused does not count.
    assert_eq!(refusal(patiently(carol.ding(to(&[carol.user()]))).await), ErrorCode::INVALID);
    patiently(carol.ding(to(&[bob]))).await.unwrap();
    assert_eq!(refusal(patiently(dave.ding(to(&[bob]))).await), ErrorCode::RATE_LIMITED);
    office.pass(minutes(1));
    patiently(alice.ding(to(&[bob]))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_who_may_not_ding_somebody_is_refused() {
    let office = Office::with(DingPolicy { audience: Audience::Acquainted, ..policy() }).await;
    let (alice, _alice_events) = office.client("alice").await;
    let (bob, carol) = (office.user("bob").await, office.user("carol").await);
    group_of(&alice, &[bob]).await;
    patiently(alice.ding(to(&[bob]))).await.unwrap();
    assert_eq!(refusal(patiently(alice.ding(to(&[bob, carol]))).await), ErrorCode::FORBIDDEN);
    let (head, _head_events) = office.admin("head").await;
    patiently(head.ding(to(&[bob, carol]))).await.unwrap();

    let office = Office::with(DingPolicy { senders: Allowed::Managers, ..policy() }).await;
    let (alice, _alice_events) = office.client("alice").await;
    let bob = office.user("bob").await;
    assert_eq!(refusal(patiently(alice.ding(to(&[bob]))).await), ErrorCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_its_own_stays_within_what_the_tenant_allows() {
    let office =
        Office::with(DingPolicy { outlets: vec![Outlet::APP, Outlet::SMS], own_times_max: 2, ..policy() }).await;
    let (alice, _alice_events) = office.client("alice").await;
    let bob = office.user("bob").await;
    assert_eq!(refusal(patiently(alice.ding(plan(to(&[bob])))).await), ErrorCode::INVALID, "no phone here");
    let app = Step::after(Outlet::APP, Duration::ZERO);
    let sms = |times| Step::after(Outlet::SMS, minutes(1)).repeated(times, minutes(1));
    assert_eq!(refusal(patiently(alice.ding(to(&[bob]).step(app).step(sms(3)))).await), ErrorCode::INVALID);
    patiently(alice.ding(to(&[bob]).step(app).step(sms(2)))).await.unwrap();
    assert_eq!(refusal(patiently(alice.ding(to(&[bob]).step(sms(1)))).await), ErrorCode::INVALID, "without the app");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_messages_wait_until_quiet_hours_are_over_unless_they_are_overridden() {
    let mut office = Office::open().await;
    let minute = u16::try_from(office.now_s() / 60 % 1_440).unwrap();
    let zone = jiff::tz::TimeZone::UTC;
    // From now on for half an hour.
    let quiet =
        Quiet { from_min: minute, to_min: (minute + 30) % 1_440, zone, outlets: vec![Outlet::SMS, Outlet::PHONE] };
    drop(office);
    office = Office::with(DingPolicy { quiet: Some(quiet), ..policy() }).await;
    let (alice, _alice_events) = office.client("alice").await;
    let (head, _head_events) = office.admin("head").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let waiting = patiently(alice.ding(plan(to(&[bob.user()])))).await.unwrap().ding;
    assert_eq!(next_ding(&mut bob_events).await.ding, waiting, "the app does not wait");
    let refused = patiently(alice.ding(plan(to(&[bob.user()])).override_quiet_hours())).await;
    assert_eq!(refusal(refused), ErrorCode::FORBIDDEN);
    let urgent = patiently(head.ding(plan(to(&[bob.user()])).override_quiet_hours())).await.unwrap().ding;
    office.pass(minutes(5));
    for ding in [urgent, waiting] {
        let mut outlets = [office.gateway.next().await, office.gateway.next().await].map(|seen| {
            assert_eq!((seen.event.as_str(), seen.data["ding"].as_str()), (STARTED, Some(ding.to_string().as_str())));
            seen.outlet
        });
        outlets.sort_unstable();
        assert_eq!(outlets, ["phone", "sms"]);
        office.pass(minutes(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_and_who_watches_are_told_how_far_a_large_ding_has_come_and_not_by_whom() {
    let office = Office::open().await;
    let (alice, mut alice_events) = office.client("alice").await;
    let (head, mut head_events) = office.admin("head").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let mut users = vec![bob.user()];
    for nth in 0..200 {
        users.push(patiently(head.create_user(&format!("user-{nth}"))).await.unwrap());
    }
    let ding = patiently(alice.ding(to(&users))).await.unwrap().ding;
    patiently(head.watch_ding(ding)).await.unwrap();
    assert_eq!(refusal(patiently(bob.watch_ding(ding)).await), ErrorCode::NOT_FOUND, "not a recipient's business");
    next_ding(&mut bob_events).await;
    patiently(bob.confirm(ding)).await.unwrap();
    for events in [&mut alice_events, &mut head_events] {
        let told = next_that(events, |event| match event {
            Event::DingProgress(progress) if progress.ding == ding && progress.confirmed == 1 => Some(progress.clone()),
            Event::DingUpdate(update) => panic!("named to an author of many: {update:?}"),
            _ => None,
        });
        let told = told.await;
        assert_eq!((told.recipients, told.confirmed, told.state), (201, 1, DingState::SENT));
    }
    let confirmed = patiently(alice.ding_status(ding, [DingState::CONFIRMED], UserId(0), 10)).await.unwrap();
    assert_eq!(confirmed.entries.iter().map(|entry| entry.user).collect::<Vec<_>>(), [bob.user()]);
    patiently(alice.recall_ding(ding)).await.unwrap();
    let over = async {
        loop {
            let progress = next_progress(&mut head_events, ding).await;
            if progress.state == DingState::RECALLED {
                return progress.confirmed;
            }
        }
    };
    assert_eq!(patiently(over).await, 1);
    let sent = patiently(alice.sent_dings(None, 10)).await.unwrap();
    assert_eq!(
        sent.entries.iter().map(|entry| (entry.ding, entry.state)).collect::<Vec<_>>(),
        [(ding, DingState::RECALLED)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_is_told_apart_from_sent_and_confirmed() {
    let office = Office::open().await;
    let (alice, mut alice_events) = office.client("alice").await;
    let (bob, mut bob_events) = office.client("bob").await;
    let carol = office.user("carol").await;
    let ding = patiently(alice.ding(to(&[bob.user(), carol]))).await.unwrap().ding;
    next_ding(&mut bob_events).await;
    let delivered = async { while next_progress(&mut alice_events, ding).await.delivered == 0 {} };
    patiently(delivered).await;
    let status = patiently(alice.ding_status(ding, DingStates::ALL, UserId(0), 10)).await.unwrap();
    let states: Vec<_> = status.entries.iter().map(|entry| (entry.user, entry.state)).collect();
    let mut expected = vec![(bob.user(), DingState::DELIVERED), (carol, DingState::SENT)];
    expected.sort_unstable_by_key(|(user, _)| *user);
    assert_eq!(states, expected);
    patiently(bob.confirm(ding)).await.unwrap();
    let status = patiently(alice.ding_status(ding, DingStates::UNCONFIRMED, UserId(0), 10)).await.unwrap();
    assert_eq!((status.confirmed, status.delivered, status.entries.len()), (1, 0, 1));
}
