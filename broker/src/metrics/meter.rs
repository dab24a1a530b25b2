//! What the busy threads count: one block for each thread, written by it alone.
//!
//! A counter is an atomic that only its owner writes, with a plain load, add and store: no locked instruction, and no
//! cache line that another busy thread touches. Who reads sees each value at some moment of its own; nothing here is exact
//! across two values.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use carillon_protocol::error::ErrorCode;

use crate::journal::Room;

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, on the owner's thread.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Sets, on the owner's thread.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads, on any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by error code. Codes from `CODES` on are counted under the last one.
#[derive(Debug)]
pub struct CodeCounts([Counter; CODES]);

/// Room for every code there is (a test says so) and some to come.
const CODES: usize = 64;

impl Default for CodeCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl CodeCounts {
    /// One more of this code.
    pub fn count(&self, code: ErrorCode) {
        self.0[usize::from(code.0).min(CODES - 1)].add(1);
    }

    /// How many of this code there were.
    pub fn get(&self, code: ErrorCode) -> u64 {
        self.0[usize::from(code.0).min(CODES - 1)].get()
    }
}

/// How often values fell into which range; the bounds are the caller's, ascending and inclusive.
#[derive(Debug)]
pub struct Histogram<const BOUNDS: usize> {
    bounds: &'static [u64; BOUNDS],
    counts: [Counter; BOUNDS],
    above: Counter,
    sum: Counter,
}

impl<const BOUNDS: usize> Histogram<BOUNDS> {
    /// Nothing was observed yet.
    pub fn new(bounds: &'static [u64; BOUNDS]) -> Self {
        let counts = std::array::from_fn(|_| Counter::default());
        Self { bounds, counts, above: Counter::default(), sum: Counter::default() }
    }

    /// One more value, on the owner's thread.
    pub fn observe(&self, value: u64) {
        let nth = self.bounds.partition_point(|bound| *bound < value);
        self.counts.get(nth).unwrap_or(&self.above).add(1);
        self.sum.add(value);
    }

    /// The sum of all values, and for each bound how many lie in its range; the last one has no bound.
    pub fn read(&self) -> (u64, Vec<(Option<u64>, u64)>) {
        let bounded = self.bounds.iter().zip(&self.counts).map(|(bound, count)| (Some(*bound), count.get()));
        (self.sum.get(), bounded.chain([(None, self.above.get())]).collect())
    }
}

/// When a thread last took its turn.
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// `None` in simulations, which nobody watches.
    origin: Option<Instant>,
    /// Milliseconds after the origin.
    beat_ms: Counter,
}

impl Heartbeat {
    /// Beats count from here; the first is now.
    pub fn from(origin: Instant) -> Self {
        Self { origin: Some(origin), beat_ms: Counter::default() }
    }

    /// The thread takes its turn.
    pub fn beat(&self, now: Instant) {
        if let Some(origin) = self.origin {
            self.beat_ms.set(millis(now.saturating_duration_since(origin)));
        }
    }

