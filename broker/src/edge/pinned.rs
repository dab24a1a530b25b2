//! What the unread data of sessions keeps in memory, and who goes when it is too much.
//!
//! A slice in a connection's queue keeps the whole of its buffer alive until the peer acknowledges it: a batch, mostly, that may
//! have left the ring long ago. So the edge counts **buffers**, not slices: a batch once, however many sessions have slices
//! of it and however small these are; a copy, made for a round or for a slice of catch-up, by its own size. The count goes down
//! when the last slice of the buffer is let go of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_protocol::error::ErrorCode;
use carillon_transport::{Link, LinkKey};

use super::limits::OWES_BYTES_MUCH;
use super::{Edge, Links};

/// The buffers that slices of one edge's sessions keep alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Pinned {
    /// An atomic only because `Bytes` may cross threads; they do not.
    bytes: Arc<AtomicUsize>,
}

/// A buffer that counts itself out.
struct Buffer {
    content: Bytes,
    bytes: usize,
    pinned: Pinned,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pinned.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Pinned {
    /// The bytes as they are to be sliced for sessions: while any slice lives, so many bytes count.
    pub(super) fn pin(&self, content: Bytes, bytes: usize) -> Bytes {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Bytes::from_owner(Buffer { content, bytes, pinned: self.clone() })
    }

    /// How much there is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Edge {
    /// Bytes that unacknowledged slices of this edge's sessions keep alive.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned.bytes()
    }

    /// Closes the sessions that have not acknowledged for longest until what is pinned is within its bound, or nobody is left
    /// who owes for more than a second: first those that owe so much that it helps, since a phone that vanished with one message
    /// on its way is neither the cause nor the cure. They lose nothing: they resume from their cursors.
    pub(super) fn relieve<L: Links>(&mut self, links: &mut L) {
        let bytes_max = self.limits.pinned_bytes_max;
        let (now, patience) = (self.instant(), Duration::from_millis(self.limits.owes_ms_min));
        if self.pinned.bytes() <= bytes_max || self.relieve_again_at.is_some_and(|at| now < at) {
            return;
        }
        // A look at every session: not each turn, in which those who are about to acknowledge would wait for it.
        self.relieve_again_at = Some(now + patience / 10);
        let before_long = now.checked_sub(patience);
        let owed = |key: LinkKey| links.link(key)?.unacknowledged().map(|owed| (owed, key));
        let debtors = self.sessions.iter().map(|session| session.key).filter_map(owed);
        let debtors = debtors.filter(|(owed, _)| Some(owed.since) <= before_long);
        let mut debtors: Vec<(bool, Instant, LinkKey)> =
            debtors.map(|(owed, key)| (owed.bytes < OWES_BYTES_MUCH, owed.since, key)).collect();
        debtors.sort_unstable();
        let (before, mut closed) = (self.pinned.bytes(), 0);
        for (_, _, key) in debtors {
            if self.pinned.bytes() <= bytes_max {
                break;
            }
            self.close(
                links,
                key,
                ErrorCode::SLOW,
                "slow, resume: what this session does not read takes too much memory",
            );
            closed += 1;
        }
        if closed > 0 {
            self.stats.closed_as_slow += closed;
            tracing::warn!(before, after = self.pinned.bytes(), closed, "sessions that do not read were closed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_counts_once_until_its_last_slice_is_gone() {
        let pinned = Pinned::default();
        let batch = Bytes::from(vec![1; 1_000]);
        let pin = pinned.pin(batch.slice(10..90), 1_000);
        assert_eq!((pin.len(), pinned.bytes()), (80, 1_000));
        let (one, other) = (pin.slice(..5), pin.slice(20..30));
        let copy = pinned.pin(Bytes::from_static(b"copy"), 4);
        drop(pin);
        drop(one);
        assert_eq!(pinned.bytes(), 1_004);
        drop(other);
        assert_eq!(pinned.bytes(), 4);
        drop(copy);
        assert_eq!(pinned.bytes(), 0);
        assert!(batch.is_unique());
    }
}
