//! A store that lives as long as the process: for tests, and for clients that are made anew inside one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carillon_protocol::ids::{DeviceId, Incarnation, ProducerId, ShardId};
use carillon_protocol::session::Cursor;

use super::{Identity, Saved, Store, Unsettled};
use crate::random;

/// Keeps everything in memory.
#[derive(Debug)]
pub struct MemoryStore {
    identity: Identity,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    cursors: BTreeMap<ShardId, Cursor>,
    next: u64,
    unsettled: BTreeMap<u64, Unsettled>,
    reset_due: Option<BTreeSet<u64>>,
}

impl MemoryStore {
    /// An empty store with a new identity.
    pub fn new() -> Self {
        let identity =
            Identity { device: DeviceId(random::nonzero_u64()), producer: ProducerId(random::nonzero_u64()) };
        Self { identity, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Store for MemoryStore {
    fn identity(&self) -> Option<Identity> {
        Some(self.identity)
    }

    fn load(&self) -> io::Result<Saved> {
        let held = self.held();
        Ok(Saved {
            cursors: held.cursors.values().copied().collect(),
            next: held.next,
            unsettled: held.unsettled.values().cloned().collect(),
            reset_due: held.reset_due.as_ref().map(|void| void.iter().copied().collect()),
        })
    }

    fn save_cursor(&self, cursor: Cursor) -> io::Result<()> {
        if cursor.incarnation == Incarnation(0) {
            self.held().cursors.remove(&cursor.shard);
        } else {
            self.held().cursors.insert(cursor.shard, cursor);
        }
        Ok(())
    }

    fn save_unsettled(&self, publishes: &[Unsettled]) -> io::Result<()> {
        let mut held = self.held();
        for publish in publishes {
            held.next = held.next.max(publish.number + 1);
            held.unsettled.insert(publish.number, publish.clone());
        }
        Ok(())
    }

    fn settle(&self, numbers: &[u64]) -> io::Result<()> {
        let mut held = self.held();
        for number in numbers {
            held.unsettled.remove(number);
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        let mut held = self.held();
        let void = std::mem::take(&mut held.unsettled);
        held.reset_due.get_or_insert_default().extend(void.into_keys());
        held.cursors.clear();
        Ok(())
    }

    fn reset_done(&self) -> io::Result<()> {
        self.held().reset_due = None;
        Ok(())
    }
}
