//! The side port: `/healthz`, `/readyz`, `/metrics`.
//!
//! One thread of its own with a small runtime, which reads what the busy threads left in their meters and touches nothing
//! else of theirs. Whoever is slow, rude or many here disturbs nobody: connections, their time and their bytes are bounded.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::metrics::{Metrics, Phase};
use crate::report::Causes;

/// Connections at once: some monitors that scrape, and one that hangs. Further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 32;

/// From connection to end, whatever it does: scrapers come every 10 to 60 seconds and connect anew. A page takes
/// milliseconds.
const CONNECTION_LASTS: Duration = Duration::from_secs(60);

/// For the head of a request, also of a next one on the same connection.
const HEAD_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a request's head and of what is written at once; hyper takes no less than 8 KiB.
const BUFFER_BYTES: usize = 16 * 1024;

/// After a failed accept (no file descriptor is left, say).
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What prometheus-client writes.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The side port, served until it is dropped.
pub struct Http {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Http {
    /// Binds and serves.
    ///
    /// # Errors
    /// The address cannot be bound, or no thread be started.
    pub fn start(listen: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = StdListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("http".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, metrics, stopped)) {
                tracing::error!(error = %Causes(&error), "health and metrics are not served");
            }
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // Either way the thread ends: by what is sent, or because the sender is gone.
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn serve(listener: StdListener, metrics: Arc<Metrics>, mut stopped: oneshot::Receiver<()>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let routes = Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(page))
        .with_state(metrics);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            _ = &mut stopped => return Ok(()),
            Some(_) = connections.join_next() => continue,
            permit = room.clone().acquire_owned() => permit.expect("nobody closes the semaphore"),
        };
        let stream = tokio::select! {
            _ = &mut stopped => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match stream {
            Ok((stream, _)) => {
                let routes = routes.clone();
                connections.spawn(async move {
                    // Its time being over is no error, and drops it.
                    timeout(CONNECTION_LASTS, converse(stream, routes)).await.ok();
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "cannot accept a connection for health or metrics");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, routes: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(BUFFER_BYTES);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await {
        tracing::debug!(error = %Causes(&error), "an HTTP connection broke");
    }
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
    (status, format!("{}\n", phase.name()))
}

async fn page(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.to_text())
}
