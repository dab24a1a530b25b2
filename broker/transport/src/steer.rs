//! Packet → owning thread.
//!
//! Byte 0 of a connection id, modulo the number of endpoints in the group, names the endpoint that owns
//! the connection. The ids we issue are made so; the random id with which a client begins thereby chooses
//! an owner, and everything it sends before it knows ours goes there too. The kernel applies the same rule
//! (`reuseport`); what it places elsewhere is handed to the owner, raw, over a bounded queue.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use crossbeam::queue::ArrayQueue;
use quinn_proto as quic;

use crate::limits::{CONNECTION_ID_BYTES, HANDOVER_QUEUE_MAX};
use crate::waker::Waker;

/// Bit 7 of byte 0: set in a long header (RFC 8999 section 5.1).
pub(crate) const LONG_HEADER_BIT: u8 = 0x80;
/// Where the destination connection id begins after a short header's first byte.
pub(crate) const SHORT_ID_OFFSET: u8 = 1;
/// Where it begins in a long header: first byte, version (4), length of the id (1).
pub(crate) const LONG_ID_OFFSET: u8 = 6;

/// The endpoint of a group of `threads` that owns the packet's connection. `None` for what is too short to
/// be a packet or has no connection id: whoever got it may judge it.
///
/// # Panics
/// If there are no threads.
pub fn owner_of(packet: &[u8], threads: usize) -> Option<usize> {
    let first = *packet.first()?;
    let id_offset = if first & LONG_HEADER_BIT == 0 {
        SHORT_ID_OFFSET
    } else if *packet.get(usize::from(LONG_ID_OFFSET) - 1)? > 0 {
        LONG_ID_OFFSET
    } else {
        return None;
    };
    Some(usize::from(*packet.get(usize::from(id_offset))?) % threads)
}

/// A received packet, raw.
pub(crate) struct Packet {
    pub(crate) remote: SocketAddr,
    /// The address it was sent to, where that matters for the answer.
    pub(crate) local_ip: Option<IpAddr>,
    pub(crate) ecn: Option<quic::EcnCodepoint>,
    pub(crate) bytes: BytesMut,
}

/// One endpoint as its neighbours see it.
#[derive(Clone)]
pub(crate) struct Neighbour {
    queue: Arc<ArrayQueue<Packet>>,
    waker: Waker,
}

/// The hand-over between the endpoints of a group.
pub(crate) struct Steering {
    own_index: usize,
    group: Arc<[Neighbour]>,
}

/// What became of a packet.
pub(crate) enum Steered {
    /// It is this endpoint's own.
    Own(Packet),
    /// Its owner has it.
    HandedOver,
    /// Its owner's queue is full: the packet is lost, as UDP may.
    Lost,
}

impl Neighbour {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(HANDOVER_QUEUE_MAX)), waker }
    }
}

impl Steering {
    pub(crate) fn new(own_index: usize, group: Arc<[Neighbour]>) -> Self {
        Self { own_index, group }
    }

    /// Hands the packet to its owner, or back to the caller who is that.
    pub(crate) fn steer(&self, packet: Packet) -> Steered {
        if self.group.len() == 1 {
            return Steered::Own(packet);
        }
        match owner_of(&packet.bytes, self.group.len()) {
            None => Steered::Own(packet),
            Some(owner) if owner == self.own_index => Steered::Own(packet),
            Some(owner) => {
                let neighbour = &self.group[owner];
                match neighbour.queue.push(packet) {
                    Ok(()) => {
                        neighbour.waker.wake();
                        Steered::HandedOver
                    }
                    Err(_packet) => Steered::Lost,
                }
            }
        }
    }

    /// The next packet that a neighbour handed over.
    pub(crate) fn take(&self) -> Option<Packet> {
        self.group[self.own_index].queue.pop()
    }
}

/// Issues connection ids that name their owner.
pub(crate) struct OwnedIds {
    random: quic::RandomConnectionIdGenerator,
    owner: u8,
    threads: u8,
}

impl OwnedIds {
    pub(crate) fn new(owner: u8, threads: u8) -> Self {
        debug_assert!(owner < threads);
        Self { random: quic::RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES), owner, threads }
    }
}

impl quic::ConnectionIdGenerator for OwnedIds {
    fn generate_cid(&mut self) -> quic::ConnectionId {
        let mut id = self.random.generate_cid();
        // The multiple of `threads` below the random byte, plus the owner: at most 255 − 255 % threads
        // + owner, which can pass 255 in the last, incomplete multiple; then the one before it.
        let base = id[0] - id[0] % self.threads;
        id[0] = base.checked_add(self.owner).unwrap_or_else(|| base - self.threads + self.owner);
        id
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use quic::ConnectionIdGenerator;

    use super::*;

    #[test]
    fn every_issued_id_names_its_owner_and_varies() {
        for threads in 1..=64 {
            for owner in [0, threads / 2, threads - 1] {
                let mut ids = OwnedIds::new(owner, threads);
                let mut first_bytes = std::collections::BTreeSet::new();
                for _ in 0..200 {
                    let id = ids.generate_cid();
                    assert_eq!(id.len(), CONNECTION_ID_BYTES);
                    assert_eq!(id[0] % threads, owner, "{owner} of {threads}");
                    first_bytes.insert(id[0]);
                }
                assert!(first_bytes.len() > 1, "{owner} of {threads}");
            }
        }
    }

    #[test]
    fn the_owner_is_read_from_both_headers() {
        let short = [0x40, 7, 0, 0];
        let long = [0xc0, 0, 0, 0, 1, 8, 6, 0];
        assert_eq!(owner_of(&short, 4), Some(3));
        assert_eq!(owner_of(&long, 4), Some(2));
        for (packet, cut) in [(&short[..], 2), (&long[..], 7)] {
            for length in 0..cut {
                assert_eq!(owner_of(&packet[..length], 4), None);
            }
        }
        assert_eq!(owner_of(&[0xc0, 0, 0, 0, 1, 0, 6, 0], 4), None, "an empty id has no owner");
    }
}
