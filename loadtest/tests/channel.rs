//! A conversation with many members of whom few are online, on a broker in this process.

mod basis;
mod broker;

use std::time::Duration;

use basis::basis;
use broker::Broker;
use carillon_loadtest::broadcast::{self, Kind, Plan};
use carillon_loadtest::report::Findings;

#[test]
fn those_who_are_online_get_every_message_of_a_channel_or_a_group() {
    let broker = Broker::start();
    for kind in [Kind::Channel, Kind::Group] {
        let plan = Plan {
            basis: basis(),
            kind,
            members: 700,
            online: 20,
            rate: 50,
            measured: Duration::from_millis(500),
            payload_bytes: 64,
        };
        let summary = broadcast::run(&plan, &broker.target(), &mut |_| {}).expect("figures");
        assert!(summary.is_complete(), "{summary}");
        assert_eq!((summary.value("messages"), summary.value("delivered")), (Some(25.0), Some(500.0)), "{summary}");
        let count = |path| summary.latency(path).map(|spread| spread.count);
        assert_eq!((count("last_delivery"), count("deliveries")), (Some(25), Some(500)), "{summary}");
        assert!(summary.value("broker.resident_mib_membership").is_some(), "{summary}");
    }
}
