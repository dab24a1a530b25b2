//! The scenario `pairwise`: direct messages between the two of each pair, at an offered rate.
//!
//! Open load: message n of all is due by the clock, whatever has become of the earlier ones, and its latencies count from there. Each must
//! reach the other one of the pair, once and in order, and the author's own device gets a copy.

use std::time::{Duration, Instant};

use carillon_protocol::deliver::Deliver;
use carillon_protocol::ids::UserId;
use hdrhistogram::Histogram;

use crate::admission::Crowd;
use crate::authors::{Authors, Writing};
use crate::basis::Basis;
use crate::crew;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::latency::{histogram, record};
use crate::limits::{AUTHOR_WINDOW, IDLE_WAIT};
use crate::phases::{Mark, seconds};
use crate::publisher::{Place, index_in};
use crate::report::{Point, Recorder};
use crate::rig::{Guest, Rig, cursor_at_head, sleep_until};
use crate::session::News;
use crate::summary::Summary;
use crate::target::Target;
use crate::token::Role;

/// The session that makes the users, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who takes part.
    pub basis: Basis,
    /// Pairs, of two users each.
    pub pairs: u32,
    /// Messages a second, of all together.
    pub rate: u32,
    /// Bytes of each payload, at least [`PAYLOAD_BYTES_MIN`](crate::limits::PAYLOAD_BYTES_MIN).
    pub payload_bytes: usize,
    /// How long they write before it is measured.
    pub warm_up: Duration,
    /// How long is measured.
    pub measured: Duration,
}

/// Everybody, and what was seen.
struct Chat {
    run: u64,
    first: SessionIndex,
    users: Vec<UserId>,
    authors: Authors,
    /// By session: the message of the other one that is to come next.
    next: Vec<u32>,
    /// What is due from here on is measured.
    from: Instant,
    published: Histogram<u64>,
    delivered: Histogram<u64>,
    last: Instant,
    /// In the whole run.
    acked: u64,
    arrived: u64,
    copies: u64,
    misplaced: u64,
    failed: Option<String>,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with deliveries missing does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Summary, Failure> {
    let basis = &plan.basis;
    let mut rig = Rig::new(target, basis.terms(), note)?;
    rig.begin("connecting the service");
    let service = Guest { handle: &basis.service(), role: Role::Service, publishes: false, cursor: None };
    let (_, welcome) = rig.connect_one(&service)?;
    let handles = basis.users(plan.pairs * 2);
    let users = crew::find_users(&mut rig, SERVICE, &handles)?;
    rig.begin("connecting the sessions");
    rig.note(format!("connecting {} pairs", plan.pairs));
    let (cursor, at_once) = (cursor_at_head(&welcome), basis.connecting_max);
    let crowd = Crowd { handles: &handles, role: Role::User, publishes: true, cursor, at_once };
    let admission = rig.admit(&crowd, &mut |_, _, _| {})?;
    rig.begin("writing");
    rig.note(format!("{} messages a second for {} s", plan.rate, plan.measured.as_secs()));
    let (run, start) = (rig.run_number(), rig.clock.now());
    let writing = Writing { run, start, rate: plan.rate, payload_bytes: plan.payload_bytes, window: AUTHOR_WINDOW };
    let sessions = admission.producers.iter().enumerate().map(|(nth, highest)| (admission.first + nth, *highest));
    let authors = Authors::new(writing, sessions, |author| vec![Place::User(users[author ^ 1])]);
    let mut chat = Chat::new(run, (admission.first, users), authors, start + plan.warm_up);
    let (marks, series) = chat.measure(&mut rig, plan)?;
    let summary = chat.summarise(plan, &marks, series);
    rig.fleet.close()?;
    Ok(summary)
}

impl Chat {
    fn new(run: u64, (first, users): (SessionIndex, Vec<UserId>), authors: Authors, from: Instant) -> Self {
        Self {
            run,
            first,
            next: vec![0; users.len()],
            users,
            authors,
            from,
            published: histogram(),
            delivered: histogram(),
            last: from,
            acked: 0,
            arrived: 0,
            copies: 0,
            misplaced: 0,
            failed: None,
        }
    }

    /// Warms up, measures, and waits for what is under way.
    fn measure(&mut self, rig: &mut Rig<'_>, plan: &Plan) -> Result<((Mark, Mark), Vec<Point>), Failure> {
        let end = self.from + plan.measured;
        self.authors.stop_at(end);
        self.write_until(rig, self.from, None)?;
        let from = rig.mark(plan.basis.broker_pid)?;
        let due_before = self.authors.due_until(from.at);
        let mut recorder = Recorder::new(from.at, plan.basis.broker_pid, &self.delivered);
        self.write_until(rig, end, Some((&mut recorder, due_before)))?;
        let to = rig.mark(plan.basis.broker_pid)?;
        let series = recorder.finish(to.at, self.authors.due_until(to.at) - due_before, &self.delivered);
        rig.begin("waiting for what is under way");
        while !self.is_done() && !rig.watch.is_over(rig.clock.now()) {
            self.turn(rig)?;
        }
        Ok(((from, to), series))
    }

