//! A simulated directory that can crash, fail, tear and rot. For tests and simulation, also of other crates.

mod change;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::storage::{Storage, StorageFile};
use change::{Change, DirectoryChange, Random};

/// A [`Storage`] in memory that keeps what is synced apart from what is only written. A clone shares the files.
///
/// Every call counts, reads too; [`calls`](Self::calls) tells how many there were, and failures and crashes are set by
/// that number, so that a test can visit each call of a workload.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
}

/// What a crash does to writes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// Keeps all: the process ended, the machine did not.
    Nothing,
    /// Drops all: the machine lost power, and the disk had seen none of it.
    Everything,
    /// Keeps, drops or tears each sector and each change of the directory by the seed, which thus also reorders them.
    Random(u64),
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    /// What processes see.
    directory: BTreeMap<String, u64>,
    synced_directory: BTreeMap<String, u64>,
    pending: Vec<DirectoryChange>,
    calls: u64,
    crash_at: Option<u64>,
    fail_at: Option<(u64, io::ErrorKind)>,
    failures: u64,
    crashed: bool,
    /// Bytes that all files together may have.
    capacity: Option<u64>,
    /// Counts restarts: what was opened before is dead.
    life: u64,
}

#[derive(Default, Clone)]
struct Contents {
    current: Vec<u8>,
    synced: Vec<u8>,
    pending: Vec<Change>,
}

/// What a call is to do after it was counted.
enum Outcome {
    Done,
    /// The call fails once; a write takes effect in part.
    Fail(io::Error),
    /// The call never returns in its life; a write or sync may take effect in any part.
    Crash(io::Error),
}

impl Outcome {
    /// For a call that changes nothing unless it succeeds.
    fn done(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Fail(error) | Self::Crash(error) => Err(error),
        }
    }
}

impl State {
    fn count(&mut self) -> Outcome {
        if self.crashed {
            return Outcome::Crash(io::Error::other("the simulated machine has crashed"));
        }
        self.calls += 1;
        if self.crash_at == Some(self.calls) {
            self.crashed = true;
            return Outcome::Crash(io::Error::other("the simulated machine crashes"));
        }
        match self.fail_at.take_if(|(call, _)| *call == self.calls) {
            Some((_, kind)) => {
                self.failures += 1;
                Outcome::Fail(kind.into())
            }
            None => Outcome::Done,
        }
    }

    /// Counts a call that changes nothing when it fails.
    fn enter(&mut self) -> io::Result<()> {
        self.count().done()
    }

    fn file(&mut self, id: u64) -> &mut Contents {
        self.files.get_mut(&id).expect("a file lives as long as the simulation")
    }

    /// Bytes of all files that have a name.
    fn used_bytes(&self) -> u64 {
        self.directory.values().map(|id| self.files[id].current.len() as u64).sum()
    }

    fn free_bytes(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used_bytes()))
    }

    /// The end that a file may grow to, which today has `length` bytes and is to have `end`.
    fn end_within(&self, length: usize, end: usize) -> usize {
        let free = self.free_bytes().and_then(|free| usize::try_from(free).ok()).unwrap_or(usize::MAX);
        end.min(length.saturating_add(free)).max(length.min(end))
    }

    fn change_directory(&mut self, change: DirectoryChange) {
        change.apply(&mut self.directory);
        self.pending.push(change);
    }
}

impl MemoryStorage {
    /// An empty directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls so far, of all lives.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Lets all files together have so many bytes: what goes beyond fails with `StorageFull`. `None`: as many as come.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes of all files. Does not count as a call.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Lets the machine crash in the call of this number, counted from the first call ever: it and all later calls
    /// fail, until [`restart`](Self::restart).
    pub fn crash_at(&self, call: u64) {
        self.state().crash_at = Some(call);
    }

    /// Lets the call of this number fail once with this kind of error. If it is a sync, what it should have
    /// made durable stays readable and is lost with the next power failure, as on Linux.
    pub fn fail_at(&self, call: u64, kind: io::ErrorKind) {
        self.state().fail_at = Some((call, kind));
    }

    /// Takes back what [`crash_at`](Self::crash_at) and [`fail_at`](Self::fail_at) have set and has not happened.
    pub fn calm(&self) {
        let state = &mut *self.state();
        (state.crash_at, state.fail_at) = (None, None);
    }

    /// Calls that failed because [`fail_at`](Self::fail_at) said so, of all lives.
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Another directory, with what this one would have if the machine lost power now and the disk had seen nothing that was not
    /// synced. What is done to it does nothing to this one. Does not count as a call.
    pub fn durable_copy(&self) -> Self {
        let copy = Self::new();
        let state = self.state();
        for (name, file) in &state.synced_directory {
            copy.put(name, state.files[file].synced.clone());
        }
        drop(state);
        copy
    }

    /// Whether the crash that was set has happened.
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Begins a new life after a crash, or after a process that just ended. Files opened before are dead.
    pub fn restart(&self, loss: Loss) {
        let state = &mut *self.state();
        (state.crashed, state.crash_at, state.fail_at) = (false, None, None);
        state.life += 1;
        if loss == Loss::Nothing {
            return;
        }
        let mut random = match loss {
            Loss::Random(seed) => Some(Random(seed)),
            Loss::Nothing | Loss::Everything => None,
        };
        for file in state.files.values_mut() {
            for change in file.pending.drain(..) {
                if let Some(random) = &mut random {
                    change.apply_randomly(&mut file.synced, random);
                }
            }
            file.current.clone_from(&file.synced);
        }
        for change in state.pending.drain(..) {
            if let Some(random) = &mut random
                && random.below(2) == 0
            {
                change.apply(&mut state.synced_directory);
            }
        }
        state.directory.clone_from(&state.synced_directory);
    }

