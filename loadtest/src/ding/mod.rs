//! The scenario `ding`: DINGs to devices that have nothing else to do, get live messages, or read a long backlog.
//!
//! One thread plays the devices, since a device reads all of its lanes itself. A probe in another sends the DINGs, from the first
//! phase to the last by one schedule, and publishes the live load. Beside the backlog only those DINGs count that were
//! due while their device was reading it, from the welcome to the catch-up: the device reads it again and again until there are
//! enough of them.

mod devices;
mod plan;
mod report;

use std::time::{Duration, Instant};

use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::session::Cursor;

use crate::backlog;
use crate::crew;
use crate::failure::Failure;
use crate::fleet::{Acks, SessionIndex};
use crate::limits::{DING_GOAL, IDLE_WAIT};
use crate::phases::{Cost, Mark, Row, seconds};
use crate::probe::{Command, Probe, ProbePlan, Probed};
use crate::pushes::Pushes;
use crate::report::{Measure, Point, Timeline};
use crate::rig::{Guest, Rig, Terms, cursor_at_head};
use crate::schedule::Schedule;
use crate::target::Target;
use crate::token::Role;
use devices::Devices;
pub use plan::Plan;
pub use report::{Backlog, Report};

/// The session that makes what is not there and publishes the backlog, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// The phases, in this order.
const PHASES: [&str; 3] = ["idle", "live load", "backlog"];

/// The last of them.
const BACKLOG: usize = 2;

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    rig: Rig<'a>,
    devices: Devices,
    /// By phase: its beginning and its end.
    ends: Vec<(Mark, Mark)>,
    /// When the first DING was due.
    start: Instant,
    /// Second by second from then on, without what became of the DINGs.
    series: Vec<Point>,
}

/// Runs the plan. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run in which a DING is missing does, and its report says so.
pub fn run(plan: &Plan, target: &Target, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    let terms = Terms { sockets: 1, acks: Acks::SDK, patience: plan.patience, time_limit: plan.time_limit };
    let mut rig = Rig::new(target, terms, note)?;
    rig.begin("connecting the service");
    let handle = format!("{}-publisher", plan.prefix);
    let service = Guest { handle: &handle, role: Role::Service, publishes: true, cursor: None };
    let (_, welcome) = rig.connect_one(&service)?;
    let handles: Vec<_> = plan.handles().collect();
    let recipients = crew::find_users(&mut rig, SERVICE, &handles)?;
    let group = crew::enlist(&mut rig, SERVICE, &format!("{}/ding/{}", plan.prefix, plan.devices), &recipients)?;
    let run_number = rig.run_number();
    rig.note(format!("publishing a backlog of {} messages", plan.backlog));
    let backlog = backlog::Backlog {
        run: run_number,
        messages: plan.backlog,
        conversation: group,
        payload_bytes: plan.payload_bytes,
    };
    backlog.publish(&mut rig, (SERVICE, welcome.producer_highest), &mut |_, _, _| {})?;
    let behind = cursor_at_head(&welcome);
    let probe = start_probe(plan, target, terms, run_number, (group, recipients), behind)?;
    let (devices, start) = (Devices::new(plan.handles(), behind), rig.clock.now());
    let mut run = Run { plan, rig, devices, ends: Vec::new(), start, series: Vec::new() };
    run.measure(&probe, run_number)?;
    let probed = run.join(probe)?;
    let report = run.report(&probed);
    run.rig.fleet.close()?;
    Ok(report)
}

fn start_probe(
    plan: &Plan,
    target: &Target,
    terms: Terms,
    run: u64,
    (group, recipients): (ConversationId, Vec<UserId>),
    cursor: Cursor,
) -> Result<Probe, Failure> {
    Probe::start(ProbePlan {
        target: target.clone(),
        terms,
        prefix: plan.prefix.clone(),
        run,
        payload_bytes: plan.payload_bytes,
        publish_rate: plan.load_rate,
        conversations: vec![group],
        ding_rate: plan.ding_rate,
        recipients,
        senders: plan.senders,
        listeners: Vec::new(),
        cursor,
    })
}

