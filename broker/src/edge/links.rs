//! The connections of an edge: the transport's endpoint, or simulated ones in tests.

use carillon_transport::{ConnectionLink, Endpoint, Link, LinkKey};

/// Finds the link of a session.
pub trait Links {
    /// A link for as long as it is used.
    type Link<'a>: Link
    where
        Self: 'a;

    /// The link, or `None` when the connection is gone.
    fn link(&mut self, key: LinkKey) -> Option<Self::Link<'_>>;

    /// Builds the packets of what was written, while the connections are in the caches. It is done after the turn in any case.
    fn pack(&mut self) {}

    /// Says that the link in this slot is about to be used.
    fn expect(&self, _index: u32) {}
}

impl Links for Endpoint {
    type Link<'a> = ConnectionLink<'a>;

    fn link(&mut self, key: LinkKey) -> Option<ConnectionLink<'_>> {
        Endpoint::link(self, key)
    }

    fn pack(&mut self) {
        Endpoint::pack(self);
    }

    fn expect(&self, index: u32) {
        Endpoint::expect(self, index);
    }
}
