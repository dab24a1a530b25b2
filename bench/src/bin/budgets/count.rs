//! What the benches counted, as their runner prints it.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde_json::Value;
use thiserror::Error;

/// What a bench counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// How often it did its operation.
    pub(crate) times: u64,
    /// In all of them together.
    pub(crate) instructions: u64,
}

/// Why there are no counts.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("they cannot be read")]
    Read(#[from] io::Error),
    #[error("a line is no summary of a bench: {line}")]
    Summary { line: String, source: serde_json::Error },
    #[error("a summary has no {what}, so that this does not know its format: {line}")]
    Lacks { what: &'static str, line: String },
    #[error("no bench has counted anything")]
    Nothing,
}

/// Reads what gungraun prints as JSON, a line a bench; other lines are passed over.
pub(crate) fn read(lines: impl BufRead) -> Result<BTreeMap<String, Count>, Error> {
    let mut counts = BTreeMap::new();
    for line in lines.lines() {
        let line = line?;
        if line.starts_with('{') {
            let (name, count) = summary(&line)?;
            counts.insert(name, count);
        }
    }
    if counts.is_empty() { Err(Error::Nothing) } else { Ok(counts) }
}

/// The bench's name and what it counted, of a line of gungraun's JSON output.
fn summary(line: &str) -> Result<(String, Count), Error> {
    let lacks = |what| Error::Lacks { what, line: line.to_owned() };
    let summary: Value =
        serde_json::from_str(line).map_err(|source| Error::Summary { line: line.to_owned(), source })?;
    let name = summary["function_name"].as_str().ok_or_else(|| lacks("function_name"))?;
    let id = summary["id"].as_str().ok_or_else(|| lacks("id"))?;
    let times = id.strip_prefix("times_").and_then(|times| times.parse().ok());
    let times = times.ok_or_else(|| lacks("id of the form times_NUMBER"))?;
    let counted = &summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"];
    let instructions = counted.as_u64().ok_or_else(|| lacks("instructions"))?;
    Ok((name.to_owned(), Count { times, instructions }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_bench_or_says_what_it_lacks() {
        let good = r#"{"function_name": "encode", "id": "times_100",
            "profiles": [{"data": {"total": {"metrics": {"Ir": {"values": {"new": 135052, "old": 1}}}}}}]}"#;
        let good = good.replace('\n', "");
        let counts = read(format!("Running benches\n{good}\n").as_bytes()).expect("a summary");
        assert_eq!(counts["encode"], Count { times: 100, instructions: 135_052 });
        for (wanted, part, other) in [
            ("function_name", "\"encode\"", "1"),
            ("times_NUMBER", "times_100", "hundred"),
            ("instructions", "\"new\"", "\"newer\""),
        ] {
            let error = read(good.replace(part, other).as_bytes()).expect_err(wanted).to_string();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(matches!(read("{".as_bytes()), Err(Error::Summary { .. })));
        assert!(matches!(read("Running benches".as_bytes()), Err(Error::Nothing)));
    }
}
