//! What can go wrong, one enum per operation.

use std::io;

use carillon_protocol::error::ErrorCode;
use thiserror::Error;

/// A cause of any kind.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no session, and none will come without the caller's doing: from [`Client::connect`](crate::Client::connect)
/// and in [`Event::Ended`](crate::Event::Ended).
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The configuration makes no sense; nothing was sent.
    #[error("configuration: {0}")]
    Config(String),
    /// The roots cannot be read, or the broker did not prove who it is.
    #[error("TLS: {0}")]
    Tls(#[source] Cause),
    /// The name of the broker was not resolved.
    #[error("cannot resolve {address}: {cause}")]
    Resolve {
        /// What was to be resolved.
        address: String,
        /// What the resolver said.
        #[source]
        cause: io::Error,
    },
    /// The broker does not want this session, and another attempt would end alike.
    #[error("the broker refused the session: {code}: {text}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// For people, by the broker.
        text: String,
    },
    /// The attempts of [`Reconnect::attempts_max`](crate::Reconnect) are used up.
    #[error("the broker was not reached in {attempts} attempts, at last: {cause}")]
    Unreachable {
        /// How many there were.
        attempts: u32,
        /// What ended the last one.
        #[source]
        cause: Cause,
    },
    /// The store failed: going on could lose or repeat publishes, so the client ends.
    #[error("the store failed: {0}")]
    Store(#[source] io::Error),
}

/// Why a publish has no result.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The broker did not accept the message; nothing has changed. `ALREADY_SETTLED`, possible only for a publish of an
    /// earlier process, says that it had its result then.
    #[error("the broker refused the message: {code}: {text}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// For people, by the broker.
        text: String,
    },
    /// The payload is longer than the broker accepts; nothing was sent.
    #[error("payload of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The configuration names no producer; nothing was sent.
    #[error("this client has no producer: set `Config::producer` to publish")]
    NoProducer,
    /// The broker serves another journal than the one this message was meant for. If it was on its way, whether the old journal had
    /// accepted it is not known; the new one will not, and the store has let go of it. Ids from before may belong to others:
    /// look them up again, then publish anew. Everything fails so until the application was given
    /// [`Event::Reset`](crate::Event::Reset) and asked for the next event, or called
    /// [`Client::begin_anew`](crate::Client::begin_anew).
    #[error(
        "the broker was restored from a backup: whether this was published before is not known, and the ids it names may belong \
         to others now; look them up again and publish anew"
    )]
    Reset,
    /// The client was closed or ended first. If the message was on its way, whether it was accepted is not known; with a
    /// store, the next client that uses it sends it again under the same number.
    #[error("the client was closed before the message was settled")]
    Closed,
}

/// Why a request has no answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The broker refused it; nothing has changed.
    #[error("the broker refused the request: {code}: {text}")]
    Refused {
        /// Why.
        code: ErrorCode,
        /// For people, by the broker.
        text: String,
    },
    /// The request is larger than a frame may be; nothing was sent.
    #[error("request too large: {what} has {have}, the limit is {max}")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// Its size or count.
        have: usize,
        /// The limit.
        max: usize,
    },
    /// The connection was lost after the request was sent, and repeating it could do it twice: the outcome is not known.
    #[error("the connection was lost before the answer came; whether the request was done is not known")]
    Interrupted,
    /// The request names ids, and the broker serves another journal than the one they are of. If it was on its way, whether the
    /// old journal had it done is not known. As [`PublishError::Reset`].
    #[error(
        "the broker was restored from a backup, and the ids that this request names may belong to others now; look them up again"
    )]
    Reset,
    /// The token source failed; nothing was sent.
    #[error("no token: {0}")]
    Token(#[source] Cause),
    /// The broker answered with a frame that answers something else.
    #[error("the broker answered with {frame}")]
    UnexpectedReply {
        /// The frame's name.
        frame: &'static str,
    },
    /// The client was closed or ended first. What was sent may have been done.
    #[error("the client was closed before the answer came")]
    Closed,
}

/// Why a session ended that will be followed by another.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Disconnect {
    /// The broker closed the connection.
    #[error("the broker closed the connection: {code}: {text}")]
    Closed {
        /// Why.
        code: ErrorCode,
        /// For people, by the broker.
        text: String,
    },
    /// The connection broke: silence, a reset, a network that went away.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The broker sent what the protocol does not allow; the SDK closed the connection.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
}
