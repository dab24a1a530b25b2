//! The scenario `receipts`: everybody in a large group marks everything read within seconds.
//!
//! One thread plays the group: its members, each in a session of its own, and some authors. A probe in another publishes
//! into other conversations and sends DINGs at a steady rate, before, while and after the members mark. What must hold
//! whatever the speed: every mark is answered, the counts at the end are those of the marks, authors get few updates.

mod audience;
mod plan;
mod report;
mod storm;

use std::time::Instant;

use carillon_protocol::Frame;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Seq, UserId};
use carillon_protocol::kinds::StatusList;
use carillon_protocol::receipt::ReadStatus;

use crate::crew::{self, accepted, unexpected};
use crate::failure::Failure;
use crate::fleet::{Acks, SessionIndex};
use crate::latency::Latency;
use crate::limits::{COUNTS_EVERY, IDLE_WAIT, NAMED_MEMBERS_MAX};
use crate::phases::{Mark, costs};
use crate::probe::{Command, Probe, Probed};
use crate::publisher::{Publisher, Publishing};
use crate::report::Point;
use crate::requests::ask;
use crate::rig::{Guest, Rig, Terms, cursor_at_head, sleep_until};
use crate::schedule::Schedule;
use crate::session::News;
use crate::target::Target;
use crate::token::Role;
use audience::Audience;
pub use plan::Plan;
pub use report::{Marks, Messages, Report, Status, Updates};
use storm::{Marking, Storm};

/// The session that makes what is not there and asks for counts, the first of the fleet. The members follow, then the
/// authors.
const SERVICE: SessionIndex = 0;

/// The session of the first member.
const FIRST_MEMBER: SessionIndex = 1;

/// The phases, in this order.
const PHASES: [&str; 3] = ["before", "during", "after"];

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    rig: Rig<'a>,
    group: ConversationId,
    audience: Audience,
    storm: Option<Storm>,
    /// Second by second, without what the probe measures.
    series: Vec<Point>,
    sessions_lost: u32,
    first_loss: Option<String>,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run in which something was not as it must be does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    let terms = Terms { sockets: plan.sockets, acks: Acks::SDK, patience: plan.patience, time_limit: plan.time_limit };
    let mut rig = Rig::new(target, terms, note)?;
    rig.begin("connecting the service");
    let handle = format!("{}-publisher", plan.prefix);
    let (_, welcome) =
        rig.connect_one(&Guest { handle: &handle, role: Role::Service, publishes: false, cursor: None })?;
    rig.note(format!("making {} users and their group", plan.members));
    let group = enlist(&mut rig, plan)?;
    let run_number = rig.run_number();
    let cursor = cursor_at_head(&welcome);
    let probe = plan.others.start((&mut rig, SERVICE), (target, terms), &plan.prefix, (run_number, cursor))?;
    if plan.sessions < plan.members {
        rig.note(format!("of {} members {} connect, and mark", plan.members, plan.sessions));
    }
    rig.begin("connecting the members");
    let connect = rig.connect_users(plan.session_handles(), plan.connecting_max, cursor)?;
    let first_author = FIRST_MEMBER + plan.sessions as usize;
    let audience = Audience::new(run_number, group, first_author, plan.authors);
    let mut run =
        Run { plan, rig, group, audience, storm: None, series: Vec::new(), sessions_lost: 0, first_loss: None };
    let messages = run.publish(run_number)?;
    let marks = run.measure(&probe)?;
    let probed = run.join(probe)?;
    let status = run.ask_status()?;
    let report = run.report(connect.as_secs_f64(), messages, &marks, status, &probed);
    run.rig.fleet.close()?;
    Ok(report)
}

/// The group, with all members and authors in it.
fn enlist(rig: &mut Rig<'_>, plan: &Plan) -> Result<ConversationId, Failure> {
    let handles: Vec<_> = plan.member_handles().chain(plan.author_handles()).collect();
    let users = crew::find_users(rig, SERVICE, &handles)?;
    crew::enlist(rig, SERVICE, &format!("{}/storm/{}+{}", plan.prefix, plan.members, plan.authors), &users)
}

