//! Carillon's event loop over quinn-proto and quinn-udp, for the server and the client role.
//!
//! **Owns** sockets, packets, QUIC connections and their timers. One [`Endpoint`] belongs to one
//! thread, which drives it: [`Endpoint::poll`] waits and yields [`Event`]s, the caller acts on them
//! through [`Endpoint::link`], and [`Endpoint::flush`] sends what came of it in one batch.
//!
//! **Must not know** messages, sessions, tenants or files; nor may anybody else name quinn-proto,
//! which is why streams, events and errors have types of their own here. It reads no clock but the
//! one its caller hands it.
//!
//! **Invariants**
//!
//! - One thread, no lock and no task: only [`Waker::wake`] and the hand-over of packets that the
//!   kernel gave to a neighbour cross threads, over bounded queues.
//! - A [`LinkKey`] names one connection for ever: a stale key finds nothing.
//! - [`Event::Closed`] comes exactly once for every connection that was [`Event::Connected`], and
//!   for every one that [`Endpoint::connect`] began; it is the last event of its connection.
//! - Work per [`Endpoint::poll`] is bounded, so that its caller gets its turn.
//! - Nothing sleeps on unsent packets: `poll` flushes before it waits.

mod batch;
mod config;
mod congestion;
mod connection;
mod endpoint;
mod event;
mod group;
mod header_keys;
mod keys;
mod limits;
mod link;
mod packet_keys;
mod prefetch;
mod reuseport;
mod socket;
mod stats;
mod steer;
mod table;
mod timers;
mod tls;
mod unacked;
mod unproved;
mod waker;

pub use config::{AckFrequency, ConfigRefused, INCOMING_MAX, TransportConfig};
pub use connection::ConnectionLink;
pub use endpoint::{ConnectError, Endpoint};
pub use event::{CloseReason, Event};
pub use header_keys::with_slim_header_keys;
pub use link::{DatagramRefused, Direction, Link, LinkKey, Read, Room, StreamClosed, StreamId, Unacknowledged};
pub use socket::SocketBuffers;
pub use stats::Stats;
pub use steer::owner_of;
pub use waker::{Clock, Waker};

#[cfg(test)]
mod tests;
