//! The ring of committed batches: one producer, many readers, no queue per reader to fill up.
//!
//! The sequencer publishes each batch once it is durable; every edge reads at its own ordinal. The oldest batches leave
//! when there are more than [`RING_BATCHES_MAX`] of them or they hold more than [`RING_BYTES_MAX`]; an edge that has not
//! read them by then has fallen off, and turns its sessions to catching up. The sequencer never waits for an edge.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use carillon_core::effect::Signal;
use carillon_protocol::ids::Position;

use crate::journal::Batch;

/// Batches in the ring. At one a 100 µs an edge may be away for 400 ms.
pub const RING_BATCHES_MAX: usize = 4_096;

/// Bytes of the batches in the ring and of their signals; what sessions still send of a batch that has left is pinned beyond it.
pub const RING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A durable batch and what the edges do because of it.
#[derive(Debug)]
pub struct Committed {
    /// Bytes it holds: the batch and what its signals carry.
    bytes: usize,
    /// Place in the ring's sequence, from 0.
    pub ordinal: u64,
    /// The batch.
    pub batch: Batch,
    /// In position order.
    pub signals: Vec<Signal>,
}

/// What a reader finds at an ordinal.
#[derive(Debug)]
pub enum Found {
    /// The batch.
    Batch(Arc<Committed>),
    /// Not there yet.
    NotYet,
    /// There no longer: the reader has fallen off.
    Gone,
}

/// The readers' side.
#[derive(Debug)]
pub struct Ring {
    slots: Box<[ArcSwapOption<Committed>]>,
    /// The oldest ordinal kept.
    tail: AtomicU64,
    /// The next ordinal to be published.
    head: AtomicU64,
}

/// The producer's side; there is one.
#[derive(Debug)]
pub struct RingWriter {
    ring: Arc<Ring>,
    bytes: usize,
    bytes_max: usize,
}

/// A ring of these bounds, empty.
pub fn ring(batches_max: usize, bytes_max: usize) -> (RingWriter, Arc<Ring>) {
    let slots = (0..batches_max.max(1)).map(|_| ArcSwapOption::empty()).collect();
    let ring = Arc::new(Ring { slots, tail: AtomicU64::new(0), head: AtomicU64::new(0) });
    (RingWriter { ring: ring.clone(), bytes: 0, bytes_max }, ring)
}

impl RingWriter {
    /// Shows a durable batch to the edges, and lets go of the oldest ones beyond the bounds.
    pub fn publish(&mut self, batch: Batch, signals: Vec<Signal>) {
        let ordinal = self.ring.head.load(Ordering::Relaxed);
        let bytes = batch.bytes() + signals.iter().map(signal_bytes).sum::<usize>();
        self.bytes += bytes;
        let mut tail = self.ring.tail.load(Ordering::Relaxed);
        while tail < ordinal && (ordinal - tail >= self.ring.slots.len() as u64 || self.bytes > self.bytes_max) {
            // The tail moves first: who searches from it does not look for what is being taken away.
            self.ring.tail.store(tail + 1, Ordering::Release);
            if let Some(old) = self.ring.slot(tail).swap(None) {
                self.bytes -= old.bytes;
            }
            tail += 1;
        }
        self.ring.slot(ordinal).store(Some(Arc::new(Committed { bytes, ordinal, batch, signals })));
        self.ring.head.store(ordinal + 1, Ordering::Release);
    }
}

/// What a signal holds on the heap, beside itself.
fn signal_bytes(signal: &Signal) -> usize {
    let heap = match signal {
        Signal::MembersAdded { users, .. } | Signal::MembersRemoved { users, .. } => size_of_val(users.as_slice()),
        Signal::Urgent { users, frame, .. } => size_of_val(users.as_slice()) + frame.len(),
        Signal::Message { .. }
        | Signal::Read { .. }
        | Signal::Ding { .. }
        | Signal::DeviceRetired { .. }
        | Signal::ProducerRetired { .. } => 0,
    };
    size_of::<Signal>() + heap
}

