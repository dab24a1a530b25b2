//! What a run of the scenario found, for people and for programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Plan;
use crate::latency::Latency;
use crate::process::Usage;
use crate::report::{Curve, Findings, Load, Point};

/// Figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub scenario: &'static str,
    /// Against what.
    pub target: &'static str,
    /// Connections that published.
    pub producers: u32,
    /// Messages of each that were on their way at once.
    pub window: u32,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// How long was measured, in seconds.
    pub measured_s: f64,
    /// Messages sent, those before the measuring included.
    pub sent: u64,
    /// Messages that were acknowledged, likewise.
    pub acknowledged: u64,
    /// Those acknowledged while it was measured, a second.
    pub acknowledged_per_s: f64,
    /// From when a message was due to its acknowledgement, of those; without a rate, from the handing over to the connection.
    pub published: Latency,
    /// What a message cost the server, if its process id was given.
    pub broker: Option<PublishCost>,
    /// CPU of the load generator while it was measured, in seconds.
    pub own_cpu_s: f64,
    /// Messages a second that were due while it was measured; `None`: as many as the windows let out.
    pub offered_per_s: Option<f64>,
    /// How late one that was due was sent at worst: a full window counts as well.
    pub late_ms_max: f64,
    /// Latencies by percentile.
    pub curves: Vec<Curve>,
    /// Second by second; peers have none.
    pub series: Vec<Point>,
}

/// What a run cost the server.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PublishCost {
    /// CPU an acknowledged message, in microseconds.
    pub cpu_us_per_message: f64,
    /// Resident memory at the end, in KiB.
    pub resident_kib: u64,
}

/// What a run has seen, of whatever target.
pub(crate) struct Measured<'a> {
    pub(crate) target: &'static str,
    pub(crate) plan: &'a Plan,
    pub(crate) took: Duration,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Of those, while it was measured.
    pub(crate) measured: u64,
    pub(crate) published: &'a Histogram<u64>,
    /// Two looks at the server: before the measuring and after it.
    pub(crate) costs: Option<(Usage, Usage)>,
    pub(crate) own_cpu_s: f64,
    /// Messages that were due while it was measured, if that was said.
    pub(crate) offered: Option<u64>,
    pub(crate) late_ms_max: f64,
    pub(crate) series: Vec<Point>,
}

impl Report {
    pub(crate) fn of(seen: Measured<'_>) -> Self {
        let Measured { target, plan, took, sent, acknowledged, measured, published, costs, own_cpu_s, .. } = seen;
        let measured_s = took.as_secs_f64();
        Self {
            scenario: "publish",
            target,
            producers: plan.producers,
            window: plan.window,
            payload_bytes: plan.payload_bytes,
            measured_s,
            sent,
            acknowledged,
            acknowledged_per_s: measured as f64 / measured_s.max(1e-6),
            published: Latency::of(published),
            broker: costs.map(|(before, after)| PublishCost {
                cpu_us_per_message: (after.cpu_s() - before.cpu_s()) * 1e6 / measured.max(1) as f64,
                resident_kib: after.resident_kib,
            }),
            own_cpu_s,
            offered_per_s: seen.offered.map(|offered| offered as f64 / plan.measured.as_secs_f64()),
            late_ms_max: seen.late_ms_max,
            curves: vec![Curve::of("until acknowledged", published)],
            series: seen.series,
        }
    }

    /// Whether everything that was sent was acknowledged.
    pub fn is_complete(&self) -> bool {
        self.sent == self.acknowledged && self.sent > 0
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
        let messages = self.acknowledged_per_s * self.measured_s;
        Load {
            took_s: self.measured_s,
            own_cpu_s: self.own_cpu_s,
            broker_cpu_s: self.broker.map(|broker| broker.cpu_us_per_message * messages / 1e6),
            threads: 1,
            late_ms_max: self.late_ms_max,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, producers, window, payload_bytes, measured_s, .. } = self;
        writeln!(
            f,
            "producers   {producers} of {target}, {window} messages of {payload_bytes} bytes each on their way, for {measured_s:.1} s"
        )?;
        writeln!(
            f,
            "messages    {} sent, {} acknowledged: {:.0} a second",
            self.sent, self.acknowledged, self.acknowledged_per_s
        )?;
        if let Some(offered_per_s) = self.offered_per_s {
            writeln!(
                f,
                "offered     {offered_per_s:.0} a second, by the clock; {:.1} ms late at worst",
                self.late_ms_max
            )?;
        }
        writeln!(f, "published   {}", self.published)?;
        if let Some(broker) = &self.broker {
            let mib = broker.resident_kib / 1024;
            writeln!(f, "server      {:.2} µs CPU a message; {mib} MiB resident", broker.cpu_us_per_message)?;
        }
        write!(f, "generator   {:.2} s CPU", self.own_cpu_s)?;
        if !self.is_complete() {
            write!(f, "\nNOT COMPLETE: {} messages have no answer", self.sent - self.acknowledged)?;
        }
        Ok(())
    }
}
