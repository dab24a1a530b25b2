//! The disk fails, the process dies, and another one is started on what is left.
//!
//! A life of the process is given a fate: it dies in a certain call to the disk, or one such call fails, or neither. What a death does
//! to writes that were not synced is drawn anew each time. Nothing of this happens while a run is at rest.

use std::io::ErrorKind;

use carillon::journal::{CommitError, Loss};
use carillon::report::Causes;

use super::life::{Life, away, open};
use super::recovered::judge_start;
use super::room::Known;
use super::world::{Outcome, World};

/// Starts that may die in a row; the next one lives.
const DEATHS_STARTING_MAX: u32 = 6;

/// Turns that edges have after the sequencer's last one.
const LINGERING_MAX: usize = 12;

/// What the disk says when it fails.
const FAILURES: [ErrorKind; 4] = [ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::TimedOut, ErrorKind::WriteZero];

impl World {
    /// The next step may see the disk fail.
    pub(super) fn arm(&mut self) {
        if !self.shape.machine.fails() || self.armed {
            return;
        }
        self.armed = true;
        let reach = self.rng.pick(&self.shape.fates);
        let call = self.outside.storage.calls() + self.rng.between(1, reach) as u64;
        match self.rng.below(100) {
            0..55 => self.outside.storage.crash_at(call),
            55..75 => self.outside.storage.fail_at(call, self.rng.pick(&FAILURES)),
            _ => {}
        }
    }

    /// Nothing happens to the disk from now on.
    pub(super) fn calm(&mut self) {
        self.outside.storage.calm();
        self.armed = false;
    }

    /// What has just been done used the disk: the process may have died of it.
    pub(super) fn mind_disk(&mut self) -> Outcome {
        if self.outside.storage.crashed() { self.die("in a call to the disk") } else { Ok(()) }
    }

    /// Whether the disk has failed in this life.
    pub(super) fn has_failed(&self) -> bool {
        self.outside.storage.failures() > self.failures_before
    }

    /// A commit failed, which is final, or the process is dying in it. Nobody may be told of what is not durable.
    pub(super) fn fail(&mut self, error: &CommitError) -> Outcome {
        self.note(|| format!("the sequencer ends: {}", Causes(error)));
        if let CommitError::NoRoom(_) = error {
            self.judge_end_of_room()?;
            return self.linger("for want of room");
        }
        let crashed = self.outside.storage.crashed();
        if !crashed && !self.has_failed() {
            return Err(format!("a commit failed on a sound disk: {error}"));
        }
        self.covered.commits_failed += u64::from(!crashed);
        self.linger("in a commit")
    }

    /// Edges go on for a moment after the sequencer has ended, and then the process dies.
    fn linger(&mut self, how: &str) -> Outcome {
        for _ in 0..self.rng.below(LINGERING_MAX) {
            let nth = self.rng.below(self.life.stations.len());
            self.turn(nth, usize::MAX)?;
            self.read_any()?;
        }
        self.die(how)
    }

    /// The process is gone with all sessions; another one is started.
    pub(super) fn die(&mut self, how: &str) -> Outcome {
        self.note(|| format!("the process dies {how}"));
        self.covered.deaths += 1;
        self.covered.deaths_at_disk += u64::from(self.outside.storage.crashed());
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.forget(id);
        }
        self.count_edges();
        self.outside.gateway.lock().forget();
        self.lose();
        self.clock_away();
        self.start()?;
        if self.rng.percent(70) {
            self.return_all();
        }
        Ok(())
    }

    /// Most clients come back at once, each with the cursor that it has stored.
    fn return_all(&mut self) {
        for device in 0..self.devices.len() {
            if self.rng.percent(60) {
                let nth = self.rng.below(self.life.stations.len());
                self.connect(device, nth);
            }
        }
    }

    fn clock_away(&mut self) {
        let away = away(&mut self.rng);
        self.outside.clock.advance(u64::try_from(away.as_millis()).expect("it is short"));
    }

    /// The disk after a death: the process alone has ended, or the machine has lost power.
    fn lose(&mut self) {
        let loss = match self.rng.below(20) {
            0..7 => Loss::Nothing,
            7..12 => Loss::Everything,
            _ => Loss::Random(self.rng.next()),
        };
        self.note(|| format!("what was not synced: {loss:?}"));
        self.outside.storage.restart(loss);
    }

    /// Starts the broker on what is there, over deaths.
    fn start(&mut self) -> Outcome {
        (self.armed, self.room_known) = (false, Known::default());
        for nth in 0.. {
            let dies = nth < DEATHS_STARTING_MAX && self.rng.percent(self.shape.dies_starting);
            if dies {
                let call = self.outside.storage.calls() + self.rng.between(1, 40) as u64;
                match self.rng.below(4) {
                    0 => self.outside.storage.fail_at(call, self.rng.pick(&FAILURES)),
                    _ => self.outside.storage.crash_at(call),
                }
            }
            self.failures_before = self.outside.storage.failures();
            let prepared = self.prepared();
            let opened = open(&self.outside, &self.shape);
            let (crashed, failed) = (self.outside.storage.crashed(), self.has_failed());
            self.outside.storage.calm();
            match opened {
                Ok(store) if !crashed => {
                    judge_start(self, &store.0)?;
                    self.life = Life::new(store, &self.outside, &self.shape, &mut self.rng);
                    self.covered.starts += 1;
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) if crashed || failed => self.note(|| format!("a start fails: {}", Causes(&error))),
                Err(error) if self.is_full() => {
                    self.note(|| format!("a start fails on a full disk: {}", Causes(&error)));
                    self.judge_full_start(&error, &prepared)?;
                    self.empty();
                }
                Err(error) => return Err(format!("the directory cannot be opened: {error}")),
            }
            self.covered.deaths_starting += 1;
            self.lose();
            self.clock_away();
        }
        Ok(())
    }
}
