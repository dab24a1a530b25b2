//! The bytes of the headers on disk, and how each is believed.
//!
//! Owns the layouts and their checks; knows nothing of files. All integers are little-endian, all checksums CRC32C.
//!
//! # Segment header (64 bytes, in a page of 4,096 for itself, so that no later write touches it)
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `CARILLON` |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | shard |
//! | 12 | 4 | CRC32C of bytes 0..12 and 16..64 |
//! | 16 | 8 | incarnation |
//! | 24 | 8 | salt |
//! | 32 | 8 | epoch of the owner that created the segment |
//! | 40 | 8 | position of the first record |
//! | 48 | 16 | zero |
//!
//! # Batch
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `CBAT` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | zero |
//! | 8 | 4 | CRC32C of the header: bytes 0..8 and 12..64 |
//! | 12 | 4 | CRC32C of the rows and private parts |
//! | 16 | 4 | bytes of the whole batch |
//! | 20 | 4 | count of records, `n` ≥ 1 |
//! | 24 | 4 | bytes of all private parts, `p` |
//! | 28 | 4 | zero |
//! | 32 | 8 | position of the first record |
//! | 40 | 8 | epoch of the owner that wrote it |
//! | 48 | 8 | incarnation |
//! | 56 | 8 | salt |
//! | 64 | 12 n | rows, one a record: end of its private part, end of its frame, CRC32C of both (u32 each) |
//! | 64 + 12 n | p | private parts back to back |
//! | 64 + 12 n + p | rest | frames back to back |
//!
//! An end counts from the begin of its own section; a record's part begins where the previous record's ends. The
//! frames are covered by the rows' checksums alone, so that no byte of a frame is summed twice and one frame can be
//! verified without its neighbours.
//!
//! The magic, the version and the header's checksum keep their places in every version.
//!
//! # The salt
//!
//! Recovery looks for batches behind a damaged one. Whoever publishes chooses the bytes of payloads and knows the
//! incarnation from cursors, and could put what looks like a later batch into a payload. The salt is random, of
//! the journal, and never leaves it; so nothing that came from outside is taken for a batch.

use bytes::{BufMut, Bytes, BytesMut};
use carillon_protocol::ids::{Epoch, Incarnation, Position, ShardId};

use super::limits::BATCH_BYTES_HARD_MAX;

/// Bytes in front of a segment's first batch.
pub const SEGMENT_HEADER_BYTES: usize = 4096;
/// Bytes of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 64;
/// Bytes of a record's row in a batch's table.
pub const ROW_BYTES: usize = 12;

/// The first bytes of every batch.
pub const BATCH_MAGIC: [u8; 4] = *b"CBAT";
/// The first bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 8] = *b"CARILLON";
/// The version of both layouts that this code writes and reads.
pub const VERSION: u16 = 1;

/// Bytes of a segment header that mean something.
const SEGMENT_FIELDS_BYTES: usize = 64;

/// Which journal a batch belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The history, known outside.
    pub incarnation: Incarnation,
    /// The history's secret, which tells our batches from bytes that somebody published.
    pub salt: u64,
}

impl Identity {
    /// One that no journal has had.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        Ok(Self { incarnation: Incarnation(getrandom::u64()?), salt: getrandom::u64()? })
    }
}

/// Why bytes are not the batch, or the segment, that they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the layout needs.
    #[error("it ends too early")]
    Short,
    /// The bytes do not begin with the magic.
    #[error("it does not begin with the magic number")]
    Magic,
    /// The header does not match its checksum.
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    /// The header is intact and of a version that this program does not know. Nothing may be concluded from it.
    #[error("it is of version {0}, which this program does not know")]
    Version(u16),
    /// The header is intact and of another journal.
    #[error("it belongs to another journal, of incarnation {0}")]
    Foreign(Incarnation),
    /// The lengths contradict each other or exceed a limit.
    #[error("its lengths contradict each other")]
    Lengths,
    /// The rows and private parts do not match their checksum.
    #[error("the table's checksum does not match")]
    TableChecksum,
    /// A record does not match its checksum.
    #[error("the checksum of record {0} does not match")]
    RecordChecksum(Position),
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The checksum of a header whose own field is the four bytes at `at`.
fn header_crc(bytes: &[u8], at: usize) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..at]), &bytes[at + 4..])
}