    /// Flips bits of a byte, on the disk and as it is read. Does not count as a call.
    ///
    /// # Panics
    ///
    /// If there is no such file, or it is shorter.
    pub fn flip(&self, name: &str, offset: usize, mask: u8) {
        let file = self.named(name);
        let state = &mut *self.state();
        let file = state.file(file);
        file.current[offset] ^= mask;
        if let Some(byte) = file.synced.get_mut(offset) {
            *byte ^= mask;
        }
    }

    /// A file's bytes as they are read. Does not count as a call.
    ///
    /// # Panics
    ///
    /// If there is no such file.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        let file = self.named(name);
        self.state().file(file).current.clone()
    }

    /// Puts a durable file there. Does not count as a call.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let state = &mut *self.state();
        let id = state.next_file;
        state.next_file += 1;
        state.files.insert(id, Contents { synced: bytes.clone(), current: bytes, pending: Vec::new() });
        state.directory.insert(name.to_owned(), id);
        state.synced_directory.insert(name.to_owned(), id);
    }

    /// Names of all files, sorted. Does not count as a call.
    pub fn names(&self) -> Vec<String> {
        self.state().directory.keys().cloned().collect()
    }

    fn named(&self, name: &str) -> u64 {
        *self.state().directory.get(name).unwrap_or_else(|| panic!("there is no file {name}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panicking test thread leaves nothing half done here that another could not read.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn handle(&self, id: u64, life: u64) -> Arc<dyn StorageFile> {
        Arc::new(MemoryFile { storage: self.clone(), id, life })
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no file {name}"))
}

impl Storage for MemoryStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.enter()?;
        Ok(state.directory.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.state();
        state.enter()?;
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let id = match state.directory.get(name) {
            Some(id) => *id,
            None => {
                let id = state.next_file;
                state.next_file += 1;
                state.files.insert(id, Contents::default());
                state.change_directory(DirectoryChange::Create(name.to_owned(), id));
                id
            }
        };
        for length in [0, length] {
            let end = state.end_within(state.files[&id].current.len(), length);
            let (change, file) = (Change::Length(end), state.file(id));
            change.apply(&mut file.current);
            file.pending.push(change);
        }
        // As on a real disk, what there was room for is left behind.
        if state.files[&id].current.len() < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.handle(id, state.life))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut state = self.state();
        state.enter()?;
        let id = *state.directory.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.handle(id, state.life))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter()?;
        if !state.directory.contains_key(name) {
            return Err(not_found(name));
        }
        state.change_directory(DirectoryChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter()?;
        let id = *state.directory.get(from).ok_or_else(|| not_found(from))?;
        state.change_directory(DirectoryChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.enter()?;
        state.pending.clear();
        state.synced_directory.clone_from(&state.directory);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(self.state().free_bytes())
    }
}

/// An open file of a [`MemoryStorage`].
struct MemoryFile {
    storage: MemoryStorage,
    id: u64,
    life: u64,
}

impl MemoryFile {
    fn with<T>(&self, call: impl FnOnce(&mut Contents, Outcome) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.storage.state();
        if state.life != self.life {
            return Err(io::Error::other("the file was opened before the simulated crash"));
        }
        if state.crashed {
            state.enter()?;
        }
        let outcome = state.count();
        call(state.file(self.id), outcome)
    }
}

impl StorageFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(|file, outcome| {
            outcome.done()?;
            let begin = usize::try_from(offset).map_err(io::Error::other)?;
            let found = file.current.get(begin..begin + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(found);
            Ok(())
        })
    }

    fn write_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bytes = parts.concat();
        let end = {
            let state = self.storage.state();
            state.end_within(state.files[&self.id].current.len(), offset + bytes.len())
        };
        self.with(|file, outcome| {
            let fits = end.saturating_sub(offset).min(bytes.len());
            let outcome = match outcome {
                Outcome::Done if fits < bytes.len() => Outcome::Fail(io::ErrorKind::StorageFull.into()),
                outcome => outcome,
            };
            if matches!(outcome, Outcome::Fail(_)) {
                bytes.truncate(fits.min(bytes.len() / 2));
            }
            let change = Change::Write { offset, bytes };
            change.apply(&mut file.current);
            file.pending.push(change);
            outcome.done()
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file, outcome| {
            match outcome {
                Outcome::Done => file.pending.drain(..).for_each(|change| change.apply(&mut file.synced)),
                Outcome::Fail(_) => file.pending.clear(),
                Outcome::Crash(_) => {}
            }
            outcome.done()
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|file, outcome| outcome.done().map(|()| file.current.len() as u64))
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.with(|file, outcome| {
            outcome.done()?;
            let change = Change::Length(usize::try_from(bytes).map_err(io::Error::other)?);
            change.apply(&mut file.current);
            file.pending.push(change);
            Ok(())
        })
    }
}
