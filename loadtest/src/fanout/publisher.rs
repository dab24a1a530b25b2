//! The publishing side: what is due, within the producer's window, and what the broker said to it.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::ConversationId;
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::Publish;
use hdrhistogram::Histogram;

use super::{Plan, tally};
use crate::limits::{BUSY_PAUSE, PAYLOAD_BYTES_MIN, PUBLISH_BYTES_A_WRITE, WINDOW};

/// See the module. Messages are counted from 0; the producer's numbers go on after those of earlier runs.
pub(super) struct Publisher {
    plan: Plan,
    run: u64,
    start: Instant,
    conversation: ConversationId,
    /// The producer's number of message 0.
    first_number: u64,
    /// The next message to be sent.
    next: u32,
    /// All messages below have their answer.
    low: u32,
    settled: Vec<bool>,
    settled_count: u32,
    /// Set by a refusal as too much at once.
    paused_until: Option<Instant>,
    late_max: Duration,
    latency: Histogram<u64>,
}

impl Publisher {
    pub(super) fn new(
        plan: &Plan,
        run: u64,
        start: Instant,
        conversation: ConversationId,
        producer_highest: u64,
    ) -> Self {
        Self {
            plan: plan.clone(),
            run,
            start,
            conversation,
            first_number: producer_highest + 1,
            next: 0,
            low: 0,
            settled: vec![false; plan.messages() as usize],
            settled_count: 0,
            paused_until: None,
            late_max: Duration::ZERO,
            latency: tally::histogram(),
        }
    }

    /// When the next message is to be sent; `None` if all were, or an answer must come first.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.next >= self.plan.messages() || u64::from(self.next - self.low) >= WINDOW {
            return None;
        }
        let due = self.plan.due_at(self.start, self.next);
        Some(self.paused_until.map_or(due, |until| due.max(until)))
    }

    /// Appends messages that are due, as many as one write holds.
    pub(super) fn encode_due(&mut self, now: Instant, out: &mut BytesMut) {
        while out.len() < PUBLISH_BYTES_A_WRITE && self.next_due().is_some_and(|due| due <= now) {
            let index = self.next;
            self.late_max = self.late_max.max(now.saturating_duration_since(self.plan.due_at(self.start, index)));
            let publish = Publish {
                number: self.first_number + u64::from(index),
                low: self.first_number + u64::from(self.low),
                target: Target::CONVERSATION,
                target_id: self.conversation.0,
                kind: MessageKind::TEXT,
                payload: self.payload(index),
            };
            publish.encode(out);
            self.next += 1;
        }
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// The broker refused a message for good.
    pub(super) fn take(&mut self, now: Instant, frame: &Frame) -> Result<(), String> {
        match frame {
            Frame::Published(published) => {
                let index = self.index(published.number)?;
                self.settle(now, index);
                Ok(())
            }
            Frame::PublishRefused(refused) if refused.code == ErrorCode::BUSY => {
                // The later ones are refused too: go on from the lowest.
                self.next = self.next.min(self.index(refused.number)?);
                self.paused_until = Some(now + BUSY_PAUSE);
                Ok(())
            }
            Frame::PublishRefused(refused) => {
                Err(format!("the broker refused a message: {} ({})", refused.code, refused.text))
            }
            Frame::Goodbye(_) => Err("the broker says goodbye: it is about to stop".to_owned()),
            other => Err(format!("a message was answered by {}", other.name())),
        }
    }

    /// Messages sent so far.
    pub(super) fn sent(&self) -> u32 {
        self.next
    }

    /// Whether every message has its answer.
    pub(super) fn is_done(&self) -> bool {
        self.settled_count == self.plan.messages()
    }

    /// From the scheduled time to the answer, in microseconds.
    pub(super) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// The longest from the scheduled time to the writing.
    pub(super) fn late_max(&self) -> Duration {
        self.late_max
    }

    fn index(&self, number: u64) -> Result<u32, String> {
        let index = number.checked_sub(self.first_number).and_then(|index| u32::try_from(index).ok());
        index
            .filter(|index| *index < self.plan.messages())
            .ok_or_else(|| format!("an answer to message {number}, which was not sent"))
    }

    fn settle(&mut self, now: Instant, index: u32) {
        if std::mem::replace(&mut self.settled[index as usize], true) {
            return;
        }
        self.settled_count += 1;
        tally::record(&mut self.latency, now, self.plan.due_at(self.start, index));
        while self.settled.get(self.low as usize).is_some_and(|settled| *settled) {
            self.low += 1;
        }
        // A message that was to be sent again has its answer after all.
        self.next = self.next.max(self.low);
    }

    fn payload(&self, index: u32) -> Bytes {
        let mut payload = BytesMut::with_capacity(self.plan.payload_bytes);
        payload.put_u64_le(self.run);
        payload.put_u64_le(u64::from(index));
        payload.put_bytes(b'x', self.plan.payload_bytes - PAYLOAD_BYTES_MIN);
        payload.freeze()
    }
}
