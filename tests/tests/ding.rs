//! DINGs: pushed on a lane of their own, again and again, until everybody has confirmed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use carillon_client::protocol::Frame;
use carillon_client::protocol::kinds::Lane;
use carillon_client::{
    Client, Ding, DingId, DingPush, DingState, DingStates, DingStatusReply, DingUpdate, ErrorCode, Event, Events,
    Limits, MessageKind, Outlet, Recipients, Reconnect, Role, Step, USER_NONE, UserId,
};
use carillon_tests::ahead::{AheadClock, serve_by};
use carillon_tests::harness::{
    Broker, Process, Site, connect, group_of, next_message, next_that, patiently, refusal, say,
};
use carillon_tests::raw::{Dial, Session, hello};

fn to(users: &[UserId]) -> Ding {
    Ding::new(Recipients::Users(users.to_vec()), MessageKind::TEXT, "the house is on fire")
}

/// It is pushed once, and with each connection.
fn once(ding: Ding) -> Ding {
    ding.step(Step::after(Outlet::APP, Duration::ZERO))
}

/// It is pushed each second.
fn each_second(ding: Ding) -> Ding {
    ding.step(Step::after(Outlet::APP, Duration::ZERO).repeated(50, Duration::from_secs(1)))
}

/// Those who have confirmed.
fn done() -> DingStates {
    DingStates::from([DingState::CONFIRMED])
}

async fn send(client: &Client, ding: Ding) -> DingId {
    patiently(client.ding(ding)).await.expect("the DING is accepted").ding
}

async fn next_ding(events: &mut Events) -> DingPush {
    next_that(events, |event| match event {
        Event::Ding(ding) => Some(ding.clone()),
        _ => None,
    })
    .await
}

async fn next_update(events: &mut Events) -> DingUpdate {
    next_that(events, |event| match event {
        Event::DingUpdate(update) => Some(update.clone()),
        _ => None,
    })
    .await
}

