//! Restoring a backup into a data directory of its own, as a new history.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use carillon_protocol::ids::{Incarnation, Position};

use super::{BackupError, BackupFile, BackupProgress, Manifest, empty_directory, failed, reaches, sync_directory};
use crate::journal::{FileStorage, Identity, ObservedStorage, Storage, Walk, segment_file_name, segment_file_position};
use crate::snapshot::{self, Meta};

/// The journal's directory while it is being filled. A broker does not look at it.
const RESTORING: &str = "journal.restoring";

const BUFFER_BYTES: usize = 1024 * 1024;

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// The history that begins now.
    pub incarnation: Incarnation,
}

/// Restores the backup in `from` into the data directory `data`, which must hold no journal. The journal gets a new
/// incarnation.
///
/// # Errors
/// [`BackupError`]; there is no journal in `data` then.
pub fn restore(from: &Path, data: &Path, progress: &mut dyn FnMut(BackupProgress)) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(from)?;
    let journal = data.join("journal");
    if journal.exists() {
        empty_directory(&journal)?;
    }
    let source = from.join("journal");
    // Everything is read twice: once to believe it, once to write it anew.
    let bytes_all = 2 * manifest.files.iter().map(|file| file.bytes).sum::<u64>();
    let mut done = 0;
    let mut count = |bytes: usize| {
        done += bytes as u64;
        progress(BackupProgress { bytes: done, bytes_all });
    };
    for file in &manifest.files {
        check(&source, file, &mut count)?;
    }
    let identity = Identity::random().map_err(BackupError::Random)?;
    let restoring = data.join(RESTORING);
    if restoring.exists() {
        fs::remove_dir_all(&restoring).map_err(failed("remove", &restoring))?;
    }
    {
        let target = FileStorage::open(&restoring)?;
        let segments = Segments { source: &ObservedStorage::new(&source), target: &target, identity, path: &restoring };
        segments.fill(&manifest, &mut count)?;
    }
    fs::rename(&restoring, &journal).map_err(failed("rename", &restoring))?;
    sync_directory(data)?;
    Ok(Restored { manifest, incarnation: identity.incarnation })
}

/// Compares a file of a backup with what the manifest says.
fn check(directory: &Path, file: &BackupFile, count: &mut dyn FnMut(usize)) -> Result<(), BackupError> {
    let path = directory.join(&file.name);
    let mut open = File::open(&path).map_err(failed("open", &path))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut bytes, mut crc32c) = (0, 0);
    loop {
        let read = open.read(&mut buffer).map_err(failed("read", &path))?;
        if read == 0 {
            break;
        }
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]);
        bytes += read as u64;
        count(read);
    }
    if (bytes, crc32c) != (file.bytes, file.crc32c) {
        let text = format!(
            "{} has {bytes} bytes and checksum {crc32c:08x}, the manifest says {} and {:08x}",
            file.name, file.bytes, file.crc32c
        );
        return Err(BackupError::Damaged(text));
    }
    Ok(())
}

/// From the backup to the new journal.
struct Segments<'a> {
    source: &'a ObservedStorage,
    target: &'a FileStorage,
    identity: Identity,
    path: &'a Path,
}

impl Segments<'_> {
    fn fill(&self, manifest: &Manifest, count: &mut dyn FnMut(usize)) -> Result<(), BackupError> {
        let damaged = |text: &str| BackupError::Damaged(text.to_owned());
        let walk = Walk::of(self.source)?.ok_or_else(|| damaged("there are no segments"))?;
        let named = |first: &Position| manifest.files.iter().any(|file| file.name == segment_file_name(*first));
        let segments = manifest.files.iter().filter(|file| segment_file_position(&file.name).is_some()).count();
        if segments != walk.segments().len() || !walk.segments().iter().all(named) {
            return Err(damaged("its segments are not those of the manifest"));
        }
        let mut head = Position(0);
        for nth in 0..walk.segments().len() {
            head = self.segment(&walk, nth, count)?;
        }
        if (walk.segments()[0].0, head.0) != (manifest.first, manifest.head) {
            return Err(damaged("its positions are not those of the manifest"));
        }
        let mut newest = None;
        for position in manifest.files.iter().filter_map(|file| snapshot::parse_file_name(&file.name)) {
            self.snapshot(position, count)?;
            newest = newest.max(Some(position));
        }
        if newest.is_some_and(|newest| newest > head) || !reaches(walk.segments()[0], newest) {
            return Err(damaged("its snapshots do not fit its segments"));
        }
        self.target.sync_directory().map_err(failed("sync", self.path))
    }

    /// Copies a segment under its new identity; returns its last position.
    fn segment(&self, walk: &Walk<'_>, nth: usize, count: &mut dyn FnMut(usize)) -> Result<Position, BackupError> {
        let name = segment_file_name(walk.segments()[nth]);
        let path = self.path.join(&name);
        let file = self.target.create(&name, 0).map_err(failed("make", &path))?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        let mut offset = 0;
        let mut flush = |buffer: &mut Vec<u8>| {
            file.write_at(&[buffer], offset).map_err(failed("write", &path))?;
            offset += buffer.len() as u64;
            buffer.clear();
            Ok::<_, BackupError>(())
        };
        let extent = walk.copy(nth, Some(self.identity), &mut |piece| {
            buffer.extend_from_slice(piece);
            count(piece.len());
            if buffer.len() >= BUFFER_BYTES { flush(&mut buffer) } else { Ok(()) }
        })?;
        flush(&mut buffer)?;
        file.sync_data().map_err(failed("sync", &path))?;
        Ok(extent.last)
    }

    fn snapshot(&self, position: Position, count: &mut dyn FnMut(usize)) -> Result<(), BackupError> {
        let (meta, state) = snapshot::read_whole(self.source, position)?;
        let meta = Meta { incarnation: self.identity.incarnation, ..meta };
        let path = self.path.join(snapshot::file_name(position));
        let mut pause = |bytes| {
            count(bytes);
            Ok(())
        };
        snapshot::write(self.target, &meta, &state, &mut pause).map_err(failed("write", &path))
    }
}
