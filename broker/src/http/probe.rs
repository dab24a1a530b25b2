//! A door for fuzzing: a connection that is no socket. Nothing in the broker calls this.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{BOUNDS, converse, routes};
use crate::metrics::Metrics;

/// Serves health, readiness and metrics on a connection, to its end.
///
/// # Cancel safety
/// Dropped, the connection is as broken as one whose client is gone.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, metrics: Arc<Metrics>) {
    converse(stream, routes(metrics), BOUNDS).await;
}
