//! How many calls a second: the generic cell rate algorithm (ITU-T I.371), a bucket of tokens in one number.

use std::time::{Duration, Instant};

/// A rate with a little room for bursts, a tenth of a second's calls.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    interval: Duration,
    tolerance: Duration,
    /// When the next call would be due if all came evenly.
    due: Option<Instant>,
}

impl Pace {
    /// At least 1 a second.
    pub(super) fn new(calls_a_second: u32) -> Self {
        let burst = (calls_a_second / 10).max(1);
        let interval = Duration::from_secs(1) / calls_a_second.max(1);
        Self { interval, tolerance: interval * (burst - 1), due: None }
    }

    /// From when on the next call may leave.
    pub(super) fn from(&self, now: Instant) -> Instant {
        self.due.and_then(|due| due.checked_sub(self.tolerance)).map_or(now, |from| from.max(now))
    }

    /// A call leaves.
    pub(super) fn spend(&mut self, now: Instant) {
        self.due = Some(self.due.map_or(now, |due| due.max(now)) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many leave within a second of one that never has nothing to do, and how many at once at its begin.
    fn check(calls_a_second: u32, at_once: u32) {
        let start = carillon_transport::Clock::now(&crate::clock::SystemClock);
        let mut pace = Pace::new(calls_a_second);
        let (mut now, mut left, mut left_at_once) = (start, 0, 0);
        while now < start + Duration::from_secs(1) {
            pace.spend(now);
            left += 1;
            left_at_once += u32::from(now == start);
            now = pace.from(now);
        }
        assert_eq!(left_at_once, at_once);
        assert!((calls_a_second..=calls_a_second + at_once).contains(&left), "{left} of {calls_a_second} a second");
        // A long silence saves nothing up.
        let later = now + Duration::from_secs(3_600);
        (0..at_once).for_each(|_| pace.spend(later));
        assert!(pace.from(later) > later);
    }

    #[test]
    fn no_more_leave_than_the_rate_and_its_small_burst() {
        check(1, 1);
        check(7, 1);
        check(10, 1);
        check(50, 5);
        check(1_000, 100);
    }
}
