//! What a strain did to everybody else, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::latency::Latency;
use crate::limits::{BACK_TO_NORMAL, FLOOD_P99_FACTOR, SESSION_KIB_MAX};
use crate::phases::{Cost, Costs, Row, Table, missing};
use crate::report::{Findings, Load, Timeline};

/// Figures of one run. Everything is as seen on this machine; nothing is corrected.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub scenario: &'static str,
    /// What became of the strain itself.
    pub outcome: Outcome,
    /// The probe's figures by phase.
    pub rows: Vec<Row>,
    /// What each phase took.
    pub costs: Vec<Cost>,
    /// Second by second: the deliveries of the probe's messages, and the strain.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// The most that the broker had resident, looked at each second, in MiB.
    pub resident_max_mib: Option<u64>,
    /// From the end of the strain until what the probe measures was as before, in seconds; `None`: not within the run.
    pub normal_after_s: Option<u32>,
    /// How late the probe wrote a message at worst: above some milliseconds the machine, not the broker, is the limit.
    pub probe_late_ms_max: f64,
    /// What was not as it must be; empty in a good run.
    pub complaints: Vec<String>,
}

/// What became of a strain.
#[derive(Clone, Debug, Serialize)]
pub enum Outcome {
    /// Of publishers.
    Overload(Overload),
    /// Of listeners that stopped reading.
    Deaf(Deafness),
    /// Of sessions that hold as much as they can.
    Hoard(Hoarding),
    /// Of first packets.
    Flood(Flooding),
}

/// Publishers that want more than the broker can take.
#[derive(Clone, Debug, Serialize)]
pub struct Overload {
    /// How many.
    pub producers: u32,
    /// Messages a second acknowledged when all published as fast as they could.
    pub capacity_per_s: f64,
    /// How many times that was due afterwards.
    pub factor: f64,
    /// Messages that were due.
    pub offered: u64,
    /// How many a second.
    pub offered_per_s: f64,
    /// Those that were never sent: the window was full, or the stream took no more.
    pub held_back: u64,
    /// Refusals as too much at once; what was refused was sent again.
    pub refused_busy: u64,
    /// Those that were sent.
    pub sent: u64,
    /// Those that were acknowledged.
    pub acked: u64,
    /// How many a second while it lasted.
    pub acked_per_s: f64,
    /// Those of both rounds that were delivered in order.
    pub delivered: u64,
    /// Those of both rounds that were acknowledged.
    pub acked_in_all: u64,
    /// Deliveries that came again or out of order.
    pub misplaced: u64,
    /// The most that the broker may have resident.
    pub memory_max_mib: Option<u32>,
    /// Why it came to nothing.
    pub lost: Option<String>,
}

/// Listeners of which some stopped reading.
#[derive(Clone, Debug, Serialize)]
pub struct Deafness {
    /// Listeners.
    pub sessions: u32,
    /// Those that stopped reading.
    pub deaf: u32,
    /// Messages to all of them.
    pub messages: u32,
    /// Deliveries that did not come to sessions that lived.
    pub missing: u64,
    /// Deliveries that came again or out of order.
    pub misplaced: u64,
    /// Sessions that did not read and were ended.
    pub deaf_ended: u32,
    /// Sessions that read and were ended all the same.
    pub others_ended: u32,
    /// Why the first session was ended.
    pub first_end: Option<String>,
    /// By phase: from when a message was due to each of those who read.
    pub latency: Vec<(&'static str, Latency)>,
    /// Why a message was refused.
    pub refused: Option<String>,
}

/// Sessions that hold as much as they can.
#[derive(Clone, Debug, Serialize)]
pub struct Hoarding {
    /// How many.
    pub sessions: u32,
    /// Those that were ended.
    pub ended: u32,
    /// Why the first of them was.
    pub first_end: Option<String>,
    /// What the broker had resident before.
    pub resident_before_kib: Option<u64>,
}

/// First packets.
#[derive(Clone, Debug, Serialize)]
pub struct Flooding {
    /// How many a second were due.
    pub offered_per_s: u32,
    /// How many the kernel took.
    pub sent: u64,
    /// How many a second.
    pub sent_per_s: f64,
    /// Why it ended early.
    pub failed: Option<String>,
}

impl Report {
    /// Whether everything was as it must be, however fast.
    pub fn is_complete(&self) -> bool {
        self.complaints.is_empty()
    }

    /// What is not as it must be.
    pub(super) fn find_complaints(&self) -> Vec<String> {
        let mut found: Vec<_> = missing(&self.rows).collect();
        match &self.outcome {
            Outcome::Overload(overload) => self.judge_overload(overload, &mut found),
            Outcome::Deaf(deaf) => {
                let Deafness { missing, misplaced, others_ended, first_end, refused, .. } = deaf;
                found.extend((*missing > 0).then(|| format!("{missing} deliveries are missing")));
                found.extend((*misplaced > 0).then(|| format!("{misplaced} deliveries came again or out of order")));
                let why = first_end.as_deref().unwrap_or("nobody knows why");
                found.extend((*others_ended > 0).then(|| format!("{others_ended} who read were ended: {why}")));
                found.extend(refused.clone());
            }
            Outcome::Hoard(_) => {
                let most = SESSION_KIB_MAX;
                let too_much = self.hoarded_kib().filter(|kib| *kib > most);
                found
                    .extend(too_much.map(|kib| format!("a session holds {kib} KiB of the broker, {most} is the most")));
            }
            Outcome::Flood(flood) => found.extend(flood.failed.clone()),
        }
        found
    }

