//! How a session begins and how it does not: the TLS handshake, Hello, cursors, streams; and acknowledgements beyond what was
//! sent.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::control::{UserFind, UserLookup};
use carillon_protocol::error::{Done, ErrorCode};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{Incarnation, Position, ShardId};
use carillon_protocol::kinds::Lane;
use carillon_protocol::limits::{CURSORS_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX};
use carillon_protocol::receipt::MarkRead;
use carillon_protocol::session::{Ack, Cursor, Hello, VERSION};
use carillon_tests::ahead::{AheadClock, serve_by};
use carillon_tests::harness::{Broker, Site};
use carillon_tests::raw::{Dial, Raw, Session, hello, hello_of_producer, text_to};
use carillon_transport::{CloseReason, TransportConfig};

/// Longer than a client may take for its Hello: `docs/PROTOCOL.md`, "Opening".
const HELLO_TIMEOUT_MS: u64 = 10_000;

fn start() -> (Broker, Dial) {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    (broker, dial)
}

fn check_served(session: &mut Session) {
    let handle = session.welcome.handle.clone();
    let answer = session.request(&UserFind { request: 7, create: 0, handle }).unwrap();
    assert!(matches!(&answer, Frame::UserFound(found) if found.user == session.welcome.user), "{answer:?}");
}

fn check_serves(broker: &Broker, dial: &Dial) {
    check_served(&mut dial.attach(&hello(&broker.site, "bystander", 1)).unwrap());
}

#[test]
fn a_good_hello_is_welcomed() {
    let (broker, dial) = start();
    let first = dial.attach(&hello_of_producer(&broker.site, "alice", 1, 2)).unwrap();
    let welcome = &first.welcome;
    assert_eq!((welcome.version, &*welcome.handle, welcome.dings_open), (VERSION, "alice", 0));
    assert_ne!(welcome.incarnation, Incarnation(0));
    assert_eq!(welcome.idle_timeout_ms, TransportConfig::server().idle_timeout_ms);
    let second = dial.attach(&hello(&broker.site, "bob", 1)).unwrap();
    assert_ne!(second.welcome.user, welcome.user);
    assert_eq!(second.welcome.incarnation, welcome.incarnation);
    assert!(second.welcome.head > welcome.head, "bob's coming was recorded");
}

#[test]
fn another_protocol_name_is_refused_by_tls() {
    let (broker, mut dial) = start();
    for alpn in [vec![], vec![b"h3".to_vec()], vec![b"carillon/2".to_vec()], vec![b"carillon".to_vec()]] {
        dial.tls.alpn_protocols.clone_from(&alpn);
        match dial.connect() {
            Err(CloseReason::HandshakeFailed(_)) => {}
            Err(other) => panic!("{alpn:?}: {other:?}"),
            Ok(_) => panic!("{alpn:?} was accepted"),
        }
    }
    dial.tls.alpn_protocols = vec![b"carillon/2".to_vec(), b"carillon/1".to_vec()];
    check_serves(&broker, &dial);
}

#[test]
fn another_authority_is_refused_by_the_client() {
    let (broker, dial) = start();
    let elsewhere = Dial::new(&Site::new(), broker.address);
    assert!(matches!(elsewhere.connect(), Err(CloseReason::HandshakeFailed(_))));
    check_serves(&broker, &dial);
}

#[test]
fn a_version_that_is_not_spoken_is_named() {
    let (broker, dial) = start();
    for version in [0, VERSION + 1, u16::MAX] {
        let hello = Hello { version, ..hello(&broker.site, "alice", 1) };
        let closed = dial.refused(&hello);
        closed.check(ErrorCode::UNSUPPORTED_VERSION, "the version");
        assert!(closed.reason.contains(&version.to_string()), "{}", closed.reason);
    }
    check_serves(&broker, &dial);
}

#[test]
fn the_first_frame_is_hello_and_hello_comes_once() {
    let (broker, dial) = start();
    let good = hello(&broker.site, "alice", 1);
    let acks = Ack { shard: ShardId(0), position: Position(0), receipts_through: Position(0) };
    let find = UserFind { request: 1, create: 0, handle: "alice".into() };
    for first in [
        acks.to_bytes(),
        find.to_bytes(),
        Done { request: 1 }.to_bytes(),
        text_to(Default::default(), 1, "x").to_bytes(),
    ] {
        let mut raw = dial.connect().unwrap();
        let control = raw.open_bi();
        raw.write(control, first);
        raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "a first frame that is no Hello");
    }
    let mut session = dial.attach(&good).unwrap();
    session.raw.send(session.control, &good);
    session.raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "a second Hello");
    // At once behind the first, before it can be answered.
    let mut raw = dial.connect().unwrap();
    let control = raw.open_bi();
    raw.write(control, [good.to_bytes(), good.to_bytes()].concat());
    raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "a second Hello at once");
    check_serves(&broker, &dial);
}

