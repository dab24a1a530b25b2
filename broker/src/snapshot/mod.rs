//! Snapshots: the shard's state at one position, so that a start need not replay the whole journal.
//!
//! Owns the files `<position, 20 digits>.snapshot` beside the journal's segments, and nothing that the journal does not
//! also tell: a snapshot may be lost. Two generations are kept; only what the older one covers may leave the journal.
//!
//! # Invariants
//!
//! - A file that bears its name is whole: it was made under a temporary name and is durable before it is renamed.
//! - A snapshot is exact at its position, and that position was durable in the journal before the snapshot was begun.
//! - Nothing is deleted because it is damaged: it is renamed to `.snapshot.damaged` and left to the operator.

use std::io;

use carillon_core::{Shard, StateError};
use carillon_protocol::ids::{Incarnation, Position, ShardId, Timestamp};
use thiserror::Error;

use crate::journal::Storage;

mod compare;
pub mod format;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use compare::{CompareError, Standing, compare};
pub use read::{build, load, read, read_whole};
pub use write::{WRITE_BYTES, write};

/// Generations kept: if the newer one is damaged, the journal still reaches back to the older one.
pub const GENERATIONS: usize = 2;

const SUFFIX: &str = ".snapshot";
const TEMPORARY_SUFFIX: &str = ".snapshot.tmp";
const DAMAGED_SUFFIX: &str = ".snapshot.damaged";

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Whose state.
    pub shard: ShardId,
    /// Of which history.
    pub incarnation: Incarnation,
    /// The last record in it.
    pub position: Position,
    /// When it was taken.
    pub time: Timestamp,
}

/// Why a snapshot cannot be used. Nothing was changed.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The system could not read it.
    #[error("{name} cannot be read: {source}")]
    Io {
        /// The file.
        name: String,
        /// The system's error.
        source: io::Error,
    },
    /// Its bytes are not a snapshot.
    #[error("{name} is damaged at byte {offset}: {what}")]
    Damaged {
        /// The file.
        name: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A newer program wrote it.
    #[error("{name} was written by a newer version (format {version})")]
    Version {
        /// The file.
        name: String,
        /// The version found.
        version: u16,
    },
    /// It is of another shard, history or position.
    #[error("{name} is of shard {}, incarnation {}, position {}", .found.shard, .found.incarnation, .found.position)]
    Foreign {
        /// The file.
        name: String,
        /// What it says.
        found: Meta,
    },
    /// Its checksums match, but the state in it makes no sense to this program.
    #[error("{name} holds no state that this version can use: {source}")]
    State {
        /// The file.
        name: String,
        /// Why.
        source: StateError,
    },
}

/// The file name of the snapshot at a position.
pub fn file_name(position: Position) -> String {
    format!("{:020}{SUFFIX}", position.0)
}

/// The position in a snapshot's file name.
pub fn parse_file_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(SUFFIX)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok().map(Position) } else { None }
}

/// Positions of all snapshots, ascending.
///
/// # Errors
/// The system's.
pub fn list(storage: &dyn Storage) -> io::Result<Vec<Position>> {
    let mut positions: Vec<_> = storage.list()?.iter().filter_map(|name| parse_file_name(name)).collect();
    positions.sort_unstable();
    Ok(positions)
}

/// Removes what an interrupted writer left. Only for the process that holds the directory.
///
/// # Errors
/// The system's.
pub fn remove_unfinished(storage: &dyn Storage) -> io::Result<()> {
    for name in storage.list()?.iter().filter(|name| name.ends_with(TEMPORARY_SUFFIX)) {
        storage.remove(name)?;
    }
    Ok(())
}

/// Renames a damaged snapshot, so that it is not tried again and not counted.
///
/// # Errors
/// The system's.
pub fn set_aside(storage: &dyn Storage, position: Position) -> io::Result<String> {
    let aside = format!("{:020}{DAMAGED_SUFFIX}", position.0);
    storage.rename(&file_name(position), &aside)?;
    storage.sync_directory()?;
    Ok(aside)
}

/// Removes all of these snapshots, which are known to be good and ascend, but the newest [`GENERATIONS`]; returns those that are
/// left. What else lies there, of another history or another version, is neither counted nor touched.
///
/// # Errors
/// The system's; some may be left that should have gone.
pub fn prune(storage: &dyn Storage, good: &[Position]) -> io::Result<Vec<Position>> {
    let (old, kept) = good.split_at(good.len().saturating_sub(GENERATIONS));
    for position in old {
        storage.remove(&file_name(*position))?;
    }
    if !old.is_empty() {
        storage.sync_directory()?;
    }
    Ok(kept.to_vec())
}

/// The canonical bytes of a shard's state.
pub fn encode(shard: &Shard) -> Vec<u8> {
    let mut state = Vec::new();
    shard.encode_state(&mut state);
    state
}
