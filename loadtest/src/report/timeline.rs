//! A time series with what it is of and the phases that it went through.
//!
//! Of a scenario in which a probe measures beside a strain, the series is of what the probe sends: the cost of both sides and the strain are
//! looked at while it runs, and what became of the probe's things is filled in when that is known.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Point;
use crate::latency::histogram;
use crate::samples::{Between, Samples};

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Second by second; may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Point>,
    /// What is offered and achieved in it, and how long that takes, where the scenario has several such things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series_of: Option<String>,
    /// What [`Point::strain_per_s`] counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strain_of: Option<String>,
    /// The phases, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Span>,
}

/// A phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Which.
    pub phase: String,
    /// Its beginning, in seconds from that of the series.
    pub from_s: f64,
    /// Its end.
    pub to_s: f64,
}

/// What a probe measured, of one measure.
pub(crate) struct Measure<'a> {
    pub(crate) name: &'static str,
    /// How many things it sent.
    pub(crate) count: u32,
    pub(crate) samples: &'a Samples,
}

impl Timeline {
    /// From points that were made from `begin` on, and what a probe measured meanwhile: what came in a second counts in it, whenever it
    /// was due.
    pub(crate) fn of_probe(begin: Instant, mut series: Vec<Point>, measure: &Measure<'_>) -> Self {
        let ends = series.iter().map(|point| begin + Duration::from_secs_f64(point.at_s));
        let moments: Vec<_> = std::iter::once(begin).chain(ends).collect();
        let (mut latency, mut from_s) = (histogram(), 0.0);
        for (point, Between { offered, seen_us }) in
            series.iter_mut().zip(measure.samples.between(measure.count, &moments))
        {
            let took_s = (point.at_s - from_s).max(1e-6);
            from_s = point.at_s;
            latency.reset();
            for us in &seen_us {
                latency.saturating_record((*us).into());
            }
            let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
            (point.p50_ms, point.p99_ms) = (at(0.5), at(0.99));
            point.offered_per_s = f64::from(offered) / took_s;
            point.achieved_per_s = seen_us.len() as f64 / took_s;
        }
        Self { series, series_of: Some(measure.name.to_owned()), ..Self::default() }
    }

    /// The same with the phases, which lie between moments from `begin` on.
    pub(crate) fn with_spans(
        mut self,
        begin: Instant,
        spans: impl Iterator<Item = (&'static str, Instant, Instant)>,
    ) -> Self {
        let at_s = |at: Instant| at.saturating_duration_since(begin).as_secs_f64();
        let span =
            |(phase, from, to): (&str, _, _)| Span { phase: phase.to_owned(), from_s: at_s(from), to_s: at_s(to) };
        self.spans = spans.map(span).collect();
        self
    }

    /// The same with what [`Point::strain_per_s`] counts, if it counts anything.
    pub(crate) fn with_strain(mut self, of: Option<&str>) -> Self {
        self.strain_of = of.map(str::to_owned);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::report::Recorder;
    use crate::schedule::Schedule;

    #[test]
    fn a_second_has_what_the_probe_saw_in_it_and_what_strained_the_broker() {
        let begin = SystemClock.now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut samples = Samples::new(Schedule { start: begin, interval: Duration::from_millis(100), batch: 1 });
        let mut recorder = Recorder::new(begin, None, &histogram());
        for index in 0..15 {
            samples.record(index, at(u64::from(index) * 100 + 10));
        }
        // Due in the second second, and come in the third.
        samples.record(19, at(2_400));
        // What was done before is none of it.
        recorder.strained(50);
        recorder.strained(150);
        recorder.tick_idle(at(1_000));
        recorder.tick_idle(at(2_000));
        recorder.strained(450);
        let series = recorder.finish_idle(at(4_000));
        let measure = Measure { name: "a measure", count: 20, samples: &samples };
        let timeline = Timeline::of_probe(begin, series, &measure)
            .with_spans(begin, [("one", begin, at(1_500)), ("two", at(1_500), at(4_000))].into_iter());
        let rates = |point: &Point| (point.at_s, point.offered_per_s, point.achieved_per_s, point.strain_per_s);
        let found: Vec<_> = timeline.series.iter().map(rates).collect();
        let expected = [(1.0, 10.0, 10.0, Some(100.0)), (2.0, 10.0, 5.0, Some(0.0)), (4.0, 0.0, 0.5, Some(150.0))];
        assert_eq!(found, expected);
        let [first, _, last] = timeline.series.as_slice() else { panic!("{timeline:?}") };
        assert!((first.p99_ms - 10.0).abs() < 0.1 && (last.p50_ms - 500.0).abs() < 1.0, "{timeline:?}");
        assert_eq!(timeline.spans[1], Span { phase: "two".into(), from_s: 1.5, to_s: 4.0 });
    }
}
