//! What a pending DING takes in memory.
//!
//! ```console
//! cargo run --release -p carillon-bench --example ding_size -- DINGS
//! ```
//!
//! Each goes to one recipient with a payload of 128 bytes, by a plan of three steps. What the process takes is read from `/proc`.

use std::fs;
use std::io::{self, Write};

use carillon_bench::dings::{DINGS_MAX, Dings};

fn main() -> io::Result<()> {
    let count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(DINGS_MAX);
    let mut out = io::stdout().lock();
    let begin = resident_bytes()?;
    let mut dings = Dings::of(count);
    let scheduled = resident_bytes()? - begin;
    writeln!(out, "{count} scheduled: {scheduled} bytes, {} each", scheduled / u64::from(count))?;
    for _ in 0..count {
        assert_eq!(dings.tick_when_due(), 1, "one is due each millisecond");
    }
    let sent = resident_bytes()? - begin;
    writeln!(out, "their first step begun: {sent} bytes, {} each", sent / u64::from(count))
}

/// What the process has in memory.
fn resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.trim().parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1_024).ok_or_else(|| io::Error::other("no VmRSS in /proc/self/status"))
}