/// The checksum in a record's row.
pub(crate) fn record_crc(private: &[u8], frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(private), frame)
}

/// What a segment's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) shard: ShardId,
    pub(crate) identity: Identity,
    pub(crate) epoch: Epoch,
    pub(crate) first: Position,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        bytes.put_slice(&SEGMENT_MAGIC);
        bytes.put_u16_le(VERSION);
        bytes.put_u16_le(self.shard.0);
        bytes.put_u32_le(0);
        bytes.put_u64_le(self.identity.incarnation.0);
        bytes.put_u64_le(self.identity.salt);
        bytes.put_u64_le(self.epoch.0);
        bytes.put_u64_le(self.first.0);
        bytes.put_bytes(0, 16);
        let crc = header_crc(&bytes, 12);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes = bytes.get(..SEGMENT_FIELDS_BYTES).ok_or(FormatError::Short)?;
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 12) != header_crc(bytes, 12) {
            return Err(FormatError::HeaderChecksum);
        }
        let version = u16_at(bytes, 8);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        Ok(Self {
            shard: ShardId(u16_at(bytes, 10)),
            identity: Identity { incarnation: Incarnation(u64_at(bytes, 16)), salt: u64_at(bytes, 24) },
            epoch: Epoch(u64_at(bytes, 32)),
            first: Position(u64_at(bytes, 40)),
        })
    }
}

/// What a batch's header says. Invariant: decoded or made by `Draft::seal`, so lengths fit each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) bytes: u32,
    pub(crate) count: u32,
    pub(crate) private_bytes: u32,
    pub(crate) table_crc: u32,
    pub(crate) first: Position,
    pub(crate) epoch: Epoch,
    pub(crate) identity: Identity,
}

impl BatchHeader {
    /// Position of the last record.
    pub(crate) fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.count) - 1)
    }

    /// Bytes of header, rows and private parts: where the frames begin.
    pub(crate) fn head_bytes(&self) -> usize {
        BATCH_HEADER_BYTES + ROW_BYTES * self.count as usize + self.private_bytes as usize
    }

    pub(crate) fn frames_bytes(&self) -> usize {
        self.bytes as usize - self.head_bytes()
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let begin = out.len();
        out.put_slice(&BATCH_MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(0);
        out.put_u32_le(self.table_crc);
        out.put_u32_le(self.bytes);
        out.put_u32_le(self.count);
        out.put_u32_le(self.private_bytes);
        out.put_u32_le(0);
        out.put_u64_le(self.first.0);
        out.put_u64_le(self.epoch.0);
        out.put_u64_le(self.identity.incarnation.0);
        out.put_u64_le(self.identity.salt);
        let crc = header_crc(&out[begin..begin + BATCH_HEADER_BYTES], 8);
        out[begin + 8..begin + 12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Believes a header of this journal. A header that is believed was written by us, whatever follows it.
    pub(crate) fn decode(bytes: &[u8], identity: &Identity) -> Result<Self, FormatError> {
        let bytes = bytes.get(..BATCH_HEADER_BYTES).ok_or(FormatError::Short)?;
        if bytes[..4] != BATCH_MAGIC {
            return Err(FormatError::Magic);
        }
        if u32_at(bytes, 8) != header_crc(bytes, 8) {
            return Err(FormatError::HeaderChecksum);
        }
        let found = Identity { incarnation: Incarnation(u64_at(bytes, 48)), salt: u64_at(bytes, 56) };
        if found != *identity {
            return Err(FormatError::Foreign(found.incarnation));
        }
        let version = u16_at(bytes, 4);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let header = Self {
            table_crc: u32_at(bytes, 12),
            bytes: u32_at(bytes, 16),
            count: u32_at(bytes, 20),
            private_bytes: u32_at(bytes, 24),
            first: Position(u64_at(bytes, 32)),
            epoch: Epoch(u64_at(bytes, 40)),
            identity: found,
        };
        let head_bytes =
            BATCH_HEADER_BYTES as u64 + ROW_BYTES as u64 * u64::from(header.count) + u64::from(header.private_bytes);
        let fits = head_bytes <= u64::from(header.bytes)
            && header.bytes as usize <= BATCH_BYTES_HARD_MAX
            && header.count > 0
            && header.first.0 > 0
            && header.first.0.checked_add(u64::from(header.count)).is_some();
        if fits { Ok(header) } else { Err(FormatError::Lengths) }
    }
}

/// A record's row in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Row {
    pub(crate) private_end: u32,
    pub(crate) frame_end: u32,
    pub(crate) crc: u32,
}

/// A batch without its frames. Invariant: the table's checksum matched, the ends do not decrease, and the last ones
/// are the lengths of their sections.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) header: BatchHeader,
    /// Header, rows and private parts.
    pub(crate) bytes: Bytes,
}

