//! What is due when. Derived from the state, never part of it: each open or kept DING has exactly one entry.

use alloc::collections::BTreeSet;
use carillon_protocol::ids::{DingId, Timestamp};

/// Due times, the earliest first; at one time the older DING first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Timestamp, DingId)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, due: Timestamp, ding: DingId) {
        self.due.insert((due, ding));
    }

    pub(crate) fn disarm(&mut self, due: Timestamp, ding: DingId) {
        self.due.remove(&(due, ding));
    }

    /// When the earliest is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The DING of the earliest, if it is due at `now`.
    pub(crate) fn due(&self, now: Timestamp) -> Option<DingId> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, ding)| *ding)
    }
}
