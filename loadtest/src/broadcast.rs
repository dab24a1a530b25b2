//! The scenario `channel`: a conversation with very many members of whom few are online, and one service that publishes into it.
//!
//! What must not depend on the members is the time from a message to its last delivery; what may is memory, and it is told.

use std::time::{Duration, Instant};

use carillon_protocol::ids::ConversationId;
use carillon_protocol::kinds::ConversationKind;
use hdrhistogram::Histogram;

use crate::admission::{Admission, Crowd};
use crate::basis::Basis;
use crate::crew;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::inboxes::Inboxes;
use crate::latency::{histogram, record};
use crate::limits::IDLE_WAIT;
use crate::phases::{Mark, seconds};
use crate::publisher::{Publisher, Publishing};
use crate::report::{Point, Recorder};
use crate::rig::{Guest, Rig, sleep_until};
use crate::schedule::Schedule;
use crate::session::News;
use crate::summary::Summary;
use crate::target::Target;
use crate::token::Role;

/// The session that makes the members and publishes, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// What kind of conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Few post, many read.
    Channel,
    /// All post.
    Group,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub basis: Basis,
    /// What kind of conversation it is.
    pub kind: Kind,
    /// Its members.
    pub members: u32,
    /// How many of them are connected, spread over all.
    pub online: u32,
    /// Messages a second.
    pub rate: u32,
    /// For how long.
    pub measured: Duration,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
}

/// What the members cost.
struct Grown {
    empty: Mark,
    users: Mark,
    members: Mark,
}

/// What was seen of the messages.
struct Seen {
    schedule: Schedule,
    inboxes: Inboxes,
    /// By message: how many have it.
    reached: Vec<u32>,
    online: u32,
    published: Histogram<u64>,
    delivered: Histogram<u64>,
    last_delivered: Histogram<u64>,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with deliveries missing does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let basis = &plan.basis;
    let mut rig = Rig::new(target, basis.terms(), note)?;
    rig.begin("connecting the service");
    let service = Guest { handle: &basis.service(), role: Role::Service, publishes: true, cursor: None };
    let (_, welcome) = rig.connect_one(&service)?;
    rig.note(format!("making {} members", plan.members));
    let empty = rig.mark(basis.broker_pid)?;
    let handles = basis.users(plan.members);
    let ids = crew::find_users(&mut rig, SERVICE, &handles)?;
    let users = rig.mark(basis.broker_pid)?;
    let (kind, name) = match plan.kind {
        Kind::Channel => (ConversationKind::CHANNEL, format!("{}/channel/{}", basis.prefix, plan.members)),
        Kind::Group => (ConversationKind::GROUP, format!("{}/{}", basis.prefix, plan.members)),
    };
    let conversation = crew::enlist_in(&mut rig, SERVICE, (kind, &name), &ids)?;
    let members = rig.mark(basis.broker_pid)?;
    let cursor = crew::head(&mut rig, &basis.prefix)?;
    rig.begin("connecting the sessions");
    rig.note(format!("connecting {} of {} members", plan.online, plan.members));
    let apart = (plan.members / plan.online.max(1)).max(1) as usize;
    let online: Vec<_> = handles.into_iter().step_by(apart).take(plan.online as usize).collect();
    let crowd = Crowd { handles: &online, role: Role::User, publishes: false, cursor, at_once: basis.connecting_max };
    let admission = rig.admit(&crowd, &mut |_, _, _| {})?;
    let grown = Grown { empty, users, members };
    rig.begin("waiting until the broker has nothing left to do");
    rig.settle(basis.broker_pid)?;
    let summary = measure(&mut rig, plan, (conversation, welcome.producer_highest), (&admission, &grown))?;
    rig.fleet.close()?;
    Ok(summary)
}

