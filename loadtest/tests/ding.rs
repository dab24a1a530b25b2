//! A few DINGs against a broker in this process: each arrives, is confirmed, and its sender learns of it, whatever else the
//! device reads.

mod broker;
mod series;

use std::time::Duration;

use broker::Broker;
use carillon_loadtest::ding::{self, Plan, Report};
use carillon_loadtest::phases::Row;

fn plan() -> Plan {
    Plan {
        devices: 1,
        backlog: 2_000,
        dings: 20,
        ding_rate: 100,
        senders: 1,
        load_rate: 500,
        payload_bytes: 128,
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        broker_pid: Some(std::process::id()),
    }
}

fn run(plan: &Plan, broker: &Broker) -> Report {
    let report = ding::run(plan, &broker.target(), &mut |_| {}).expect("figures");
    assert!(report.is_complete(), "{report}");
    // Four measures in three phases, the same DINGs in each measure.
    assert_eq!((report.rows.len(), report.costs.len()), (12, 3));
    let due = |phase: &str| -> Vec<u32> {
        report.rows.iter().filter(|row| row.phase == phase).map(|row| row.figures.offered).collect()
    };
    for phase in ["idle", "live load", "backlog"] {
        let due = due(phase);
        assert!(due[0] > 0 && due.iter().all(|count| *count == due[0]), "{phase}: {due:?} {report}");
    }
    let seen_all = |row: &Row| row.figures.seen == row.figures.offered && row.figures.latency.max_ms > 0.0;
    assert!(report.rows.iter().filter(|row| row.measure != "DING: due to written").all(seen_all), "{report}");
    series::check(&report.timeline, &report.rows, "DING: due to pushed");
    assert!(series::strain(&report.timeline) > 0.0, "{report}");
    // Whoever connects with the old cursor reads all of it, each time.
    let read = report.backlog.read_per_s * report.backlog.took_s;
    assert!(report.backlog.readings > 0 && read >= f64::from(plan.backlog) * 0.999, "{report}");
    report
}

#[test]
fn each_ding_arrives_and_its_sender_learns_that_it_was_confirmed() {
    let broker = Broker::start();
    for _ in 0..2 {
        run(&plan(), &broker);
    }
}

#[test]
fn several_devices_and_senders_share_the_dings() {
    let broker = Broker::start();
    let report = run(&Plan { devices: 4, senders: 3, dings: 40, ..plan() }, &broker);
    assert_eq!(report.devices, 4);
    assert!(report.backlog.readings >= 4, "{report}");
}
