//! HTTP: requests to the side port, callbacks of gateways, and what gateways answer.
//!
//! Input: how many bytes come at once, and what comes. Of callbacks, the same again as a path and a body, which is signed.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use carillon::clock::{Clock, SystemClock};
use carillon::http::probe::serve;
use carillon::metrics::Metrics;
use carillon::metrics::outlets::CallbackMeter;
use carillon::notify::probe::{Meaning, read_answer, serve_callbacks};
use carillon::notify::signature::{ID, SIGNATURE, Secrets, TIMESTAMP};
use carillon::notify::{CallResult, Full, Ledger, OutletId, OutletOptions, Report, Reported, Target as Gateway};
use carillon_protocol::ids::Timestamp;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::input::{Input, put_piece};
use crate::pipe::{Pipe, converse};
use crate::{Budget, Target};

/// A connection's buffers, which hyper lets grow to 16 KiB and no further, for what comes and for what is sent, and the page of metrics.
const CONNECTION: Budget = Budget::fixed(96 * 1024);

const WORDS: &[&[u8]] = &[
    b"\r\n\r\n",
    b"GET ",
    b"POST ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"/metrics",
    b"/healthz",
    b"Host: x\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: ",
    b"Content-Length: 18446744073709551615\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"%00",
    b"%2f",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

pub(super) const SIDE: Target = Target {
    name: "http",
    run: run_side,
    budget: CONNECTION,
    input_bytes_max: 24 * 1024,
    seeds: seeds_of_side,
    words: WORDS,
    short_inputs: 15_000,
};

pub(super) const CALLBACKS: Target = Target {
    name: "callbacks",
    run: run_callbacks,
    budget: CONNECTION,
    input_bytes_max: 24 * 1024,
    seeds: seeds_of_callbacks,
    words: &[
        b"\"ding.answered\"",
        b"\"ding.failed\"",
        b"\"type\":",
        b"\"data\":",
        b"\"key\":",
        b"ding-0000000000000001-1-0",
        b"\r\n\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"webhook-id: ",
        b"webhook-signature: v1,",
        b"/v1/callbacks/sms",
    ],
    short_inputs: 10_000,
};

pub(super) const ANSWER: Target = Target {
    name: "answer",
    run: run_answer,
    budget: CONNECTION,
    input_bytes_max: 40 * 1024,
    seeds: seeds_of_answers,
    words: &[
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 429 x\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 x\r\n\r\n",
        b"Retry-After: 99999999999999999999\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"ffffffffffffffff\r\n",
        b"{\"status\":\"answered\"}",
        b"\"failed\"",
    ],
    short_inputs: 15_000,
};

fn pieces(input: &[u8]) -> (usize, &[u8]) {
    let mut input = Input::new(input);
    (1 << (input.u8() % 16), input.rest())
}

fn run_side(input: &[u8]) {
    static METRICS: OnceLock<Arc<Metrics>> = OnceLock::new();
    let metrics = METRICS.get_or_init(|| Metrics::new(Arc::new(SystemClock)));
    let (read_bytes_max, coming) = pieces(input);
    let (pipe, sent) = Pipe::new(coming.to_vec(), read_bytes_max);
    converse(serve(pipe, metrics.clone()));
    check_responses(&sent.lock().unwrap());
}

/// What is sent is one response after the other.
fn check_responses(sent: &[u8]) {
    assert!(sent.is_empty() || sent.starts_with(b"HTTP/1."), "{}", sent.escape_ascii());
}

/// Knows one call, and takes what is reported of it.
struct Book;

impl Ledger for Book {
    fn results(&self, _: Vec<CallResult>) -> Result<(), Vec<CallResult>> {
        Ok(())
    }

    fn report(&self, report: Report, answer: oneshot::Sender<Reported>) -> Result<(), Full> {
        let reported = match report.key.ding.0 % 4 {
            0 => return Err(Full),
            1 => Reported::Done,
            2 => Reported::Unknown,
            _ => Reported::Over,
        };
        _ = answer.send(reported);
        Ok(())
    }
}

/// Stands still, so that a signature is as good whenever it is looked at.
struct Still;

impl carillon_transport::Clock for Still {
    fn now(&self) -> Instant {
        carillon_transport::Clock::now(&SystemClock)
    }
}

impl Clock for Still {
    fn wall(&self) -> Timestamp {
        Timestamp(1_700_000_000_000)
    }
}

fn outlet() -> &'static OutletOptions {
    static OUTLET: OnceLock<OutletOptions> = OnceLock::new();
    OUTLET.get_or_init(|| {
        let secrets = Secrets::parse(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]).unwrap();
        OutletOptions::new(OutletId::SMS, "sms", "http://127.0.0.1:1/".parse::<Gateway>().unwrap(), secrets)
    })
}

