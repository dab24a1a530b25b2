//! Commit and roll.

use std::io;
use std::sync::Arc;

use carillon_protocol::ids::{Epoch, Incarnation, Position, ShardId};

use super::batch::{Batch, Draft};
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::limits::{BATCH_BYTES_HARD_MAX, START_BYTES};
use super::proof::Proof;
use super::room::is_no_room;
use super::segment::{Index, Mark, Segment, Segments, create_segment, make};
use super::spare::{Sizes, Spare};
use super::storage::StorageFile;
use super::{Journal, Room};

/// Why a commit failed. Every one is final: the journal takes no further batch, and the process should end. Except for
/// `TooLarge`, `NoRoom` and `Poisoned`, whether the batch is durable is decided when the journal is opened again.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The batch could not be written.
    #[error(
        "a batch could not be written to the journal; the journal accepts nothing more until the broker is restarted"
    )]
    Write(#[source] io::Error),
    /// The batch could not be made durable.
    #[error("a batch could not be made durable; the journal accepts nothing more until the broker is restarted")]
    Sync(#[source] io::Error),
    /// The next segment could not be created.
    #[error(
        "the next journal segment could not be created; the journal accepts nothing more until the broker is restarted"
    )]
    Roll(#[source] io::Error),
    /// There is neither room for the next segment nor a reserve any more. Nothing was written.
    #[error(
        "the disk of the journal is full, and its reserve is used up: free room there, then start the broker again; what was \
         acknowledged is in the journal"
    )]
    NoRoom(#[source] io::Error),
    /// The draft exceeds the hard maximum. Nothing was written.
    #[error("a batch of {bytes} bytes exceeds the largest of {BATCH_BYTES_HARD_MAX}")]
    TooLarge {
        /// Bytes the batch would have.
        bytes: usize,
    },
    /// An earlier commit failed. Nothing was written.
    #[error("the journal accepts nothing more since an earlier commit failed")]
    Poisoned,
}

/// The journal of a shard in segment files.
pub struct SegmentJournal {
    segments: Arc<Segments>,
    shard: ShardId,
    epoch: Epoch,
    sizes: Sizes,
    active: Active,
    proof: Proof,
    poisoned: bool,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub(crate) file: Arc<dyn StorageFile>,
    /// Where the next batch goes.
    pub(crate) offset: u64,
    /// Bytes of the file, which all exist.
    pub(crate) bytes: u64,
}

impl SegmentJournal {
    pub(crate) fn new(
        segments: Arc<Segments>,
        shard: ShardId,
        epoch: Epoch,
        sizes: Sizes,
        (active, proof): (Active, Proof),
    ) -> Self {
        segments.shelf.note_active(active.offset, active.bytes);
        Self { segments, shard, epoch, sizes, active, proof, poisoned: false }
    }

    fn write(&mut self, draft: Draft) -> Result<Batch, CommitError> {
        let bytes = draft.bytes();
        if bytes > BATCH_BYTES_HARD_MAX {
            return Err(CommitError::TooLarge { bytes });
        }
        let batch = draft.seal(self.segments.identity, self.epoch);
        if bytes as u64 > self.active.bytes - self.active.offset {
            self.roll(&batch)?;
        } else {
            self.active.file.write_at(&batch.parts(), self.active.offset).map_err(CommitError::Write)?;
            self.active.file.sync_data().map_err(CommitError::Sync)?;
        }
        self.proof.note(batch.last()).map_err(CommitError::Write)?;
        self.segments.advance(Mark { first: batch.first(), offset: self.active.offset }, batch.last(), bytes);
        self.active.offset += bytes as u64;
        self.segments.shelf.note_active(self.active.offset, self.active.bytes);
        Ok(batch)
    }

    /// Goes on in a new segment, which begins with the batch. That it exists proves that everything before is durable.
    fn roll(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let offset = SEGMENT_HEADER_BYTES as u64;
        let prepared = self.prepared(batch.first(), offset + batch.bytes() as u64)?;
        let Self { segments, shard, epoch, .. } = self;
        let header = SegmentHeader { shard: *shard, identity: segments.identity, epoch: *epoch, first: batch.first() };
        let made = create_segment(&*segments.storage, &header, &batch.parts(), prepared).map_err(CommitError::Roll)?;
        self.segments.shelf.renamed();
        self.segments.push(Segment::new(batch.first(), Some(Index::default())));
        self.active = Active { file: made.file, offset, bytes: made.bytes };
        Ok(())
    }

    /// The spare; or a file that is made now; or, if the disk has no room for that, the reserve; or what is just enough. All of it before
    /// anything of the batch is written.
    fn prepared(&self, first: Position, bytes_min: u64) -> Result<Spare, CommitError> {
        let shelf = &self.segments.shelf;
        let bytes = self.sizes.segment_bytes.max(bytes_min);
        if let Some(spare) = shelf.take(bytes) {
            return Ok(spare);
        }
        // What little is free when the journal is short of room is not taken at once.
        let bytes = if shelf.is_short() { bytes.min(START_BYTES).max(bytes_min) } else { bytes };
        match make(&*self.segments.storage, first, bytes) {
            Ok(made) => Ok(made),
            Err(error) if is_no_room(&error) => match shelf.take_reserve(bytes_min) {
                Some(reserve) => {
                    tracing::error!(%error, "the disk has no room for the next journal segment: the reserve is taken");
                    Ok(reserve)
                }
                // Of nothing but the batch, as a start makes one: every roll costs a file then, and the journal goes on.
                None => make(&*self.segments.storage, first, bytes_min).map_err(|again| {
                    if is_no_room(&again) { CommitError::NoRoom(error) } else { CommitError::Roll(again) }
                }),
            },
            Err(error) => Err(CommitError::Roll(error)),
        }
    }
}

impl Journal for SegmentJournal {
    fn incarnation(&self) -> Incarnation {
        self.segments.identity.incarnation
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn head(&self) -> Position {
        self.segments.head()
    }

    fn room(&self) -> Room {
        let shelf = &self.segments.shelf;
        if !shelf.is_short() {
            return Room::Enough;
        }
        let left = self.prepared_bytes() + shelf.free_bytes();
        if left < self.sizes.reserve_bytes / 2 { Room::Last } else { Room::Reserve }
    }

    fn prepared_bytes(&self) -> u64 {
        self.active.bytes - self.active.offset + self.segments.shelf.prepared_bytes()
    }

    fn commit(&mut self, draft: Draft) -> Result<Batch, CommitError> {
        if self.poisoned {
            return Err(CommitError::Poisoned);
        }
        assert!(!draft.is_empty(), "a batch has at least one record");
        assert_eq!(draft.first(), self.head().next(), "a batch follows the last one");
        let result = self.write(draft);
        self.poisoned = result.is_err();
        result
    }
}
