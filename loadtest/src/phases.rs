//! Figures by phase, for people and for programs.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use crate::kernel::KernelMemory;
use crate::process::Usage;
use crate::samples::Figures;

/// One measure in one phase.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub measure: &'static str,
    /// When.
    pub phase: &'static str,
    /// What became of it.
    pub figures: Figures,
}

/// What a phase took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Which.
    pub phase: &'static str,
    /// Its length, in seconds.
    pub took_s: f64,
    /// CPU of the broker in user mode, in seconds, if its process id was given.
    pub broker_user_s: Option<f64>,
    /// Likewise in system mode.
    pub broker_system_s: Option<f64>,
    /// Resident memory of the broker at the end of the phase, in KiB.
    pub broker_resident_kib: Option<u64>,
    /// CPU of the load generator, in seconds.
    pub own_cpu_s: f64,
}

/// A moment between two phases.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    pub(crate) at: Instant,
    pub(crate) broker: Option<Usage>,
    pub(crate) own: Usage,
    /// The kernel's of this machine, if the broker runs on it.
    pub(crate) kernel: Option<KernelMemory>,
}

impl Mark {
    /// CPU of the broker from here to a later mark, in seconds.
    pub(crate) fn broker_cpu_s_until(&self, later: &Self) -> Option<f64> {
        let (from, to) = self.broker.zip(later.broker)?;
        Some(to.cpu_s() - from.cpu_s())
    }

    /// The same for each of so many things, in microseconds.
    pub(crate) fn broker_cpu_us_until(&self, later: &Self, things: u64) -> Option<f64> {
        self.broker_cpu_s_until(later).map(|cpu_s| cpu_s * 1e6 / things.max(1) as f64)
    }

    /// What the broker's resident memory has grown by for each of so many things, in KiB.
    pub(crate) fn broker_kib_until(&self, later: &Self, things: u64) -> Option<f64> {
        let (from, to) = self.broker.zip(later.broker)?;
        Some(growth(from.resident_kib, to.resident_kib, things))
    }

    /// The same of the page tables that the kernel keeps for it.
    pub(crate) fn page_tables_kib_until(&self, later: &Self, things: u64) -> Option<f64> {
        let page_tables_kib = |mark: &Self| mark.broker?.page_tables_kib;
        Some(growth(page_tables_kib(self)?, page_tables_kib(later)?, things))
    }

    /// The same of what the kernel holds for all processes of the machine, the load generator among them.
    pub(crate) fn kernel_kib_until(&self, later: &Self, things: u64) -> Option<f64> {
        Some(growth(self.kernel?.kib(), later.kernel?.kib(), things))
    }
}

/// What each of so many things has made this grow by.
fn growth(from: u64, to: u64, things: u64) -> f64 {
    (to as f64 - from as f64) / things.max(1) as f64
}

impl Cost {
    /// Of what lies between two marks.
    pub(crate) fn between(phase: &'static str, from: &Mark, to: &Mark) -> Self {
        let both = from.broker.zip(to.broker);
        Self {
            phase,
            took_s: seconds(from, to),
            broker_user_s: both.map(|(from, to)| to.user_s - from.user_s),
            broker_system_s: both.map(|(from, to)| to.system_s - from.system_s),
            broker_resident_kib: to.broker.map(|usage| usage.resident_kib),
            own_cpu_s: to.own.cpu_s() - from.own.cpu_s(),
        }
    }
}

/// What each phase took, of those that lie between marks that follow each other.
pub(crate) fn costs(phases: &[&'static str], marks: &[Mark]) -> Vec<Cost> {
    phases.iter().zip(marks.windows(2)).map(|(phase, ends)| Cost::between(phase, &ends[0], &ends[1])).collect()
}

/// A sentence for each measure of which something is missing in a phase.
pub(crate) fn missing(rows: &[Row]) -> impl Iterator<Item = String> {
    let missing = rows.iter().filter(|row| row.figures.seen != row.figures.offered);
    missing
        .map(|Row { measure, phase, figures }| format!("{measure}, {phase}: {} of {}", figures.seen, figures.offered))
}

/// Seconds between two marks.
pub(crate) fn seconds(from: &Mark, to: &Mark) -> f64 {
    to.at.saturating_duration_since(from.at).as_secs_f64()
}

/// Rows under a head.
pub(crate) struct Table<'a>(pub(crate) &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<32}{:<11}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
            "in milliseconds", "", "due", "a second", "seen", "p50", "p90", "p99", "p99.9", "max"
        )?;
        let mut last = "";
        for Row { measure, phase, figures } in self.0 {
            let name = if *measure == last { "" } else { measure };
            last = measure;
            let Figures { offered, seen, offered_per_s, latency, .. } = figures;
            writeln!(
                f,
                "{name:<32}{phase:<11}{offered:>8}{offered_per_s:>9.0}{seen:>9}{:>9.1}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
                latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.p999_ms, latency.max_ms
            )?;
        }
        Ok(())
    }
}

/// A line for each phase.
pub(crate) struct Costs<'a>(pub(crate) &'a [Cost]);

impl fmt::Display for Costs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cost in self.0 {
            write!(f, "{:<11} {:>6.1} s", cost.phase, cost.took_s)?;
            if let (Some(user), Some(system), Some(kib)) =
                (cost.broker_user_s, cost.broker_system_s, cost.broker_resident_kib)
            {
                let mib = kib / 1024;
                write!(f, ": broker {user:.2} s user, {system:.2} s system, {mib} MiB resident;")?;
            }
            writeln!(f, " generator {:.2} s CPU", cost.own_cpu_s)?;
        }
        Ok(())
    }
}
