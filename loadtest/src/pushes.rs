//! The receiving side of DINGs: when each arrives, and its confirmation at once.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::ids::DingId;
use carillon_protocol::limits::REQUESTS_PENDING_MAX;

use crate::ding_frames::{self, Heard};
use crate::publisher::index_in;
use crate::samples::Samples;
use crate::schedule::Schedule;

/// What a session has to confirm.
#[derive(Debug, Default)]
pub(crate) struct Confirming {
    requested: u32,
    pending: usize,
    /// Those for which there is no room yet: at most the DINGs that the broker lets wait for a user.
    waiting: VecDeque<DingId>,
}

impl Confirming {
    /// Whether nothing is to be confirmed, or on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending == 0 && self.waiting.is_empty()
    }

    /// The confirmation that may be sent next.
    pub(crate) fn poll(&mut self) -> Option<Bytes> {
        if self.pending >= REQUESTS_PENDING_MAX {
            return None;
        }
        let ding = self.waiting.pop_front()?;
        self.pending += 1;
        self.requested += 1;
        Some(ding_frames::confirm(self.requested, ding))
    }
}

/// See the module.
pub(crate) struct Pushes {
    run: u64,
    /// When each came first.
    pub(crate) pushed: Samples,
    /// Pushes of what had come before.
    pub(crate) repeated: u32,
    refused: Option<String>,
}

impl Pushes {
    /// Of the DINGs of this run, due by this schedule.
    pub(crate) fn new(run: u64, schedule: Schedule) -> Self {
        Self { run, pushed: Samples::new(schedule), repeated: 0, refused: None }
    }

    /// Takes what a recipient hears, on its control stream or its urgent lane. DINGs that an earlier run has left are
    /// confirmed too, so that they do not pile up.
    pub(crate) fn take(&mut self, now: Instant, confirming: &mut Confirming, frame: Frame) {
        match ding_frames::hear(frame) {
            Heard::Push { ding, payload } => {
                if let Some(index) = index_in(&payload, self.run)
                    && !self.pushed.record(index, now)
                {
                    self.repeated += 1;
                }
                confirming.waiting.push_back(ding);
            }
            Heard::Confirmed => confirming.pending = confirming.pending.saturating_sub(1),
            Heard::Refused { why } => {
                confirming.pending = confirming.pending.saturating_sub(1);
                self.refused.get_or_insert(why);
            }
            Heard::Created { .. } | Heard::Known { .. } | Heard::Other => {}
        }
    }

    /// Why the first confirmation that was refused was.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}
