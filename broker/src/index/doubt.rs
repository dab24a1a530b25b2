//! Why what is on disk is not believed.

use std::io;
use std::path::PathBuf;

use carillon_protocol::ids::{ConversationId, Incarnation, Position, Seq, ShardId};
use thiserror::Error;

use super::block::BlockFault;

/// A reason to set the index on disk aside and build it anew from the journal.
#[derive(Debug, Error)]
pub(super) enum Doubt {
    /// The store could not do what it was asked.
    #[error("the store failed: {0}")]
    Store(#[from] sled::Error),
    /// The store panicked.
    #[error("the store panicked: {0}")]
    Panicked(String),
    /// There are files and no record of what they hold.
    #[error("it has no record of what it holds, or a damaged one")]
    Unmarked,
    /// Another version wrote it.
    #[error("it has version {0}")]
    Version(u8),
    /// It belongs to another journal.
    #[error("it is of shard {shard}, incarnation {incarnation}")]
    Foreign {
        /// Whose it is.
        shard: ShardId,
        /// Of which history.
        incarnation: Incarnation,
    },
    /// The journal has lost what the index lacks.
    #[error("it ends at position {through}, and the journal begins at {first}")]
    Behind {
        /// Where it ends.
        through: Position,
        /// Where the journal begins.
        first: Position,
    },
    /// The record of a conversation is damaged.
    #[error("the record of conversation {0} is damaged")]
    Row(ConversationId),
    /// There is no tree of marks.
    #[error("it has no marks")]
    NoMarks,
    /// A mark is damaged, or the one before it is lost.
    #[error("a mark of conversation {0} is damaged or lost")]
    ReadMark(ConversationId),
    /// A block is not what it should be.
    #[error("the block of conversation {conversation} with seq {seq}: {fault}")]
    Block {
        /// Whose.
        conversation: ConversationId,
        /// A seq that it should hold.
        seq: Seq,
        /// What is wrong.
        fault: BlockFault,
    },
    /// A record of the journal does not go on where the index ends, or the shard ends elsewhere.
    #[error(
        "conversation {conversation} goes on at seq {seq}, position {position}; the index has it up to {last_seq}, {last}"
    )]
    OutOfStep {
        /// Which.
        conversation: ConversationId,
        /// What the journal says.
        seq: Seq,
        /// What the journal says.
        position: Position,
        /// What the index says.
        last_seq: Seq,
        /// What the index says.
        last: Position,
    },
    /// The index knows conversations that the shard does not.
    #[error("it has {index} conversations with messages, the shard {shard}")]
    Count {
        /// In the index.
        index: u64,
        /// In the shard.
        shard: u64,
    },
}

impl Doubt {
    /// Whether it is the disk that takes nothing more, so that what lies there is as good as before.
    pub(super) fn is_of_disk(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let Self::Store(sled::Error::Io(error)) = self else { return false };
        matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied)
    }
}

/// Why the index could not be built anew. It stays in memory, and what is not there is not to be had.
#[derive(Debug, Error)]
pub(super) enum RebuildError {
    /// The new files cannot be made.
    #[error("cannot use {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The new store failed at once.
    #[error(transparent)]
    Doubt(#[from] Doubt),
    /// The journal cannot be read.
    #[error("cannot read the journal: {0}")]
    Journal(#[from] crate::journal::ReadError),
    /// A record of the journal cannot be decoded.
    #[error("the record at position {position} cannot be decoded: {source}")]
    Record {
        /// Which.
        position: Position,
        /// Why.
        source: carillon_core::record::RecordError,
    },
    /// The broker stops.
    #[error("interrupted")]
    Interrupted,
}
