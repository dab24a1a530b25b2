//! Who takes over: a later session of a device or a producer ends the earlier one, and nothing that one sends late is taken.
//! And how many requests a session may have pending.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::BTreeMap;

use carillon_protocol::Frame;
use carillon_protocol::control::UserFind;
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::ids::UserId;
use carillon_protocol::limits::REQUESTS_PENDING_MAX;
use carillon_protocol::publish::Publish;
use carillon_tests::harness::Broker;
use carillon_tests::raw::{Dial, Session, concat, hello, hello_of_producer, text_to};

const PRODUCER: u64 = 0xfeed;

/// Sessions land on one of two edges as their connection ids have it: so often both cases are met.
const TRIES: u64 = 16;

fn start() -> (Broker, Dial, UserId) {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    let bob = dial.attach(&hello(&broker.site, "bob", 1)).unwrap();
    let user = bob.welcome.user;
    bob.raw.close();
    (broker, dial, user)
}

fn find_bob(request: u32) -> UserFind {
    UserFind { request, create: 0, handle: "bob".into() }
}

/// Asserts that the session is served.
fn check_served(session: &mut Session, bob: UserId) {
    let found = session.request(&find_bob(7)).unwrap();
    assert!(matches!(&found, Frame::UserFound(found) if found.user == bob), "{found:?}");
}

fn check_published(session: &mut Session, publish: &Publish, repeated: u8) {
    let answer = session.publish(publish).unwrap();
    assert!(matches!(&answer, Frame::Published(published) if published.repeated == repeated), "{answer:?}");
}

#[test]
fn a_second_session_of_a_device_ends_the_first() {
    let (broker, dial, bob) = start();
    let hello = hello(&broker.site, "alice", 1);
    let mut session = dial.attach(&hello).unwrap();
    for _ in 0..TRIES {
        let next = dial.attach(&hello).unwrap();
        session.raw.closed().check(ErrorCode::FENCED, "the first session of the device");
        session = next;
        check_served(&mut session, bob);
    }
}

#[test]
fn a_second_session_of_a_producer_ends_the_first() {
    let (broker, dial, bob) = start();
    let on = |device| hello_of_producer(&broker.site, "alice", device, PRODUCER);
    let mut session = dial.attach(&on(0)).unwrap();
    for nth in 1..=TRIES {
        let mut next = dial.attach(&on(nth % 2)).unwrap();
        session.raw.closed().check(ErrorCode::FENCED, "the first session of the producer");
        assert_eq!(next.welcome.producer_highest, nth - 1);
        check_published(&mut next, &text_to(bob, nth, "from the present holder"), 0);
        session = next;
    }
}

#[test]
fn other_users_and_tenants_with_the_same_ids_are_left_alone() {
    let (broker, dial, bob) = start();
    let mut alice = dial.attach(&hello_of_producer(&broker.site, "alice", 1, PRODUCER)).unwrap();
    let mut carol = dial.attach(&hello_of_producer(&broker.site, "carol", 1, PRODUCER)).unwrap();
    let token = broker.site.token_of("globex", "alice", "user").as_str().into();
    let elsewhere = carillon_protocol::session::Hello { token, ..hello_of_producer(&broker.site, "", 1, PRODUCER) };
    let mut namesake = dial.attach(&elsewhere).unwrap();
    check_published(&mut alice, &text_to(bob, 1, "acme's alice"), 0);
    check_published(&mut carol, &text_to(bob, 1, "carol"), 0);
    let find = namesake.request(&find_bob(1)).unwrap();
    assert!(matches!(find, Frame::Error(Error { code: ErrorCode::UNKNOWN_USER, .. })), "{find:?}");
}

