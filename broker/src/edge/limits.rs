//! What bounds an edge and its sessions, and what happens at each bound.
//!
//! The constants are what runs. Those that decide where work is cut stand in [`Limits`] too, so that a simulation can
//! make them so small that every cut happens.

use carillon_core::limits::{CONVERSATIONS_A_USER_MAX, NAMED_STINTS_MAX};
use carillon_core::moved::MovedUpdate;
use carillon_protocol::limits::{FRAME_BYTES_MAX, HISTORY_BYTES_MAX, REQUESTS_PENDING_MAX};

use crate::sequencer::ring::RING_BYTES_MAX;

/// Publishes of one session that wait for their reply. At the bound its publish stream is not read on; QUIC slows the
/// sender. A quarter of a producer's window.
pub const PUBLISHES_IN_FLIGHT_MAX: usize = 256;

/// Bytes of those publishes. At the bound its publish stream is not read on; one frame may exceed it.
pub const PUBLISH_BYTES_IN_FLIGHT_MAX: usize = 1024 * 1024;

/// Requests and publishes of one edge that wait for their reply: the room of its reply queue. At the bound no session's
/// stream is read on until replies have come.
pub const REPLIES_RESERVED_MAX: usize = 16_384;

/// Reads of bodies under way for one edge, at most one a session. At the bound a session that catches up waits its turn.
pub const READS_IN_FLIGHT_MAX: usize = 256;

/// Signals that a session may send in a tick; those above are let go of. Who writes says so every few seconds.
pub const SIGNALS_A_TICK_MAX: u32 = 10;

/// Sessions of a conversation on one edge up to which its signals are told; in larger ones they are let go of: nobody looks
/// at who of a thousand is writing.
pub const SIGNAL_AUDIENCE_MAX: usize = 1_000;

/// Signals that an edge sends in a tick, at 7 µs each a seventh of its time; those above are let go of.
pub const SIGNALS_OUT_A_TICK_MAX: u32 = 20_000;

/// Signals on their way from one edge to another; those above are let go of.
pub const SIGNALS_QUEUED_MAX: usize = 1_024;

/// Sessions to be ended on their way to an edge; above it the request is refused as `BUSY`.
pub const KICKS_QUEUED_MAX: usize = 256;

/// Bytes kept of what a client says it is; the rest is cut off.
pub const CLIENT_BYTES_KEPT: usize = 256;

/// Capacity of an edge's reply queue: every reply and every read that is reserved.
pub const REPLY_QUEUE_MAX: usize = REPLIES_RESERVED_MAX + READS_IN_FLIGHT_MAX;

/// News of fenced sessions on their way to an edge.
pub const FENCES_QUEUED_MAX: usize = 1_024;

/// Bytes of replies that a session has not read; above it the session's requests are not read on. The replies already
/// asked for come on top: [`REQUESTS_PENDING_MAX`] pages, or [`PUBLISHES_IN_FLIGHT_MAX`] short ones.
pub const REPLY_BYTES_PAUSE: usize = 64 * 1024;

/// Bytes that wait on the urgent lane of a session, beside what QUIC holds and what its attach brought (which shares the
/// bytes of the shard's open DINGs, 1,000 a user at most). Above it the session is closed as slow: it gets what is unconfirmed
/// when it comes back.
pub const URGENT_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;

/// Read marks of one edge that are with the sequencer, or answered and not taken; the others wait. Sixteen turns' worth of answers.
pub const MARKS_UNDER_WAY_MAX: usize = 2_048;

/// Read marks that are answered in one turn, and sessions that are told of their own; the others in later ones. At some 20 µs
/// each 2.5 ms, in which nobody's DING waits for it: as long as a poll of the endpoint takes in packets.
pub const MARKS_A_TURN: usize = 128;

/// Read updates that wait behind a cut frame or a full stream, and those of one answer of the shard to what has moved. Above it the
/// session is told no more, which is counted, and once it has read these the shard is asked what has moved since.
pub const RECEIPTS_WAITING_MAX: usize = 256;

/// Sessions for which the shard is asked in one interval of counts what has moved: 5,000 a second, so that those of an edge of 50,000
/// have it within ten seconds of a restart. The others in later ones, in turn.
pub const RECEIPTS_ASKED_AN_INTERVAL_MAX: usize = 1_024;

/// Answers to what has moved that are owed to one edge: room of its reply queue that requests do not have. Above it sessions wait.
pub const RECEIPTS_UNDER_WAY_MAX: usize = 1_024;

