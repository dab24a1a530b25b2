//! The scenarios `overload`, `deaf`, `hoard` and `flood`: somebody strains the broker, and a probe measures what that does to everybody
//! else, before, while and after it.
//!
//! One thread plays those who strain it, another is the probe. What must hold whatever the speed: what was acknowledged is
//! delivered, once and in order; who reads and publishes as before loses neither a session nor a message.

mod deaf;
mod flood;
mod hoard;
mod plan;
mod pressure;
mod report;

use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::fleet::{Acks, SessionIndex};
use crate::limits::{IDLE_WAIT, NORMAL_FACTOR, NORMAL_WINDOW, RESIDENT_EVERY};
use crate::phases::{Mark, Row, costs};
use crate::probe::{Command, Probe, Probed};
use crate::process::Usage;
use crate::report::Point;
use crate::rig::{Guest, Rig, Terms, cursor_at_head};
use crate::target::Target;
use crate::token::Role;
use deaf::Deaf;
use flood::Flood;
use hoard::Hoard;
pub use plan::{Plan, Strain};
use pressure::Pressure;
pub use report::{Deafness, Flooding, Hoarding, Outcome, Overload, Report};

/// The session that makes what is not there, the first of the fleet.
const SERVICE: SessionIndex = 0;

/// The phases, in this order.
const PHASES: [&str; 3] = ["before", "during", "after"];

/// What strains the broker.
enum Load {
    Pressure(Pressure),
    Deaf(Box<Deaf>),
    Hoard(Hoard),
    Flood(Flood),
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    rig: Rig<'a>,
    load: Load,
    resident_max_kib: Option<u64>,
    look_at: Instant,
    /// Second by second, without what the probe measures.
    series: Vec<Point>,
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
    let service = Guest { handle: &handle, role: Role::Service, publishes: true, cursor: None };
    let (_, welcome) = rig.connect_one(&service)?;
    let run_number = rig.run_number();
    let cursor = cursor_at_head(&welcome);
    let probe = plan.others.start((&mut rig, SERVICE), (target, terms), &plan.prefix, (run_number, cursor))?;
    let load = match plan.strain {
        Strain::Overload { producers, factor, memory_max_mib, .. } => {
            let what = (producers, factor, memory_max_mib);
            Load::Pressure(Pressure::prepare(&mut rig, plan, what, run_number + 1, SERVICE)?)
        }
        Strain::Deaf { sessions, percent, rate } => {
            let (what, service) = ((sessions, percent, rate), (SERVICE, welcome.producer_highest));
            Load::Deaf(Box::new(Deaf::prepare(&mut rig, plan, what, run_number + 1, service)?))
        }
        Strain::Hoard { sessions } => {
            let service = (SERVICE, welcome.producer_highest);
            Load::Hoard(Hoard::prepare(&mut rig, plan, sessions, run_number + 1, service)?)
        }
        Strain::Flood { rate } => Load::Flood(Flood::prepare(target, rate)?),
    };
    let look_at = rig.clock.now();
    let mut run = Run { plan, rig, load, resident_max_kib: None, look_at, series: Vec::new() };
    let (marks, names) = run.measure(&probe)?;
    let probed = run.join(probe)?;
    let report = run.report((&marks, &names), &probed);
    run.rig.fleet.close()?;
    Ok(report)
}

