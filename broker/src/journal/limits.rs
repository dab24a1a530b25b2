//! Every bound of the journal, each with its derivation.

use super::format::{BATCH_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// A draft takes no further input once it has this many bytes: 256 KiB. Large enough that the commit's `fdatasync` is
/// shared by a thousand messages, small enough that a slice queued on a vanished phone pins little.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// The most that the records of one input may add to a draft: 1 MiB. The largest is a DING: 10,000 recipients of
/// 8 bytes, a payload of 64 KiB and its private part, with room for names.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;

/// The largest batch that is written or believed when read: a draft one byte short of closed, plus one largest input.
pub const BATCH_BYTES_HARD_MAX: usize = BATCH_BYTES_MAX + INPUT_BYTES_MAX;

/// A segment's size unless configured: 64 MiB, some 50 times the largest batch, so that little is left unused at its
/// end, and one file's worth of retention is small beside a disk. A batch that fits no empty segment gets a larger one.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// The segment that a start makes if there is no spare: 4 MiB, which takes some milliseconds. The first spare is ready by the
/// time it is full.
pub(crate) const START_BYTES: u64 = 4 * 1024 * 1024;

/// The reserve: 16 MiB, on which the journal lives when its disk is full. 160,000 confirmations or receipts, or a dozen of the
/// largest batches; beside it there is what is left of the last segment. Small, because every start may have to make it.
pub const RESERVE_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// Free room below which nothing is taken that makes the journal grow, unless configured: 256 MiB. The index and the keeper
/// work with it on the same disk: a flush of a million messages and a snapshot of a million users take some hundred megabytes.
pub const FREE_BYTES_MIN_DEFAULT: u64 = 256 * 1024 * 1024;

/// The smallest segment that is accepted: its header and one smallest batch. Useful in tests only.
pub const SEGMENT_BYTES_MIN: u64 = (SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES + 16) as u64;

/// A segment's index has one entry for every this many bytes of file at most: 64 KiB, thus 1,024 entries (16 KiB of
/// memory) for a default segment, and at most this much to walk from an entry to a batch.
pub const INDEX_STRIDE_BYTES: u64 = 64 * 1024;

/// How much a scan of a whole segment reads at once: 2 MiB, more than the largest batch.
pub(crate) const SCAN_BYTES: usize = 2 * 1024 * 1024;

/// How much a read of single records reads at once: 16 KiB. It costs about as much as reading 200 bytes, and the next
/// batches or frames are often in it.
pub(crate) const READ_BYTES: usize = 16 * 1024;

/// Runs of positions that a reading around damage goes on without: 1,024. Whoever has more has lost a disk, not a page; and what was lost is
/// kept and asked about, 16 KiB for so many.
pub const LOST_RUNS_MAX: usize = 1024;

/// Threads of a reader pool unless configured: two, so that one slow read does not stop every catching-up session.
pub const READER_THREADS_DEFAULT: usize = 2;

/// Requests waiting in a reader pool unless configured: 1,024. A full queue hands the request back; an edge keeps one
/// outstanding request a session and asks again later.
pub const READER_QUEUE_DEFAULT: usize = 1024;

const _: () = assert!(SCAN_BYTES > BATCH_BYTES_HARD_MAX, "a scan's window holds any batch");
const _: () =
    assert!(RESERVE_BYTES_DEFAULT / 2 > 2 * BATCH_BYTES_HARD_MAX as u64, "half of the reserve takes any batch");
const _: () = assert!(BATCH_BYTES_HARD_MAX < u32::MAX as usize, "lengths inside a batch are u32");
