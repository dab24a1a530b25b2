//! The publishing side: what is due, within the producer's window, and what the broker said to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::Publish;

use crate::channel::Purpose;
use crate::fleet::{Fleet, SessionIndex};
use crate::limits::{BUSY_PAUSE, PAYLOAD_BYTES_MIN, PUBLISH_BYTES_A_WRITE, WINDOW};
use crate::schedule::Schedule;

/// What is to be published.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    /// Tells this run's messages from those of others.
    pub(crate) run: u64,
    /// When.
    pub(crate) schedule: Schedule,
    /// How many; it may be made fewer on the way.
    pub(crate) messages: u32,
    /// Into these in turn; at least one.
    pub(crate) conversations: Vec<ConversationId>,
    /// At least [`PAYLOAD_BYTES_MIN`].
    pub(crate) payload_bytes: usize,
}

/// What a message is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A conversation that is there.
    Conversation(ConversationId),
    /// The direct conversation with this user.
    User(UserId),
}

/// See the module. Messages are counted from 0; the producer's numbers go on after those of earlier runs.
pub(crate) struct Publisher {
    what: Publishing,
    /// Where to, in turn; at least one.
    places: Vec<Place>,
    /// The producer's number of message 0.
    first_number: u64,
    /// The next message to be sent.
    next: u32,
    /// No later message was ever sent: a refusal as too much at once lets the next one be an earlier one again.
    sent: u32,
    /// Messages that may be without an answer; at most [`WINDOW`].
    window: u64,
    /// All messages below have their answer.
    low: u32,
    /// Which of those from `low` on have it; at most [`WINDOW`] of them.
    settled: VecDeque<bool>,
    /// Set by a refusal as too much at once.
    paused_until: Option<Instant>,
    late_max: Duration,
}

impl Publisher {
    pub(crate) fn new(what: Publishing, producer_highest: u64) -> Self {
        Self {
            places: what.conversations.iter().copied().map(Place::Conversation).collect(),
            what,
            first_number: producer_highest + 1,
            next: 0,
            sent: 0,
            window: WINDOW,
            low: 0,
            settled: VecDeque::new(),
            paused_until: None,
            late_max: Duration::ZERO,
        }
    }

    /// Publishes to these in turn, instead of the conversations.
    pub(crate) fn with_places(self, places: Vec<Place>) -> Self {
        Self { places, ..self }
    }

    /// The session is a new one: what has no answer is sent again.
    pub(crate) fn rewind(&mut self) {
        self.next = self.low;
    }

    /// Lets so many messages be without an answer, and no more than the protocol does.
    pub(crate) fn with_window(self, window: u32) -> Self {
        Self { window: u64::from(window).min(WINDOW), ..self }
    }

    /// Publishes nothing that is due at this moment or later.
    pub(crate) fn stop_at(&mut self, end: Instant) {
        let messages = self.what.messages.min(self.what.schedule.count_until(end));
        self.what.messages = messages.max(self.sent);
    }

    /// Publishes nothing that was not sent yet.
    pub(crate) fn stop(&mut self) {
        self.what.messages = self.sent;
    }

