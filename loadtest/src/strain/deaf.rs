//! Listeners of one group, some of which stop reading for a while.

use std::time::Instant;

use carillon_protocol::ids::ConversationId;
use hdrhistogram::Histogram;

use super::PHASES;
use super::plan::Plan;
use super::report::{Deafness, Outcome};
use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Fleet, SessionIndex};
use crate::latency::{Latency, histogram, record};
use crate::publisher::{Publisher, Publishing, index_in};
use crate::rig::Rig;
use crate::schedule::Schedule;
use crate::session::News;

/// See the module.
pub(super) struct Deaf {
    run: u64,
    group: ConversationId,
    service: SessionIndex,
    publisher: Publisher,
    schedule: Schedule,
    /// The first of the listeners; those that stop reading come first.
    first: SessionIndex,
    deaf: usize,
    /// By listener: the message that is to be delivered next.
    next: Vec<u32>,
    ended: Vec<bool>,
    delivered: u64,
    /// When the phases after the first began.
    turns: Vec<Instant>,
    /// By phase, of those who read all the time.
    latency: [Histogram<u64>; 3],
    misplaced: u64,
    deaf_ended: u32,
    others_ended: u32,
    first_end: Option<String>,
    refused: Option<String>,
}

impl Deaf {
    pub(super) fn prepare(
        rig: &mut Rig<'_>,
        plan: &Plan,
        (sessions, percent, rate): (u32, u32, u32),
        run: u64,
        (service, producer_highest): (SessionIndex, u64),
    ) -> Result<Self, Failure> {
        let handles = plan.handles("listener-of-many", sessions);
        let users = crew::find_users(rig, service, &handles)?;
        let group = crew::enlist(rig, service, &format!("{}/deaf/{sessions}", plan.prefix), &users)?;
        let cursor = crew::head(rig, &plan.prefix)?;
        let first = rig.fleet.sessions();
        rig.begin("connecting the listeners");
        rig.connect_users(handles.into_iter(), plan.connecting_max, cursor)?;
        let schedule = Schedule::per_second(rig.clock.now(), rate);
        let what = Publishing {
            run,
            schedule,
            messages: u32::MAX,
            conversations: vec![group],
            payload_bytes: plan.others.payload_bytes,
        };
        Ok(Self {
            run,
            group,
            service,
            publisher: Publisher::new(what, producer_highest),
            schedule,
            first,
            deaf: (u64::from(sessions) * u64::from(percent) / 100) as usize,
            next: vec![0; sessions as usize],
            ended: vec![false; sessions as usize],
            delivered: 0,
            turns: Vec::new(),
            latency: std::array::from_fn(|_| histogram()),
            misplaced: 0,
            deaf_ended: 0,
            others_ended: 0,
            first_end: None,
            refused: None,
        })
    }

    pub(super) fn begin(&mut self, now: Instant, fleet: &mut Fleet) {
        self.turns.push(now);
        for session in self.first..self.first + self.deaf {
            fleet.stop_reading(session);
        }
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.turns.push(now);
    }

    /// They read on: called once, with somebody to tell what had come meanwhile.
    pub(super) fn read_on(&self, fleet: &mut Fleet) {
        for session in self.first..self.first + self.deaf {
            fleet.read_on(session);
        }
    }

    pub(super) fn stop(&mut self) {
        self.publisher.stop();
    }

    pub(super) fn act(&mut self, now: Instant, fleet: &mut Fleet) {
        self.publisher.send_due(now, fleet, self.service);
    }

    /// Whether everybody whose session lives has everything.
    pub(super) fn is_settled(&self) -> bool {
        let sent = self.publisher.sent();
        let has_all = |(next, ended): (&u32, &bool)| *next >= sent || *ended;
        self.refused.is_some() || self.publisher.is_done() && self.next.iter().zip(&self.ended).all(has_all)
    }

    /// Deliveries so far, to whoever reads.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn take(&mut self, session: SessionIndex, now: Instant, news: &News) {
        if session == self.service {
            if let News::Answer(frame) = news
                && let Err(why) = self.publisher.take(now, frame)
            {
                self.refused = Some(why);
            }
            return;
        }
        let Some(listener) = session.checked_sub(self.first).filter(|listener| *listener < self.next.len()) else {
            return;
        };
        match news {
            News::Message(deliver) if deliver.conversation == self.group => {
                let Some(index) = index_in(&deliver.payload, self.run) else { return };
                self.delivered += 1;
                self.misplaced += u64::from(index != self.next[listener]);
                self.next[listener] = self.next[listener].max(index + 1);
                if listener >= self.deaf {
                    let due = self.schedule.due_at(index);
                    let phase = self.turns.iter().filter(|turn| **turn <= due).count();
                    record(&mut self.latency[phase], now, due);
                }
            }
            News::Ended(why) => {
                self.ended[listener] = true;
                *(if listener < self.deaf { &mut self.deaf_ended } else { &mut self.others_ended }) += 1;
                self.first_end.get_or_insert_with(|| why.to_string());
            }
            _ => {}
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let sent = self.publisher.sent();
        let missing = self.next.iter().zip(&self.ended).filter(|(_, ended)| !**ended);
        let missing = missing.map(|(next, _)| u64::from(sent.saturating_sub(*next))).sum();
        Outcome::Deaf(Deafness {
            sessions: u32::try_from(self.next.len()).unwrap_or(u32::MAX),
            deaf: u32::try_from(self.deaf).unwrap_or(u32::MAX),
            messages: sent,
            missing,
            misplaced: self.misplaced,
            deaf_ended: self.deaf_ended,
            others_ended: self.others_ended,
            first_end: self.first_end.clone(),
            latency: PHASES.iter().zip(&self.latency).map(|(phase, latency)| (*phase, Latency::of(latency))).collect(),
            refused: self.refused.clone(),
        })
    }
}
