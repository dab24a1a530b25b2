//! The receiving half of the loop: from the socket to the connection that a packet belongs to.

use std::io;
use std::mem;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto as quic;

use super::{Endpoint, touch};
use crate::connection::Connection;
use crate::event::Event;
use crate::limits::{HANDOVER_QUEUE_MAX, RECEIVE_BATCH, RECEIVE_BATCHES_MAX};
use crate::link::LinkKey;
use crate::steer::{Packet, Steered};

impl Endpoint {
    /// Takes packets from the socket, a bounded number, and notes whether some may be left.
    pub(super) fn receive(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.drained = false;
        let mut packets = mem::take(&mut self.packets);
        for _ in 0..RECEIVE_BATCHES_MAX {
            let messages = match self.socket.receive() {
                Ok(messages) => messages,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.drained = true;
                    break;
                }
                // The echo of an earlier packet of ours; QUIC does not trust it.
                Err(error) if is_icmp(&error) => continue,
                Err(error) => return Err(error),
            };
            self.stats.receives += 1;
            packets.extend(self.socket.received(messages).map(|received| Packet {
                remote: received.remote,
                local_ip: received.local_ip,
                ecn: received.ecn,
                // Of its own, so that a slice kept of one datagram does not keep 64 KiB of others.
                bytes: BytesMut::from(received.bytes),
            }));
            self.stats.packets_received += packets.len() as u64;
            let now = self.clock.now();
            for packet in packets.drain(..) {
                match self.steering.steer(packet) {
                    Steered::Own(packet) => self.handle_packet(now, packet),
                    Steered::HandedOver => self.stats.handovers += 1,
                    Steered::Lost => self.stats.handovers_dropped += 1,
                }
            }
            self.handle_arrived(now, events);
            if messages < RECEIVE_BATCH {
                self.drained = true;
                break;
            }
        }
        self.packets = packets;
        self.polls_undrained = if self.drained { 0 } else { self.polls_undrained + 1 };
        Ok(())
    }

    pub(super) fn take_handovers(&mut self, now: Instant, events: &mut Vec<Event>) {
        for _ in 0..HANDOVER_QUEUE_MAX {
            let Some(packet) = self.steering.take() else { return self.handle_arrived(now, events) };
            self.stats.handovers_received += 1;
            self.handle_packet(now, packet);
        }
        self.handle_arrived(now, events);
        // A full queue was taken, and perhaps more has come: do not sleep on it.
        self.waker.wake();
    }

    /// Finds whom a packet is for. A connection handles it with the others of its batch, by when its memory has come.
    fn handle_packet(&mut self, now: Instant, packet: Packet) {
        let Packet { remote, local_ip, ecn, bytes } = packet;
        let mut response = mem::take(&mut self.response);
        response.clear();
        match self.quic.handle(now, remote, local_ip, ecn, bytes, &mut response) {
            Some(quic::DatagramEvent::ConnectionEvent(handle, event)) => {
                let index = u32::try_from(handle.0).expect("connections_max is a u32");
                if self.arrived.last().is_none_or(|(last, _)| *last != index) {
                    self.expect(index);
                }
                self.arrived.push((index, event));
            }
            Some(quic::DatagramEvent::NewConnection(incoming)) => self.handle_incoming(now, incoming, &mut response),
            Some(quic::DatagramEvent::Response(transmit)) => self.respond(transmit, &response),
            None => {}
        }
        self.response = response;
    }

    /// Hands each connection what has come for it, one connection after the other.
    fn handle_arrived(&mut self, now: Instant, events: &mut Vec<Event>) {
        let mut arrived = mem::take(&mut self.arrived);
        let mut packets = arrived.drain(..).peekable();
        while let Some((index, event)) = packets.next() {
            if let Some(connection) = self.connections.at_mut(index) {
                connection.handle_event(event);
            }
            if packets.peek().is_none_or(|(next, _)| *next != index) {
                self.leave(now, index, events);
            }
        }
        drop(packets);
        self.arrived = arrived;
    }

    /// Decides on a connection attempt at once, so that none is kept undecided.
    fn handle_incoming(&mut self, now: Instant, incoming: quic::Incoming, response: &mut Vec<u8>) {
        response.clear();
        if !self.accepting || self.quic.open_connections() >= self.config.connections_max as usize {
            self.stats.connections_refused += 1;
            let transmit = self.quic.refuse(incoming, response);
            self.respond(transmit, response);
        } else if self.handshakes_incoming >= self.config.incoming_max {
            self.stats.incoming_dropped += 1;
            self.quic.ignore(incoming);
        } else if self.wants_proof(now, &incoming) {
            self.stats.retries += 1;
            match self.quic.retry(incoming, response) {
                Ok(transmit) => self.respond(transmit, response),
                Err(refused) => self.quic.ignore(refused.into_incoming()),
            }
        } else {
            if !incoming.remote_address_validated() {
                self.unproved.begin(now);
            }
            match self.quic.accept(incoming, now, response, None) {
                Ok((handle, connection)) => {
                    self.enter(now, handle, connection);
                }
                Err(error) => {
                    tracing::debug!(cause = %error.cause, "a connection attempt failed");
                    self.stats.handshakes_started += 1;
                    self.stats.handshakes_failed += 1;
                    if let Some(transmit) = error.response {
                        self.respond(transmit, response);
                    }
                }
            }
        }
    }

    /// Whether a client must prove its address first: many handshakes run already, or many have just begun.
    fn wants_proof(&self, now: Instant, incoming: &quic::Incoming) -> bool {
        let is_asked_ever = self.config.incoming_retry_from < self.config.incoming_max;
        let many_run = self.handshakes_incoming >= self.config.incoming_retry_from;
        let many_begin = is_asked_ever && !self.unproved.may_begin(now);
        (many_run || many_begin) && !incoming.remote_address_validated() && incoming.may_retry()
    }

    /// Sends what the endpoint itself answers, with the next flush.
    fn respond(&mut self, transmit: quic::Transmit, response: &[u8]) {
        self.batch.fill(&self.socket.io, &mut self.stats, |buffer| {
            buffer.extend_from_slice(&response[..transmit.size]);
            Some(transmit)
        });
    }

    /// Gives a new connection its place, under quinn-proto's index, which is free here because places are freed in
    /// the moment in which quinn-proto frees its own.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        handle: quic::ConnectionHandle,
        connection: quic::Connection,
    ) -> LinkKey {
        let index = u32::try_from(handle.0).expect("connections_max is a u32");
        let key = self.connections.key(index);
        let connection = self.connections.insert(Connection::new(connection, key, now));
        touch(&mut self.touched, connection);
        self.entered.push(index);
        self.stats.handshakes_started += 1;
        self.recount(index);
        key
    }
}

/// Errors by which the kernel reports an ICMP message, and those of a passing shortage.
fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::EMSGSIZE
                | libc::ENOBUFS
                | libc::ENOMEM
        )
    )
}
