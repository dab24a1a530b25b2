//! How fast a snapshot is taken.

use std::time::{Duration, Instant};

/// Spreads work over time, so that it moves so many bytes a second at most.
///
/// What was too slow is not made up for: after a wait for a core or a disk the rate is as before, not above.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_a_second: u64,
    /// When the work that was done would have ended, at the rate.
    due: Instant,
    hurried: bool,
}

impl Pace {
    /// Of work that begins now; a rate of 0 is taken for 1.
    pub(super) fn new(bytes_a_second: u64, now: Instant) -> Self {
        Self { bytes_a_second: bytes_a_second.max(1), due: now, hurried: false }
    }

    /// The rate does not count any more; says whether it has until now.
    pub(super) fn hurry(&mut self) -> bool {
        !std::mem::replace(&mut self.hurried, true)
    }

    /// How long to rest after work on so many bytes.
    pub(super) fn rest_after(&mut self, bytes: u64, now: Instant) -> Duration {
        self.due += Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64);
        let rest = self.due.saturating_duration_since(now);
        self.due = self.due.max(now);
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use carillon_transport::Clock as _;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_work_itself_is_part_of_the_time_that_it_may_take() {
        let begun = SystemClock.now();
        let mut pace = Pace::new(1_000, begun);
        assert_eq!(pace.rest_after(100, begun + 60 * MS), 40 * MS);
        assert_eq!(pace.rest_after(50, begun + 100 * MS), 50 * MS);
        assert_eq!(pace.rest_after(0, begun + 150 * MS), Duration::ZERO);
    }

    #[test]
    fn work_that_was_too_slow_is_not_made_up_for() {
        let begun = SystemClock.now();
        let mut pace = Pace::new(1_000, begun);
        assert_eq!(pace.rest_after(100, begun + 1_000 * MS), Duration::ZERO);
        assert_eq!(pace.rest_after(100, begun + 1_000 * MS), 100 * MS);
    }
}
