//! What a run was, for people and for programs.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::audit::Audited;
use super::ledger::{Fault, Findings};
use super::notes::Book;
use super::victim::Logged;

/// The figures of a run.
#[derive(Debug)]
pub struct Summary {
    /// The choices.
    pub seed: u64,
    /// Data directories.
    pub chapters: u32,
    /// Kills under full load.
    pub under_load: u32,
    /// Kills while clients came back.
    pub while_they_return: u32,
    /// Kills of a process that had just begun, most of them before it served. Each comes after another kill, which is not counted.
    pub in_recovery: u32,
    /// Acknowledged messages.
    pub acknowledged: u64,
    /// Of these, acknowledged only when they were repeated.
    pub repeated: u64,
    /// Answered marks.
    pub marks: u64,
    /// Answered DINGs.
    pub dings: u64,
    /// Answered confirmations.
    pub confirmations: u64,
    /// What was read back.
    pub audited: Audited,
    /// Audits.
    pub audits: u32,
    /// Times that the disk was filled up.
    pub filled: u32,
    /// Of these, times that the broker was killed and started again on the full disk.
    pub starts_on_full: u32,
    /// Undisturbed starts.
    pub starts: Vec<Duration>,
    /// What the broker logged.
    pub logged: Logged,
    /// What was wrong.
    pub findings: Findings,
    /// Where to look for it.
    pub kept: Option<[PathBuf; 2]>,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            chapters: 0,
            under_load: 0,
            while_they_return: 0,
            in_recovery: 0,
            acknowledged: 0,
            repeated: 0,
            marks: 0,
            dings: 0,
            confirmations: 0,
            audited: Audited::default(),
            audits: 0,
            filled: 0,
            starts_on_full: 0,
            starts: Vec::new(),
            logged: Logged::default(),
            findings: Findings::default(),
            kept: None,
            took: Duration::ZERO,
        }
    }

    /// Kills, each counted once.
    pub fn kills(&self) -> u32 {
        self.under_load + self.while_they_return + self.in_recovery
    }

    /// Takes over a chapter's notes.
    pub(super) fn take(&mut self, book: &mut Book) {
        self.acknowledged += book.ledger.count;
        self.repeated += book.ledger.repeated;
        self.marks += book.ledger.marks_count;
        self.dings += book.ledger.dings.len() as u64;
        self.confirmations += book.ledger.confirmations();
        self.findings.absorb(std::mem::take(&mut book.findings));
    }

    pub(super) fn audited(&mut self, audited: Audited) {
        self.audits += 1;
        self.audited.read += audited.read;
        self.audited.history += audited.history;
        self.audited.expired += audited.expired;
    }

    pub(super) fn logged(&mut self, logged: Logged) {
        self.logged.snapshots += logged.snapshots;
        self.logged.removals += logged.removals;
        self.logged.cuts += logged.cuts;
        self.logged.indexes += logged.indexes;
        self.logged.no_room += logged.no_room;
    }

    fn start(&self, percent: usize) -> Duration {
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        starts.get((starts.len() * percent / 100).min(starts.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        let faults = Fault::ALL.map(|fault| (fault.name().to_owned(), json!(self.findings.count(fault))));
        json!({
            "seed": self.seed,
            "kills": self.kills(),
            "under_load": self.under_load,
            "while_clients_return": self.while_they_return,
            "in_recovery": self.in_recovery,
            "directories": self.chapters,
            "acknowledged": self.acknowledged,
            "repeated": self.repeated,
            "marks": self.marks,
            "dings": self.dings,
            "confirmations": self.confirmations,
            "audits": self.audits,
            "read_by_new_devices": self.audited.read,
            "read_by_history": self.audited.history,
            "expired_and_named": self.audited.expired,
            "snapshots": self.logged.snapshots,
            "removals": self.logged.removals,
            "torn_tails": self.logged.cuts,
            "indexes_set_aside": self.logged.indexes,
            "disk_filled": self.filled,
            "starts_on_full_disk": self.starts_on_full,
            "no_room_seen": self.logged.no_room,
            "start_ms_median": self.start(50).as_secs_f64() * 1_000.0,
            "start_ms_max": self.start(100).as_secs_f64() * 1_000.0,
            "took_s": self.took.as_secs(),
            "faults": faults.into_iter().collect::<serde_json::Map<_, _>>(),
            "texts": self.findings.texts,
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { under_load, while_they_return, in_recovery, chapters, seed, .. } = self;
        let Audited { read, history, expired } = self.audited;
        let Logged { snapshots, removals, cuts, indexes, no_room } = self.logged;
        writeln!(
            f,
            "kills         {} on {chapters} data directories, seed {seed}, {} s",
            self.kills(),
            self.took.as_secs()
        )?;
        writeln!(
            f,
            "              {under_load} under load, {while_they_return} while clients came back, {in_recovery} in recovery"
        )?;
        writeln!(f, "acknowledged  {} messages, {} of them when repeated", self.acknowledged, self.repeated)?;
        writeln!(f, "              {} marks, {} DINGs, {} confirmations", self.marks, self.dings, self.confirmations)?;
        writeln!(f, "read back     {read} by new devices, {history} by history, in {} audits", self.audits)?;
        writeln!(f, "              {expired} were taken by retention, and named")?;
        writeln!(
            f,
            "meanwhile     {snapshots} snapshots, {removals} removals of segments, {cuts} torn tails, {indexes} indexes set aside"
        )?;
        if self.filled > 0 {
            let Self { filled, starts_on_full, .. } = self;
            writeln!(f, "disk          {filled} times full, {no_room} times seen so, {starts_on_full} starts on it")?;
        }
        writeln!(f, "starts        {:?} median, {:?} longest", self.start(50), self.start(100))?;
        for fault in Fault::ALL {
            writeln!(f, "{:<13} {}", fault.name(), self.findings.count(fault))?;
        }
        for text in &self.findings.texts {
            writeln!(f, "  {text}")?;
        }
        match &self.kept {
            Some([data, beside]) => {
                writeln!(f, "the data directory is kept: {}, log and notes: {}", data.display(), beside.display())
            }
            None => Ok(()),
        }
    }
}
