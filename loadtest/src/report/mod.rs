//! What every report has in common: a head that says where and how it was measured, a form for programs, a page for people.
//!
//! Owns the shape of a report's file. A scenario hands over its figures by [`Findings`] and knows neither files nor pages; the pages
//! know no scenario: they show whatever latencies and time series a file has.

mod compare;
mod curve;
mod figures;
mod head;
mod page;
mod plot;
mod series;
mod timeline;

use std::fmt::Display;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::failure::Failure;
pub use compare::Comparison;
pub use curve::Curve;
pub use head::{Generator, Head, Limit, Load, Machine};
pub use page::page;
pub use series::Point;
pub(crate) use series::Recorder;
pub(crate) use timeline::Measure;
pub use timeline::{Span, Timeline};

/// What a scenario has found.
pub trait Findings: Serialize + Display {
    /// What was run.
    fn scenario(&self) -> &'static str;

    /// Whether everything was as it must be, however fast.
    fn is_complete(&self) -> bool;

    /// What the load generator did for it.
    fn load(&self) -> Load;
}

/// A report as its file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Where and how it was measured.
    pub head: Head,
    /// Whether everything was as it must be.
    pub is_complete: bool,
    /// Second by second, as far as the scenario has that.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// Latencies by percentile, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<Curve>,
    /// The scenario's own figures.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
}

impl Document {
    /// What a run has found, under this head.
    pub fn of(head: Head, findings: &impl Findings) -> Self {
        #[derive(Serialize)]
        struct Whole<'a, F> {
            head: Head,
            is_complete: bool,
            #[serde(flatten)]
            findings: &'a F,
        }
        let whole = Whole { head, is_complete: findings.is_complete(), findings };
        let value = serde_json::to_value(whole).expect("a report is numbers and texts");
        serde_json::from_value(value).expect("what was written a moment ago can be read")
    }

    /// A report of an earlier run.
    ///
    /// # Errors
    /// The file cannot be read, or is none that `--json` or `--json-file` has written.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
        serde_json::from_str(&text).map_err(|error| {
            let path = path.display();
            Failure::Usage(format!("{path} is no report that --json-file or --json has written: {error}"))
        })
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report is numbers and texts")
    }
}

/// Writes a file, or says which could not be.
///
/// # Errors
/// It could not be written.
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|source| Failure::Write { path: path.to_owned(), source })
}
