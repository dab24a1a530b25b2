//! A publish whose reply was lost is sent again under its number, and counts once; what else a number can be refused for; how
//! many producers and devices a user may have.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use carillon_client::{Client, Events};
use carillon_protocol::Frame;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::ids::UserId;
use carillon_protocol::kinds::{MessageKind, Retired, Target};
use carillon_protocol::limits::PRODUCER_WINDOW;
use carillon_protocol::publish::{Publish, PublishRefused, Published};
use carillon_protocol::session::{Hello, Retire};
use carillon_tests::harness::{Broker, Process, Site, connect, next_message, next_texts};
use carillon_tests::raw::{Dial, Session, hello, hello_of_producer, text_to};

const DEVICE: u64 = 0xa11ce;
const PRODUCER: u64 = 0xfeed;

/// The most devices or producers a user may have: `docs/PROTOCOL.md`, "Limits".
const A_USER_MAX: u64 = 16;

fn published(answer: Frame) -> Published {
    match answer {
        Frame::Published(published) => published,
        other => panic!("it was answered by {other:?}"),
    }
}

fn refused(answer: Frame) -> PublishRefused {
    match answer {
        Frame::PublishRefused(refused) => refused,
        other => panic!("it was answered by {other:?}"),
    }
}

/// Publishes as alice, whose connection ends before the reply is read; it has happened when bob has the message.
async fn publish_unheard(dial: &Dial, hello: &Hello, bob: &Client, bob_events: &mut Events, ending: fn(Session)) {
    let mut alice = dial.attach(hello).unwrap();
    assert_eq!(alice.welcome.producer_highest, 0);
    alice.raw.send(alice.publish, &text_to(bob.user(), 1, "once"));
    let message = next_message(bob_events).await;
    assert_eq!((&message.payload[..], message.seq.0), (&b"once"[..], 1));
    ending(alice);
}

/// Publishes the same again in a session that was just opened: it is what bob has already, and he gets nothing but the next.
async fn check_repeated(mut alice: Session, bob: &Client, bob_events: &mut Events) -> Published {
    assert_eq!(alice.welcome.producer_highest, 1);
    let repeat = published(alice.publish(&text_to(bob.user(), 1, "once")).unwrap());
    assert_eq!((repeat.number, repeat.seq.0, repeat.repeated), (1, 1, 1));
    let next = published(alice.publish(&text_to(bob.user(), 2, "next")).unwrap());
    assert_eq!((next.number, next.seq.0, next.repeated), (2, 2, 0));
    let message = next_message(bob_events).await;
    assert_eq!((&message.payload[..], message.position), (&b"next"[..], next.position));
    repeat
}

/// What a device that comes later gets: the journal has each message once, at the place that the repeat was told.
async fn check_journal(site: &Site, dial: &Dial, repeat: &Published) {
    let (_bob_tablet, mut events) = connect(site.config(dial.address, "bob")).await;
    let first = next_message(&mut events).await;
    assert_eq!((&first.payload[..], first.seq, first.position), (&b"once"[..], repeat.seq, repeat.position));
    assert_eq!(first.time, repeat.time);
    assert_eq!(next_texts(&mut events, 1).await, ["next"]);
}

