//! Bytes that are no frames, or frames that may not come: each ends its connection with a code and a reason, and nobody else
//! notices.
//!
//! The cases are made from [`Frame::SHAPES`], byte by byte, so that every kind is covered; who may send what, and where, is
//! read from the table in `docs/PROTOCOL.md`.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use carillon::clock::{Clock, SystemClock};
use carillon_protocol::Frame;
use carillon_protocol::control::UserFind;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::HEADER_BYTES;
use carillon_protocol::kinds::Lane;
use carillon_protocol::limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, LIST_ENTRIES_MAX};
use carillon_protocol::session::Hello;
use carillon_protocol::shape::Shape;
use carillon_tests::harness::{Broker, Site};
use carillon_tests::raw::{Closed, Dial, Session, hello, hello_of_producer, text_to};

/// Who may send a kind of frame, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    ClientOnControl,
    ClientOnPublish,
    Broker,
}

/// By kind, from "Which frame on which stream".
fn senders() -> BTreeMap<u8, Sender> {
    let page = include_str!("../../docs/PROTOCOL.md");
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

/// A frame in its parts, not yet put together.
#[derive(Clone)]
struct Pieces {
    kind: u8,
    fields: Vec<u8>,
    lengths: Vec<u32>,
    tail: Vec<Vec<u8>>,
}

impl Pieces {
    /// A good frame of this shape: every field is 1, every part has something in it.
    fn of(shape: &Shape) -> Self {
        let mut pieces = Self { kind: shape.kind, fields: Vec::new(), lengths: Vec::new(), tail: Vec::new() };
        for field in shape.fields {
            pieces.fields.push(1);
            pieces.fields.resize(pieces.fields.len() + field.bytes - 1, 0);
        }
        for part in shape.tail {
            let bytes = if part.type_name == "Text" { "añb".into() } else { vec![1; 2 * part.unit_bytes] };
            pieces.lengths.push(u32::try_from(bytes.len() / part.unit_bytes).unwrap());
            pieces.tail.push(bytes);
        }
        pieces
    }

    fn body(&self) -> Vec<u8> {
        self.fields.iter().copied().chain(self.lengths.iter().flat_map(|length| length.to_le_bytes())).collect()
    }

    fn tail(&self) -> Vec<u8> {
        self.tail.concat()
    }

    fn bytes(&self) -> Vec<u8> {
        assemble(self.kind, &self.body(), &self.tail())
    }
}

fn header(follow: usize, kind: u8, body: usize) -> Vec<u8> {
    let mut out = u32::try_from(follow).unwrap().to_le_bytes().to_vec();
    out.extend([kind, 0]);
    out.extend(u16::try_from(body).unwrap().to_le_bytes());
    out
}

fn assemble(kind: u8, body: &[u8], tail: &[u8]) -> Vec<u8> {
    [&header(body.len() + tail.len(), kind, body.len()), body, tail].concat()
}

/// Which of a client's streams bytes are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Control,
    Publish,
}

/// Bytes that end a session.
struct Case {
    what: String,
    on: On,
    bytes: Vec<u8>,
    /// Whether the stream ends after them.
    finish: bool,
    code: ErrorCode,
}

impl Case {
    fn new(what: String, on: On, bytes: Vec<u8>, code: ErrorCode) -> Self {
        Self { what, on, bytes, finish: false, code }
    }
}

const STREAMS: [On; 2] = [On::Control, On::Publish];

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

/// A broker with somebody on it who must not be disturbed, and how others come.
struct World {
    broker: Broker,
    dial: Dial,
}

/// As many attack at once; the bystander has a thread too.
const WORKERS: usize = 4;

impl World {
    fn start() -> Self {
        let broker = Broker::start();
        let dial = Dial::new(&broker.site, broker.address);
        Self { broker, dial }
    }

    /// Runs `attack` for each number, on some threads, each with its own user; meanwhile two bystanders on long sessions go on
    /// with their conversation, and in the end newcomers on every edge are served.
    fn attack(&self, count: usize, attack: impl Fn(&Hello, usize) + Sync) {
        let site = &self.broker.site;
        let mut bystanders = Bystanders::new(site, &self.dial);
        let (next, working) = (AtomicUsize::new(0), AtomicUsize::new(WORKERS));
        thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (attack, next) = (&attack, &next);
                let done = Done(&working);
                let hello = hello_of_producer(site, &format!("mallory-{worker}"), 0xbad, 0xbad);
                scope.spawn(move || {
                    let _done = done;
                    loop {
                        let nth = next.fetch_add(1, Ordering::SeqCst);
                        if nth >= count {
                            break;
                        }
                        attack(&hello, nth);
                    }
                });
            }
            while working.load(Ordering::SeqCst) > 0 {
                bystanders.talk();
            }
        });
        bystanders.talk();
        for device in 0..12 {
            check_served(&mut self.dial.attach(&hello(site, "newcomer", device)).unwrap());
        }
    }

    fn attack_with(&self, cases: &[Case]) {
        assert!(!cases.is_empty());
        self.attack(cases.len(), |hello, nth| self.check(hello, &cases[nth]));
    }

    /// Asserts that these bytes end a good session as they should.
    fn check(&self, hello: &Hello, case: &Case) {
        let mut session = self.dial.attach(hello).unwrap();
        let stream = match case.on {
            On::Control => session.control,
            On::Publish => session.publish,
        };
        session.raw.write(stream, case.bytes.clone());
        if case.finish {
            session.raw.finish(stream);
        }
        session.raw.closed().check(case.code, &format!("{} on {:?}", case.what, case.on));
    }
}

