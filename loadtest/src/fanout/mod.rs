//! The scenario `fanout`: one group, all sessions its members, one service that publishes into it.
//!
//! A run makes its users and its group once and finds them again the next time: devices, producer and the group's name
//! follow from the prefix and the number of sessions alone, so that runs do not pile up anything but messages. Two runs of
//! one prefix at the same time fence each other.

mod plan;
mod report;
mod tally;

use std::time::Duration;

use carillon_protocol::ids::ConversationId;
use carillon_protocol::session::Welcome;
use hdrhistogram::Histogram;

use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Acks, SessionIndex};
use crate::latency::{self, Latency};
use crate::limits::{IDLE_WAIT, POINT_EVERY};
use crate::process::Usage;
use crate::publisher::{Publisher, Publishing};
use crate::report::{Curve, Point, Recorder};
use crate::rig::{Guest, Rig, Terms, cursor_at_head, sleep_until};
use crate::session::News;
use crate::target::Target;
use crate::token::Role;
pub use plan::Plan;
pub use report::{BrokerCost, Report};
use tally::Tally;

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
        let mut tally = Tally::new(self.plan, what.run, schedule, conversation);
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
                News::Message(deliver) if session != PUBLISHER => {
                    watch.note(now);
                    tally.take(session - 1, now, &deliver);
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
        self.report(&publisher, &published, &tally, connected, (own_before, series))
    }

    fn report(
        &self,
        publisher: &Publisher,
        published: &Histogram<u64>,
        tally: &Tally,
        connected: &Connected,
        (own_before, series): (Usage, Vec<Point>),
    ) -> Result<Report, Failure> {
        let plan = self.plan;
        let sessions = f64::from(plan.sessions);
        let offered = u64::from(plan.sessions) * u64::from(plan.messages());
        // A broker that died on the way has no cost to tell; what is missing tells of it.
        let after = self.usage().ok().flatten();
        let cost = |before: Usage, connected: Usage, after: Usage| BrokerCost {
            cpu_us_per_connect: (connected.cpu_s() - before.cpu_s()) * 1e6 / sessions,
            cpu_us_per_delivery: (after.cpu_s() - connected.cpu_s()) * 1e6 / tally.delivered().max(1) as f64,
            resident_kib_per_session: growth(before, connected) / sessions,
            resident_kib_per_session_after: growth(before, after) / sessions,
        };
        let costs = connected.before.zip(connected.after).zip(after);
        Ok(Report {
            scenario: "fanout",
            sessions: plan.sessions,
            messages: plan.messages(),
            payload_bytes: plan.payload_bytes,
            connect_s: connected.took.as_secs_f64(),
            connects_per_s: sessions / connected.took.as_secs_f64(),
            offered,
            delivered: tally.delivered(),
            misplaced: tally.misplaced(),
            offered_per_s: offered as f64 / (f64::from(plan.rounds) * plan.interval.as_secs_f64()),
            achieved_per_s: tally.delivered() as f64 / tally.span().as_secs_f64(),
            latency: Latency::of(tally.latency()),
            published: Latency::of(published),
            publisher_late_ms_max: publisher.late_max().as_secs_f64() * 1e3,
            sessions_lost: tally.lost(),
            first_loss: tally.first_loss().map(str::to_owned),
            broker: costs.map(|((before, connected), after)| cost(before, connected, after)),
            own_cpu_s: Usage::of(None)?.cpu_s() - own_before.cpu_s(),
            measured_s: series.last().map_or(0.0, |point| point.at_s),
            curves: vec![Curve::of("due to delivered", tally.latency()), Curve::of("due to durable", published)],
            series,
        })
    }
}

/// KiB of resident memory from one look to the next.
fn growth(before: Usage, after: Usage) -> f64 {
    after.resident_kib as f64 - before.resident_kib as f64
}
