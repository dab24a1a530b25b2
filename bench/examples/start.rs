//! How long a start takes on a directory of `large_directory`, from the open files to a shard and an index that can be served, in
//! three ways: with nothing but the journal, with the index, and with a snapshot and the index:
//!
//! ```sh
//! cargo run --release -p carillon-bench --example start -- DIR
//! ```
//!
//! It removes index and snapshots at first. Sockets and threads that serve are not part of it: they take milliseconds.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carillon::clock::SystemClock;
use carillon::index::{Index, IndexOptions, MEMORY_BYTES_DEFAULT, Writer};
use carillon::journal::{FileStorage, JournalOptions};
use carillon::snapshot::{self, Meta};
use carillon::store::{self, Store, StoreOptions};
use carillon_bench::SHARD;
use carillon_protocol::ids::Timestamp;
use carillon_transport::Clock as _;

struct Started {
    store: Store,
    index: Arc<Index>,
    storage: Arc<FileStorage>,
    took: Duration,
}

fn start(directory: &Path) -> Started {
    let clock = Arc::new(SystemClock);
    let begun = clock.now();
    let storage = Arc::new(FileStorage::open(directory.join("journal")).expect("a directory"));
    let index = Arc::new(Index::open(IndexOptions {
        directory: Some(directory.join("index")),
        shard: SHARD,
        memory_bytes_max: MEMORY_BYTES_DEFAULT,
    }));
    let options = StoreOptions { journal: JournalOptions::new(SHARD), clock: clock.clone(), progress: None };
    let store = store::open(storage.clone(), &options, &mut &*index).expect("a good journal");
    Started { store, index, storage, took: clock.now() - begun }
}

#[allow(clippy::print_stdout, reason = "it tells what it measured")]
fn main() {
    let argument = std::env::args().nth(1).expect("the argument is a directory of `large_directory`");
    let directory = Path::new(&argument);
    std::fs::remove_dir_all(directory.join("index")).ok();
    for entry in std::fs::read_dir(directory.join("journal")).expect("a journal").flatten() {
        if entry.path().extension().is_some_and(|suffix| suffix == "snapshot") {
            std::fs::remove_file(entry.path()).expect("it is removed");
        }
    }
    let nothing = start(directory);
    let head = nothing.store.shard.head();
    println!("{head} records; with nothing but the journal: {:.2} s", nothing.took.as_secs_f64());
    let clock = SystemClock;
    let begun = clock.now();
    drop(Writer::start(&nothing.index, &nothing.store.opened.reader));
    println!(
        "the index brought to disk, which the broker does while it serves: {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    let state = snapshot::encode(&nothing.store.shard);
    let incarnation = nothing.store.opened.reader.incarnation();
    drop((nothing.store, nothing.index, nothing.storage));
    let indexed = start(directory);
    println!("with the index: {:.2} s", indexed.took.as_secs_f64());
    let meta = Meta { shard: SHARD, incarnation, position: head, time: Timestamp(0) };
    snapshot::write(&*indexed.storage, &meta, &state, &mut |_| Ok(())).expect("the disk takes it");
    drop((indexed.store, indexed.index, indexed.storage));
    let both = start(directory);
    println!("with a snapshot of {} bytes and the index: {:.2} s", state.len(), both.took.as_secs_f64());
}
