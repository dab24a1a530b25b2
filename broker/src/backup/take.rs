//! Taking a backup, beside a broker that serves.
//!
//! The files are hard-linked into a staging directory first, so that retention cannot take one away under the copy. A
//! linked segment is read up to its last whole batch; what the broker appends meanwhile is not waited for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use carillon_protocol::ids::{Incarnation, Position, ShardId, Timestamp};

use super::{
    BackupError, BackupFile, BackupProgress, FORMAT, Manifest, empty_directory, failed, private_directory, reaches,
    sync_directory,
};
use crate::journal::{Extent, Notes, ObservedStorage, Storage, Walk, segment_file_name, segment_file_position};
use crate::snapshot;

/// In the data directory, while a backup is being taken.
const STAGING: &str = "backup.staging";
const LOCK: &str = "backup.lock";

/// How often the files are listed anew because retention was quicker.
const TRIES_MAX: usize = 10;

/// How much is written at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Copies what is in the data directory to `to`, which must not be there or be empty. A broker may serve from it.
///
/// # Errors
/// [`BackupError`]; what lies in `to` then has no manifest.
pub fn take(
    data: &Path,
    to: &Path,
    now: Timestamp,
    progress: &mut dyn FnMut(BackupProgress),
) -> Result<Manifest, BackupError> {
    let journal = data.join("journal");
    if !journal.is_dir() {
        return Err(BackupError::Nothing(data.to_owned()));
    }
    empty_directory(to)?;
    // Before anything else: a broker beside this goes on.
    let notes = Notes::read(&ObservedStorage::new(&journal)).map_err(failed("read", &journal))?;
    let staging = Staging::begin(data)?;
    let snapshots = staging.link(&journal)?;
    let storage = ObservedStorage::new(&staging.path);
    let Some(walk) = Walk::of(&storage)? else { return Err(BackupError::Nothing(data.to_owned())) };
    walk.check_begin(&ObservedStorage::new(&journal))?;
    let target = to.join("journal");
    private_directory(&target)?;
    let mut copy = Copy { target, files: Vec::new(), bytes: 0, bytes_all: staging.bytes(&storage)?, progress };
    let mut end = Extent { last: Position(0), bytes: 0 };
    for (nth, first) in walk.segments().iter().enumerate() {
        end = copy.file(&segment_file_name(*first), |sink| Ok(walk.copy(nth, None, sink)?))?;
    }
    walk.check_end(&notes, end)?;
    let head = end.last;
    copy.snapshots(&storage, &snapshots, walk.segments()[0], (walk.shard(), walk.identity().incarnation))?;
    sync_directory(&copy.target)?;
    let manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        time_ms: now.0,
        shard: walk.shard().0,
        incarnation: format!("{:016x}", walk.identity().incarnation.0),
        first: walk.segments()[0].0,
        head: head.0,
        files: copy.files,
    };
    manifest.write(to)?;
    Ok(manifest)
}

/// The linked files. Removed when it is dropped, or by the next backup.
struct Staging {
    path: PathBuf,
    /// Held until the end; its file stays.
    _lock: File,
}

impl Staging {
    fn begin(data: &Path) -> Result<Self, BackupError> {
        let lock_path = data.join(LOCK);
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Running(data.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &lock_path)(source)),
        }
        let path = data.join(STAGING);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
        private_directory(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Links all snapshots and segments, so that the snapshots reach the segments; returns the snapshots' positions.
    fn link(&self, journal: &Path) -> Result<Vec<Position>, BackupError> {
        for _ in 0..TRIES_MAX {
            let mut snapshots = self.link_those(journal, snapshot::parse_file_name)?;
            snapshots.sort_unstable();
            let mut segments = self.link_those(journal, segment_file_position)?;
            segments.sort_unstable();
            let Some(first) = segments.first().copied() else { return Ok(snapshots) };
            if reaches(first, snapshots.last().copied()) {
                return Ok(snapshots);
            }
            fs::remove_dir_all(&self.path).map_err(failed("remove", &self.path))?;
            private_directory(&self.path)?;
        }
        Err(BackupError::Restless)
    }

    fn link_those(
        &self,
        journal: &Path,
        position: impl Fn(&str) -> Option<Position>,
    ) -> Result<Vec<Position>, BackupError> {
        let names = ObservedStorage::new(journal).list().map_err(failed("list", journal))?;
        let mut linked = Vec::new();
        let mut files: Vec<_> = names.into_iter().filter_map(|name| Some((position(&name)?, name))).collect();
        // The newest first: retention takes the oldest first, so what it takes meanwhile leaves no hole.
        files.sort_unstable_by(|a, b| b.cmp(a));
        for (position, name) in files {
            let from = journal.join(&name);
            match fs::hard_link(&from, self.path.join(&name)) {
                Ok(()) => linked.push(position),
                // Retention, or a newer snapshot, was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("link", &from)(error)),
            }
        }
        Ok(linked)
    }

    fn bytes(&self, storage: &ObservedStorage) -> Result<u64, BackupError> {
        let names = storage.list().map_err(failed("list", &self.path))?;
        let length = |name: &String| storage.open(name).and_then(|file| file.length());
        names.iter().map(length).sum::<io::Result<_>>().map_err(failed("read", &self.path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is left is removed by the next backup.
        fs::remove_dir_all(&self.path).ok();
    }
}

/// Where the copies go.
struct Copy<'a> {
    target: PathBuf,
    files: Vec<BackupFile>,
    bytes: u64,
    bytes_all: u64,
    progress: &'a mut dyn FnMut(BackupProgress),
}

impl Copy<'_> {
    /// Writes a file with what `fill` hands over, makes it durable and notes it.
    fn file<T>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), BackupError>) -> Result<T, BackupError>,
    ) -> Result<T, BackupError> {
        let path = self.target.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed("make", &path))?;
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        let (mut crc32c, mut bytes) = (0, 0);
        let done = fill(&mut |piece| {
            out.write_all(piece).map_err(failed("write", &path))?;
            crc32c = crc32c::crc32c_append(crc32c, piece);
            bytes += piece.len() as u64;
            (self.progress)(BackupProgress { bytes: self.bytes + bytes, bytes_all: self.bytes_all });
            Ok(())
        })?;
        let file = out.into_inner().map_err(|error| failed("write", &path)(error.into_error()))?;
        file.sync_all().map_err(failed("sync", &path))?;
        self.bytes += bytes;
        self.files.push(BackupFile { name: name.to_owned(), bytes, crc32c });
        Ok(done)
    }

    /// Copies the snapshots. A damaged one is left out, as a start would leave it out, unless nothing else reaches the
    /// journal's begin.
    fn snapshots(
        &mut self,
        storage: &ObservedStorage,
        positions: &[Position],
        first: Position,
        (shard, incarnation): (ShardId, Incarnation),
    ) -> Result<(), BackupError> {
        let (mut newest, mut refused) = (None, None);
        for position in positions {
            match snapshot::read_whole(storage, *position) {
                // The broker would not believe it either.
                Ok((meta, _)) if (meta.shard, meta.incarnation) != (shard, incarnation) => {
                    tracing::warn!(%position, "a snapshot of another history is left out of the backup");
                }
                Ok((meta, state)) => {
                    self.file(&snapshot::file_name(*position), |sink| {
                        sink(&snapshot::format::head(&meta, &state))?;
                        sink(&state)
                    })?;
                    newest = Some(*position);
                }
                Err(error) => {
                    tracing::warn!(%error, "a snapshot is left out of the backup");
                    refused = Some(error);
                }
            }
        }
        match refused.filter(|_| !reaches(first, newest)) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
