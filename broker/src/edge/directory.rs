//! Who is online: the live sessions of all edges, by user.
//!
//! Kept by the edges when a session is attached and when it is forgotten, which is rare, and asked for presence, lists of
//! sessions and kicks. Never touched when messages are delivered. Volatile: it says what is true now.

use std::net::SocketAddr;

use carillon_protocol::frame::Text;
use carillon_protocol::ids::{DeviceId, ProducerId, TenantId, Timestamp, UserId};
use dashmap::{DashMap, Entry};
use rustc_hash::FxBuildHasher;

use super::limits::CLIENT_BYTES_KEPT;
use crate::sequencer::Origin;

/// A live session, as it was when it was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub origin: Origin,
    /// Its device.
    pub device: DeviceId,
    /// Its producer, 0 without one.
    pub producer: ProducerId,
    /// What the client said it is, cut to 256 bytes.
    pub client: Text,
    /// Where it came from.
    pub address: SocketAddr,
    /// When.
    pub since: Timestamp,
}

/// See the module. Bounded by the connections that the edges may hold.
#[derive(Debug, Default)]
pub struct Directory {
    // The broker numbers tenants and users, so nobody can flood a bucket.
    users: DashMap<(TenantId, UserId), Vec<Listed>, FxBuildHasher>,
}

impl Directory {
    /// A session is open.
    pub(super) fn enter(&self, tenant: TenantId, user: UserId, listed: Listed) {
        let client = listed.client.as_str();
        // A copy, so that what is kept does not keep all of a Hello.
        let client = client[..client.floor_char_boundary(CLIENT_BYTES_KEPT)].into();
        let mut sessions = self.users.entry((tenant, user)).or_default();
        // Most users have one: room for four would be three times what is listed.
        sessions.reserve_exact(1);
        sessions.push(Listed { client, ..listed });
    }

    /// A session is over.
    pub(super) fn leave(&self, tenant: TenantId, user: UserId, origin: Origin) {
        if let Entry::Occupied(mut entry) = self.users.entry((tenant, user)) {
            entry.get_mut().retain(|listed| listed.origin != origin);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }

    /// Since when a user is online; `None` when not.
    pub fn online_since(&self, tenant: TenantId, user: UserId) -> Option<Timestamp> {
        self.users.get(&(tenant, user))?.iter().map(|listed| listed.since).min()
    }

    /// A user's sessions, the oldest first.
    pub fn sessions(&self, tenant: TenantId, user: UserId) -> Vec<Listed> {
        let mut sessions = self.users.get(&(tenant, user)).map(|listed| listed.clone()).unwrap_or_default();
        sessions.sort_by_key(|listed| (listed.since, listed.origin));
        sessions
    }
}

#[cfg(test)]
mod tests {
    use carillon_transport::LinkKey;

    use super::*;
    use crate::sequencer::EdgeId;

    const ANN: (TenantId, UserId) = (TenantId(0), UserId(4));

    fn listed(edge: usize, index: u32, since: u64) -> Listed {
        let origin = Origin { edge: EdgeId(edge), link: LinkKey { index, generation: 0 } };
        let client = "é".repeat(200).as_str().into();
        let address = "192.0.2.7:44".parse().unwrap();
        Listed { origin, device: DeviceId(1), producer: ProducerId(0), client, address, since: Timestamp(since) }
    }

    #[test]
    fn a_user_is_online_from_the_first_session_to_the_last() {
        let directory = Directory::default();
        assert_eq!(directory.online_since(ANN.0, ANN.1), None);
        for session in [listed(1, 3, 20), listed(0, 3, 10)] {
            directory.enter(ANN.0, ANN.1, session);
        }
        assert_eq!(directory.online_since(ANN.0, ANN.1), Some(Timestamp(10)));
        assert_eq!(directory.online_since(TenantId(1), ANN.1), None, "another tenant's user of that number");
        let found = directory.sessions(ANN.0, ANN.1);
        assert_eq!(found.iter().map(|listed| listed.origin.edge.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(found[0].client.as_str(), "é".repeat(128));
        directory.leave(ANN.0, ANN.1, listed(0, 3, 0).origin);
        directory.leave(ANN.0, ANN.1, listed(0, 3, 0).origin);
        assert_eq!(directory.online_since(ANN.0, ANN.1), Some(Timestamp(20)));
        directory.leave(ANN.0, ANN.1, listed(1, 3, 0).origin);
        assert!(directory.users.is_empty());
    }
}
