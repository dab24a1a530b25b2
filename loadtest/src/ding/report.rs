//! What became of DINGs beside a backlog, live load and nothing, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::phases::{Cost, Costs, Row, Table, missing};
use crate::report::{Findings, Load, Timeline};

/// Figures of one run. Everything is as seen on this machine; nothing is corrected.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub scenario: &'static str,
    /// Devices, one a user.
    pub devices: u32,
    /// DINGs of the whole run.
    pub dings: u32,
    /// Those that fell between two readings of the backlog, when their device was not connected or connected anew: they arrived,
    /// and are in no phase.
    pub dings_between: u32,
    /// Pushes of what had been pushed before: after a connection was lost with its confirmation, say.
    pub pushed_again: u32,
    /// What streamed.
    pub backlog: Backlog,
    /// Messages a second to every device under live load.
    pub load_per_s: u32,
    /// Figures by phase.
    pub rows: Vec<Row>,
    /// What each phase took.
    pub costs: Vec<Cost>,
    /// Second by second: the DINGs, and what else the devices read.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// How late a message of the live load was written at worst: above some milliseconds the machine, not the broker, is the limit.
    pub load_late_ms_max: f64,
    /// What 99 of 100 DINGs beside the backlog may take on loopback.
    pub goal_p99_ms: f64,
    /// Whether they did.
    pub is_goal_met: bool,
    /// What was not as it must be; empty in a good run.
    pub complaints: Vec<String>,
}

/// How the backlog streamed.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Backlog {
    /// Messages that a device had missed each time it connected.
    pub messages: u32,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// How often one device has read it all.
    pub readings: u32,
    /// Messages a second that a device read, on average of all readings.
    pub read_per_s: f64,
    /// From welcome to caught up, on average, in seconds.
    pub took_s: f64,
}

impl Report {
    /// Whether everything was as it must be, however fast.
    pub fn is_complete(&self) -> bool {
        self.complaints.is_empty()
    }

    /// What is missing by phase.
    pub(super) fn find_complaints(&self) -> Vec<String> {
        missing(&self.rows).collect()
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
        Load::of_costs(&self.costs, 2, self.load_late_ms_max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, dings, dings_between, pushed_again, backlog, .. } = self;
        writeln!(
            f,
            "DINGs       {dings} to {devices} devices in turn; {dings_between} between two readings of the backlog; {pushed_again} pushed again"
        )?;
        writeln!(
            f,
            "backlog     {} messages of {} bytes, read {} times in {:.2} s each: {:.0} messages a second and device",
            backlog.messages, backlog.payload_bytes, backlog.readings, backlog.took_s, backlog.read_per_s
        )?;
        writeln!(
            f,
            "live load   {} messages a second to every device; written {:.1} ms late at worst",
            self.load_per_s, self.load_late_ms_max
        )?;
        write!(f, "\n{}\n{}", Table(&self.rows), Costs(&self.costs))?;
        let verdict = if self.is_goal_met { "met" } else { "NOT met" };
        write!(f, "goal        pushed within {:.0} ms at p99 beside the backlog: {verdict}", self.goal_p99_ms)?;
        for complaint in &self.complaints {
            write!(f, "\nNOT AS IT MUST BE: {complaint}")?;
        }
        Ok(())
    }
}
