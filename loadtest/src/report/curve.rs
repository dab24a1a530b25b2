//! A whole distribution, for plots: more of it than the few percentiles that a line of text holds.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What is told of each distribution, in percent: denser where it is thin.
const PERCENTS: [f64; 22] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 92.5, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9,
    99.95, 99.99, 99.999,
];

/// Latencies of one measure by percentile.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Curve {
    /// What was measured.
    pub measure: String,
    /// How many times.
    pub count: u64,
    /// Percent, and the milliseconds that so many took at most; rising in both.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// From a histogram of microseconds. Percentiles that so few values cannot tell apart from the largest are left out.
    pub(crate) fn of(measure: &str, histogram: &Histogram<u64>) -> Self {
        let count = histogram.len();
        let is_told = |percent: &f64| (100.0 - percent) / 100.0 * count as f64 >= 1.0 || *percent <= 50.0;
        let at = |percent: f64| (percent, histogram.value_at_quantile(percent / 100.0) as f64 / 1e3);
        let told = PERCENTS.into_iter().filter(|_| count > 0).filter(is_told).map(at);
        let longest = (count > 0).then(|| (100.0 - 100.0 / count as f64, histogram.max() as f64 / 1e3));
        let mut points: Vec<_> = told.collect();
        points.extend(longest.filter(|(percent, _)| points.last().is_none_or(|(last, _)| percent > last)));
        Self { measure: measure.to_owned(), count, points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::histogram;

    fn check(count: u64, last_percent: f64, last_ms: f64) {
        let mut histogram = histogram();
        for us in 1..=count {
            histogram.saturating_record(us * 1_000);
        }
        let curve = Curve::of("a measure", &histogram);
        let (percent, ms) = *curve.points.last().expect("points");
        assert!((percent - last_percent).abs() < 1e-6 && (ms - last_ms).abs() < last_ms / 500.0, "{curve:?}");
        assert!(curve.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{curve:?}");
    }

    #[test]
    fn as_much_is_told_as_the_values_can_tell() {
        check(2, 50.0, 1.0);
        check(50, 98.0, 50.0);
        check(100_000, 99.999, 100_000.0);
        assert!(Curve::of("nothing", &histogram()).points.is_empty());
    }
}
