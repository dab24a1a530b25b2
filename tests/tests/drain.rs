//! SIGTERM: nothing more is accepted, what was submitted is delivered, sessions learn when to come back; within bounds.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use carillon::clock::SystemClock;
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_tests::harness::{PATIENCE, Process};
use carillon_tests::raw::{Dial, Session, hello, hello_of_producer, text_to};
use carillon_transport::{Clock as _, CloseReason};

/// More than a fresh connection may send before it hears from its peer, less than a session's window.
const MESSAGES: u64 = 100;

fn text(number: u64) -> String {
    format!("{number:0>1000}")
}

/// A broker with a session that does not listen, and has this much queued for it.
fn with_queue(tables: &str, drain_ms: u64) -> (Process, Session, Dial) {
    let mut process = Process::start_with(tables);
    let path = process.site.data().join("carillon.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    process.kill();
    std::fs::write(&path, format!("drain_ms = {drain_ms}\n{config}")).unwrap();
    process.start_again();
    let dial = Dial::new(&process.site, process.address);
    let bob = dial.attach_when_served(&hello(&process.site, "bob", 1));
    let mut alice = dial.attach(&hello_of_producer(&process.site, "alice", 1, 1)).unwrap();
    for number in 1..=MESSAGES {
        let answer = alice.publish(&text_to(bob.welcome.user, number, &text(number))).unwrap();
        assert!(matches!(answer, Frame::Published(_)), "{answer:?}");
    }
    alice.raw.close();
    (process, bob, dial)
}

/// Waits until no session is accepted any more.
fn until_draining(dial: &Dial) {
    let start = SystemClock.now();
    while !matches!(dial.connect(), Err(CloseReason::Refused)) {
        assert!(start.elapsed() < PATIENCE, "it never drained");
    }
}

#[test]
fn what_is_queued_leaves_before_the_session_is_closed() {
    let (mut process, mut bob, _) = with_queue("", 60_000);
    process.signal("TERM");
    let mut texts = Vec::new();
    let closed = loop {
        match bob.next_of_inbox() {
            Ok(Frame::Deliver(deliver)) => texts.push(String::from_utf8(deliver.payload.to_vec()).unwrap()),
            Ok(_) => {}
            Err(closed) => break closed,
        }
    };
    closed.check(ErrorCode::DRAINING, "a session of a broker that stops");
    let texts: Vec<_> = texts.into_iter().filter(|text| text.len() == 1_000).collect();
    assert_eq!(texts, (1..=MESSAGES).map(text).collect::<Vec<_>>());
    let goodbye = bob.raw.next_frame(bob.control).unwrap();
    assert!(matches!(goodbye, Frame::Goodbye(ref goodbye) if goodbye.reconnect_after_ms >= 1_000), "{goodbye:?}");
    process.wait();
}

#[test]
fn who_does_not_listen_holds_nobody_up_beyond_the_bound() {
    let (mut process, bob, _) = with_queue("", 300);
    process.terminate();
    drop(bob);
}

#[test]
fn a_broker_that_drains_is_not_ready_and_a_second_signal_ends_it() {
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (mut process, bob, dial) = with_queue(&format!("[http]\nlisten = \"{http}\"\n"), 600_000);
    assert!(ready(http).ends_with("\r\n\r\nserving\n"), "{}", ready(http));
    process.signal("TERM");
    until_draining(&dial);
    let answer = ready(http);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("\r\n\r\ndraining\n"), "{answer}");
    process.terminate();
    drop(bob);
}

fn ready(http: SocketAddr) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
