//! Commit and roll.

use std::io;
use std::sync::Arc;

use carillon_protocol::ids::{Epoch, Incarnation, Position, ShardId};

use super::Journal;
use super::batch::{Batch, Draft};
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use super::limits::BATCH_BYTES_HARD_MAX;
use super::segment::{Index, Mark, Segment, Segments, create_segment};
use super::storage::StorageFile;

/// Why a commit failed. Every one is final: the journal takes no further batch, and the process should end. Except for
/// `TooLarge` and `Poisoned`, whether the batch is durable is decided when the journal is opened again.
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
    segment_bytes: u64,
    active: Active,
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
        segment_bytes: u64,
        active: Active,
    ) -> Self {
        Self { segments, shard, epoch, segment_bytes, active, poisoned: false }
    }

    fn write(&mut self, draft: Draft) -> Result<Batch, CommitError> {
        let bytes = draft.bytes();
        if bytes > BATCH_BYTES_HARD_MAX {
            return Err(CommitError::TooLarge { bytes });
        }
        let batch = draft.seal(self.segments.identity, self.epoch);
        if bytes as u64 > self.active.bytes - self.active.offset {
            self.roll(&batch).map_err(CommitError::Roll)?;
        } else {
            self.active.file.write_at(&batch.parts(), self.active.offset).map_err(CommitError::Write)?;
            self.active.file.sync_data().map_err(CommitError::Sync)?;
        }
        self.segments.advance(Mark { first: batch.first(), offset: self.active.offset }, batch.last(), bytes);
        self.active.offset += bytes as u64;
        Ok(batch)
    }

    /// Goes on in a new segment, which begins with the batch. That it exists proves that everything before is durable.
    fn roll(&mut self, batch: &Batch) -> io::Result<()> {
        let Self { segments, shard, epoch, segment_bytes, .. } = self;
        let header = SegmentHeader { shard: *shard, identity: segments.identity, epoch: *epoch, first: batch.first() };
        let offset = SEGMENT_HEADER_BYTES as u64;
        let bytes = (*segment_bytes).max(offset + batch.bytes() as u64);
        let made = create_segment(&*segments.storage, &header, bytes, &batch.parts(), segments.shelf.take(bytes))?;
        self.segments.shelf.renamed();
        self.segments.push(Segment::new(batch.first(), Some(Index::default())));
        self.active = Active { file: made.file, offset, bytes: made.bytes };
        Ok(())
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
