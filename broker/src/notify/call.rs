//! What the shard asks of an outlet, and what became of it.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{ConversationId, DingId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::MessageKind;
use thiserror::Error;
use tokio::sync::oneshot;

/// A way to reach a person: 1 is the broker itself (all devices), the others are reached through a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutletId(pub u8);

impl OutletId {
    /// The urgent lane to all devices; the broker itself, never a gateway.
    pub const APP: Self = Self(1);
    /// Text messages.
    pub const SMS: Self = Self(2);
    /// Telephone calls.
    pub const PHONE: Self = Self(3);
    /// Mail.
    pub const MAIL: Self = Self(4);
    /// Push notifications of mobile systems.
    pub const PUSH: Self = Self(5);

    /// The outlets that have a name of their own, with it.
    pub const NAMED: [(Self, &str); 5] =
        [(Self::APP, "app"), (Self::SMS, "sms"), (Self::PHONE, "phone"), (Self::MAIL, "mail"), (Self::PUSH, "push")];

    /// Whether an operator may give it to an outlet of their own naming: 64 and above.
    pub const fn is_operators(self) -> bool {
        self.0 >= 64
    }
}

impl fmt::Display for OutletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Reach the recipient.
    Start,
    /// No longer: confirmed, recalled or expired. Goes out under the key of the start.
    Cancel,
}

/// What makes a call one call, over retries and restarts, for its start and its cancel. As text
/// `ding-<16 hexadecimal digits>-<user>-<attempt>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// The DING.
    pub ding: DingId,
    /// Its recipient.
    pub user: UserId,
    /// Numbers what was tried with this recipient, over all outlets.
    pub attempt: u16,
}

/// The text is not a key that this broker gave out.
#[derive(Debug, Error)]
#[error("not a key: give back the one the call came with, as in \"ding-0000000000000001-7-2\"")]
pub struct KeyError;

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ding-{:016x}-{}-{}", self.ding.0, self.user, self.attempt)
    }
}

impl FromStr for CallKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.strip_prefix("ding-").ok_or(KeyError)?.splitn(3, '-');
        let mut part = || parts.next().ok_or(KeyError);
        let ding = u64::from_str_radix(part()?, 16).map_err(|_| KeyError)?;
        let user = part()?.parse().map_err(|_| KeyError)?;
        let attempt = part()?.parse().map_err(|_| KeyError)?;
        let key = Self { ding: DingId(ding), user: UserId(user), attempt };
        // One key has one text: no signs, no blanks, no zeros in front.
        if key.to_string() == text { Ok(key) } else { Err(KeyError) }
    }
}

/// One call of a gateway. A repeat of the same key and verb must be the same in all fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The idempotency key.
    pub key: CallKey,
    /// Start or cancel.
    pub verb: Verb,
    /// Through which outlet.
    pub outlet: OutletId,
    /// The tenant's name.
    pub tenant: Text,
    /// The recipient's handle.
    pub recipient: Text,
    /// The sender's handle.
    pub sender: Text,
    /// Which step of the escalation plan, from 0.
    pub step: u8,
    /// What the payload is.
    pub kind: MessageKind,
    /// Opaque, shared with the DING.
    pub payload: Bytes,
    /// The conversation of the message the DING is about; 0: none.
    pub conversation: ConversationId,
    /// That message; 0: none.
    pub seq: Seq,
    /// When the DING was made.
    pub created: Timestamp,
    /// When the step started; of a cancel, when it became void.
    pub started: Timestamp,
    /// When the DING gives up: no start is tried from then on.
    pub expires_at: Timestamp,
}

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

/// What the shard says to a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportAnswer {
    /// It is durable, or was before.
    Done,
    /// No such call, or not of this outlet.
    Unknown,
    /// The DING is over for this recipient.
    Over,
    /// Too much to do: again a little later.
    Busy,
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
    fn report(&self, report: Report, answer: oneshot::Sender<ReportAnswer>) -> Result<(), Full>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_text() {
        let key = CallKey { ding: DingId(0x0001_0000_0000_002a), user: UserId(7), attempt: 2 };
        assert_eq!(key.to_string(), "ding-000100000000002a-7-2");
        assert_eq!("ding-000100000000002a-7-2".parse::<CallKey>().unwrap(), key);
        for other in [
            "",
            "ding-",
            "ding-000100000000002a-7",
            "ding-2a-7-2",
            "ding-000100000000002A-7-2",
            "ding-000100000000002a-07-2",
            "ding-000100000000002a-7-+2",
            "ding-000100000000002a-7-65536",
            "ding-000100000000002a-7-2-start",
            "dong-000100000000002a-7-2",
        ] {
            assert!(other.parse::<CallKey>().is_err(), "{other}");
        }
    }

    #[test]
    fn details_below_a_hundred_have_words_and_others_are_of_http() {
        assert_eq!(Detail::REFUSED_ADDRESS.to_string(), "the address is not allowed");
        assert_eq!(Detail(503).to_string(), "HTTP 503");
    }
}
