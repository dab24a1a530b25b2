//! The sending side of DINGs: what is due, and when its sender learns that it is durable and that it was confirmed.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::ids::{DingId, UserId};
use carillon_protocol::limits::REQUESTS_PENDING_MAX;

use crate::ding_frames::{self, Heard};
use crate::limits::MESSAGES_MAX;
use crate::publisher::payload;
use crate::samples::Samples;
use crate::schedule::Schedule;

/// What is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Dinging {
    /// Tells this run's DINGs from those of others.
    pub(crate) run: u64,
    /// When.
    pub(crate) schedule: Schedule,
    /// To these in turn, one each.
    pub(crate) recipients: Vec<UserId>,
    /// From so many sessions in turn.
    pub(crate) senders: usize,
    /// Bytes of each payload.
    pub(crate) payload_bytes: usize,
}

/// See the module. DINGs are counted from 0.
pub(crate) struct Dinger {
    what: Dinging,
    /// Those from here on are never sent.
    end: u32,
    next: u32,
    /// By sender: requests without an answer.
    pending: Vec<usize>,
    /// Which DING it is, until its sender knows that it is confirmed.
    indices: HashMap<DingId, u32>,
    /// Confirmations that were known before the broker had named the DING: they come on another stream.
    early: HashMap<DingId, Instant>,
    pub(crate) written: Samples,
    pub(crate) created: Samples,
    pub(crate) known: Samples,
}

impl Dinger {
    pub(crate) fn new(what: Dinging) -> Self {
        let samples = || Samples::new(what.schedule);
        Self {
            end: MESSAGES_MAX,
            next: 0,
            pending: vec![0; what.senders],
            indices: HashMap::new(),
            early: HashMap::new(),
            written: samples(),
            created: samples(),
            known: samples(),
            what,
        }
    }

    /// Sends nothing that is due at this moment or later.
    pub(crate) fn stop_at(&mut self, end: Instant) {
        self.end = self.end.min(self.what.schedule.count_until(end)).max(self.next);
    }

    /// When the next one is to be sent; `None` if all were, or an answer must come first.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let has_room = self.pending[self.sender(self.next)] < REQUESTS_PENDING_MAX;
        (self.next < self.end && has_room).then(|| self.what.schedule.due_at(self.next))
    }

    /// A DING that is due: its sender, counted from 0, and the frame.
    pub(crate) fn poll_due(&mut self, now: Instant) -> Option<(usize, Bytes)> {
        let index = self.next;
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let sender = self.sender(index);
        let recipient = self.what.recipients[index as usize % self.what.recipients.len()];
        // A run has far fewer than 2^20 DINGs, and its number is a time in milliseconds: nobody else has this key.
        let key = (self.what.run << 20) | u64::from(index);
        let content = payload(self.what.run, index, self.what.payload_bytes);
        self.pending[sender] += 1;
        self.next += 1;
        self.written.record(index, now);
        Some((sender, ding_frames::create(index + 1, key, recipient, content)))
    }

    /// Takes what a sender hears, on its control stream or its urgent lane.
    ///
    /// # Errors
    /// The broker refused a DING.
    pub(crate) fn take(&mut self, now: Instant, sender: usize, frame: Frame) -> Result<(), String> {
        match ding_frames::hear(frame) {
            Heard::Created { request, ding } => {
                let index = request.checked_sub(1).filter(|index| *index < self.next);
                let index = index.ok_or_else(|| format!("an answer to request {request}, which was not made"))?;
                self.pending[sender] = self.pending[sender].saturating_sub(1);
                self.created.record(index, now);
                match self.early.remove(&ding) {
                    Some(known) => {
                        self.known.record(index, known);
                    }
                    None => {
                        self.indices.insert(ding, index);
                    }
                }
                Ok(())
            }
            Heard::Known { ding } => {
                match self.indices.remove(&ding) {
                    Some(index) => {
                        self.known.record(index, now);
                    }
                    // If all have a name, it is one of an earlier run.
                    None if self.created.seen() < self.next => {
                        self.early.insert(ding, now);
                    }
                    None => {}
                }
                Ok(())
            }
            Heard::Refused { why } => Err(format!("the broker refused a DING: {why}")),
            Heard::Push { .. } | Heard::Confirmed | Heard::Other => Ok(()),
        }
    }

    /// DINGs sent so far.
    pub(crate) fn sent(&self) -> u32 {
        self.next
    }

    /// Whether its senders know that every DING is confirmed.
    pub(crate) fn is_done(&self) -> bool {
        self.next >= self.end && self.known.seen() >= self.next
    }

    fn sender(&self, index: u32) -> usize {
        index as usize % self.what.senders
    }
}
