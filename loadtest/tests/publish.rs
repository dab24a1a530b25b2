//! The scenario against a broker in this process: whatever is published is acknowledged.

mod broker;

use std::time::Duration;

use carillon_loadtest::publish::{self, Plan, Report};

use broker::Broker;

fn run(broker: &Broker, producers: u32, window: u32, rate: Option<u32>) -> Report {
    let plan = Plan {
        producers,
        window,
        rate,
        payload_bytes: 128,
        warm_up: Duration::from_millis(100),
        measured: Duration::from_secs(1),
        sources: 1,
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        server_pid: Some(std::process::id()),
    };
    publish::run(&plan, &broker.target(), &mut |_| {}).expect("figures")
}

#[test]
fn everything_is_acknowledged_and_another_run_goes_on_after_it() {
    let broker = Broker::start();
    for (producers, window) in [(5, 8), (5, 8), (1, 1)] {
        let report = run(&broker, producers, window, None);
        assert!(report.is_complete(), "{report}");
        assert!(
            report.acknowledged_per_s > 0.0 && report.published.p50_ms > 0.0 && report.broker.is_some(),
            "{report}"
        );
        assert_eq!((report.producers, report.window, report.target), (producers, window, "carillon"));
    }
}

#[test]
fn with_a_rate_messages_are_due_by_the_clock() {
    let broker = Broker::start();
    let report = run(&broker, 4, 64, Some(500));
    assert!(report.is_complete() && report.published.p50_ms > 0.0, "{report}");
    assert_eq!(report.offered_per_s, Some(500.0), "{report}");
    // 100 ms of warming up, and a second.
    assert_eq!((report.acknowledged, report.curves[0].count), (550, 500), "{report}");
    assert!(!report.series.is_empty());
}
