//! What a journal is opened as, and the defaults.

use carillon_protocol::ids::{Epoch, ShardId};

use super::format::Identity;
use super::limits::{FREE_BYTES_MIN_DEFAULT, RESERVE_BYTES_DEFAULT, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN};
use super::spare::Sizes;

/// What a journal is opened as.
#[derive(Clone, Debug)]
pub struct JournalOptions {
    /// The shard whose journal it is; that of another is refused.
    pub shard: ShardId,
    /// The owner as which it writes.
    pub epoch: Epoch,
    /// Size of new segments; at least [`SEGMENT_BYTES_MIN`] is used. A batch that fits none gets a larger one.
    pub segment_bytes: u64,
    /// Size of the reserve. A batch that does not fit it cannot be taken when the disk is full.
    pub reserve_bytes: u64,
    /// Free room of the file system below which nothing is taken that makes the journal grow.
    pub free_bytes_min: u64,
    /// What a new journal is given; random if `None`. An existing one keeps its own.
    pub identity: Option<Identity>,
}

impl JournalOptions {
    /// The defaults, for a single machine.
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            epoch: Epoch(1),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            free_bytes_min: FREE_BYTES_MIN_DEFAULT,
            identity: None,
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let Self { segment_bytes, reserve_bytes, free_bytes_min, .. } = *self;
        Sizes { segment_bytes: segment_bytes.max(SEGMENT_BYTES_MIN), reserve_bytes, free_bytes_min }
    }
}