    fn judge_overload(&self, overload: &Overload, found: &mut Vec<String>) {
        let Overload { sent, acked, delivered, acked_in_all, misplaced, memory_max_mib, lost, .. } = overload;
        found.extend(lost.clone());
        found.extend((acked != sent).then(|| format!("{acked} of {sent} messages that were sent have an answer")));
        let all_came = delivered == acked_in_all;
        found
            .extend((!all_came).then(|| format!("{delivered} of {acked_in_all} acknowledged messages were delivered")));
        found.extend((*misplaced > 0).then(|| format!("{misplaced} deliveries came again or out of order")));
        if let (Some(max), Some(most)) = (memory_max_mib, self.resident_max_mib)
            && most > u64::from(*max)
        {
            found.push(format!("the broker had {most} MiB resident, {max} is the most"));
        }
    }

    /// What each hoarder made the broker hold, in KiB, at the most; `None` if its process id was not given.
    pub fn hoarded_kib(&self) -> Option<u64> {
        let Outcome::Hoard(hoard) = &self.outcome else { return None };
        let grown = (self.resident_max_mib? * 1_024).saturating_sub(hoard.resident_before_kib?);
        Some(grown / u64::from(hoard.sessions).max(1))
    }

    /// How many times its p99 of before a measure has while the strain lasts, at worst.
    pub fn p99_factor(&self) -> f64 {
        let p99 = |phase: &str| {
            let rows = self.rows.iter().filter(move |row| row.phase == phase);
            rows.map(|row| (row.measure, row.figures.latency.p99_ms)).collect::<Vec<_>>()
        };
        let during = p99("during");
        let factors = p99("before").into_iter().filter_map(|(measure, before)| {
            let (_, during) = during.iter().find(|(of, _)| *of == measure)?;
            (before > 0.0).then_some(during / before)
        });
        factors.fold(0.0, f64::max)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overload(overload) => overload.fmt(f),
            Self::Deaf(deaf) => deaf.fmt(f),
            Self::Hoard(Hoarding { sessions, ended, first_end, .. }) => {
                write!(f, "hoarders    {sessions} sessions hold what they can; {ended} were ended")?;
                first_end.as_ref().map_or(Ok(()), |why| write!(f, ", the first as {why}"))
            }
            Self::Flood(Flooding { offered_per_s, sent, sent_per_s, .. }) => {
                write!(f, "flood       {sent} first packets, {sent_per_s:.0} a second of {offered_per_s} due")
            }
        }
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { producers, capacity_per_s, factor, offered, offered_per_s, held_back, refused_busy, .. } = self;
        writeln!(f, "flat out    {capacity_per_s:.0} messages a second acknowledged to {producers} publishers")?;
        writeln!(f, "offered     {offered}, {offered_per_s:.0} a second ({factor} times as many)")?;
        writeln!(
            f,
            "            {held_back} were held back at the publishers; {refused_busy} refusals as too much at once"
        )?;
        write!(
            f,
            "taken       {} acknowledged of {} sent, {:.0} a second; with those of before {} of {} delivered in order",
            self.acked, self.sent, self.acked_per_s, self.delivered, self.acked_in_all
        )
    }
}

impl fmt::Display for Deafness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, deaf, messages, deaf_ended, .. } = self;
        write!(
            f,
            "listeners   {sessions}, of which {deaf} stopped reading, and {deaf_ended} of these were ended; {messages} messages"
        )?;
        for (phase, latency) in &self.latency {
            write!(f, "\n  who reads {phase:<8} {latency}")?;
        }
        Ok(())
    }
}

impl Findings for Report {
    fn scenario(&self) -> &'static str {
        self.scenario
    }

    fn is_complete(&self) -> bool {
        Self::is_complete(self)
    }

    fn load(&self) -> Load {
        // One thread plays the crowd, the other is the probe.
        Load::of_costs(&self.costs, 2, self.probe_late_ms_max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n\n{}\n{}", self.outcome, Table(&self.rows), Costs(&self.costs))?;
        if let Some(mib) = self.resident_max_mib {
            writeln!(f, "memory      {mib} MiB resident at the most")?;
        }
        if let Some(kib) = self.hoarded_kib() {
            writeln!(f, "            {kib} KiB for each hoarder, {SESSION_KIB_MAX} may be")?;
        }
        writeln!(f, "the probe wrote {:.1} ms late at worst", self.probe_late_ms_max)?;
        let within = BACK_TO_NORMAL.as_secs();
        match self.normal_after_s {
            Some(seconds) => {
                let verdict = if u64::from(seconds) <= within { "met" } else { "NOT met" };
                write!(f, "goal        as before {seconds} s after the end, {within} s is the most: {verdict}")?;
            }
            None => write!(f, "goal        as before {within} s after the end at the most: NOT met within the run")?,
        }
        let factor = self.p99_factor();
        match &self.outcome {
            Outcome::Flood(_) => {
                let verdict = if factor <= FLOOD_P99_FACTOR { "met" } else { "NOT met" };
                write!(
                    f,
                    "\ngoal        p99 within {FLOOD_P99_FACTOR:.0} times that of before, it was {factor:.1}: {verdict}"
                )?;
            }
            Outcome::Overload(_) | Outcome::Deaf(_) | Outcome::Hoard(_) => {
                write!(f, "\nwhile it lasted, p99 was {factor:.1} times that of before at worst")?;
            }
        }
        for complaint in &self.complaints {
            write!(f, "\nNOT AS IT MUST BE: {complaint}")?;
        }
        Ok(())
    }
}
