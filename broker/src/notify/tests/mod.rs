//! Calls and callbacks against real HTTP servers on loopback.

mod callbacks;
mod calls;
mod gateway;
mod shard;
mod tls;
mod trouble;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use carillon_protocol::ids::{ConversationId, DingId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::MessageKind;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::signature::Secrets;
use super::*;
use crate::clock::SystemClock;
use gateway::Gateway;

const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// An hour from now: pauses that long end with the test.
const LONG: Duration = Duration::from_secs(3_600);

fn key(user: u32) -> CallKey {
    CallKey { ding: DingId(1), user: UserId(user), attempt: 2 }
}

pub(super) fn start(user: u32) -> Call {
    let now = Clock::wall(&SystemClock);
    Call {
        key: key(user),
        verb: Verb::Start,
        outlet: OutletId::SMS,
        tenant: "acme".into(),
        recipient: "ann".into(),
        sender: "bob".into(),
        step: 1,
        kind: MessageKind::TEXT,
        payload: Bytes::from_static("Fire in hall 3 🔔".as_bytes()),
        conversation: ConversationId(0),
        seq: Seq(0),
        created_at: now,
        started_at: now,
        expires_at: Timestamp(now.0 + 600_000),
    }
}

fn cancel(user: u32) -> Call {
    Call { verb: Verb::Cancel, ..start(user) }
}

/// The outlet `sms` with a gateway there; impatient, and with two secrets.
pub(super) fn sms(url: &str) -> OutletOptions {
    let options = OutletOptions::new(OutletId::SMS, "sms", url.parse().unwrap(), Secrets::parse([OLD, NEW]).unwrap());
    OutletOptions {
        allow: vec!["127.0.0.1/32".parse().unwrap()],
        calls_a_second: 100_000,
        tries_max: 3,
        timeout: LONG,
        connect_timeout: LONG,
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        ..options
    }
}

/// A shard's queue that takes what comes, unless it is told to be full, and answers reports as it is told.
pub(super) struct Book {
    results: Sender<CallResult>,
    reports: Sender<Report>,
    full: AtomicU32,
    /// `None` lets the question fall.
    answer: Mutex<Option<Reported>>,
}

impl Ledger for Book {
    fn results(&self, mut results: Vec<CallResult>) -> Result<(), Vec<CallResult>> {
        if self.full.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| full.checked_sub(1)).is_ok() {
            // Some are taken, the rest is given back: of one, that one.
            let rest = results.split_off(results.len() / 2);
            results.into_iter().for_each(|result| self.results.try_send(result).unwrap());
            return Err(rest);
        }
        results.into_iter().for_each(|result| self.results.try_send(result).unwrap());
        Ok(())
    }

    fn report(&self, report: Report, answer: oneshot::Sender<Reported>) -> Result<(), Full> {
        if self.full.load(Ordering::Relaxed) > 0 {
            return Err(Full);
        }
        self.reports.try_send(report).unwrap();
        if let Some(said) = *self.answer.lock().unwrap() {
            answer.send(said).unwrap();
        }
        Ok(())
    }
}

/// What came out of a book.
pub(super) struct Page {
    pub(super) book: Arc<Book>,
    results: Receiver<CallResult>,
    reports: Receiver<Report>,
}

impl Page {
    pub(super) fn new() -> Self {
        let ((results, out), (reports, reported)) = (channel(4_096), channel(64));
        let answer = Mutex::new(Some(Reported::Done));
        let book = Arc::new(Book { results, reports, full: AtomicU32::new(0), answer });
        Self { book, results: out, reports: reported }
    }

    /// The next result.
    async fn next(&mut self) -> (CallKey, Verb, Outcome, Detail) {
        let CallResult { key, verb, outcome, detail, .. } = self.results.recv().await.unwrap();
        (key, verb, outcome, detail)
    }
}

/// Outlets at work.
struct World {
    notify: Notify,
    page: Page,
}

impl World {
    fn new(outlets: Vec<OutletOptions>) -> Self {
        let page = Page::new();
        let notify = Notify::start(outlets, page.book.clone(), Arc::new(SystemClock), None).unwrap();
        Self { notify, page }
    }

    fn send(&self, call: Call) {
        self.notify.calls().try_reserve(call.outlet, call.verb).unwrap().send(call);
    }

    /// Sends one start, and waits for its result.
    async fn call(&mut self) -> (Outcome, Detail) {
        self.send(start(7));
        let (of, verb, outcome, detail) = self.page.next().await;
        assert_eq!((of, verb), (key(7), Verb::Start));
        (outcome, detail)
    }
}
