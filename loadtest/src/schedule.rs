//! When things are due: by the clock alone, whatever has become of the earlier ones.

use std::time::{Duration, Instant};

/// Things due in equal rounds, numbered from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// When the first round is due.
    pub(crate) start: Instant,
    /// Time from round to round.
    pub(crate) interval: Duration,
    /// Things due in each; at least 1.
    pub(crate) batch: u32,
}

impl Schedule {
    /// When the thing of this index is due.
    pub(crate) fn due_at(&self, index: u32) -> Instant {
        self.start + self.interval * (index / self.batch)
    }
}
