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
    /// So many a second, one at a time; at least one.
    pub(crate) fn per_second(start: Instant, rate: u32) -> Self {
        Self { start, interval: Duration::from_secs(1) / rate, batch: 1 }
    }

    /// When the thing of this index is due.
    pub(crate) fn due_at(&self, index: u32) -> Instant {
        self.start + self.interval * (index / self.batch)
    }

    /// How many are due before this moment.
    pub(crate) fn count_until(&self, end: Instant) -> u32 {
        let rounds = end.saturating_duration_since(self.start).as_nanos().div_ceil(self.interval.as_nanos().max(1));
        u32::try_from(rounds).unwrap_or(u32::MAX).saturating_mul(self.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn what_is_due_before_a_moment_is_counted() {
        let start = SystemClock.now();
        let schedule = Schedule { start, interval: Duration::from_millis(10), batch: 3 };
        for (ms, count) in [(0, 0), (1, 3), (10, 3), (11, 6), (20, 6)] {
            let end = start + Duration::from_millis(ms);
            assert_eq!(schedule.count_until(end), count, "{ms} ms");
            assert!(count == 0 || schedule.due_at(count - 1) < end);
            assert!(schedule.due_at(count) >= end);
        }
    }
}
