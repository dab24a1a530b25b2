//! A gateway of DINGs for tests: notes each call, answers as it is told, and calls back.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use carillon::notify::signature::Secrets;
use carillon::notify::{OutletId, OutletOptions};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::patiently;

/// What signs calls and callbacks.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// Not at all, as long as the caller waits.
    Never,
}

/// A call that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `ding.step.started` or `ding.step.cancelled`.
    pub event: String,
    /// The idempotency key.
    pub key: String,
    /// Which outlet it is for.
    pub outlet: String,
    /// The rest.
    pub data: Value,
}

struct Desk {
    seen: mpsc::Sender<Seen>,
    answer: Mutex<Answer>,
}

/// See the module.
pub struct Gateway {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    seen: mpsc::Receiver<Seen>,
    desk: Arc<Desk>,
}

impl Gateway {
    /// Answers 202.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (sender, seen) = mpsc::channel(4_096);
        let desk = Arc::new(Desk { seen: sender, answer: Mutex::new(Answer::Status(202)) });
        let routes = Router::new().fallback(take).with_state(desk.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(routes.clone());
                // It is over when the caller has gone.
                tokio::spawn(async move {
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
                });
            }
        });
        Self { address, seen, desk }
    }

    /// An outlet of this gateway.
    ///
    /// # Panics
    /// Never: its address is one.
    pub fn outlet(&self, id: OutletId, name: &str) -> OutletOptions {
        let target = format!("http://{}/{name}", self.address).parse().expect("a target");
        let secrets = Secrets::parse([SECRET]).expect("a secret");
        let allow = vec!["127.0.0.0/8".parse().expect("a range")];
        OutletOptions { allow, ..OutletOptions::new(id, name, target, secrets) }
    }

    /// Answers like this from now on.
    pub fn answer(&self, answer: Answer) {
        *self.desk.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The next call.
    ///
    /// # Panics
    /// If none comes.
    pub async fn next(&mut self) -> Seen {
        patiently(self.seen.recv()).await.expect("it listens")
    }

    /// The next call, which must be of this kind and outlet; its key.
    ///
    /// # Panics
    /// If another one comes.
    pub async fn next_key(&mut self, event: &str, outlet: &str) -> String {
        let seen = self.next().await;
        assert_eq!((seen.event.as_str(), seen.outlet.as_str()), (event, outlet), "{seen:?}");
        seen.key
    }

    /// Calls that came and were not looked at.
    pub fn rest(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }
}

async fn take(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let at = header("webhook-timestamp").and_then(|at| at.parse().ok()).unwrap_or_default();
    let verified = Secrets::parse([SECRET]).map(|secrets| secrets.verify(header, &body, at).is_ok());
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    if verified != Ok(true) {
        return StatusCode::UNAUTHORIZED;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let data = event["data"].clone();
    let seen = Seen { event: text(&event["type"]), key: text(&data["key"]), outlet: text(&data["outlet"]), data };
    // Nobody looks any more when the test is over.
    desk.seen.try_send(seen).ok();
    let answer = *desk.answer.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap_or_default(),
        Answer::Never => std::future::pending().await,
    }
}

/// Calls back: signed with this secret, at this time; returns the status.
///
/// # Panics
/// If nobody answers.
pub async fn call_back(to: SocketAddr, outlet: &str, (secret, now_s): (&str, u64), (event, key): (&str, &str)) -> u16 {
    let body = json!({ "type": event, "timestamp": "2026-01-01T00:00:00Z", "data": { "key": key } }).to_string();
    let id = format!("{event}-{key}");
    let signature = Secrets::parse([secret]).expect("a secret").sign(&id, now_s, body.as_bytes());
    let request = format!(
        "POST /v1/callbacks/{outlet} HTTP/1.1\r\nhost: broker\r\nconnection: close\r\ncontent-type: application/json\r\n\
         webhook-id: {id}\r\nwebhook-timestamp: {now_s}\r\nwebhook-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answered = async {
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = patiently(answered).await.expect("the broker answers");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("an HTTP status")
}
