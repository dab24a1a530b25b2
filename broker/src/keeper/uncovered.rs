//! How far snapshots are behind the journal.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::journal::Upkeep;

/// The bytes of the journal that the newest snapshot does not cover: a start replays them, and retention must leave them.
pub struct Uncovered {
    upkeep: Upkeep,
    /// What [`Upkeep::committed_bytes`] was when the newest snapshot was begun, less what this process found uncovered if there
    /// has been none since: modulo 2⁶⁴.
    since: AtomicU64,
}

impl Uncovered {
    /// So many bytes were not covered when the journal was opened.
    pub(super) fn new(upkeep: Upkeep, at_start: u64) -> Self {
        Self { upkeep, since: AtomicU64::new(0_u64.wrapping_sub(at_start)) }
    }

    /// How many there are now.
    pub fn bytes(&self) -> u64 {
        self.upkeep.committed_bytes().wrapping_sub(self.since.load(Ordering::Relaxed))
    }

    /// What a snapshot that is begun now will cover, for [`Uncovered::cover`].
    pub(super) fn begin(&self) -> u64 {
        self.upkeep.committed_bytes()
    }

    /// There is a snapshot that was begun then.
    pub(super) fn cover(&self, begun: u64) {
        self.since.store(begun, Ordering::Relaxed);
    }
}
