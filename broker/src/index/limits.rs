//! The limits of the index, each with where it comes from.

/// Bytes that the index may hold in memory unless configured: 256 MiB. About 40 million recent messages of a busy shard at
/// 6 bytes each, so that whoever was away for some hours is answered without a disk.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// The least that is accepted: 1 MiB. With less, every few thousand messages would be a flush.
pub const MEMORY_BYTES_MIN: u64 = 1024 * 1024;

/// The part of the memory that is always left for messages, an eighth, however much the conversations themselves take:
/// 40 bytes each, which no setting can lower.
pub(super) const MESSAGES_SHARE: usize = 8;

/// A flush begins when this many messages are in memory alone, a million: so many has a start to read again from the journal
/// after a crash, which takes a second or two.
pub(super) const UNFLUSHED_MAX: u64 = 1_000_000;

/// A flush begins after this many seconds with something to write. It writes each conversation once, so a rarer flush writes
/// less.
pub(super) const FLUSH_EVERY_S: u64 = 30;

/// What a mark takes in memory, 64 bytes: 40 for key and value, in nodes of a tree that are two thirds full.
pub(super) const MARK_BYTES: usize = 64;

/// Marks that the writer looks at in one go to remove what retention took, 65,536: some 50 ms of its thread each half minute,
/// so that a hundred million marks are gone through in half a day.
pub(super) const MARKS_SWEPT_A_STEP: usize = 65_536;

/// Blocks that are copied while a chunk's lock is held, 256: some 180 KB and a tenth of a millisecond, which the sequencer
/// may have to wait.
pub(super) const BLOCKS_A_HOLD: usize = 256;

/// Directories that were set aside and are kept for whoever wants to know why; older ones are deleted.
pub(super) const DOUBTFUL_KEPT: usize = 2;

/// How many messages back a mark looks for the authors to tell: a mark over more tells the newest ones.
pub const AUTHORS_WALK_MAX: usize = 1_024;
