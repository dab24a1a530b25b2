//! How long a run waits: for anything at all to happen, and for its end.

use std::time::{Duration, Instant};

use crate::clock::SystemClock;
use crate::failure::Failure;

/// The patience of a run.
pub(crate) struct Watch {
    clock: SystemClock,
    patience: Duration,
    limit: Instant,
    moved: Instant,
    phase: &'static str,
}

impl Watch {
    pub(crate) fn new(clock: SystemClock, patience: Duration, time_limit: Duration) -> Self {
        let now = clock.now();
        Self { clock, patience, limit: now + time_limit, moved: now, phase: "connecting" }
    }

    /// What the run does from now on, for its errors.
    pub(crate) fn begin(&mut self, phase: &'static str) {
        self.phase = phase;
        self.moved = self.clock.now();
    }

    pub(crate) fn phase(&self) -> &'static str {
        self.phase
    }

    /// How long the run may still take.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.limit.saturating_duration_since(now)
    }

    /// Something that the run waits for has happened.
    pub(crate) fn note(&mut self, now: Instant) {
        self.moved = self.moved.max(now);
    }

    /// Whether nothing has happened for too long, or the run has taken too long.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.limit || now.saturating_duration_since(self.moved) >= self.patience
    }

    /// As [`Watch::is_over`], for what cannot be done without.
    pub(crate) fn check(&self, now: Instant, waited_for: impl FnOnce() -> String) -> Result<(), Failure> {
        if !self.is_over(now) {
            return Ok(());
        }
        let why = if now >= self.limit {
            format!("the run took longer than --time-limit-s; it waited for {}", waited_for())
        } else {
            format!("nothing happened for {} s (--patience-s); it waited for {}", self.patience.as_secs(), waited_for())
        };
        Err(Failure::Stalled { phase: self.phase, why })
    }
}
