//! Sessions that are to be told what has moved, and when the shard is asked for each.
//!
//! A question may cost as much as a hundred publishes, and one flood of marks, or a restart, makes all sessions ask. So a session is
//! asked for once an interval, so many are in one, and so many answers are owed at a time; the rest waits, and nothing is lost by it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use carillon_transport::LinkKey;

use super::limits::{RECEIPTS_ASKED_AN_INTERVAL_MAX, RECEIPTS_UNDER_WAY_MAX};

/// Each session stands here once at most.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// May be asked for now.
    waiting: VecDeque<LinkKey>,
    /// Were asked for in this interval.
    later: Vec<LinkKey>,
    /// Counts the intervals, from 1.
    interval: u64,
    /// When the next one begins; none has before the first session came.
    until: Option<Instant>,
    asked: usize,
    /// Answers that are owed, to questions about counts too.
    pub(super) under_way: usize,
}

impl Behind {
    /// A session that was asked for last in this interval, 0 if it never was.
    pub(super) fn list(&mut self, key: LinkKey, asked_in: u64) {
        if asked_in == self.interval && asked_in > 0 {
            self.later.push(key);
        } else {
            self.waiting.push_back(key);
        }
    }

    /// Who is to be asked for now, and in which interval that is. One who is not asked for after all has used up a turn.
    pub(super) fn next(&mut self, now: Instant, every: Duration) -> Option<(LinkKey, u64)> {
        if self.waiting.is_empty() && self.later.is_empty() || self.under_way >= RECEIPTS_UNDER_WAY_MAX {
            return None;
        }
        if self.until.is_none_or(|until| until <= now) {
            self.interval += 1;
            self.asked = 0;
            self.until = Some(now + every);
            self.waiting.extend(self.later.drain(..));
        }
        if self.asked >= RECEIPTS_ASKED_AN_INTERVAL_MAX {
            return None;
        }
        let key = self.waiting.pop_front()?;
        self.asked += 1;
        Some((key, self.interval))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.later.len()
    }

    /// Whether some wait for room alone.
    pub(super) fn is_due(&self) -> bool {
        let has_turn = self.asked < RECEIPTS_ASKED_AN_INTERVAL_MAX && self.under_way < RECEIPTS_UNDER_WAY_MAX;
        !self.waiting.is_empty() && has_turn
    }

    /// When those who wait for the next interval have their turn.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.until.filter(|_| self.len() > 0 && !self.is_due() && self.under_way < RECEIPTS_UNDER_WAY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use carillon_transport::Clock;

    const EVERY: Duration = Duration::from_millis(200);

    fn key(index: u32) -> LinkKey {
        LinkKey { index, generation: 1 }
    }

    fn asked(behind: &mut Behind, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| behind.next(now, EVERY)).map(|(key, _)| key.index).collect()
    }

    #[test]
    fn a_session_is_asked_for_once_an_interval_and_others_at_once() {
        let (mut behind, begun) = (Behind::default(), SystemClock.now());
        behind.list(key(1), 0);
        let (_, interval) = behind.next(begun, EVERY).expect("it is the first");
        behind.list(key(1), interval);
        behind.list(key(2), 0);
        assert!(behind.is_due());
        assert_eq!(asked(&mut behind, begun + EVERY / 2), [2]);
        assert_eq!((behind.len(), behind.is_due(), behind.due_at()), (1, false, Some(begun + EVERY)));
        assert_eq!(asked(&mut behind, begun + EVERY), [1]);
        assert_eq!((behind.len(), behind.due_at()), (0, None));
        // Who comes back after its interval is over waits for nothing.
        behind.list(key(1), interval + 1);
        assert_eq!(asked(&mut behind, begun + EVERY * 3), [1]);
    }

    #[test]
    fn so_many_are_asked_for_in_an_interval_and_under_way() {
        let (mut behind, begun) = (Behind::default(), SystemClock.now());
        let max = RECEIPTS_ASKED_AN_INTERVAL_MAX;
        (0..).take(max + 2).for_each(|index| behind.list(key(index), 0));
        assert_eq!(asked(&mut behind, begun).len(), max);
        assert_eq!((behind.is_due(), behind.due_at()), (false, Some(begun + EVERY)));
        behind.under_way = RECEIPTS_UNDER_WAY_MAX;
        assert!(behind.next(begun + EVERY, EVERY).is_none() && behind.due_at().is_none(), "an answer will wake it");
        behind.under_way -= 1;
        assert_eq!(asked(&mut behind, begun + EVERY).len(), 2);
    }
}
