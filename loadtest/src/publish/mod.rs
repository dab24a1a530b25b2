//! The scenario `publish`: producers that publish as fast as their windows let them, and count what is acknowledged.
//!
//! A producer is a session of a service. All publish into one group without members, so that nothing is delivered and what is
//! measured is the way into the journal. Without a rate the load is closed: the next message is sent when one is acknowledged, so that
//! what is found is the capacity with so much under way. With a rate it is open: messages are due by the clock. Against peers it is run by [`peers::publish`](crate::peers::publish).

mod paced;
mod plan;
mod report;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use carillon_protocol::Frame;
use carillon_protocol::ids::ConversationId;
use hdrhistogram::Histogram;

use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Acks, SessionIndex};
use crate::latency;
use crate::limits::IDLE_WAIT;
use crate::process::Usage;
use crate::publisher::{Publisher, Publishing};
use crate::report::Recorder;
use crate::rig::{Guest, Rig, Terms};
use crate::schedule::Schedule;
use crate::session::News;
use crate::target::Target;
use crate::token::Role;
pub use plan::Plan;
pub(crate) use report::Measured;
pub use report::{PublishCost, Report};

/// The session that makes the group, the first of the fleet. The producers follow.
const SERVICE: SessionIndex = 0;

/// A session that publishes.
struct Producer {
    publisher: Publisher,
    /// When the messages without an answer were handed over, by index, the oldest first.
    pending: VecDeque<(u32, Instant)>,
}

/// What all producers have seen.
struct Seen {
    acknowledged: u64,
    /// Of those, while it is measured.
    measured: u64,
    published: Histogram<u64>,
    is_measuring: bool,
    failed: Option<String>,
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    rig: Rig<'a>,
    producers: Vec<Producer>,
    seen: Seen,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with messages that have no answer does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    let acks = Acks { messages: 1, every: Duration::from_secs(1) };
    let terms = Terms { sockets: plan.sources, acks, patience: plan.patience, time_limit: plan.time_limit };
    let seen =
        Seen { acknowledged: 0, measured: 0, published: latency::histogram(), is_measuring: false, failed: None };
    let mut run = Run { plan, rig: Rig::new(target, terms, note)?, producers: Vec::new(), seen };
    run.usage()?;
    let (group, producers) = run.connect()?;
    run.rig.begin("publishing");
    run.rig.note("publishing");
    let report = match plan.rate {
        Some(rate) => paced::measure(&mut run.rig, (plan, rate), group, &producers)?,
        None => {
            run.begin(group, &producers);
            run.measure()?
        }
    };
    run.rig.fleet.close()?;
    Ok(report)
}

