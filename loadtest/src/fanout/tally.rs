//! The receiving side: every session gets every message, once, in order, under gap-free seqs.

use std::time::{Duration, Instant};

use carillon_protocol::deliver::Deliver;
use carillon_protocol::ids::ConversationId;
use hdrhistogram::Histogram;

use super::Plan;
use crate::failure::Ended;
use crate::latency::{histogram, record};
use crate::publisher::index_in;
use crate::schedule::Schedule;

/// See the module.
pub(super) struct Tally {
    plan: Plan,
    run: u64,
    schedule: Schedule,
    conversation: ConversationId,
    /// The seq of message 0, learnt from the first delivery: from then on seq and index go in step.
    first_seq: Option<u64>,
    /// By session: the message that it must get next.
    next: Vec<u32>,
    delivered: u64,
    misplaced: u64,
    last: Instant,
    latency: Histogram<u64>,
    lost: u32,
    first_loss: Option<String>,
}

impl Tally {
    pub(super) fn new(plan: &Plan, run: u64, schedule: Schedule, conversation: ConversationId) -> Self {
        Self {
            plan: plan.clone(),
            run,
            schedule,
            conversation,
            first_seq: None,
            next: vec![0; plan.sessions as usize],
            delivered: 0,
            misplaced: 0,
            last: schedule.start,
            latency: histogram(),
            lost: 0,
            first_loss: None,
        }
    }

    /// A session, counted from 0, got a message. One that lies ahead of its turn counts as misplaced, and those it has
    /// overtaken are missing: they would be misplaced themselves.
    pub(super) fn take(&mut self, session: usize, now: Instant, deliver: &Deliver) {
        if deliver.conversation != self.conversation {
            return;
        }
        let Some(index) = self.index(deliver) else {
            self.misplaced += 1;
            return;
        };
        let first_seq = *self.first_seq.get_or_insert(deliver.seq.0.saturating_sub(u64::from(index)));
        let is_in_step = deliver.seq.0 == first_seq + u64::from(index);
        if index != self.next[session] || !is_in_step {
            self.misplaced += 1;
            self.next[session] = self.next[session].max(index + 1);
            return;
        }
        self.next[session] += 1;
        self.delivered += 1;
        self.last = now;
        record(&mut self.latency, now, self.schedule.due_at(index));
    }

    /// A session is no more.
    pub(super) fn lose(&mut self, why: &Ended) {
        self.lost += 1;
        self.first_loss.get_or_insert_with(|| why.to_string());
    }

    /// Whether every session has got the first so many messages.
    pub(super) fn has_all_of(&self, messages: u32) -> bool {
        self.delivered + self.misplaced >= u64::from(self.plan.sessions) * u64::from(messages)
    }

    /// Whether nothing more can come: all is there, or nobody is left to get it.
    pub(super) fn is_done(&self) -> bool {
        self.has_all_of(self.plan.messages()) || self.lost == self.plan.sessions
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn misplaced(&self) -> u64 {
        self.misplaced
    }

    pub(super) fn lost(&self) -> u32 {
        self.lost
    }

    pub(super) fn first_loss(&self) -> Option<&str> {
        self.first_loss.as_deref()
    }

    /// From the scheduled time to the delivery, in microseconds.
    pub(super) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// From the first message's time to the last delivery; above zero.
    pub(super) fn span(&self) -> Duration {
        self.last.saturating_duration_since(self.schedule.start).max(Duration::from_micros(1))
    }

    /// Which message of this run it is.
    fn index(&self, deliver: &Deliver) -> Option<u32> {
        let index = index_in(&deliver.payload, self.run)?;
        let is_ours = deliver.payload.len() == self.plan.payload_bytes && index < self.plan.messages();
        is_ours.then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use bytes::{BufMut, BytesMut};
    use carillon_protocol::ids::{Position, Seq, Timestamp, UserId};
    use carillon_protocol::kinds::MessageKind;

    const RUN: u64 = 5;
    const HERE: ConversationId = ConversationId(9);

    fn tally() -> Tally {
        let plan = Plan {
            sessions: 2,
            rounds: 3,
            batch: 1,
            payload_bytes: 16,
            interval: Duration::ZERO,
            sockets: 1,
            connecting_max: 1,
            ack_messages: 1,
            ack_every: Duration::from_secs(1),
            prefix: "load".into(),
            patience: Duration::ZERO,
            time_limit: Duration::ZERO,
            broker_pid: None,
        };
        Tally::new(&plan, RUN, plan.schedule(SystemClock.now()), HERE)
    }

    fn deliver(run: u64, index: u64, seq: u64) -> Deliver {
        let mut payload = BytesMut::new();
        payload.put_u64_le(run);
        payload.put_u64_le(index);
        Deliver {
            position: Position(1),
            conversation: HERE,
            seq: Seq(seq),
            author: UserId(0),
            time: Timestamp(0),
            kind: MessageKind::TEXT,
            payload: payload.freeze(),
        }
    }

    /// Gives session 0 these messages (run, index, seq) and says what was counted.
    fn check(messages: &[(u64, u64, u64)], delivered: u64, misplaced: u64) {
        let mut tally = tally();
        for &(run, index, seq) in messages {
            tally.take(0, SystemClock.now(), &deliver(run, index, seq));
        }
        assert_eq!((tally.delivered(), tally.misplaced()), (delivered, misplaced), "{messages:?}");
        assert!(!tally.is_done(), "the other session has nothing");
    }

    #[test]
    fn what_is_in_order_counts_and_nothing_else() {
        check(&[(RUN, 0, 41), (RUN, 1, 42), (RUN, 2, 43)], 3, 0);
        check(&[(RUN, 0, 41), (RUN, 0, 41)], 1, 1);
        check(&[(RUN, 0, 41), (RUN, 2, 43), (RUN, 1, 42)], 1, 2);
        check(&[(RUN, 0, 41), (RUN, 1, 43)], 1, 1);
        check(&[(RUN - 1, 0, 40), (RUN, 0, 41)], 1, 1);
        check(&[(RUN, 3, 44)], 0, 1);
    }
}