#[test]
fn a_hello_in_pieces_is_a_hello() {
    let (broker, dial) = start();
    let mut raw = dial.connect().unwrap();
    let control = raw.open_bi();
    let bytes = hello(&broker.site, "alice", 1).to_bytes();
    for piece in bytes.chunks(7) {
        raw.write(control, Bytes::copy_from_slice(piece));
    }
    assert!(matches!(raw.next_frame(control), Ok(Frame::Welcome(_))));
}

#[test]
fn a_hello_is_as_large_as_it_may_be_and_no_larger() {
    let (broker, dial) = start();
    let mut good = hello(&broker.site, "alice", 1);
    good.client = "".into();
    let room = HELLO_BYTES_MAX - good.to_bytes().len();
    good.client = "c".repeat(room).as_str().into();
    check_served(&mut dial.attach(&good).unwrap());
    good.client = "c".repeat(room + 1).as_str().into();
    dial.refused(&good).check(ErrorCode::FRAME_TOO_LARGE, "a Hello one byte too large");
    // The header is enough to refuse it: nothing need follow.
    let mut raw = dial.connect().unwrap();
    let control = raw.open_bi();
    raw.write(control, good.to_bytes().slice(..8));
    raw.closed().check(ErrorCode::FRAME_TOO_LARGE, "the header of a Hello too large");
    // Once it is welcomed a session may send larger frames.
    let mut session = dial.attach(&hello(&broker.site, "alice", 1)).unwrap();
    let members = vec![session.welcome.user; 9_000];
    let large = UserLookup { request: 3, users: members };
    assert!((HELLO_BYTES_MAX..FRAME_BYTES_MAX).contains(&large.to_bytes().len()));
    let answer = session.request(&large).unwrap();
    assert!(matches!(&answer, Frame::Error(error) if error.code == ErrorCode::TOO_LARGE), "{answer:?}");
    check_serves(&broker, &dial);
}

#[test]
fn no_hello_in_time_ends_a_connection() {
    let (clock, site) = (Arc::new(AheadClock::default()), Site::new());
    let server = serve_by(clock.clone(), &site);
    let dial = Dial::new(&site, server.address());
    let mut silent = dial.connect().unwrap();
    let mut half = dial.connect().unwrap();
    let control = half.open_bi();
    half.write(control, hello(&site, "alice", 1).to_bytes().slice(..40));
    let mut session = dial.attach(&hello(&site, "alice", 1)).unwrap();
    // An edge takes packets as they come: when each edge has served somebody, each knows of its silent ones.
    for device in 2..14 {
        check_served(&mut dial.attach(&hello(&site, "bystander", device)).unwrap());
    }
    clock.advance_ms(HELLO_TIMEOUT_MS);
    silent.closed().check(ErrorCode::HELLO_TIMEOUT, "a connection without Hello");
    half.closed().check(ErrorCode::HELLO_TIMEOUT, "a connection with half a Hello");
    check_served(&mut session);
    server.stop().unwrap();
}

#[test]
fn a_client_opens_two_streams_and_no_other() {
    // The transport gives no room for others.
    let (broker, dial) = start();
    let mut session = dial.attach(&hello(&broker.site, "alice", 1)).unwrap();
    assert_eq!((session.raw.try_open_bi(), session.raw.try_open_uni()), (None, None));
    check_served(&mut session);
    // Where it gives room, the edge says no.
    let roomy = TransportConfig { streams_bidi_max: 8, streams_uni_max: 8, ..TransportConfig::server() };
    let broker = Broker::start_with(roomy);
    let dial = Dial::new(&broker.site, broker.address);
    for unidirectional in [false, true] {
        let mut session = dial.attach(&hello(&broker.site, "alice", 1)).unwrap();
        session.raw.write(session.publish, Bytes::from_static(&[1]));
        let third = if unidirectional { session.raw.try_open_uni() } else { session.raw.try_open_bi() };
        session.raw.write(third.unwrap(), Bytes::from_static(&[1]));
        session.raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "a third stream");
    }
    let mut early = dial.connect().unwrap();
    let stream = early.try_open_uni().unwrap();
    early.write(stream, hello(&broker.site, "alice", 1).to_bytes());
    early.closed().check(ErrorCode::UNEXPECTED_FRAME, "a unidirectional stream before Hello");
    check_serves(&broker, &dial);
}

