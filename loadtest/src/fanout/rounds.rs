//! How fast a round goes through: what is reached while nobody waits for more, however slow the schedule is.

use std::time::{Duration, Instant};

use crate::schedule::Schedule;

/// What is known of each round.
#[derive(Clone, Copy, Debug)]
struct Round {
    delivered: u64,
    last: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rounds {
    schedule: Schedule,
    sessions: u32,
    /// By number.
    rounds: Vec<Round>,
}

impl Rounds {
    pub(super) fn new(schedule: Schedule, rounds: u32, sessions: u32) -> Self {
        let round = Round { delivered: 0, last: schedule.start };
        Self { schedule, sessions, rounds: vec![round; rounds as usize] }
    }

    /// A session got the message of this index.
    pub(super) fn take(&mut self, index: u32, now: Instant) {
        let round = &mut self.rounds[(index / self.schedule.batch) as usize];
        round.delivered += 1;
        round.last = now;
    }

    /// Deliveries a second, from when a round is due to its last delivery: of the rounds that are complete, the one in the middle.
    /// 0 if none is.
    pub(super) fn median_per_s(&self) -> f64 {
        let all = u64::from(self.sessions) * u64::from(self.schedule.batch);
        let mut rates: Vec<_> = (0..)
            .zip(&self.rounds)
            .filter(|(_, round)| round.delivered == all)
            .map(|(number, round): (u32, _)| {
                let due = self.schedule.due_at(number * self.schedule.batch);
                let took = round.last.saturating_duration_since(due).max(Duration::from_micros(1));
                all as f64 / took.as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn the_round_in_the_middle_counts_and_an_incomplete_one_does_not() {
        let start = SystemClock.now();
        let schedule = Schedule { start, interval: Duration::from_secs(1), batch: 2 };
        let mut rounds = Rounds::new(schedule, 4, 1);
        assert_eq!(rounds.median_per_s(), 0.0);
        // Two deliveries each, after so many milliseconds; the last round lacks one.
        for (round, ms) in [(0, 100), (1, 20), (2, 10)] {
            for index in [2 * round, 2 * round + 1] {
                rounds.take(index, schedule.due_at(index) + Duration::from_millis(ms));
            }
        }
        rounds.take(6, schedule.due_at(6));
        assert!((rounds.median_per_s() - 100.0).abs() < 1e-6, "{}", rounds.median_per_s());
    }
}
