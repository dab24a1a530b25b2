//! A small disk that fills up beside the broker, and is emptied again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};
use rustix::io::Errno;

use crate::sim::rng::Rng;

/// A larger disk is somebody's who wants to use it meanwhile.
const DISK_BYTES_MAX: u64 = 2 * 1024 * MIB;

/// A smaller one has no room for what a directory takes: reserve, spare, snapshots, and the journal of its lives.
const FREE_BYTES_MIN: u64 = 128 * MIB;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The free room below which the broker refuses what grows.
pub const JOURNAL_FREE_BYTES_MIN: u64 = 8 * MIB;

/// The disk, and the file that fills it.
#[derive(Debug)]
pub struct Tide {
    root: PathBuf,
    filler: PathBuf,
}

fn free_bytes(disk: &StatVfs) -> u64 {
    disk.f_bavail.saturating_mul(disk.f_frsize)
}

impl Tide {
    /// A directory on a small disk that nobody else needs.
    ///
    /// # Errors
    /// It cannot be looked at, or is too large or too small.
    pub fn new(root: &Path) -> io::Result<Self> {
        let disk = statvfs(root)?;
        let (bytes, free) = (disk.f_blocks.saturating_mul(disk.f_frsize), free_bytes(&disk));
        if bytes > DISK_BYTES_MAX || free < FREE_BYTES_MIN {
            let text = format!(
                "{} lies on a disk of {} MiB of which {} are free: what is filled up must be of its own, {} MiB at most, with {} MiB free",
                root.display(),
                bytes / MIB,
                free / MIB,
                DISK_BYTES_MAX / MIB,
                FREE_BYTES_MIN / MIB,
            );
            return Err(io::Error::other(text));
        }
        Ok(Self { root: root.to_owned(), filler: root.join("filler") })
    }

    /// Where data directories are made.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes all but so many bytes, or nearly: others take and give back at the same time.
    ///
    /// # Errors
    /// The system's.
    pub fn rise(&self, leave: u64) -> io::Result<()> {
        let filler = File::options().create(true).append(true).open(&self.filler)?;
        let mut parts = 1;
        loop {
            let more = free_bytes(&statvfs(&self.root)?).saturating_sub(leave) / parts;
            if more < 4 * KIB {
                return Ok(());
            }
            match fallocate(&filler, FallocateFlags::empty(), filler.metadata()?.len(), more) {
                Ok(()) => {}
                // Somebody was faster, or the file system needs some of it itself.
                Err(Errno::NOSPC) => parts *= 2,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// The system's.
    pub fn fall(&self) -> io::Result<()> {
        match fs::remove_file(&self.filler) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What a rising tide leaves: nothing, too little for a segment, or less than the broker wants.
    pub(crate) fn draw(rng: &mut Rng) -> u64 {
        rng.pick(&[0, 0, 32 * KIB, MIB, JOURNAL_FREE_BYTES_MIN / 2])
    }
}

impl Drop for Tide {
    fn drop(&mut self) {
        // Whoever cannot remove it now finds it by its name.
        let _ = self.fall();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_others_may_need_is_not_filled() {
        let directory = tempfile::tempdir().unwrap();
        let disk = statvfs(directory.path()).unwrap();
        let is_small = disk.f_blocks * disk.f_frsize <= DISK_BYTES_MAX && free_bytes(&disk) >= FREE_BYTES_MIN;
        match Tide::new(directory.path()) {
            Ok(_) => assert!(is_small),
            Err(error) => assert!(!is_small && error.to_string().contains("must be of its own"), "{error}"),
        }
    }
}
