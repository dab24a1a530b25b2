//! Power fails at any call under the sequencer, store, journal, snapshots and retention of the broker: what was acknowledged is
//! there, as it was. The long run is `cargo run --release -p carillon-tests --bin power`.

use carillon_tests::power::run;

#[test]
fn what_is_acknowledged_survives_a_loss_of_power_at_any_call() {
    let summary = run(1, 1_000, &mut |_| {});
    assert!(summary.wrong.is_empty(), "{summary}");
    let happened = [summary.in_recovery, summary.acknowledged, summary.repeated, summary.states, summary.removed];
    assert!(happened.iter().all(|count| *count > 20), "{summary}");
    assert!(summary.cuts > 20 && summary.in_doubt_kept > 5 && summary.snapshots > 20, "{summary}");
}
