//! Sessions that do nothing but stay, against a broker in this process.

mod basis;
mod broker;

use std::time::Duration;

use basis::basis;
use broker::Broker;
use carillon::dings::rates::Rates;
use carillon_loadtest::idle::{self, Dings, Plan};
use carillon_loadtest::report::Findings;

#[test]
fn sessions_are_held_and_the_burst_and_dings_reach_them() {
    let broker = Broker::start();
    let plan = Plan {
        basis: basis(),
        sessions: 40,
        settle: Duration::ZERO,
        hold: Duration::from_secs(1),
        burst: 5,
        payload_bytes: 128,
        after: Duration::from_secs(1),
        dings: Dings { count: 30, rate: 200, senders: 2 },
    };
    for _ in 0..2 {
        let summary = idle::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
        assert!(summary.is_complete() && !summary.series.is_empty(), "{summary}");
        for path in ["", "_settled", "_burst", "_after"] {
            let path = format!("broker.resident_kib_per_session{path}");
            assert!(summary.value(&path).is_some(), "{path}: {summary}");
        }
        for path in ["broker.page_tables_kib_per_session", "machine.kernel_kib_per_session"] {
            let both = ["_settled", "_after"].map(|when| summary.value(&format!("{path}{when}")));
            assert!(both.iter().all(Option::is_some), "{path}: {summary}");
        }
        assert!(summary.value("held_s").is_some_and(|held_s| held_s >= 1.0), "{summary}");
        assert!(summary.value("broker.cpu_ms_per_session_minute").is_some(), "{summary}");
        for path in ["ding.written", "ding.pushed", "ding.known"] {
            assert_eq!(summary.latency(path).map(|spread| spread.count), Some(30), "{path}: {summary}");
        }
        assert_eq!(summary.latency("connected").map(|spread| spread.count), Some(40), "{summary}");
    }
}

#[test]
fn dings_that_are_refused_take_no_figure_with_them() {
    let broker = Broker::with_ding_rates(Rates::default());
    let plan = Plan {
        basis: basis(),
        sessions: 100,
        settle: Duration::ZERO,
        hold: Duration::from_secs(1),
        burst: 1,
        payload_bytes: 128,
        after: Duration::from_secs(1),
        // More than a broker takes of one sender in a minute.
        dings: Dings { count: 100, rate: 1_000, senders: 1 },
    };
    let summary = idle::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
    assert!(!summary.is_complete() && summary.to_string().contains("the DINGs came to nothing"), "{summary}");
    assert!(summary.value("broker.resident_kib_per_session_after").is_some(), "{summary}");
}
