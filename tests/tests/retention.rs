//! Snapshots and retention of a real broker: old segments leave, the broker starts again, and nobody meets a silent gap.

use std::path::Path;

use carillon_client::{Event, Seq};
use carillon_tests::harness::{Process, connect, group_of, next_that, patiently, say};

/// The smallest that the configuration allows.
const SMALL: &str =
    "[journal]\nsegment_bytes = 65536\n[snapshots]\njournal_bytes = 1048576\n[retention]\nbytes_max = 262144\n";

fn names(journal: &Path, suffix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(journal).expect("a journal");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(suffix)).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn old_segments_leave_and_what_went_is_named() {
    let mut broker = Process::start_with(SMALL);
    let journal = broker.site.data().join("journal");
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let group = group_of(&alice, &[bob.user()]).await;
    patiently(bob.close()).await;
    drop((bob, bob_events));
    let mut last = Seq(0);
    let begin = format!("{:020}.journal", 1);
    while names(&journal, ".journal").contains(&begin) {
        last = say(&alice, group, "x".repeat(16_000)).await.seq;
    }
    assert_eq!(names(&journal, ".snapshot").len(), 2, "two generations cover what went");
    patiently(alice.close()).await;
    for kill in [true, false] {
        if kill {
            broker.kill()
        } else {
            broker.terminate()
        }
        broker.start_again();
        // A device that has seen nothing: what went is named, and what is left comes without a gap.
        let (bob, mut bob_events) = connect(broker.site.config(broker.address, "bob")).await;
        let (mut gone, mut next) = (Seq(0), None);
        while next != Some(Seq(last.0 + 1)) {
            next_that(&mut bob_events, |event| {
                match event {
                    Event::Truncated(gap) if gap.conversation == group => gone = gap.last,
                    Event::Message(message) if message.conversation == group => {
                        assert_eq!(message.seq, next.unwrap_or(Seq(gone.0 + 1)));
                        next = Some(Seq(message.seq.0 + 1));
                    }
                    _ => return None,
                }
                Some(())
            })
            .await;
        }
        assert!(gone > Seq(0));
        patiently(bob.close()).await;
    }
}
