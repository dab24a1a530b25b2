//! The only place that reads a clock.

use tokio::time::Instant;

/// Now, for measuring how long something took.
#[allow(clippy::disallowed_methods, reason = "this is the clock module of the crate")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