impl Run<'_> {
    /// Connects the authors, lets each publish one message, and waits until every session has all of them.
    fn publish(&mut self, run_number: u64) -> Result<Messages, Failure> {
        self.rig.begin("publishing what will be marked");
        let schedule = Schedule { start: self.rig.clock.now(), interval: std::time::Duration::ZERO, batch: 1 };
        let mut publishers = Vec::new();
        for handle in self.plan.author_handles() {
            let author = Guest { handle: &handle, role: Role::User, publishes: true, cursor: None };
            let (_, welcome) = self.rig.connect_one(&author)?;
            let what = Publishing {
                run: run_number,
                schedule,
                messages: 1,
                conversations: vec![self.group],
                payload_bytes: self.plan.others.payload_bytes,
            };
            publishers.push(Publisher::new(what, welcome.producer_highest));
        }
        let begin = self.rig.clock.now();
        let offered = u64::from(self.plan.authors) * u64::from(self.plan.sessions + self.plan.authors);
        let mut failed = None;
        while self.audience.delivered < offered || publishers.iter().any(|publisher| !publisher.is_done()) {
            let now = self.rig.clock.now();
            for (author, publisher) in publishers.iter_mut().enumerate() {
                publisher.send_due(now, &mut self.rig.fleet, self.audience.first_author() + author);
            }
            let mut answers = Vec::new();
            self.turn(IDLE_WAIT, &mut |session, now, frame| answers.push((session, now, frame)))?;
            for (session, now, frame) in answers {
                let Some(author) = self.audience.author(session) else { continue };
                if let Frame::Published(published) = &frame {
                    self.audience.seqs[author] = Some(published.seq);
                }
                failed = publishers[author].take(now, &frame).err().or(failed);
            }
            if let Some(why) = failed {
                return Err(self.rig.failed(why));
            }
            if self.rig.watch.is_over(now) {
                break;
            }
        }
        let took_s = self.rig.clock.now().saturating_duration_since(begin).as_secs_f64();
        Ok(Messages { authors: self.plan.authors, offered, delivered: self.audience.delivered, took_s })
    }

    /// The three phases; answers the moments between them.
    fn measure(&mut self, probe: &Probe) -> Result<Vec<Mark>, Failure> {
        let up_to = self.audience.seqs.iter().flatten().max().copied().unwrap_or(Seq(0));
        self.rig.note(format!("measuring for {} s before the storm", self.plan.around.as_secs()));
        self.rig.begin("measuring before the storm");
        let begin = self.rig.mark(self.plan.broker_pid)?;
        self.rig.record(begin.at, self.plan.broker_pid);
        probe.tell(Command::Publish(begin.at));
        probe.tell(Command::Ding(begin.at));
        self.run_until(begin.at + self.plan.around, probe)?;

        self.rig.note(format!("{} marks within {} s", self.plan.sessions, self.plan.storm.as_secs_f64()));
        self.rig.begin("marking");
        let start = self.rig.mark(self.plan.broker_pid)?;
        let (conversation, schedule) = (self.group, self.plan.marks(start.at));
        let what = Marking { conversation, up_to, first: FIRST_MEMBER, marks: self.plan.sessions, schedule };
        self.storm = Some(Storm::new(what));
        self.run_storm(start.at)?;

        self.rig.note(format!("measuring for {} s after it", self.plan.around.as_secs()));
        self.rig.begin("measuring after the storm");
        let calm = self.rig.mark(self.plan.broker_pid)?;
        self.run_until(calm.at + self.plan.around, probe)?;
        self.series = self.rig.recorded();
        let end = self.rig.mark(self.plan.broker_pid)?;
        probe.tell(Command::StopPublishing(end.at));
        probe.tell(Command::StopDings(end.at));
        probe.tell(Command::Finish);
        Ok(vec![begin, start, calm, end])
    }

    fn run_storm(&mut self, start: Instant) -> Result<(), Failure> {
        let end = start + self.plan.storm;
        loop {
            let now = self.rig.clock.now();
            let storm = self.storm.as_mut().expect("it has begun");
            if (storm.is_done() && now >= end) || self.rig.watch.is_over(now) {
                return Ok(());
            }
            storm.send_due(now, &mut self.rig.fleet);
            let wait = storm.next_due().map_or(IDLE_WAIT, |due| sleep_until(due, now));
            self.turn(wait, &mut |_, _, _| {})?;
        }
    }

    /// Keeps the sessions alive until a moment, or until the probe has failed.
    fn run_until(&mut self, end: Instant, probe: &Probe) -> Result<(), Failure> {
        loop {
            let now = self.rig.clock.now();
            if now >= end || probe.is_finished() {
                return Ok(());
            }
            self.rig.watch.note(now);
            self.rig.watch.check(now, || "the end of the phase".to_owned())?;
            self.turn(IDLE_WAIT, &mut |_, _, _| {})?;
        }
    }

    /// Keeps the sessions alive until the probe has everything and the authors know of every reader, or no more comes.
    fn join(&mut self, probe: Probe) -> Result<Probed, Failure> {
        self.rig.begin("waiting for the last updates");
        let answered = self.storm.as_ref().map_or(0, |storm| storm.answered);
        loop {
            let are_told = self.audience.told_min() >= answered || self.rig.watch.is_over(self.rig.clock.now());
            if are_told && probe.is_finished() {
                return probe.join();
            }
            self.turn(IDLE_WAIT, &mut |_, _, _| {})?;
        }
    }

    /// One turn of the fleet. Answers go to the storm while there is one, else to the caller.
    fn turn(
        &mut self,
        wait: std::time::Duration,
        answer: &mut impl FnMut(SessionIndex, Instant, Frame),
    ) -> Result<(), Failure> {
        let Self { rig, audience, storm, sessions_lost, first_loss, .. } = self;
        let answered = storm.as_ref().map_or(0, |storm| storm.answered);
        rig.look_beside(rig.clock.now(), Some(answered.into()));
        let watch = &mut rig.watch;
        rig.fleet.turn(wait, &mut |session, now, news| match news {
            News::Message(deliver) => {
                watch.note(now);
                audience.take_message(&deliver);
            }
            News::Answer(frame) => {
                watch.note(now);
                match storm {
                    Some(storm) => storm.take(session, now, &frame),
                    None => answer(session, now, frame),
                }
            }
            News::Receipt(frame) => audience.take_receipt(session, &frame),
            News::Ended(why) => {
                *sessions_lost += 1;
                first_loss.get_or_insert_with(|| why.to_string());
                if let Some(storm) = storm {
                    storm.lose(session);
                }
            }
            News::Open(_) | News::CaughtUp | News::Urgent(_) => {}
        })
    }

    /// What the broker says of each author's message.
    fn ask_status(&mut self) -> Result<Vec<Status>, Failure> {
        self.rig.begin("asking who has read");
        let conversation = self.group;
        let read_expected = self.storm.as_ref().map_or(0, |storm| storm.answered);
        let unread_expected = self.plan.members + self.plan.authors - 1 - read_expected;
        let mut found = Vec::new();
        for seq in self.audience.seqs.clone().into_iter().flatten() {
            let list = StatusList::COUNTS;
            let make = |request| ReadStatus { request, conversation, seq, list, from: UserId(0), limit: 1 }.to_bytes();
            let reply = ask(&mut self.rig, SERVICE, make)?;
            match accepted(&self.rig, reply)? {
                Frame::ReadStatusReply(reply) => found.push(Status {
                    seq: seq.0,
                    read: reply.read,
                    unread: reply.unread,
                    read_expected,
                    unread_expected,
                }),
                other => return Err(unexpected(&self.rig, &other)),
            }
        }
        Ok(found)
    }

    fn report(
        &self,
        connect_s: f64,
        messages: Messages,
        marks: &[Mark],
        status: Vec<Status>,
        probed: &Probed,
    ) -> Report {
        let members = self.plan.members + self.plan.authors;
        let mut report = Report {
            scenario: "receipts",
            members,
            sessions: self.plan.sessions,
            connect_s,
            messages,
            marks: self.marks(),
            updates: self.updates(members),
            status,
            rows: probed.rows(&PHASES, marks),
            costs: costs(&PHASES, marks),
            timeline: probed.timeline(self.series.clone(), &PHASES, marks).with_strain(Some("marks answered")),
            probe_late_ms_max: probed.published.as_ref().map_or(0.0, |published| published.late_ms_max),
            sessions_lost: self.sessions_lost,
            first_loss: self.first_loss.clone(),
            complaints: Vec::new(),
        };
        report.complaints = report.find_complaints();
        report.complaints.extend(probed.complaints());
        report
    }

    fn marks(&self) -> Marks {
        let storm = self.storm.as_ref().expect("it has been");
        let took = storm.last.saturating_duration_since(storm.start()).as_secs_f64().max(1e-6);
        Marks {
            offered: self.plan.sessions,
            answered: storm.answered,
            refused: storm.refused,
            first_refusal: storm.first_refusal.clone(),
            repeated: storm.repeated,
            offered_per_s: f64::from(self.plan.sessions) / self.plan.storm.as_secs_f64(),
            achieved_per_s: f64::from(storm.answered) / took,
            latency: Latency::of(&storm.latency),
            late_ms_max: storm.late_max.as_secs_f64() * 1e3,
        }
    }

    fn updates(&self, members: u32) -> Updates {
        let storm = self.storm.as_ref().expect("it has been");
        let told = &self.audience.told;
        let took = storm.last.saturating_duration_since(storm.start());
        let intervals = u32::try_from(took.as_nanos().div_ceil(COUNTS_EVERY.as_nanos())).unwrap_or(u32::MAX);
        Updates {
            names_max: told.iter().map(|told| told.names).max().unwrap_or(0),
            counts_max: told.iter().map(|told| told.counts).max().unwrap_or(0),
            // In a small group each mark is told at once, by name. In others one update more than there are intervals: the
            // first mark and the last one lie in the midst of one.
            bound: if members <= NAMED_MEMBERS_MAX { self.plan.sessions } else { intervals + 1 },
            told_min: self.audience.told_min(),
        }
    }
}
