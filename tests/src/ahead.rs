//! A broker whose wall time goes ahead as a test wants it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use carillon::clock::{Clock, SystemClock};
use carillon::server::{Options, Server};
use carillon_protocol::ids::Timestamp;
use carillon_transport::Clock as TransportClock;

use crate::harness::Site;

/// The machine's clock, whose wall time a test moves on: what waits for a time is there at the broker's next tick.
#[derive(Debug, Default)]
pub struct AheadClock {
    ahead_ms: AtomicU64,
}

impl AheadClock {
    /// Moves the wall time on.
    pub fn advance_ms(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The wall time in seconds since the Unix epoch.
    pub fn wall_s(&self) -> u64 {
        self.wall().0 / 1_000
    }
}

impl TransportClock for AheadClock {
    fn now(&self) -> Instant {
        SystemClock.now()
    }
}

impl Clock for AheadClock {
    fn wall(&self) -> Timestamp {
        Timestamp(SystemClock.wall().0 + self.ahead_ms.load(Ordering::SeqCst))
    }
}

/// A broker of a site that goes by this clock.
///
/// # Panics
/// If it does not start.
pub fn serve_by(clock: Arc<AheadClock>, site: &Site) -> Server {
    Server::start(Options { clock, ..site.options() }).expect("the broker starts")
}
