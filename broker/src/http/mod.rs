//! The side port: `/healthz`, `/readyz`, `/metrics`.
//!
//! One thread of its own with a small runtime, which reads what the busy threads left in their meters and touches nothing
//! else of theirs. Whoever is slow, rude or many here disturbs nobody: connections, their time and their bytes are bounded.

mod body;
mod listening;
pub mod probe;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::journal::Room;
use crate::metrics::{Metrics, Phase};
pub(crate) use body::{BodyError, whole};
pub(crate) use listening::{Bounds, Listening, converse};

/// Connections at once: some monitors that scrape, and one that hangs. Further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 32;

/// From connection to end, whatever it does: scrapers come every 10 to 60 seconds and connect anew. A page takes
/// milliseconds.
const CONNECTION_LASTS: Duration = Duration::from_secs(60);

/// For the head of a request, also of a next one on the same connection.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a request's head and of what is written at once; hyper takes no less than 8 KiB.
const BUFFER_BYTES: usize = 16 * 1024;

/// What prometheus-client writes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const BOUNDS: Bounds = Bounds {
    connections_max: CONNECTIONS_MAX,
    connection_lasts: CONNECTION_LASTS,
    head_within: HEAD_WITHIN,
    buffer_bytes: BUFFER_BYTES,
};

/// The side port, served until it is dropped.
pub struct Http(Listening);

impl Http {
    /// Binds and serves.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread be started.
    pub fn start(listen: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        Listening::start("http", listen, routes(metrics), BOUNDS).map(Self)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn routes(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(page))
        .with_state(metrics)
}

/// Whether the process and each of its threads is alive: if not, it should be restarted.
async fn health(State(metrics): State<Arc<Metrics>>) -> (StatusCode, String) {
    let stuck = metrics.stuck();
    if stuck.is_empty() {
        return (StatusCode::OK, format!("alive, {}\n", metrics.phase().name()));
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("stuck: {}\n", stuck.join(", ")))
}

/// Whether devices should be sent here.
async fn readiness(State(metrics): State<Arc<Metrics>>) -> (StatusCode, String) {
    let phase = metrics.phase();
    let ready = phase == Phase::Serving && metrics.stuck().is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Devices are served all the same: who is sent elsewhere could not even read.
    let room = if metrics.room() == Room::Enough { "" } else { ", but the disk has no room: publishes are refused" };
    (status, format!("{}{room}\n", phase.name()))
}

async fn page(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.to_text())
}
