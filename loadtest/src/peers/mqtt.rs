//! MQTT 3.1.1, the client's half of it, without I/O: bytes in, events out. The packets are rumqttc's.
//!
//! A message of quality of service 1 is acknowledged in both directions: the server's word to the publisher, and each
//! subscriber's to the server, as soon as it is taken from the bytes that have come.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::v4::{Connect, ConnectReturnCode, Packet, PubAck, Publish, Subscribe, SubscribeReasonCode};
use rumqttc::mqttbytes::{Error, QoS};

use super::dialect::Event;
use crate::limits::{PEER_LINE_BYTES_MAX, PEER_WINDOW_MAX};

/// The identifier of the one request to subscribe: those of messages are others at that time, as there are none yet.
const SUBSCRIBE: u16 = 1;

/// What the server and the client promise each other of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quality {
    /// Quality of service 0: nothing.
    AtMostOnce,
    /// Quality of service 1: an acknowledgement.
    AtLeastOnce,
}

/// One connection's half of the protocol.
#[derive(Debug)]
pub(crate) struct Mqtt {
    quality: Quality,
    client: String,
    /// Identifiers of messages that have no acknowledgement, with their numbers, the oldest first.
    pending: VecDeque<(u16, u32)>,
    last: u16,
}

impl Mqtt {
    /// `client` tells this connection from all others.
    pub(crate) fn new(client: &str, quality: Quality) -> Self {
        Self { quality, client: client.to_owned(), pending: VecDeque::new(), last: 0 }
    }

    /// What follows the handshake, up to the server's word that it lets the client in.
    pub(crate) fn open(&self, out: &mut BytesMut) {
        let mut connect = Connect::new(self.client.clone());
        // No signs of life are asked for: a run is short, and a lost connection shows by itself.
        connect.keep_alive = 0;
        put(&Packet::Connect(connect), out);
    }

    /// Asks for what is published to this topic.
    pub(crate) fn subscribe(&self, topic: &str, out: &mut BytesMut) {
        let mut subscribe = Subscribe::new(topic, self.qos());
        subscribe.pkid = SUBSCRIBE;
        put(&Packet::Subscribe(subscribe), out);
    }

    /// Publishes, under a number that comes back with the acknowledgement, if there is one. At most [`PEER_WINDOW_MAX`] messages
    /// may be without it.
    pub(crate) fn publish(&mut self, topic: &str, number: u32, payload: Bytes, out: &mut BytesMut) {
        let mut publish = Publish::from_bytes(topic, self.qos(), payload);
        if self.quality == Quality::AtLeastOnce {
            debug_assert!(self.pending.len() < PEER_WINDOW_MAX as usize, "identifiers would be used twice");
            self.last = self.last % u16::MAX + 1;
            publish.pkid = self.last;
            self.pending.push_back((self.last, number));
        }
        put(&Packet::Publish(publish), out);
    }