/// The first session sends after the second has its Welcome and before it has heard of its own end.
#[test]
fn what_a_fenced_session_publishes_late_is_not_taken() {
    let (broker, dial, bob) = start();
    let on = |device| hello_of_producer(&broker.site, "alice", device, PRODUCER);
    let mut number = 0;
    for nth in 0..TRIES {
        // Every other time the same device comes back, else another one with the producer.
        let mut first = dial.attach(&on(1)).unwrap();
        number += 1;
        check_published(&mut first, &text_to(bob, number, "in time"), 0);
        let mut second = dial.attach(&on(1 + nth % 2)).unwrap();
        number += 1;
        first.raw.send(first.publish, &text_to(bob, number, "late"));
        // It is answered with a refusal or, if the close was faster, not at all.
        match first.raw.next_frame(first.publish) {
            Ok(Frame::PublishRefused(refused)) => assert_eq!(refused.code, ErrorCode::FENCED),
            Ok(other) => panic!("a fenced session got {other:?}"),
            Err(closed) => closed.check(ErrorCode::FENCED, "the first session"),
        }
        first.raw.closed().check(ErrorCode::FENCED, "the first session");
        // The number is free: other content under it is neither a conflict nor a repeat.
        check_published(&mut second, &text_to(bob, number, "by the holder"), 0);
        second.raw.close();
    }
}

/// A copy of the process that never learns of its end: what it sends is on its way while the new session opens.
#[test]
fn a_publish_that_races_a_takeover_counts_at_most_once() {
    let (broker, dial, bob) = start();
    let on = |device| hello_of_producer(&broker.site, "alice", device, PRODUCER);
    for number in 1..=2 * TRIES {
        let mut first = dial.attach(&on(1)).unwrap();
        first.raw.send(first.publish, &text_to(bob, number, "raced"));
        let mut second = dial.attach(&on(2)).unwrap();
        let known = second.welcome.producer_highest == number;
        check_published(&mut second, &text_to(bob, number, "raced"), u8::from(known));
        // The first heard that it is over, or was answered before.
        match first.raw.next_frame(first.publish) {
            Ok(Frame::Published(published)) => assert!(known && published.repeated == 0, "{published:?}"),
            Ok(Frame::PublishRefused(refused)) => assert!(!known && refused.code == ErrorCode::FENCED, "{refused:?}"),
            Ok(other) => panic!("a publish was answered by {other:?}"),
            Err(closed) => closed.check(ErrorCode::FENCED, "the first session"),
        }
        let mut third = dial.attach(&on(3)).unwrap();
        assert_eq!(third.welcome.producer_highest, number);
        check_published(&mut third, &text_to(bob, number, "raced"), 1);
    }
}

/// The answers to `requests` UserFinds sent at once, by request id; each is answered exactly once.
fn ask_at_once(session: &mut Session, requests: u32) -> BTreeMap<u32, Result<UserId, ErrorCode>> {
    session.raw.write(session.control, concat((1..=requests).map(find_bob)));
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        let (request, answer) = match session.raw.next_frame(session.control).unwrap() {
            Frame::UserFound(found) => (found.request, Ok(found.user)),
            Frame::Error(error) => (error.request, Err(error.code)),
            other => panic!("a UserFind was answered by {other:?}"),
        };
        assert_eq!(answers.insert(request, answer), None, "request {request} was answered twice");
    }
    answers
}

#[test]
fn requests_beyond_the_limit_are_told_busy_and_none_is_lost() {
    let (broker, dial, bob) = start();
    let mut alice = dial.attach(&hello(&broker.site, "alice", 1)).unwrap();
    let pending_max = u32::try_from(REQUESTS_PENDING_MAX).unwrap();
    // In one packet, so that the edge reads them all before it hears an answer.
    let answers = ask_at_once(&mut alice, 40);
    for (request, answer) in &answers {
        assert!(*answer == Ok(bob) || *answer == Err(ErrorCode::BUSY), "request {request}: {answer:?}");
        assert!(*answer == Ok(bob) || *request > pending_max, "request {request} was within the limit");
    }
    assert_eq!(answers.len(), 40);
    assert!(answers.values().any(|answer| *answer == Err(ErrorCode::BUSY)), "40 requests at once were all taken");
    // Far more than fits a packet or a pause of the stream: each still has its one answer.
    assert_eq!(ask_at_once(&mut alice, 20_000).len(), 20_000);
    // The limit is of what is pending, not of what was asked: as many as it allows are always taken.
    for _ in 0..10 {
        assert!(ask_at_once(&mut alice, pending_max).values().all(|answer| *answer == Ok(bob)));
    }
}
