//! A replay on three threads: this one reads and decodes, one brings the shard to the head, one the follower. They need nothing
//! of each other, so a start takes as long as the slowest of them, and on two cores half of their sum.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use carillon_core::Shard;
use carillon_core::effect::Effects;
use carillon_core::record::Record;
use carillon_protocol::ids::Position;
use crossbeam::channel::{Receiver, Sender, bounded};
use thiserror::Error;

use super::Follow;
use crate::journal::{Batch, Piece, ReplayError};

/// Records that are handed over at once: a hand-over costs a microsecond, as much as one record.
const CHUNK_RECORDS: usize = 1_024;

/// Chunks on their way to one thread. Full: the reading waits. With what was read for them, 2 MiB each at most, some 20 MiB.
const CHUNKS_QUEUED_MAX: usize = 4;

/// The first position of its batch, a record's position, and the record; `None` if it is lost to damage.
type Decoded = (Position, Position, Option<Record>);
type Chunk = Arc<Vec<Decoded>>;

/// A record that cannot be applied.
#[derive(Debug)]
pub(super) struct Refused {
    /// The first position of its batch.
    pub(super) first: Position,
    /// Why.
    pub(super) source: ReplayError,
}

/// Stands in for the reason until its thread has been asked.
#[derive(Debug, Error)]
#[error("a thread of the replay has ended")]
struct Ended;

/// A shard is given a record that is lost: only a follower may do without one.
#[derive(Debug, Error)]
#[error("it is lost to damage")]
struct Lost;

/// Takes batches, in order.
pub(super) struct Sink {
    /// What lies at or before this is wanted by nobody.
    from: Position,
    chunk: Vec<Decoded>,
    to: Vec<Sender<Chunk>>,
}

impl Sink {
    /// The next batch.
    ///
    /// # Errors
    /// A record cannot be decoded, or a thread has ended, which [`replay`] explains.
    pub(super) fn batch(&mut self, batch: &Batch) -> Result<(), ReplayError> {
        for entry in batch.entries().filter(|entry| entry.position > self.from) {
            let record = Record::decode(entry.private, entry.frame).map_err(ReplayError::new)?;
            self.chunk.push((batch.first(), entry.position, Some(record)));
        }
        self.hand_over_if_full()
    }

    /// The next of a reading around damage.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub(super) fn piece(&mut self, piece: &Piece<'_>) -> Result<(), ReplayError> {
        match piece {
            Piece::Batch(batch) => return self.batch(batch),
            Piece::Record(entry) => {
                let record = Record::decode(entry.private.clone(), entry.frame.clone()).map_err(ReplayError::new)?;
                self.chunk.push((entry.position, entry.position, Some(record)));
            }
            Piece::Lost(position) => self.chunk.push((*position, *position, None)),
        }
        self.hand_over_if_full()
    }

    fn hand_over_if_full(&mut self) -> Result<(), ReplayError> {
        if self.chunk.len() >= CHUNK_RECORDS { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), ReplayError> {
        let chunk = Arc::new(std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_RECORDS)));
        for to in &self.to {
            to.send(chunk.clone()).map_err(|_| ReplayError::new(Ended))?;
        }
        Ok(())
    }
}

/// Runs `read` on this thread, with a sink that brings what it is given to the shard, if there is one, and to the follower, which
/// has everything up to `followed`.
///
/// # Errors
/// The record that the shard refuses. What `read` returns is then of no interest.
pub(super) fn replay<T>(
    shard: Option<&mut Shard>,
    (follower, followed): (&mut (dyn Follow + Send), Position),
    read: impl FnOnce(&mut Sink) -> T,
) -> Result<T, Refused> {
    thread::scope(|scope| {
        let from = shard.as_ref().map_or(followed, |shard| shard.head().min(followed));
        let (to_follower, chunks) = bounded(CHUNKS_QUEUED_MAX);
        let following = scope.spawn(move || follow(follower, followed, &chunks));
        let mut to = vec![to_follower];
        let applying = shard.map(|shard| {
            let (to_shard, chunks) = bounded(CHUNKS_QUEUED_MAX);
            to.push(to_shard);
            scope.spawn(move || apply(shard, &chunks))
        });
        let mut sink = Sink { from, chunk: Vec::new(), to };
        let outcome = read(&mut sink);
        // Who does not take it any more says why.
        sink.hand_over().ok();
        drop(sink);
        join(following);
        applying.map_or(Ok(()), join)?;
        Ok(outcome)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn follow(follower: &mut dyn Follow, followed: Position, chunks: &Receiver<Chunk>) {
    for chunk in chunks {
        for (_, position, record) in chunk.iter().filter(|(_, position, _)| *position > followed) {
            match record {
                Some(record) => follower.follow(*position, record),
                None => follower.lose(*position),
            }
        }
    }
}

fn apply(shard: &mut Shard, chunks: &Receiver<Chunk>) -> Result<(), Refused> {
    let mut effects = Effects::default();
    for chunk in chunks {
        for (first, position, record) in chunk.iter() {
            if *position > shard.head() {
                let refused = |source| Refused { first: *first, source };
                let record = record.as_ref().ok_or_else(|| refused(ReplayError::new(Lost)))?;
                shard.apply(record, &mut effects).map_err(|error| refused(ReplayError::new(error)))?;
                effects.signals.clear();
            }
        }
    }
    Ok(())
}