/// Messages of which one page of what has moved asks how many have read: 1 ms of the sequencer, and those of the conversation that
/// exceeds it. The page ends there.
pub const COUNTS_A_PAGE_MAX: usize = 1_024;

/// Members up to which every read mark is told to the authors at once, with the reader's name; in larger conversations authors
/// are told how many have read, and ask who.
pub const RECEIPTS_LIVE_MEMBERS_MAX: u32 = 200;

/// The most that an operator may set it to: what a conversation keeps in order, so that who comes back is told by name of what moved.
/// A mark is written to each of the authors' sessions, and looks for them among the messages that it passed.
pub const RECEIPTS_LIVE_MEMBERS_HIGH: u32 = 1_000;

const _: () = assert!(RECEIPTS_LIVE_MEMBERS_HIGH as u64 <= NAMED_STINTS_MAX);

/// How often authors are told how many have read, and an edge asks for it: a number that changes five times a second is live to
/// the eye.
pub const COUNTS_EVERY_MS: u64 = 200;

/// Conversations whose authors are to be told: 80 bytes each, 0.3 MB an edge. Above it a mark in a further one is
/// counted, and the sessions of its members are told otherwise what has moved, each in its turn.
pub const COUNTS_DUE_MAX: usize = 4_096;

/// Conversations that are looked at in an interval; the rest stays due.
pub const COUNTS_LOOKED_AT_MAX: usize = 256;

/// Messages that an edge asks about in an interval, and those of the conversation that exceeds it; the rest stays due. At 1 µs each
/// 4 ms of the sequencer's 200.
pub const COUNTS_AN_INTERVAL_MAX: usize = 4_096;

/// The newest messages of what has moved whose authors are looked at: all of 200 µs a conversation. Who wrote before them asks.
pub const COUNTS_WALK_MAX: u64 = 256;

/// Users here who are asked about because they may have written what is not in memory, 4 bytes each; they count as messages do. Of
/// more, each session is told from before the mark on what has moved, in its turn.
pub const COUNTS_USERS_MAX: usize = 4_096;

/// Messages of one author that one update tells of, the newest.
pub const COUNTS_A_FRAME_MAX: usize = 32;

/// An update that waits for its session: header, body, and 16 bytes a message.
const COUNTS_FRAME_BYTES_MAX: usize = 36 + 16 * COUNTS_A_FRAME_MAX;

/// DINGs that have moved and whose senders are not told yet: 100 bytes each. At the bound they are told at once.
pub const DINGS_DUE_MAX: usize = 4_096;

/// Receipts of DINGs that wait for a full queue: 16 bytes each, and 64 KiB in one record. At the bound the edge reads no control stream
/// on before they are handed on: one let go of could make an expired DING say that nobody had been reached.
pub const DINGS_RECEIVED_MAX: usize = 4_096;

/// Bytes read from one stream in one go, before others get their turn. The rest is read in the next turn.
pub const READ_BYTES_A_TURN: usize = 256 * 1024;

/// Largest chunk taken from a stream at once.
pub const READ_CHUNK_BYTES: usize = 64 * 1024;

/// Batches of the ring processed in one turn.
pub const BATCHES_A_TURN: usize = 32;

/// A round to more sessions than this is cut into chunks, between which the rest of the edge gets its turn: about 3 ms at
/// 6 µs a session.
pub const ROUND_CHUNK_SESSIONS: usize = 512;

/// Sessions of a long round whose packets are built together: with a connection of 6.3 KB and as much behind its pointers, 400 KB, which
/// are still in a second-level cache of 1 MiB when the packets are built. Other numbers were not compared.
pub const PACK_SESSIONS: usize = 32;

/// So many sessions ahead of the one that is written to the memory of a connection is asked for. Other numbers were not compared.
pub const EXPECTED_AHEAD: usize = 2;

/// How many times its own size a slice of a batch may keep alive.
pub const PINNED_FACTOR_MAX: usize = 8;

/// Bytes of buffers that slices in the queues of one edge's connections keep alive until their peers acknowledge them. Above
/// it the sessions with the oldest unacknowledged data are closed as `SLOW`. Healthy sessions pin no more than the ring's
/// 64 MiB, for a round trip; the rest lets 1,792 sessions catch up at once with a full window of 256 KiB each.
pub const PINNED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The least that an operator may set it to: what the ring holds, which healthy sessions pin for a round trip and which is in
/// memory anyway.
pub const PINNED_BYTES_MIN: usize = RING_BYTES_MAX;

