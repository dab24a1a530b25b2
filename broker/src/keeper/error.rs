//! Why the keeper has not done its work.

use std::io;

use carillon_core::ApplyError;
use carillon_core::record::RecordError;
use carillon_protocol::ids::Position;
use thiserror::Error;

use crate::index::TruncateError;
use crate::journal::ReadError;

/// Why a snapshot was not taken, or a segment not removed. Nothing is lost by it.
#[derive(Debug, Error)]
pub enum KeepError {
    /// The keeper is to end.
    #[error("the keeper was stopped")]
    Stopped,
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A snapshot cannot be listed, written or removed.
    #[error("the files cannot be changed: {0}")]
    Files(#[from] io::Error),
    /// A record cannot be decoded.
    #[error("a record of the journal cannot be decoded: {0}")]
    Record(#[from] RecordError),
    /// A record contradicts the state. A defect of the program, or of the machine's memory.
    #[error("the journal contradicts the snapshot before it: {0}")]
    Apply(#[from] ApplyError),
    /// The disk has no room for a snapshot: nothing was written.
    #[error("a snapshot needs {needed} bytes, and {free} are free: make room on the disk of the data directory")]
    NoRoom {
        /// What it takes, or what the one before took.
        needed: u64,
        /// What is free.
        free: u64,
    },
    /// No snapshot reaches the journal's begin.
    #[error("no usable snapshot reaches the journal, which begins at position {first}")]
    NoBase {
        /// The first position there is.
        first: Position,
    },
    /// No thread can be started for it.
    #[error("no thread can be started to take a snapshot: {0}")]
    Thread(io::Error),
    /// The index needs the journal as it is: it is being built anew, or cannot write on a full disk.
    #[error("the index cannot do without the journal's oldest records now: {0}")]
    Floor(#[from] TruncateError),
}
