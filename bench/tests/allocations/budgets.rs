//! The budgets. A number is raised with its reason in the same commit, or not at all.

/// How often an operation may ask the allocator.
pub(super) struct Budget {
    /// As a failure calls it.
    pub(super) operation: &'static str,
    /// So many are counted.
    pub(super) operations: u64,
    /// Allocations and reallocations in all of them together.
    pub(super) allocations: u64,
    /// What they are.
    pub(super) why: &'static str,
}

pub(super) const FRAME_ENCODE: Budget = Budget {
    operation: "encode a Publish and a Deliver into a buffer with room",
    operations: 1_000,
    allocations: 0,
    why: "the bytes go straight into the buffer",
};

pub(super) const FRAME_DECODE: Budget = Budget {
    operation: "decode a Publish and a Deliver that were received",
    operations: 1_000,
    allocations: 0,
    why: "the payload is a slice of what was received",
};

pub(super) const FRAMES_CUT: Budget = Budget {
    operation: "cut a chunk of 64 KiB into its frames and decode them",
    operations: 100,
    allocations: 0,
    why: "frames are slices of the chunk",
};

pub(super) const SHARD_PUBLISH: Budget = Budget {
    operation: "the shard handles a publish",
    operations: 1_000,
    allocations: 0,
    why: "the record takes the payload over, and what is kept of producers has its size",
};

pub(super) const SHARD_MARK: Budget = Budget {
    operation: "the shard handles a read mark",
    operations: 1_000,
    allocations: 0,
    why: "a watermark moves where it is",
};

pub(super) const SHARD_DING_CREATE: Budget = Budget {
    operation: "the shard makes a DING to one recipient, whose first step begins",
    operations: 1_000,
    allocations: 11_494,
    why: "its plan, its recipients (asked for, known, kept), its frame (three as it grows), three places in lists of the open ones, the \
          signals with their recipients; trees that grow a node now and then",
};

pub(super) const SHARD_DING_CONFIRM: Budget = Budget {
    operation: "the shard handles a DING's confirmation",
    operations: 1_000,
    allocations: 4_166,
    why: "the update to its sender's devices (two as it grows), what remains of it and the list of the user's; a node of a tree now and \
          then",
};

pub(super) const SHARD_TICK: Budget = Budget {
    operation: "the shard begins the step of a DING that is due",
    operations: 1_000,
    allocations: 1_166,
    why: "the signal's recipients; a node of the timers' tree now and then",
};

pub(super) const JOURNAL_COMMIT_ONE: Budget = Budget {
    operation: "the journal commits a batch of one record",
    operations: 100,
    allocations: 800,
    why: "the draft's table, private parts (two) and frames (three), which begin empty because slices pin them, and two to seal it; \
          writing it takes none",
};

pub(super) const JOURNAL_COMMIT_HUNDRED: Budget = Budget {
    operation: "the journal commits a batch of 100 records",
    operations: 100,
    allocations: 2_800,
    why: "as with one record, and each of the three buffers doubles until it holds a hundred",
};

pub(super) const INDEX_APPEND: Budget = Budget {
    operation: "the index takes in a message of one of 1,000 conversations",
    operations: 100_000,
    allocations: 5_000,
    why: "the block of a conversation's newest messages grows: five times on its way to a hundred of them",
};

pub(super) const EDGE_PUBLISH: Budget = Budget {
    operation: "a message goes from its publisher's stream to 500 sessions, through edge and sequencer",
    operations: 1_000,
    allocations: 16_032,
    why: "a batch of one record (8), its signals, its place in the ring, the counts of what is pinned by the round and by the reply \
          (two each), and two of the memory that stands for a disk; that memory doubles now and then",
};

pub(super) const EDGE_DELIVERY: Budget = Budget {
    operation: "a message goes to one session more than to 500",
    operations: 1_000,
    allocations: 0,
    why: "every session gets the same bytes, and nothing is kept for one",
};

pub(super) const TRANSPORT_WRITE: Budget = Budget {
    operation: "the transport takes a frame for a connection, 20 before any is acknowledged",
    operations: 400,
    allocations: 480,
    why: "what counts the frame out when QUIC lets go of it: QUIC does not tell since when a peer owes acknowledgements; \
          and quinn-proto's list of what is unacknowledged, which begins empty and grows four times on its way to 20",
};
