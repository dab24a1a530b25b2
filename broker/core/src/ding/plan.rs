//! A DING's plan: which step is due when.
//!
//! A step begins `after_ms` from the start and then `repeat_every_ms` after each time it began, until it has begun so often as it
//! may. What was missed while the broker was down begins once, at once. Steps that heed quiet hours wait until these are over.

use alloc::vec::Vec;
use carillon_protocol::ding_status::STEP_REMINDER;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::kinds::Outlet;

use crate::input::QuietWindow;
use crate::record::PlannedStep;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

impl QuietWindow {
    /// There are no quiet hours.
    pub const NONE: Self = Self { from_min: 0, to_min: 0 };

    /// The end of the quiet hours that this time lies in; the time itself if it lies in none.
    pub fn over_at(self, time: Timestamp) -> Timestamp {
        if self.from_min == self.to_min {
            return time;
        }
        let (from, to) = (u64::from(self.from_min) * MINUTE_MS, u64::from(self.to_min) * MINUTE_MS);
        // How long ago they began, by the day's clock.
        let since = (time.0 % DAY_MS + DAY_MS - from) % DAY_MS;
        let lasts = (to + DAY_MS - from) % DAY_MS;
        if since < lasts { Timestamp(time.0.saturating_add(lasts - since)) } else { time }
    }

    /// Whether both ends are minutes of a day.
    pub(crate) const fn is_of_a_day(self) -> bool {
        self.from_min < 1_440 && self.to_min < 1_440
    }
}

/// One step and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) planned: PlannedStep,
    /// How often it has begun. Follows from the attempts.
    pub(crate) begun: u16,
    /// When it began last. Follows from the attempts.
    pub(crate) begun_at: Timestamp,
    /// It begins no earlier; 0: nothing holds it up.
    pub(crate) not_before: Timestamp,
}

/// What is to be done about a step that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It begins.
    Begin(u8),
    /// It waits until quiet hours are over.
    Defer(u8, Timestamp),
}

/// The steps of one DING.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) quiet: QuietWindow,
}

impl Plan {
    pub(crate) fn new(steps: &[PlannedStep], quiet: QuietWindow) -> Self {
        let step = |&planned| Step { planned, begun: 0, begun_at: Timestamp(0), not_before: Timestamp(0) };
        Self { steps: steps.iter().map(step).collect(), quiet }
    }

    /// When a step is due next; `None` when it has begun as often as it may.
    fn due_of(&self, step: &Step, starts_at: Timestamp) -> Option<Timestamp> {
        if step.begun >= step.planned.times {
            return None;
        }
        let due = if step.begun == 0 {
            starts_at.0.saturating_add(u64::from(step.planned.after_ms))
        } else {
            step.begun_at.0.saturating_add(u64::from(step.planned.repeat_every_ms))
        };
        let due = if step.planned.heeds_quiet == 0 { Timestamp(due) } else { self.quiet.over_at(Timestamp(due)) };
        Some(due.max(step.not_before))
    }

    /// When the first of the steps is due; `None` when no more begins.
    pub(crate) fn next_at(&self, starts_at: Timestamp) -> Option<Timestamp> {
        self.steps.iter().filter_map(|step| self.due_of(step, starts_at)).min()
    }

    /// The step that has been due longest.
    pub(crate) fn due(&self, starts_at: Timestamp, now: Timestamp) -> Option<Due> {
        let dues =
            self.steps.iter().zip(0u8..).filter_map(|(step, nth)| Some((self.due_of(step, starts_at)?, nth, step)));
        let (_, nth, step) = dues.filter(|(due, ..)| *due <= now).min_by_key(|(due, nth, _)| (*due, *nth))?;
        let until = if step.planned.heeds_quiet == 0 { now } else { self.quiet.over_at(now) };
        Some(if until > now { Due::Defer(nth, until) } else { Due::Begin(nth) })
    }

