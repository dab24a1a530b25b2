//! What bounds a frame and its parts. A peer that exceeds one of these gets an error that names it.

use crate::control::ConversationEntry;
use crate::ding::DingStep;
use crate::frame::{Element, HEADER_BYTES};
use crate::ids::UserId;

/// Payload of a message or DING.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The largest body of any frame: over twice what the largest one has today (`DingStatusReply`, 87 bytes), so that newer peers
/// may append fields.
pub const BODY_BYTES_MAX: usize = 256;

/// Most entries in any list of one frame: recipients of a DING.
pub const LIST_ENTRIES_MAX: usize = DING_RECIPIENTS_MAX;

/// The largest frame either side accepts: header + body + the larger of the two longest tails.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX + larger(DING_TAIL_BYTES_MAX, PAGE_TAIL_BYTES_MAX);

/// The tail of a `DingCreate`: a payload, a user id for each recipient, and the steps of its plan.
const DING_TAIL_BYTES_MAX: usize = PAYLOAD_BYTES_MAX
    + DING_RECIPIENTS_MAX * <UserId as Element>::BYTES
    + DING_STEPS_MAX * <DingStep as Element>::BYTES;

/// The tail of the page with the largest entries, `Conversations`: a full page whose names are all as long as they may be.
const PAGE_TAIL_BYTES_MAX: usize = PAGE_ENTRIES_MAX * (<ConversationEntry as Element>::BYTES + NAME_BYTES_MAX);

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// The first frame of a connection is read before its sender is known: a token, a name and cursors fit, no more.
pub const HELLO_BYTES_MAX: usize = 8 * 1024;

/// A JWT with the claims the broker reads is about 300 bytes; 4 KiB leaves room for an issuer's own claims.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// UTF-8 bytes of a user's handle.
pub const HANDLE_BYTES_MAX: usize = 64;

/// UTF-8 bytes of a conversation's name; its length travels in one byte.
pub const NAME_BYTES_MAX: usize = 128;

/// UTF-8 bytes of the text of an error.
pub const ERROR_TEXT_BYTES_MAX: usize = 512;

/// Cursors in one `Hello`, one a shard.
pub const CURSORS_MAX: usize = 16;

/// Users added or removed by one request: each also gets an event of about 100 bytes in the same batch.
pub const MEMBERS_A_REQUEST_MAX: usize = 1_000;

/// Entries of one page of a list reply.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// The `Deliver` frames of a page of history, but for the first: half a second of a slow line, for which what is new may have
/// to wait behind it.
pub const HISTORY_BYTES_MAX: usize = 64 * 1024;

/// Recipients of one DING.
pub const DING_RECIPIENTS_MAX: usize = 10_000;

/// Steps of a DING's plan: the app, some ways to the same phone, and a colleague's.
pub const DING_STEPS_MAX: usize = 8;

/// Attempts of one DING: its steps with their repeats, and reminders by hand. Each is 12 bytes, and 16 a recipient but by `APP`.
pub const DING_ATTEMPTS_MAX: usize = 256;

/// DINGs that one session may watch beside its own: a dashboard of them.
pub const DINGS_WATCHED_MAX: usize = 64;

/// Unsettled publishes of one producer: `low ≤ number < low + PRODUCER_WINDOW`.
pub const PRODUCER_WINDOW: u64 = 1_024;

/// Requests of one session that wait for their reply, publishes apart.
pub const REQUESTS_PENDING_MAX: usize = 16;

/// Users in one `PresenceQuery`: a screen of a list of people, three times over.
pub const PRESENCE_USERS_MAX: usize = 100;

/// Conversations in which one session may be `PRESENT` at a time: what is before one pair of eyes.
pub const PRESENT_CONVERSATIONS_MAX: usize = 8;
