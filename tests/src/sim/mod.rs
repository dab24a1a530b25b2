//! The whole broker in a simulation that a seed repeats.
//!
//! One thread, virtual time: the real sequencer, shard, journal, recovery, snapshots, retention, index and ring, and two real edges on
//! simulated links. Clients connect, publish, join, leave, do not read, go away and come back at random moments; the reader answers
//! late, an edge falls off a ring of a few batches, writes are cut anywhere; a gateway outside is slow and ill. On a
//! [`Machine::Failing`] the disk fails, the process dies in any call to it and is started again on what is left.
//!
//! The oracle is a ledger of the records that the sequencer has shown as committed: each frame is checked against it at the moment a
//! client reads it, each start against all of it, and at rest everybody must have everything.
//!
//! [`run`] is one seed, [`run_on`] one with what it is to be like. A failure is repeated with its last actions written down.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

mod actions;
mod calls;
mod coverage;
mod damage;
mod dings;
mod disk;
mod history;
mod keeping;
mod ledger;
mod life;
mod links;
mod parts;
mod promises;
mod recovered;
mod requests;
mod rest;
pub(crate) mod rng;
mod room;
mod session;
mod shape;
mod tide;
mod told;
mod urgent;
mod world;

pub use coverage::Coverage;
pub use shape::Machine;
use world::{Log, Outcome, World};

/// Of the actions that are noted, the last ones are kept.
const ACTIONS_KEPT: usize = 4_000;

/// Why a run failed, and what it did last.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that repeats it.
    pub seed: u64,
    /// What was wrong.
    pub why: String,
    /// The step in which it was noticed.
    pub step: usize,
    /// The last actions.
    pub actions: Vec<String>,
}

impl Failure {
    /// The last actions, so many at most.
    #[must_use]
    pub fn last_actions(&self, count: usize) -> &[String] {
        &self.actions[self.actions.len().saturating_sub(count)..]
    }
}

/// What a run is to be like.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// What it does is drawn from this.
    pub seed: u64,
    /// What it runs on.
    pub machine: Machine,
    /// It comes to its end after so many steps, if it has not before.
    pub steps_max: usize,
    /// Its actions are noted.
    pub noted: bool,
}

/// Runs one seed on a reliable machine.
///
/// # Errors
/// What the broker did wrong, with the last actions.
pub fn run(seed: u64) -> Result<Coverage, Failure> {
    run_on(seed, Machine::Reliable)
}

/// Runs one seed.
///
/// # Errors
/// What the broker did wrong, with the last actions.
pub fn run_on(seed: u64, machine: Machine) -> Result<Coverage, Failure> {
    let options = RunOptions { seed, machine, steps_max: usize::MAX, noted: false };
    attempt(options).or_else(|_| attempt(RunOptions { noted: true, ..options }))
}

/// Runs one seed once.
///
/// # Errors
/// What the broker did wrong; with the last actions, if they are noted.
pub fn attempt(options: RunOptions) -> Result<Coverage, Failure> {
    let log = Rc::new(RefCell::new(Log { on: options.noted, kept_max: ACTIONS_KEPT, ..Log::default() }));
    let outcome = catch_unwind(AssertUnwindSafe(|| live(options, log.clone())));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|why| {
        let log = &mut *log.borrow_mut();
        let lines = std::mem::take(&mut log.lines);
        let actions = lines.into_iter().collect();
        Failure { seed: options.seed, why, step: log.step, actions }
    })
}

/// The smallest number of steps after which the same seed fails, as far as a bisection finds it, and how it fails then.
#[must_use]
pub fn shrink(failure: Failure, machine: Machine) -> (usize, Failure) {
    let (mut low, mut high, mut found) = (0, failure.step, failure);
    while low < high {
        let middle = low + (high - low) / 2;
        match attempt(RunOptions { seed: found.seed, machine, steps_max: middle, noted: true }) {
            Ok(_) => low = middle + 1,
            Err(smaller) => (high, found) = (middle, smaller),
        }
    }
    (high, found)
}

fn live(options: RunOptions, log: Rc<RefCell<Log>>) -> Result<Coverage, String> {
    let mut world = World::new(options.seed, options.machine, log);
    settle_in(&mut world)?;
    for _ in 0..world.shape.steps.min(options.steps_max) {
        world.act()?;
    }
    world.rest()?;
    reunite(&mut world)?;
    world.end()?;
    world.trace();
    Ok(world.coverage())
}

/// Most people are there before it begins, and there are some groups.
fn settle_in(world: &mut World) -> Outcome {
    for device in 0..world.devices.len() {
        if world.rng.percent(60) {
            let nth = world.rng.below(2);
            world.connect(device, nth);
        }
    }
    world.settle()?;
    for id in world.sessions.keys().copied().collect::<Vec<_>>() {
        if let (Some(who), true) = (world.sessions[&id].who, world.rng.percent(40)) {
            world.create_conversation(id, who);
        }
    }
    world.settle()
}

/// Every device comes back and goes on from where it was.
fn reunite(world: &mut World) -> Outcome {
    for device in 0..world.devices.len() {
        if world.devices[device].current.is_none() {
            let nth = world.rng.below(2);
            world.connect(device, nth);
        }
    }
    world.rest()
}