impl Ring {
    fn slot(&self, ordinal: u64) -> &ArcSwapOption<Committed> {
        let slots = self.slots.len() as u64;
        &self.slots[usize::try_from(ordinal % slots).expect("less than the number of slots")]
    }

    /// The batch with this ordinal.
    pub fn at(&self, ordinal: u64) -> Found {
        if ordinal >= self.head.load(Ordering::Acquire) {
            return Found::NotYet;
        }
        match self.slot(ordinal).load_full() {
            Some(committed) if committed.ordinal == ordinal => Found::Batch(committed),
            _ => Found::Gone,
        }
    }

    /// The ordinal that will be published next.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The batch that holds a position, if it is in the ring. O(log batches).
    pub fn find(&self, position: Position) -> Option<Arc<Committed>> {
        let mut low = self.tail.load(Ordering::Acquire);
        let mut high = self.head.load(Ordering::Acquire);
        while low < high {
            let middle = low + (high - low) / 2;
            let Found::Batch(committed) = self.at(middle) else {
                low = middle + 1;
                continue;
            };
            if committed.batch.last() < position {
                low = middle + 1;
            } else if committed.batch.first() > position {
                high = middle;
            } else {
                return Some(committed);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Draft;
    use crate::journal::{Journal, JournalOptions, MemoryStorage, open};
    use bytes::BufMut;
    use carillon_protocol::ids::ShardId;

    fn batches(count: u64, records_each: u64) -> Vec<Batch> {
        let storage = Arc::new(MemoryStorage::new());
        let opened = open(storage, JournalOptions::new(ShardId(0)), Position(0), &mut |_| Ok(())).unwrap();
        let mut journal = opened.journal;
        let mut batches = Vec::new();
        for _ in 0..count {
            let mut draft = Draft::new(journal.head().next());
            for _ in 0..records_each {
                draft.push(|private, frame| {
                    private.put_u64(1);
                    frame.put_u64(2);
                });
            }
            batches.push(journal.commit(draft).unwrap());
        }
        batches
    }

    #[test]
    fn readers_find_what_is_kept_and_learn_what_is_gone() {
        let (mut writer, ring) = ring(4, usize::MAX);
        assert!(matches!(ring.at(0), Found::NotYet));
        for batch in batches(6, 3) {
            writer.publish(batch, Vec::new());
        }
        assert!(matches!(ring.at(1), Found::Gone));
        for ordinal in 2..6 {
            assert!(matches!(ring.at(ordinal), Found::Batch(c) if c.ordinal == ordinal));
        }
        assert!(matches!(ring.at(6), Found::NotYet));
    }

    #[test]
    fn a_position_is_found_by_search() {
        let (mut writer, ring) = ring(4, usize::MAX);
        for batch in batches(6, 3) {
            writer.publish(batch, Vec::new());
        }
        assert!(ring.find(Position(6)).is_none(), "left with its batch");
        for position in 7..=18 {
            let found = ring.find(Position(position)).unwrap();
            assert!(found.batch.entry(Position(position)).is_some());
        }
        assert!(ring.find(Position(19)).is_none());
    }

    #[test]
    fn what_signals_carry_counts() {
        let (mut writer, ring) = ring(64, 100_000);
        for batch in batches(3, 1) {
            let users = vec![carillon_protocol::ids::UserId(1); 10_000];
            let (position, tenant, frame) = (batch.first(), carillon_protocol::ids::TenantId(0), bytes::Bytes::new());
            writer.publish(batch, vec![Signal::Urgent { position, tenant, users, frame }]);
        }
        assert!(matches!(ring.at(0), Found::Gone), "three lists of 40 kB are over the bound");
        assert!(matches!(ring.at(1), Found::Batch(_)));
    }

    #[test]
    fn bytes_bound_the_ring_but_never_empty_it() {
        let (mut writer, ring) = ring(64, 1);
        for batch in batches(3, 1) {
            writer.publish(batch, Vec::new());
        }
        assert!(matches!(ring.at(1), Found::Gone));
        assert!(matches!(ring.at(2), Found::Batch(_)));
    }
}
