//! The only place that reads the time.

#![allow(clippy::disallowed_methods, reason = "this module is the clock that the others are handed")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use carillon_protocol::ids::Timestamp;

/// Wall-clock time beside the monotonic time that the transport needs. Simulated in tests.
pub trait Clock: carillon_transport::Clock {
    /// Milliseconds since the Unix epoch. May jump; the shard's own time never goes back.
    fn wall(&self) -> Timestamp;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl carillon_transport::Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
