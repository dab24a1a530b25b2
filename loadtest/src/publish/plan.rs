//! What is to be published.

use std::time::Duration;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sessions or connections that publish.
    pub producers: u32,
    /// Messages of each that may be without an answer.
    pub window: u32,
    /// Messages a second that are due, of all together; `None`: as many as the windows let out. Peers have no rate.
    pub rate: Option<u32>,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
    /// Published before the measuring begins.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
    /// Source addresses that the connections come from.
    pub sources: u16,
    /// Handles are this with a dash and more. Peers have none.
    pub prefix: String,
    /// Give up when nothing happens for so long.
    pub patience: Duration,
    /// Give up after so long.
    pub time_limit: Duration,
    /// The server's process, on this machine.
    pub server_pid: Option<u32>,
}
