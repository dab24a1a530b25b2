//! Copies of a data directory's state: taken while a broker serves, restored as a new history.
//!
//! Owns the layout of a backup: a directory with `journal/` (segments, cut behind their last batch, and snapshots) and
//! `manifest.json`, which is written last. A backup without it was interrupted. Every checksum of the journal is checked on the way
//! out, every file's on the way in.
//!
//! # Invariants
//!
//! - What was acknowledged before a backup began is in it.
//! - A restored journal has a new incarnation: a cursor of the old one may be ahead of it, and is answered as such.
//! - Nothing is overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use carillon_protocol::ids::Position;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::journal::{OpenError, StorageError, WalkError};
use crate::snapshot::SnapshotError;

mod restore;
mod take;

pub use restore::{Restored, restore};
pub use take::take;

/// The version of the layout that this code writes and reads.
pub const FORMAT: u32 = 1;

const MANIFEST: &str = "manifest.json";

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Version of the program that made it.
    pub program: String,
    /// When it was begun, in ms since the Unix epoch.
    pub time_ms: u64,
    /// Whose journal.
    pub shard: u16,
    /// Its history, in hexadecimal: JSON's numbers are too small.
    pub incarnation: String,
    /// The first position.
    pub first: u64,
    /// The last position.
    pub head: u64,
    /// All files below `journal/`.
    pub files: Vec<BackupFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFile {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC32C of all of it.
    pub crc32c: u32,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all, about.
    pub bytes_all: u64,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A file operation failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is no journal to back up.
    #[error("{0} holds no journal: name a broker's data directory")]
    Nothing(PathBuf),
    /// Another backup of this directory is running.
    #[error("another backup of {0} is running")]
    Running(PathBuf),
    /// The place is taken.
    #[error("{0} is not empty: name a directory that is not there yet")]
    Taken(PathBuf),
    /// Retention took segments away again and again.
    #[error("the journal changes faster than it can be looked at; try again")]
    Restless,
    /// The journal is damaged, or cannot be read.
    #[error("{0}")]
    Journal(#[from] OpenError),
    /// A snapshot is damaged, or cannot be read.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// The new data directory cannot be used.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The manifest is missing: the backup was interrupted, or this is none.
    #[error("{0} has no manifest: it is no backup, or one that was interrupted")]
    NoManifest(PathBuf),
    /// The manifest cannot be understood.
    #[error("{path} is no manifest: {source}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A newer program made the backup.
    #[error("the backup has format {0}, known is {FORMAT}; use the program that made it, or a newer one")]
    Format(u32),
    /// The files are not what the manifest says.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// There are no random numbers for a new incarnation.
    #[error("no random number for a new incarnation: {0}")]
    Random(getrandom::Error),
}

impl From<WalkError<BackupError>> for BackupError {
    fn from(error: WalkError<BackupError>) -> Self {
        match error {
            WalkError::Journal(error) => error.into(),
            WalkError::Sink(error) => error,
        }
    }
}

/// An error of a file operation.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
}

/// Makes a directory, which may be there if it is empty.
fn empty_directory(path: &Path) -> Result<(), BackupError> {
    private_directory(path)?;
    match fs::read_dir(path).map_err(failed("list", path))?.next() {
        None => Ok(()),
        Some(_) => Err(BackupError::Taken(path.to_owned())),
    }
}

/// Makes a directory that only its owner can look into: messages lie in it. One that is there is left as it is.
fn private_directory(path: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make", path))
}

fn sync_directory(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

impl Manifest {
    /// Writes it, the last file of a backup.
    fn write(&self, directory: &Path) -> Result<(), BackupError> {
        let (temporary, path) = (directory.join("manifest.json.tmp"), directory.join(MANIFEST));
        let text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        let mut options = OpenOptions::new();
        let written = options.write(true).create(true).truncate(true).open(&temporary).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(failed("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(failed("rename", &temporary))?;
        sync_directory(directory)
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn read(directory: &Path) -> Result<Self, BackupError> {
        let path = directory.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::NoManifest(directory.to_owned()));
            }
            read => read.map_err(failed("read", &path))?,
        };
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|source| BackupError::Manifest { path: path.clone(), source })?;
        if manifest.format != FORMAT {
            return Err(BackupError::Format(manifest.format));
        }
        let flat = |name: &str| !name.is_empty() && !name.contains(['/', '\\']) && !name.starts_with('.');
        match manifest.files.iter().find(|file| !flat(&file.name)) {
            Some(file) => Err(BackupError::Damaged(format!("{:?} is no name of a file in it", file.name))),
            None => Ok(manifest),
        }
    }
}

/// The first position that a journal may begin at when this is its newest usable snapshot.
fn reaches(first: Position, newest: Option<Position>) -> bool {
    first == Position(1) || newest.is_some_and(|position| position.next() >= first)
}
