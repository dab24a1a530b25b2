//! What the edge tells its meter. Nothing here is read back.

use carillon_protocol::Frame;
use carillon_transport::{CloseReason, Endpoint};

use super::Edge;
use super::session::{Feed, Phase};

impl Edge {
    /// Once a turn: some stores into lines of this thread's own.
    pub(super) fn publish_stats(&self) {
        let (meter, stats) = (&self.meter, &self.stats);
        meter.delivered_live.set(stats.delivered_live);
        meter.delivered_catching_up.set(stats.delivered_catching_up);
        meter.rounds_cut.set(stats.rounds_cut);
        meter.fell_behind.set(stats.fell_behind);
        meter.fell_off_ring.set(stats.fell_off_ring);
        meter.closed_as_slow.set(stats.closed_as_slow);
        meter.reads.set(stats.reads);
        meter.unreadable.set(stats.unreadable);
        meter.receipts_let_go.set(stats.receipts_let_go);
        meter.replies_owed.set(self.reserved as u64);
        meter.ring_next.set(self.next_ordinal);
        meter.pinned_bytes.set(self.pinned_bytes() as u64);
    }

    /// Once a turn, what the transport counts.
    pub(super) fn publish_transport(&self, endpoint: &Endpoint) {
        let (meter, stats) = (&self.meter, endpoint.stats());
        meter.connections.set(endpoint.links_open() as u64);
        meter.handshakes.set(stats.handshakes_started);
        meter.handshakes_failed.set(stats.handshakes_failed);
        meter.connections_refused.set(stats.connections_refused);
        meter.retries.set(stats.retries);
        meter.incoming_dropped.set(stats.incoming_dropped);
        meter.packets_received.set(stats.packets_received);
        meter.packets_sent.set(stats.packets_sent);
        meter.packets_dropped.set(stats.send_dropped);
        meter.handovers.set(stats.handovers);
        meter.handovers_dropped.set(stats.handovers_dropped);
    }

    /// Once a second: the sessions by state, which no event keeps count of.
    pub(super) fn count_sessions(&self) {
        let (mut opening, mut live, mut catching_up) = (0, 0, 0);
        for session in self.sessions.iter() {
            match (&session.phase, &session.feed) {
                (Phase::Attached(_), Feed::Live { .. }) => live += 1,
                (Phase::Attached(_), _) => catching_up += 1,
                (Phase::AwaitingHello { .. } | Phase::Attaching(_), _) => opening += 1,
            }
        }
        self.meter.sessions_opening.set(opening);
        self.meter.sessions_live.set(live);
        self.meter.sessions_catching_up.set(catching_up);
    }

    pub(super) fn count_reply(&self, frame: &Frame) {
        match frame {
            Frame::Published(_) => self.meter.publishes_done.add(1),
            Frame::PublishRefused(refused) => self.meter.refusals.count(refused.code),
            Frame::Error(error) => self.meter.refusals.count(error.code),
            _ => {}
        }
    }

    /// A connection ended, and not by this side.
    pub(super) fn count_end(&self, reason: &CloseReason) {
        match reason {
            CloseReason::ByUs => {}
            CloseReason::ByPeer { .. } => self.meter.ended_by_peer.add(1),
            CloseReason::TimedOut => self.meter.ended_silent.add(1),
            CloseReason::Reset
            | CloseReason::Refused
            | CloseReason::HandshakeFailed(_)
            | CloseReason::ProtocolViolated(_)
            | CloseReason::Aborted(_) => self.meter.ended_broken.add(1),
        }
    }
}
