//! What the index takes in memory and on disk.
//!
//! ```console
//! cargo run --release -p carillon-bench --example index_size -- CONVERSATIONS MESSAGES
//! ```
//!
//! It fills an index without a journal, flushes it, and opens it again. What the process takes is read from `/proc`.

use std::fs;
use std::io::{self, Write};

use carillon::clock::{Clock, SystemClock};
use carillon_bench::index::{Messages, conversation, opened, writer};
use carillon_protocol::ids::{Position, Timestamp};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (conversations, count) = (arguments.next().unwrap_or(100_000), arguments.next().unwrap_or(10_000_000));
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR").to_owned() + "/../target")?;
    let path = directory.path().join("index");
    let mut out = io::stdout().lock();
    let begin = resident()?;
    let index = opened(&path);
    let mut messages = Messages::new(conversations);
    let writer = writer(&index);
    let start = SystemClock.wall();
    (0..count).for_each(|_| messages.append(&index));
    let appended = since(start);
    let filled = index.stats();
    writeln!(out, "{count} messages in {conversations} conversations")?;
    writeln!(out, "appended in {appended} ms, {} flushes beside", filled.flushes)?;
    writeln!(
        out,
        "in memory: {} bytes of messages, {} of conversations; process {} kB more than at the begin",
        filled.messages_bytes,
        filled.conversations_bytes,
        resident()? - begin
    )?;
    let start = SystemClock.wall();
    drop(writer);
    writeln!(out, "last flush: {} ms", since(start))?;
    let start = SystemClock.wall();
    drop(index);
    writeln!(out, "closed in {} ms", since(start))?;
    let size: u64 = sizes(&path)?;
    writeln!(out, "on disk: {size} bytes, {:.1} a message", size as f64 / count as f64)?;
    let before = resident()?;
    let start = SystemClock.wall();
    let index = opened(&path);
    let opening = since(start);
    assert_eq!(index.last(conversation((count - 1) % conversations)).1, Position(count), "it is all there");
    let stats = index.stats();
    writeln!(
        out,
        "opened in {opening} ms: {} bytes of conversations, process {} kB ({before} kB before)",
        stats.conversations_bytes,
        resident()?
    )
}

/// Milliseconds since then.
fn since(start: Timestamp) -> u64 {
    SystemClock.wall().0 - start.0
}

/// What the process has in memory, in kB.
fn resident() -> io::Result<i64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0))
}

fn sizes(directory: &std::path::Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { sizes(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
