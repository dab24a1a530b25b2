//! What the shard asks of an outlet, and what became of it.

use std::fmt;

use thiserror::Error;
use tokio::sync::oneshot;

pub use carillon_core::effect::{Call, CallKey, KeyError, Reported, Verb};
pub use carillon_protocol::kinds::Outlet as OutletId;

/// The outlets that have a name of their own, with it.
pub const NAMED: [(OutletId, &str); 5] = [
    (OutletId::APP, "app"),
    (OutletId::SMS, "sms"),
    (OutletId::PHONE, "phone"),
    (OutletId::MAIL, "mail"),
    (OutletId::PUSH, "push"),
];

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Of a start: the gateway has taken it.
    Accepted,
    /// Of a start: it has reached the recipient's device or mailbox.
    Delivered,
    /// Of a start: the recipient has confirmed there.
    Answered,
    /// Of a start: it will not reach the recipient.
    Failed,
    /// Of a cancel: the gateway knows, or was never told of the start.
    Done,
    /// Of a cancel: the gateway could not be told.
    GaveUp,
}

/// The HTTP status that decided a call, or below 100 a reason of the broker's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Detail(pub u16);

macro_rules! details {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Detail {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// A few words for people; `None` for an HTTP status.
            pub fn text(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

details! {
    /// There was nothing to do: the start of this cancel never left the broker.
    NOTHING = 0, "nothing was handed over";
    /// The configuration has no such outlet.
    NO_OUTLET = 1, "no such outlet";
    /// The gateway's name could not be resolved.
    RESOLVE = 2, "the name could not be resolved";
    /// The name leads to addresses alone that the configuration does not allow.
    REFUSED_ADDRESS = 3, "the address is not allowed";
    /// Nobody answers there.
    CONNECT = 4, "no connection";
    /// The TLS handshake failed: the certificate, most likely.
    TLS = 5, "the TLS handshake failed";
    /// No answer within the outlet's time.
    TIMEOUT = 6, "no answer in time";
    /// The connection broke, or what came is no HTTP.
    BROKEN = 7, "the connection broke";
    /// Taken by the gateway (2xx), whose answer was too long to be read.
    ANSWER_TOO_LONG = 8, "the answer was too long";
    /// The DING expired before the gateway had taken it.
    EXPIRED = 9, "expired";
    /// Cancelled before the gateway had taken it.
    CANCELLED = 10, "cancelled";
    /// The gateway answered that it failed.
    SAID_FAILED = 11, "the gateway says it failed";
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "HTTP {}", self.0),
        }
    }
}

/// What became of a call, for the shard to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallResult {
    /// Through which outlet.
    pub outlet: OutletId,
    /// Of which call.
    pub key: CallKey,
    /// Its start or its cancel.
    pub verb: Verb,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub detail: Detail,
}

/// What a gateway says later, by a signed callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The outlet whose secret signed it.
    pub outlet: OutletId,
    /// The call it is about.
    pub key: CallKey,
    /// `Delivered`, `Answered` or `Failed`.
    pub outcome: Outcome,
}

/// The queue is full: nothing was taken, try again a little later.
#[derive(Debug, Error)]
#[error("the shard's queue is full")]
pub struct Full;

/// Where results and reports go: the shard's queue.
pub trait Ledger: Send + Sync + 'static {
    /// Takes all results, or gives back those it has no room for.
    ///
    /// # Errors
    /// What was not taken.
    fn results(&self, results: Vec<CallResult>) -> Result<(), Vec<CallResult>>;

    /// Takes a gateway's report. The answer comes when what it says is durable; a dropped `answer` means "busy".
    ///
    /// # Errors
    /// [`Full`].
    fn report(&self, report: Report, answer: oneshot::Sender<Reported>) -> Result<(), Full>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_below_a_hundred_have_words_and_others_are_of_http() {
        assert_eq!(Detail::REFUSED_ADDRESS.to_string(), "the address is not allowed");
        assert_eq!(Detail(503).to_string(), "HTTP 503");
    }
}