/// Sessions that owe less than this are closed for what is pinned only when nobody is left who owes more: a sixteenth of a
/// full window, so that of all that the bound can be exceeded by, few sessions free most.
pub const OWES_BYTES_MUCH: u64 = 16 * 1024;

/// A session that owes acknowledgements for less than this is not closed for what is pinned: what went out within the last
/// second is in flight, to the healthy as well.
pub const OWES_MS_MIN: u64 = 1_000;

/// Rounds that are cut and not finished. At the bound the edge reads no further batch before one is done.
pub const ROUNDS_UNFINISHED_MAX: usize = 64;

/// Sessions that get a slice of catch-up in one turn.
pub const SLICES_A_TURN: usize = 64;

/// Bytes of one slice of catch-up; one larger frame goes alone.
pub const SLICE_BYTES_MAX: usize = 16 * 1024;

/// Positions planned ahead by a session that catches up.
pub const PLAN_POSITIONS_MAX: usize = 256;

/// Positions planned ahead for a user of thousands of conversations: four for each of them, so that the plan's looking at each
/// costs little a message. 320 KB.
pub const PLAN_POSITIONS_WIDE_MAX: usize = 4 * CONVERSATIONS_A_USER_MAX;

/// Messages of one read of a page that goes backward: it is cut at its old end, so it is read in runs, from the newest.
pub const HISTORY_RUN_MESSAGES: usize = 8;

/// Frames that name what does not come, 40 bytes each: one a stint that lost something, for a user of as many conversations as
/// may be, present and past.
const NOTICE_BYTES_MAX: usize = 40 * 2 * CONVERSATIONS_A_USER_MAX;

/// Replies, fences and reads taken in one turn.
pub const REPLIES_A_TURN: usize = 4_096;

/// Sizes of bounded catch-ups that one page of a read status is looked up for: a tenant's clients want the same, or a few.
pub const NEWEST_A_PAGE_MAX: usize = 64;

/// Cursors in one record.
pub const CURSORS_A_RECORD_MAX: usize = 1_000;

/// How often cursors are handed on, tokens and hellos looked at.
pub const TICK_MS: u64 = 1_000;

/// Refreshes of a token that a session may ask for in a tick: a signature costs some 50 µs to check. Above it: `BUSY`.
pub const REFRESHES_A_TICK_MAX: u32 = 16;

/// From connection to `Hello`.
pub const HELLO_TIMEOUT_MS: u64 = 10_000;

/// A live session to which nothing was addressed for this many positions is told how far the journal is, once a tick.
pub const PROGRESS_POSITIONS: u64 = 10_000;

/// Sessions that are told so in one turn, at 10 µs each: less than a millisecond, in which nobody's DING waits for it.
pub const PROGRESS_A_TURN: usize = 64;

/// Sessions that are told so in a tick; the others in later ones, in turn. With the acknowledgements of those told, at 20 µs
/// each, that is 4 % of an edge's time, however fast the journal grows; 50,000 sessions have their turn within 25 s.
pub const PROGRESS_A_TICK_MAX: usize = 2_000;

/// What one session can make its edge hold, beside what the transport's windows let QUIC hold (receive 256 KiB, datagrams
/// 32 KiB, send 256 + 16 KiB, which may keep alive [`PINNED_FACTOR_MAX`] times as much of batches): an unfinished frame on each of its two streams, its publishes in flight and one that is
/// read beyond the bound, unread replies, urgent frames, the rest of a cut frame, read updates, a plan and one
/// slice of catch-up, what names gaps, and a page of history.
pub const SESSION_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX
    + PUBLISH_BYTES_IN_FLIGHT_MAX
    + FRAME_BYTES_MAX
    + REPLY_BYTES_PAUSE
    + REQUESTS_PENDING_MAX * FRAME_BYTES_MAX
    + URGENT_BYTES_MAX
    + FRAME_BYTES_MAX
    + RECEIPTS_WAITING_MAX * COUNTS_FRAME_BYTES_MAX
    + SLICE_BYTES_MAX
    + FRAME_BYTES_MAX
    + 8 * PLAN_POSITIONS_WIDE_MAX
    + NOTICE_BYTES_MAX
    + (HISTORY_RUN_MESSAGES + 1) * FRAME_BYTES_MAX
    + HISTORY_BYTES_MAX;

// The shard's answer to what has moved is kept only while no update waits, and takes less.
const _: () = assert!(size_of::<MovedUpdate>() <= COUNTS_FRAME_BYTES_MAX);

