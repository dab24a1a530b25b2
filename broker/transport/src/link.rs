//! The contract between a session and its connection, free of quinn-proto, so that a simulated
//! connection can implement it in tests and another carrier can later.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;

/// Index and generation of a connection of one endpoint; a stale key is harmless.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct LinkKey {
    /// The place of the connection in its endpoint; reused after the connection is gone.
    pub index: u32,
    /// How many connections had the place before this one (modulo 2^32).
    pub generation: u32,
}

/// Whether a stream carries data both ways or only from the side that opened it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Both sides may send.
    Bidirectional,
    /// Only the side that opened the stream may send.
    Unidirectional,
}

/// A stream of one connection, as numbered by RFC 9000 section 2.1: bit 0 tells who opened it
/// (0: the client), bit 1 its direction (0: bidirectional), the rest counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Whether both sides may send on it.
    #[must_use]
    pub fn is_bidirectional(self) -> bool {
        self.0 & 0b10 == 0
    }

    /// Whether the client opened it.
    #[must_use]
    pub fn is_opened_by_client(self) -> bool {
        self.0 & 0b01 == 0
    }

    /// The direction, as the event that announces the stream has it.
    #[must_use]
    pub fn direction(self) -> Direction {
        if self.is_bidirectional() { Direction::Bidirectional } else { Direction::Unidirectional }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {}", self.0)
    }
}

/// Against which send window a write is counted.
///
/// All streams of a connection share one send window, so that a full inbox would block an urgent
/// frame behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// The connection's send window.
    Shared,
    /// The send window raised by [`send_window_reserve_bytes`], for frames that must not wait
    /// behind the other lanes.
    ///
    /// [`send_window_reserve_bytes`]: crate::TransportConfig::send_window_reserve_bytes
    Reserved,
}

/// What a read found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// The next bytes in order; never empty.
    Data(Bytes),
    /// Nothing yet: a `Readable` event follows when there is more.
    Blocked,
    /// The peer finished the stream and everything was read. The stream's receiving half is gone.
    Finished,
}

/// Why nothing more can be written to or read from a stream. The connection lives on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum StreamClosed {
    /// The peer asked us to stop sending; what was queued may not arrive.
    #[error("the peer stopped the stream with code {code}")]
    Stopped {
        /// The peer's application error code.
        code: u64,
    },
    /// The peer abandoned sending; unread data is lost.
    #[error("the peer reset the stream with code {code}")]
    Reset {
        /// The peer's application error code.
        code: u64,
    },
    /// The stream was never opened, runs the other way, or was finished, reset or stopped by
    /// ourselves; or the connection is closed.
    #[error("the stream is closed")]
    Gone,
}

/// Why a datagram was not queued. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum DatagramRefused {
    /// One of the sides has datagrams switched off, or the handshake has not told yet.
    #[error("datagrams are not supported on this connection")]
    Unsupported,
    /// The datagram exceeds what the path or the peer takes in one packet.
    #[error("the datagram is larger than {bytes_max} bytes")]
    TooLarge {
        /// What would be taken now; changes with the path.
        bytes_max: usize,
    },
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
}

/// What a session may do with its connection; a simulated one implements it in tests.
///
/// Nothing here blocks or sends: what is queued leaves with the endpoint's next flush. A stream
/// that does not exist, or runs the other way, is answered as closed and never panics.
pub trait Link {
    /// Opens a stream on which only this side sends. `None` when the peer's limit of streams is
    /// reached (an `Available` event follows when it rises) or the connection is closed. Streams
    /// with a higher priority are sent first, equal ones take turns.
    fn open_uni(&mut self, priority: i32) -> Option<StreamId>;

    /// Opens a stream on which both sides send; otherwise like [`Link::open_uni`]. The peer learns
    /// of a stream by its first byte.
    fn open_bi(&mut self, priority: i32) -> Option<StreamId>;

    /// Changes the priority of what is written from now on. A stream that has unsent data keeps its
    /// old place until that is sent. Nothing happens if the stream is gone.
    fn set_priority(&mut self, stream: StreamId, priority: i32);

    /// Queues as much of `bytes` as the stream takes, advancing `bytes` past it, never copying;
    /// returns the count. If bytes are left, a `Writable` event follows when the stream may take
    /// more; it can come early, so that the next write takes nothing again.
    ///
    /// # Errors
    ///
    /// The stream is closed for sending; `bytes` is unchanged.
    fn write(&mut self, stream: StreamId, bytes: &mut Bytes, room: Room) -> Result<usize, StreamClosed>;

    /// The next chunk in order, at most `bytes_max` long (at least 1 is taken). It is to be called
    /// until it answers `Blocked` or `Finished`, or again later at the caller's choice: unread data
    /// holds the peer back by flow control. No `Readable` event repeats what was left unread.
    ///
    /// # Errors
    ///
    /// The stream is closed for receiving; the peer's code comes once, `Gone` after it.
    fn read(&mut self, stream: StreamId, bytes_max: usize) -> Result<Read, StreamClosed>;

    /// Says that nothing more will be written; what is queued is still delivered. Nothing happens
    /// if the stream is gone.
    fn finish(&mut self, stream: StreamId);

    /// Abandons sending, with an application error code; what is queued is dropped. Nothing happens
    /// if the stream is gone.
    fn reset(&mut self, stream: StreamId, code: u32);

    /// Abandons receiving and asks the peer to stop, with an application error code. Nothing happens
    /// if the stream is gone.
    fn stop(&mut self, stream: StreamId, code: u32);

    /// Queues an unreliable, unordered datagram. When the buffer is full the *oldest* queued
    /// datagrams are dropped for it: a signal is worth more the newer it is.
    ///
    /// # Errors
    ///
    /// See [`DatagramRefused`].
    fn send_datagram(&mut self, bytes: Bytes) -> Result<(), DatagramRefused>;

    /// Closes the connection with an application error code. What was not yet acknowledged is dropped at once; the
    /// reason is cut to what fits in the smallest packet. A `Closed` event follows. Closing twice
    /// does nothing.
    fn close(&mut self, code: u32, reason: &str);

    /// The peer's present address; it changes when the peer moves.
    fn remote_address(&self) -> SocketAddr;

    /// What was written to streams and is not acknowledged; `None` when all is.
    fn unacknowledged(&self) -> Option<Unacknowledged>;
}

/// What a peer has not acknowledged of what was written to streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unacknowledged {
    /// When the oldest of it was written, give or take a round trip.
    pub since: Instant,
    /// How much it is: the chunks that were written and are not wholly acknowledged.
    pub bytes: u64,
}
