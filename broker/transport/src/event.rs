//! What an endpoint tells its thread.

use bytes::Bytes;

use crate::link::{Direction, LinkKey, StreamId};

/// Something that happened to a connection. Events of one connection come in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake is done: the first event of a connection that a peer opened, and the answer to
    /// [`Endpoint::connect`](crate::Endpoint::connect).
    Connected {
        /// The connection.
        link: LinkKey,
    },
    /// The peer opened a stream; `Readable` follows for it.
    Opened {
        /// The connection.
        link: LinkKey,
        /// The new stream.
        stream: StreamId,
        /// Whether this side may send on it too.
        direction: Direction,
    },
    /// There may be data, an end or a reset to read. Not repeated for what is left unread.
    Readable {
        /// The connection.
        link: LinkKey,
        /// The stream to read.
        stream: StreamId,
    },
    /// A stream that had refused bytes may take more, or was closed.
    Writable {
        /// The connection.
        link: LinkKey,
        /// The stream to write.
        stream: StreamId,
    },
    /// The peer wants no more data on a stream.
    Stopped {
        /// The connection.
        link: LinkKey,
        /// The stream, closed for sending.
        stream: StreamId,
        /// The peer's application error code.
        code: u64,
    },
    /// The peer allows more streams than when `open_uni` or `open_bi` was refused.
    Available {
        /// The connection.
        link: LinkKey,
        /// Which kind of stream.
        direction: Direction,
    },
    /// A datagram arrived.
    Datagram {
        /// The connection.
        link: LinkKey,
        /// Its content.
        bytes: Bytes,
    },
    /// The connection has ended: its last event. The key finds nothing from now on.
    Closed {
        /// The connection.
        link: LinkKey,
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The peer's application closed it.
    ByPeer {
        /// The application error code.
        code: u64,
        /// What the peer said, repaired to valid UTF-8.
        reason: String,
    },
    /// This side closed it: by `close`, or by `close_all`.
    ByUs,
    /// Nothing was heard for the idle timeout, or the handshake did not finish in time.
    TimedOut,
    /// The peer does not know the connection, most likely because it was restarted.
    Reset,
    /// Client role: the server takes no connections now (it drains, or is full). Trying again later
    /// makes sense.
    Refused,
    /// Client role: there was no connection, and trying again the same way will not help: the
    /// certificate, the protocol name (ALPN) or the QUIC version does not fit.
    HandshakeFailed(String),
    /// The peer broke QUIC's rules, in our judgement.
    ProtocolViolated(String),
    /// The peer's QUIC stack ended the connection, for a breach of rules in its judgement or for an
    /// error of its own.
    Aborted(String),
}
