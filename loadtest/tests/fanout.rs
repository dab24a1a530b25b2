//! The scenario against a broker in this process: every delivery is there, and what is wrong is said.

mod broker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::fanout::{self, Plan, Report};
use carillon_loadtest::target::Target;

use broker::Broker;

fn plan() -> Plan {
    Plan {
        sessions: 20,
        rounds: 5,
        batch: 30,
        payload_bytes: 128,
        interval: Duration::from_millis(20),
        sockets: 2,
        connecting_max: 8,
        ack_messages: 10,
        ack_every: Duration::from_millis(100),
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        broker_pid: Some(std::process::id()),
    }
}

fn check_complete(report: &Report, deliveries: u64) {
    assert_eq!((report.delivered, report.misplaced, report.sessions_lost), (deliveries, 0, 0), "{report}");
    assert!(report.is_complete());
    assert!(report.latency.p50_ms > 0.0 && report.latency.p50_ms <= report.latency.max_ms, "{report}");
    assert!(report.broker.is_some());
}

#[test]
fn every_session_gets_every_message_and_another_run_goes_on_after_it() {
    let broker = Broker::start();
    let target = broker.target();
    for _ in 0..2 {
        let report = fanout::run(&plan(), &target, &mut |_| {}).unwrap();
        check_complete(&report, 20 * 150);
    }
    let more = Plan { sessions: 30, sockets: 1, batch: 2_000, rounds: 1, ..plan() };
    check_complete(&fanout::run(&more, &target, &mut |_| {}).unwrap(), 30 * 2_000);
}

#[test]
fn what_is_wrong_is_said() {
    let broker = Broker::start();
    let other = Broker::start();
    let refused = |target: Target| fanout::run(&plan(), &target, &mut |_| {}).unwrap_err();

    let wrong_key = refused(Target { token_key: other.material.token_key.clone(), ..broker.target() });
    assert!(matches!(&wrong_key, Failure::NotAllowed(why) if why.contains("token")), "{wrong_key}");

    let wrong_ca = refused(Target { ca: other.material.ca.clone(), ..broker.target() });
    assert!(matches!(&wrong_ca, Failure::NotAllowed(why) if why.contains("--ca")), "{wrong_ca}");

    let no_key = refused(Target { token_key: PathBuf::from("/nowhere/token.key"), ..broker.target() });
    assert!(matches!(&no_key, Failure::Read { .. }), "{no_key}");

    let nobody: SocketAddr = ([127, 0, 0, 1], 9).into();
    let impatient = Plan { patience: Duration::from_millis(300), ..plan() };
    let silence = fanout::run(&impatient, &Target { address: nobody, ..broker.target() }, &mut |_| {}).unwrap_err();
    assert_eq!(silence.exit_code(), 1, "{silence}");
}
