//! How many handshakes begin with clients that have not proved their address: so many a second, and a few at once.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A) in its virtual scheduling form: one number, and nothing that ticks.

use std::time::Instant;

use crate::limits::{UNPROVED_AT_ONCE_MAX, UNPROVED_EVERY};

/// See the module.
#[derive(Debug)]
pub(crate) struct Unproved {
    /// When the next one would be due if they came evenly; in the past if they have not come as fast.
    due: Instant,
}

impl Unproved {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { due: now }
    }

    /// Whether one more may begin.
    pub(crate) fn may_begin(&self, now: Instant) -> bool {
        self.due.saturating_duration_since(now) <= UNPROVED_EVERY * (UNPROVED_AT_ONCE_MAX - 1)
    }

    /// One has begun.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.due = self.due.max(now) + UNPROVED_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn some_time() -> Instant {
        Instant::now()
    }

    fn begun_at(unproved: &mut Unproved, now: Instant) -> u32 {
        let mut begun = 0;
        while unproved.may_begin(now) {
            unproved.begin(now);
            begun += 1;
        }
        begun
    }

    #[test]
    fn a_few_begin_at_once_and_one_each_time_after_that() {
        let start = some_time();
        let mut unproved = Unproved::new(start);
        assert_eq!(begun_at(&mut unproved, start), UNPROVED_AT_ONCE_MAX);
        assert_eq!(begun_at(&mut unproved, start + UNPROVED_EVERY / 2), 0);
        assert_eq!(begun_at(&mut unproved, start + UNPROVED_EVERY), 1);
        assert_eq!(begun_at(&mut unproved, start + UNPROVED_EVERY * 4), 3);
    }

    #[test]
    fn a_pause_gives_room_for_a_few_and_no_more() {
        let start = some_time();
        let mut unproved = Unproved::new(start);
        begun_at(&mut unproved, start);
        assert_eq!(begun_at(&mut unproved, start + Duration::from_secs(60)), UNPROVED_AT_ONCE_MAX);
    }

    #[test]
    fn who_comes_more_slowly_is_never_asked() {
        let mut now = some_time();
        let mut unproved = Unproved::new(now);
        for _ in 0..1_000 {
            assert!(unproved.may_begin(now));
            unproved.begin(now);
            now += UNPROVED_EVERY;
        }
    }
}
