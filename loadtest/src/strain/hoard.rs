//! Sessions that hold as much of the broker as one session can: they ask for all that may be asked for and read none of it,
//! and leave a frame of the largest size unfinished on each of their streams.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use carillon_protocol::deliver::History;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Seq};
use carillon_protocol::kinds::{Direction, MessageKind, Target};
use carillon_protocol::limits::{PAYLOAD_BYTES_MAX, REQUESTS_PENDING_MAX};
use carillon_protocol::publish::Publish;

use super::plan::Plan;
use super::report::{Hoarding, Outcome};
use crate::channel::Purpose;
use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Fleet, SessionIndex};
use crate::limits::{HOARD_MESSAGES, HOARD_PAYLOAD_BYTES, IDLE_WAIT};
use crate::process::Usage;
use crate::publisher::{Publisher, Publishing};
use crate::rig::{Guest, Rig};
use crate::schedule::Schedule;
use crate::session::News;
use crate::token::Role;

/// See the module.
pub(super) struct Hoard {
    group: ConversationId,
    first: SessionIndex,
    sessions: usize,
    resident_before_kib: Option<u64>,
    ended: u32,
    first_end: Option<String>,
}

impl Hoard {
    pub(super) fn prepare(
        rig: &mut Rig<'_>,
        plan: &Plan,
        sessions: u32,
        run: u64,
        (service, producer_highest): (SessionIndex, u64),
    ) -> Result<Self, Failure> {
        let handles = plan.handles("hoarder", sessions);
        let users = crew::find_users(rig, service, &handles)?;
        let group = crew::enlist(rig, service, &format!("{}/hoard/{sessions}", plan.prefix), &users)?;
        publish(rig, (run, group), (service, producer_highest))?;
        rig.begin("connecting the hoarders");
        let cursor = crew::head(rig, &plan.prefix)?;
        let first = rig.fleet.sessions();
        for handle in &handles {
            rig.connect_one(&Guest { handle, role: Role::User, publishes: true, cursor: Some(cursor) })?;
        }
        let resident_before_kib =
            plan.broker_pid.and_then(|pid| Usage::of(Some(pid)).ok()).map(|usage| usage.resident_kib);
        Ok(Self { group, first, sessions: handles.len(), resident_before_kib, ended: 0, first_end: None })
    }

    pub(super) fn begin(&mut self, fleet: &mut Fleet) {
        let mut asked = BytesMut::new();
        for request in (1..).take(REQUESTS_PENDING_MAX) {
            let (conversation, direction) = (self.group, Direction::FORWARD);
            History { request, conversation, from: Seq(1), direction, limit: 1_000 }.encode(&mut asked);
        }
        asked.extend_from_slice(&unfinished(self.group));
        let asked = asked.freeze();
        for session in self.first..self.first + self.sessions {
            fleet.stop_reading(session);
            fleet.send(session, Purpose::Control, asked.clone());
            fleet.send(session, Purpose::Publish, unfinished(self.group));
        }
    }

    pub(super) fn take(&mut self, session: SessionIndex, news: &News) {
        let is_here = (self.first..self.first + self.sessions).contains(&session);
        if let (News::Ended(why), true) = (news, is_here) {
            self.ended += 1;
            self.first_end.get_or_insert_with(|| why.to_string());
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome::Hoard(Hoarding {
            sessions: u32::try_from(self.sessions).unwrap_or(u32::MAX),
            ended: self.ended,
            first_end: self.first_end.clone(),
            resident_before_kib: self.resident_before_kib,
        })
    }
}

/// A frame of about the largest size but for its last byte.
fn unfinished(group: ConversationId) -> Bytes {
    let publish = Publish {
        number: 1,
        low: 1,
        target: Target::CONVERSATION,
        target_id: group.0,
        kind: MessageKind::TEXT,
        payload: Bytes::from(vec![b'x'; PAYLOAD_BYTES_MAX]),
    };
    let mut frame = publish.to_bytes();
    frame.truncate(frame.len() - 1);
    frame
}

/// What the pages of history will hold.
fn publish(
    rig: &mut Rig<'_>,
    (run, group): (u64, ConversationId),
    (service, producer_highest): (SessionIndex, u64),
) -> Result<(), Failure> {
    rig.begin("publishing what will be asked for");
    let schedule = Schedule { start: rig.clock.now(), interval: Duration::ZERO, batch: 1 };
    let (messages, payload_bytes) = (HOARD_MESSAGES, HOARD_PAYLOAD_BYTES);
    let what = Publishing { run, schedule, messages, conversations: vec![group], payload_bytes };
    let mut publisher = Publisher::new(what, producer_highest);
    let mut failed = None;
    while !publisher.is_done() {
        publisher.send_due(rig.clock.now(), &mut rig.fleet, service);
        rig.fleet.turn(IDLE_WAIT, &mut |session, now: Instant, news| {
            if let (News::Answer(frame), true) = (&news, session == service) {
                failed = publisher.take(now, frame).err().or(failed.take());
            }
        })?;
        if let Some(why) = failed {
            return Err(rig.failed(why));
        }
        rig.watch.check(rig.clock.now(), || "the answers to what was published".to_owned())?;
    }
    Ok(())
}