    /// When the next message is to be sent; `None` if all were, or an answer must come first.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.next >= self.what.messages || u64::from(self.next - self.low) >= self.window {
            return None;
        }
        let due = self.what.schedule.due_at(self.next);
        Some(self.paused_until.map_or(due, |until| due.max(until)))
    }

    /// Whether something that is due was not sent.
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        self.next < self.what.messages && self.what.schedule.due_at(self.next) <= now
    }

    /// Sends what is due, as far as the stream takes it.
    pub(crate) fn send_due(&mut self, now: Instant, fleet: &mut Fleet, session: SessionIndex) {
        while fleet.is_clear(session, Purpose::Publish) {
            let mut frames = BytesMut::new();
            self.encode_due(now, &mut frames);
            if frames.is_empty() {
                break;
            }
            fleet.send(session, Purpose::Publish, Bytes::from(frames));
        }
    }

    /// Takes an answer; says which message has got its first.
    ///
    /// # Errors
    /// The broker refused a message for good, or for want of room on its disk: nobody makes room during a run.
    pub(crate) fn take(&mut self, now: Instant, frame: &Frame) -> Result<Option<u32>, String> {
        match frame {
            Frame::Published(published) => {
                let index = self.index(published.number)?;
                Ok(self.settle(index).then_some(index))
            }
            Frame::PublishRefused(refused) if refused.code == ErrorCode::BUSY => {
                // The later ones are refused too: go on from the lowest.
                self.next = self.next.min(self.index(refused.number)?);
                self.paused_until = Some(now + BUSY_PAUSE);
                Ok(None)
            }
            Frame::PublishRefused(refused) => {
                Err(format!("the broker refused a message: {} ({})", refused.code, refused.text))
            }
            Frame::Goodbye(_) => Err("the broker says goodbye: it is about to stop".to_owned()),
            other => Err(format!("a message was answered by {}", other.name())),
        }
    }

    /// Messages sent so far.
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// Whether every message has its answer.
    pub(crate) fn is_done(&self) -> bool {
        self.low >= self.what.messages
    }

    /// The longest from the scheduled time to the writing.
    pub(crate) fn late_max(&self) -> Duration {
        self.late_max
    }

    /// Appends messages that are due, as many as one write holds.
    fn encode_due(&mut self, now: Instant, out: &mut BytesMut) {
        while out.len() < PUBLISH_BYTES_A_WRITE && self.next_due().is_some_and(|due| due <= now) {
            let index = self.next;
            // What is sent again was late before.
            if index >= self.sent {
                self.late_max = self.late_max.max(now.saturating_duration_since(self.what.schedule.due_at(index)));
            }
            let (target, target_id) = match self.places[index as usize % self.places.len()] {
                Place::Conversation(conversation) => (Target::CONVERSATION, conversation.0),
                Place::User(user) => (Target::USER, u64::from(user.0)),
            };
            let publish = Publish {
                number: self.first_number + u64::from(index),
                low: self.first_number + u64::from(self.low),
                target,
                target_id,
                kind: MessageKind::TEXT,
                payload: payload(self.what.run, index, self.what.payload_bytes),
            };
            publish.encode(out);
            self.next += 1;
            self.sent = self.sent.max(self.next);
        }
    }

    fn index(&self, number: u64) -> Result<u32, String> {
        let index = number.checked_sub(self.first_number).and_then(|index| u32::try_from(index).ok());
        index
            .filter(|index| *index < self.what.messages)
            .ok_or_else(|| format!("an answer to message {number}, which was not sent"))
    }

    /// Whether it is this message's first answer.
    fn settle(&mut self, index: u32) -> bool {
        let Some(place) = index.checked_sub(self.low) else { return false };
        let place = place as usize;
        if self.settled.len() <= place {
            self.settled.resize(place + 1, false);
        }
        let is_first = !std::mem::replace(&mut self.settled[place], true);
        while self.settled.front().is_some_and(|settled| *settled) {
            self.settled.pop_front();
            self.low += 1;
        }
        // A message that was to be sent again has its answer after all.
        self.next = self.next.max(self.low);
        is_first
    }
}

/// A payload that says which message of which run it is.
pub(crate) fn payload(run: u64, index: u32, bytes: usize) -> Bytes {
    let mut payload = BytesMut::with_capacity(bytes.max(PAYLOAD_BYTES_MIN));
    payload.put_u64_le(run);
    payload.put_u64_le(u64::from(index));
    payload.put_bytes(b'x', bytes.saturating_sub(PAYLOAD_BYTES_MIN));
    payload.freeze()
}

/// Which message it is, if it is one of this run.
pub(crate) fn index_in(payload: &Bytes, run: u64) -> Option<u32> {
    let (of, rest) = payload.split_first_chunk::<8>()?;
    let (index, _) = rest.split_first_chunk::<8>()?;
    let index = u32::try_from(u64::from_le_bytes(*index)).ok()?;
    (u64::from_le_bytes(*of) == run).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use carillon_protocol::publish::PublishRefused;

    fn due_at_once(now: Instant, messages: u32) -> Publishing {
        let schedule = Schedule { start: now, interval: Duration::ZERO, batch: 1 };
        Publishing { run: 1, schedule, messages, conversations: vec![ConversationId(1)], payload_bytes: 16 }
    }

    #[test]
    fn no_more_than_the_window_is_without_an_answer() {
        let now = SystemClock.now();
        let mut publisher = Publisher::new(due_at_once(now, 10), 0).with_window(3);
        let mut out = BytesMut::new();
        for (settled, sent) in [(None, 3), (Some(1), 3), (Some(0), 5)] {
            settled.map(|index| publisher.settle(index));
            publisher.encode_due(now, &mut out);
            assert_eq!(publisher.sent(), sent, "after {settled:?}");
        }
    }

    #[test]
    fn what_is_refused_as_too_much_is_sent_again_and_a_full_disk_ends_the_run() {
        let now = SystemClock.now();
        let mut publisher = Publisher::new(due_at_once(now, 3), 0);
        publisher.encode_due(now, &mut BytesMut::new());
        let refused = |code| Frame::PublishRefused(PublishRefused { number: 2, code, text: "no".into() });
        assert_eq!(publisher.take(now, &refused(ErrorCode::BUSY)), Ok(None));
        assert_eq!(publisher.next, 1, "from the refused one on");
        let error = publisher.take(now, &refused(ErrorCode::NO_ROOM)).unwrap_err();
        assert!(error.contains("NO_ROOM"), "{error}");
    }
}
