//! Figures of one run, for people and for programs: the report of scenarios that have no table of phases.
//!
//! A figure has one path, under which programs find it, and one line of text. Paths end in their unit, as all fields of reports do.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::latency::Latency;
use crate::phases::Mark;
use crate::report::{Curve, Findings, Load, Point};

/// One number.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Where programs find it: names with dots between.
    pub path: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// What it counts; may be nothing.
    pub unit: &'static str,
}

/// Latencies of one measure.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Where programs find it.
    pub path: &'static str,
    /// What was measured.
    pub measure: &'static str,
    /// How many times.
    pub count: u64,
    /// How long it took.
    pub latency: Latency,
    /// The same in more detail.
    pub curve: Curve,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was run.
    pub scenario: &'static str,
    /// In the order of the text.
    pub figures: Vec<Figure>,
    /// Likewise.
    pub spreads: Vec<Spread>,
    /// Second by second; may be empty.
    pub series: Vec<Point>,
    /// What the load generator did.
    pub load: Load,
    /// What was not as it must be; empty in a good run.
    pub complaints: Vec<String>,
}

impl Summary {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            figures: Vec::new(),
            spreads: Vec::new(),
            series: Vec::new(),
            load: Load::default(),
            complaints: Vec::new(),
        }
    }

    /// Adds a number.
    pub(crate) fn figure(&mut self, path: &'static str, name: &'static str, value: f64, unit: &'static str) {
        self.figures.push(Figure { path, name, value, unit });
    }

    /// Adds a number that is known only with the broker's process id.
    pub(crate) fn broker(&mut self, path: &'static str, name: &'static str, value: Option<f64>, unit: &'static str) {
        self.figures.extend(value.map(|value| Figure { path, name, value, unit }));
    }

    /// Adds latencies.
    pub(crate) fn spread(&mut self, path: &'static str, measure: &'static str, histogram: &Histogram<u64>) {
        let (latency, curve) = (Latency::of(histogram), Curve::of(measure, histogram));
        self.spreads.push(Spread { path, measure, count: histogram.len(), latency, curve });
    }

    /// Complains if something is not so.
    pub(crate) fn expect(&mut self, is_so: bool, complaint: impl FnOnce() -> String) {
        if !is_so {
            self.complaints.push(complaint());
        }
    }

    /// The load generator played the sessions in one thread between two marks.
    pub(crate) fn measured(&mut self, from: &Mark, to: &Mark, late_ms_max: f64) {
        let took_s = to.at.saturating_duration_since(from.at).as_secs_f64();
        let own_cpu_s = to.own.cpu_s() - from.own.cpu_s();
        self.load = Load { took_s, own_cpu_s, broker_cpu_s: from.broker_cpu_s_until(to), threads: 1, late_ms_max };
        self.figure("own_cpu_s", "generator's CPU", own_cpu_s, "s");
    }

    /// The number under a path.
    pub fn value(&self, path: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.path == path).map(|figure| figure.value)
    }

    /// The latencies under a path.
    pub fn latency(&self, path: &str) -> Option<&Spread> {
        self.spreads.iter().find(|spread| spread.path == path)
    }
}

impl Findings for Summary {
    fn scenario(&self) -> &'static str {
        self.scenario
    }

    fn is_complete(&self) -> bool {
        self.complaints.is_empty()
    }

    fn load(&self) -> Load {
        self.load
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut whole = Map::new();
        put(&mut whole, "scenario", self.scenario.into());
        for Figure { path, value, .. } in &self.figures {
            put(&mut whole, path, (*value).into());
        }
        for Spread { path, count, latency, .. } in &self.spreads {
            put(&mut whole, path, serde_json::to_value(latency).map_err(serde::ser::Error::custom)?);
            put(&mut whole, &format!("{path}.count"), (*count).into());
        }
        let curves: Vec<_> = self.spreads.iter().map(|spread| &spread.curve).collect();
        put(&mut whole, "curves", serde_json::to_value(curves).map_err(serde::ser::Error::custom)?);
        put(&mut whole, "series", serde_json::to_value(&self.series).map_err(serde::ser::Error::custom)?);
        put(&mut whole, "complaints", self.complaints.clone().into());
        whole.serialize(serializer)
    }
}

/// Puts a value under a path, through the objects on the way.
fn put(into: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            into.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = into.entry(first).or_insert_with(|| Map::new().into());
            let inner = inner.as_object_mut().expect("no path goes on behind a number");
            put(inner, rest, value);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scenario    {}", self.scenario)?;
        for Figure { name, value, unit, .. } in &self.figures {
            let digits = if value.fract() == 0.0 || value.abs() >= 1_000.0 { 0 } else { 2 };
            write!(f, "\n{name:<44}{value:>14.digits$} {unit}")?;
        }
        if !self.spreads.is_empty() {
            let [count, p50, p90, p99, p999, max] = ["count", "p50", "p90", "p99", "p99.9", "max"];
            write!(f, "\n{:<44}{count:>14}{p50:>10}{p90:>10}{p99:>10}{p999:>10}{max:>10}", "in milliseconds")?;
        }
        for Spread { measure, count, latency, .. } in &self.spreads {
            let Latency { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = latency;
            write!(
                f,
                "\n{measure:<44}{count:>14}{p50_ms:>10.2}{p90_ms:>10.2}{p99_ms:>10.2}{p999_ms:>10.2}{max_ms:>10.2}"
            )?;
        }
        for complaint in &self.complaints {
            write!(f, "\nNOT AS IT MUST BE: {complaint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::histogram;

    #[test]
    fn programs_find_figures_under_their_paths() {
        let mut summary = Summary::new("test");
        summary.figure("broker.cpu_us_per_message", "broker CPU a message", 2.5, "µs");
        summary.broker("broker.resident_kib", "resident", None, "KiB");
        let mut latencies = histogram();
        latencies.saturating_record(2_000);
        summary.spread("published", "due to durable", &latencies);
        summary.expect(false, || "nothing works".to_owned());
        let value = serde_json::to_value(&summary).unwrap();
        assert_eq!(value.pointer("/broker/cpu_us_per_message").unwrap(), 2.5);
        assert!(value.pointer("/broker/resident_kib").is_none());
        assert!(value.pointer("/published/p99_ms").unwrap().as_f64().unwrap() > 1.9);
        assert_eq!(value.pointer("/published/count").unwrap(), 1);
        assert_eq!(
            (value["curves"][0]["count"].as_u64(), value["complaints"][0].as_str()),
            (Some(1), Some("nothing works"))
        );
        assert!(!summary.is_complete() && summary.to_string().contains("nothing works"), "{summary}");
    }
}
