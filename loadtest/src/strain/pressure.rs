//! Publishers that want more than the broker can take, and who listens to them.
//!
//! Each publishes into a group of its own, which one session listens to: what was acknowledged must be delivered there, once and in
//! order. A publisher holds what is due and not sent; it is not kept anywhere, only counted.

use std::time::{Duration, Instant};

use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::ConversationId;

use super::plan::Plan;
use super::report::{Outcome, Overload};
use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Fleet, SessionIndex};
use crate::publisher::{Publisher, Publishing, index_in};
use crate::rig::{Guest, Rig};
use crate::schedule::Schedule;
use crate::session::News;
use crate::token::Role;

/// A producer and its listener.
struct Pair {
    group: ConversationId,
    producer: SessionIndex,
    /// The producer's number of the next message.
    next_number: u64,
    publisher: Option<Publisher>,
    listener: SessionIndex,
    /// The message that is to be delivered next.
    next: u32,
    /// Answers to messages of this round.
    acked: u64,
}

/// See the module.
pub(super) struct Pressure {
    pairs: Vec<Pair>,
    factor: f64,
    memory_max_mib: Option<u32>,
    payload_bytes: usize,
    /// Tells the messages of a round from those of others: one more each round.
    run: u64,
    schedule: Option<Schedule>,
    end: Option<Instant>,
    round: Round,
    /// Answers to messages of all rounds.
    answered: u64,
    /// Of the first round.
    flat_out: Option<Round>,
    lost: Option<String>,
}

/// What became of the messages of a round.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    took: Duration,
    offered: u64,
    sent: u64,
    acked: u64,
    /// By the end of the time; the rest was under way.
    acked_in_time: u64,
    busy: u64,
    delivered: u64,
    misplaced: u64,
}

impl Pressure {
    pub(super) fn prepare(
        rig: &mut Rig<'_>,
        plan: &Plan,
        (producers, factor, memory_max_mib): (u32, f64, Option<u32>),
        run: u64,
        service: SessionIndex,
    ) -> Result<Self, Failure> {
        let listeners = plan.handles("reader", producers);
        let (groups, _) = crew::enlist_each(rig, service, &format!("{}/reader", plan.prefix), &listeners)?;
        rig.begin("connecting the publishers");
        let mut pairs = Vec::new();
        for (handle, group) in plan.handles("writer", producers).iter().zip(groups) {
            let guest = Guest { handle, role: Role::Service, publishes: true, cursor: None };
            let (producer, welcome) = rig.connect_one(&guest)?;
            let next_number = welcome.producer_highest + 1;
            pairs.push(Pair { group, producer, next_number, publisher: None, listener: 0, next: 0, acked: 0 });
        }
        let cursor = crew::head(rig, &plan.prefix)?;
        let first = rig.fleet.sessions();
        rig.connect_users(listeners.into_iter(), plan.connecting_max, cursor)?;
        for (nth, pair) in pairs.iter_mut().enumerate() {
            pair.listener = first + nth;
        }
        Ok(Self {
            pairs,
            factor,
            memory_max_mib,
            payload_bytes: plan.others.payload_bytes,
            run,
            schedule: None,
            end: None,
            round: Round::default(),
            answered: 0,
            flat_out: None,
            lost: None,
        })
    }

    /// Everybody publishes as fast as the broker takes it.
    pub(super) fn flat_out(&mut self, now: Instant) {
        self.begin_round(Schedule { start: now, interval: Duration::ZERO, batch: 1 });
    }

    /// Everybody publishes so many times what was taken flat out.
    pub(super) fn begin(&mut self, now: Instant) {
        let flat_out = self.flat_out.unwrap_or_default();
        let a_second = flat_out.acked_in_time as f64 / flat_out.took.as_secs_f64().max(1e-6);
        let each = a_second * self.factor / self.pairs.len() as f64;
        self.begin_round(Schedule { start: now, interval: Duration::from_secs_f64(1.0 / each.max(1.0)), batch: 1 });
    }

    fn begin_round(&mut self, schedule: Schedule) {
        self.run += 1;
        self.schedule = Some(schedule);
        self.end = None;
        self.round = Round::default();
        for pair in &mut self.pairs {
            let what = Publishing {
                run: self.run,
                schedule,
                messages: u32::MAX,
                conversations: vec![pair.group],
                payload_bytes: self.payload_bytes,
            };
            pair.publisher = Some(Publisher::new(what, pair.next_number - 1));
            (pair.next, pair.acked) = (0, 0);
        }
    }

