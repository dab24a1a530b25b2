//! The shard's time: the wall's, but steady.

use std::sync::Arc;
use std::time::Instant;

use carillon_protocol::ids::Timestamp;

use crate::clock::Clock;

/// Wall-clock time that neither stands still nor goes back when the wall clock is set back: it then goes on by the monotonic clock from
/// where it was, so that a step of a DING is no later for it. It is ahead of the wall's until that has caught up, or the broker
/// starts anew.
pub(super) struct SteadyTime {
    clock: Arc<dyn Clock>,
    last: Timestamp,
    read_at: Instant,
}

impl SteadyTime {
    /// Not before the time of the last record.
    pub(super) fn new(clock: Arc<dyn Clock>, last: Timestamp) -> Self {
        let read_at = clock.now();
        Self { last: clock.wall().max(last), read_at, clock }
    }

    pub(super) fn now(&mut self) -> Timestamp {
        let now = self.clock.now();
        let passed = now.saturating_duration_since(self.read_at).as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        let steady = Timestamp(self.last.0.saturating_add(passed));
        let wall = self.clock.wall();
        // Milliseconds are cut off, so that the steady time would fall behind if it were read anew each time.
        if wall >= steady {
            (self.last, self.read_at) = (wall, now);
            return wall;
        }
        steady
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    struct Clocks {
        start: Instant,
        passed_ms: AtomicU64,
        wall: AtomicU64,
    }

    impl carillon_transport::Clock for Clocks {
        fn now(&self) -> Instant {
            self.start + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
        }
    }

    impl Clock for Clocks {
        fn wall(&self) -> Timestamp {
            Timestamp(self.wall.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn time_goes_on_when_the_wall_clock_is_set_back() {
        let start = carillon_transport::Clock::now(&crate::clock::SystemClock);
        let clocks = Arc::new(Clocks { start, passed_ms: AtomicU64::new(0), wall: AtomicU64::new(10_000) });
        let mut time = SteadyTime::new(clocks.clone(), Timestamp(10_000));
        let mut check = |passed: u64, wall: u64, expected: u64| {
            clocks.passed_ms.store(passed, Ordering::Relaxed);
            clocks.wall.store(wall, Ordering::Relaxed);
            assert_eq!(time.now(), Timestamp(expected), "after {passed} ms at {wall}");
        };
        check(5, 10_005, 10_005);
        check(10, 2_000, 10_010);
        check(60_010, 62_000, 70_010);
        check(60_011, 2_000_000, 2_000_000);
        check(60_012, 62_002, 2_000_001);
    }

    #[test]
    fn time_begins_where_the_journal_ends() {
        let mut time = SteadyTime::new(Arc::new(crate::clock::SystemClock), Timestamp(u64::MAX / 2));
        assert!(time.now() >= Timestamp(u64::MAX / 2));
    }
}
