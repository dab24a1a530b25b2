//! Small strains against a broker in this process: whatever it is strained with, what was acknowledged is delivered, and who
//! behaves notices nothing but time.

mod broker;
mod series;

use std::time::Duration;

use broker::Broker;
use carillon_loadtest::others::Others;
use carillon_loadtest::strain::{self, Outcome, Plan, Report, Strain};

fn plan(strain: Strain) -> Plan {
    Plan {
        strain,
        during: Duration::from_millis(1_500),
        before: Duration::from_millis(300),
        after: Duration::from_millis(1_200),
        others: Others { publish_rate: 100, listeners: 3, ding_rate: 50, senders: 2, payload_bytes: 128 },
        sockets: 2,
        connecting_max: 8,
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(240),
        broker_pid: Some(std::process::id()),
    }
}

/// Runs it, and looks at what holds for every good run.
fn run(plan: &Plan, broker: &Broker, phases: usize) -> Report {
    let report = strain::run(plan, &broker.target(), &mut |_| {}).expect("figures");
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.scenario, plan.strain.name());
    assert_eq!(report.costs.len(), phases);
    // Six measures in each phase.
    assert_eq!(report.rows.len(), 6 * phases);
    assert!(report.resident_max_mib.is_some_and(|mib| mib > 0), "{report}");
    assert!(report.rows.iter().all(|row| row.figures.offered > 0), "{report}");
    series::check(&report.timeline, &report.rows, "publish: due to delivered");
    report
}

#[test]
fn publishers_that_want_too_much_are_held_back_and_what_was_acknowledged_is_delivered() {
    let broker = Broker::start();
    let strain =
        Strain::Overload { producers: 4, flat_out: Duration::from_millis(500), factor: 3.0, memory_max_mib: None };
    for _ in 0..2 {
        let report = run(&plan(strain.clone()), &broker, 4);
        let Outcome::Overload(overload) = &report.outcome else { panic!("{report}") };
        assert!(overload.offered > overload.sent && overload.held_back > 0, "{report}");
        let strain = series::strain(&report.timeline);
        assert!(strain > 0.0 && strain <= overload.acked_in_all as f64 + 0.5, "{strain} {report}");
        assert!(overload.acked > 0 && overload.acked == overload.sent, "{report}");
        assert_eq!(overload.delivered, overload.acked_in_all, "{report}");
    }
}

#[test]
fn too_much_memory_fails_the_run() {
    let broker = Broker::start();
    let (flat_out, factor) = (Duration::from_millis(200), 1.0);
    let strain = Strain::Overload { producers: 1, flat_out, factor, memory_max_mib: Some(1) };
    let report = strain::run(&plan(strain), &broker.target(), &mut |_| {}).expect("figures");
    assert_eq!(report.complaints.len(), 1, "{report}");
    assert!(report.complaints[0].contains("MiB resident"), "{report}");
}

#[test]
fn who_stops_reading_gets_everything_later_and_the_others_at_once() {
    let broker = Broker::start();
    // More than the windows hold: 256 KiB each.
    let strain = Strain::Deaf { sessions: 20, percent: 10, rate: 500 };
    let mut plan = plan(strain);
    plan.others.payload_bytes = 1_000;
    let report = run(&plan, &broker, 3);
    let Outcome::Deaf(deaf) = &report.outcome else { panic!("{report}") };
    assert_eq!(
        (deaf.deaf, deaf.missing, deaf.misplaced, deaf.deaf_ended, deaf.others_ended),
        (2, 0, 0, 0, 0),
        "{report}"
    );
    assert!(deaf.messages > 500 && series::strain(&report.timeline) > 1_000.0, "{report}");
}

#[test]
fn who_holds_what_it_can_is_let_and_holds_no_more_than_is_documented() {
    let broker = Broker::start();
    let report = run(&plan(Strain::Hoard { sessions: 10 }), &broker, 3);
    let Outcome::Hoard(hoard) = &report.outcome else { panic!("{report}") };
    assert_eq!((hoard.sessions, hoard.ended), (10, 0), "{report}");
    assert!(report.hoarded_kib().is_some() && report.timeline.strain_of.is_none(), "{report}");
}

#[test]
fn first_packets_that_nobody_follows_up_end_no_session() {
    let broker = Broker::start();
    let report = run(&plan(Strain::Flood { rate: 2_000 }), &broker, 3);
    let Outcome::Flood(flood) = &report.outcome else { panic!("{report}") };
    let strain = series::strain(&report.timeline);
    assert!(strain > 0.0 && strain <= flood.sent as f64 + 0.5, "{strain} {report}");
}