async fn check_lost_reply(ending: fn(Session)) {
    let broker = Broker::start();
    let (bob, mut bob_events) = broker.client("bob").await;
    let dial = Dial::new(&broker.site, broker.address);
    let hello = hello_of_producer(&broker.site, "alice", DEVICE, PRODUCER);
    publish_unheard(&dial, &hello, &bob, &mut bob_events, ending).await;
    let repeat = check_repeated(dial.attach(&hello).unwrap(), &bob, &mut bob_events).await;
    check_journal(&broker.site, &dial, &repeat).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_closed_connection_counts_once() {
    check_lost_reply(|session| session.raw.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_connection_that_vanished_counts_once() {
    check_lost_reply(drop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_restart_counts_once() {
    let mut broker = Broker::start();
    let (bob, mut bob_events) = broker.client("bob").await;
    let dial = Dial::new(&broker.site, broker.address);
    let hello = hello_of_producer(&broker.site, "alice", DEVICE, PRODUCER);
    publish_unheard(&dial, &hello, &bob, &mut bob_events, drop).await;
    broker.stop().await;
    broker.start_again();
    let repeat = check_repeated(dial.attach_when_served(&hello), &bob, &mut bob_events).await;
    check_journal(&broker.site, &dial, &repeat).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_after_a_kill_counts_once() {
    let mut broker = Process::start();
    let (bob, mut bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let dial = Dial::new(&broker.site, broker.address);
    let hello = hello_of_producer(&broker.site, "alice", DEVICE, PRODUCER);
    publish_unheard(&dial, &hello, &bob, &mut bob_events, drop).await;
    broker.kill();
    broker.start_again();
    let repeat = check_repeated(dial.attach_when_served(&hello), &bob, &mut bob_events).await;
    check_journal(&broker.site, &dial, &repeat).await;
    broker.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_from_another_device_counts_once() {
    let broker = Broker::start();
    let (bob, mut bob_events) = broker.client("bob").await;
    let dial = Dial::new(&broker.site, broker.address);
    let hello = hello_of_producer(&broker.site, "alice", DEVICE, PRODUCER);
    publish_unheard(&dial, &hello, &bob, &mut bob_events, drop).await;
    let elsewhere = hello_of_producer(&broker.site, "alice", DEVICE + 1, PRODUCER);
    check_repeated(dial.attach(&elsewhere).unwrap(), &bob, &mut bob_events).await;
}

/// A broker on which bob exists, and alice's session.
fn alice_and_bob(producer: u64) -> (Broker, Dial, Session, UserId) {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    let bob = dial.attach(&hello(&broker.site, "bob", 1)).unwrap();
    let user = bob.welcome.user;
    bob.raw.close();
    let alice = dial.attach(&hello_of_producer(&broker.site, "alice", DEVICE, producer)).unwrap();
    (broker, dial, alice, user)
}

/// Asserts that a publish is refused with this code and a text, under its number.
fn check_refused(alice: &mut Session, publish: &Publish, code: ErrorCode) {
    let refused = refused(alice.publish(publish).unwrap());
    assert_eq!((refused.number, refused.code), (publish.number, code), "{}", &*refused.text);
    assert!(refused.text.len() >= 8, "{code} says nothing: {:?}", refused.text);
}

#[test]
fn a_number_with_other_content_is_a_conflict() {
    let (_broker, _dial, mut alice, bob) = alice_and_bob(PRODUCER);
    let publish = text_to(bob, 1, "this");
    let first = published(alice.publish(&publish).unwrap());
    let conversation = first.conversation.0;
    for other in [
        Publish { payload: "that".into(), ..publish.clone() },
        Publish { payload: "".into(), ..publish.clone() },
        Publish { kind: MessageKind::CARD, ..publish.clone() },
        Publish { target_id: u64::from(bob.0) + 7, ..publish.clone() },
        // The same place under another name is other content: the client repeats what it sent.
        Publish { target: Target::CONVERSATION, target_id: conversation, ..publish.clone() },
    ] {
        check_refused(&mut alice, &other, ErrorCode::PRODUCER_CONFLICT);
    }
    let again = published(alice.publish(&publish).unwrap());
    assert_eq!(again, Published { repeated: 1, ..first });
}

#[test]
fn what_low_has_settled_is_not_taken_again() {
    let (broker, dial, mut alice, bob) = alice_and_bob(PRODUCER);
    for number in 1..=3 {
        published(alice.publish(&Publish { low: 1, ..text_to(bob, number, "one of three") }).unwrap());
    }
    published(alice.publish(&Publish { low: 3, ..text_to(bob, 4, "settles two") }).unwrap());
    for number in 1..=2 {
        check_refused(
            &mut alice,
            &Publish { low: 1, ..text_to(bob, number, "one of three") },
            ErrorCode::ALREADY_SETTLED,
        );
    }
    let third = published(alice.publish(&Publish { low: 1, ..text_to(bob, 3, "one of three") }).unwrap());
    assert_eq!((third.seq.0, third.repeated), (3, 1));
    // A session later it is still so.
    let hello = hello_of_producer(&broker.site, "alice", DEVICE, PRODUCER);
    let mut alice = dial.attach(&hello).unwrap();
    assert_eq!(alice.welcome.producer_highest, 4);
    check_refused(&mut alice, &Publish { low: 1, ..text_to(bob, 2, "one of three") }, ErrorCode::ALREADY_SETTLED);
}

#[test]
fn low_counts_only_in_a_publish_that_was_taken() {
    let (_broker, _dial, mut alice, bob) = alice_and_bob(PRODUCER);
    let first = published(alice.publish(&text_to(bob, 1, "kept")).unwrap());
    check_refused(&mut alice, &text_to(UserId(4_711), 2, "to nobody"), ErrorCode::UNKNOWN_USER);
    let again = published(alice.publish(&text_to(bob, 1, "kept")).unwrap());
    assert_eq!(again, Published { repeated: 1, ..first });
    // A refused number was not used: it may be given to something else.
    assert_eq!(published(alice.publish(&text_to(bob, 2, "to bob")).unwrap()).repeated, 0);
}

#[test]
fn a_number_beyond_the_window_is_refused() {
    let (_broker, _dial, mut alice, bob) = alice_and_bob(PRODUCER);
    let beyond = Publish { low: 1, ..text_to(bob, 1 + PRODUCER_WINDOW, "too far") };
    check_refused(&mut alice, &beyond, ErrorCode::OUTSIDE_WINDOW);
    let last = Publish { low: 1, ..text_to(bob, PRODUCER_WINDOW, "just so") };
    assert_eq!(published(alice.publish(&last).unwrap()).repeated, 0);
    // Numbers below it that were passed over may still come.
    assert_eq!(published(alice.publish(&text_to(bob, 1, "late")).unwrap()).seq.0, 2);
    for (number, low) in [(0, 0), (1, 0), (0, 1), (2, 3)] {
        check_refused(&mut alice, &Publish { low, ..text_to(bob, number, "?") }, ErrorCode::INVALID);
    }
    check_refused(&mut alice, &Publish { low: 1, ..text_to(bob, u64::MAX, "?") }, ErrorCode::OUTSIDE_WINDOW);
}

#[test]
fn without_a_producer_nothing_is_published() {
    let (_broker, _dial, mut alice, bob) = alice_and_bob(0);
    check_refused(&mut alice, &text_to(bob, 1, "?"), ErrorCode::NO_PRODUCER);
    assert_eq!(alice.welcome.producer_highest, 0);
}

#[test]
fn a_welcome_tells_the_highest_number_of_its_producer_alone() {
    let (broker, dial, mut alice, bob) = alice_and_bob(PRODUCER);
    for number in [1, 2, 5] {
        published(alice.publish(&Publish { low: 1, ..text_to(bob, number, "m") }).unwrap());
    }
    for (handle, producer, highest) in
        [("alice", PRODUCER, 5), ("alice", PRODUCER + 1, 0), ("alice", 0, 0), ("bob", PRODUCER, 0)]
    {
        let session = dial.attach(&hello_of_producer(&broker.site, handle, 77, producer)).unwrap();
        assert_eq!(session.welcome.producer_highest, highest, "{handle} {producer}");
    }
}

fn done(answer: Frame, request: u32) {
    assert!(matches!(&answer, Frame::Done(done) if done.request == request), "it was answered by {answer:?}");
}

#[test]
fn a_seventeenth_producer_waits_until_one_is_retired() {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    let with = |producer| hello_of_producer(&broker.site, "alice", DEVICE, producer);
    for producer in 1..=A_USER_MAX {
        dial.attach(&with(producer)).unwrap().raw.close();
    }
    let refused = dial.refused(&with(A_USER_MAX + 1));
    refused.check(ErrorCode::TOO_MANY_PRODUCERS, "one more producer");
    let mut alice = dial.attach(&with(0)).unwrap();
    let retire = Retire { request: 9, what: Retired::PRODUCER, id: 3 };
    done(alice.request(&retire).unwrap(), 9);
    let again = alice.request(&retire).unwrap();
    assert!(matches!(&again, Frame::Error(Error { code: ErrorCode::NOT_FOUND, .. })), "{again:?}");
    dial.attach(&with(A_USER_MAX + 1)).unwrap();
    dial.refused(&with(3)).check(ErrorCode::TOO_MANY_PRODUCERS, "the retired one again");
    // Another user has producers of its own, of the same ids too.
    dial.attach(&hello_of_producer(&broker.site, "bob", DEVICE, 3)).unwrap();
}

#[test]
fn a_seventeenth_device_waits_until_one_is_retired() {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    let on = |device| hello(&broker.site, "alice", device);
    for device in 1..=A_USER_MAX {
        dial.attach(&on(device)).unwrap().raw.close();
    }
    let refused = dial.refused(&on(A_USER_MAX + 1));
    refused.check(ErrorCode::TOO_MANY_DEVICES, "one more device");
    let mut alice = dial.attach(&on(2)).unwrap();
    done(alice.request(&Retire { request: 9, what: Retired::DEVICE, id: 3 }).unwrap(), 9);
    dial.attach(&on(A_USER_MAX + 1)).unwrap();
    dial.refused(&on(3)).check(ErrorCode::TOO_MANY_DEVICES, "the retired one again");
}

#[test]
fn the_session_of_a_retired_device_or_producer_is_closed() {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    let mut phone = dial.attach(&hello_of_producer(&broker.site, "alice", 1, 11)).unwrap();
    let mut tablet = dial.attach(&hello_of_producer(&broker.site, "alice", 2, 12)).unwrap();
    let mut desk = dial.attach(&hello_of_producer(&broker.site, "alice", 3, 13)).unwrap();
    let mut other = dial.attach(&hello_of_producer(&broker.site, "bob", 1, 12)).unwrap();
    done(desk.request(&Retire { request: 1, what: Retired::DEVICE, id: 1 }).unwrap(), 1);
    phone.raw.closed().check(ErrorCode::RETIRED, "the device");
    done(desk.request(&Retire { request: 2, what: Retired::PRODUCER, id: 12 }).unwrap(), 2);
    tablet.raw.closed().check(ErrorCode::RETIRED, "the producer");
    // Who retires and who only has the same ids elsewhere are left alone.
    let bob = other.welcome.user;
    published(desk.publish(&text_to(bob, 1, "still here")).unwrap());
    published(other.publish(&text_to(desk.welcome.user, 1, "me too")).unwrap());
}
