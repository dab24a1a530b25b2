//! The bytes of a snapshot's header, and how it is believed. All integers are little-endian, all checksums CRC32C.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `CARISNAP` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | shard |
//! | 12 | 4 | CRC32C of bytes 0..12, 16..64 and the table |
//! | 16 | 8 | incarnation |
//! | 24 | 8 | position: the last record in the state |
//! | 32 | 8 | when it was taken, ms since the Unix epoch |
//! | 40 | 8 | bytes of the state, `n` |
//! | 48 | 4 | bytes of a chunk, `c`; the last chunk may be shorter |
//! | 52 | 12 | zero |
//! | 64 | 4 ⌈n / c⌉ | table: CRC32C of each chunk |
//! | 64 + 4 ⌈n / c⌉ | n | the state, as `carillon-core` encodes it |
//!
//! Nothing follows. The magic, the version and the header's checksum keep their places in every version.

use bytes::BufMut;
use carillon_protocol::ids::{Incarnation, Position, ShardId, Timestamp};

use super::Meta;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// The first bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"CARISNAP";
/// The version of the layout that this code writes and reads.
pub const VERSION: u16 = 1;
/// Bytes of a chunk: so much is read, and named as damaged, at once.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// A chunk of another writer may be so large.
const CHUNK_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// A header without its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) meta: Meta,
    pub(super) state_bytes: u64,
    pub(super) chunk_bytes: u32,
    crc: u32,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Magic,
    Version(u16),
    Lengths,
    Checksum,
}

impl Header {
    /// The chunks' count.
    pub(super) fn chunks(&self) -> u64 {
        self.state_bytes.div_ceil(u64::from(self.chunk_bytes))
    }

    /// Bytes of header and table: where the state begins. `None` where no file could be so long.
    pub(super) fn head_bytes(&self) -> Option<usize> {
        usize::try_from(self.chunks().checked_mul(4)?.checked_add(HEADER_BYTES as u64)?).ok()
    }

    /// Reads the fields. They are believed only after [`Header::check`]; until then the version alone may be trusted
    /// to decide that nothing else is known.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if u16_at(8) != VERSION {
            return Err(HeaderError::Version(u16_at(8)));
        }
        let meta = Meta {
            shard: ShardId(u16_at(10)),
            incarnation: Incarnation(u64_at(16)),
            position: Position(u64_at(24)),
            time: Timestamp(u64_at(32)),
        };
        let header = Self { meta, state_bytes: u64_at(40), chunk_bytes: u32_at(48), crc: u32_at(12) };
        if (1..=CHUNK_BYTES_MAX).contains(&header.chunk_bytes) { Ok(header) } else { Err(HeaderError::Lengths) }
    }

    /// Checks header and table, which are these bytes.
    pub(super) fn check(&self, head: &[u8]) -> Result<(), HeaderError> {
        if crc(head) == self.crc { Ok(()) } else { Err(HeaderError::Checksum) }
    }
}

fn crc(head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &head[16..])
}

/// Header and table of a snapshot of this state.
pub fn head(meta: &Meta, state: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEADER_BYTES + state.len().div_ceil(CHUNK_BYTES) * 4);
    head.put_slice(&MAGIC);
    head.put_u16_le(VERSION);
    head.put_u16_le(meta.shard.0);
    head.put_u32_le(0);
    head.put_u64_le(meta.incarnation.0);
    head.put_u64_le(meta.position.0);
    head.put_u64_le(meta.time.0);
    head.put_u64_le(state.len() as u64);
    head.put_u32_le(u32::try_from(CHUNK_BYTES).expect("a chunk is small"));
    head.put_bytes(0, 12);
    for chunk in state.chunks(CHUNK_BYTES) {
        head.put_u32_le(crc32c::crc32c(chunk));
    }
    let crc = crc(&head);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head
}
