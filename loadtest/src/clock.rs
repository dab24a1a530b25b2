//! The only place that reads the time.

#![allow(clippy::disallowed_methods, reason = "this module is the clock that the others are handed")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The present moment.
    pub fn now(self) -> Instant {
        Instant::now()
    }

    /// Time since the Unix epoch.
    pub fn wall(self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

impl carillon_transport::Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}