/// Counts a worker out, when it panics too.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Two users who write to each other all the time.
struct Bystanders {
    writer: Session,
    reader: Session,
    written: u64,
}

impl Bystanders {
    fn new(site: &Site, dial: &Dial) -> Self {
        let writer = dial.attach(&hello_of_producer(site, "writer", 1, 1)).unwrap();
        let reader = dial.attach(&hello(site, "reader", 1)).unwrap();
        let written = writer.welcome.producer_highest;
        Self { writer, reader, written }
    }

    /// One message there, in order and once, on sessions that live.
    fn talk(&mut self) {
        self.written += 1;
        let publish = text_to(self.reader.welcome.user, self.written, "as if nothing happened");
        let answer = self.writer.publish(&publish).unwrap();
        let Frame::Published(published) = answer else { panic!("a bystander got {answer:?}") };
        assert_eq!((published.seq.0, published.repeated), (self.written, 0));
        loop {
            match self.reader.next_of_inbox().unwrap() {
                Frame::Deliver(message) if message.conversation == published.conversation => {
                    assert_eq!((message.seq, message.position), (published.seq, published.position));
                    break;
                }
                Frame::Deliver(_) | Frame::Progress(_) => {}
                other => panic!("a bystander got {other:?}"),
            }
        }
        check_served(&mut self.writer);
    }
}

fn check_served(session: &mut Session) {
    let handle = session.welcome.handle.clone();
    let answer = session.request(&UserFind { request: 7, create: 0, handle }).unwrap();
    assert!(matches!(&answer, Frame::UserFound(found) if found.user == session.welcome.user), "{answer:?}");
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
            if shape.name != "Ack" {
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

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, range: Range<usize>) -> usize {
        range.start + usize::try_from(self.next() % range.len() as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn good(&mut self) -> Vec<u8> {
        Pieces::of(&Frame::SHAPES[self.below(0..Frame::SHAPES.len())]).bytes()
    }

    /// Noise of several colours: the closer to a frame, the deeper it gets.
    fn string(&mut self) -> Vec<u8> {
        match self.below(0..5) {
            0 => {
                let count = self.below(1..400);
                self.bytes(count)
            }
            1 => {
                let shape = &Frame::SHAPES[self.below(0..Frame::SHAPES.len())];
                let (body, tail) = (self.bytes(shape.body_bytes), self.below(0..40));
                assemble(shape.kind, &body, &self.bytes(tail))
            }
            2 => {
                let mut bytes = self.good();
                for _ in 0..self.below(1..8) {
                    let at = self.below(0..bytes.len());
                    bytes[at] ^= 1 << self.below(0..8);
                }
                bytes
            }
            3 => {
                let mut bytes: Vec<u8> = (0..self.below(1..12)).flat_map(|_| self.good()).collect();
                let (from, count) = (self.below(0..bytes.len()), self.below(0..9));
                let to = bytes.len().min(from + count);
                let put = self.below(0..9);
                bytes.splice(from..to, self.bytes(put));
                bytes
            }
            _ => {
                let follow = self.below(0..FRAME_BYTES_MAX);
                let body = self.below(0..300);
                let sent = self.below(0..follow.min(40_000) + 1);
                let kind = self.byte();
                [header(follow, kind, body), self.bytes(sent)].concat()
            }
        }
    }
}

/// What random bytes may end with. `INTERNAL` is not among them.
const ENDS: [ErrorCode; 6] = [
    ErrorCode::NONE,
    ErrorCode::MALFORMED,
    ErrorCode::FRAME_TOO_LARGE,
    ErrorCode::UNEXPECTED_FRAME,
    ErrorCode::ACK_INVALID,
    ErrorCode::RETIRED,
];

fn check_end(closed: &Closed, what: &str) {
    assert!(ENDS.contains(&closed.code), "{what}: {closed:?}");
    closed.check(closed.code, what);
}

const STRINGS: usize = 2_000;

#[test]
fn random_bytes_do_no_harm() {
    let seed = std::env::var("SEED").map_or_else(|_| SystemClock.wall().0, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let world = World::start();
    world.attack(STRINGS, |hello, nth| {
        let mut random = Random(seed.wrapping_add(nth as u64));
        let on = STREAMS[random.below(0..2)];
        let what = format!("string {nth} of SEED={seed} on {on:?}");
        let bytes = random.string();
        let mut session = world.dial.attach(hello).unwrap_or_else(|closed| panic!("before {what}: {closed:?}"));
        let stream = if on == On::Control { session.control } else { session.publish };
        session.raw.write(stream, bytes);
        session.raw.finish(stream);
        if on == On::Control {
            return check_end(&session.raw.closed(), &what);
        }
        // A publish stream may end between frames; then the session lives on, and its control stream ends it.
        session.raw.finish(session.control);
        check_end(&session.raw.closed(), &what);
    });
}
