//! What a peer owes acknowledgements of, and since when: what was written is counted in and, when QUIC lets go of it, counted out.
//!
//! quinn-proto does not tell what was acknowledged, but it keeps each written chunk until then, in order. So every chunk
//! goes to it with an owner that counts itself out when it is dropped: one small allocation a write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Buf, Bytes};

use crate::link::{StreamId, Unacknowledged};

/// The chunks of one connection that QUIC holds, by stream.
#[derive(Default)]
pub(crate) struct Unacked {
    /// Few, so that looking through them is quick.
    streams: Vec<(StreamId, Chunks)>,
}

/// The chunks of one stream, which are let go of in order.
struct Chunks {
    released: Arc<Released>,
    /// How many were written.
    written: u64,
    /// Their bytes: of a chunk that was cut, the bytes that were offered.
    written_bytes: u64,
    /// How many were written, at `marked_at`, when last all those of the mark before had been let go of.
    mark: u64,
    marked_at: Instant,
}

/// What QUIC let go of. Atomics only because `Bytes` may cross threads.
#[derive(Default)]
struct Released {
    chunks: AtomicU64,
    bytes: AtomicU64,
}

impl Released {
    fn add(&self, bytes: u64) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A chunk that counts itself out.
struct Counted {
    bytes: Bytes,
    released: Arc<Released>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.released.add(self.bytes.len() as u64);
    }
}

impl Unacked {
    /// Has `write` write `bytes` to a stream, as often as it takes, and counts what it took.
    ///
    /// # Errors
    ///
    /// What `write` says; `bytes` is advanced past what was taken all the same.
    pub(crate) fn write<E>(
        &mut self,
        stream: StreamId,
        bytes: &mut Bytes,
        now: Instant,
        mut write: impl FnMut(&mut Bytes) -> Result<usize, E>,
    ) -> Result<(), E> {
        let chunks = self.chunks(stream, now);
        let mut counted = Bytes::from_owner(Counted { bytes: bytes.clone(), released: chunks.released.clone() });
        let offered = bytes.len();
        let mut outcome = Ok(());
        while bytes.has_remaining() && outcome.is_ok() {
            outcome = write(&mut counted).map(|taken| bytes.advance(taken));
        }
        // The rest of a chunk that was cut is dropped here; QUIC's part of it holds it still.
        drop(counted);
        if bytes.len() == offered {
            // Nobody holds it, and it was never written.
            chunks.released.chunks.fetch_sub(1, Ordering::Relaxed);
            chunks.released.bytes.fetch_sub(offered as u64, Ordering::Relaxed);
        } else {
            let passed = chunks.released() >= chunks.mark;
            chunks.written += 1;
            chunks.written_bytes += offered as u64;
            if passed {
                chunks.mark = chunks.written;
                chunks.marked_at = now;
            }
        }
        outcome
    }

    /// What QUIC still holds, and when the oldest chunk of it was written; late by a round trip at most, since the chunks between
    /// two marks go by the first of them.
    pub(crate) fn sum(&self) -> Option<Unacknowledged> {
        let held = self.streams.iter().filter(|(_, chunks)| chunks.released() < chunks.written);
        let owed = held.map(|(_, chunks)| Unacknowledged { since: chunks.marked_at, bytes: chunks.held_bytes() });
        owed.reduce(|a, b| Unacknowledged { since: a.since.min(b.since), bytes: a.bytes + b.bytes })
    }

    fn chunks(&mut self, stream: StreamId, now: Instant) -> &mut Chunks {
        if let Some(found) = self.streams.iter().position(|(known, _)| *known == stream) {
            return &mut self.streams[found].1;
        }
        // Streams that are done with make room for new ones.
        self.streams.retain(|(_, chunks)| chunks.released() < chunks.written);
        // Most connections have two, a device's control stream and its inbox: no room for more is kept.
        self.streams.reserve_exact(1);
        self.streams
            .push((stream, Chunks { released: Arc::default(), written: 0, written_bytes: 0, mark: 0, marked_at: now }));
        &mut self.streams.last_mut().expect("one was pushed").1
    }
}

impl Chunks {
    fn released(&self) -> u64 {
        self.released.chunks.load(Ordering::Relaxed)
    }

    fn held_bytes(&self) -> u64 {
        self.written_bytes - self.released.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// QUIC as it keeps chunks: what was taken of each.
    type Held = Vec<Bytes>;

    fn write(unacked: &mut Unacked, stream: u64, held: &mut Held, room: usize, now: Instant) -> usize {
        let mut bytes = Bytes::from_static(b"chunk");
        let mut room = room;
        let outcome = unacked.write(StreamId(stream), &mut bytes, now, |rest| {
            if room == 0 {
                return Err(());
            }
            let taken = room.min(rest.len());
            room -= taken;
            held.push(rest.split_to(taken));
            Ok(taken)
        });
        assert_eq!(outcome.is_ok(), bytes.is_empty());
        5 - bytes.len()
    }

    fn since(unacked: &Unacked) -> Option<Instant> {
        unacked.sum().map(|owed| owed.since)
    }

    #[test]
    fn the_oldest_chunk_that_is_held_tells_the_time() {
        let start = crate::tests::support::system_now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut unacked, mut held) = (Unacked::default(), Held::new());
        assert_eq!(since(&unacked), None);
        for second in [1, 2] {
            assert_eq!(write(&mut unacked, 3, &mut held, 5, at(second)), 5);
        }
        assert_eq!(since(&unacked), Some(at(1)));
        // The first is let go of: the next write sets another mark.
        held.remove(0);
        assert_eq!(write(&mut unacked, 3, &mut held, 2, at(3)), 2);
        assert_eq!(since(&unacked), Some(at(3)));
        // What was not taken counts neither as written nor as let go of.
        for second in 4..8 {
            assert_eq!(write(&mut unacked, 3, &mut held, 0, at(second)), 0);
            assert_eq!(since(&unacked), Some(at(3)));
        }
        assert_eq!(unacked.sum().map(|owed| owed.bytes), Some(10));
        held.clear();
        assert_eq!(since(&unacked), None);
        assert_eq!(write(&mut unacked, 3, &mut held, 5, at(9)), 5);
        assert_eq!(since(&unacked), Some(at(9)));
    }

    #[test]
    fn a_stream_that_is_read_does_not_hide_one_that_is_not() {
        let start = crate::tests::support::system_now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut unacked, mut unread, mut read) = (Unacked::default(), Held::new(), Held::new());
        write(&mut unacked, 3, &mut unread, 5, at(1));
        for second in 2..9 {
            write(&mut unacked, 7, &mut read, 5, at(second));
            read.clear();
        }
        assert_eq!(unacked.sum(), Some(Unacknowledged { since: at(1), bytes: 5 }));
    }
}