    /// Nobody publishes anything that was not sent yet.
    pub(super) fn end(&mut self, now: Instant) {
        let Some(schedule) = self.schedule else { return };
        self.end = Some(now);
        let round = &mut self.round;
        round.took = now.saturating_duration_since(schedule.start);
        for pair in &mut self.pairs {
            let Some(publisher) = &mut pair.publisher else { continue };
            publisher.stop();
            round.sent += u64::from(publisher.sent());
            round.acked_in_time += pair.acked;
        }
        let is_open = !schedule.interval.is_zero();
        let due = u64::from(schedule.count_until(now)) * self.pairs.len() as u64;
        round.offered = if is_open { due } else { round.sent };
    }

    /// The first round has come to rest: what was taken in it is what can be.
    pub(super) fn note_flat_out(&mut self) {
        self.settle_numbers();
        self.flat_out = Some(self.round);
    }

    fn settle_numbers(&mut self) {
        for pair in &mut self.pairs {
            let sent = pair.publisher.as_ref().map_or(0, Publisher::sent);
            pair.next_number += u64::from(sent);
        }
    }

    pub(super) fn act(&mut self, now: Instant, fleet: &mut Fleet) {
        for pair in &mut self.pairs {
            if let Some(publisher) = &mut pair.publisher {
                publisher.send_due(now, fleet, pair.producer);
            }
        }
    }

    /// Whether everything that was sent has its answer and was delivered.
    pub(super) fn is_settled(&self) -> bool {
        let done = |pair: &Pair| {
            let publisher = pair.publisher.as_ref();
            publisher.is_none_or(|publisher| publisher.is_done() && pair.next >= publisher.sent())
        };
        self.lost.is_some() || self.pairs.iter().all(done)
    }

    /// Messages acknowledged so far.
    pub(super) fn answered(&self) -> u64 {
        self.answered
    }

    pub(super) fn take(&mut self, session: SessionIndex, now: Instant, news: &News) {
        match news {
            News::Answer(frame) => {
                let Some(pair) = self.pairs.iter_mut().find(|pair| pair.producer == session) else { return };
                let Some(publisher) = &mut pair.publisher else { return };
                if let Frame::PublishRefused(refused) = frame {
                    self.round.busy += u64::from(refused.code == ErrorCode::BUSY);
                }
                match publisher.take(now, frame) {
                    Ok(Some(_)) => {
                        pair.acked += 1;
                        self.round.acked += 1;
                        self.answered += 1;
                    }
                    Ok(None) => {}
                    Err(why) => self.lost = Some(why),
                }
            }
            News::Message(deliver) => {
                let Some(pair) = self.pairs.iter_mut().find(|pair| pair.listener == session) else { return };
                let Some(index) = index_in(&deliver.payload, self.run).filter(|_| deliver.conversation == pair.group)
                else {
                    return;
                };
                if index == pair.next {
                    self.round.delivered += 1;
                } else {
                    self.round.misplaced += 1;
                }
                pair.next = pair.next.max(index + 1);
            }
            News::Ended(why) if self.pairs.iter().any(|pair| pair.producer == session || pair.listener == session) => {
                self.lost = Some(format!("a session of the strain is lost: {why}"));
            }
            News::Ended(_) | News::Open(_) | News::CaughtUp | News::Receipt(_) | News::Urgent(_) => {}
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let (round, flat_out) = (self.round, self.flat_out.unwrap_or_default());
        let a_second = |count: u64, took: Duration| count as f64 / took.as_secs_f64().max(1e-6);
        Outcome::Overload(Overload {
            producers: u32::try_from(self.pairs.len()).unwrap_or(u32::MAX),
            capacity_per_s: a_second(flat_out.acked_in_time, flat_out.took),
            factor: self.factor,
            offered: round.offered,
            offered_per_s: a_second(round.offered, round.took),
            held_back: round.offered.saturating_sub(round.sent),
            refused_busy: round.busy,
            sent: round.sent,
            acked: round.acked,
            acked_per_s: a_second(round.acked_in_time, round.took),
            delivered: round.delivered + flat_out.delivered,
            acked_in_all: round.acked + flat_out.acked,
            misplaced: round.misplaced + flat_out.misplaced,
            memory_max_mib: self.memory_max_mib,
            lost: self.lost.clone(),
        })
    }
}
