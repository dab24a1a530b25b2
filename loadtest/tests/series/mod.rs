//! What holds of the time series of every run with a probe.

use carillon_loadtest::phases::Row;
use carillon_loadtest::report::{Point, Timeline};

/// The series is of this measure: what its phases have seen lies in it, and it has the cost of the broker.
pub(crate) fn check(timeline: &Timeline, rows: &[Row], measure: &str) {
    let Timeline { series, series_of, spans, .. } = timeline;
    assert_eq!(series_of.as_deref(), Some(measure));
    let rows = || rows.iter().filter(|row| row.measure == measure);
    let phases: Vec<_> = rows().map(|row| row.phase).collect();
    let names: Vec<_> = spans.iter().map(|span| span.phase.as_str()).collect();
    assert_eq!(names, phases);
    assert!(spans.windows(2).all(|pair| pair[0].to_s <= pair[1].from_s), "{spans:?}");
    let (offered, seen) = (sum(series, |point| point.offered_per_s), sum(series, |point| point.achieved_per_s));
    assert!(offered > 0.0 && seen > 0.0 && seen <= offered + 0.5, "{offered} {seen} {series:?}");
    let all: u32 = rows().map(|row| row.figures.offered).sum();
    let end_s = spans.last().expect("phases").to_s;
    let told_s = series.last().expect("points").at_s;
    // A phase that begins with nothing told of it has what came before it in no point.
    let rate = rows().map(|row| row.figures.offered_per_s).fold(0.0, f64::max);
    let left = rate * (end_s - told_s).max(0.0) + 5.0;
    assert!(offered + left >= f64::from(all), "{offered} of {all}, {left} may be left: {series:?}");
    assert!(series.iter().all(|point| point.broker_resident_mib.is_some_and(|mib| mib > 0.0)), "{series:?}");
    assert!(series.iter().filter(|point| point.achieved_per_s > 0.0).all(|point| point.p99_ms > 0.0), "{series:?}");
}

/// How much the strain came to in all.
pub(crate) fn strain(timeline: &Timeline) -> f64 {
    assert!(timeline.strain_of.is_some());
    sum(&timeline.series, |point| point.strain_per_s.expect("it is told second by second"))
}

fn sum(series: &[Point], of: impl Fn(&Point) -> f64) -> f64 {
    let begins = std::iter::once(0.0).chain(series.iter().map(|point| point.at_s));
    series.iter().zip(begins).map(|(point, from_s)| of(point) * (point.at_s - from_s)).sum()
}
