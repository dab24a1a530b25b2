//! Why sessions and attempts end, and whether another attempt may go better.

use std::io;

use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::FrameError;
use quinn::{ConnectionError, ReadError, WriteError};

use crate::config::TokenSource;
use crate::error::{Cause, ConnectError, Disconnect};

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The application asked for it.
    Asked,
    /// The broker closed the connection.
    Closed { code: ErrorCode, text: String },
    /// The connection broke.
    Lost(String),
    /// The broker sent what the protocol does not allow: this side closes with the code.
    Broken { code: ErrorCode, text: String },
    /// The store failed.
    Store(io::Error),
}

impl End {
    pub(crate) fn unexpected(frame: &'static str, stream: &'static str) -> Self {
        Self::Broken { code: ErrorCode::UNEXPECTED_FRAME, text: format!("{frame} on the {stream} stream") }
    }

    /// What to tell the application about an end that is followed by another session.
    pub(crate) fn disconnect(&self) -> Disconnect {
        match self {
            Self::Closed { code, text } => Disconnect::Closed { code: *code, text: text.clone() },
            Self::Broken { code, text } => Disconnect::Protocol(format!("{code}: {text}")),
            Self::Lost(text) => Disconnect::Lost(text.clone()),
            Self::Store(error) => Disconnect::Lost(error.to_string()),
            Self::Asked => Disconnect::Lost("asked for".to_owned()),
        }
    }
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: ErrorCode(u16::try_from(close.error_code.into_inner()).unwrap_or(u16::MAX)),
                text: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(lost) => lost.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(lost) => lost.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::TooLarge { .. } => ErrorCode::FRAME_TOO_LARGE,
            FrameError::Short { .. }
            | FrameError::UnknownKind(_)
            | FrameError::ShortBody { .. }
            | FrameError::LongBody { .. }
            | FrameError::Tail { .. }
            | FrameError::LongList { .. }
            | FrameError::NotText => ErrorCode::MALFORMED,
        };
        Self::Broken { code, text: error.to_string() }
    }
}

/// Why an attempt to open a session failed.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The name did not resolve.
    Resolve(io::Error),
    /// There is no socket.
    Socket(io::Error),
    /// The server name is none.
    Name(String),
    /// The broker did not prove who it is, or the other way round.
    Tls(Cause),
    /// The token source failed.
    Token(Cause),
    /// No `Welcome` came in time.
    Timeout,
    /// The connection ended before the `Welcome`.
    End(End),
}

impl Attempt {
    /// What a broker says whose journal is another than the cursors are of, found out by this side.
    pub(crate) fn of_another_history() -> Self {
        let text = "the broker serves another journal than this client is of".to_owned();
        Self::End(End::Closed { code: ErrorCode::CURSOR_INVALID, text })
    }

    /// Whether the broker serves another journal than this client is of.
    pub(crate) fn is_of_another_history(&self) -> bool {
        matches!(self, Self::End(End::Closed { code: ErrorCode::CURSOR_INVALID, .. }))
    }

    /// The error that ends the client, if trying again would end alike; else the cause, for the last attempt's error.
    ///
    /// During the first connect a name that does not resolve, a certificate that does not verify and a refused token are taken
    /// for mistakes of configuration; later for trouble that passes, unless the token is a fixed one.
    pub(crate) fn judge(self, first: bool, address: &str, token: &TokenSource) -> Result<Cause, ConnectError> {
        let fixed = matches!(token, TokenSource::Fixed(_));
        match self {
            Self::Name(name) => Err(ConnectError::Config(format!("{name:?} is no server name"))),
            Self::Resolve(cause) if first => Err(ConnectError::Resolve { address: address.to_owned(), cause }),
            Self::Tls(cause) if first => Err(ConnectError::Tls(cause)),
            Self::End(end) => judge_end(end, first, fixed),
            Self::Resolve(cause) | Self::Socket(cause) => Ok(cause.into()),
            Self::Tls(cause) => Ok(cause),
            Self::Token(cause) => Ok(format!("no token: {cause}").into()),
            Self::Timeout => Ok("no answer in time".into()),
        }
    }
}

/// As [`Attempt::judge`], for the end of a session.
pub(crate) fn judge_end(end: End, first: bool, fixed_token: bool) -> Result<Cause, ConnectError> {
    match end {
        End::Store(error) => Err(ConnectError::Store(error)),
        End::Closed { code, text } if is_final(code, first, fixed_token) => Err(ConnectError::Refused { code, text }),
        other => Ok(other.disconnect().into()),
    }
}

fn is_final(code: ErrorCode, first: bool, fixed_token: bool) -> bool {
    match code {
        ErrorCode::UNSUPPORTED_VERSION
        | ErrorCode::FENCED
        | ErrorCode::RETIRED
        | ErrorCode::KICKED
        | ErrorCode::CURSOR_INVALID
        | ErrorCode::TOO_MANY_DEVICES
        | ErrorCode::TOO_MANY_PRODUCERS => true,
        ErrorCode::UNAUTHENTICATED | ErrorCode::TOKEN_EXPIRED => first || fixed_token,
        ErrorCode::MALFORMED | ErrorCode::UNEXPECTED_FRAME | ErrorCode::FRAME_TOO_LARGE => first,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: ErrorCode, first: bool, fixed_token: bool, is_final: bool) {
        let judged = judge_end(End::Closed { code, text: String::new() }, first, fixed_token);
        assert_eq!(judged.is_err(), is_final, "{code}, first: {first}, fixed: {fixed_token}");
    }

    #[test]
    fn what_another_attempt_cannot_heal_is_final() {
        check(ErrorCode::UNSUPPORTED_VERSION, true, false, true);
        check(ErrorCode::FENCED, false, false, true);
        check(ErrorCode::UNAUTHENTICATED, true, false, true);
        check(ErrorCode::UNAUTHENTICATED, false, true, true);
        check(ErrorCode::UNAUTHENTICATED, false, false, false);
        check(ErrorCode::TOKEN_EXPIRED, false, false, false);
        check(ErrorCode::DRAINING, true, true, false);
        check(ErrorCode::MALFORMED, false, true, false);
        check(ErrorCode(999), true, true, false);
    }
}
