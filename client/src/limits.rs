//! Every bound of the SDK, with its derivation and what happens when it is reached.

use carillon_protocol::limits::PRODUCER_WINDOW;

/// Publishes without a result. The broker's window; beyond it `enqueue` waits.
#[allow(clippy::cast_possible_truncation, reason = "1,024 fits every usize")]
pub(crate) const PUBLISHES_UNSETTLED_MAX: usize = PRODUCER_WINDOW as usize;

/// Requests of the application that wait for one of the 16 places of the session; beyond it a request waits its turn.
pub(crate) const REQUESTS_QUEUED_MAX: usize = 256;

/// Inbox events the application has not taken: 512 × 64 KiB = 32 MiB at worst. Full: the lane is not read, and QUIC
/// flow control stops the broker.
pub(crate) const EVENTS_QUEUED_MAX: usize = 512;

/// Urgent events the application has not taken. Full: the urgent lane alone is not read.
pub(crate) const URGENT_QUEUED_MAX: usize = 64;

/// Signals to be sent, and signals of others that the application has not taken. Full: the oldest to be sent, or the newest
/// of others, is let go of.
pub(crate) const SIGNALS_QUEUED_MAX: usize = 64;

/// Datagrams that came and were not taken yet: signals have some 30 bytes.
pub(crate) const DATAGRAMS_RECEIVE_BYTES: usize = 16 * 1024;

/// `Connected` and `Disconnected` the application has not taken. Full: the newest is dropped, with a warning in the log.
pub(crate) const NOTICES_QUEUED_MAX: usize = 16;

/// Acknowledgements that are put together into one: what is sent, and what is saved.
pub(crate) const ACKS_COALESCED_MAX: u32 = 100;

/// An acknowledgement waits this long for others before it is saved, unless it may be sent at once.
pub(crate) const ACK_SAVE_DELAY_MS: u64 = 200;

/// From one acknowledgement that is sent to the next. The first after so long goes out at once, so that it is in the packet that
/// acknowledges the message to QUIC, which waits for 25 ms: a packet of its own costs the broker more than the delivery did, and a
/// phone's radio is awake already. The broker's copy is for who asks what was delivered; a device goes on from its own.
pub(crate) const ACK_INTERVAL_MS: u64 = 5_000;

/// From one acknowledgement that is sent to the next, when nothing came after [`ACK_INTERVAL_MS`] that it could go with.
pub(crate) const ACK_DELAY_MAX_MS: u64 = 10_000;

/// DINGs whose repeats are recognised: four times the 1,000 a user may have open. The oldest is forgotten, and would be
/// shown again if it came again.
pub(crate) const DINGS_SHOWN_MAX: usize = 4_096;

/// `DingReceived` that are to be sent: what a device with 1,000 open DINGs is pushed at once fits. Full: the newest is let go of, and the
/// DING's next push says it again.
pub(crate) const DINGS_RECEIVED_QUEUED_MAX: usize = 1_024;

/// DINGs of which it is known how far the last progress was: those one sent and those one watches. The one known longest is
/// forgotten; a progress of it that comes late would be told.
pub(crate) const DINGS_FOLLOWED_MAX: usize = 4_096;

/// A watch that is `BUSY` is asked for again after this.
pub(crate) const WATCH_RETRY_MS: u64 = 100;

/// From the first packet to `Welcome`.
pub(crate) const HANDSHAKE_TIMEOUT_MS: u64 = 10_000;

/// What a graceful close may take before the connection is dropped: the last acknowledgement needs a round trip.
pub(crate) const CLOSE_TIMEOUT_MS: u64 = 2_000;

/// A session that lived this long ends the back-off; a shorter one counts as a failed attempt.
pub(crate) const SESSION_SETTLED_MS: u64 = 5_000;

/// Bytes of publishes that are encoded and written at once; one frame may go beyond.
pub(crate) const PUBLISH_BATCH_BYTES_MAX: usize = 64 * 1024;

/// The back-off after the first `BUSY`, doubled up to [`BUSY_DELAY_MAX_MS`] until a publish is accepted.
pub(crate) const BUSY_DELAY_FIRST_MS: u64 = 20;

/// The longest back-off after `BUSY`.
pub(crate) const BUSY_DELAY_MAX_MS: u64 = 2_000;

/// Silence after which a connection is dead.
pub(crate) const IDLE_TIMEOUT_MS: u32 = 30_000;

/// Keep-alives go out every 8 to 12 s: two fit an idle timeout, and the clients of one broker do not beat in step.
pub(crate) const KEEP_ALIVE_FIRST_MS: u64 = 8_000;

/// See [`KEEP_ALIVE_FIRST_MS`].
pub(crate) const KEEP_ALIVE_SPREAD_MS: u64 = 4_000;

/// The least that a probe of the path's MTU may gain: above half of what there is (1,452 - 1,200 bytes), so that the one probe is of the
/// most. Searching takes four, whose padding a broker reads byte by byte. A path that takes less stays at 1,200.
pub(crate) const MTU_CHANGE_BYTES_MIN: u16 = 200;

/// quinn has one receive window for all streams; the inbox decides it.
pub(crate) const STREAM_RECEIVE_BYTES: u32 = 1024 * 1024;

/// Above the sum of control, publish and four lanes (6 MiB): a full inbox cannot starve the others.
pub(crate) const CONNECTION_RECEIVE_BYTES: u32 = 8 * 1024 * 1024;

/// Lanes the broker may open: urgent, inbox, bulk, and one of a newer broker, which is passed over.
pub(crate) const LANES_MAX: u32 = 4;

/// Bytes taken from a stream at once.
pub(crate) const READ_BYTES_MAX: usize = 64 * 1024;

/// A refresh of the token that failed is tried again after this.
pub(crate) const REFRESH_RETRY_MS: u64 = 5_000;

/// What the client is: with a token of 4 KiB and 16 cursors, `Hello` stays under its 8 KiB.
pub(crate) const CLIENT_BYTES_MAX: usize = 256;

/// A token is refreshed when a quarter of its time is left, but not earlier than this before its end.
pub(crate) const REFRESH_EARLY_MAX_MS: u64 = 60_000;
