//! What an edge counts, for the operator and for tests.

/// Counters of an edge, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames offered to sessions as they were committed.
    pub delivered_live: u64,
    /// Frames offered to sessions that caught up.
    pub delivered_catching_up: u64,
    /// Rounds that were cut into chunks.
    pub rounds_cut: u64,
    /// Times a live session turned to catching up.
    pub fell_behind: u64,
    /// Times the edge fell off the ring.
    pub fell_off_ring: u64,
    /// Reads of bodies that had left the ring.
    pub reads: u64,
    /// Messages left out because their bytes are damaged, each time.
    pub unreadable: u64,
    /// Questions to the index that had to wait for a disk.
    pub lookups_on_disk: u64,
    /// Read updates that are told later, because a session did not read, or because too many conversations had some.
    pub receipts_let_go: u64,
    /// Connections closed for what they sent.
    pub closed_for_cause: u64,
    /// Signals sent to sessions.
    pub signals_sent: u64,
    /// Signals let go of: no right to them, too many, or no room.
    pub signals_let_go: u64,
    /// Connections closed because too much was pinned by what they did not acknowledge.
    pub closed_as_slow: u64,
}
