//! A short day at an office with a broker in this process: whatever drops meanwhile, everybody gets everything once.

mod basis;
mod broker;

use std::time::Duration;

use basis::basis;
use broker::Broker;
use carillon_loadtest::mixed::{self, Plan};
use carillon_loadtest::report::Findings;

#[test]
fn everybody_gets_everything_once_although_connections_drop() {
    let broker = Broker::start();
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
    for _ in 0..2 {
        let summary = mixed::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
        assert!(summary.is_complete(), "{summary}");
        let value = |path| summary.value(path);
        assert_eq!((value("messages"), value("dings"), value("reconnects")), (Some(500.0), Some(40.0), Some(20.0)));
        assert!(value("delivered").is_some_and(|delivered| delivered > 1_000.0), "{summary}");
        assert!(value("marks").is_some_and(|marks| marks > 100.0), "{summary}");
        for path in ["published", "latency", "marked", "pushed", "known", "returned"] {
            assert!(summary.latency(path).is_some_and(|spread| spread.count > 0), "{path}: {summary}");
        }
    }
}