#[test]
fn a_client_that_gives_the_broker_no_streams_is_told() {
    let (broker, mut dial) = start();
    let good = dial.clone();
    let mut alice = good.attach(&hello_of_producer(&broker.site, "alice", 1, 1)).unwrap();
    let bob = good.attach(&hello(&broker.site, "bob", 1)).unwrap().welcome.user;
    dial.transport.streams_uni_max = 0;
    // On both edges, beside a session of the same user: what is forgotten of theirs must not be alice's.
    for device in 2..10 {
        let closed = dial.refused(&hello(&broker.site, "alice", device));
        closed.check(ErrorCode::UNEXPECTED_FRAME, "no unidirectional stream");
        assert!(closed.reason.contains("stream"), "{}", closed.reason);
    }
    let published = alice.publish(&text_to(bob, 1, "still heard")).unwrap();
    let Frame::Published(published) = published else { panic!("{published:?}") };
    check_delivered(&mut alice, published.position);
}

/// Reads the inbox up to the message at this position.
fn check_delivered(session: &mut Session, position: Position) {
    loop {
        match session.next_of_inbox().unwrap() {
            Frame::Deliver(message) if message.position == position => return,
            Frame::Deliver(_) | Frame::Progress(_) | Frame::ReadUpdate(_) => {}
            other => panic!("{other:?} on the inbox"),
        }
    }
}

#[test]
fn a_stream_that_is_ended_or_abandoned_ends_the_session() {
    let (broker, dial) = start();
    let good = hello(&broker.site, "alice", 1);
    let mut session = dial.attach(&good).unwrap();
    session.raw.finish(session.control);
    session.raw.closed().check(ErrorCode::NONE, "the control stream was finished");
    let mut session = dial.attach(&good).unwrap();
    session.raw.write(session.control, Bytes::from_static(&[4, 0, 0]));
    session.raw.finish(session.control);
    session.raw.closed().check(ErrorCode::MALFORMED, "the control stream ended in a frame");
    let mut session = dial.attach(&good).unwrap();
    session.raw.write(session.publish, Bytes::from_static(&[4, 0, 0]));
    session.raw.finish(session.publish);
    session.raw.closed().check(ErrorCode::MALFORMED, "the publish stream ended in a frame");
    for abandon in [Raw::reset, Raw::stop] {
        let mut session = dial.attach(&good).unwrap();
        abandon(&mut session.raw, session.control);
        session.raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "the control stream was abandoned");
        let mut session = dial.attach(&good).unwrap();
        session.raw.write(session.publish, Bytes::from_static(&[4, 0, 0]));
        abandon(&mut session.raw, session.publish);
        session.raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "the publish stream was abandoned");
        let mut session = dial.attach(&good).unwrap();
        let inbox = session.raw.lane(Lane::INBOX);
        session.raw.stop(inbox);
        session.raw.closed().check(ErrorCode::UNEXPECTED_FRAME, "the inbox was stopped");
    }
    // Who publishes no more may say so.
    let mut session = dial.attach(&good).unwrap();
    session.raw.finish(session.publish);
    check_served(&mut session);
    check_serves(&broker, &dial);
}

fn cursor(incarnation: Incarnation, position: Position, receipts_through: Position) -> Cursor {
    Cursor { shard: ShardId(0), incarnation, position, receipts_through }
}

