//! The protocols of the peers behind one face: what a client says, and what it hears.

use bytes::{Bytes, BytesMut};

use super::Peer;
use super::mqtt::Mqtt;
use super::nats::Nats;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It has understood what it was told last: the opening, or the subscription.
    Confirmed,
    /// A message to what was subscribed to.
    Message(Bytes),
    /// It has taken what was published under this number.
    Accepted(u32),
    /// It refuses something that was published or asked.
    Refused(String),
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Dialect {
    /// NATS, core or JetStream.
    Nats(Nats),
    /// MQTT 3.1.1.
    Mqtt(Mqtt),
}

impl Dialect {
    /// `name` tells this connection from all others of the server.
    pub(crate) fn new(peer: Peer, name: &str) -> Self {
        match peer {
            Peer::Nats(answers) => Self::Nats(Nats::new(name, answers)),
            Peer::Mqtt(quality) => Self::Mqtt(Mqtt::new(name, quality)),
        }
    }

    pub(crate) fn open(&self, out: &mut BytesMut) {
        match self {
            Self::Nats(nats) => nats.open(out),
            Self::Mqtt(mqtt) => mqtt.open(out),
        }
    }

    pub(crate) fn subscribe(&self, topic: &str, out: &mut BytesMut) {
        match self {
            Self::Nats(nats) => nats.subscribe(topic, out),
            Self::Mqtt(mqtt) => mqtt.subscribe(topic, out),
        }
    }

    pub(crate) fn publish(&mut self, topic: &str, number: u32, payload: Bytes, out: &mut BytesMut) {
        match self {
            Self::Nats(nats) => nats.publish(topic, number, &payload, out),
            Self::Mqtt(mqtt) => mqtt.publish(topic, number, payload, out),
        }
    }

    /// The next thing that the server said and that matters; `None`: more bytes are needed. What it must be told goes into
    /// `out`.
    ///
    /// # Errors
    /// The connection is of no more use, and why.
    pub(crate) fn take(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Event>, String> {
        match self {
            Self::Nats(nats) => nats.take(input, out),
            Self::Mqtt(mqtt) => mqtt.take(input, out),
        }
    }
}
