//! A backup of a broker that serves, and what clients meet when it is restored.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use carillon::material::SERVER_NAME;
use carillon_client::{Cursor, Event, FileStore, MessageKind, Position, PublishError, Store, Unsettled, UserId};
use carillon_tests::harness::{Process, TENANT, binary, connect, group_of, next_message, next_that, patiently, say};

/// Messages before the backup begins, and after it has ended.
const SOME: usize = 150;

async fn carillon(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("CARILLON_CONFIG");
    tokio::task::spawn_blocking(move || command.output().expect("the command runs")).await.expect("it runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one object")
}

/// The store of a device, as soon as its last client has let go of it.
async fn open_store(directory: &Path) -> Arc<FileStore> {
    patiently(async {
        loop {
            match FileStore::open(directory) {
                Ok(store) => return Arc::new(store),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                Err(error) => panic!("the store does not open: {error}"),
            }
        }
    })
    .await
}

/// A configuration with small segments, so that there are some.
const SMALL: &str = "[journal]\nsegment_bytes = 65536\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_backup_is_there_after_its_restore() {
    let mut broker = Process::start_with(SMALL);
    let stores = tempfile::tempdir().unwrap();
    let offline = broker.site.config(broker.address, "bob");
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (bob, mut bob_events) = connect(offline.clone().store(open_store(stores.path()).await)).await;
    let group = group_of(&alice, &[bob.user()]).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn({
        let (alice, acknowledged, enough) = (alice.clone(), acknowledged.clone(), enough.clone());
        async move {
            while !enough.load(Ordering::Relaxed) {
                let number = acknowledged.load(Ordering::Relaxed);
                say(&alice, group, format!("{number} {}", "x".repeat(1_000))).await;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for _ in 0..SOME {
        next_message(&mut bob_events).await;
    }
    let before = acknowledged.load(Ordering::Relaxed);
    let backups = tempfile::tempdir().unwrap();
    let (data, to) = (broker.site.data().to_owned(), backups.path().join("first"));
    let taken = json(&carillon(&["backup", "--json", "--data", text(&data), "--to", text(&to)]).await);
    for _ in 0..SOME {
        next_message(&mut bob_events).await;
    }
    enough.store(true, Ordering::Relaxed);
    patiently(publisher).await.unwrap();
    let all = acknowledged.load(Ordering::Relaxed);
    assert!(!data.join("backup.staging").exists());
    patiently(bob.close()).await;
    drop((bob, bob_events, alice));
    broker.kill();

    // The machine is lost; what is left is the backup.
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    let restored = json(&carillon(&["restore", "--json", "--from", text(&to), "--data", text(&data)]).await);
    assert_eq!((&restored["was"], &restored["head"]), (&taken["incarnation"], &taken["head"]));
    assert_ne!(restored["incarnation"], taken["incarnation"]);
    let verified = json(&carillon(&["journal", "verify", "--json", "--data", text(&data)]).await);
    assert_eq!((&verified["last"], &verified["damaged_count"]), (&taken["head"], &0.into()));
    broker.start_again();
    let (bob, mut bob_events) = connect(offline.store(open_store(stores.path()).await)).await;
    next_that(&mut bob_events, |event| matches!(event, Event::Reset).then_some(())).await;
    let (alice, _alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    say(&alice, group, "that was all").await;
    let mut found = 0;
    loop {
        let message = next_message(&mut bob_events).await;
        if message.payload == "that was all" {
            break;
        }
        let expected = format!("{found} ");
        assert!(message.payload.starts_with(expected.as_bytes()), "{found} is next");
        found += 1;
    }
    assert!((before..=all).contains(&found), "{before} were acknowledged before, {all} at all, {found} are there");
    patiently(bob.close()).await;
    patiently(alice.close()).await;
    broker.terminate();
}

/// Publishes that nobody has settled when the broker is restored to a time at which their recipient did not exist.
#[tokio::test(flavor = "multi_thread")]
async fn an_unsettled_publish_does_not_reach_who_has_the_id_of_its_recipient_after_a_restore() {
    let mut broker = Process::start();
    let stores = tempfile::tempdir().unwrap();
    let daves = broker.site.config(broker.address, "dave");
    let (alice, mut alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    let (dave, dave_events) = connect(daves.clone().store(open_store(stores.path()).await)).await;
    patiently(dave.close()).await;
    drop((dave, dave_events));
    let (data, to) = (broker.site.data().to_owned(), stores.path().join("backup"));
    json(&carillon(&["backup", "--json", "--data", text(&data), "--to", text(&to)]).await);
    let (carol, _carol_events) = connect(broker.site.config(broker.address, "carol")).await;
    let id = patiently(alice.find_user("carol")).await.unwrap();
    assert_eq!(id, carol.user());
    patiently(carol.close()).await;
    broker.kill();
    // One publisher runs on, another one was killed after it had saved a publish, and before it had a position.
    let waiting = alice.enqueue(id, MessageKind::TEXT, "for carol alone").await.unwrap();
    {
        let store = open_store(stores.path()).await;
        let saved = store.load().unwrap();
        let [cursor] = saved.cursors[..] else { panic!("{:?}", saved.cursors) };
        store.save_cursor(Cursor { position: Position(0), receipts_through: Position(0), ..cursor }).unwrap();
        let (number, kind) = (saved.next.max(1), MessageKind::TEXT);
        store.save_unsettled(&[Unsettled { number, to: id.into(), kind, payload: "for carol alone".into() }]).unwrap();
    }
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    json(&carillon(&["restore", "--json", "--from", text(&to), "--data", text(&data)]).await);
    broker.start_again();

    let (mallory, mut mallory_events) = connect(broker.site.config(broker.address, "mallory")).await;
    assert_eq!(mallory.user(), id, "the id is given out anew");
    assert!(matches!(patiently(waiting).await, Err(PublishError::Reset)));
    let (dave, mut dave_events) = connect(daves.store(open_store(stores.path()).await)).await;
    let recovered = dave.recovered();
    assert_eq!(recovered.len(), 1);
    for publish in recovered {
        assert!(matches!(patiently(publish).await, Err(PublishError::Reset)));
    }
    for (publisher, events) in [(&alice, &mut alice_events), (&dave, &mut dave_events)] {
        let early = publisher.publish(id, MessageKind::TEXT, "for carol alone").await;
        assert!(matches!(early, Err(PublishError::Reset)), "the application was not told yet");
        next_that(events, |event| matches!(event, Event::Reset).then_some(())).await;
        publisher.begin_anew();
        let mallory = patiently(publisher.find_user("mallory")).await.unwrap();
        say(publisher, mallory, "for mallory").await;
    }
    for _ in 0..2 {
        assert_eq!(next_message(&mut mallory_events).await.payload, "for mallory", "and nothing else");
    }
    for client in [alice, dave, mallory] {
        patiently(client.close()).await;
    }
    broker.terminate();
}

/// What an interrupted `pub` left is lost in a restore, and the first command after it publishes nothing: the next `pub` fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_pub_after_a_restore_fails_once_whatever_command_was_first() {
    let mut broker = Process::start();
    let desk = tempfile::tempdir().unwrap();
    let (data, to, context) =
        (broker.site.data().to_owned(), desk.path().join("backup"), desk.path().join("context.toml"));
    let (ca, key) = (broker.site.material.ca.display(), broker.site.material.token_key.display());
    let text_of_context = format!(
        "address = \"{}\"\nserver_name = \"{SERVER_NAME}\"\nca = \"{ca}\"\ntenant = \"{TENANT}\"\n\
         token_key = \"{key}\"\nuser = \"alice\"\nstate = \"state\"\n",
        broker.address
    );
    std::fs::write(&context, text_of_context).unwrap();
    let as_alice = |arguments: &[&str]| {
        let all = [arguments, &["--timeout", "60s", "--context", text(&context)]].concat();
        let all: Vec<_> = all.into_iter().map(str::to_owned).collect();
        async move { carillon(&all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let ends = |output: Output, code: i32, says: &str| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(says), "{code} {says:?}: {output:?}");
    };
    ends(as_alice(&["user", "add", "bob"]).await, 0, "");
    let publish = ["pub", "--to", "bob", "hello"];
    ends(as_alice(&publish).await, 0, "");
    json(&carillon(&["backup", "--json", "--data", text(&data), "--to", text(&to)]).await);
    broker.kill();
    {
        let store = open_store(&desk.path().join("state/slots").join(TENANT).join("alice/asker-0")).await;
        let (number, kind) = (store.load().unwrap().next, MessageKind::TEXT);
        store.save_unsettled(&[Unsettled { number, to: UserId(1).into(), kind, payload: "lost".into() }]).unwrap();
    }
    std::fs::remove_dir_all(data.join("journal")).unwrap();
    json(&carillon(&["restore", "--json", "--from", text(&to), "--data", text(&data)]).await);
    broker.start_again();
    let left = "1 message that an interrupted `pub` had left will not be sent";
    for _ in 0..2 {
        ends(as_alice(&["conversation", "list"]).await, 0, left);
    }
    ends(as_alice(&publish).await, 1, left);
    ends(as_alice(&publish).await, 0, "");
    let (bob, mut bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    for _ in 0..2 {
        assert_eq!(next_message(&mut bob_events).await.payload, "hello");
    }
    patiently(bob.close()).await;
    broker.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overwritten_and_a_damaged_backup_is_refused() {
    let mut broker = Process::start_with(SMALL);
    let (alice, _events) = connect(broker.site.config(broker.address, "alice")).await;
    let group = group_of(&alice, &[]).await;
    for number in 0..100 {
        say(&alice, group, format!("{number} {}", "x".repeat(1_000))).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let (data, to, elsewhere) =
        (broker.site.data().to_owned(), directory.path().join("backup"), directory.path().join("new"));
    let refused = |output: Output, code: i32, says: &str| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(says), "{code} {says:?}: {output:?}");
    };
    refused(carillon(&["backup", "--data", text(directory.path()), "--to", text(&to)]).await, 2, "holds no journal");
    json(&carillon(&["backup", "--json", "--data", text(&data), "--to", text(&to)]).await);
    for made in [&to, &to.join("journal")] {
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
    }
    refused(carillon(&["backup", "--data", text(&data), "--to", text(&to)]).await, 2, "not empty");
    refused(carillon(&["restore", "--from", text(&to), "--data", text(&data)]).await, 2, "not empty");
    refused(carillon(&["restore", "--from", text(&data), "--data", text(&elsewhere)]).await, 2, "no manifest");
    let segment = to.join("journal").join(format!("{:020}.journal", 1));
    let good = std::fs::read(&segment).unwrap();
    let mut bad = good.clone();
    bad[5_000] ^= 1;
    for (bytes, says) in [(&bad[..], "checksum"), (&good[..good.len() - 1], "bytes")] {
        std::fs::write(&segment, bytes).unwrap();
        refused(carillon(&["restore", "--from", text(&to), "--data", text(&elsewhere)]).await, 1, says);
        assert!(!elsewhere.join("journal").exists());
    }
    let verified = carillon(&["journal", "verify", "--json", "--data", text(&to)]).await;
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    std::fs::write(&segment, &good).unwrap();
    json(&carillon(&["restore", "--json", "--from", text(&to), "--data", text(&elsewhere)]).await);
    // Of a directory that is served: the first record, and the one after a message.
    let dump = |arguments: &[&str]| {
        let all: Vec<_> =
            ["journal", "dump", "--data", text(&data)].iter().chain(arguments).map(|a| (*a).to_owned()).collect();
        async move { carillon(&all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let first = json(&dump(&["--json", "--limit", "1"]).await);
    assert_eq!(
        (&first["position"], &first["kind"], &first["name"]),
        (&1.into(), &"TenantAdded".into(), &"acme".into())
    );
    let lines = dump(&["--json", "--payloads", "--from", "20", "--to", "29"]).await;
    let lines: Vec<serde_json::Value> =
        String::from_utf8_lossy(&lines.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|line| line["kind"] == "Message" && line["text"].as_str().unwrap().contains("xxx")));
    let table = dump(&["--from", "20", "--limit", "2"]).await;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.lines().count() == 2 && table.contains("payload_bytes=") && !table.contains("xxx"), "{table}");
    patiently(alice.close()).await;
    broker.terminate();
    // The end of the journal reads as zeroes, as if it were not there.
    let journal = std::fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let last = journal.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).max().unwrap();
    let mut lost = std::fs::read(&last).unwrap();
    lost[4_096..].fill(0);
    std::fs::write(&last, lost).unwrap();
    let third = directory.path().join("third");
    refused(carillon(&["backup", "--data", text(&data), "--to", text(&third)]).await, 1, "was durable");
    assert!(!third.join("manifest.json").exists());
}