    fn write_until(
        &mut self,
        rig: &mut Rig<'_>,
        end: Instant,
        mut recorder: Option<(&mut Recorder, u64)>,
    ) -> Result<(), Failure> {
        loop {
            let now = rig.clock.now();
            if now >= end {
                return Ok(());
            }
            if let Some((recorder, before)) = &mut recorder {
                let offered = || self.authors.due_until(now) - *before;
                if let Some(point) = recorder.tick(now, offered, &self.delivered) {
                    rig.tell_progress(point.sentence());
                }
            }
            self.turn(rig)?;
            rig.watch.check(rig.clock.now(), || "answers and deliveries".to_owned())?;
        }
    }

    fn turn(&mut self, rig: &mut Rig<'_>) -> Result<(), Failure> {
        let now = rig.clock.now();
        self.authors.send_due(now, &mut rig.fleet);
        let wait = self.authors.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, now));
        let watch = &mut rig.watch;
        rig.fleet.turn(wait, &mut |session, now, news| {
            let Some(of) = session.checked_sub(self.first) else { return };
            match news {
                News::Answer(frame) => {
                    watch.note(now);
                    match self.authors.take(of, now, &frame) {
                        Ok(Some(index)) => self.take_answer(now, self.authors.due_at(of, index)),
                        Ok(None) => {}
                        Err(why) => self.failed = Some(why),
                    }
                }
                News::Message(deliver) => {
                    watch.note(now);
                    self.take_message(of, now, &deliver);
                }
                News::Ended(why) => self.failed = Some(format!("a session is lost: {why}")),
                News::Open(_) | News::CaughtUp | News::Receipt(_) | News::Urgent(_) => {}
            }
        })?;
        self.failed.take().map_or(Ok(()), |why| Err(rig.failed(why)))
    }

    fn take_answer(&mut self, now: Instant, due: Instant) {
        self.acked += 1;
        if due >= self.from {
            record(&mut self.published, now, due);
        }
    }

    fn take_message(&mut self, of: usize, now: Instant, deliver: &Deliver) {
        let Some(index) = index_in(&deliver.payload, self.run) else { return };
        let other = of ^ 1;
        if deliver.author == self.users[of] {
            self.copies += 1;
        } else if deliver.author == self.users[other] && index == self.next[of] {
            self.next[of] += 1;
            self.arrived += 1;
            let due = self.authors.due_at(other, index);
            if due >= self.from {
                record(&mut self.delivered, now, due);
                self.last = now;
            }
        } else {
            self.misplaced += 1;
        }
    }

    fn is_done(&self) -> bool {
        let sent = self.authors.sent();
        self.arrived >= sent && self.copies >= sent && self.authors.are_done()
    }

    fn summarise(&self, plan: &Plan, (from, to): &(Mark, Mark), series: Vec<Point>) -> Summary {
        let (sent, due) = (self.authors.sent(), self.authors.due_until(to.at));
        let offered = due - self.authors.due_until(self.from);
        let span = self.last.saturating_duration_since(self.from).max(plan.measured).as_secs_f64();
        let mut summary = Summary::new("pairwise");
        summary.figure("sessions", "sessions, two to a pair", f64::from(plan.pairs) * 2.0, "");
        summary.figure("payload_bytes", "bytes of a payload", plan.payload_bytes as f64, "");
        summary.figure("measured_s", "measured", seconds(from, to), "s");
        summary.figure("offered", "messages due while it was measured", offered as f64, "");
        summary.figure("delivered", "of them delivered", self.delivered.len() as f64, "");
        summary.figure("offered_per_s", "offered a second", offered as f64 / plan.measured.as_secs_f64(), "/s");
        summary.figure("achieved_per_s", "achieved a second", self.delivered.len() as f64 / span, "/s");
        let cpu_us = from.broker_cpu_us_until(to, offered);
        summary.broker("broker.cpu_us_per_message", "broker's CPU a message, for two deliveries", cpu_us, "µs");
        summary.spread("latency", "due to delivered", &self.delivered);
        summary.spread("published", "due to durable", &self.published);
        summary.measured(from, to, self.authors.late_ms_max());
        summary.series = series;
        summary.expect(sent == due, || format!("{} messages that were due were never sent", due - sent));
        summary.expect(self.acked == sent, || format!("{} of {sent} messages have an answer", self.acked));
        summary.expect(self.arrived == sent, || format!("{} of {sent} messages were delivered", self.arrived));
        let copies = self.copies;
        summary.expect(copies == sent, || format!("{copies} of {sent} copies came back to their authors' devices"));
        summary.expect(self.misplaced == 0, || format!("{} deliveries were out of place", self.misplaced));
        summary
    }
}
