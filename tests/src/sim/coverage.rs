//! What happened in runs, counted, so that a test can ask whether what the oracle judges does happen.

macro_rules! coverage {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What happened in runs that did not fail.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Coverage {
            /// What one run did, step by step, as a number: the same seed has the same one. Of several runs, all of theirs.
            pub trace: u64,
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl Coverage {
            /// Adds what another run covered.
            pub fn add(&mut self, other: &Self) {
                // In whichever order they end.
                self.trace = self.trace.wrapping_add(other.trace);
                $(self.$name += other.$name;)*
            }

            /// The counts with their names.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

coverage! {
    /// Runs.
    runs,
    /// Positions committed.
    committed,
    /// Sessions opened.
    sessions,
    /// Frames offered as they were committed.
    delivered_live,
    /// Frames offered from the journal.
    delivered_catching_up,
    /// Rounds cut into chunks.
    rounds_cut,
    /// Times a session fell behind.
    fell_behind,
    /// Times an edge fell off the ring.
    fell_off_ring,
    /// Reads of bodies that had left the ring.
    reads,
    /// Read updates let go.
    receipts_let_go,
    /// Sessions that another one of their device took over.
    fenced,
    /// Sessions whose device or producer was given up.
    retired,
    /// Sessions closed for what they sent, or did not.
    misbehaved,
    /// Settled publishes sent once more, some with other content.
    repeated,
    /// DINGs sent once more under their key.
    dings_repeated,
    /// Calls that the gateway saw.
    calls,
    /// Processes that died while they served.
    deaths,
    /// Of these, in a call to the disk.
    deaths_at_disk,
    /// Processes that died while they started.
    deaths_starting,
    /// Starts that came to serve.
    starts,
    /// Of these, from a snapshot.
    from_snapshot,
    /// Batches in doubt that a start found.
    doubts_kept,
    /// Those that were gone.
    doubts_gone,
    /// Torn tails that were cut off.
    tails_cut,
    /// Failures of the disk.
    failures,
    /// Of these, in a commit: the sequencer stopped.
    commits_failed,
    /// Times that the disk filled up.
    filled_up,
    /// Rounds of the sequencer that began on the reserve.
    rounds_on_reserve,
    /// Rounds that began on the last of it.
    rounds_on_last,
    /// Confirmations that were committed on the last of it.
    confirmed_on_last,
    /// Publishes that were refused for want of room.
    publishes_without_room,
    /// Requests likewise.
    requests_without_room,
    /// Sessions likewise.
    sessions_without_room,
    /// Processes that ended when the reserve was used up.
    ended_full,
    /// Starts that failed on a full disk.
    starts_full,
    /// Snapshots taken.
    snapshots,
    /// Segments that retention removed.
    segments_removed,
    /// Spare segments prepared.
    spares,
    /// Bits flipped in a copy of the directory.
    flips,
    /// Of these, the copy was not opened, and the place was named.
    flips_refused,
    /// Of these, the last batch was taken for a torn tail, and reported as cut.
    flips_cut,
    /// Of these, nothing but a snapshot was damaged, and set aside.
    flips_in_snapshot,
    /// Of these, what was damaged was refused when it was read.
    flips_unread,
    /// Of these, the index was built of what can be read.
    flips_gone_around,
}
