//! What the tour was promised: each message the broker acknowledged, and how far the returning member had come. Written down as it
//! happens, outside the broker, so that a later run can hold the broker to it.
//!
//! One JSON object a line. A line cut short by a crash is the last one and is passed over: it claims less, never more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub(super) enum Line {
    /// The broker's journal that the lines after it are about.
    Journal {
        /// Its incarnation.
        incarnation: u64,
    },
    /// A run of the tour begins.
    Run {
        /// From 1.
        run: u64,
    },
    /// The broker said that this message is durable.
    Acknowledged {
        /// Its seq in the tour's group.
        seq: u64,
        /// What it said.
        text: String,
    },
    /// The returning member has all of the group up to here, and is about to acknowledge it.
    Received {
        /// The last seq.
        seq: u64,
    },
}

/// The lines of this journal's runs.
#[derive(Debug)]
pub(super) struct Ledger {
    file: File,
    lines: Vec<Line>,
}

impl Ledger {
    /// Opens the ledger in this directory; what it says of another journal is dropped.
    pub(super) fn open(directory: &Path, incarnation: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join("tour.jsonl");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut lines: Vec<Line> = text.lines().map_while(|line| serde_json::from_str(line).ok()).collect();
        let journal = Line::Journal { incarnation };
        if lines.first() != Some(&journal) {
            lines = vec![journal];
        }
        let mut whole = Vec::new();
        for line in &lines {
            put(&mut whole, line)?;
        }
        fs::write(&path, whole)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, lines })
    }

    /// Adds a line. It survives the process, which is what the tour is about; a crash of the machine may cost the last ones.
    pub(super) fn add(&mut self, line: Line) -> io::Result<()> {
        let mut bytes = Vec::new();
        put(&mut bytes, &line)?;
        self.file.write_all(&bytes)?;
        self.lines.push(line);
        Ok(())
    }

    /// Begins a run, and returns its number.
    pub(super) fn begin_run(&mut self) -> io::Result<u64> {
        let run = self.lines.iter().filter(|line| matches!(line, Line::Run { .. })).count() as u64 + 1;
        self.add(Line::Run { run })?;
        Ok(run)
    }

    /// Every acknowledged message: seq and text.
    pub(super) fn acknowledged(&self) -> impl Iterator<Item = (u64, &str)> {
        self.lines.iter().filter_map(|line| match line {
            Line::Acknowledged { seq, text } => Some((*seq, text.as_str())),
            Line::Journal { .. } | Line::Run { .. } | Line::Received { .. } => None,
        })
    }

    /// How far the returning member had come.
    pub(super) fn received(&self) -> u64 {
        let received = self.lines.iter().filter_map(|line| match line {
            Line::Received { seq } => Some(*seq),
            Line::Journal { .. } | Line::Run { .. } | Line::Acknowledged { .. } => None,
        });
        received.max().unwrap_or(0)
    }
}

fn put(bytes: &mut Vec<u8>, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_are_kept_over_restarts_and_torn_lines() {
        let directory = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(directory.path(), 7).unwrap();
        assert_eq!(ledger.begin_run().unwrap(), 1);
        ledger.add(Line::Acknowledged { seq: 1, text: "one".into() }).unwrap();
        ledger.add(Line::Received { seq: 1 }).unwrap();
        ledger.file.write_all(b"{\"what\":\"acknow").unwrap();
        let mut ledger = Ledger::open(directory.path(), 7).unwrap();
        assert_eq!(ledger.begin_run().unwrap(), 2);
        assert_eq!(ledger.acknowledged().collect::<Vec<_>>(), [(1, "one")]);
        assert_eq!(ledger.received(), 1);
    }

    #[test]
    fn another_journal_owes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        Ledger::open(directory.path(), 7).unwrap().add(Line::Received { seq: 9 }).unwrap();
        assert_eq!(Ledger::open(directory.path(), 8).unwrap().received(), 0);
    }
}
