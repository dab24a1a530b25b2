//! Second by second: what was offered, what was achieved, what that cost.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::limits::POINT_EVERY;
use crate::process::Usage;

/// What happened since the point before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Its end, in seconds from the beginning of the measuring.
    pub at_s: f64,
    /// What was due, a second.
    pub offered_per_s: f64,
    /// What has happened, a second.
    pub achieved_per_s: f64,
    /// Half of what has happened took no longer, from when it was due; 0 if nothing has.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// Cores that the broker used, if its process id was given.
    pub broker_cores: Option<f64>,
    /// Its resident memory at the end, in MiB.
    pub broker_resident_mib: Option<f64>,
    /// Cores that the load generator used.
    pub own_cores: f64,
    /// What the scenario did beside what is measured, a second: see [`Timeline::strain_of`](super::Timeline::strain_of).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strain_per_s: Option<f64>,
}

/// One look at what has been so far.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    offered: u64,
    strain: Option<u64>,
    broker: Option<Usage>,
    own: Option<Usage>,
}

/// Makes the points, from what is counted anyway: it costs nothing but a look a second.
pub(crate) struct Recorder {
    broker_pid: Option<u32>,
    begin: Instant,
    last: Look,
    /// What had been recorded at the last look.
    seen: Histogram<u64>,
    /// What was done so far beside what is measured.
    strain: Option<u64>,
    points: Vec<Point>,
}

impl Recorder {
    /// From now on, with the latencies of whatever was recorded before left out.
    pub(crate) fn new(now: Instant, broker_pid: Option<u32>, seen: &Histogram<u64>) -> Self {
        let last = look(now, (0, None), broker_pid);
        Self { broker_pid, begin: now, last, seen: seen.clone(), strain: None, points: Vec::new() }
    }

    /// Makes a point if it is time. `offered` is what was due from the beginning to now; `seen` all latencies so far.
    pub(crate) fn tick(&mut self, now: Instant, offered: impl FnOnce() -> u64, seen: &Histogram<u64>) -> Option<Point> {
        let is_due = now.saturating_duration_since(self.last.at) >= POINT_EVERY;
        is_due.then(|| self.add(now, offered(), seen))
    }

    /// So much was done so far beside what is measured. What was done before it is told for the first time counts nowhere.
    pub(crate) fn strained(&mut self, done: u64) {
        self.last.strain.get_or_insert(done);
        self.strain = Some(done);
    }

    /// The same while nothing is offered and nothing is recorded: memory and CPU are looked at all the same.
    pub(crate) fn tick_idle(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last.at) >= POINT_EVERY {
            let (offered, seen) = (self.last.offered, self.seen.clone());
            self.add(now, offered, &seen);
        }
    }

    /// As [`Self::finish`], with nothing more than was looked at.
    pub(crate) fn finish_idle(self, now: Instant) -> Vec<Point> {
        let (offered, seen) = (self.last.offered, self.seen.clone());
        self.finish(now, offered, &seen)
    }

    /// The points, with what has happened since the last one.
    pub(crate) fn finish(mut self, now: Instant, offered: u64, seen: &Histogram<u64>) -> Vec<Point> {
        // What is left over is little and would look like a collapse, unless it is all there is.
        if self.points.is_empty() || now.saturating_duration_since(self.last.at) >= POINT_EVERY / 2 {
            self.add(now, offered, seen);
        }
        self.points
    }

    fn add(&mut self, now: Instant, offered: u64, seen: &Histogram<u64>) -> Point {
        let mut since = seen.clone();
        since.subtract(&self.seen).expect("what was recorded stays recorded");
        let next = look(now, (offered, self.strain), self.broker_pid);
        let took_s = now.saturating_duration_since(self.last.at).max(Duration::from_micros(1)).as_secs_f64();
        let cores = |before: Option<Usage>, after: Option<Usage>| {
            before.zip(after).map(|(before, after)| (after.cpu_s() - before.cpu_s()) / took_s)
        };
        let at = |quantile| since.value_at_quantile(quantile) as f64 / 1e3;
        let point = Point {
            at_s: now.saturating_duration_since(self.begin).as_secs_f64(),
            offered_per_s: offered.saturating_sub(self.last.offered) as f64 / took_s,
            achieved_per_s: since.len() as f64 / took_s,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            broker_cores: cores(self.last.broker, next.broker),
            broker_resident_mib: next.broker.map(|usage| usage.resident_kib as f64 / 1024.0),
            own_cores: cores(self.last.own, next.own).unwrap_or_default(),
            strain_per_s: next.strain.map(|done| done.saturating_sub(self.last.strain.unwrap_or(done)) as f64 / took_s),
        };
        self.last = next;
        self.seen.clone_from(seen);
        self.points.push(point);
        point
    }
}

/// A broker that has died has no cost to tell; what is missing tells of it.
fn look(at: Instant, (offered, strain): (u64, Option<u64>), broker_pid: Option<u32>) -> Look {
    let broker = broker_pid.and_then(|pid| Usage::of(Some(pid)).ok());
    Look { at, offered, strain, broker, own: Usage::of(None).ok() }
}

impl Point {
    /// A line of progress.
    pub(crate) fn sentence(&self) -> String {
        let Self { at_s, offered_per_s, achieved_per_s, p50_ms, p99_ms, .. } = self;
        let broker = self.broker_cores.zip(self.broker_resident_mib);
        let broker = broker.map_or_else(String::new, |(cores, mib)| {
            format!("; broker {:.0} % of a core, {mib:.0} MiB", cores * 100.0)
        });
        format!(
            "{at_s:.0} s, {offered_per_s:.0} a second offered, {achieved_per_s:.0} achieved, p50 {p50_ms:.1} p99 {p99_ms:.1} ms{broker}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::latency::histogram;

    #[test]
    fn a_point_has_what_came_since_the_one_before() {
        let begin = SystemClock.now();
        let mut all = histogram();
        all.record(9_000_000).unwrap();
        let mut recorder = Recorder::new(begin, Some(std::process::id()), &all);
        let at = |second: u64| begin + Duration::from_secs(second);
        assert!(recorder.tick(begin, || 0, &all).is_none(), "it is not time");
        all.record_n(1_000, 50).unwrap();
        let first = recorder.tick(at(1), || 80, &all).expect("a point");
        all.record_n(4_000, 30).unwrap();
        let points = recorder.finish(at(3), 80, &all);
        assert_eq!(points.len(), 2);
        let rates = |point: &Point| (point.at_s, point.offered_per_s, point.achieved_per_s);
        assert_eq!((rates(&first), rates(&points[1])), ((1.0, 80.0, 50.0), (3.0, 0.0, 15.0)));
        assert!((first.p99_ms - 1.0).abs() < 0.01 && (points[1].p50_ms - 4.0).abs() < 0.01, "{points:?}");
        assert!(points.iter().all(|point| point.broker_resident_mib.is_some_and(|mib| mib > 0.0)));
    }
}
