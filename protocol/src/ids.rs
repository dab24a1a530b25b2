//! Identifiers. Every one is a newtype, so that two of them cannot be swapped unnoticed.

use core::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($repr:ty);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        #[rkyv(attr(doc = "The little-endian form on the wire and on disk."))]
        pub struct $name(pub $repr);

        impl crate::flat::Plain for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

ids! {
    /// An organisation, numbered by the broker from 0 in the order of first appearance. Never on the wire:
    /// the tenant comes from the authenticated session.
    TenantId(u32);
    /// A user of a tenant, numbered by the broker from 0 inside the tenant. Means nothing in another tenant.
    UserId(u32);
    /// One installation of a user's client, chosen at random by the client and kept over its restarts.
    DeviceId(u64);
    /// One numbering of publishes, chosen at random by the client and kept over its restarts.
    ProducerId(u64);
    /// A set of conversations with one journal and one sequencer.
    ShardId(u16);
    /// Number of a message inside its conversation, gap-free, from 1. 0 stands for "before the first".
    Seq(u64);
    /// Ordinal of a record in its shard's journal, dense, from 1. 0 stands for "before the first".
    Position(u64);
    /// Which history a journal belongs to: chosen at random when a journal is created or restored.
    Incarnation(u64);
    /// Which owner wrote a batch; 1 on a single machine.
    Epoch(u64);
    /// Milliseconds since the Unix epoch, UTC.
    Timestamp(u64);
}

/// The low 48 bits of an id that carries its shard in the high 16.
const ORDINAL_MASK: u64 = (1 << 48) - 1;

macro_rules! sharded_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        ids! { $($(#[$doc])* $name(u64);)* }
        $(impl $name {
            /// The id with this ordinal (its low 48 bits count) in this shard.
            pub const fn new(shard: ShardId, ordinal: u64) -> Self {
                Self((shard.0 as u64) << 48 | (ordinal & ORDINAL_MASK))
            }

            /// The shard, from the high 16 bits.
            pub const fn shard(self) -> ShardId {
                ShardId((self.0 >> 48) as u16)
            }

            /// The ordinal inside the shard, from the low 48 bits, counted from 1.
            pub const fn ordinal(self) -> u64 {
                self.0 & ORDINAL_MASK
            }
        })*
    };
}

sharded_ids! {
    /// What messages are published into: shard in the high 16 bits, ordinal from 1 in the low 48.
    ConversationId;
    /// An urgent push that must be confirmed: shard in the high 16 bits, ordinal from 1 in the low 48.
    DingId;
}

impl Position {
    /// The position after this one; the last one, which no journal reaches but a peer may send, stays.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Seq {
    /// The seq after this one; the last one, which no conversation reaches but a peer may send, stays.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharded_ids_keep_shard_and_ordinal() {
        let id = ConversationId::new(ShardId(7), 42);
        assert_eq!(id.0, 7 << 48 | 42);
        assert_eq!((id.shard(), id.ordinal()), (ShardId(7), 42));
    }
}