    /// How long the last beat is over.
    pub fn age_ms(&self, now: Instant) -> u64 {
        let passed = self.origin.map_or(0, |origin| millis(now.saturating_duration_since(origin)));
        passed.saturating_sub(self.beat_ms.get())
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counters of one edge.
#[derive(Debug, Default)]
#[repr(align(128))]
#[allow(missing_docs, reason = "each is described where it is served, in `collect`")]
pub struct EdgeMeter {
    pub heartbeat: Heartbeat,
    pub sessions_opened: Counter,
    pub sessions_opening: Counter,
    pub sessions_live: Counter,
    pub sessions_catching_up: Counter,
    pub publishes: Counter,
    pub publishes_done: Counter,
    pub requests: Counter,
    pub delivered_live: Counter,
    pub delivered_catching_up: Counter,
    pub fell_behind: Counter,
    pub fell_off_ring: Counter,
    pub closed_as_slow: Counter,
    pub rounds_cut: Counter,
    pub reads: Counter,
    pub unreadable: Counter,
    pub receipts_let_go: Counter,
    pub replies_owed: Counter,
    pub ring_next: Counter,
    pub pinned_bytes: Counter,
    pub closes: CodeCounts,
    pub refusals: CodeCounts,
    pub ended_by_peer: Counter,
    pub ended_silent: Counter,
    pub ended_broken: Counter,
    pub connections: Counter,
    pub handshakes: Counter,
    pub handshakes_failed: Counter,
    pub connections_refused: Counter,
    pub retries: Counter,
    pub incoming_dropped: Counter,
    pub packets_received: Counter,
    pub packets_sent: Counter,
    pub packets_dropped: Counter,
    pub handovers: Counter,
    pub handovers_dropped: Counter,
}

/// Upper bounds of a batch's records: powers of four up to what a batch of 256 KiB can hold.
const BATCH_RECORDS: [u64; 8] = [1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// Upper bounds of a batch's bytes: from one small message to the bound of a batch, and of one oversized record.
const BATCH_BYTES: [u64; 7] = [256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576];

/// Upper bounds of a commit's time in microseconds: from a disk with a battery to one that is about to fail.
const COMMIT_US: [u64; 13] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000, 10_000_000];

/// Counters of the sequencer.
#[derive(Debug)]
#[repr(align(128))]
#[allow(missing_docs, reason = "each is described where it is served, in `collect`")]
pub struct SequencerMeter {
    pub heartbeat: Heartbeat,
    pub batch_records: Histogram<8>,
    pub batch_bytes: Histogram<7>,
    pub commit_us: Histogram<13>,
    pub head: Counter,
    pub dings_open: Counter,
    pub dings_confirmed: Counter,
    pub dings_expired: Counter,
    pub dings_recalled: Counter,
    /// Calls that wait until their outlet has room.
    pub ding_calls_waiting: Counter,
    /// A [`Room`], as a number.
    pub room: Counter,
    pub prepared_bytes: Counter,
}

impl SequencerMeter {
    /// How much room the journal has.
    pub fn room(&self) -> Room {
        let rooms = [Room::Enough, Room::Reserve, Room::Last];
        rooms.into_iter().find(|room| *room as u64 == self.room.get()).unwrap_or_default()
    }
}

impl Default for SequencerMeter {
    fn default() -> Self {
        Self::new(Heartbeat::default())
    }
}

impl SequencerMeter {
    /// Nothing was counted yet.
    pub fn new(heartbeat: Heartbeat) -> Self {
        Self {
            heartbeat,
            batch_records: Histogram::new(&BATCH_RECORDS),
            batch_bytes: Histogram::new(&BATCH_BYTES),
            commit_us: Histogram::new(&COMMIT_US),
            head: Counter::default(),
            dings_open: Counter::default(),
            dings_confirmed: Counter::default(),
            dings_expired: Counter::default(),
            dings_recalled: Counter::default(),
            ding_calls_waiting: Counter::default(),
            room: Counter::default(),
            prepared_bytes: Counter::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_value_falls_into_the_first_range_that_holds_it() {
        let histogram = Histogram::new(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1_000] {
            histogram.observe(value);
        }
        assert_eq!(histogram.read(), (1_062, vec![(Some(10), 2), (Some(20), 2), (None, 2)]));
    }

    #[test]
    fn every_code_has_a_count_of_its_own() {
        let counts = CodeCounts::default();
        assert!(ErrorCode::ALL.iter().all(|(code, _)| usize::from(code.0) < CODES - 1));
        counts.count(ErrorCode::SLOW);
        counts.count(ErrorCode(60_000));
        assert_eq!(counts.get(ErrorCode::SLOW), 1);
        assert_eq!(counts.get(ErrorCode(u16::MAX)), 1);
        assert_eq!(counts.get(ErrorCode::BUSY), 0);
    }

    #[test]
    fn a_heart_ages_until_it_beats() {
        let start = carillon_transport::Clock::now(&crate::clock::SystemClock);
        let heartbeat = Heartbeat::from(start);
        let later = start + Duration::from_secs(5);
        assert_eq!(heartbeat.age_ms(later), 5_000);
        heartbeat.beat(later);
        assert_eq!(heartbeat.age_ms(later), 0);
        assert_eq!(heartbeat.age_ms(start), 0);
    }
}
