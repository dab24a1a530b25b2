//! A data directory whose journal is gone, as behind a mount that did not come: a broker does not begin anew over what is left.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;

use carillon::journal::MemoryStorage;
use carillon::report::Causes;
use carillon::server::{Server, StartError};
use carillon_tests::harness::{Site, connect, group_of, next_texts, say};

fn start(site: &Site, storage: &MemoryStorage) -> Result<Server, StartError> {
    Server::start_on(site.options(), Arc::new(storage.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_without_its_journal_stops_the_start() {
    let (site, storage) = (Site::new(), MemoryStorage::new());
    let server = start(&site, &storage).unwrap();
    let (alice, _events) = connect(site.config(server.address(), "alice")).await;
    let group = group_of(&alice, &[]).await;
    say(&alice, group, "kept").await;
    alice.close().await;
    server.stop().unwrap();
    let empty = MemoryStorage::new();
    for _ in 0..2 {
        let refused = start(&site, &empty).err().map(|error| Causes(&error).to_string()).unwrap_or_default();
        assert!(refused.contains("the journal was moved, or its file system is not mounted"), "{refused}");
    }
    assert!(site.data().join("index").is_dir(), "it is left where it is");
    // It is found again.
    let server = start(&site, &storage).unwrap();
    let (_alice, mut events) = connect(site.config(server.address(), "alice")).await;
    assert_eq!(next_texts(&mut events, 1).await, ["kept"]);
    server.stop().unwrap();
    // Or given up.
    std::fs::remove_dir_all(site.data().join("index")).unwrap();
    start(&site, &empty).unwrap().stop().unwrap();
}
