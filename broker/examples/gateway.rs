//! A gateway to begin with: verifies what the broker calls, prints it instead of sending a text message, and offers the link
//! that such a message would contain. Whoever opens it confirms the DING.
//!
//! ```console
//! $ (umask 077; echo whsec_$(openssl rand -base64 32) > sms.secret)
//! $ cat >> carillon.toml <<'END'
//! [callbacks]
//! listen = "127.0.0.1:4457"
//! [outlet.sms]
//! url = "http://127.0.0.1:8080/ding"
//! secret_files = ["sms.secret"]
//! allow = ["127.0.0.0/8"]
//! [ding]
//! outlets = ["app", "sms"]
//! END
//! $ carillon serve --config carillon.toml &
//! $ cargo run -p carillon --example gateway -- sms.secret 127.0.0.1:8080 127.0.0.1:4457
//! $ carillon ding send --user alice --to bob "db-3 is full" --step app:0 --step sms:5s     # in a third terminal
//! $ curl http://127.0.0.1:8080/open/ding-0000000000000001-7-2      # as the printed line says
//! ```
//!
//! The library of Standard Webhooks checks the signatures here, as a gateway in any other language would have it; nothing of the
//! broker but its clock is used. What a real one must do beside: keep what it knows on a disk, and send the message after it has answered.
#![allow(clippy::print_stdout, reason = "an example talks to who runs it")]

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::{get, post};
use carillon::clock::{Clock, SystemClock};
use http_body_util::Full;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::{TcpListener, TcpStream};

/// Keys that are remembered; the oldest are forgotten. Longer than any DING lives would be right.
const KEYS_MAX: usize = 10_000;

struct Gateway {
    secret: Webhook,
    address: SocketAddr,
    callbacks: SocketAddr,
    calls: Mutex<Calls>,
}

/// What came, by key.
#[derive(Default)]
struct Calls {
    by_key: HashMap<String, Known>,
    order: VecDeque<String>,
}

/// What is known of a key. Once cancelled it stays so, whatever comes later.
#[derive(Clone, Default)]
struct Known {
    outlet: String,
    started: bool,
    cancelled: bool,
}

impl Calls {
    fn of(&mut self, key: &str) -> &mut Known {
        if !self.by_key.contains_key(key) {
            self.order.push_back(key.to_owned());
            if self.order.len() > KEYS_MAX {
                self.order.pop_front().map(|oldest| self.by_key.remove(&oldest));
            }
        }
        self.by_key.entry(key.to_owned()).or_default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [secret, listen, callbacks] = &arguments[..] else {
        return Err(
            "usage: gateway <file with the secret> <address to listen on> <address of the broker's callbacks>".into()
        );
    };
    let secret = Webhook::new(std::fs::read_to_string(secret)?.trim())?;
    let listener = TcpListener::bind(listen).await?;
    let (address, calls) = (listener.local_addr()?, Mutex::default());
    let gateway = Arc::new(Gateway { secret, address, callbacks: callbacks.parse()?, calls });
    println!("calls come to http://{address}/ding");
    let routes = Router::new().route("/ding", post(ding)).route("/open/{key}", get(open)).with_state(gateway);
    loop {
        let (stream, _) = listener.accept().await?;
        let routes = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), routes).await.ok()
        });
    }
}

/// A call of the broker. Any 2xx says that it was taken; a repeat is answered alike and does nothing.
async fn ding(State(gateway): State<Arc<Gateway>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Err(error) = gateway.secret.verify(&body, &headers) {
        println!("refused: {error}");
        return StatusCode::UNAUTHORIZED;
    }
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (kind, data) = (event["type"].as_str().unwrap_or_default(), &event["data"]);
    let text = |field: &str| data[field].as_str().unwrap_or_default();
    let mut calls = gateway.calls.lock().expect("nobody panics with it");
    let known = calls.of(text("key"));
    known.outlet = text("outlet").to_owned();
    match kind {
        "ding.step.started" if known.cancelled => println!("{}: cancelled before, nothing is sent", text("key")),
        "ding.step.started" if known.started => println!("{}: a repeat, nothing is sent twice", text("key")),
        "ding.step.started" => {
            known.started = true;
            println!("to {} of {}: {:?}", text("recipient"), text("tenant"), text("text"));
            println!("    confirm: http://{}/open/{}", gateway.address, text("key"));
        }
        "ding.step.cancelled" => {
            known.cancelled = true;
            println!("{}: cancelled", text("key"));
        }
        // What a later broker may send is taken and passed over.
        other => println!("{other:?} is not known here"),
    }
    StatusCode::ACCEPTED
}

/// The link of the message: tells the broker, which answers when the confirmation is durable.
async fn open(State(gateway): State<Arc<Gateway>>, Path(key): Path<String>) -> (StatusCode, String) {
    let known = gateway.calls.lock().expect("nobody panics with it").by_key.get(&key).cloned();
    let Some(known) = known.filter(|known| known.started) else {
        return (StatusCode::NOT_FOUND, "this link is not known\n".into());
    };
    match gateway.confirm(&key, &known.outlet).await {
        Ok(StatusCode::NO_CONTENT) => (StatusCode::OK, "confirmed, thank you\n".into()),
        Ok(StatusCode::GONE) => (StatusCode::GONE, "too late: this was recalled, or has expired\n".into()),
        Ok(status) => (StatusCode::BAD_GATEWAY, format!("the broker answers {status}: please try again\n")),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("the broker cannot be reached: {error}\n")),
    }
}

impl Gateway {
    async fn confirm(&self, key: &str, outlet: &str) -> Result<StatusCode, Box<dyn Error + Send + Sync>> {
        let now = SystemClock.wall().0;
        let timestamp = jiff::Timestamp::from_millisecond(i64::try_from(now)?)?;
        let event = json!({ "type": "ding.answered", "timestamp": timestamp.to_string(), "data": { "key": key } });
        let (id, sent_s, body) = (format!("{key}-answered"), i64::try_from(now / 1_000)?, event.to_string());
        let request = Request::post(format!("/v1/callbacks/{outlet}"))
            .header("host", self.callbacks.to_string())
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", sent_s)
            .header("webhook-signature", self.secret.sign(&id, sent_s, body.as_bytes())?)
            .body(Full::new(Bytes::from(body)))?;
        let stream = TcpStream::connect(self.callbacks).await?;
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driven = tokio::spawn(connection);
        let status = sender.send_request(request).await?.status();
        driven.abort();
        Ok(status)
    }
}
