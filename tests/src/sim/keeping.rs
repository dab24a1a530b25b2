//! What threads beside the sequencer do to the directory: snapshots, retention, spare segments.

use std::sync::Arc;

use carillon::journal::is_no_room;
use carillon::keeper::KeepError;
use carillon::snapshot;
use carillon_protocol::ids::Position;

use super::life::INCARNATION;
use super::world::{Outcome, SHARD, World};

impl World {
    /// The keeper has a turn, as its thread gives it one.
    pub(super) fn keep(&mut self) -> Outcome {
        let (snapshots, segments) = (self.newest_snapshot(), self.segments());
        let failures = self.outside.storage.failures();
        let turned = self.life.keeper.turn();
        self.ledger.floor = self.ledger.floor.max(self.life.index.truncated_through());
        self.note(|| format!("the keeper has a turn: {turned:?}"));
        // One that has its name, and whose directory could not be synced, may be gone.
        let sound = turned.is_ok();
        self.mind_keeper(turned, failures)?;
        self.covered.segments_removed += segments.saturating_sub(self.segments());
        let newest = self.newest_snapshot();
        if newest != snapshots && sound {
            self.covered.snapshots += 1;
            self.judge_snapshot(newest)?;
        }
        self.mind_disk()
    }

    /// The keeper may fail in a turn in which the disk has, and in no other.
    fn mind_keeper(&self, turned: Result<(), KeepError>, failures: u64) -> Outcome {
        let storage = &self.outside.storage;
        match turned {
            Err(error) if self.may_keeper_lack_room(&error) => Ok(()),
            Err(error) if !storage.crashed() && storage.failures() == failures => {
                Err(format!("the keeper failed on a sound disk: {error}"))
            }
            _ => Ok(()),
        }
    }

    fn newest_snapshot(&self) -> Position {
        let names = self.outside.storage.names();
        names.iter().filter_map(|name| snapshot::parse_file_name(name)).max().unwrap_or_default()
    }

    fn segments(&self) -> u64 {
        self.outside.storage.names().iter().filter(|name| name.ends_with(".journal")).count() as u64
    }

    /// A snapshot is the state at its position: it was taken a moment ago, at the head.
    fn judge_snapshot(&mut self, position: Position) -> Outcome {
        if position != self.ledger.head {
            return Err(format!("a snapshot was taken at {position}, the head is {}", self.ledger.head));
        }
        self.replica.follow(&self.ledger)?;
        let copy = Arc::new(self.outside.storage.durable_copy());
        let loaded = snapshot::load(&*copy, SHARD, INCARNATION, position);
        let (_, shard) = loaded.map_err(|error| format!("the snapshot at {position}: {error}"))?;
        self.replica.judge(&shard).map_err(|why| format!("the snapshot at {position}: {why}"))
    }

    /// The preparer makes a spare segment, if there is none.
    pub(super) fn prepare(&mut self) -> Outcome {
        self.look_at_room();
        let failures = self.outside.storage.failures();
        let prepared = self.life.preparer.prepare();
        self.note(|| format!("a spare segment: {prepared:?}"));
        self.judge_prepared(&prepared, self.outside.storage.failures() - failures)?;
        match prepared {
            Ok(made) => self.covered.spares += u64::from(made),
            Err(error) if self.is_full() && is_no_room(&error) => {}
            Err(_) if self.outside.storage.crashed() || self.has_failed() => {}
            Err(error) => return Err(format!("no spare segment on a sound disk: {error}")),
        }
        self.mind_disk()
    }
}
