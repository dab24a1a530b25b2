//! What became of each thing that was due, kept until the run knows which of its phases it belongs to.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::latency::{Latency, histogram};
use crate::schedule::Schedule;

/// Stands for "not yet".
const NONE: u32 = u32::MAX;

/// See the module: 4 bytes a thing.
#[derive(Debug)]
pub(crate) struct Samples {
    schedule: Schedule,
    /// By index: the time from when it was due, in microseconds.
    us: Vec<u32>,
    seen: u32,
}

impl Samples {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, us: Vec::new(), seen: 0 }
    }

    /// It has happened to the thing of this index; answers whether for the first time.
    pub(crate) fn record(&mut self, index: u32, now: Instant) -> bool {
        let place = index as usize;
        if self.us.len() <= place {
            self.us.resize(place + 1, NONE);
        }
        let is_first = self.us[place] == NONE;
        if is_first {
            let latency = now.saturating_duration_since(self.schedule.due_at(index)).as_micros();
            self.us[place] = u32::try_from(latency).unwrap_or(NONE - 1).min(NONE - 1);
            self.seen += 1;
        }
        is_first
    }

    /// To how many it has happened.
    pub(crate) fn seen(&self) -> u32 {
        self.seen
    }

    /// The times of all to which it has happened, in microseconds.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        let mut all = histogram();
        for us in self.us.iter().filter(|us| **us != NONE) {
            all.saturating_record(u64::from(*us));
        }
        all
    }

    /// What was due, and what happened, from each of these moments to the next, of the first `count`. The moments rise.
    pub(crate) fn between(&self, count: u32, moments: &[Instant]) -> Vec<Between> {
        let mut all = vec![Between::default(); moments.len().saturating_sub(1)];
        let place = |at: Instant| moments.partition_point(|moment| *moment <= at).checked_sub(1);
        for index in 0..count {
            let due = self.schedule.due_at(index);
            if let Some(window) = place(due).and_then(|place| all.get_mut(place)) {
                window.offered += 1;
            }
            let Some(us) = self.us.get(index as usize).filter(|us| **us != NONE) else { continue };
            if let Some(window) = place(due + Duration::from_micros((*us).into())).and_then(|place| all.get_mut(place))
            {
                window.seen_us.push(*us);
            }
        }
        all
    }

    /// What became of those of the first `count` that belong to a phase. `took_s` is how long the phase took.
    pub(crate) fn figures(&self, count: u32, took_s: f64, belongs: impl Fn(u32, Instant) -> bool) -> Figures {
        let mut latency = histogram();
        let (mut offered, mut seen) = (0, 0);
        for index in (0..count).filter(|index| belongs(*index, self.schedule.due_at(*index))) {
            offered += 1;
            if let Some(us) = self.us.get(index as usize).filter(|us| **us != NONE) {
                seen += 1;
                latency.saturating_record(u64::from(*us));
            }
        }
        let a_second = |count: u32| if took_s > 0.0 { f64::from(count) / took_s } else { 0.0 };
        Figures {
            offered,
            seen,
            offered_per_s: a_second(offered),
            achieved_per_s: a_second(seen),
            latency: Latency::of(&latency),
        }
    }
}

/// What lies between two moments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Between {
    /// How many were due.
    pub(crate) offered: u32,
    /// Of all to which it happened meanwhile, whenever they were due: the time from then, in microseconds.
    pub(crate) seen_us: Vec<u32>,
}

/// What became of what was due in a phase.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    /// How many were due.
    pub offered: u32,
    /// To how many of them it has happened, by the end of the run.
    pub seen: u32,
    /// How many were due a second.
    pub offered_per_s: f64,
    /// Those to which it has happened, divided by the phase's seconds.
    pub achieved_per_s: f64,
    /// How long it took from when they were due.
    pub latency: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_phase_has_what_was_due_in_it_whenever_it_came() {
        let start = SystemClock.now();
        let schedule = Schedule { start, interval: Duration::from_millis(10), batch: 1 };
        let mut samples = Samples::new(schedule);
        assert!(samples.record(4, start + Duration::from_millis(45)));
        assert!(samples.record(5, start + Duration::from_secs(2)));
        assert!(!samples.record(5, start + Duration::from_secs(3)), "only the first time counts");
        let end = start + Duration::from_millis(55);
        let early = samples.figures(20, 0.055, |_, due| due < end);
        assert_eq!((early.offered, early.seen, samples.seen()), (6, 2, 2));
        assert!((early.latency.max_ms - 1950.0).abs() < 5.0, "{early:?}");
        let late = samples.figures(20, 1.0, |_, due| due >= end);
        assert_eq!((late.offered, late.seen), (14, 0));
    }

    #[test]
    fn what_happened_between_two_moments_need_not_have_been_due_there() {
        let start = SystemClock.now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut samples = Samples::new(Schedule { start, interval: Duration::from_millis(10), batch: 1 });
        samples.record(0, at(5));
        samples.record(1, at(120));
        samples.record(2, at(900));
        let found = samples.between(15, &[at(0), at(100), at(200)]);
        let found: Vec<_> = found.iter().map(|window| (window.offered, window.seen_us.as_slice())).collect();
        assert_eq!(found, [(10, [5_000].as_slice()), (5, [110_000].as_slice())]);
        assert!(samples.between(15, &[at(0)]).is_empty() && samples.between(15, &[]).is_empty());
    }
}