    /// Whether an attempt is by a step that may begin once more, or a reminder by hand.
    pub(crate) fn admits(&self, step: u8, outlet: Outlet) -> bool {
        match self.steps.get(usize::from(step)) {
            Some(step) => step.planned.outlet == outlet && step.begun < step.planned.times,
            None => step == STEP_REMINDER,
        }
    }

    /// How often its steps may begin yet.
    pub(crate) fn times_left(&self) -> usize {
        self.steps.iter().map(|step| usize::from(step.planned.times - step.begun)).sum()
    }

    /// Notes that a step began. A reminder by hand is no step of the plan.
    pub(crate) fn begin(&mut self, step: u8, time: Timestamp) {
        if let Some(step) = self.steps.get_mut(usize::from(step)) {
            step.begun += 1;
            step.begun_at = time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 60 * MINUTE_MS;

    fn step(after_ms: u32, repeat_every_ms: u32, times: u16, heeds_quiet: u8) -> PlannedStep {
        PlannedStep { outlet: Outlet::APP, heeds_quiet, times, after_ms, repeat_every_ms }
    }

    #[test]
    fn quiet_hours_end_on_the_same_day_or_the_next() {
        let check = |from_min, to_min, hour: u64, over_at: u64| {
            let over = QuietWindow { from_min, to_min }.over_at(Timestamp(10 * DAY_MS + hour * HOUR_MS));
            assert_eq!(over, Timestamp(10 * DAY_MS + over_at * HOUR_MS), "{from_min} to {to_min} at {hour}");
        };
        // By night.
        for (hour, over) in [(21, 21), (22, 31), (23, 31), (0, 7), (6, 7), (7, 7)] {
            check(22 * 60, 7 * 60, hour, over);
        }
        // At noon.
        for (hour, over) in [(11, 11), (12, 14), (13, 14), (14, 14)] {
            check(12 * 60, 14 * 60, hour, over);
        }
        // Never.
        check(8 * 60, 8 * 60, 8, 8);
    }

    #[test]
    fn a_step_repeats_from_when_it_began_and_what_was_missed_begins_once() {
        let mut plan = Plan::new(&[step(0, 10, 3, 0), step(25, 0, 1, 0)], QuietWindow::NONE);
        let start = Timestamp(100);
        assert_eq!((plan.next_at(start), plan.due(start, Timestamp(99))), (Some(start), None));
        // The broker was down until 175: each step is due once, the one that waited longer first.
        for (now, due) in [(175, 0), (175, 1), (185, 0), (195, 0)] {
            let now = Timestamp(now);
            assert_eq!(plan.due(start, now), Some(Due::Begin(due)), "at {}", now.0);
            plan.begin(due, now);
        }
        assert_eq!((plan.next_at(start), plan.due(start, Timestamp(u64::MAX))), (None, None));
    }

    #[test]
    fn a_step_that_heeds_quiet_hours_waits_and_one_that_is_late_is_deferred() {
        let quiet = QuietWindow { from_min: 22 * 60, to_min: 7 * 60 };
        let mut plan = Plan::new(&[step(0, 0, 1, 0), step(0, 0, 1, 1)], quiet);
        let (late, morning) = (Timestamp(23 * HOUR_MS), Timestamp(31 * HOUR_MS));
        assert_eq!(plan.due(late, late), Some(Due::Begin(0)));
        plan.begin(0, late);
        assert_eq!((plan.due(late, late), plan.next_at(late)), (None, Some(morning)));
        assert_eq!(plan.due(late, morning), Some(Due::Begin(1)));

        // It was due before they began, and nobody was there to begin it.
        let mut plan = Plan::new(&[step(0, 0, 1, 1)], quiet);
        let evening = Timestamp(21 * HOUR_MS);
        assert_eq!(plan.due(evening, late), Some(Due::Defer(0, morning)));
        plan.steps[0].not_before = morning;
        assert_eq!((plan.due(evening, late), plan.next_at(evening)), (None, Some(morning)));
    }
}