fn measure(
    rig: &mut Rig<'_>,
    plan: &Plan,
    (conversation, producer_highest): (ConversationId, u64),
    (admission, grown): (&Admission, &Grown),
) -> Result<Summary, Failure> {
    rig.begin("publishing");
    let from = rig.mark(plan.basis.broker_pid)?;
    let schedule = Schedule::per_second(from.at, plan.rate);
    let messages = schedule.count_until(from.at + plan.measured);
    let run = rig.run_number();
    let conversations = vec![conversation];
    let what = Publishing { run, schedule, messages, conversations, payload_bytes: plan.payload_bytes };
    let mut publisher = Publisher::new(what, producer_highest);
    let mut seen = Seen {
        schedule,
        inboxes: Inboxes::new(run, conversation, admission.first, plan.online as usize),
        reached: vec![0; messages as usize],
        online: plan.online,
        published: histogram(),
        delivered: histogram(),
        last_delivered: histogram(),
    };
    let mut recorder = Recorder::new(from.at, plan.basis.broker_pid, &seen.delivered);
    let due = |now: Instant| u64::from(schedule.count_until(now).min(messages)) * u64::from(plan.online);
    let mut failed = None;
    loop {
        let now = rig.clock.now();
        publisher.send_due(now, &mut rig.fleet, SERVICE);
        let wait = publisher.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, now));
        let watch = &mut rig.watch;
        rig.fleet.turn(wait, &mut |session, now, news| match news {
            News::Message(deliver) => {
                watch.note(now);
                seen.take(session, now, &deliver);
            }
            News::Answer(frame) => match publisher.take(now, &frame) {
                Ok(Some(index)) => record(&mut seen.published, now, schedule.due_at(index)),
                Ok(None) => {}
                Err(why) => failed = Some(why),
            },
            News::Ended(why) => failed = Some(format!("a session is lost: {why}")),
            News::Open(_) | News::CaughtUp | News::Receipt(_) | News::Urgent(_) => {}
        })?;
        if let Some(why) = failed {
            return Err(rig.failed(why));
        }
        let now = rig.clock.now();
        if let Some(point) = recorder.tick(now, || due(now), &seen.delivered) {
            rig.tell_progress(point.sentence());
        }
        let is_waiting = publisher.next_due().is_some_and(|due| due > now);
        if is_waiting && seen.inboxes.delivered >= u64::from(publisher.sent()) * u64::from(plan.online) {
            // Nothing is expected before the next message is due.
            rig.watch.note(now);
        }
        if (publisher.is_done() && seen.inboxes.delivered >= due(now)) || rig.watch.is_over(now) {
            break;
        }
    }
    let to = rig.mark(plan.basis.broker_pid)?;
    let series = recorder.finish(to.at, due(to.at), &seen.delivered);
    Ok(seen.summarise(plan, (&from, &to), (grown, series), &publisher))
}

impl Seen {
    fn take(&mut self, session: SessionIndex, now: Instant, deliver: &carillon_protocol::deliver::Deliver) {
        let Some(index) = self.inboxes.take(session, deliver) else { return };
        let due = self.schedule.due_at(index);
        record(&mut self.delivered, now, due);
        let Some(reached) = self.reached.get_mut(index as usize) else { return };
        *reached += 1;
        if *reached == self.online {
            record(&mut self.last_delivered, now, due);
        }
    }

    fn summarise(
        &self,
        plan: &Plan,
        (from, to): (&Mark, &Mark),
        (grown, series): (&Grown, Vec<Point>),
        publisher: &Publisher,
    ) -> Summary {
        let (online, messages) = (u64::from(plan.online), u64::from(publisher.sent()));
        let (due, came) = (online * messages, self.inboxes.delivered);
        let mib = |kib: Option<f64>| kib.map(|kib| kib / 1_024.0);
        let mut summary = Summary::new("channel");
        summary.figure("members", "members", f64::from(plan.members), "");
        summary.figure("online", "of them connected", f64::from(plan.online), "");
        summary.figure("messages", "messages", messages as f64, "");
        summary.figure("delivered", "deliveries", came as f64, "");
        summary.figure("offered_per_s", "deliveries a second, offered", f64::from(plan.rate) * online as f64, "/s");
        summary.figure("achieved_per_s", "  achieved", came as f64 / seconds(from, to).max(1e-6), "/s");
        let cpu_us = from.broker_cpu_us_until(to, came);
        summary.broker("broker.cpu_us_per_delivery", "broker's CPU a delivery", cpu_us, "µs");
        let users = mib(grown.empty.broker_kib_until(&grown.users, 1));
        summary.broker("broker.resident_mib_users", "broker's memory grown by making the users", users, "MiB");
        let members = mib(grown.users.broker_kib_until(&grown.members, 1));
        summary.broker("broker.resident_mib_membership", "  by making them members", members, "MiB");
        summary.spread("last_delivery", "due to the last delivery of a message", &self.last_delivered);
        summary.spread("deliveries", "due to delivered", &self.delivered);
        summary.spread("published", "due to durable", &self.published);
        summary.measured(from, to, publisher.late_max().as_secs_f64() * 1e3);
        summary.series = series;
        summary.expect(came == due, || format!("{came} of {due} deliveries came"));
        summary.expect(self.inboxes.misplaced == 0, || format!("{} were out of place", self.inboxes.misplaced));
        summary
    }
}
