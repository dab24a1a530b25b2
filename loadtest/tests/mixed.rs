//! A short day at an office with a broker in this process: whatever drops meanwhile, everybody gets everything once.

mod basis;
mod broker;

use std::time::Duration;

use basis::basis;
use broker::Broker;
use carillon_loadtest::mixed::{self, Plan};
use carillon_loadtest::report::{Comparison, Document, Findings, Head};
use carillon_loadtest::summary::Summary;

#[test]
fn everybody_gets_everything_once_although_connections_drop() {
    let broker = Broker::start();
    let began = Duration::from_secs(1_700_000_000);
    // The last one has nobody to write to but the group.
    let plan = Plan {
        basis: basis(),
        users: 21,
        group_size: 4,
        rate: 250,
        direct_percent: 40,
        ding_rate: 20,
        reconnect_rate: 10,
        payload_bytes: 64,
        measured: Duration::from_secs(2),
    };
    let documents = [0, 1].map(|_| {
        let summary = mixed::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
        assert!(summary.is_complete(), "{summary}");
        let value = |path| summary.value(path);
        assert_eq!((value("messages"), value("dings"), value("reconnects")), (Some(500.0), Some(40.0), Some(20.0)));
        assert!(value("delivered").is_some_and(|delivered| delivered > 1_000.0), "{summary}");
        assert!(value("marks").is_some_and(|marks| marks > 100.0), "{summary}");
        for path in ["published", "latency", "marked", "pushed", "known", "returned"] {
            assert!(summary.latency(path).is_some_and(|spread| spread.count > 0), "{path}: {summary}");
        }
        let document = Document::of(Head::new("mixed", began, plan.measured, Vec::new(), &summary.load()), &summary);
        (summary, serde_json::from_str::<Document>(&document.to_json()).unwrap())
    });
    check_comparison(&documents);
}

/// Every figure of both stands in the comparison, as it is in the one and the other.
fn check_comparison([(a, of_a), (b, of_b)]: &[(Summary, Document); 2]) {
    let comparison = Comparison::of(of_a, of_b);
    let row = |figure: &str| comparison.rows.iter().find(|row| row.figure == figure).expect(figure);
    for figure in &a.figures {
        let (row, other) = (row(figure.path), b.value(figure.path).expect("both have it"));
        assert!(is_same(row.a, figure.value) && is_same(row.b, other), "{}: {comparison}", figure.path);
    }
    for spread in &a.spreads {
        let other = b.latency(spread.path).expect("both have it");
        let row = |name: &str| row(&format!("{}.{name}", spread.path));
        let count = row("count");
        assert_eq!((count.a, count.b), (spread.count as f64, other.count as f64), "{}", spread.path);
        for (name, of) in
            [("p50_ms", spread.latency.p50_ms), ("p99_ms", spread.latency.p99_ms), ("max_ms", spread.latency.max_ms)]
        {
            assert!(is_same(row(name).a, of), "{} {name}", spread.path);
        }
    }
    // Nothing else: five latencies and a count each.
    assert_eq!(comparison.rows.len(), a.figures.len() + 6 * a.spreads.len(), "{comparison}");
}

/// Read from a file, a number may differ in its last digit.
fn is_same(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-9 * other.abs()
}