    /// Takes the next packet that matters from what has come; what the server must be told goes into `out`. `None`: more
    /// bytes are needed.
    ///
    /// # Errors
    /// The server said what it may not say, or refuses the client.
    pub(crate) fn take(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Event>, String> {
        loop {
            let packet = match Packet::read(input, PEER_LINE_BYTES_MAX) {
                Ok(packet) => packet,
                Err(Error::InsufficientBytes(_)) => return Ok(None),
                Err(error) => return Err(format!("a packet that is none: {error:?}")),
            };
            match packet {
                Packet::Publish(publish) => {
                    if publish.qos == QoS::AtLeastOnce {
                        put(&Packet::PubAck(PubAck::new(publish.pkid)), out);
                    }
                    return Ok(Some(Event::Message(publish.payload)));
                }
                Packet::PubAck(ack) => return self.acknowledged(ack.pkid).map(Some),
                Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => return Ok(Some(Event::Confirmed)),
                Packet::ConnAck(ack) => return Err(format!("the server refuses the client: {:?}", ack.code)),
                Packet::SubAck(ack) => {
                    let granted = SubscribeReasonCode::Success(self.qos());
                    if ack.return_codes != [granted] {
                        return Err(format!("the server refuses the subscription: {:?}", ack.return_codes));
                    }
                    return Ok(Some(Event::Confirmed));
                }
                Packet::PingResp => {}
                Packet::Connect(_)
                | Packet::PubRec(_)
                | Packet::PubRel(_)
                | Packet::PubComp(_)
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
                | Packet::UnsubAck(_)
                | Packet::PingReq
                | Packet::Disconnect => return Err(format!("a packet that was not asked for: {packet:?}")),
            }
        }
    }

    /// Servers acknowledge in order, so that this is the oldest; one that does not is looked for.
    fn acknowledged(&mut self, identifier: u16) -> Result<Event, String> {
        let place = self.pending.iter().position(|(pending, _)| *pending == identifier);
        let number = place.and_then(|place| self.pending.remove(place)).map(|(_, number)| number);
        number.map(Event::Accepted).ok_or_else(|| format!("an acknowledgement of {identifier}, which was not sent"))
    }

    fn qos(&self) -> QoS {
        match self.quality {
            Quality::AtMostOnce => QoS::AtMostOnce,
            Quality::AtLeastOnce => QoS::AtLeastOnce,
        }
    }
}

fn put(packet: &Packet, out: &mut BytesMut) {
    packet.write(out, PEER_LINE_BYTES_MAX).expect("a run's payloads are far smaller than a packet may be");
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::v4::{ConnAck, SubAck};

    /// What a server would send.
    fn bytes(packets: &[Packet]) -> BytesMut {
        let mut out = BytesMut::new();
        packets.iter().for_each(|packet| put(packet, &mut out));
        out
    }

    fn let_in() -> Packet {
        Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))
    }

    /// Gives the codec these packets, in every possible pair of parts, and compares the events and what is said back.
    fn check(packets: &[Packet], events: &[Event], said: &[Packet]) {
        let input = bytes(packets);
        for cut in 0..=input.len() {
            let mut mqtt = Mqtt::new("a", Quality::AtLeastOnce);
            mqtt.publish("here", 70, Bytes::new(), &mut BytesMut::new());
            mqtt.publish("here", 71, Bytes::new(), &mut BytesMut::new());
            let (mut buffer, mut out, mut seen) = (BytesMut::new(), BytesMut::new(), Vec::new());
            for part in [&input[..cut], &input[cut..]] {
                buffer.extend_from_slice(part);
                while let Some(event) = mqtt.take(&mut buffer, &mut out).unwrap() {
                    seen.push(event);
                }
            }
            assert_eq!(seen, events, "cut at {cut}");
            assert_eq!(out, bytes(said), "cut at {cut}");
        }
    }

    #[test]
    fn what_the_server_says_is_understood_however_it_is_cut() {
        check(&[let_in(), Packet::PingResp], &[Event::Confirmed], &[]);
        let granted = SubAck::new(SUBSCRIBE, vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)]);
        check(&[Packet::SubAck(granted)], &[Event::Confirmed], &[]);
        let acks = [Packet::PubAck(PubAck::new(2)), Packet::PubAck(PubAck::new(1))];
        check(&acks, &[Event::Accepted(71), Event::Accepted(70)], &[]);
        let once = Publish::new("here", QoS::AtMostOnce, *b"abc");
        let again = Publish { pkid: 9, ..Publish::new("here", QoS::AtLeastOnce, *b"d") };
        check(
            &[Packet::Publish(once), Packet::Publish(again)],
            &[Event::Message(Bytes::from_static(b"abc")), Event::Message(Bytes::from_static(b"d"))],
            &[Packet::PubAck(PubAck::new(9))],
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (packet, why) in [
            (Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false)), "NotAuthorized"),
            (Packet::SubAck(SubAck::new(SUBSCRIBE, vec![SubscribeReasonCode::Failure])), "subscription"),
            (Packet::PubAck(PubAck::new(5)), "not sent"),
            (Packet::PingReq, "not asked for"),
        ] {
            let refused = Mqtt::new("a", Quality::AtMostOnce).take(&mut bytes(&[packet]), &mut BytesMut::new());
            assert!(refused.as_ref().is_err_and(|text| text.contains(why)), "{refused:?}, expected {why}");
        }
    }

    #[test]
    fn identifiers_are_never_zero_and_come_back_with_their_numbers() {
        let mut mqtt = Mqtt::new("a", Quality::AtLeastOnce);
        for number in 0..70_000 {
            mqtt.publish("here", number, Bytes::new(), &mut BytesMut::new());
            let identifier = mqtt.last;
            assert!(identifier > 0);
            let ack = mqtt.take(&mut bytes(&[Packet::PubAck(PubAck::new(identifier))]), &mut BytesMut::new());
            assert_eq!(ack.unwrap(), Some(Event::Accepted(number)));
        }
    }
}
