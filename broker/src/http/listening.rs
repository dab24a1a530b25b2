//! An HTTP port with a thread of its own: whoever is slow, rude or many there disturbs nobody.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::report::Causes;

/// After a failed accept (no file descriptor is left, say).
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a port gives to those who connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at once. Further ones wait in the kernel's backlog.
    pub(crate) connections_max: usize,
    /// From connection to end, whatever it does.
    pub(crate) connection_lasts: Duration,
    /// For the head of a request, also of a next one on the same connection.
    pub(crate) head_within: Duration,
    /// Bytes of a request's head and of what is written at once; hyper takes no less than 8 KiB.
    pub(crate) buffer_bytes: usize,
}

/// A port, served until it is dropped.
pub(crate) struct Listening {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Binds and serves on a thread of this name.
    pub(crate) fn start(name: &'static str, listen: SocketAddr, routes: Router, bounds: Bounds) -> io::Result<Self> {
        let listener = StdListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = crate::server::spawn(name.into(), move || {
            if let Err(error) = runtime.block_on(serve(listener, routes, bounds, stopped)) {
                tracing::error!(port = name, error = %Causes(&error), "an HTTP port is not served");
            }
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Either way the thread ends: by what is sent, or because the sender is gone.
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn serve(
    listener: StdListener,
    routes: Router,
    bounds: Bounds,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(bounds.connections_max));
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
                    timeout(bounds.connection_lasts, converse(stream, routes, bounds)).await.ok();
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %Causes(&error), "cannot accept an HTTP connection");
                sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn converse<S>(stream: S, routes: Router, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(bounds.head_within).max_buf_size(bounds.buffer_bytes);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await {
        tracing::debug!(error = %Causes(&error), "an HTTP connection broke");
    }
}