#[test]
fn a_cursor_of_another_history_or_from_the_future_is_invalid() {
    let (broker, dial) = start();
    let welcome = dial.attach(&hello(&broker.site, "alice", 1)).unwrap().welcome;
    let (here, head) = (welcome.incarnation, welcome.head);
    let elsewhere = Incarnation(here.0 ^ 1);
    let with = |cursor: Cursor| Hello { cursors: vec![cursor], ..hello(&broker.site, "alice", 1) };
    for (what, cursor) in [
        ("from the future", cursor(here, head.next(), Position(0))),
        ("from the far future", cursor(here, Position(u64::MAX), Position(0))),
        ("with read updates from the future", cursor(here, head, head.next())),
        ("with read updates from the far future", cursor(here, Position(0), Position(u64::MAX))),
        ("of another history", cursor(elsewhere, head, Position(0))),
        ("of another history with read updates alone", cursor(elsewhere, Position(0), head)),
        ("of another history without a position", cursor(elsewhere, Position(0), Position(0))),
        ("of no history", cursor(Incarnation(0), Position(1), Position(0))),
    ] {
        dial.refused(&with(cursor)).check(ErrorCode::CURSOR_INVALID, what);
    }
    for cursor in [
        cursor(here, head, Position(0)),
        cursor(here, Position(0), head),
        cursor(here, Position(0), Position(0)),
        cursor(Incarnation(0), Position(0), Position(0)),
        // Another shard's is none of this one's business.
        Cursor { shard: ShardId(9), ..cursor(elsewhere, Position(u64::MAX), Position(u64::MAX)) },
    ] {
        check_served(&mut dial.attach(&with(cursor)).unwrap());
    }
    let many = |count: usize| {
        let shards = (1..).map(ShardId).take(count);
        let cursors = shards.map(|shard| Cursor { shard, ..cursor(here, head, head) }).collect();
        Hello { cursors, ..hello(&broker.site, "alice", 1) }
    };
    check_served(&mut dial.attach(&many(CURSORS_MAX)).unwrap());
    dial.refused(&many(CURSORS_MAX + 1)).check(ErrorCode::MALFORMED, "too many cursors");
}

#[test]
fn an_acknowledgement_beyond_what_was_sent_is_invalid() {
    let (broker, dial) = start();
    let mut bob = dial.attach(&hello_of_producer(&broker.site, "bob", 1, 1)).unwrap();
    let ack = |position: Position, receipts_through: Position| Ack { shard: ShardId(0), position, receipts_through };
    for nth in 1..=4 {
        // Alice writes to bob, who marks it as read: she is sent both.
        let mut alice = dial.attach(&hello_of_producer(&broker.site, "alice", 1, 1)).unwrap();
        let answer = alice.publish(&text_to(bob.welcome.user, nth, "read me")).unwrap();
        let Frame::Published(published) = answer else { panic!("{answer:?}") };
        check_delivered(&mut alice, published.position);
        let mark = MarkRead { request: 1, conversation: published.conversation, up_to: published.seq };
        let marked = bob.request(&mark).unwrap();
        assert!(matches!(marked, Frame::Marked(_)), "{marked:?}");
        let update = loop {
            match alice.next_of_inbox().unwrap() {
                Frame::ReadUpdate(update) => break update,
                Frame::Progress(_) => {}
                other => panic!("{other:?} on the inbox"),
            }
        };
        // What was sent, and less, may be acknowledged, again and again.
        for good in [
            ack(published.position, update.position),
            ack(Position(1), Position(0)),
            ack(published.position, update.position),
        ] {
            alice.raw.send(alice.control, &good);
            check_served(&mut alice);
        }
        let (what, bad) = match nth {
            1 => ("a far position", ack(Position(u64::MAX), Position(0))),
            2 => ("far read updates", ack(published.position, Position(u64::MAX))),
            3 => ("read updates one beyond", ack(published.position, update.position.next())),
            _ => ("another shard", Ack { shard: ShardId(1), ..ack(Position(0), Position(0)) }),
        };
        alice.raw.send(alice.control, &bad);
        alice.raw.closed().check(ErrorCode::ACK_INVALID, what);
    }
    // One that has nothing yet may acknowledge nothing: nothing is sent to a session that begins at the head.
    let welcome = dial.attach(&hello(&broker.site, "carol", 1)).unwrap().welcome;
    let at_head = cursor(welcome.incarnation, welcome.head, Position(0));
    let mut carol = dial.attach(&Hello { cursors: vec![at_head], ..hello(&broker.site, "carol", 1) }).unwrap();
    carol.raw.send(carol.control, &ack(welcome.head, Position(0)));
    check_served(&mut carol);
    carol.raw.send(carol.control, &ack(Position(carol.welcome.head.0 + 1), Position(0)));
    carol.raw.closed().check(ErrorCode::ACK_INVALID, "one beyond");
    check_served(&mut bob);
}
