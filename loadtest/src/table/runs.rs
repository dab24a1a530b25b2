//! The reports of a directory: which run each is of, and what the runs of one contender have in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::figures::{Figure, Kind};
use crate::failure::Failure;

/// Of whom the page is.
pub(super) const OURS: &str = "carillon";

/// The runs of a directory.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// By kind and contender, Carillon first; in the order of the rounds.
    reports: BTreeMap<(Kind, Contender), Vec<Value>>,
    /// Files whose run was not complete: they are in no figure.
    pub(super) incomplete: Vec<String>,
}

/// Who was measured. Carillon comes before all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Contender {
    is_other: bool,
    name: String,
}

/// What several runs say of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) runs: usize,
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Runs {
    /// Reads `KIND.CONTENDER.ROUND.json`; other files are not looked at.
    ///
    /// # Errors
    /// A file cannot be read, or is no report.
    pub(super) fn read(directory: &Path) -> Result<Self, Failure> {
        let unread = |path: &Path| {
            let path = path.to_owned();
            move |source| Failure::Read { path, source }
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(unread(directory))? {
            names.push(entry.map_err(unread(directory))?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let mut runs = Self::default();
        for name in names {
            let Some((kind, contender)) = parse_name(&name) else { continue };
            let path = directory.join(&name);
            let text = fs::read_to_string(&path).map_err(unread(&path))?;
            let report = serde_json::from_str(&text)
                .map_err(|error| Failure::Usage(format!("{} is no report: {error}", path.display())))?;
            runs.add(kind, contender, &name, report);
        }
        Ok(runs)
    }

    fn add(&mut self, kind: Kind, contender: &str, file: &str, report: Value) {
        if is_complete(&report) {
            let contender = Contender { is_other: contender != OURS, name: contender.to_owned() };
            self.reports.entry((kind, contender)).or_default().push(report);
        } else {
            self.incomplete.push(file.to_owned());
        }
    }

    /// Who has complete runs of this kind; Carillon first.
    pub(super) fn contenders(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.reports.keys().filter(move |(of, _)| *of == kind).map(|(_, contender)| contender.name.as_str())
    }

    /// What the runs of this contender say of a figure; `None` if no report has it.
    pub(super) fn spread(&self, kind: Kind, contender: &str, figure: &Figure) -> Option<Spread> {
        let contender = Contender { is_other: contender != OURS, name: contender.to_owned() };
        let reports = self.reports.get(&(kind, contender))?;
        Spread::of(reports.iter().filter_map(|report| report.pointer(figure.pointer)?.as_f64()).collect())
    }
}

impl Spread {
    /// Of an even number of values, the median is the mean of the two in the middle.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { runs: values.len(), min, median, max })
    }
}

fn parse_name(name: &str) -> Option<(Kind, &str)> {
    let (kind, rest) = name.strip_suffix(".json")?.split_once('.')?;
    let (contender, round) = rest.rsplit_once('.')?;
    round.parse::<u32>().ok()?;
    let kind = Kind::ALL.into_iter().find(|known| known.word() == kind)?;
    Some((kind, contender))
}

/// Whether everything that was sent has arrived, as both scenarios have it, and some of it while it was measured.
fn is_complete(report: &Value) -> bool {
    let number = |name: &str| report[name].as_u64();
    let delivered = number("offered").is_some_and(|offered| offered > 0 && number("delivered") == Some(offered));
    let is_orderly = number("misplaced") == Some(0) && number("sessions_lost") == Some(0);
    let is_measured = report["acknowledged_per_s"].as_f64().is_some_and(|rate| rate > 0.0);
    let acknowledged = number("sent").is_some_and(|sent| sent > 0 && number("acknowledged") == Some(sent));
    delivered && is_orderly || acknowledged && is_measured
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A complete fan-out with these figures.
    pub(in crate::table) fn fanout(cpu_us: f64, round_per_s: f64) -> Value {
        json!({
            "offered": 10, "delivered": 10, "misplaced": 0, "sessions_lost": 0, "round_per_s": round_per_s,
            "broker": { "cpu_us_per_delivery": cpu_us },
        })
    }

    #[test]
    fn the_median_lies_between_the_least_and_the_most() {
        for (values, expected) in [
            (vec![3.0], (1, 3.0, 3.0, 3.0)),
            (vec![9.0, 1.0, 2.0], (3, 1.0, 2.0, 9.0)),
            (vec![4.0, 1.0, 2.0, 9.0], (4, 1.0, 3.0, 9.0)),
        ] {
            let (runs, min, median, max) = expected;
            assert_eq!(Spread::of(values), Some(Spread { runs, min, median, max }));
        }
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn a_file_is_named_by_kind_contender_and_round() {
        assert_eq!(parse_name("thin.nats.3.json"), Some((Kind::Thin, "nats")));
        assert_eq!(parse_name("single.mosquitto-2.0.1.json"), Some((Kind::Single, "mosquitto-2.0")));
        for other in ["thin.nats.json", "thin.nats.x.json", "fat.nats.1.json", "thin.nats.1.txt", "facts.txt"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_run_that_lacks_something_is_in_no_figure() {
        let mut runs = Runs::default();
        let lacking = |field: &str, value: u64| {
            let mut report = fanout(1.0, 1.0);
            report[field] = json!(value);
            report
        };
        for (field, value) in [("delivered", 9), ("misplaced", 1), ("sessions_lost", 1)] {
            runs.add(Kind::Thin, "nats", field, lacking(field, value));
        }
        let published = |acknowledged: u32, per_s: f64| json!({ "sent": 3, "acknowledged": acknowledged, "acknowledged_per_s": per_s });
        runs.add(Kind::Pipelined, "nats", "unanswered", published(2, 1.0));
        runs.add(Kind::Pipelined, "nats", "late", published(3, 0.0));
        assert_eq!(runs.incomplete, ["delivered", "misplaced", "sessions_lost", "unanswered", "late"]);
        assert_eq!(runs.contenders(Kind::Thin).count() + runs.contenders(Kind::Pipelined).count(), 0);
        runs.add(Kind::Pipelined, "nats", "good", published(3, 1.0));
        assert_eq!(runs.contenders(Kind::Pipelined).count(), 1);
        runs.add(Kind::Thin, "nats", "good", fanout(1.0, 1.0));
        runs.add(Kind::Thin, OURS, "good", fanout(1.0, 1.0));
        assert_eq!(runs.contenders(Kind::Thin).collect::<Vec<_>>(), [OURS, "nats"]);
    }
}