fn run_callbacks(input: &[u8]) {
    let (read_bytes_max, coming) = pieces(input);
    call_back(coming.to_vec(), read_bytes_max);
    let mut parts = Input::new(coming);
    let (path, body) = (parts.piece(), parts.rest());
    let now_s = Still.wall().0 / 1_000;
    let signature = outlet().secrets.sign("msg_1", now_s, body);
    let mut request = b"POST ".to_vec();
    request.extend(path.iter().filter(|byte| byte.is_ascii_graphic()));
    let head = format!(
        " HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{ID}: msg_1\r\n{TIMESTAMP}: {now_s}\r\n{SIGNATURE}: {signature}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    request.extend(head.as_bytes());
    request.extend(body);
    let sent = call_back(request, read_bytes_max);
    let done = sent.starts_with(b"HTTP/1.1 204");
    let is_event =
        serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|event| event["data"]["key"].is_string());
    assert!(!done || is_event, "what is done was an event: {}", body.escape_ascii());
    // Or nothing behind the signature is tested.
    assert!(done || input != seeds_of_callbacks()[0], "an event is not taken: {}", sent.escape_ascii());
}

fn call_back(request: Vec<u8>, read_bytes_max: usize) -> Vec<u8> {
    let (pipe, sent) = Pipe::new(request, read_bytes_max);
    let meter = Arc::new(CallbackMeter::default());
    converse(serve_callbacks(pipe, std::slice::from_ref(outlet()), Arc::new(Book), Arc::new(Still), meter));
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    check_responses(&sent);
    sent
}

fn run_answer(input: &[u8]) {
    let (read_bytes_max, coming) = pieces(input);
    let (pipe, sent) = Pipe::answering(coming.to_vec(), read_bytes_max);
    // A try ends within its outlet's time: where no answer comes, the connection has ended.
    let meaning = converse(async { timeout(Duration::from_secs(10), read_answer(pipe)).await });
    let meaning = meaning.expect("an answer that has ended is judged");
    assert!(sent.lock().unwrap().starts_with(b"POST / HTTP/1.1\r\n") || meaning == Meaning::Broken);
    assert!(meaning != Meaning::Taken || contains(coming, b" 2"), "taken by what has no status of 2xx");
    // The seeds are whole answers: each must be understood, or nothing behind the first byte is tested.
    assert!(meaning != Meaning::Broken || !seeds_of_answers().contains(&input.to_vec()), "a whole answer is not one");
}

fn contains(bytes: &[u8], piece: &[u8]) -> bool {
    bytes.windows(piece.len()).any(|window| window == piece)
}

fn after(read: u8, bytes: &[u8]) -> Vec<u8> {
    [&[read][..], bytes].concat()
}

fn seeds_of_side() -> Vec<Vec<u8>> {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let two = get("/healthz") + &get("/metrics?x=%20");
    let chunked = "POST /readyz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    [&*get("/metrics"), &two, chunked, "HEAD /readyz HTTP/1.0\r\n\r\n"].map(|seed| after(15, seed.as_bytes())).to_vec()
}

fn seeds_of_callbacks() -> Vec<Vec<u8>> {
    let event = |kind: &str, key: &str| {
        let body = format!(r#"{{"type":"ding.{kind}","timestamp":"2026-11-27T20:02:00Z","data":{{"key":"{key}"}}}}"#);
        let mut seed = vec![15];
        put_piece(&mut seed, b"/v1/callbacks/sms");
        seed.extend(body.as_bytes());
        seed
    };
    let raw = "POST /v1/callbacks/sms HTTP/1.1\r\nHost: x\r\nwebhook-id: a\r\nwebhook-timestamp: 1700000000\r\n\
               webhook-signature: v1,AAAA\r\nContent-Length: 2\r\n\r\n{}";
    vec![
        event("answered", "ding-0000000000000001-1-0"),
        event("failed", "ding-0000000000000002-7-2"),
        event("delivered", "ding-0000000000000004-7-2"),
        after(3, raw.as_bytes()),
        // A byte at a time: no piece may be kept with the buffer that it came in.
        after(0, format!("{}{}", raw.replace("Length: 2", "Length: 4000"), " ".repeat(3_998)).as_bytes()),
    ]
}

fn seeds_of_answers() -> Vec<Vec<u8>> {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{\"status\":\"answered\"}",
        "HTTP/1.1 202 x\r\nTransfer-Encoding: chunked\r\n\r\n15\r\n{\"status\":\"accepted\"}\r\n0\r\n\r\n",
        "HTTP/1.1 503 x\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 x\r\n\r\n",
        "HTTP/1.1 301 x\r\nLocation: http://127.0.0.1/\r\n\r\n",
    ];
    let bit_by_bit = format!("HTTP/1.1 200 OK\r\n\r\n{{{}}}", " ".repeat(4_000));
    let mut seeds = answers.map(|answer| after(15, answer.as_bytes())).to_vec();
    // A byte at a time: no piece may be kept with the buffer that it came in.
    seeds.push(after(0, bit_by_bit.as_bytes()));
    seeds
}
