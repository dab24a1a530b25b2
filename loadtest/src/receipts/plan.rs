//! What is to be run.

use std::time::{Duration, Instant};

use crate::others::Others;
use crate::schedule::Schedule;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Members of the group that may mark, connected or not; the authors come on top.
    pub members: u32,
    /// How many of them are connected: these mark. At most [`Plan::members`].
    pub sessions: u32,
    /// Online authors, each of a message in the group.
    pub authors: u32,
    /// Over how long the marks are due.
    pub storm: Duration,
    /// How long the probe runs before the storm, and again after it.
    pub around: Duration,
    /// What the probe keeps up.
    pub others: Others,
    /// Sockets that the sessions are spread over.
    pub sockets: u16,
    /// Handshakes under way at once.
    pub connecting_max: u32,
    /// Handles are this with a dash and a number or a name.
    pub prefix: String,
    /// Give up when nothing happens for so long.
    pub patience: Duration,
    /// Give up after so long.
    pub time_limit: Duration,
    /// The broker's process, on this machine.
    pub broker_pid: Option<u32>,
}

impl Plan {
    /// When the marks are due, one a session, in a storm that begins at `start`.
    pub(super) fn marks(&self, start: Instant) -> Schedule {
        Schedule { start, interval: self.storm / self.sessions, batch: 1 }
    }

    /// The handles of the members.
    pub(super) fn member_handles(&self) -> impl ExactSizeIterator<Item = String> + use<> {
        self.handles("", self.members)
    }

    /// The handles of those members that are connected.
    pub(super) fn session_handles(&self) -> impl ExactSizeIterator<Item = String> + use<> {
        self.handles("", self.sessions)
    }

    /// The handles of the authors.
    pub(super) fn author_handles(&self) -> impl ExactSizeIterator<Item = String> + use<> {
        self.handles("author-", self.authors)
    }

    fn handles(&self, kind: &str, count: u32) -> impl ExactSizeIterator<Item = String> + use<> {
        let prefix = format!("{}-{kind}", self.prefix);
        (0..count).map(move |number| format!("{prefix}{number}"))
    }
}
