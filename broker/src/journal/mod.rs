//! The journal: the ordered, durable log of a shard, and the only truth.
//!
//! Owns the segment files, their layout, and what is durable. A record is two opaque runs of bytes to it: a *private*
//! part, which only the broker needs, and a *frame*, which goes to clients as it is. It must not know what either
//! means, read a clock, or name a session.
//!
//! # Invariants
//!
//! - Positions are dense from 1. A batch is one contiguous run of them.
//! - [`Journal::commit`] returns only after its batch is durable, and batch n + 1 is written only after batch n is. So
//!   at most one batch, the last, is ever in doubt.
//! - A disk that is about to be full is met before a write can fail on it: batches go into files that are there already, and
//!   when no further one can be prepared, [`Journal::room`] says so while a reserve is left.
//! - A failed write or sync is final: the journal is poisoned, and no call is tried again.
//! - Readers see durable positions only.
//! - What was durable is noted beside the segments: an end that is missing is refused, as damage anywhere else is.
//! - Recovery deletes nothing that may have been acknowledged. What it cannot explain as the tail of an interrupted
//!   commit, it refuses, with the place and a remedy.
//!
//! # What is assumed of a disk
//!
//! After a power failure each 512-byte sector of an unsynced write is old, new or damaged where it was being
//! written, independently of the others; bytes that were rewritten with the same value keep it.
//!
//! # The map
//!
//! [`mod@format`] layouts · `batch` draft and batch · `storage` files, `memory` simulated ones · `segment` names, index
//! and creation · `scan` the walk through one segment · `options` what it is opened as · `recovery` open, `report` what it says · `writer` commit and
//! roll · `proof` how far it was durable · `spare` the next segment and the reserve, made in advance · `room` whether there is any · `upkeep` the oldest ones leave · `reader` and `pool` reading by position, `replay` reading all of a range, around damage if need be, `lost` what that goes on without · `verify` the walk
//! through everything · `walk` batches for tools.

use carillon_protocol::ids::{Epoch, Incarnation, Position};

mod batch;
mod begin;
pub mod format;
mod limits;
mod lost;
mod memory;
mod options;
mod pool;
mod proof;
mod reader;
mod recovery;
mod replay;
mod report;
mod room;
mod scan;
mod segment;
mod spare;
mod storage;
#[cfg(test)]
mod tests;
mod upkeep;
mod usage;
mod verify;
mod walk;
mod writer;

pub use batch::{Batch, Draft, Entry};
pub use format::{FormatError, Identity};
pub use limits::{
    BATCH_BYTES_HARD_MAX, BATCH_BYTES_MAX, FREE_BYTES_MIN_DEFAULT, INDEX_STRIDE_BYTES, INPUT_BYTES_MAX, LOST_RUNS_MAX,
    READER_QUEUE_DEFAULT, READER_THREADS_DEFAULT, RESERVE_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN,
};
pub use lost::Lost;
pub use memory::{Loss, MemoryStorage};
pub use options::JournalOptions;
pub(crate) use pool::EndOnPanic;
pub use pool::{ReadDone, ReadJob, ReadRequest, ReaderPool};
pub(crate) use proof::Notes;
pub use reader::{ReadError, Reader};
pub use recovery::{Opened, Replay, Survey, open};
pub use replay::Piece;
pub use report::{Corruption, Cut, OpenError, RecoveryReport, ReplayError};
pub use room::{Room, is_no_room};
pub use segment::{parse_segment_name as segment_file_position, segment_name as segment_file_name};
pub use spare::{Preparer, Preparing};
pub use storage::{FileStorage, ObservedStorage, Storage, StorageError, StorageFile};
pub use upkeep::{SegmentFile, Upkeep};
pub use usage::{Usage, usage};
pub use verify::{Finding, Progress, VerifyReport, verify};
pub use walk::{Extent, SegmentBytes, Walk, WalkError};
pub use writer::{CommitError, SegmentJournal};

/// The ordered, durable log of a shard, for the one thread that sequences it.
pub trait Journal: Send {
    /// Which history this is. Cursors carry it.
    fn incarnation(&self) -> Incarnation;

    /// The owner as which this journal writes.
    fn epoch(&self) -> Epoch;

    /// The last durable position; 0 if there is none.
    fn head(&self) -> Position;

    /// Whether what makes the journal grow may be taken. One that cannot tell has enough.
    fn room(&self) -> Room {
        Room::Enough
    }

    /// Bytes that can be committed without any room being asked of the disk; 0 if that is not known.
    fn prepared_bytes(&self) -> u64 {
        0
    }

    /// Writes the draft and makes it durable before it returns.
    ///
    /// # Errors
    ///
    /// Every error is final: the journal is poisoned and each later call fails. Whether the batch is durable is
    /// unknown until the journal is opened again.
    ///
    /// # Panics
    ///
    /// If the draft is empty, or its first position is not `head() + 1`.
    fn commit(&mut self, draft: Draft) -> Result<Batch, CommitError>;
}
