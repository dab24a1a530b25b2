//! The endpoint where gateways say later what became of a call: `POST /v1/callbacks/<outlet>`, signed with the outlet's
//! secret. An answer of 204 means that it is durable.
//!
//! Anybody may connect. Who has no secret learns nothing: whatever is wrong with outlet, headers or signature is answered alike. The
//! body is read first, because it is signed, and it is parsed only when the signature is right. Plain HTTP: TLS is ended by what
//! stands in front of it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::OutletOptions;
use super::call::{CallKey, KeyError, Ledger, Outcome, OutletId, Report, Reported};
use super::limits::{CALLBACK_BYTES_MAX, CALLBACK_CONNECTION_LASTS, CALLBACK_CONNECTIONS_MAX, CALLBACK_WITHIN};
use super::signature::{Secrets, SignatureError};
use crate::clock::Clock;
use crate::http::{BodyError, Bounds, Listening, whole};
use crate::metrics::meter::Counter;
use crate::metrics::outlets::CallbackMeter;

pub(super) const BOUNDS: Bounds = Bounds {
    connections_max: CALLBACK_CONNECTIONS_MAX,
    connection_lasts: CALLBACK_CONNECTION_LASTS,
    head_within: Duration::from_secs(5),
    buffer_bytes: 16 * 1024,
};

/// Said to who is told to come again.
const AGAIN_AFTER_S: u64 = 1;

/// The endpoint, served until it is dropped.
pub struct Callbacks(Listening);

/// What the handlers share.
struct Desk {
    outlets: HashMap<String, (OutletId, Secrets)>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    meter: Arc<CallbackMeter>,
}

impl Callbacks {
    /// Binds and serves the callbacks of these outlets.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread be started.
    pub fn start(
        listen: SocketAddr,
        outlets: &[OutletOptions],
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        meter: Arc<CallbackMeter>,
    ) -> io::Result<Self> {
        Listening::start("callbacks", listen, routes(outlets, ledger, clock, meter), BOUNDS).map(Self)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

pub(super) fn routes(
    outlets: &[OutletOptions],
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    meter: Arc<CallbackMeter>,
) -> Router {
    let of = |outlet: &OutletOptions| (outlet.name.clone(), (outlet.id, outlet.secrets.clone()));
    let desk = Desk { outlets: outlets.iter().map(of).collect(), ledger, clock, meter };
    Router::new()
        .route("/v1/callbacks/{outlet}", post(callback).fallback(not_a_post))
        .fallback(not_here)
        .with_state(Arc::new(desk))
}

/// Why a callback is not taken: a text for who sent it.
#[derive(Debug, Error)]
enum Refusal {
    /// Says the same whatever the cause is, which goes to the log: else it would tell which outlets there are.
    #[error(
        "no outlet of this name has a secret with which this was signed lately: send webhook-id, webhook-timestamp and \
         webhook-signature as standardwebhooks.com says, sign \"<webhook-id>.<webhook-timestamp>.<body>\" with the secret of this \
         outlet when you send, and set your clock"
    )]
    Unsigned(#[source] SignatureError),
    #[error("the body cannot be read: {0}; send one JSON object of at most {CALLBACK_BYTES_MAX} bytes")]
    Unread(#[from] BodyError),
    #[error(
        "the body is not understood: {0}; send {{\"type\":\"ding.answered\",\"timestamp\":\"<RFC 3339>\",\"data\":{{\"key\":\"<key \
         of the call>\"}}}}"
    )]
    Malformed(#[from] serde_json::Error),
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error(
        "no call of this outlet has this key: send the one in data.key of the call, to the outlet that the call names"
    )]
    Unknown,
    #[error(
        "the DING was recalled or has expired before this recipient confirmed: the answer came too late, do not send it again"
    )]
    Over,
    #[error("the broker has too much to do: send this again, signed anew, in {AGAIN_AFTER_S} s or later")]
    Busy,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unsigned(_) => StatusCode::UNAUTHORIZED,
            Self::Unread(BodyError::TooLong(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unread(BodyError::Broken(_)) | Self::Malformed(_) | Self::Key(_) => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::Over => StatusCode::GONE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn counter<'m>(&self, meter: &'m CallbackMeter) -> &'m Counter {
        match self {
            Self::Unsigned(_) => &meter.unsigned,
            Self::Unread(_) | Self::Malformed(_) | Self::Key(_) => &meter.malformed,
            Self::Unknown => &meter.unknown,
            Self::Over => &meter.over,
            Self::Busy => &meter.busy,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = refused(self.status(), &self.to_string());
        if matches!(self, Self::Busy) {
            response.headers_mut().insert(header::RETRY_AFTER, AGAIN_AFTER_S.into());
        }
        response
    }
}

fn refused(status: StatusCode, text: &str) -> Response {
    let body = json!({ "error": text }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn not_a_post() -> Response {
    refused(StatusCode::METHOD_NOT_ALLOWED, "callbacks are sent with POST")
}

async fn not_here() -> Response {
    refused(StatusCode::NOT_FOUND, "callbacks go to /v1/callbacks/<name of the outlet>")
}

/// What a gateway may say.
#[derive(Deserialize)]
struct Event {
    r#type: Type,
    /// Signed with the rest; the shard's own time is what is recorded.
    #[serde(rename = "timestamp")]
    _timestamp: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    key: String,
}

#[derive(Clone, Copy, Deserialize)]
enum Type {
    #[serde(rename = "ding.delivered")]
    Delivered,
    #[serde(rename = "ding.answered")]
    Answered,
    #[serde(rename = "ding.failed")]
    Failed,
}

async fn callback(
    State(desk): State<Arc<Desk>>,
    Path(outlet): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let answer = desk.answer(&outlet, &headers, body).await;
    let counter = match &answer {
        Ok(()) => &desk.meter.done,
        Err(refusal) => refusal.counter(&desk.meter),
    };
    counter.add(1);
    answer.map(|()| StatusCode::NO_CONTENT)
}

impl Desk {
    async fn answer(&self, outlet: &str, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
        let body = whole(body, CALLBACK_BYTES_MAX).await?;
        let header = |name: &str| headers.get(name)?.to_str().ok();
        let (id, secrets) = self.outlets.get(outlet).ok_or(Refusal::Unsigned(SignatureError::Wrong))?;
        secrets.verify(header, &body, self.clock.wall().0 / 1_000).map_err(|error| {
            tracing::debug!(outlet, why = %error, "a callback is not signed as it should be");
            Refusal::Unsigned(error)
        })?;
        let event: Event = serde_json::from_slice(&body)?;
        let key: CallKey = event.data.key.parse()?;
        let outcome = match event.r#type {
            Type::Delivered => Outcome::Delivered,
            Type::Answered => Outcome::Answered,
            Type::Failed => Outcome::Failed,
        };
        let (answer, answered) = oneshot::channel();
        self.ledger.report(Report { outlet: *id, key, outcome }, answer).map_err(|_| Refusal::Busy)?;
        // Whoever drops the question, or lets it wait too long, has too much to do.
        match timeout(CALLBACK_WITHIN, answered).await {
            Ok(Ok(Reported::Done)) => Ok(()),
            Ok(Ok(Reported::Unknown)) => Err(Refusal::Unknown),
            Ok(Ok(Reported::Over)) => Err(Refusal::Over),
            Ok(Err(_)) | Err(_) => Err(Refusal::Busy),
        }
    }
}
