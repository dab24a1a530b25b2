//! Error codes: stable numbers, used in replies and as QUIC application close codes.

use crate::frame::Text;

/// Why a request was refused or a connection closed. The same number space for both; unknown values are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(attr(doc = "The little-endian form on the wire."))]
pub struct ErrorCode(pub u16);

impl crate::flat::Plain for ErrorCode {}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl ErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every code this version has a name for, with its name.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

codes! {
    /// The peer closed in good order.
    NONE = 0;

    // Close codes: the connection ends.
    /// The version in `Hello` is not spoken here.
    UNSUPPORTED_VERSION = 1;
    /// Bytes that are no frame, a frame cut wrongly, or a field out of its range.
    MALFORMED = 2;
    /// A frame that may not come on this stream, in this state, or from this side.
    UNEXPECTED_FRAME = 3;
    /// A frame larger than the limit of its stream.
    FRAME_TOO_LARGE = 4;
    /// The token is missing, not signed by a known key, or for another audience.
    UNAUTHENTICATED = 5;
    /// The token's time is over, and it was not refreshed.
    TOKEN_EXPIRED = 6;
    /// Another session of the same device took over.
    FENCED = 7;
    /// The cursor belongs to another incarnation of the journal or lies in the future: start anew.
    CURSOR_INVALID = 8;
    /// An acknowledgement beyond what was sent.
    ACK_INVALID = 9;
    /// No `Hello` came in time.
    HELLO_TIMEOUT = 10;
    /// The broker is draining: reconnect, elsewhere or later.
    DRAINING = 11;
    /// The device or producer of this session was retired.
    RETIRED = 12;
    /// The broker holds as many sessions as it may.
    SESSIONS_EXHAUSTED = 13;
    /// The broker failed; what was acknowledged is safe.
    INTERNAL = 14;
    /// The user has as many devices as allowed: retire one.
    TOO_MANY_DEVICES = 15;
    /// The user has as many producers as allowed: retire one.
    TOO_MANY_PRODUCERS = 16;
    /// The session does not read what it must: reconnect and go on from the cursor.
    SLOW = 17;
    /// Somebody who may ended this session; the token is as good as before.
    KICKED = 18;

    // Reply codes: the request is refused, nothing has changed, the connection lives on.
    /// Absent, or not for this user: the two answer alike.
    NOT_FOUND = 32;
    /// A member may see this but not do it.
    FORBIDDEN = 33;
    /// A field makes no sense; the text says which.
    INVALID = 34;
    /// Too much at once; nothing was done, try again later.
    BUSY = 35;
    /// The number was used for other content.
    PRODUCER_CONFLICT = 36;
    /// The number is below the producer's lowest unsettled one.
    ALREADY_SETTLED = 37;
    /// The number is beyond the producer's window.
    OUTSIDE_WINDOW = 38;
    /// The session said no producer in its `Hello`.
    NO_PRODUCER = 39;
    /// A payload, name or list is longer than allowed.
    TOO_LARGE = 40;
    /// A named limit of the user, conversation or tenant is reached.
    LIMIT_REACHED = 41;
    /// The name is taken by a conversation of somebody else.
    NAME_TAKEN = 42;
    /// The handle is of no user yet: a user exists after the first connection, or when an administrator names it.
    UNKNOWN_USER = 43;
    /// The DING is over: expired or recalled.
    DING_OVER = 44;
    /// More than a sender or a tenant may do in a minute; nothing was done, the text says when to try again.
    RATE_LIMITED = 45;
    /// The broker's disk has no room for more; nothing was done, try again later.
    NO_ROOM = 46;
}

impl ErrorCode {
    /// Whether the same may be accepted later, unchanged: a publish that is refused so is not settled.
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::BUSY | Self::NO_ROOM)
    }

    /// The name, or `None` for a code of a newer peer.
    pub fn name(self) -> Option<&'static str> {
        Self::ALL.iter().find(|(code, _)| *code == self).map(|(_, name)| *name)
    }
}

impl core::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "ErrorCode({})", self.0),
        }
    }
}

impl core::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self, f)
    }
}

crate::frames! {
    /// Broker → client: a request was refused. Nothing has changed.
    0x0e Error {
        /// The request, or 0 for the session as a whole.
        request: u32,
        /// Why.
        code: ErrorCode,
    } [
        /// For people: what was wrong and what to do.
        text: Text,
    ]

    /// Broker → client: a request that has no other reply is done, durably.
    0x0f Done {
        /// The request.
        request: u32,
    }
}
