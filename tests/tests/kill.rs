//! kill -9 of the real broker under load, some times: what it has acknowledged is there afterwards, once, in order, as it was.
//! The long run is `cargo run --release -p carillon-tests --bin crash`.

use std::time::Duration;

use carillon_tests::crash::{Options, run};
use carillon_tests::harness::binary;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_survives_kills_under_load_and_in_recovery() {
    let options = Options {
        broker: binary(),
        cycles: 8,
        chapter: 4,
        audit_every: 3,
        seed: 3,
        window: Duration::from_millis(300),
        in_flight: 64,
        disk: None,
    };
    let summary = run(&options, &mut |_, _| {}).await;
    assert!(summary.findings.is_empty(), "{summary}");
    assert!(summary.kills() == 8 && summary.under_load > 1 && summary.in_recovery > 0, "{summary}");
    assert!(summary.acknowledged > 0 && summary.audited.read > 0 && summary.audited.history > 0, "{summary}");
    assert!(summary.marks > 0 && summary.dings > 0 && summary.confirmations > 0, "{summary}");
}
