//! Who is online, with which sessions; and signals, which may be lost.

use alloc::vec::Vec;

use crate::frame::Text;
use crate::ids::{ConversationId, DeviceId, ProducerId, Timestamp, UserId};
use crate::kinds::SignalKind;

crate::elements! {
    /// Whether one user is online.
    PresenceEntry {
        /// The user.
        user: UserId,
        /// 1 when the user has a live session, else 0.
        online: u8,
        /// Since when, by the oldest live session; 0 when not online.
        since: Timestamp,
    }

    /// One live session.
    SessionEntry {
        /// Whose installation it is.
        device: DeviceId,
        /// The numbering of its publishes, 0 without one.
        producer: ProducerId,
        /// Which of the broker's edges holds it.
        edge: u16,
        /// When it was opened.
        since: Timestamp,
        /// Bytes of what the client said it is, in `texts`.
        client_bytes: u16,
        /// Bytes of the address it was opened from, in `texts` behind that.
        address_bytes: u8,
    }
}

crate::frames! {
    /// Client → broker, datagram: tell the other members who are online.
    0x50 Signal {
        /// The conversation; the sender is a member.
        conversation: ConversationId,
        /// What.
        kind: SignalKind,
    }

    /// Broker → client, datagram: what another session signals.
    0x51 Signalled {
        /// The conversation.
        conversation: ConversationId,
        /// Who.
        user: UserId,
        /// What.
        kind: SignalKind,
    }

    /// Client → broker: which of these users are online? Answered by `Presences`.
    0x52 PresenceQuery {
        /// Chosen by the client, above 0.
        request: u32,
    } [
        /// 1 to 100.
        users: Vec<UserId>,
    ]

    /// Broker → client: who is online now.
    0x53 Presences {
        /// The request.
        request: u32,
    } [
        /// One a user asked for, in the order asked for.
        entries: Vec<PresenceEntry>,
    ]

    /// Client → broker: the live sessions of a user, oneself or, for admins and services, anybody. Answered by `Sessions`.
    0x54 SessionList {
        /// Chosen by the client, above 0.
        request: u32,
        /// The user.
        user: UserId,
    }

    /// Broker → client: live sessions.
    0x55 Sessions {
        /// The request.
        request: u32,
    } [
        /// The oldest first.
        entries: Vec<SessionEntry>,
        /// For each session, what its client is and the address, back to back.
        texts: Text,
    ]

    /// Client → broker: end live sessions of a user, oneself or, for admins and services, anybody. Answered by `SessionsKicked`.
    0x56 SessionKick {
        /// Chosen by the client, above 0.
        request: u32,
        /// The user.
        user: UserId,
        /// The session's device; 0: all.
        device: DeviceId,
    }

    /// Broker → client: how many sessions are being ended.
    0x57 SessionsKicked {
        /// The request.
        request: u32,
        /// The count; 0 when there was none.
        sessions: u32,
    }
}
