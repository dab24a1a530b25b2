//! The scenarios against peers, as a server in this process plays them: the same counting, and what is wrong is said.

mod peer;

use std::path::PathBuf;
use std::time::Duration;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::fanout::{Plan, Report};
use carillon_loadtest::peers::{self, Answers, Peer, PeerTarget, Quality};

use carillon_loadtest::publish;
use peer::{Fault, Server};

const SESSIONS: u32 = 20;

fn plan() -> Plan {
    Plan {
        sessions: SESSIONS,
        rounds: 5,
        batch: 30,
        payload_bytes: 128,
        interval: Duration::from_millis(20),
        sockets: 3,
        connecting_max: 8,
        ack_messages: 10,
        ack_every: Duration::from_millis(100),
        prefix: "load".into(),
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        broker_pid: Some(std::process::id()),
    }
}

fn fanout(peer: Peer, fault: Fault, plan: &Plan) -> Report {
    let server = Server::start(peer, fault);
    peers::fanout(plan, &server.target, &mut |_| {}).expect("figures")
}

fn check_complete(peer: Peer, answers: bool) {
    let server = Server::start(peer, Fault::None);
    let report = peers::fanout(&plan(), &server.target, &mut |_| {}).expect("figures");
    assert_eq!(server.published(), 150);
    assert_eq!((report.delivered, report.misplaced, report.sessions_lost), (20 * 150, 0, 0), "{report}");
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.published.is_some(), answers, "{report}");
    assert!(report.latency.p50_ms > 0.0 && report.round_per_s > 0.0 && report.broker.is_some(), "{report}");
    assert_eq!(report.target, peer.name());
    let seen: f64 = report.series.iter().map(|point| point.achieved_per_s).sum();
    assert!(seen > 0.0 && report.series[0].broker_resident_mib.is_some(), "{:?}", report.series);
}

#[test]
fn every_session_of_nats_gets_every_message() {
    check_complete(Peer::Nats(Answers::None), false);
    check_complete(Peer::Nats(Answers::JetStream), true);
}

#[test]
fn every_session_of_mqtt_gets_every_message() {
    check_complete(Peer::Mqtt(Quality::AtMostOnce), false);
    check_complete(Peer::Mqtt(Quality::AtLeastOnce), true);
}

#[test]
fn what_a_peer_loses_or_repeats_is_counted() {
    let peer = Peer::Nats(Answers::None);
    let all = u64::from(SESSIONS) * 150;

    let impatient = Plan { patience: Duration::from_secs(2), ..plan() };
    let lost = fanout(peer, Fault::Loses, &impatient);
    // Those after the lost one are out of their turn until the next one is in its.
    assert_eq!((lost.delivered, lost.misplaced), (all - 2 * u64::from(SESSIONS), u64::from(SESSIONS)), "{lost}");
    assert!(!lost.is_complete());

    let repeated = fanout(peer, Fault::Repeats, &plan());
    assert!(repeated.misplaced > 0 && !repeated.is_complete(), "{repeated}");
}

#[test]
fn what_is_wrong_is_said() {
    let (server, other) =
        (Server::start(Peer::Nats(Answers::None), Fault::None), Server::start(Peer::Nats(Answers::None), Fault::None));
    let refused = |target: PeerTarget| peers::fanout(&plan(), &target, &mut |_| {}).unwrap_err();

    let wrong_ca = refused(PeerTarget { ca: other.target.ca.clone(), ..server.target.clone() });
    assert!(matches!(&wrong_ca, Failure::NotAllowed(why) if why.contains("--ca")), "{wrong_ca}");

    let no_ca = refused(PeerTarget { ca: PathBuf::from("/nowhere/ca.pem"), ..server.target.clone() });
    assert!(matches!(&no_ca, Failure::Read { .. }), "{no_ca}");

    let nobody = refused(PeerTarget { address: ([127, 0, 0, 1], 9).into(), ..server.target.clone() });
    assert!(matches!(&nobody, Failure::UnreachablePeer(_)) && nobody.exit_code() == 3, "{nobody}");
}

fn publish_plan() -> publish::Plan {
    publish::Plan {
        prefix: "load".into(),
        producers: 5,
        window: 4,
        rate: None,
        payload_bytes: 128,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(1),
        sources: 2,
        patience: Duration::from_secs(60),
        time_limit: Duration::from_secs(120),
        server_pid: Some(std::process::id()),
    }
}

#[test]
fn everything_that_is_published_is_acknowledged() {
    for peer in [Peer::Nats(Answers::JetStream), Peer::Mqtt(Quality::AtLeastOnce)] {
        let server = Server::start(peer, Fault::None);
        let report = peers::publish::run(&publish_plan(), &server.target, &mut |_| {}).unwrap();
        assert!(report.is_complete() && report.acknowledged_per_s > 0.0, "{report}");
        assert!(report.series.iter().any(|point| point.achieved_per_s > 0.0), "{:?}", report.series);
        assert_eq!(u64::from(server.published()), report.sent + u64::from(matches!(peer, Peer::Nats(_))) * 2);
    }
}

#[test]
fn who_acknowledges_nothing_is_not_measured_for_it() {
    let server = Server::start(Peer::Mqtt(Quality::AtMostOnce), Fault::None);
    let refused = peers::publish::run(&publish_plan(), &server.target, &mut |_| {}).unwrap_err();
    assert!(matches!(&refused, Failure::Usage(why) if why.contains("--qos 1")), "{refused}");
}
