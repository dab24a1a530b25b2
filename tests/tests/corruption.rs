//! Copies of a real data directory, each damaged in one place: nothing wrong is served, nothing bad is deleted, and every place is
//! named. The long run is `cargo run --release -p carillon-tests --bin corrupt`.

use carillon_tests::corrupt::judge::Verdict;
use carillon_tests::corrupt::run;

#[test]
fn damage_is_refused_or_harmless_and_reaches_no_further() {
    let directory = tempfile::tempdir().unwrap();
    let summary = run(directory.path(), (2, 0, 300), &mut |_| {});
    assert_eq!(summary.wrong_count, 0, "{summary}");
    // Too rare to be among so few: garbage in the room that the last segment has left.
    let rare = [Verdict::Wrong, Verdict::NothingCut];
    for verdict in Verdict::ALL.into_iter().filter(|verdict| !rare.contains(verdict)) {
        assert!(summary.count(verdict) > 0, "{summary}");
    }
}
