//! Bytes that are no frames, or frames that may not come: each ends its connection with a code and a reason, and nobody else
//! notices.
//!
//! The cases are made from [`Frame::SHAPES`], byte by byte, so that every kind is covered; who may send what, and where, is
//! read from the table in `docs/PROTOCOL.md`.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

mod pieces;
mod random;
mod world;

use std::collections::BTreeMap;

use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::HEADER_BYTES;
use carillon_protocol::kinds::Lane;
use carillon_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, LIST_ENTRIES_MAX};
use carillon_protocol::shape::Shape;
use carillon_tests::harness::Broker;
use carillon_tests::raw::{Dial, hello_of_producer};

use pieces::{Pieces, assemble, header};
use world::{Case, On, STREAMS, World, check_served};

/// Who may send a kind of frame, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    ClientOnControl,
    ClientOnPublish,
    Broker,
}

/// By kind, from "Which frame on which stream".
fn senders() -> BTreeMap<u8, Sender> {
    let page = include_str!("../../../docs/PROTOCOL.md");
    let table = page.split("\n## Which frame on which stream\n").nth(1).unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("| 0x")).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (frame, direction, stream) = (cells.next().unwrap(), cells.next().unwrap(), cells.next().unwrap());
        let sender = match (direction, stream) {
            ("Client → broker", "control stream") => Sender::ClientOnControl,
            ("Client → broker", "publish stream") => Sender::ClientOnPublish,
            ("Broker → client", _) => Sender::Broker,
            // On no stream, that is.
            ("Client → broker", "datagram") => Sender::Broker,
            other => panic!("{other:?}"),
        };
        (u8::from_str_radix(&frame[2..4], 16).unwrap(), sender)
    })
    .collect()
}

/// What is wrong with the bytes themselves, wherever they come.
fn broken(shape: &Shape) -> Vec<(String, Vec<u8>, ErrorCode)> {
    let good = Pieces::of(shape);
    let (kind, body, tail) = (good.kind, good.body(), good.tail());
    let follow = body.len() + tail.len();
    let mut cases = Vec::new();
    let mut push = |what: &str, bytes, code| cases.push((format!("{}: {what}", shape.name), bytes, code));
    let cut = body.len() - 1;
    push("a body one byte short", assemble(kind, &body[..cut], &tail), ErrorCode::MALFORMED);
    push("no body", assemble(kind, &[], &[]), ErrorCode::MALFORMED);
    push("a body longer than the frame", header(follow, kind, follow + 1), ErrorCode::MALFORMED);
    push("a body longer than any", assemble(kind, &[1; BODY_BYTES_MAX + 1], &tail), ErrorCode::MALFORMED);
    push("a byte left over", assemble(kind, &body, &[&tail[..], &[0]].concat()), ErrorCode::MALFORMED);
    push(
        "a frame larger than any",
        header(FRAME_BYTES_MAX - HEADER_BYTES + 1, kind, body.len()),
        ErrorCode::FRAME_TOO_LARGE,
    );
    push("a frame without end", header(u32::MAX as usize, kind, body.len()), ErrorCode::FRAME_TOO_LARGE);
    for (nth, part) in shape.tail.iter().enumerate() {
        let mut push_with = |what: &str, change: &dyn Fn(&mut Pieces)| {
            let mut pieces = good.clone();
            change(&mut pieces);
            push(&format!("{} with {what}", part.name), pieces.bytes(), ErrorCode::MALFORMED);
        };
        push_with("more announced than is there", &|pieces| pieces.lengths[nth] += 1);
        push_with("less announced than is there", &|pieces| pieces.lengths[nth] -= 1);
        push_with("all that a length can say", &|pieces| pieces.lengths[nth] = u32::MAX);
        push_with("a length that overflows with its unit", &|pieces| pieces.lengths[nth] = 1 << 31);
        match part.type_name {
            "Text" => {
                push_with("a byte that is not UTF-8", &|pieces| pieces.tail[nth][0] = 0xff);
                push_with("half a character", &|pieces| {
                    pieces.tail[nth].truncate(2);
                    pieces.lengths[nth] = 2;
                });
            }
            "Bytes" => {}
            _list => push_with("too many entries", &|pieces| {
                let entries = LIST_ENTRIES_MAX + 1;
                pieces.lengths[nth] = u32::try_from(entries).unwrap();
                let bytes = entries * part.unit_bytes;
                // Where that many do not fit a frame they are announced, and the list is refused all the same.
                if bytes < FRAME_BYTES_MAX - BODY_BYTES_MAX {
                    pieces.tail[nth] = vec![1; bytes];
                }
            }),
        }
    }
    cases
}

#[test]
fn every_kind_is_refused_when_it_is_broken() {
    let mut cases = Vec::new();
    for shape in Frame::SHAPES {
        for (what, bytes, code) in broken(shape) {
            for on in STREAMS {
                cases.push(Case::new(what.clone(), on, bytes.clone(), code));
            }
        }
    }
    World::start().attack_with(&cases);
}

