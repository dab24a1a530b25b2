//! Snapshots and retention of a real broker: old segments leave, the broker starts again, and nobody meets a silent gap.

use std::path::Path;
use std::process::Command;

use carillon_client::{Event, Seq};
use carillon_tests::harness::{Process, binary, connect, group_of, next_that, patiently, say};

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
    snapshots_are_what_the_records_lead_to(&broker, &journal);
}

/// By the command, while the broker serves; and it tells when one is not.
fn snapshots_are_what_the_records_lead_to(broker: &Process, journal: &Path) {
    let verify = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .env_remove("CARILLON_CONFIG")
            .args(["journal", "verify", "--replay", "--data"])
            .arg(broker.site.data())
            .args(arguments);
        let output = command.output().expect("it runs");
        (output.status.code(), [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()))
    };
    let (code, [told, errors]) = verify(&[]);
    assert_eq!(code, Some(0), "{told}{errors}");
    assert!(
        told.contains("after it were replayed on it") && told.contains("the state that the records lead to"),
        "{told}"
    );
    let snapshots = names(journal, ".snapshot");
    // The newer one is replaced by the older one's bytes: no snapshot is at that position, as its header says.
    let newest = journal.join(snapshots.last().expect("two of them"));
    std::fs::remove_file(&newest).expect("it is there");
    std::fs::copy(journal.join(&snapshots[0]), &newest).expect("it is there");
    let (code, [told, _]) = verify(&["--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("an object, damage or not");
    assert_eq!((code, &told["damaged_count"]), (Some(1), &1.into()), "{told}");
    assert_eq!(told["snapshots"][0]["standing"], "base", "{told}");
    assert_eq!(told["damaged"][0]["file"], *snapshots.last().expect("two of them"), "{told}");
}