impl Run<'_> {
    /// The three phases, and then calm until everything has arrived.
    fn measure(&mut self, probe: &Probe, run: u64) -> Result<(), Failure> {
        let plan = self.plan;
        let head = crew::head(&mut self.rig, &plan.prefix)?;
        self.devices.connect_all(&mut self.rig, head)?;
        self.settle("connecting the devices")?;

        self.rig.note(format!("{} DINGs to idle devices", plan.dings));
        let start = self.rig.clock.now();
        self.start = start;
        self.rig.record(start, plan.broker_pid);
        self.devices.pushes = Some(Pushes::new(run, Schedule::per_second(start, plan.ding_rate)));
        probe.tell(Command::Ding(start));
        self.phase("sending DINGs to idle devices", probe, |_, begin, now| now >= begin + plan.phase())?;

        self.rig.note(format!("{} DINGs beside {} messages a second", plan.dings, plan.load_rate));
        probe.tell(Command::Publish(self.rig.clock.now()));
        self.phase("sending DINGs beside live load", probe, |_, begin, now| now >= begin + plan.phase())?;
        probe.tell(Command::StopPublishing(self.rig.clock.now()));
        self.settle("letting the live load end")?;

        self.rig.note(format!("{} DINGs beside a backlog of {} messages", plan.dings, plan.backlog));
        self.devices.set_looping(true);
        let schedule = Schedule::per_second(start, plan.ding_rate);
        self.phase("sending DINGs beside the backlog", probe, |devices, _, _| {
            due_while_streaming(devices, &schedule) >= plan.dings
        })?;
        self.devices.set_looping(false);
        self.settle("letting the devices catch up")?;
        self.series = self.rig.recorded();
        probe.tell(Command::StopDings(self.rig.clock.now()));
        probe.tell(Command::Finish);
        Ok(())
    }

    /// Waits until all devices have caught up and confirmed.
    fn settle(&mut self, phase: &'static str) -> Result<(), Failure> {
        self.rig.begin(phase);
        while !self.devices.are_idle() {
            self.turn()?;
            self.rig.watch.check(self.rig.clock.now(), || "the devices to catch up".to_owned())?;
        }
        Ok(())
    }

    fn phase(
        &mut self,
        name: &'static str,
        probe: &Probe,
        is_over: impl Fn(&Devices, Instant, Instant) -> bool,
    ) -> Result<(), Failure> {
        self.rig.begin(name);
        let begin = self.rig.mark(self.plan.broker_pid)?;
        loop {
            let now = self.rig.clock.now();
            if is_over(&self.devices, begin.at, now) || probe.is_finished() {
                break;
            }
            self.turn()?;
            self.rig.watch.check(self.rig.clock.now(), || "DINGs".to_owned())?;
        }
        let end = self.rig.mark(self.plan.broker_pid)?;
        self.ends.push((begin, end));
        Ok(())
    }

    /// Keeps the devices going until the probe has everything.
    fn join(&mut self, probe: Probe) -> Result<Probed, Failure> {
        self.rig.begin("waiting for the last DINGs");
        while !probe.is_finished() {
            self.turn()?;
        }
        probe.join()
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let Self { rig, devices, .. } = self;
        devices.act(rig)?;
        rig.look_beside(rig.clock.now(), Some(devices.read()));
        let watch = &mut rig.watch;
        rig.fleet.turn(IDLE_WAIT, &mut |session, now, news| {
            watch.note(now);
            devices.take(session, now, news);
        })?;
        match &devices.lost {
            Some(why) => Err(rig.failed(format!("a device is lost: {why}"))),
            None => Ok(()),
        }
    }

    fn report(&self, probed: &Probed) -> Report {
        let plan = self.plan;
        let phases = || PHASES.iter().zip(&self.ends);
        let rows = self.rows(probed);
        let p99_ms = rows.iter().find(|row| row.measure == PUSHED && row.phase == PHASES[BACKLOG]);
        let p99_ms = p99_ms.map_or(0.0, |row| row.figures.latency.p99_ms);
        let pushes = self.devices.pushes.as_ref().expect("the first phase has made it");
        let dings = probed.dinged.as_ref().map_or(0, |dinged| dinged.count);
        let in_phases: u32 = rows.iter().filter(|row| row.measure == PUSHED).map(|row| row.figures.offered).sum();
        let goal_p99_ms = DING_GOAL.as_secs_f64() * 1e3;
        let mut report = Report {
            scenario: "ding",
            devices: plan.devices,
            dings,
            dings_between: dings - in_phases,
            pushed_again: pushes.repeated,
            backlog: self.backlog(),
            load_per_s: plan.load_rate,
            rows,
            costs: phases().map(|(phase, (from, to))| Cost::between(phase, from, to)).collect(),
            timeline: self.timeline(dings),
            load_late_ms_max: probed.published.as_ref().map_or(0.0, |published| published.late_ms_max),
            goal_p99_ms,
            is_goal_met: p99_ms <= goal_p99_ms,
            complaints: Vec::new(),
        };
        report.complaints = report.find_complaints();
        report.complaints.extend(probed.complaints());
        report.complaints.extend(pushes.refused().map(|why| format!("a confirmation was refused: {why}")));
        let arrived = pushes.pushed.seen();
        if arrived != dings {
            report.complaints.push(format!("{arrived} of {dings} DINGs arrived"));
        }
        report
    }

    /// What became of the DINGs, so many, second by second.
    fn timeline(&self, count: u32) -> Timeline {
        let pushes = self.devices.pushes.as_ref().expect("the first phase has made it");
        let measure = Measure { name: PUSHED, count, samples: &pushes.pushed };
        let spans = PHASES.iter().zip(&self.ends).map(|(phase, (from, to))| (*phase, from.at, to.at));
        Timeline::of_probe(self.start, self.series.clone(), &measure)
            .with_spans(self.start, spans)
            .with_strain(Some("messages that the devices read"))
    }

    /// What became of the DINGs of each phase. Beside the backlog those count that were due while their device was reading it.
    fn rows(&self, probed: &Probed) -> Vec<Row> {
        let Some(dinged) = &probed.dinged else { return Vec::new() };
        let pushed = self.devices.pushes.as_ref().map(|pushes| (PUSHED, &pushes.pushed));
        let measures = [("DING: due to written", &dinged.written), ("DING: due to durable", &dinged.created)];
        let known = [("DING: due to confirmed, known", &dinged.known)];
        let measures = measures.into_iter().chain(pushed).chain(known);
        let rows = measures.flat_map(|(measure, samples)| {
            PHASES.iter().zip(&self.ends).enumerate().map(move |(at, (phase, (from, to)))| {
                let took_s = seconds(from, to);
                let in_phase = |due| (from.at..to.at).contains(&due);
                let figures = if at == BACKLOG {
                    let belongs = |index, due| in_phase(due) && self.is_streaming(index, due);
                    samples.figures(dinged.count, self.streaming_s(), belongs)
                } else {
                    samples.figures(dinged.count, took_s, |_, due| in_phase(due))
                };
                Row { measure, phase, figures }
            })
        });
        rows.collect()
    }

    /// Whether a DING was due while its device was reading the backlog.
    fn is_streaming(&self, index: u32, due: Instant) -> bool {
        let device = index as usize % self.devices.count();
        // The windows follow each other.
        let windows = self.devices.streaming(device);
        let next = windows.partition_point(|(_, to)| *to <= due);
        windows.get(next).is_some_and(|(from, _)| *from <= due)
    }

    /// How long a device was reading the backlog in all, on average.
    fn streaming_s(&self) -> f64 {
        self.windows().map(|(from, to)| (to - from).as_secs_f64()).sum::<f64>() / self.devices.count() as f64
    }

    fn windows(&self) -> impl Iterator<Item = (Instant, Instant)> {
        (0..self.devices.count()).flat_map(|device| self.devices.streaming(device).iter().copied())
    }

    fn backlog(&self) -> Backlog {
        let readings = u32::try_from(self.windows().count()).unwrap_or(u32::MAX);
        let read_s = self.streaming_s() * self.devices.count() as f64;
        Backlog {
            messages: self.plan.backlog,
            payload_bytes: self.plan.payload_bytes,
            readings,
            read_per_s: self.devices.streamed() as f64 / read_s.max(1e-6),
            took_s: read_s / f64::from(readings.max(1)),
        }
    }
}

/// The measure that the goal is about.
const PUSHED: &str = "DING: due to pushed";

/// How many DINGs were due so far while their device was reading the backlog, about: by the time it took.
fn due_while_streaming(devices: &Devices, schedule: &Schedule) -> u32 {
    let windows = (0..devices.count()).flat_map(|device| devices.streaming(device));
    let streamed: Duration = windows.map(|(from, to)| *to - *from).sum();
    let devices = u32::try_from(devices.count()).unwrap_or(u32::MAX);
    schedule.count_until(schedule.start + streamed / devices)
}
