//! What a storm of marks did, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::latency::Latency;
use crate::phases::{Cost, Costs, Row, Table, missing};
use crate::report::{Findings, Load, Timeline};

/// Figures of one run. Everything is as seen on this machine; nothing is corrected.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub scenario: &'static str,
    /// Members of the group, the authors among them.
    pub members: u32,
    /// Members that were connected and marked.
    pub sessions: u32,
    /// Time from the first connection of a member to the last welcome, in seconds.
    pub connect_s: f64,
    /// What the authors' messages did.
    pub messages: Messages,
    /// What the marks did.
    pub marks: Marks,
    /// What the authors were told.
    pub updates: Updates,
    /// What the broker says of each author's message at the end.
    pub status: Vec<Status>,
    /// The probe's figures by phase.
    pub rows: Vec<Row>,
    /// What each phase took.
    pub costs: Vec<Cost>,
    /// Second by second: the deliveries of the probe's messages, and the marks.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// How late the probe wrote a message at worst: above some milliseconds the machine, not the broker, is the limit.
    pub probe_late_ms_max: f64,
    /// Sessions that ended before the run did.
    pub sessions_lost: u32,
    /// Why the first of them did.
    pub first_loss: Option<String>,
    /// What was not as it must be; empty in a good run.
    pub complaints: Vec<String>,
}

/// The messages that are marked as read.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Messages {
    /// Their authors, one message each.
    pub authors: u32,
    /// What should have been delivered.
    pub offered: u64,
    /// What was.
    pub delivered: u64,
    /// Until all were, in seconds.
    pub took_s: f64,
}

/// The marks of all sessions.
#[derive(Clone, Debug, Serialize)]
pub struct Marks {
    /// One a session.
    pub offered: u32,
    /// Those that the broker has called durable.
    pub answered: u32,
    /// Those that it has refused for good.
    pub refused: u32,
    /// Why the first of them was.
    pub first_refusal: Option<String>,
    /// Answers to what had been answered.
    pub repeated: u32,
    /// Marks a second that the schedule asked for.
    pub offered_per_s: f64,
    /// Answers a second from the first mark's time to the last answer.
    pub achieved_per_s: f64,
    /// From a mark's scheduled time to its answer.
    pub latency: Latency,
    /// How late a mark was written at worst: much of it means that the load generator could not make a storm of that strength.
    pub late_ms_max: f64,
}

/// What the authors were told while the storm lasted and after it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Updates {
    /// The most that one author got that name a reader.
    pub names_max: u32,
    /// The most that one author got that tell counts.
    pub counts_max: u32,
    /// What one author may get, of both together.
    pub bound: u32,
    /// The fewest readers that an author was told of last.
    pub told_min: u32,
}

/// What the broker says of one message.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Status {
    /// Its seq.
    pub seq: u64,
    /// How many have read it.
    pub read: u32,
    /// How many of those who may have not.
    pub unread: u32,
    /// How many have marked it, and were answered.
    pub read_expected: u32,
    /// The rest of the group, without the author.
    pub unread_expected: u32,
}

impl Report {
    /// Whether everything was as it must be, however fast.
    pub fn is_complete(&self) -> bool {
        self.complaints.is_empty()
    }

    /// What is not as it must be.
    pub(super) fn find_complaints(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut expect = |is_so: bool, complaint: &dyn Fn() -> String| {
            if !is_so {
                found.push(complaint());
            }
        };
        let Messages { offered, delivered, .. } = self.messages;
        expect(delivered == offered, &|| format!("{delivered} of {offered} deliveries of the authors' messages came"));
        let Marks { offered, answered, refused, repeated, first_refusal, .. } = &self.marks;
        let why = first_refusal.as_deref().unwrap_or("none was refused");
        expect(answered == offered && *repeated == 0, &|| {
            format!(
                "{answered} of {offered} marks were answered once, {refused} refused, {repeated} answered again: {why}"
            )
        });
        for Status { seq, read, unread, read_expected, unread_expected } in &self.status {
            expect(read == read_expected && unread == unread_expected, &|| {
                format!(
                    "message {seq}: {read} read and {unread} did not; of the marks it is {read_expected} and {unread_expected}"
                )
            });
        }
        let Updates { names_max, counts_max, bound, told_min } = self.updates;
        expect(told_min == *answered, &|| format!("an author was told of {told_min} readers, there are {answered}"));
        expect(names_max + counts_max <= bound, &|| {
            format!("an author got {} updates, {bound} may be", names_max + counts_max)
        });
        let why = self.first_loss.as_deref().unwrap_or_default();
        expect(self.sessions_lost == 0, &|| format!("{} sessions were lost, the first: {why}", self.sessions_lost));
        found.extend(missing(&self.rows));
        found
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
        Load::of_costs(&self.costs, 2, self.probe_late_ms_max.max(self.marks.late_ms_max))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, sessions, connect_s, messages, marks, updates, .. } = self;
        let rate = f64::from(*sessions) / connect_s.max(1e-6);
        writeln!(
            f,
            "group       {members} members; {sessions} connected in {connect_s:.1} s, {rate:.0} a second, and marked"
        )?;
        writeln!(
            f,
            "messages    {} of {} deliveries in {:.2} s, one message of each of {} authors",
            messages.delivered, messages.offered, messages.took_s, messages.authors
        )?;
        writeln!(
            f,
            "marks       {} of {} answered; {:.0} a second offered, {:.0} achieved; written {:.1} ms late at worst",
            marks.answered, marks.offered, marks.offered_per_s, marks.achieved_per_s, marks.late_ms_max
        )?;
        writeln!(f, "            {}", marks.latency)?;
        writeln!(
            f,
            "updates     an author got {} that name a reader and {} with counts at most, {} may be; all were told of {} readers",
            updates.names_max, updates.counts_max, updates.bound, updates.told_min
        )?;
        if let Some(status) = self.status.last() {
            writeln!(f, "status      {} have read the last message, {} have not", status.read, status.unread)?;
        }
        write!(f, "\n{}\n{}", Table(&self.rows), Costs(&self.costs))?;
        write!(f, "the probe wrote {:.1} ms late at worst", self.probe_late_ms_max)?;
        for complaint in &self.complaints {
            write!(f, "\nNOT AS IT MUST BE: {complaint}")?;
        }
        Ok(())
    }
}
