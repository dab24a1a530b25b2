//! What is to be run.

use std::time::Duration;

use crate::others::Others;

/// What the broker is strained with, while a probe measures what that does to everybody else.
#[derive(Clone, Debug)]
pub enum Strain {
    /// Publishers want to publish several times what the broker can take.
    Overload {
        /// Sessions that publish, each into a group of its own with one listener.
        producers: u32,
        /// How long they publish as fast as they can, to learn what that is.
        flat_out: Duration,
        /// How many times that is due afterwards, by the clock.
        factor: f64,
        /// The most that the broker may have resident, in MiB; `None`: it is only told.
        memory_max_mib: Option<u32>,
    },
    /// Some of those who listen stop reading, for as long as it lasts, and then read on.
    Deaf {
        /// Sessions that listen to one group.
        sessions: u32,
        /// How many of a hundred stop reading.
        percent: u32,
        /// Messages a second into the group.
        rate: u32,
    },
    /// Sessions that hold as much of the broker as they can.
    Hoard {
        /// How many.
        sessions: u32,
    },
    /// First packets of connections that go no further.
    Flood {
        /// Packets a second.
        rate: u32,
    },
}

impl Strain {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Overload { .. } => "overload",
            Self::Deaf { .. } => "deaf",
            Self::Hoard { .. } => "hoard",
            Self::Flood { .. } => "flood",
        }
    }

    /// What of it is counted second by second; `None` if nothing is.
    pub(super) fn of(&self) -> Option<&'static str> {
        match self {
            Self::Overload { .. } => Some("messages acknowledged to the publishers"),
            Self::Deaf { .. } => Some("deliveries to the listeners"),
            Self::Hoard { .. } => None,
            Self::Flood { .. } => Some("first packets"),
        }
    }
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// With what.
    pub strain: Strain,
    /// How long.
    pub during: Duration,
    /// How long the probe runs before it.
    pub before: Duration,
    /// How long it runs after it.
    pub after: Duration,
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
    /// The handles of so many users of a kind.
    pub(super) fn handles(&self, kind: &str, count: u32) -> Vec<String> {
        (0..count).map(|number| format!("{}-{kind}-{number}", self.prefix)).collect()
    }
}
