//! What is due when. Derived from the state, never part of it: each open or kept DING has exactly one entry.

use alloc::collections::BTreeSet;
use carillon_protocol::ids::{DingId, Timestamp};

/// What is done when a timer fires. What people wait for comes before what only tidies up, however long that has been due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// A step begins, or the DING expires.
    Act,
    /// The DING is forgotten.
    Forget,
}

/// Due times, the earliest of a purpose first; at one time the older DING first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Purpose, Timestamp, DingId)>,
}

impl Timers {
    pub(crate) fn arm(&mut self, (purpose, due): (Purpose, Timestamp), ding: DingId) {
        self.due.insert((purpose, due, ding));
    }

    pub(crate) fn disarm(&mut self, (purpose, due): (Purpose, Timestamp), ding: DingId) {
        self.due.remove(&(purpose, due, ding));
    }

    /// The earliest of each purpose, the more urgent one first.
    fn firsts(&self) -> impl Iterator<Item = (Timestamp, DingId)> {
        let first = |purpose| self.due.range((purpose, Timestamp(0), DingId(0))..).next();
        let of = move |purpose| first(purpose).filter(|entry| entry.0 == purpose).map(|(_, due, ding)| (*due, *ding));
        [Purpose::Act, Purpose::Forget].into_iter().filter_map(of)
    }

    /// When the earliest is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.firsts().map(|(due, _)| due).min()
    }

    /// The DING of the most urgent one that is due at `now`.
    pub(crate) fn due(&self, now: Timestamp) -> Option<DingId> {
        self.firsts().find(|(due, _)| *due <= now).map(|(_, ding)| ding)
    }
}
