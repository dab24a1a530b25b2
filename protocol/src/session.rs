//! Frames that open, keep and end a session.

use alloc::vec::Vec;

use crate::frame::Text;
use crate::ids::{ConversationId, DeviceId, Incarnation, Position, ProducerId, Seq, ShardId, Timestamp, UserId};
use crate::kinds::{Lane, Retired};

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 1;

/// In `Hello`: everything that was missed is wanted.
pub const NEWEST_ALL: u32 = u32::MAX;

/// What ALPN must agree on.
pub const ALPN: &[u8] = b"carillon/1";

crate::elements! {
    /// What a device has acknowledged of one shard.
    Cursor {
        /// The shard.
        shard: ShardId,
        /// The journal's incarnation when the cursor was made; 0 with position 0: none yet.
        incarnation: Incarnation,
        /// All that was addressed to the device up to here is its own.
        position: Position,
        /// All read updates up to here are its own; 0: it wants none but those to come, from `Welcome.head` on.
        receipts_through: Position,
    }
}

crate::frames! {
    /// Client → broker: the first frame on the control stream.
    0x01 Hello {
        /// [`VERSION`].
        version: u16,
        /// This installation; a live session of the same device is fenced.
        device: DeviceId,
        /// The numbering of publishes of this session; 0 when it publishes nothing.
        producer: ProducerId,
        /// At most this many messages of each conversation are wanted, the newest, of those the device has missed;
        /// [`NEWEST_ALL`]: all of them; 0: none. What is left out is named by `Skipped`.
        newest: u32,
    } [
        /// A JWT signed with EdDSA: claims `tenant`, `sub`, `role`, `exp`, `aud`.
        token: Text,
        /// What the client is, for the operator; may be empty.
        client: Text,
        /// At most one cursor a shard; none: from the beginning.
        cursors: Vec<Cursor>,
    ]

    /// Broker → client: the session is open.
    0x02 Welcome {
        /// The version spoken.
        version: u16,
        /// Who the token says this is.
        user: UserId,
        /// The shard that the fields below are about.
        shard: ShardId,
        /// The journal's incarnation, to be kept in cursors.
        incarnation: Incarnation,
        /// The last durable position when the session was attached.
        head: Position,
        /// The highest number of the producer that has a result; 0 without one.
        producer_highest: u64,
        /// The shard's time, from which starts of DINGs are reckoned: never behind the broker's clock.
        time: Timestamp,
        /// Silence after which the broker takes the connection for dead, in milliseconds.
        idle_timeout_ms: u32,
        /// The largest payload accepted.
        payload_bytes_max: u32,
        /// DINGs that wait for this user's confirmation; they follow on the urgent lane.
        dings_open: u32,
    } [
        /// The user's handle.
        handle: Text,
    ]

    /// Client → broker: a new token for the same tenant, user and role. Answered by `Done`.
    0x03 Refresh {
        /// Chosen by the client, above 0.
        request: u32,
    } [
        /// The new token.
        token: Text,
    ]

    /// Client → broker: cumulative acknowledgement; no reply.
    0x04 Ack {
        /// The shard.
        shard: ShardId,
        /// All that was addressed to the device up to here is its own; at most what was sent.
        position: Position,
        /// Up to where it has stored what read updates tell; at most what they, a `Progress`, its `Hello` and, if that said 0, its
        /// `Welcome.head` have said.
        receipts_through: Position,
    }

    /// Broker → client, inbox: nothing was addressed to the device between the last frame and here.
    0x05 Progress {
        /// The shard.
        shard: ShardId,
        /// May be acknowledged.
        position: Position,
        /// Likewise, for read updates: all that has moved up to here was sent; 0: nothing is said of it.
        receipts_through: Position,
    }

    /// Broker → client, inbox: of these, the device will not get what it has not had.
    0x06 Truncated {
        /// The conversation; 0: conversations that the user left so long ago that the broker no longer knows them.
        conversation: ConversationId,
        /// The first seq that is gone; 0 with conversation 0.
        first: Seq,
        /// The last seq that is gone; 0 with conversation 0.
        last: Seq,
        /// May be acknowledged.
        position: Position,
    }

    /// Broker → client, inbox: left out by a bounded catch-up; can be had as history.
    0x07 Skipped {
        /// The conversation.
        conversation: ConversationId,
        /// The first seq left out.
        first: Seq,
        /// The last seq left out.
        last: Seq,
        /// May be acknowledged.
        position: Position,
    }

    /// Broker → client: the first frame on each stream the broker opens.
    0x08 LaneOpened {
        /// Which lane the stream is.
        lane: Lane,
    }

    /// Broker → client, control: the session ends soon.
    0x09 Goodbye {
        /// Wait this long before the next connection, in milliseconds.
        reconnect_after_ms: u32,
    }

    /// Client → broker: give up a device or a producer of one's own. Answered by `Done`.
    0x0a Retire {
        /// Chosen by the client, above 0.
        request: u32,
        /// Device or producer.
        what: Retired,
        /// Its id.
        id: u64,
    }
}
