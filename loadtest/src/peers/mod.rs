//! The peers that Carillon is measured against, under the same load: nats-server and mosquitto, over TLS.
//!
//! Owns the clients of their protocols, which are small and of this crate, so that the load generator costs as little beside
//! a peer as it does beside Carillon: one thread, one task a connection. The protocols themselves are pure; the
//! scenarios count and time as Carillon's do, with the same code. Knows nothing of Carillon's broker.
//!
//! Invariants: what is asked of a peer is what is asked of Carillon (payloads, rounds, sources, what is in flight), and the
//! report is the same.

mod dialect;
mod fanout;
mod line;
mod mqtt;
mod nats;
pub mod publish;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use fanout::run as fanout;
pub use mqtt::Quality;
pub use nats::Answers;

/// Which peer, and what it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// nats-server.
    Nats(Answers),
    /// An MQTT 3.1.1 server.
    Mqtt(Quality),
}

impl Peer {
    /// As reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats(Answers::None) => "nats",
            Self::Nats(Answers::JetStream) => "nats-jetstream",
            Self::Mqtt(Quality::AtMostOnce) => "mqtt-qos0",
            Self::Mqtt(Quality::AtLeastOnce) => "mqtt-qos1",
        }
    }

    /// Whether it says of a message that it has taken it.
    pub(crate) fn answers(self) -> bool {
        match self {
            Self::Nats(Answers::None) | Self::Mqtt(Quality::AtMostOnce) => false,
            Self::Nats(Answers::JetStream) | Self::Mqtt(Quality::AtLeastOnce) => true,
        }
    }
}

/// A peer's server, and whom to trust that it is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTarget {
    /// Which peer it is.
    pub peer: Peer,
    /// Where it listens (TCP).
    pub address: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    /// Who vouches for it.
    pub ca: PathBuf,
}
