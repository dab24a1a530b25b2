//! Writing a snapshot: durable before it has its name.

use std::io;

use super::format;
use super::{Meta, TEMPORARY_SUFFIX, file_name};
use crate::journal::Storage;

/// Bytes written, and made durable, at once: so that the sequencer's `fdatasync`, which shares the disk, never waits for a
/// whole snapshot to be flushed.
pub const WRITE_BYTES: usize = 4 * 1024 * 1024;

/// Writes the snapshot of this state and makes it durable. `pause` is called between pieces with their bytes: it may sleep
/// to bound the rate, or break off with an error.
///
/// # Errors
/// The system's, or what `pause` says. There is no snapshot then, and what was written of it is removed as far as that can be: on a
/// full disk it would take the room that is missing.
pub fn write(
    storage: &dyn Storage,
    meta: &Meta,
    state: &[u8],
    pause: &mut dyn FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = format!("{:020}{TEMPORARY_SUFFIX}", meta.position.0);
    write_under(&temporary, storage, meta, state, pause).inspect_err(|_| {
        storage.remove(&temporary).ok();
    })
}

fn write_under(
    temporary: &str,
    storage: &dyn Storage,
    meta: &Meta,
    state: &[u8],
    pause: &mut dyn FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    let head = format::head(meta, state);
    let file = storage.create(temporary, 0)?;
    file.write_at(&[&head], 0)?;
    let mut offset = head.len() as u64;
    for piece in state.chunks(WRITE_BYTES) {
        file.write_at(&[piece], offset)?;
        file.sync_data()?;
        offset += piece.len() as u64;
        pause(piece.len())?;
    }
    file.sync_data()?;
    storage.rename(temporary, &file_name(meta.position))?;
    storage.sync_directory()
}
