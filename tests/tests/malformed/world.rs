//! A broker that is attacked, and somebody on it who must not be disturbed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use carillon_protocol::Frame;
use carillon_protocol::control::UserFind;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::session::Hello;
use carillon_tests::harness::{Broker, Site};
use carillon_tests::raw::{Dial, Session, hello, hello_of_producer, text_to};

/// Which of a client's streams bytes are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    Control,
    Publish,
}

/// Bytes that end a session.
pub(super) struct Case {
    pub(super) what: String,
    pub(super) on: On,
    pub(super) bytes: Vec<u8>,
    /// Whether the stream ends after them.
    pub(super) finish: bool,
    pub(super) code: ErrorCode,
}

impl Case {
    pub(super) fn new(what: String, on: On, bytes: Vec<u8>, code: ErrorCode) -> Self {
        Self { what, on, bytes, finish: false, code }
    }
}

pub(super) const STREAMS: [On; 2] = [On::Control, On::Publish];

/// A broker with somebody on it who must not be disturbed, and how others come.
pub(super) struct World {
    broker: Broker,
    pub(super) dial: Dial,
}

/// As many attack at once; the bystander has a thread too.
const WORKERS: usize = 4;

impl World {
    pub(super) fn start() -> Self {
        let broker = Broker::start();
        let dial = Dial::new(&broker.site, broker.address);
        Self { broker, dial }
    }

    /// Runs `attack` for each number, on some threads, each with its own user; meanwhile two bystanders on long sessions go on
    /// with their conversation, and in the end newcomers on every edge are served.
    pub(super) fn attack(&self, count: usize, attack: impl Fn(&Hello, usize) + Sync) {
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

    pub(super) fn attack_with(&self, cases: &[Case]) {
        assert!(!cases.is_empty());
        self.attack(cases.len(), |hello, nth| self.check(hello, &cases[nth]));
    }

    /// Asserts that these bytes end a good session as they should.
    pub(super) fn check(&self, hello: &Hello, case: &Case) {
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

pub(super) fn check_served(session: &mut Session) {
    let handle = session.welcome.handle.clone();
    let answer = session.request(&UserFind { request: 7, create: 0, handle }).unwrap();
    assert!(matches!(&answer, Frame::UserFound(found) if found.user == session.welcome.user), "{answer:?}");
}
