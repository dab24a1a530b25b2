//! The receiving side: every session gets every message, once and in order; with Carillon, under gap-free seqs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_protocol::ids::Seq;
use hdrhistogram::Histogram;

use super::Plan;
use super::rounds::Rounds;
use crate::latency::{histogram, record};
use crate::publisher::index_in;
use crate::schedule::Schedule;

/// Whether the seqs of one conversation go in step with the messages: that of message 0 is learnt from the first delivery.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    first: Option<u64>,
}

impl Steps {
    pub(crate) fn keeps(&mut self, index: u32, seq: Seq) -> bool {
        let index = u64::from(index);
        seq.0 == *self.first.get_or_insert(seq.0.saturating_sub(index)) + index
    }
}

/// See the module.
pub(crate) struct Tally {
    plan: Plan,
    run: u64,
    schedule: Schedule,
    rounds: Rounds,
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
    pub(crate) fn new(plan: &Plan, run: u64, schedule: Schedule) -> Self {
        Self {
            plan: plan.clone(),
            run,
            schedule,
            rounds: Rounds::new(schedule, plan.rounds, plan.sessions),
            next: vec![0; plan.sessions as usize],
            delivered: 0,
            misplaced: 0,
            last: schedule.start,
            latency: histogram(),
            lost: 0,
            first_loss: None,
        }
    }

    /// A session, counted from 0, got a message; `in_step` says whether its seq, if it has one, fits. One that lies ahead of
    /// its turn counts as misplaced, and those it has overtaken are missing: they would be misplaced themselves.
    pub(crate) fn take(&mut self, session: usize, now: Instant, payload: &Bytes, in_step: impl FnOnce(u32) -> bool) {
        let Some(index) = self.index(payload) else {
            self.misplaced += 1;
            return;
        };
        if !in_step(index) || index != self.next[session] {
            self.misplaced += 1;
            self.next[session] = self.next[session].max(index + 1);
            return;
        }
        self.next[session] += 1;
        self.delivered += 1;
        self.last = now;
        self.rounds.take(index, now);
        record(&mut self.latency, now, self.schedule.due_at(index));
    }

    /// A session is no more.
    pub(crate) fn lose(&mut self, why: impl ToString) {
        self.lost += 1;
        self.first_loss.get_or_insert_with(|| why.to_string());
    }

    /// Whether every session has got the first so many messages.
    pub(crate) fn has_all_of(&self, messages: u32) -> bool {
        self.delivered + self.misplaced >= u64::from(self.plan.sessions) * u64::from(messages)
    }

    /// Whether nothing more can come: all is there, or nobody is left to get it.
    pub(crate) fn is_done(&self) -> bool {
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
    pub(crate) fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// From the first message's time to the last delivery; above zero.
    pub(super) fn span(&self) -> Duration {
        self.last.saturating_duration_since(self.schedule.start).max(Duration::from_micros(1))
    }

    /// Deliveries a second within a round, in the median of the rounds.
    pub(super) fn round_per_s(&self) -> f64 {
        self.rounds.median_per_s()
    }

    /// Which message of this run it is.
    fn index(&self, payload: &Bytes) -> Option<u32> {
        let index = index_in(payload, self.run)?;
        let is_ours = payload.len() == self.plan.payload_bytes && index < self.plan.messages();
        is_ours.then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use bytes::{BufMut, BytesMut};

    const RUN: u64 = 5;

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
        Tally::new(&plan, RUN, plan.schedule(SystemClock.now()))
    }

    fn payload(run: u64, index: u64) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_u64_le(run);
        payload.put_u64_le(index);
        payload.freeze()
    }

    /// Gives session 0 these messages (run, index, seq) and says what was counted.
    fn check(messages: &[(u64, u64, u64)], delivered: u64, misplaced: u64) {
        let (mut tally, mut steps) = (tally(), Steps::default());
        for &(run, index, seq) in messages {
            tally.take(0, SystemClock.now(), &payload(run, index), |index| steps.keeps(index, Seq(seq)));
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
