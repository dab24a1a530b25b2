//! What the plans of several scenarios have in common.

use std::time::Duration;

use crate::fleet::Acks;
use crate::rig::Terms;

/// Who takes part, and how long a run may last.
#[derive(Clone, Debug)]
pub struct Basis {
    /// Handles are this with a dash and a number or a name.
    pub prefix: String,
    /// Sockets that the sessions are spread over.
    pub sockets: u16,
    /// Handshakes under way at once.
    pub connecting_max: u32,
    /// Give up when nothing happens for so long.
    pub patience: Duration,
    /// Give up after so long.
    pub time_limit: Duration,
    /// The broker's process, on this machine.
    pub broker_pid: Option<u32>,
}

impl Basis {
    /// How the fleet is run. Sessions acknowledge as the SDK does.
    pub(crate) fn terms(&self) -> Terms {
        Terms { sockets: self.sockets, acks: Acks::SDK, patience: self.patience, time_limit: self.time_limit }
    }

    /// The handles of so many users, as all scenarios name them.
    pub(crate) fn users(&self, count: u32) -> Vec<String> {
        (0..count).map(|number| format!("{}-{number}", self.prefix)).collect()
    }

    /// The handle of the service that prepares the run.
    pub(crate) fn service(&self) -> String {
        format!("{}-publisher", self.prefix)
    }
}
