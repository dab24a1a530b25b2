//! What a run of the scenario found, for people and for programs.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Plan, Tally};
use crate::latency::Latency;
use crate::process::Usage;
use crate::report::{Curve, Findings, Load, Point};

/// Figures of one run. Everything is as seen on this machine; nothing is corrected.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub scenario: &'static str,
    /// Against what.
    pub target: &'static str,
    /// Sessions that receive; the publisher's comes on top.
    pub sessions: u32,
    /// Messages published.
    pub messages: u32,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Time from the first connection to the last welcome, in seconds.
    pub connect_s: f64,
    /// Sessions welcomed a second.
    pub connects_per_s: f64,
    /// What should have been delivered.
    pub offered: u64,
    /// What was delivered, each once and in order.
    pub delivered: u64,
    /// What came out of order or again.
    pub misplaced: u64,
    /// Deliveries a second that the schedule asked for.
    pub offered_per_s: f64,
    /// Deliveries a second from the first message's time to the last delivery.
    pub achieved_per_s: f64,
    /// Deliveries a second from when a round is due to its last delivery, in the median of the rounds: what is reached with
    /// nothing but this round under way.
    pub round_per_s: f64,
    /// From a message's scheduled time to its delivery.
    pub latency: Latency,
    /// From a message's scheduled time to the broker's word that it is durable; a peer's word is that it was taken, and some
    /// give none.
    pub published: Option<Latency>,
    /// How late the publisher was at worst: above some milliseconds the load generator, not the broker, is the limit.
    pub publisher_late_ms_max: f64,
    /// Sessions that ended before the run did.
    pub sessions_lost: u32,
    /// Why the first of them did.
    pub first_loss: Option<String>,
    /// What the run cost the broker, if its process id was given.
    pub broker: Option<BrokerCost>,
    /// CPU that the load generator itself used while it measured, in seconds.
    pub own_cpu_s: f64,
    /// How long that was, in seconds.
    pub measured_s: f64,
    /// Latencies by percentile.
    pub curves: Vec<Curve>,
    /// Second by second.
    pub series: Vec<Point>,
}

/// What a run cost the broker.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BrokerCost {
    /// CPU a connection, from the first packet to the end of its catch-up, in microseconds.
    pub cpu_us_per_connect: f64,
    /// CPU a delivery, acknowledgements included, in microseconds.
    pub cpu_us_per_delivery: f64,
    /// Memory that the sessions brought, divided by them, in KiB.
    pub resident_kib_per_session: f64,
    /// The same after the messages, when buffers have been in use.
    pub resident_kib_per_session_after: f64,
}

/// What a run has seen, of whatever target.
pub(crate) struct Measured<'a> {
    pub(crate) target: &'static str,
    pub(crate) plan: &'a Plan,
    pub(crate) connected_in: Duration,
    pub(crate) tally: &'a Tally,
    pub(crate) published: Option<&'a Histogram<u64>>,
    pub(crate) late_max: Duration,
    pub(crate) costs: Option<Costs>,
    pub(crate) own_cpu_s: f64,
    /// Second by second, if that was looked at.
    pub(crate) series: Vec<Point>,
}

/// Three looks at the server: before the sessions, with them, and after the messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    pub(crate) before: Usage,
    pub(crate) connected: Usage,
    pub(crate) after: Usage,
}

impl Costs {
    fn a_piece(&self, sessions: f64, delivered: u64) -> BrokerCost {
        let Self { before, connected, after } = self;
        let kib = |usage: &Usage| (usage.resident_kib as f64 - before.resident_kib as f64) / sessions;
        BrokerCost {
            cpu_us_per_connect: (connected.cpu_s() - before.cpu_s()) * 1e6 / sessions,
            cpu_us_per_delivery: (after.cpu_s() - connected.cpu_s()) * 1e6 / delivered.max(1) as f64,
            resident_kib_per_session: kib(connected),
            resident_kib_per_session_after: kib(after),
        }
    }
}

impl Report {
    pub(crate) fn of(measured: &Measured<'_>) -> Self {
        let Measured { target, plan, connected_in, tally, published, late_max, costs, own_cpu_s, series } = measured;
        let sessions = f64::from(plan.sessions);
        let offered = u64::from(plan.sessions) * u64::from(plan.messages());
        Self {
            scenario: "fanout",
            target,
            sessions: plan.sessions,
            messages: plan.messages(),
            payload_bytes: plan.payload_bytes,
            connect_s: connected_in.as_secs_f64(),
            connects_per_s: sessions / connected_in.as_secs_f64(),
            offered,
            delivered: tally.delivered(),
            misplaced: tally.misplaced(),
            offered_per_s: offered as f64 / (f64::from(plan.rounds) * plan.interval.as_secs_f64()),
            achieved_per_s: tally.delivered() as f64 / tally.span().as_secs_f64(),
            round_per_s: tally.round_per_s(),
            latency: Latency::of(tally.latency()),
            published: published.map(Latency::of),
            publisher_late_ms_max: late_max.as_secs_f64() * 1e3,
            sessions_lost: tally.lost(),
            first_loss: tally.first_loss().map(str::to_owned),
            broker: costs.map(|costs| costs.a_piece(sessions, tally.delivered())),
            own_cpu_s: *own_cpu_s,
            measured_s: series.last().map_or(tally.span().as_secs_f64(), |point| point.at_s),
            curves: std::iter::once(Curve::of("due to delivered", tally.latency()))
                .chain(published.map(|published| Curve::of("due to durable", published)))
                .collect(),
            series: series.clone(),
        }
    }

    /// Whether every delivery came, once and in order.
    pub fn is_complete(&self) -> bool {
        self.delivered == self.offered && self.misplaced == 0 && self.sessions_lost == 0
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
        let broker = self.broker.map(|broker| broker.cpu_us_per_delivery * self.delivered as f64 / 1e6);
        Load {
            took_s: self.measured_s,
            own_cpu_s: self.own_cpu_s,
            broker_cpu_s: broker,
            threads: 1,
            late_ms_max: self.publisher_late_ms_max,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sessions    {} in {:.2} s: {:.0} a second", self.sessions, self.connect_s, self.connects_per_s)?;
        writeln!(f, "messages    {} of {} bytes to every session", self.messages, self.payload_bytes)?;
        writeln!(
            f,
            "deliveries  {} of {}, {} out of place; {:.0} a second offered, {:.0} achieved, {:.0} within a round",
            self.delivered, self.offered, self.misplaced, self.offered_per_s, self.achieved_per_s, self.round_per_s
        )?;
        writeln!(f, "latency     {}", self.latency)?;
        if let Some(published) = &self.published {
            writeln!(f, "published   {published}")?;
        }
        if let Some(broker) = &self.broker {
            writeln!(
                f,
                "broker      {:.2} µs CPU a delivery, {:.0} µs a connection; {:.1} KiB resident a session, {:.1} after the messages",
                broker.cpu_us_per_delivery,
                broker.cpu_us_per_connect,
                broker.resident_kib_per_session,
                broker.resident_kib_per_session_after
            )?;
        }
        write!(
            f,
            "generator   {:.2} s CPU; the publisher was {:.1} ms late at worst",
            self.own_cpu_s, self.publisher_late_ms_max
        )?;
        if let Some(why) = &self.first_loss {
            write!(f, "\nlost        {} sessions, the first one because {why}", self.sessions_lost)?;
        }
        let missing = self.offered - self.delivered;
        if !self.is_complete() {
            write!(f, "\nNOT COMPLETE: {missing} deliveries are missing")?;
        }
        Ok(())
    }
}