#[test]
fn every_kind_is_refused_where_it_may_not_come() {
    let senders = senders();
    let mut cases = Vec::new();
    for shape in Frame::SHAPES {
        let sender = senders[&shape.kind];
        for on in STREAMS {
            // A second Hello is as unexpected as any other frame.
            let welcome = match sender {
                Sender::ClientOnControl => on == On::Control && shape.name != "Hello",
                Sender::ClientOnPublish => on == On::Publish,
                Sender::Broker => false,
            };
            if !welcome {
                let bytes = Pieces::of(shape).bytes();
                cases.push(Case::new(format!("a good {}", shape.name), on, bytes, ErrorCode::UNEXPECTED_FRAME));
            }
        }
    }
    assert_eq!(senders.len(), Frame::SHAPES.len());
    World::start().attack_with(&cases);
}

#[test]
fn kinds_without_a_name_are_refused() {
    let mut cases = Vec::new();
    for kind in (0..=u8::MAX).filter(|kind| Frame::SHAPES.iter().all(|shape| shape.kind != *kind)) {
        for on in STREAMS {
            let bytes = assemble(kind, &[1; 8], &[1; 8]);
            cases.push(Case::new(format!("kind {kind:#04x}"), on, bytes, ErrorCode::MALFORMED));
        }
    }
    World::start().attack_with(&cases);
}

#[test]
fn every_request_without_an_id_is_refused() {
    let mut cases = Vec::new();
    for shape in Frame::SHAPES {
        let is_request = shape.fields[0].name == "request" && senders()[&shape.kind] == Sender::ClientOnControl;
        if is_request {
            let mut pieces = Pieces::of(shape);
            pieces.fields[0] = 0;
            cases.push(Case::new(format!("{} 0", shape.name), On::Control, pieces.bytes(), ErrorCode::MALFORMED));
        }
    }
    assert!(cases.len() >= 16, "there are {} requests", cases.len());
    World::start().attack_with(&cases);
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_refused() {
    let mut cases = Vec::new();
    for shape in Frame::SHAPES {
        let on = if senders()[&shape.kind] == Sender::ClientOnPublish { On::Publish } else { On::Control };
        let bytes = Pieces::of(shape).bytes();
        for cut in [1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, bytes.len() - 1] {
            if cut < bytes.len() {
                let what = format!("{} cut at {cut}", shape.name);
                let case = Case::new(what, on, bytes[..cut].to_vec(), ErrorCode::MALFORMED);
                cases.push(Case { finish: true, ..case });
            }
        }
    }
    World::start().attack_with(&cases);
}

#[test]
fn a_first_frame_is_a_good_hello_or_the_last() {
    let world = World::start();
    let mut cases: Vec<(String, Vec<u8>, ErrorCode)> = Vec::new();
    for shape in Frame::SHAPES {
        let code = if shape.name == "Hello" { ErrorCode::UNAUTHENTICATED } else { ErrorCode::UNEXPECTED_FRAME };
        cases.push((format!("{} first", shape.name), Pieces::of(shape).bytes(), code));
    }
    let hello = Frame::SHAPES.iter().find(|shape| shape.name == "Hello").unwrap();
    for (what, bytes, code) in broken(hello) {
        // So large a frame is refused by its header before its lists are looked at.
        let code = if bytes.len() > 8_192 { ErrorCode::FRAME_TOO_LARGE } else { code };
        cases.push((what, bytes, code));
    }
    world.attack(cases.len(), |_, nth| {
        let (what, bytes, code) = &cases[nth];
        let mut raw = world.dial.connect().unwrap();
        let control = raw.open_bi();
        raw.write(control, bytes.clone());
        raw.closed().check(*code, what);
    });
}

/// A frame of a newer version: fields that are not known here follow the body, and are passed over.
#[test]
fn a_body_longer_than_known_is_answered() {
    let broker = Broker::start();
    let dial = Dial::new(&broker.site, broker.address);
    let mut session = dial.attach(&hello_of_producer(&broker.site, "alice", 0xa11ce, 0xfeed)).unwrap();
    let mut answered = 0;
    for shape in Frame::SHAPES {
        let sender = senders()[&shape.kind];
        if sender == Sender::Broker || shape.name == "Hello" {
            continue;
        }
        for appended in [1, BODY_BYTES_MAX - shape.body_bytes] {
            let mut pieces = Pieces::of(shape);
            if shape.name == "Ack" {
                // Of nothing: it has no answer, and no consequence.
                pieces.fields.fill(0);
            }
            let body = [pieces.body(), vec![0xff; appended]].concat();
            let bytes = assemble(pieces.kind, &body, &pieces.tail());
            let stream = if sender == Sender::ClientOnPublish { session.publish } else { session.control };
            session.raw.write(stream, bytes);
            if shape.name != "Ack" && shape.name != "DingReceived" {
                // Everything asked for here is of alice's personal conversation, which has a history.
                let answers = if shape.name == "History" { session.raw.lane(Lane::BULK) } else { stream };
                session.raw.next_frame(answers).unwrap();
                answered += 1;
            }
            check_served(&mut session);
        }
    }
    assert!(answered >= 2 * 17);
}
