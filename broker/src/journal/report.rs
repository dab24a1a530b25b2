//! What opening a journal reports, and why it may refuse.

use std::io;

use carillon_protocol::ids::Position;

use super::format::FormatError;
use super::proof;
use super::scan::ScanError;
use super::segment::Mark;

/// What open found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// There was no journal, and one was created.
    pub created: bool,
    /// The last position.
    pub head: Position,
    /// Batches handed to the caller.
    pub replayed_batches: u64,
    /// The torn tail that was cut off.
    pub cut: Option<Cut>,
    /// First and last position of the batch that was made durable anew.
    pub rewritten: Option<(Position, Position)>,
    /// Unfinished segments that were removed.
    pub removed: Vec<String>,
    /// The new name of a last segment whose header was damaged and in which nothing was found.
    pub set_aside: Option<String>,
}

/// A torn tail: what an interrupted commit left behind. It was never acknowledged, unless the disk lied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The file.
    pub segment: String,
    /// Where the tail begins.
    pub offset: u64,
    /// From there to the last byte that is not zero.
    pub bytes: u64,
    /// Why it is no batch.
    pub why: FormatError,
    /// The position it would have begun at.
    pub position: Position,
}

impl Cut {
    /// Where a batch is known to have been.
    fn place(&self) -> String {
        format!(": {} is damaged from byte {} on, {}", self.segment, self.offset, self.why)
    }
}

/// Where and how a journal is damaged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "journal segment {segment} is damaged at byte {offset}, where position {position} should be: {what}. Nothing was \
     changed. Keep a copy of the directory, then restore this segment from a replica or backup, or restore the whole \
     journal from a backup as a new incarnation; `verify` lists every damaged place"
)]
pub struct Corruption {
    /// The file.
    pub segment: String,
    /// Where in it.
    pub offset: u64,
    /// The position that should be there.
    pub position: Position,
    /// What is wrong.
    pub what: String,
}

/// Why a journal cannot be opened. Nothing that may have been acknowledged was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file operation failed. Open may be tried again by a new process.
    #[error("the journal cannot be opened: cannot {action}")]
    Io {
        /// What was being done, with the file's name.
        action: String,
        /// The system's error.
        source: io::Error,
    },
    /// Something that may have been acknowledged is damaged or missing. Needs an operator.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// There is no segment, and there was a journal. Needs an operator.
    #[error("{}", proof::gone(*.noted))]
    Gone {
        /// The last position that was noted as durable.
        noted: Position,
    },
    /// A segment belongs to another shard or history. Needs an operator.
    #[error("journal segment {segment} belongs to {found}, but {expected} was expected; move the stray files away")]
    Foreign {
        /// The file.
        segment: String,
        /// What it should belong to.
        expected: String,
        /// What it belongs to.
        found: String,
    },
    /// A newer program wrote the journal. Needs that program.
    #[error("journal segment {segment} was written by a newer version (format {version} at byte {offset})")]
    Version {
        /// The file.
        segment: String,
        /// Where in it.
        offset: u64,
        /// The version found.
        version: u16,
    },
    /// The journal ends before `from`: acknowledged records are missing, or the snapshot is of another journal.
    #[error(
        "the journal ends at position {head}, before the snapshot at {from}{}; restore the missing segments",
        .torn.as_ref().map(Cut::place).unwrap_or_default()
    )]
    Behind {
        /// The journal's last position.
        head: Position,
        /// Where replay should have begun.
        from: Position,
        /// What follows the last position and is no batch, if anything does: the snapshot proves that it was one.
        torn: Option<Cut>,
    },
    /// The journal begins after `from`: an older snapshot does not suffice any more.
    #[error("the journal begins at position {first}, which leaves a gap after the snapshot at {from}")]
    Truncated {
        /// The journal's first position.
        first: Position,
        /// Where replay should have begun.
        from: Position,
    },
    /// The caller refused a batch.
    #[error("the batch at position {first} cannot be replayed")]
    Replay {
        /// The batch's first position.
        first: Position,
        /// The caller's reason.
        source: ReplayError,
    },
    /// The system has no random numbers for a new journal.
    #[error("no random number for a new journal")]
    Random(#[source] getrandom::Error),
}

/// Why the caller of [`open`](super::open) refused a batch.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReplayError(Box<dyn std::error::Error + Send + Sync>);

impl ReplayError {
    /// Wraps the reason.
    pub fn new(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(reason.into())
    }
}

/// An error of a file operation, with what was being done.
pub(crate) fn io_error(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> OpenError {
    let action = format!("{action} {name}");
    |source| OpenError::Io { action, source }
}

/// Damage at a place.
pub(crate) fn corruption(segment: &str, mark: Mark, what: &str) -> OpenError {
    Corruption { segment: segment.to_owned(), offset: mark.offset, position: mark.first, what: what.to_owned() }.into()
}

/// What a scan's error means to an operator.
pub(crate) fn scan_error(error: ScanError, segment: &str, position: Position) -> OpenError {
    match error {
        ScanError::Io(source) => io_error("read", segment)(source),
        ScanError::Version { offset, version } => OpenError::Version { segment: segment.to_owned(), offset, version },
        ScanError::Damaged { offset, why, later } => {
            let what = format!("{why}, and a later batch follows intact at byte {}", later.offset);
            corruption(segment, Mark { first: position, offset }, &what)
        }
        ScanError::Order { expected, found } => {
            let what = format!("an intact batch of position {} is there", found.first);
            corruption(segment, Mark { first: expected, offset: found.offset }, &what)
        }
    }
}
