//! A snapshot's file: what is loaded has the right checksums, is of the shard, history and position that were asked for, and is
//! written to the same bytes; the file is as it was.
//!
//! Input: a file. Sealed, its header and table fit what follows them.

use carillon::journal::MemoryStorage;
use carillon::snapshot::format::{HEADER_BYTES, MAGIC, VERSION, head};
use carillon::snapshot::{Meta, file_name, load};
use carillon_core::Shard;
use carillon_protocol::ids::{Incarnation, Position, Timestamp};

use super::state::IN_MEMORY;
use crate::life::{Life, SHARD, state_of};
use crate::seal::{put, put_crc, u32_at, u64_at};
use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "snapshot",
    run,
    // The harness's own: the file twice on the simulated disk, its state, and what was written of it.
    budget: Budget { per_byte: IN_MEMORY.per_byte + 12, fixed_bytes: IN_MEMORY.fixed_bytes + 64 * 1024 },
    input_bytes_max: 16 * 1024,
    seeds,
    words: &[b"CARISNAP"],
    short_inputs: 60_000,
};

const INCARNATION: Incarnation = Incarnation(0x77);

/// Chunks of a sealed snapshot are no smaller, so that its table is no longer than its state.
const CHUNK_BYTES_MIN: u32 = 16;

fn run(input: &[u8]) {
    check(input);
    check(&sealed(input));
}

fn check(file: &[u8]) {
    let position = Position(file.get(24..32).map_or(1, |bytes| u64_at(bytes, 0)));
    let storage = MemoryStorage::new();
    let name = file_name(position);
    storage.put(&name, file.to_vec());
    let loaded = IN_MEMORY.spend("snapshot loading", file.len(), || load(&storage, SHARD, INCARNATION, position));
    assert_eq!(storage.contents(&name), file, "it is only read");
    let Ok((meta, shard)) = loaded else { return };
    assert_eq!((meta.shard, meta.incarnation, meta.position), (SHARD, INCARNATION, position));
    assert_eq!(shard.head(), position);
    check_sums(file);
    assert!(file.ends_with(&state_of(&shard)), "what was loaded is what was written");
}

/// Written from the byte table of a snapshot, with no code of its reader's.
fn check_sums(file: &[u8]) {
    let (state_bytes, chunk_bytes) = (u64_at(file, 40), u32_at(file, 48) as usize);
    let (head, state) = file.split_at(file.len() - usize::try_from(state_bytes).unwrap());
    let mut own = head.to_vec();
    put_crc(&mut own, 12, head.len());
    assert_eq!(own, head, "the header's checksum");
    assert_eq!(head.len(), HEADER_BYTES + 4 * state.len().div_ceil(chunk_bytes));
    for (chunk, crc) in state.chunks(chunk_bytes).zip(head[HEADER_BYTES..].chunks_exact(4)) {
        assert_eq!(crc32c::crc32c(chunk), u32_at(crc, 0), "a chunk's checksum");
    }
}

/// The state is what follows the table that the header announces, or the header.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut header = input.get(..HEADER_BYTES).map_or_else(|| vec![0; HEADER_BYTES], <[u8]>::to_vec);
    let announced = u64_at(&header, 40).div_ceil(u64::from(u32_at(&header, 48).max(1)));
    let table_bytes = usize::try_from(announced.saturating_mul(4)).unwrap_or(usize::MAX);
    let state = input.get(HEADER_BYTES.saturating_add(table_bytes)..).or(input.get(HEADER_BYTES..)).unwrap_or_default();
    let chunk_bytes = u32_at(&header, 48).clamp(CHUNK_BYTES_MIN, 1 << 26);
    put(&mut header, 0, &MAGIC);
    put(&mut header, 8, &VERSION.to_le_bytes());
    put(&mut header, 10, &SHARD.0.to_le_bytes());
    put(&mut header, 16, &INCARNATION.0.to_le_bytes());
    put(&mut header, 40, &(state.len() as u64).to_le_bytes());
    put(&mut header, 48, &chunk_bytes.to_le_bytes());
    for chunk in state.chunks(chunk_bytes as usize) {
        header.extend(crc32c::crc32c(chunk).to_le_bytes());
    }
    let end = header.len();
    put_crc(&mut header, 12, end);
    [&header, state].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let file = |shard: &Shard| {
        let meta = Meta { shard: SHARD, incarnation: INCARNATION, position: shard.head(), time: Timestamp(5) };
        let state = state_of(shard);
        [head(&meta, &state), state].concat()
    };
    let whole = file(&Life::whole().shard);
    let mut small_chunks = whole.clone();
    put(&mut small_chunks, 48, &64u32.to_le_bytes());
    put(&mut small_chunks, 40, &0u64.to_le_bytes());
    small_chunks.drain(HEADER_BYTES..HEADER_BYTES + 4);
    vec![whole, file(&Life::young().shard), sealed(&small_chunks)]
}
