//! Pairs write to each other through a broker in this process: each message reaches the other one, once.

mod basis;
mod broker;

use std::time::Duration;

use basis::basis;
use broker::Broker;
use carillon_loadtest::pairwise::{self, Plan};
use carillon_loadtest::report::Findings;

#[test]
fn each_message_reaches_the_other_one_of_the_pair() {
    let broker = Broker::start();
    let plan = Plan {
        basis: basis(),
        pairs: 5,
        rate: 400,
        payload_bytes: 64,
        warm_up: Duration::from_millis(200),
        measured: Duration::from_millis(1_500),
    };
    for _ in 0..2 {
        let summary = pairwise::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
        assert!(summary.is_complete(), "{summary}");
        // Due by the clock, and not by what came back.
        assert_eq!((summary.value("offered"), summary.value("delivered")), (Some(600.0), Some(600.0)), "{summary}");
        for path in ["latency", "published"] {
            assert!(summary.latency(path).is_some_and(|spread| spread.count == 600), "{path}: {summary}");
        }
        assert!(!summary.series.is_empty() && summary.load.own_cpu_s > 0.0, "{summary}");
    }
}
