//! A write to the journal that fails is final: nobody is told what is not durable, and the broker ends and says so.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::io;
use std::sync::Arc;

use carillon::journal::MemoryStorage;
use carillon::server::Server;
use carillon_client::MessageKind;
use carillon_tests::harness::{PATIENCE, Process, Site, connect, group_of, next_texts, patiently, say};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_ends_the_broker_and_acknowledges_nothing() {
    let (site, storage) = (Site::new(), MemoryStorage::new());
    let start = || Server::start_on(site.options(), Arc::new(storage.clone())).unwrap();
    let server = start();
    let (alice, _events) = connect(site.config(server.address(), "alice")).await;
    let group = group_of(&alice, &[]).await;
    let failures = server.failures();
    let mut failed = tokio::task::spawn_blocking(move || failures.recv_timeout(PATIENCE));
    let mut acknowledged = Vec::new();
    // Threads beside the sequencer use the disk too, and a call of theirs may fail in its place.
    let failure = loop {
        storage.fail_at(storage.calls() + 1, io::ErrorKind::Other);
        let text = acknowledged.len().to_string();
        tokio::select! {
            published = patiently(alice.publish(group, MessageKind::TEXT, text.clone())) => {
                published.unwrap();
                acknowledged.push(text);
            }
            failure = &mut failed => break failure.unwrap().unwrap(),
        }
    };
    assert!(failure.to_string().contains("journal failed"), "{failure}");
    drop(alice);
    server.stop().ok();
    storage.calm();
    let server = start();
    let (_alice, mut events) = connect(site.config(server.address(), "alice")).await;
    assert_eq!(next_texts(&mut events, acknowledged.len()).await, acknowledged);
    server.stop().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_ends_with_its_exit_code_and_goes_on_when_started_again() {
    let mut broker = Process::start_heard();
    let (alice, mut events) = connect(broker.site.config(broker.address, "alice")).await;
    let group = group_of(&alice, &[]).await;
    say(&alice, group, "before").await;
    // From now on no file may be written to beyond its first byte.
    let pid = Pid::from_raw(broker.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(1), maximum: None }).unwrap();
    let (waiting, text) = (alice.clone(), "kept until a broker takes it");
    let kept = tokio::spawn(async move { waiting.publish(group, MessageKind::TEXT, text).await });
    let (code, said) = tokio::task::block_in_place(|| broker.ended());
    assert_eq!(code, Some(70), "{said}");
    assert!(said.contains("the broker failed") && said.contains("What was acknowledged is safe"), "{said}");
    assert!(!kept.is_finished(), "what is not durable is not acknowledged");
    broker.start_again();
    patiently(kept).await.unwrap().unwrap();
    assert_eq!(next_texts(&mut events, 2).await, ["before", text]);
    alice.close().await;
    broker.kill();
}
