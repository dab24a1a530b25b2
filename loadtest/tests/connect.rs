//! Sessions come in against a broker in this process, with whole handshakes and with resumed ones.

mod basis;
mod broker;

use basis::basis;
use broker::Broker;
use carillon_loadtest::connect::{self, Plan};
use carillon_loadtest::report::Findings;
use carillon_loadtest::summary::Summary;

fn run(broker: &Broker, resumed: bool) -> Summary {
    let summary =
        connect::run(&Plan { basis: basis(), sessions: 50, resumed }, &broker.target(), &mut |_| {}).expect("figures");
    assert!(summary.is_complete() && !summary.series.is_empty(), "{summary}");
    for path in ["connected", "caught_up"] {
        let spread = summary.latency(path).expect("it was measured");
        assert!(spread.count == 50 && spread.latency.p50_ms > 0.0, "{summary}");
    }
    assert!(summary.value("connects_per_s").is_some_and(|rate| rate > 0.0), "{summary}");
    summary
}

#[test]
fn whole_handshakes_and_resumed_ones_are_told_apart() {
    let broker = Broker::start();
    let anew = run(&broker, false);
    assert!(anew.value("broker.resident_kib_per_session").is_some() && anew.value("whole").is_none(), "{anew}");
    for path in ["broker.page_tables_kib_per_session", "machine.kernel_kib_per_session"] {
        assert!(anew.value(path).is_some(), "{path}: {anew}");
    }
    let resumed = run(&broker, true);
    assert_eq!(resumed.value("whole"), Some(0.0), "{resumed}");
}
