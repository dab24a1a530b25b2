//! The endpoint for what gateways say later: each of its answers.

use std::net::SocketAddr;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use standardwebhooks::Webhook;
use tokio::net::TcpStream;

use super::gateway::Answer;
use super::*;

/// An endpoint, what it asks the shard, and how often it gave which answer.
struct Endpoint {
    callbacks: Callbacks,
    page: Page,
    meter: Arc<CallbackMeter>,
}

/// A callback as a gateway would send it.
struct Letter<'a> {
    path: &'a str,
    secret: &'a str,
    age_s: i64,
    body: String,
}

fn letter(kind: &str) -> Letter<'static> {
    let body = format!(r#"{{"type":"{kind}","timestamp":"2026-11-27T20:02:00Z","data":{{"key":"{}"}}}}"#, key(7));
    Letter { path: "/v1/callbacks/sms", secret: NEW, age_s: 0, body }
}

impl Endpoint {
    fn start() -> Self {
        let (page, meter) = (Page::new(), Arc::new(CallbackMeter::default()));
        let phone = OutletOptions {
            id: OutletId::PHONE,
            name: "phone".into(),
            secrets: Secrets::parse(["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]).unwrap(),
            ..sms("http://127.0.0.1:1/")
        };
        let outlets = [sms("http://127.0.0.1:1/"), phone];
        let listen = "127.0.0.1:0".parse().unwrap();
        let callbacks =
            Callbacks::start(listen, &outlets, page.book.clone(), Arc::new(SystemClock), meter.clone()).unwrap();
        Self { callbacks, page, meter }
    }

    fn says(&self, answer: Option<Reported>) {
        *self.page.book.answer.lock().unwrap() = answer;
    }

    /// Sends it, and has status and body.
    async fn send(&self, letter: Letter<'_>) -> (u16, String) {
        send(self.callbacks.address(), letter).await
    }
}

async fn send(address: SocketAddr, Letter { path, secret, age_s, body }: Letter<'_>) -> (u16, String) {
    let sent_s = i64::try_from(Clock::wall(&SystemClock).0 / 1_000).unwrap() - age_s;
    let signature = Webhook::new(secret).unwrap().sign("msg_1", sent_s, body.as_bytes()).unwrap();
    let request = Request::post(path)
        .header("host", "broker")
        .header("webhook-id", "msg_1")
        .header("webhook-timestamp", sent_s)
        .header("webhook-signature", signature)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    exchange(address, request).await
}

async fn exchange(address: SocketAddr, request: Request<Full<Bytes>>) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let again = answer.headers().contains_key("retry-after");
    assert_eq!(again, status == StatusCode::SERVICE_UNAVAILABLE);
    let body = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    if status == StatusCode::NO_CONTENT {
        assert_eq!(body, "");
    } else {
        let told: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(told["error"].as_str().is_some_and(|text| text.len() > 20), "{status}: {body}");
    }
    (status.as_u16(), body)
}

#[tokio::test]
async fn what_a_gateway_says_reaches_the_shard_and_is_answered_when_it_is_durable() {
    let mut endpoint = Endpoint::start();
    for (kind, outcome) in [
        ("ding.delivered", Outcome::Delivered),
        ("ding.answered", Outcome::Answered),
        ("ding.failed", Outcome::Failed),
        // Twice is harmless.
        ("ding.answered", Outcome::Answered),
    ] {
        assert_eq!(endpoint.send(letter(kind)).await.0, 204);
        let report = endpoint.page.reports.recv().await.unwrap();
        assert_eq!(report, Report { outlet: OutletId::SMS, key: key(7), outcome });
    }
    assert_eq!(endpoint.send(Letter { secret: OLD, ..letter("ding.answered") }).await.0, 204);
    assert_eq!(endpoint.meter.done.get(), 5);
}

#[test]
fn the_callback_of_the_documentation_is_signed_as_it_says() {
    let page = include_str!("../../../../docs/DING.md");
    let example = page.split("POST /v1/callbacks/sms HTTP/1.1\n").nth(1).unwrap().split("\n```").next().unwrap();
    let (headers, body) = example.split_once("\n\n").unwrap();
    let header = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let sent_s = header("webhook-timestamp").unwrap().parse().unwrap();
    assert_eq!(header("content-length").unwrap(), body.len().to_string());
    assert_eq!(Secrets::parse([NEW]).unwrap().verify(header, body.as_bytes(), sent_s), Ok(()));
    assert_eq!(body, letter("ding.answered").body);
}

#[tokio::test]
async fn what_is_not_signed_by_the_outlet_s_secret_is_answered_alike_and_asks_the_shard_nothing() {
    let mut endpoint = Endpoint::start();
    let answered = || letter("ding.answered");
    let bare = |outlet: &str| {
        Request::post(format!("/v1/callbacks/{outlet}")).header("host", "broker").body(Full::default()).unwrap()
    };
    let mut told = Vec::new();
    for letter in [
        Letter { secret: "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ..answered() },
        Letter { path: "/v1/callbacks/phone", ..answered() },
        Letter { path: "/v1/callbacks/nothing", ..answered() },
        Letter { age_s: 301 + 60, ..answered() },
        Letter { age_s: -301 - 60, ..answered() },
        Letter { age_s: 301 + 60, path: "/v1/callbacks/nothing", ..answered() },
    ] {
        let (status, body) = endpoint.send(letter).await;
        assert_eq!(status, 401, "{body}");
        told.push(body);
    }
    for outlet in ["sms", "nothing"] {
        let (status, body) = exchange(endpoint.callbacks.address(), bare(outlet)).await;
        assert_eq!(status, 401, "{body}");
        told.push(body);
    }
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    assert!(told[0].contains("standardwebhooks.com") && told[0].contains("set your clock"), "{}", told[0]);
    assert!(endpoint.page.reports.try_recv().is_err());
    assert_eq!(endpoint.meter.unsigned.get(), 8);
}

#[tokio::test]
async fn what_is_not_understood_is_told_what_to_send() {
    let mut endpoint = Endpoint::start();
    let good = letter("ding.answered").body;
    for body in [
        String::new(),
        "{}".into(),
        good.replace("ding.answered", "ding.exploded"),
        good.replace("\"timestamp\"", "\"time\""),
        good.replace("ding-0000", "ding-"),
        good.replace("-7-2\"", "-7-2-start\""),
    ] {
        let (status, told) = endpoint.send(Letter { body: body.clone(), ..letter("") }).await;
        assert_eq!(status, 400, "{body}: {told}");
        assert!(
            told.contains("data.key") || told.contains("\\\"key\\\"") || told.contains("the call came with"),
            "{told}"
        );
    }
    assert!(endpoint.page.reports.try_recv().is_err());
    assert_eq!(endpoint.meter.malformed.get(), 6);
}

#[tokio::test]
async fn the_shard_s_answers_have_a_status_each() {
    let mut endpoint = Endpoint::start();
    for (answer, status) in
        [(Some(Reported::Done), 204), (Some(Reported::Unknown), 404), (Some(Reported::Over), 410), (None, 503)]
    {
        endpoint.says(answer);
        assert_eq!(endpoint.send(letter("ding.answered")).await.0, status, "{answer:?}");
        endpoint.page.reports.recv().await.unwrap();
    }
    endpoint.page.book.full.store(1, Ordering::Relaxed);
    assert_eq!(endpoint.send(letter("ding.answered")).await.0, 503);
    let CallbackMeter { done, unknown, over, busy, .. } = &*endpoint.meter;
    assert_eq!((done.get(), unknown.get(), over.get(), busy.get()), (1, 1, 1, 2));
}

#[tokio::test]
async fn other_requests_are_told_where_to_go_and_long_ones_are_not_read() {
    let endpoint = Endpoint::start();
    let address = endpoint.callbacks.address();
    let get = |path: &str| Request::get(path).header("host", "broker").body(Full::default()).unwrap();
    assert_eq!(exchange(address, get("/v1/callbacks/sms")).await.0, 405);
    let (status, body) = exchange(address, get("/")).await;
    assert!(status == 404 && body.contains("/v1/callbacks/"), "{status} {body}");
    let body = " ".repeat(limits::CALLBACK_BYTES_MAX + 1);
    assert_eq!(endpoint.send(Letter { body, ..letter("") }).await.0, 413);
}

#[tokio::test]
async fn a_gateway_that_answers_twice_does_no_harm() {
    let gateway = Gateway::start([Answer::body(200, r#"{"status":"answered"}"#)]).await;
    let mut world = World::new(vec![sms(&gateway.url)]);
    assert_eq!(world.call().await, (Outcome::Answered, Detail(200)));
    let book = world.page.book.clone();
    let listen = "127.0.0.1:0".parse().unwrap();
    let meter = world.notify.callback_meter();
    let callbacks = Callbacks::start(listen, &[sms(&gateway.url)], book, Arc::new(SystemClock), meter).unwrap();
    for kind in ["ding.answered", "ding.answered", "ding.delivered"] {
        assert_eq!(send(callbacks.address(), letter(kind)).await.0, 204);
        assert_eq!(world.page.reports.recv().await.unwrap().key, key(7));
    }
}