impl Run<'_> {
    /// The phases; answers the moments between them, and what lies between.
    fn measure(&mut self, probe: &Probe) -> Result<(Vec<Mark>, Vec<&'static str>), Failure> {
        let plan = self.plan;
        let (mut marks, mut names) = (Vec::new(), Vec::new());
        self.rig.note(format!("measuring for {} s before", plan.before.as_secs()));
        let begin = self.rig.mark(plan.broker_pid)?;
        self.rig.record(begin.at, plan.broker_pid);
        probe.tell(Command::Publish(begin.at));
        probe.tell(Command::Ding(begin.at));
        marks.push(begin);
        names.push(PHASES[0]);
        self.run_until(begin.at + plan.before, probe, "measuring before")?;
        if let Strain::Overload { flat_out, .. } = plan.strain {
            marks.push(self.rig.mark(plan.broker_pid)?);
            names.push("flat out");
            self.fly_flat_out(flat_out, probe)?;
        }
        self.rig.note(format!("the strain, for {} s", plan.during.as_secs()));
        let start = self.rig.mark(plan.broker_pid)?;
        marks.push(start);
        names.push(PHASES[1]);
        match &mut self.load {
            Load::Pressure(pressure) => pressure.begin(start.at),
            Load::Deaf(deaf) => deaf.begin(start.at, &mut self.rig.fleet),
            Load::Hoard(hoard) => hoard.begin(&mut self.rig.fleet),
            Load::Flood(flood) => flood.begin(start.at)?,
        }
        self.run_until(start.at + plan.during, probe, "straining the broker")?;
        let calm = self.rig.mark(plan.broker_pid)?;
        marks.push(calm);
        names.push(PHASES[2]);
        match &mut self.load {
            Load::Pressure(pressure) => pressure.end(calm.at),
            Load::Deaf(deaf) => {
                deaf.end(calm.at);
                deaf.read_on(&mut self.rig.fleet);
            }
            Load::Hoard(_) => {}
            Load::Flood(flood) => flood.end(calm.at),
        }
        self.rig.note(format!("measuring for {} s after it", plan.after.as_secs()));
        self.run_until(calm.at + plan.after, probe, "measuring after")?;
        self.series = self.rig.recorded();
        let end = self.rig.mark(plan.broker_pid)?;
        marks.push(end);
        probe.tell(Command::StopPublishing(end.at));
        probe.tell(Command::StopDings(end.at));
        probe.tell(Command::Finish);
        if let Load::Deaf(deaf) = &mut self.load {
            deaf.stop();
        }
        Ok((marks, names))
    }

    /// What the broker can take when all publish as fast as they can.
    fn fly_flat_out(&mut self, long: Duration, probe: &Probe) -> Result<(), Failure> {
        self.rig.note(format!("publishing as fast as the broker takes it, for {} s", long.as_secs()));
        let now = self.rig.clock.now();
        if let Load::Pressure(pressure) = &mut self.load {
            pressure.flat_out(now);
        }
        self.run_until(now + long, probe, "publishing flat out")?;
        let now = self.rig.clock.now();
        if let Load::Pressure(pressure) = &mut self.load {
            pressure.end(now);
        }
        while !self.load.is_settled() {
            self.turn()?;
            self.rig
                .watch
                .check(self.rig.clock.now(), || "the answers and deliveries of what was published".to_owned())?;
        }
        if let Load::Pressure(pressure) = &mut self.load {
            pressure.note_flat_out();
        }
        Ok(())
    }

    /// Goes on until a moment, or until the probe has failed.
    fn run_until(&mut self, end: Instant, probe: &Probe, phase: &'static str) -> Result<(), Failure> {
        self.rig.begin(phase);
        loop {
            let now = self.rig.clock.now();
            if now >= end || probe.is_finished() {
                return Ok(());
            }
            // The strain may keep the fleet silent; the probe has a watch of its own.
            self.rig.watch.note(now);
            self.rig.watch.check(now, || "the end of the phase".to_owned())?;
            self.turn()?;
        }
    }

    /// Goes on until the probe and the load have everything, or no more comes.
    fn join(&mut self, probe: Probe) -> Result<Probed, Failure> {
        self.rig.begin("waiting for what is under way");
        while !(probe.is_finished() && (self.load.is_settled() || self.rig.watch.is_over(self.rig.clock.now()))) {
            self.turn()?;
        }
        probe.join()
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let Self { plan, rig, load, .. } = self;
        let now = rig.clock.now();
        load.act(now, rig);
        rig.look_beside(now, load.done());
        let watch = &mut rig.watch;
        rig.fleet.turn(IDLE_WAIT, &mut |session, now, news| {
            watch.note(now);
            load.take(session, now, &news);
        })?;
        if let Some(pid) = plan.broker_pid
            && now >= self.look_at
        {
            self.look_at = now + RESIDENT_EVERY;
            // A broker that has died has nothing resident; what is missing tells of it.
            let resident = Usage::of(Some(pid)).ok().map(|usage| usage.resident_kib);
            self.resident_max_kib = self.resident_max_kib.max(resident);
        }
        Ok(())
    }

    fn report(&self, (marks, names): (&[Mark], &[&'static str]), probed: &Probed) -> Report {
        let rows = probed.rows(names, marks);
        let calm = marks[marks.len() - 2].at;
        let mut report = Report {
            scenario: self.plan.strain.name(),
            outcome: self.load.outcome(),
            normal_after_s: normal_after(&rows, probed, calm, self.plan.after),
            rows,
            costs: costs(names, marks),
            timeline: probed.timeline(self.series.clone(), names, marks).with_strain(self.plan.strain.of()),
            resident_max_mib: self.resident_max_kib.map(|kib| kib / 1024),
            probe_late_ms_max: probed.published.as_ref().map_or(0.0, |published| published.late_ms_max),
            complaints: Vec::new(),
        };
        report.complaints = report.find_complaints();
        report.complaints.extend(probed.complaints());
        report
    }
}

impl Load {
    fn act(&mut self, now: Instant, rig: &mut Rig<'_>) {
        match self {
            Self::Pressure(pressure) => pressure.act(now, &mut rig.fleet),
            Self::Deaf(deaf) => deaf.act(now, &mut rig.fleet),
            Self::Hoard(_) | Self::Flood(_) => {}
        }
    }

    fn take(&mut self, session: SessionIndex, now: Instant, news: &crate::session::News) {
        match self {
            Self::Pressure(pressure) => pressure.take(session, now, news),
            Self::Deaf(deaf) => deaf.take(session, now, news),
            Self::Hoard(hoard) => hoard.take(session, news),
            Self::Flood(_) => {}
        }
    }

    /// What has been done so far of what the strain is told in; `None` if that is no number.
    fn done(&self) -> Option<u64> {
        match self {
            Self::Pressure(pressure) => Some(pressure.answered()),
            Self::Deaf(deaf) => Some(deaf.delivered()),
            Self::Hoard(_) => None,
            Self::Flood(flood) => Some(flood.sent()),
        }
    }

    fn is_settled(&self) -> bool {
        match self {
            Self::Pressure(pressure) => pressure.is_settled(),
            Self::Deaf(deaf) => deaf.is_settled(),
            Self::Hoard(_) | Self::Flood(_) => true,
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Pressure(pressure) => pressure.outcome(),
            Self::Deaf(deaf) => deaf.outcome(),
            Self::Hoard(hoard) => hoard.outcome(),
            Self::Flood(flood) => flood.outcome(),
        }
    }
}

/// After how many whole seconds what the probe measures was as before and stayed so: in each window of some seconds from then on nine of
/// ten within twice what 99 of 100 took before.
fn normal_after(rows: &[Row], probed: &Probed, calm: Instant, after: Duration) -> Option<u32> {
    let seconds = u32::try_from(after.as_secs()).unwrap_or(u32::MAX);
    let is_normal = |second: u32| {
        let from = calm + Duration::from_secs(second.into());
        let to = (from + NORMAL_WINDOW).min(calm + after);
        probed.measures().iter().all(|(measure, count, samples)| {
            let before = rows.iter().find(|row| row.measure == *measure && row.phase == PHASES[0]);
            let most_ms = before.map_or(0.0, |row| row.figures.latency.p99_ms * NORMAL_FACTOR);
            let now = samples.figures(*count, 1.0, |_, due| (from..to).contains(&due));
            now.offered == 0 || (now.seen == now.offered && now.latency.p90_ms <= most_ms)
        })
    };
    let normal: Vec<bool> = (0..seconds).map(is_normal).collect();
    let not_yet = normal.iter().rposition(|is_normal| !is_normal).map_or(0, |last| last + 1);
    (not_yet < normal.len()).then(|| u32::try_from(not_yet).unwrap_or(u32::MAX))
}
