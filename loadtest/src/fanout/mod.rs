//! The scenario `fanout`: one group, all sessions its members, one service that publishes into it.
//!
//! A run makes its users and its group once and finds them again the next time: devices, producer and the group's name
//! follow from the prefix and the number of sessions alone, so that runs do not pile up anything but messages. Two runs of
//! one prefix at the same time fence each other.

mod plan;
mod report;
mod rounds;
mod tally;

use std::time::Duration;

use carillon_protocol::ids::ConversationId;
use carillon_protocol::session::Welcome;

use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Acks, SessionIndex};
use crate::latency;
use crate::limits::{IDLE_WAIT, POINT_EVERY};
use crate::process::Usage;
use crate::publisher::{Publisher, Publishing};
use crate::report::Recorder;
use crate::rig::{Guest, Rig, Terms, cursor_at_head, sleep_until};
use crate::session::News;
use crate::target::Target;
use crate::token::Role;
pub use plan::Plan;
pub use report::{BrokerCost, Report};
pub(crate) use report::{Costs, Measured};
pub(crate) use tally::{Steps, Tally};

/// The session that publishes, the first of the fleet.
const PUBLISHER: SessionIndex = 0;

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    rig: Rig<'a>,
}

/// How the sessions came to be.
struct Connected {
    took: Duration,
    before: Option<Usage>,
    after: Option<Usage>,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with deliveries missing does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    let terms = Terms {
        sockets: plan.sockets,
        acks: Acks { messages: plan.ack_messages, every: plan.ack_every },
        patience: plan.patience,
        time_limit: plan.time_limit,
    };
    let mut run = Run { plan, rig: Rig::new(target, terms, note)? };
    run.usage()?;
    run.rig.begin("connecting the publisher");
    let handle = format!("{}-publisher", plan.prefix);
    let publisher = Guest { handle: &handle, role: Role::Service, publishes: true, cursor: None };
    let (_, welcome) = run.rig.connect_one(&publisher)?;
    run.rig.note(format!("the broker's journal is at {}; making users and their group", welcome.head));
    let handles: Vec<_> = run.handles().collect();
    let users = crew::find_users(&mut run.rig, PUBLISHER, &handles)?;
    let group = format!("{}/{}", plan.prefix, plan.sessions);
    let conversation = crew::enlist(&mut run.rig, PUBLISHER, &group, &users)?;
    run.rig.note(format!("connecting {} sessions", plan.sessions));
    let connected = run.connect_sessions(&welcome)?;
    run.rig.note(format!("{} messages in {} rounds", plan.messages(), plan.rounds));
    let report = run.measure(conversation, &welcome, &connected)?;
    run.rig.fleet.close()?;
    Ok(report)
}

impl Run<'_> {
    fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.plan.broker_pid.map(|pid| Usage::of(Some(pid))).transpose()
    }

    fn handles(&self) -> impl ExactSizeIterator<Item = String> + use<> {
        let prefix = self.plan.prefix.clone();
        (0..self.plan.sessions).map(move |session| format!("{prefix}-{session}"))
    }

    /// Opens all sessions, each with a cursor where the journal was when the run began, so that none reads the messages of
    /// earlier runs.
    fn connect_sessions(&mut self, welcome: &Welcome) -> Result<Connected, Failure> {
        self.rig.begin("connecting the sessions");
        let before = self.usage()?;
        let handles = self.handles();
        let took = self.rig.connect_users(handles, self.plan.connecting_max, cursor_at_head(welcome))?;
        Ok(Connected { took, before, after: self.usage()? })
    }

    fn measure(
        &mut self,
        conversation: ConversationId,
        welcome: &Welcome,
        connected: &Connected,
    ) -> Result<Report, Failure> {
        self.rig.begin("delivering");
        let own_before = Usage::of(None)?;
        let schedule = self.plan.schedule(self.rig.clock.now() + POINT_EVERY / 2);
        let what = Publishing {
            run: self.rig.run_number(),
            schedule,
            messages: self.plan.messages(),
            conversations: vec![conversation],
            payload_bytes: self.plan.payload_bytes,
        };
        let (mut tally, mut steps) = (Tally::new(self.plan, what.run, schedule), Steps::default());
        let mut publisher = Publisher::new(what, welcome.producer_highest);
        let mut published = latency::histogram();
        // A round that is due on a full second lies in the midst of a point, not half in one and half in the next.
        let mut recorder = Recorder::new(self.rig.clock.now(), self.plan.broker_pid, tally.latency());
        let mut failed = None;
        loop {
            publisher.send_due(self.rig.clock.now(), &mut self.rig.fleet, PUBLISHER);
            let wait = publisher.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, self.rig.clock.now()));
            let watch = &mut self.rig.watch;
            self.rig.fleet.turn(wait, &mut |session, now, news| match news {
                News::Message(deliver) if session != PUBLISHER && deliver.conversation == conversation => {
                    watch.note(now);
                    tally.take(session - 1, now, &deliver.payload, |index| steps.keeps(index, deliver.seq));
                }
                News::Answer(frame) => match publisher.take(now, &frame) {
                    Ok(Some(index)) => latency::record(&mut published, now, schedule.due_at(index)),
                    Ok(None) => {}
                    Err(why) => failed = Some(why),
                },
                News::Ended(why) if session == PUBLISHER => failed = Some(format!("the publisher is lost: {why}")),
                News::Ended(why) => tally.lose(&why),
                News::Open(_) | News::CaughtUp | News::Message(_) | News::Receipt(_) | News::Urgent(_) => {}
            })?;
            if let Some(why) = failed {
                return Err(self.rig.failed(why));
            }
            let now = self.rig.clock.now();
            if let Some(point) = recorder.tick(now, || self.plan.due_until(&schedule, now), tally.latency()) {
                self.rig.tell_progress(point.sentence());
            }
            if tally.has_all_of(publisher.sent()) && publisher.next_due().is_some_and(|due| due > now) {
                // Nothing is expected before the next message is due.
                self.rig.watch.note(now);
            }
            if (publisher.is_done() && tally.is_done()) || self.rig.watch.is_over(now) {
                break;
            }
        }
        let now = self.rig.clock.now();
        let series = recorder.finish(now, self.plan.due_until(&schedule, now), tally.latency());
        // A broker that died on the way has no cost to tell; what is missing tells of it.
        let after = self.usage().ok().flatten();
        let costs = connected.before.zip(connected.after).zip(after);
        Ok(Report::of(&Measured {
            target: "carillon",
            plan: self.plan,
            connected_in: connected.took,
            tally: &tally,
            published: Some(&published),
            late_max: publisher.late_max(),
            costs: costs.map(|((before, connected), after)| Costs { before, connected, after }),
            own_cpu_s: Usage::of(None)?.cpu_s() - own_before.cpu_s(),
            series,
        }))
    }
}
