//! Everybody comes back to a broker in this process, and gets what was missed.

mod basis;
mod broker;

use basis::basis;
use broker::Broker;
use carillon_loadtest::reconnect::{self, Plan};
use carillon_loadtest::report::Findings;

#[test]
fn all_come_back_and_get_what_they_missed_once() {
    let broker = Broker::start();
    let plan = Plan { basis: basis(), sessions: 40, missed: 30, payload_bytes: 128 };
    for _ in 0..2 {
        let summary = reconnect::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
        assert!(summary.is_complete() && !summary.series.is_empty(), "{summary}");
        assert_eq!(summary.value("delivered"), Some(1_200.0), "{summary}");
        for path in ["bare", "connected", "caught_up"] {
            assert!(summary.latency(path).is_some_and(|spread| spread.count == 40), "{path}: {summary}");
        }
        assert!(summary.value("caught_up_factor").is_some_and(|factor| factor > 0.0), "{summary}");
    }
}