// 8 MiB, as docs/OPERATIONS.md says.
const _: () = assert!(SESSION_BYTES_MAX <= 8 * 1024 * 1024);

// The reply queue's room must cover what one session may reserve.
const _: () = assert!(PUBLISHES_IN_FLIGHT_MAX + REQUESTS_PENDING_MAX < REPLIES_RESERVED_MAX);

/// Where an edge cuts its work; see the constant of each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// [`PUBLISHES_IN_FLIGHT_MAX`]
    pub publishes_in_flight_max: usize,
    /// [`REPLIES_RESERVED_MAX`]
    pub replies_reserved_max: usize,
    /// [`READS_IN_FLIGHT_MAX`]
    pub reads_in_flight_max: usize,
    /// [`REPLY_BYTES_PAUSE`]
    pub reply_bytes_pause: usize,
    /// [`MARKS_UNDER_WAY_MAX`]
    pub marks_under_way_max: usize,
    /// [`MARKS_A_TURN`]
    pub marks_a_turn: usize,
    /// [`RECEIPTS_WAITING_MAX`]
    pub receipts_waiting_max: usize,
    /// [`RECEIPTS_LIVE_MEMBERS_MAX`]
    pub receipts_live_members_max: u32,
    /// [`COUNTS_EVERY_MS`]
    pub counts_every_ms: u64,
    /// [`COUNTS_DUE_MAX`]
    pub counts_due_max: usize,
    /// [`DINGS_RECEIVED_MAX`]
    pub dings_received_max: usize,
    /// [`READ_BYTES_A_TURN`]
    pub read_bytes_a_turn: usize,
    /// [`BATCHES_A_TURN`]
    pub batches_a_turn: usize,
    /// [`ROUND_CHUNK_SESSIONS`]
    pub round_chunk_sessions: usize,
    /// [`PINNED_BYTES_MAX`]
    pub pinned_bytes_max: usize,
    /// [`OWES_MS_MIN`]
    pub owes_ms_min: u64,
    /// [`ROUNDS_UNFINISHED_MAX`]
    pub rounds_unfinished_max: usize,
    /// [`SLICES_A_TURN`]
    pub slices_a_turn: usize,
    /// [`SLICE_BYTES_MAX`]
    pub slice_bytes_max: usize,
    /// [`PLAN_POSITIONS_MAX`]
    pub plan_positions_max: usize,
    /// [`PLAN_POSITIONS_WIDE_MAX`]
    pub plan_positions_wide_max: usize,
    /// [`REPLIES_A_TURN`]
    pub replies_a_turn: usize,
    /// [`PROGRESS_POSITIONS`]
    pub progress_positions: u64,
    /// [`PROGRESS_A_TURN`]
    pub progress_a_turn: usize,
    /// [`PROGRESS_A_TICK_MAX`]
    pub progress_a_tick_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            publishes_in_flight_max: PUBLISHES_IN_FLIGHT_MAX,
            replies_reserved_max: REPLIES_RESERVED_MAX,
            reads_in_flight_max: READS_IN_FLIGHT_MAX,
            reply_bytes_pause: REPLY_BYTES_PAUSE,
            marks_under_way_max: MARKS_UNDER_WAY_MAX,
            marks_a_turn: MARKS_A_TURN,
            receipts_waiting_max: RECEIPTS_WAITING_MAX,
            receipts_live_members_max: RECEIPTS_LIVE_MEMBERS_MAX,
            counts_every_ms: COUNTS_EVERY_MS,
            counts_due_max: COUNTS_DUE_MAX,
            dings_received_max: DINGS_RECEIVED_MAX,
            read_bytes_a_turn: READ_BYTES_A_TURN,
            batches_a_turn: BATCHES_A_TURN,
            round_chunk_sessions: ROUND_CHUNK_SESSIONS,
            pinned_bytes_max: PINNED_BYTES_MAX,
            owes_ms_min: OWES_MS_MIN,
            rounds_unfinished_max: ROUNDS_UNFINISHED_MAX,
            slices_a_turn: SLICES_A_TURN,
            slice_bytes_max: SLICE_BYTES_MAX,
            plan_positions_max: PLAN_POSITIONS_MAX,
            plan_positions_wide_max: PLAN_POSITIONS_WIDE_MAX,
            replies_a_turn: REPLIES_A_TURN,
            progress_positions: PROGRESS_POSITIONS,
            progress_a_turn: PROGRESS_A_TURN,
            progress_a_tick_max: PROGRESS_A_TICK_MAX,
        }
    }
}
