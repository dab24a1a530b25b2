//! What is to be run, and when each message is due.

use std::time::{Duration, Instant};

use crate::schedule::Schedule;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sessions that receive.
    pub sessions: u32,
    /// Times at which messages are due.
    pub rounds: u32,
    /// Messages due at each.
    pub batch: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
    /// Time from round to round.
    pub interval: Duration,
    /// Sockets that the sessions are spread over.
    pub sockets: u16,
    /// Handshakes at once.
    pub connecting_max: u32,
    /// Messages after which a session acknowledges.
    pub ack_messages: u32,
    /// It acknowledges so often in any case, if there is anything.
    pub ack_every: Duration,
    /// Handles are this with a dash and a number.
    pub prefix: String,
    /// Give up when nothing happens for so long.
    pub patience: Duration,
    /// Give up after so long.
    pub time_limit: Duration,
    /// The broker's process, on this machine.
    pub broker_pid: Option<u32>,
}

impl Plan {
    /// Messages of the whole run.
    pub(crate) fn messages(&self) -> u32 {
        self.rounds * self.batch
    }

    /// Deliveries that are due before a moment.
    pub(crate) fn due_until(&self, schedule: &Schedule, now: Instant) -> u64 {
        u64::from(schedule.count_until(now).min(self.messages())) * u64::from(self.sessions)
    }

    /// When they are due, in a run that begins at `start`.
    pub(crate) fn schedule(&self, start: Instant) -> Schedule {
        Schedule { start, interval: self.interval, batch: self.batch }
    }
}
