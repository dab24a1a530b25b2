//! Why a run did not come to figures, and what the caller's shell is told. A run that came to its end with deliveries
//! missing is no failure of this kind: its report says so.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use carillon_protocol::error::ErrorCode;
use carillon_transport::CloseReason;
use thiserror::Error;

/// Why there are no figures.
#[derive(Debug, Error)]
pub enum Failure {
    /// The flags, the context or the plan make no sense.
    #[error("{0}")]
    Usage(String),
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("no broker answers at {0} (UDP): is it running, and is the address right?")]
    Unreachable(SocketAddr),
    /// Nobody answers where a peer should.
    #[error("no server answers at {0} (TCP): is it running, and is the address right?")]
    UnreachablePeer(SocketAddr),
    /// The certificate or the token is not accepted.
    #[error("{0}")]
    NotAllowed(String),
    /// The broker refused something or ended a session before the figures were there.
    #[error("while {phase}: {why}")]
    Broker {
        /// What the run was doing.
        phase: &'static str,
        /// What happened.
        why: String,
    },
    /// Nothing happened for too long, or the run took longer than it may.
    #[error("while {phase}: {why}")]
    Stalled {
        /// What the run was doing.
        phase: &'static str,
        /// What it waited for.
        why: String,
    },
    /// The system refused a socket.
    #[error("a socket failed: {0}")]
    Socket(#[from] io::Error),
}

impl Failure {
    /// The exit code of the process; the same numbers as the `carillon` command's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Broker { .. } | Self::Stalled { .. } | Self::Socket(_) => 1,
            Self::Usage(_) | Self::Read { .. } | Self::Write { .. } => 2,
            Self::Unreachable(_) | Self::UnreachablePeer(_) => 3,
            Self::NotAllowed(_) => 4,
        }
    }
}

/// Why a session is no more.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// The connection ended.
    Connection(CloseReason),
    /// The broker said what no broker may say, and was told so.
    Broken(String),
}

impl Ended {
    /// The failure of a run that needed this session.
    pub(crate) fn failure(&self, phase: &'static str, address: SocketAddr) -> Failure {
        let broker = |why: String| Failure::Broker { phase, why };
        match self {
            Self::Broken(why) => broker(format!("the broker broke the protocol: {why}")),
            Self::Connection(reason) => match reason {
                CloseReason::TimedOut => Failure::Unreachable(address),
                CloseReason::HandshakeFailed(why) => Failure::NotAllowed(format!(
                    "the broker at {address} is not trusted, or is none: {why} (--ca and --server-name say whom to trust)"
                )),
                CloseReason::ByPeer { code, reason } if is_about_token(*code) => Failure::NotAllowed(format!(
                    "the broker refused the token: {reason} ({}): the key that signs must be one that it is configured with",
                    name(*code)
                )),
                CloseReason::ByPeer { .. }
                | CloseReason::ByUs
                | CloseReason::Reset
                | CloseReason::Refused
                | CloseReason::ProtocolViolated(_)
                | CloseReason::Aborted(_) => broker(self.to_string()),
            },
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "the broker broke the protocol: {why}"),
            Self::Connection(reason) => match reason {
                CloseReason::ByPeer { code, reason } => write!(f, "the broker closed it: {} ({reason})", name(*code)),
                CloseReason::ByUs => f.write_str("it was closed from this side"),
                CloseReason::TimedOut => f.write_str("the connection timed out"),
                CloseReason::Reset => f.write_str("the broker does not know the connection: was it restarted?"),
                CloseReason::Refused => f.write_str("the broker takes no connections now: it drains, or is full"),
                CloseReason::HandshakeFailed(why) => write!(f, "the handshake failed: {why}"),
                CloseReason::ProtocolViolated(why) => write!(f, "the broker broke QUIC's rules: {why}"),
                CloseReason::Aborted(why) => write!(f, "the broker's QUIC ended it: {why}"),
            },
        }
    }
}

fn is_about_token(code: u64) -> bool {
    [ErrorCode::UNAUTHENTICATED, ErrorCode::TOKEN_EXPIRED].iter().any(|refused| u64::from(refused.0) == code)
}

/// A close code as the protocol's table has it.
fn name(code: u64) -> String {
    match u16::try_from(code) {
        Ok(code) => ErrorCode(code).to_string(),
        Err(_) => format!("code {code}"),
    }
}
