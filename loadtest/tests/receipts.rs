//! A small storm against a broker in this process: every mark is answered and counted, and authors get what they may.

mod broker;
mod series;

use std::time::Duration;

use broker::Broker;
use carillon_loadtest::others::Others;
use carillon_loadtest::receipts::{self, Plan, Report};

fn plan() -> Plan {
    Plan {
        members: 20,
        sessions: 20,
        authors: 2,
        storm: Duration::from_millis(300),
        around: Duration::from_millis(300),
        others: Others { publish_rate: 100, listeners: 3, ding_rate: 50, senders: 2, payload_bytes: 128 },
        sockets: 2,
        connecting_max: 8,
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        broker_pid: Some(std::process::id()),
    }
}

/// Runs it, and looks at what holds for every good run.
fn run(plan: &Plan, broker: &Broker) -> Report {
    let report = receipts::run(plan, &broker.target(), &mut |_| {}).expect("figures");
    assert!(report.is_complete(), "{report}");
    assert_eq!((report.marks.answered, report.marks.refused), (plan.sessions, 0), "{report}");
    assert_eq!(report.messages.delivered, u64::from(plan.authors * (plan.sessions + plan.authors)), "{report}");
    let unread = plan.members + plan.authors - 1 - plan.sessions;
    assert_eq!(report.status.len(), plan.authors as usize);
    assert!(report.status.iter().all(|status| (status.read, status.unread) == (plan.sessions, unread)), "{report}");
    assert_eq!(report.costs.len(), 3);
    assert!(report.costs.iter().all(|cost| cost.broker_resident_kib.is_some()), "{report}");
    // Six measures in three phases.
    assert_eq!(report.rows.len(), 18);
    assert!(report.rows.iter().all(|row| row.figures.seen == row.figures.offered), "{report}");
    let before = report.rows.iter().filter(|row| row.phase == "before");
    assert!(before.into_iter().all(|row| row.figures.offered > 0 && row.figures.latency.max_ms > 0.0), "{report}");
    series::check(&report.timeline, &report.rows, "publish: due to delivered");
    let marks = series::strain(&report.timeline);
    assert!(marks > 0.0 && marks <= f64::from(plan.sessions) + 0.5, "{marks} {report}");
    report
}

#[test]
fn in_a_small_group_authors_learn_each_reader_and_another_run_counts_anew() {
    let broker = Broker::start();
    for _ in 0..2 {
        let report = run(&plan(), &broker);
        let updates = report.updates;
        assert_eq!((updates.names_max, updates.counts_max, updates.told_min), (20, 0, 20), "{report}");
    }
}

#[test]
fn in_a_large_group_authors_get_a_few_counts_and_those_who_are_away_have_not_read() {
    let broker = Broker::start();
    let report = run(&Plan { members: 300, sessions: 250, ..plan() }, &broker);
    assert_eq!((report.updates.names_max, report.updates.told_min), (0, 250), "{report}");
    assert!((1..=report.updates.bound).contains(&report.updates.counts_max), "{report}");
    assert!(report.updates.bound < 250, "{report}");
}
