//! The edge's live/catching-up logic, run in a simulation that a seed repeats.
//!
//! One thread: the real sequencer, shard, journal (in memory), index and ring, and two real edges on simulated links. Clients
//! connect, publish, join, leave, do not read, go away and come back at random moments; the reader answers late, an edge
//! falls off a ring of a few batches, writes are cut anywhere. The oracle is a ledger of the committed records: each frame
//! is checked against it at the moment a client reads it, and at rest everybody must have everything.
//!
//! [`run`] is one seed. A failure is repeated with its last actions written down.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use carillon_protocol::error::ErrorCode;

mod actions;
mod history;
mod ledger;
mod links;
mod parts;
mod requests;
mod rest;
mod rng;
mod session;
mod shape;
mod told;
mod world;

use world::{Log, Outcome, World};

/// Actions shown of a run that failed.
const ACTIONS_SHOWN: usize = 60;

/// What happened in runs that did not fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coverage {
    /// Runs.
    pub runs: u64,
    /// Positions committed.
    pub committed: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Frames offered as they were committed.
    pub delivered_live: u64,
    /// Frames offered from the journal.
    pub delivered_catching_up: u64,
    /// Rounds cut into chunks.
    pub rounds_cut: u64,
    /// Times a session fell behind.
    pub fell_behind: u64,
    /// Times an edge fell off the ring.
    pub fell_off_ring: u64,
    /// Reads of bodies that had left the ring.
    pub reads: u64,
    /// Read updates let go.
    pub receipts_let_go: u64,
    /// Sessions that another one of their device took over.
    pub fenced: u64,
    /// Sessions whose device or producer was given up.
    pub retired: u64,
    /// Sessions closed for what they sent, or did not.
    pub misbehaved: u64,
}

/// Why a run failed, and what it did last.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that repeats it.
    pub seed: u64,
    /// What was wrong.
    pub why: String,
    /// The last actions.
    pub actions: Vec<String>,
}

impl Coverage {
    /// Adds what another run covered.
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.committed += other.committed;
        self.sessions += other.sessions;
        self.delivered_live += other.delivered_live;
        self.delivered_catching_up += other.delivered_catching_up;
        self.rounds_cut += other.rounds_cut;
        self.fell_behind += other.fell_behind;
        self.fell_off_ring += other.fell_off_ring;
        self.reads += other.reads;
        self.receipts_let_go += other.receipts_let_go;
        self.fenced += other.fenced;
        self.retired += other.retired;
        self.misbehaved += other.misbehaved;
    }
}

/// Runs one seed.
///
/// # Errors
/// What the broker did wrong, with the last actions.
pub fn run(seed: u64) -> Result<Coverage, Failure> {
    attempt(seed, false).or_else(|_| attempt(seed, true))
}

fn attempt(seed: u64, logged: bool) -> Result<Coverage, Failure> {
    let log = Rc::new(RefCell::new(Log { on: logged, lines: VecDeque::new() }));
    let outcome = catch_unwind(AssertUnwindSafe(|| live(seed, log.clone())));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    outcome.map_err(|why| {
        let lines = std::mem::take(&mut log.borrow_mut().lines);
        let actions = lines.into_iter().rev().take(ACTIONS_SHOWN).rev().collect();
        Failure { seed, why, actions }
    })
}

fn live(seed: u64, log: Rc<RefCell<Log>>) -> Result<Coverage, String> {
    let mut world = World::new(seed, log);
    settle_in(&mut world)?;
    for _ in 0..world.shape.steps {
        world.act()?;
    }
    world.rest()?;
    reunite(&mut world)?;
    world.end()?;
    Ok(coverage(&world))
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

fn coverage(world: &World) -> Coverage {
    let mut coverage = Coverage { runs: 1, committed: world.ledger.head.0, ..Coverage::default() };
    for (code, count) in &world.closes {
        match ErrorCode(*code) {
            ErrorCode::FENCED => coverage.fenced += count,
            ErrorCode::RETIRED => coverage.retired += count,
            ErrorCode::DRAINING => {}
            _ => coverage.misbehaved += count,
        }
    }
    coverage.sessions = world.opened();
    for stats in world.stats() {
        coverage.delivered_live += stats.delivered_live;
        coverage.delivered_catching_up += stats.delivered_catching_up;
        coverage.rounds_cut += stats.rounds_cut;
        coverage.fell_behind += stats.fell_behind;
        coverage.fell_off_ring += stats.fell_off_ring;
        coverage.reads += stats.reads;
        coverage.receipts_let_go += stats.receipts_let_go;
    }
    coverage
}
