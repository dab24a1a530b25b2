//! What is to be run.

use std::time::Duration;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Devices, one a user: each gets the backlog, and DINGs in turn with the others.
    pub devices: u32,
    /// Messages that each has missed when it connects.
    pub backlog: u32,
    /// DINGs that each phase has, at least.
    pub dings: u32,
    /// DINGs a second.
    pub ding_rate: u32,
    /// Services that send the DINGs, in turn.
    pub senders: u32,
    /// Messages a second to every device in the phase with live load.
    pub load_rate: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
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
    /// The handles of the devices' users.
    pub(super) fn handles(&self) -> impl ExactSizeIterator<Item = String> + use<> {
        let prefix = format!("{}-device-", self.prefix);
        (0..self.devices).map(move |number| format!("{prefix}{number}"))
    }

    /// How long a phase takes that has all of its DINGs in a row.
    pub(super) fn phase(&self) -> Duration {
        Duration::from_secs(1) / self.ding_rate * self.dings
    }
}
