//! Doors for fuzzing: connections that are no sockets. Nothing in the broker calls this.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite};

use super::call::Ledger;
use super::held::End;
use super::{OutletOptions, callbacks, post};
use crate::clock::Clock;
use crate::http::converse;
use crate::metrics::outlets::CallbackMeter;

/// Serves callbacks of these outlets on a connection, to its end.
///
/// # Cancel safety
/// Dropped, the connection is as broken as one whose client is gone.
pub async fn serve_callbacks<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    outlets: &[OutletOptions],
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    meter: Arc<CallbackMeter>,
) {
    converse(stream, callbacks::routes(outlets, ledger, clock, meter), callbacks::BOUNDS).await;
}

/// What a gateway's answer means to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The gateway has taken it.
    Taken,
    /// It is not tried again.
    Refused,
    /// It is, later.
    Again,
    /// The same, because there was no whole answer.
    Broken,
}

/// Sends a request on a connection and reads what comes.
///
/// # Cancel safety
/// Dropped, the connection is as broken as one whose client is gone.
pub async fn read_answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Meaning {
    let request = || Request::post("/").body(Full::new(Bytes::new())).expect("a path and a method");
    match post::exchange(Box::new(stream), request, &AtomicBool::new(false)).await {
        Ok(End::Taken(..)) => Meaning::Taken,
        Ok(End::Refused(_)) => Meaning::Refused,
        Ok(End::Failed(..)) => Meaning::Again,
        Err(_) => Meaning::Broken,
    }
}