/// The whole, and who is in one of these states, in pages of 6.
async fn status(client: &Client, ding: DingId, states: DingStates) -> (DingStatusReply, Vec<UserId>) {
    let (mut users, mut from) = (Vec::new(), UserId(0));
    loop {
        let page = patiently(client.ding_status(ding, states, from, 6)).await.expect("the sender may ask");
        assert!(page.entries.len() <= 6);
        users.extend(page.entries.iter().map(|entry| entry.user));
        if page.next == UserId(u32::MAX) {
            return (page, users);
        }
        from = page.next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_to_twenty_of_whom_five_are_away_is_confirmed_by_all_in_the_end() {
    let broker = Broker::start();
    let (crm, _crm_events) = broker.service("crm").await;
    let (alice, mut alice_events) = broker.client("alice").await;
    let mut users = Vec::new();
    for nth in 0..20 {
        users.push(patiently(crm.create_user(&format!("user-{nth}"))).await.unwrap());
    }
    let mut devices = Vec::new();
    for nth in 0..15 {
        devices.push(broker.client(&format!("user-{nth}")).await);
    }
    let created = patiently(alice.ding(to(&users))).await.unwrap();
    assert_eq!(created.recipients, 20);
    let ding = created.ding;
    for (confirmed, (client, events)) in (1..).zip(&mut devices) {
        let push = next_ding(events).await;
        assert_eq!((push.ding, push.sender, push.kind), (ding, alice.user(), MessageKind::TEXT));
        assert_eq!(push.payload, "the house is on fire");
        let time = patiently(client.confirm(ding)).await.unwrap();
        let update = next_update(&mut alice_events).await;
        let expected =
            DingUpdate { ding, user: client.user(), state: DingState::CONFIRMED, time, confirmed, recipients: 20 };
        assert_eq!(update, expected);
        assert_eq!(next_update(events).await, expected, "the recipient's devices know it too");
    }
    let (whole, open) = status(&alice, ding, DingStates::UNCONFIRMED).await;
    assert_eq!((whole.state, whole.recipients, whole.confirmed), (DingState::SENT, 20, 15));
    assert_eq!(open, users[15..]);
    let (_, confirmed) = status(&alice, ding, done()).await;
    assert_eq!(confirmed, users[..15]);

    for nth in 15..20 {
        let (client, mut events) = broker.client(&format!("user-{nth}")).await;
        assert_eq!(client.welcome().dings_open, 1);
        assert_eq!(next_ding(&mut events).await.ding, ding);
        patiently(client.confirm(ding)).await.unwrap();
        let update = next_update(&mut alice_events).await;
        assert_eq!((update.user, update.confirmed), (client.user(), nth + 1));
    }
    let (whole, confirmed) = status(&alice, ding, done()).await;
    assert_eq!((whole.state, whole.confirmed), (DingState::CONFIRMED, 20));
    assert_eq!(confirmed, users);
    assert_eq!(status(&alice, ding, DingStates::UNCONFIRMED).await.1, []);
    for nth in 0..20 {
        let (client, _events) = broker.client(&format!("user-{nth}")).await;
        assert_eq!(client.welcome().dings_open, 0, "nothing is left to confirm");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inbox_does_not_delay_a_ding() {
    const WAITING: usize = 4_000;
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let mut config = broker.site.config(broker.address, "bob");
    config.limits = Limits { events_queued: 1, ..config.limits };
    let (bob, mut bob_events) = connect(config).await;
    let group = group_of(&alice, &[bob.user()]).await;
    // 4 MB, four times what the SDK lets the broker send on one stream that nobody reads.
    let mut handles = Vec::new();
    for nth in 0..WAITING {
        let payload = format!("{nth:0>1024}");
        handles.push(patiently(alice.enqueue(group, MessageKind::TEXT, payload)).await.unwrap());
        if handles.len() == 500 {
            for handle in handles.drain(..) {
                patiently(handle).await.unwrap();
            }
        }
    }
    let ding = send(&alice, to(&[bob.user()])).await;
    // Bob takes one event after the other; if the DING stood in the line of the inbox it would come last.
    let mut taken = 0;
    loop {
        let event = patiently(bob_events.next()).await.unwrap();
        bob_events.ack(&event);
        match event {
            Event::Message(_) => taken += 1,
            Event::Ding(push) => {
                assert_eq!(push.ding, ding);
                break;
            }
            _ => {}
        }
    }
    assert!(taken < WAITING / 2, "{taken} of {WAITING} messages came before the DING");
    // The answer does not stand in line either.
    patiently(bob.confirm(ding)).await.unwrap();
    assert_eq!(next_update(&mut alice_events).await.confirmed, 1);
    for nth in taken..WAITING {
        assert_eq!(next_message(&mut bob_events).await.payload, format!("{nth:0>1024}"), "nothing was lost for it");
    }
}

fn urgent(session: &mut Session) -> Frame {
    let lane = session.raw.lane(Lane::URGENT);
    session.raw.next_frame(lane).expect("the session is open")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_is_repeated_until_it_is_confirmed_and_not_afterwards() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    // The SDK shows a repeat once; a device below it sees all of them.
    let dial = Dial::new(&broker.site, broker.address);
    let mut device = dial.attach(&hello(&broker.site, "bob", 4_711)).unwrap();
    let mut carols = dial.attach(&hello(&broker.site, "carol", 4_711)).unwrap();
    let repeated = || each_second(to(&[bob.user()]));
    // Carol never confirms: the first DING stays open, and is repeated for her alone.
    let carol = patiently(alice.find_user("carol")).await.unwrap();
    let first = send(&alice, each_second(to(&[bob.user(), carol]))).await;
    for nth in 0..3 {
        let Frame::DingPush(push) = urgent(&mut device) else { panic!("something else than push {nth}") };
        assert_eq!(push.ding, first);
    }
    patiently(bob.confirm(first)).await.unwrap();
    // A push that was on its way may come before the confirmation, none after it: two more rounds of another DING prove it.
    loop {
        match urgent(&mut device) {
            Frame::DingPush(push) => assert_eq!(push.ding, first),
            Frame::DingUpdate(update) => break assert_eq!((update.ding, update.state), (first, DingState::CONFIRMED)),
            other => panic!("{other:?}"),
        }
    }
    let second = send(&alice, repeated()).await;
    for _ in 0..3 {
        let Frame::DingPush(push) = urgent(&mut device) else { panic!("something else than a push") };
        assert_eq!(push.ding, second, "the confirmed one is not pushed again");
    }
    for nth in 0..4 {
        let Frame::DingPush(push) = urgent(&mut carols) else { panic!("something else than push {nth}") };
        assert_eq!(push.ding, first, "who has not confirmed is not spared");
    }
    // Without repeats it comes once, and with the next connection.
    patiently(bob.confirm(second)).await.unwrap();
    let third = send(&alice, once(to(&[bob.user()]))).await;
    let fourth = send(&alice, repeated()).await;
    let mut pushes = Vec::new();
    while pushes.iter().filter(|ding| **ding == fourth).count() < 3 {
        match urgent(&mut device) {
            Frame::DingPush(push) => pushes.push(push.ding),
            Frame::DingUpdate(update) => assert_eq!(update.ding, second),
            other => panic!("{other:?}"),
        }
    }
    pushes.retain(|ding| *ding != second);
    assert_eq!(pushes, [third, fourth, fourth, fourth]);
    let mut again = dial.attach(&hello(&broker.site, "bob", 4_712)).unwrap();
    assert_eq!(again.welcome.dings_open, 2);
    for expected in [third, fourth] {
        let Frame::DingPush(push) = urgent(&mut again) else { panic!("something else than a push") };
        assert_eq!(push.ding, expected, "the older one first");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_ding_comes_with_every_connection_of_every_device() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (_phone, mut phone_events) = broker.client("bob").await;
    let ding = send(&alice, once(to(&[bob.user()]))).await;
    for events in [&mut bob_events, &mut phone_events] {
        assert_eq!(next_ding(events).await.ding, ding);
    }
    let tablet = broker.site.config(broker.address, "bob");
    for _ in 0..3 {
        let (client, mut events) = connect(tablet.clone()).await;
        assert_eq!((client.welcome().dings_open, next_ding(&mut events).await.ding), (1, ding));
        patiently(client.close()).await;
    }
    let (client, mut events) = connect(tablet.clone()).await;
    let push = next_ding(&mut events).await;
    let time = patiently(client.confirm(push.ding)).await.unwrap();
    for events in [&mut bob_events, &mut phone_events, &mut events] {
        let update = next_update(events).await;
        assert_eq!((update.ding, update.user, update.state), (ding, bob.user(), DingState::CONFIRMED));
    }
    // Again, from anywhere: it is confirmed, and was then.
    assert_eq!(patiently(client.confirm(ding)).await.unwrap(), time);
    assert_eq!(patiently(bob.confirm(ding)).await.unwrap(), time);
    assert_eq!(status(&alice, ding, DingStates::NONE).await.0.confirmed, 1);
    patiently(client.close()).await;
    let (client, _events) = connect(tablet).await;
    assert_eq!(client.welcome().dings_open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recalled_ding_is_gone() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (carol, mut carol_events) = broker.client("carol").await;
    let (dan, dan_events) = broker.client("dan").await;
    patiently(dan.close()).await;
    drop(dan_events);
    let ding = send(&alice, to(&[bob.user(), carol.user(), dan.user()])).await;
    let confirmed_at = {
        next_ding(&mut carol_events).await;
        patiently(carol.confirm(ding)).await.unwrap()
    };
    assert_eq!(next_ding(&mut bob_events).await.ding, ding);
    assert_eq!(next_update(&mut alice_events).await.user, carol.user());
    patiently(alice.recall_ding(ding)).await.unwrap();
    patiently(alice.recall_ding(ding)).await.unwrap();
    for events in [&mut alice_events, &mut bob_events] {
        let update = next_update(events).await;
        assert_eq!((update.ding, update.user, update.state), (ding, USER_NONE, DingState::RECALLED));
        assert_eq!((update.confirmed, update.recipients), (1, 3));
    }
    assert_eq!(refusal(patiently(bob.confirm(ding)).await), ErrorCode::DING_OVER);
    assert_eq!(patiently(carol.confirm(ding)).await.unwrap(), confirmed_at, "what was confirmed stays so");
    let (dan, _dan_events) = broker.client("dan").await;
    assert_eq!(dan.welcome().dings_open, 0);
    let (whole, open) = status(&alice, ding, DingStates::UNCONFIRMED).await;
    assert_eq!((whole.state, whole.confirmed), (DingState::RECALLED, 1));
    assert_eq!(open, [bob.user(), dan.user()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_gives_up_when_its_time_is_over() {
    let (clock, site) = (Arc::new(AheadClock::default()), Site::new());
    let server = serve_by(clock.clone(), &site);
    let config = |handle: &str| site.config(server.address(), handle);
    let (alice, mut alice_events) = connect(config("alice")).await;
    let (bob, mut bob_events) = connect(config("bob")).await;
    let (carol, mut carol_events) = connect(config("carol")).await;
    let short = to(&[bob.user(), carol.user()]).expires_after(Duration::from_mins(10));
    let ding = send(&alice, short).await;
    let push = next_ding(&mut bob_events).await;
    assert_eq!(push.expires_at.0, push.time.0 + 600_000);
    next_ding(&mut carol_events).await;
    patiently(carol.confirm(ding)).await.unwrap();
    assert_eq!(next_update(&mut alice_events).await.user, carol.user());
    clock.advance_ms(600_001);
    assert_eq!(status(&alice, ding, DingStates::UNCONFIRMED).await.0.state, DingState::EXPIRED);
    for events in [&mut alice_events, &mut bob_events] {
        let update = next_update(events).await;
        assert_eq!((update.user, update.state, update.confirmed), (USER_NONE, DingState::EXPIRED, 1));
        assert!(update.time >= push.expires_at);
    }
    assert_eq!(refusal(patiently(bob.confirm(ding)).await), ErrorCode::DING_OVER);
    let (phone, _phone_events) = connect(config("bob")).await;
    assert_eq!(phone.welcome().dings_open, 0);
    tokio::task::spawn_blocking(move || server.stop()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ding_to_a_conversation_goes_to_its_members_as_they_are_then() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (carol, mut carol_events) = broker.client("carol").await;
    let (late, _late_events) = broker.client("late").await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    let all = Ding { recipients: Recipients::Conversation(group), ..to(&[]) };
    let created = patiently(bob.ding(all)).await.unwrap();
    assert_eq!(created.recipients, 2, "all but its sender");
    patiently(alice.add_members(group, &[late.user()], Role::MEMBER)).await.unwrap();
    patiently(alice.remove_members(group, &[carol.user()])).await.unwrap();
    assert_eq!(refusal(patiently(late.confirm(created.ding)).await), ErrorCode::NOT_FOUND);
    assert_eq!(refusal(patiently(bob.confirm(created.ding)).await), ErrorCode::NOT_FOUND);
    for (client, events) in [(&alice, &mut alice_events), (&carol, &mut carol_events)] {
        assert_eq!(next_ding(events).await.sender, bob.user());
        patiently(client.confirm(created.ding)).await.unwrap();
        assert_eq!(next_update(&mut bob_events).await.user, client.user());
    }
    assert_eq!(status(&bob, created.ding, DingStates::NONE).await.0.state, DingState::CONFIRMED);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_dings_come_each_once_and_in_order_to_who_takes_them_slowly() {
    const DINGS: usize = 200;
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let mut config = broker.site.config(broker.address, "bob");
    config.limits = Limits { urgent_queued: 2, ..config.limits };
    let (bob, mut bob_events) = connect(config).await;
    let mut sent = Vec::new();
    for nth in 0..DINGS {
        let ding = Ding { payload: format!("{nth:0>8192}").into(), ..to(&[bob.user()]) };
        sent.push(send(&alice, ding).await);
    }
    // 1.6 MB: more than one stream holds, so the broker had to wait, or to close and push anew.
    for (nth, ding) in sent.iter().enumerate() {
        let push = next_ding(&mut bob_events).await;
        assert_eq!((push.ding, push.payload), (*ding, format!("{nth:0>8192}").into()));
    }
    let mut confirming = tokio::task::JoinSet::new();
    for ding in sent.clone() {
        let bob = bob.clone();
        confirming.spawn(async move { bob.confirm(ding).await.unwrap() });
    }
    assert_eq!(patiently(confirming.join_all()).await.len(), DINGS);
    let mut updated = BTreeSet::new();
    while updated.len() < DINGS {
        updated.insert(next_update(&mut bob_events).await.ding);
    }
    assert_eq!(updated, sent.into_iter().collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmations_and_what_is_open_survive_sigkill() {
    let mut broker = Process::start();
    let config = |handle: &str| broker.site.config(broker.address, handle);
    let [alice_config, bob_config, carol_config] = ["alice", "bob", "carol"].map(config);
    let (alice, mut alice_events) = connect(alice_config).await;
    let (bob, mut bob_events) = connect(bob_config.clone()).await;
    let (carol, mut carol_events) = connect(carol_config.clone()).await;
    let ding = send(&alice, once(to(&[bob.user(), carol.user()]))).await;
    assert_eq!(next_ding(&mut bob_events).await.ding, ding);
    let push = next_ding(&mut carol_events).await;
    let confirmed_at = patiently(bob.confirm(ding)).await.unwrap();
    assert_eq!(next_update(&mut alice_events).await.confirmed, 1);
    patiently(carol.close()).await;
    for _ in 0..2 {
        broker.kill();
        broker.start_again();
        let (carol, mut carol_events) = connect(carol_config.clone()).await;
        assert_eq!(carol.welcome().dings_open, 1);
        assert_eq!(next_ding(&mut carol_events).await, push, "the same DING, byte for byte");
        patiently(carol.close()).await;
        assert_eq!(patiently(bob.confirm(ding)).await.unwrap(), confirmed_at);
        assert_eq!(bob.welcome().dings_open, 0);
        let (whole, open) = status(&alice, ding, DingStates::UNCONFIRMED).await;
        assert_eq!((whole.state, whole.confirmed, whole.time), (DingState::SENT, 1, push.time));
        assert_eq!(open, [carol.user()]);
    }
    let (carol, _carol_events) = connect(carol_config.clone()).await;
    patiently(carol.confirm(ding)).await.unwrap();
    let update = next_update(&mut alice_events).await;
    assert_eq!((update.user, update.confirmed, update.recipients), (carol.user(), 2, 2));
    broker.kill();
    broker.start_again();
    assert_eq!(status(&alice, ding, DingStates::NONE).await.0.state, DingState::CONFIRMED);
    let (carol, _carol_events) = connect(carol_config).await;
    assert_eq!(carol.welcome().dings_open, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_survive_sigkill() {
    let mut broker = Process::start();
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, _bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let repeated = send(&alice, each_second(to(&[bob.user()]))).await;
    let over = send(&alice, to(&[bob.user()]).expires_after(Duration::from_secs(1))).await;
    broker.kill();
    broker.start_again();
    let dial = Dial::new(&broker.site, broker.address);
    let mut device = dial.attach_when_served(&hello(&broker.site, "bob", 4_711));
    let mut pushes = 0;
    while pushes < 3 {
        match urgent(&mut device) {
            Frame::DingPush(push) if push.ding == over => {}
            Frame::DingPush(push) => {
                assert_eq!(push.ding, repeated);
                pushes += 1;
            }
            Frame::DingUpdate(update) => assert_eq!((update.ding, update.state), (over, DingState::EXPIRED)),
            other => panic!("{other:?}"),
        }
    }
    // Two repeats are two seconds: the other's time is over, whether the broker was there when it ran out or not.
    assert_eq!(status(&alice, over, DingStates::NONE).await.0.state, DingState::EXPIRED);
    assert_eq!(refusal(patiently(bob.confirm(over)).await), ErrorCode::DING_OVER);
    say(&alice, bob.user(), "messages go on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_away_learns_which_dings_are_over() {
    let mut broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    // It takes its time to come back.
    let late = Reconnect { first_ms: 3_000, max_ms: 3_000, jitter: 0.0, attempts_max: None };
    let (phone, mut phone_events) = connect(broker.site.config(broker.address, "bob").reconnect(late)).await;
    let (tablet, _tablet_events) = broker.client("bob").await;
    let recalled = send(&alice, to(&[phone.user()])).await;
    let confirmed = send(&alice, to(&[phone.user()])).await;
    let open = send(&alice, to(&[phone.user()])).await;
    for ding in [recalled, confirmed, open] {
        assert_eq!(next_ding(&mut phone_events).await.ding, ding);
    }
    broker.stop().await;
    broker.start_again();
    patiently(alice.recall_ding(recalled)).await.unwrap();
    patiently(tablet.confirm(confirmed)).await.unwrap();
    let mut over = BTreeSet::new();
    while over.len() < 2 {
        let next = next_that(&mut phone_events, |event| match event {
            // Should it have been back before, it is told live.
            Event::DingOver(ding) => Some(*ding),
            Event::DingUpdate(update) => Some(update.ding),
            Event::Ding(push) => panic!("{push:?} was shown before"),
            _ => None,
        });
        over.insert(next.await);
    }
    assert_eq!(over, BTreeSet::from([recalled, confirmed]));
    patiently(phone.confirm(open)).await.unwrap();
}