impl Run<'_> {
    fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.plan.server_pid.map(|pid| Usage::of(Some(pid))).transpose()
    }

    /// Makes the group, and opens the producers' sessions.
    fn connect(&mut self) -> Result<(ConversationId, Vec<(SessionIndex, u64)>), Failure> {
        self.rig.begin("connecting the producers");
        self.rig.note(format!("connecting {} producers", self.plan.producers));
        let prefix = &self.plan.prefix;
        let handle = format!("{prefix}-producers");
        let service = Guest { handle: &handle, role: Role::Service, publishes: false, cursor: None };
        self.rig.connect_one(&service)?;
        let group = crew::enlist(&mut self.rig, SERVICE, &format!("{prefix}/nobody"), &[])?;
        let cursor = crew::head(&mut self.rig, prefix)?;
        let mut highest = Vec::new();
        for number in 0..self.plan.producers {
            let handle = format!("{prefix}-producer-{number}");
            let guest = Guest { handle: &handle, role: Role::Service, publishes: true, cursor: Some(cursor) };
            let (session, welcome) = self.rig.connect_one(&guest)?;
            highest.push((session, welcome.producer_highest));
        }
        Ok((group, highest))
    }

    /// Lets all producers publish from now on, until they are stopped.
    fn begin(&mut self, group: ConversationId, highest: &[(SessionIndex, u64)]) {
        let schedule = Schedule { start: self.rig.clock.now(), interval: Duration::ZERO, batch: 1 };
        let run = self.rig.run_number();
        for (_, producer_highest) in highest {
            let what = Publishing {
                run,
                schedule,
                messages: u32::MAX,
                conversations: vec![group],
                payload_bytes: self.plan.payload_bytes,
            };
            let publisher = Publisher::new(what, *producer_highest).with_window(self.plan.window);
            self.producers.push(Producer { publisher, pending: VecDeque::new() });
        }
    }

    fn measure(&mut self) -> Result<Report, Failure> {
        self.publish_until(self.rig.clock.now() + self.plan.warm_up, None)?;
        let (before, own_before, begin) = (self.usage()?, Usage::of(None)?, self.rig.clock.now());
        self.seen.is_measuring = true;
        let sent = self.sent();
        let mut recorder = Recorder::new(begin, self.plan.server_pid, &self.seen.published);
        self.publish_until(begin + self.plan.measured, Some((&mut recorder, sent)))?;
        self.seen.is_measuring = false;
        let series = recorder.finish(self.rig.clock.now(), self.sent() - sent, &self.seen.published);
        let took = self.rig.clock.now().saturating_duration_since(begin);
        let (after, own_cpu_s) = (self.usage()?, Usage::of(None)?.cpu_s() - own_before.cpu_s());
        self.wait_for_answers()?;
        Ok(Report::of(Measured {
            target: "carillon",
            plan: self.plan,
            took,
            sent: self.sent(),
            acknowledged: self.seen.acknowledged,
            measured: self.seen.measured,
            published: &self.seen.published,
            costs: before.zip(after),
            own_cpu_s,
            offered: None,
            // Sent as fast as the windows let: nothing is due.
            late_ms_max: 0.0,
            series,
        }))
    }

    /// Messages sent so far. What was let out is what is offered.
    fn sent(&self) -> u64 {
        self.producers.iter().map(|producer| u64::from(producer.publisher.sent())).sum()
    }

    fn publish_until(&mut self, end: Instant, mut recorder: Option<(&mut Recorder, u64)>) -> Result<(), Failure> {
        while self.rig.clock.now() < end {
            if let Some((recorder, before)) = &mut recorder
                && let Some(point) = recorder.tick(self.rig.clock.now(), || self.sent() - *before, &self.seen.published)
            {
                self.rig.tell_progress(point.sentence());
            }
            self.turn()?;
            self.rig.watch.check(self.rig.clock.now(), || "acknowledgements".to_owned())?;
        }
        Ok(())
    }

    /// Until each producer has all its answers, or the patience is over.
    fn wait_for_answers(&mut self) -> Result<(), Failure> {
        self.rig.begin("waiting for the last answers");
        for producer in &mut self.producers {
            producer.publisher.stop();
        }
        while self.producers.iter().any(|producer| !producer.publisher.is_done())
            && !self.rig.watch.is_over(self.rig.clock.now())
        {
            self.turn()?;
        }
        Ok(())
    }

    /// Everybody sends what the window lets out, and takes what was answered.
    fn turn(&mut self) -> Result<(), Failure> {
        let first = self.rig.fleet.sessions() - self.producers.len();
        let now = self.rig.clock.now();
        for (nth, producer) in self.producers.iter_mut().enumerate() {
            let sent = producer.publisher.sent();
            producer.publisher.send_due(now, &mut self.rig.fleet, first + nth);
            producer.pending.extend((sent..producer.publisher.sent()).map(|index| (index, now)));
        }
        let (watch, producers, seen) = (&mut self.rig.watch, &mut self.producers, &mut self.seen);
        self.rig.fleet.turn(IDLE_WAIT, &mut |session, now, news| match news {
            News::Answer(frame) if session >= first => {
                watch.note(now);
                seen.take(&mut producers[session - first], now, &frame);
            }
            News::Ended(why) if session >= first => seen.failed = Some(format!("a producer is lost: {why}")),
            News::Answer(_)
            | News::Ended(_)
            | News::Open(_)
            | News::CaughtUp
            | News::Message(_)
            | News::Receipt(_)
            | News::Urgent(_) => {}
        })?;
        match self.seen.failed.take() {
            Some(why) => Err(self.rig.failed(why)),
            None => Ok(()),
        }
    }
}

impl Seen {
    fn take(&mut self, producer: &mut Producer, now: Instant, frame: &Frame) {
        match producer.publisher.take(now, frame) {
            Ok(Some(index)) => {
                self.acknowledged += 1;
                let place = producer.pending.iter().position(|(pending, _)| *pending == index);
                let since = place.and_then(|place| producer.pending.remove(place));
                if let Some((_, since)) = since.filter(|_| self.is_measuring) {
                    self.measured += 1;
                    latency::record(&mut self.published, now, since);
                }
            }
            // Refused as too much at once: it is sent again, and its latency counts from the first time.
            Ok(None) => {}
            Err(why) => self.failed = Some(why),
        }
    }
}
