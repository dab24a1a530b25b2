//! Refusals of inputs, and contradictions between records and state.

use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Position;
use thiserror::Error;

/// Why an input is refused; the state is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The reply's code.
    pub(crate) code: ErrorCode,
    /// What was wrong and what to do.
    pub(crate) text: &'static str,
}

impl Refusal {
    pub(crate) const fn new(code: ErrorCode, text: &'static str) -> Self {
        Self { code, text }
    }

    pub(crate) const fn invalid(text: &'static str) -> Self {
        Self::new(ErrorCode::INVALID, text)
    }

    pub(crate) const fn forbidden(text: &'static str) -> Self {
        Self::new(ErrorCode::FORBIDDEN, text)
    }

    pub(crate) const fn too_large(text: &'static str) -> Self {
        Self::new(ErrorCode::TOO_LARGE, text)
    }

    pub(crate) const fn limit(text: &'static str) -> Self {
        Self::new(ErrorCode::LIMIT_REACHED, text)
    }

    pub(crate) const fn conversation_not_found() -> Self {
        Self::new(ErrorCode::NOT_FOUND, "no such conversation, or not yours: check the id, or ask to be added")
    }

    pub(crate) const fn unknown_user() -> Self {
        Self::new(ErrorCode::UNKNOWN_USER, "no such user in this tenant: find its id by its handle first")
    }

    pub(crate) const fn unknown_principal() -> Self {
        Self::new(ErrorCode::UNKNOWN_USER, "the session's user is not attached to this shard: connect again")
    }
}

/// A record does not fit the state it is applied to: the journal is damaged or of another history. The shard must be
/// discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the record at position {position} contradicts the state: {contradiction}")]
pub struct ApplyError {
    /// The position the record would have.
    pub position: Position,
    /// What does not fit.
    #[source]
    pub contradiction: Contradiction,
}

/// What about a record does not fit the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Contradiction {
    /// It is about something that is not there.
    #[error("there is no {what} {id}")]
    Unknown {
        /// What is missing.
        what: &'static str,
        /// The id that the record gives.
        id: u64,
    },
    /// It adds something that is there, or in use.
    #[error("{what} {id} is there already")]
    Present {
        /// What is there.
        what: &'static str,
        /// The id that the record gives.
        id: u64,
    },
    /// A number that must follow the last one does not.
    #[error("{what} {id} does not follow the last one")]
    NotNext {
        /// Which number.
        what: &'static str,
        /// The number that the record gives.
        id: u64,
    },
    /// Something that only moves forward would move back.
    #[error("{what} would move back to {id}")]
    Backwards {
        /// Which.
        what: &'static str,
        /// The value that the record gives.
        id: u64,
    },
    /// A value is out of its range.
    #[error("{what} {id} is out of range")]
    Range {
        /// Which.
        what: &'static str,
        /// The value that the record gives.
        id: u64,
    },
}

/// Result of applying one record.
pub(crate) type Applied = Result<(), Contradiction>;
