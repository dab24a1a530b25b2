//! Power fails at any call under the real journal, and nothing that was acknowledged may be missing afterwards.
//!
//! The production sequencer, store, journal, snapshots and retention run on [`MemoryStorage`], which keeps what is synced apart
//! from what is only written. A *world* is one directory over many *lives*; each life ends by a crash at a random call, in
//! recovery too, and then each sector and each change of the directory that was not synced is kept, dropped or torn by the seed.
//!
//! [`MemoryStorage`]: carillon::journal::MemoryStorage

mod people;
mod world;

use std::fmt;
use std::time::Duration;

use carillon::clock::SystemClock;
use carillon_transport::Clock;
use serde_json::{Value, json};

use crate::sim::rng::Rng;
use world::World;

/// Lives of a world: enough for some snapshots and for retention to go on.
const LIVES: u32 = 40;

/// What was seen.
#[derive(Debug, Default)]
pub struct Summary {
    /// Directories.
    pub worlds: u64,
    /// Crashes.
    pub crashes: u64,
    /// Of these, before the store was open.
    pub in_recovery: u64,
    /// Crashes that lost, tore or reordered what was not synced.
    pub power_losses: u64,
    /// Acknowledged publishes.
    pub acknowledged: u64,
    /// Acknowledged publishes that were repeated after a crash, and got their first answer.
    pub repeated: u64,
    /// Records that were acknowledged and were read back and compared.
    pub read_back: u64,
    /// Times that a state was compared with that of a replay from the beginning.
    pub states: u64,
    /// Torn tails that were cut.
    pub cuts: u64,
    /// Batches in doubt that were there.
    pub in_doubt_kept: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Segments that retention took.
    pub removed: u64,
    /// What was wrong, the first of each world, with its seed.
    pub wrong: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs worlds from a seed on until there were so many crashes, or something was wrong.
pub fn run(seed: u64, crashes: u64, show: &mut dyn FnMut(u64)) -> Summary {
    let begun = SystemClock.now();
    let mut summary = Summary::default();
    let mut seed = seed;
    while summary.crashes < crashes && summary.wrong.is_empty() {
        let mut world = World::new(Rng::new(seed));
        let lived = (0..LIVES).try_for_each(|_| world.live(&mut summary)).and_then(|()| world.rest(&mut summary));
        if let Err(wrong) = lived {
            summary.wrong.push(format!("seed {seed}: {wrong}"));
        }
        summary.worlds += 1;
        seed += 1;
        show(summary.crashes);
    }
    summary.took = SystemClock.now().duration_since(begun);
    summary
}

impl Summary {
    /// For programs.
    pub fn as_json(&self) -> Value {
        json!({
            "worlds": self.worlds,
            "crashes": self.crashes,
            "in_recovery": self.in_recovery,
            "power_losses": self.power_losses,
            "acknowledged": self.acknowledged,
            "repeated": self.repeated,
            "read_back": self.read_back,
            "states_compared": self.states,
            "torn_tails": self.cuts,
            "in_doubt_kept": self.in_doubt_kept,
            "snapshots": self.snapshots,
            "segments_removed": self.removed,
            "wrong": self.wrong,
            "took_s": self.took.as_secs_f64(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, crashes, in_recovery, power_losses, acknowledged, repeated, read_back, states, .. } = self;
        let Self { cuts, in_doubt_kept, snapshots, removed, took, .. } = self;
        writeln!(f, "crashes       {crashes} in {worlds} worlds, {:.1} s", took.as_secs_f64())?;
        writeln!(f, "              {power_losses} with loss of what was not synced, {in_recovery} in recovery")?;
        writeln!(f, "acknowledged  {acknowledged} publishes, {repeated} of them repeated after a crash")?;
        writeln!(f, "read back     {read_back} records, {states} states compared with a replay")?;
        writeln!(
            f,
            "meanwhile     {cuts} torn tails, {in_doubt_kept} batches in doubt kept, {snapshots} snapshots, {removed} segments removed"
        )?;
        writeln!(f, "wrong         {}", self.wrong.len())?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "  {wrong}"))
    }
}
