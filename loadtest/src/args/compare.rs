//! The arguments of `compare`.

use std::path::PathBuf;

use carillon_loadtest::failure::Failure;
use carillon_loadtest::report::{self, Comparison, Document};
use clap::Args;

use super::parse_new_file;
use crate::out;

/// No load: two reports side by side, with the ratio of each figure
///
/// The files are what --json-file or --json has written. Compare only what ran on the same machine, side by side; what makes a comparison
/// doubtful is said below the table.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The report that the other one is held against
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// The other one
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Only figures with this in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a page of HTML with both in the same plots
    #[arg(long, value_name = "FILE", value_parser = parse_new_file)]
    report: Option<PathBuf>,
}

impl CompareArgs {
    /// Prints the table.
    pub(super) fn run(&self) -> Result<bool, Failure> {
        let (a, b) = (Document::read(&self.a)?, Document::read(&self.b)?);
        let mut comparison = Comparison::of(&a, &b);
        if let Some(only) = &self.only {
            comparison.rows.retain(|row| row.figure.contains(only.as_str()));
        }
        if self.json {
            out::line(serde_json::to_string(&comparison).expect("a comparison is numbers and texts"))?;
        } else {
            for (name, path, document) in [("A", &self.a, &a), ("B", &self.b, &b)] {
                let head = &document.head;
                out::line(format_args!("{name}  {}  {} {}, {}", path.display(), head.scenario, head.version, head.at))?;
            }
            out::line(&comparison)?;
        }
        if let Some(path) = &self.report {
            let documents = [("A".to_owned(), a), ("B".to_owned(), b)];
            report::write(path, &report::page(&documents))?;
        }
        Ok(true)
    }
}