impl Head {
    /// Checks the table that follows `header` in `bytes`, which are exactly the batch up to its frames.
    pub(crate) fn decode(header: BatchHeader, bytes: Bytes) -> Result<Self, FormatError> {
        if bytes.len() != header.head_bytes() {
            return Err(FormatError::Short);
        }
        if crc32c::crc32c(&bytes[BATCH_HEADER_BYTES..]) != header.table_crc {
            return Err(FormatError::TableChecksum);
        }
        let head = Self { header, bytes };
        let mut before = Row { private_end: 0, frame_end: 0, crc: 0 };
        for index in 0..head.count() {
            let row = head.row(index);
            if row.private_end < before.private_end || row.frame_end < before.frame_end {
                return Err(FormatError::Lengths);
            }
            before = row;
        }
        let fits = before.private_end == header.private_bytes && before.frame_end as usize == header.frames_bytes();
        if fits { Ok(head) } else { Err(FormatError::Lengths) }
    }

    pub(crate) fn count(&self) -> usize {
        self.header.count as usize
    }

    fn row(&self, index: usize) -> Row {
        let at = BATCH_HEADER_BYTES + ROW_BYTES * index;
        Row {
            private_end: u32_at(&self.bytes, at),
            frame_end: u32_at(&self.bytes, at + 4),
            crc: u32_at(&self.bytes, at + 8),
        }
    }

    /// The index of a position's row, if the batch holds it.
    pub(crate) fn index(&self, position: Position) -> Option<usize> {
        let index = position.0.checked_sub(self.header.first.0)?;
        usize::try_from(index).ok().filter(|index| *index < self.count())
    }

    /// The position of a row.
    pub(crate) fn position(&self, index: usize) -> Position {
        Position(self.header.first.0 + index as u64)
    }

    /// The private part of a record.
    pub(crate) fn private(&self, index: usize) -> Bytes {
        let begin = if index == 0 { 0 } else { self.row(index - 1).private_end as usize };
        let end = self.row(index).private_end as usize;
        let section = BATCH_HEADER_BYTES + ROW_BYTES * self.count();
        self.bytes.slice(section + begin..section + end)
    }

    /// Where a record's frame lies, counted from the first frame.
    pub(crate) fn frame_range(&self, index: usize) -> core::ops::Range<usize> {
        let begin = if index == 0 { 0 } else { self.row(index - 1).frame_end as usize };
        begin..self.row(index).frame_end as usize
    }

    /// Checks a record's frame, and its private part again, against the row.
    pub(crate) fn check(&self, index: usize, frame: &[u8]) -> Result<(), FormatError> {
        if record_crc(&self.private(index), frame) == self.row(index).crc {
            Ok(())
        } else {
            Err(FormatError::RecordChecksum(self.position(index)))
        }
    }
}
