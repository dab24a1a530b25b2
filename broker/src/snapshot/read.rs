//! Reading a snapshot back: every byte is checked.

use std::io;

use carillon_core::Shard;
use carillon_protocol::ids::{Incarnation, Position, ShardId};

use super::format::{HEADER_BYTES, Header, HeaderError};
use super::{Meta, SnapshotError, file_name};
use crate::journal::{Storage, StorageFile};

/// Reads the snapshot at a position; hands every checked chunk of its state to `chunk`, in order.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(storage: &dyn Storage, position: Position, mut chunk: impl FnMut(&[u8])) -> Result<Meta, SnapshotError> {
    let name = file_name(position);
    let failed = |source| SnapshotError::Io { name: name.clone(), source };
    let damaged = |offset: u64, what| SnapshotError::Damaged { name: name.clone(), offset, what };
    let file = storage.open(&name).map_err(failed)?;
    let length = file.length().map_err(failed)?;
    let header = header(&*file, length, &name)?;
    let too_long = || damaged(40, "its length contradicts its header");
    let head_bytes = header.head_bytes().ok_or_else(too_long)?;
    if header.state_bytes.checked_add(head_bytes as u64) != Some(length) {
        return Err(too_long());
    }
    let mut head = vec![0; head_bytes];
    file.read_at(&mut head, 0).map_err(failed)?;
    header.check(&head).map_err(|_| damaged(12, "the header's checksum does not match"))?;
    if header.meta.position != position {
        return Err(SnapshotError::Foreign { name, found: header.meta });
    }
    let mut offset = head_bytes as u64;
    let mut bytes = Vec::new();
    for crc in head[HEADER_BYTES..].chunks_exact(4) {
        let left = length - offset;
        bytes.resize(usize::try_from(left).unwrap_or(usize::MAX).min(header.chunk_bytes as usize), 0);
        file.read_at(&mut bytes, offset).map_err(failed)?;
        if crc32c::crc32c(&bytes).to_le_bytes() != *crc {
            return Err(damaged(offset, "a chunk's checksum does not match"));
        }
        chunk(&bytes);
        offset += bytes.len() as u64;
    }
    Ok(header.meta)
}

fn header(file: &dyn StorageFile, length: u64, name: &str) -> Result<Header, SnapshotError> {
    let name = || name.to_owned();
    let damaged = |what| SnapshotError::Damaged { name: name(), offset: 0, what };
    if length < HEADER_BYTES as u64 {
        return Err(damaged("it ends too early"));
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_at(&mut bytes, 0).map_err(|source: io::Error| SnapshotError::Io { name: name(), source })?;
    Header::decode(&bytes).map_err(|error| match error {
        HeaderError::Version(version) => SnapshotError::Version { name: name(), version },
        HeaderError::Magic => damaged("it does not begin with the magic number"),
        HeaderError::Lengths => damaged("its lengths contradict each other"),
        HeaderError::Checksum => damaged("the header's checksum does not match"),
    })
}

/// Reads the snapshot at a position into memory.
///
/// # Errors
/// [`SnapshotError`].
pub fn read_whole(storage: &dyn Storage, position: Position) -> Result<(Meta, Vec<u8>), SnapshotError> {
    let mut state = Vec::new();
    let meta = read(storage, position, |chunk| state.extend_from_slice(chunk))?;
    Ok((meta, state))
}

/// Builds the shard from the snapshot at a position, which must be of this shard and history.
///
/// # Errors
/// [`SnapshotError`].
pub fn load(
    storage: &dyn Storage,
    shard: ShardId,
    incarnation: Incarnation,
    position: Position,
) -> Result<(Meta, Shard), SnapshotError> {
    let (meta, state) = read_whole(storage, position)?;
    let built = build((shard, incarnation), &meta, &state)?;
    Ok((meta, built))
}

/// Builds the shard from a snapshot's state, which must be of this shard and history.
///
/// # Errors
/// [`SnapshotError`].
pub fn build((shard, incarnation): (ShardId, Incarnation), meta: &Meta, state: &[u8]) -> Result<Shard, SnapshotError> {
    let name = file_name(meta.position);
    if (meta.shard, meta.incarnation) != (shard, incarnation) {
        return Err(SnapshotError::Foreign { name, found: *meta });
    }
    let built =
        Shard::decode_state(shard, state).map_err(|source| SnapshotError::State { name: name.clone(), source })?;
    if built.head() != meta.position {
        return Err(SnapshotError::Damaged { name, offset: 24, what: "the state is of another position" });
    }
    Ok(built)
}
