//! Letting go of the sessions: what was submitted is answered, what is queued leaves, then each is told why it ends.

use carillon_protocol::error::ErrorCode;
use carillon_protocol::session::Goodbye;
use carillon_transport::{Link, LinkKey};

use super::inbound::Which;
use super::session::Session;
use super::{Edge, Links};

/// Clients come back after this at the earliest.
const RECONNECT_AFTER_MS: u32 = 1_000;

/// They spread over so much time for each session of an edge: a handshake is 200 µs of work, and the others want theirs too.
const RECONNECT_SPREAD_MS_A_SESSION: u32 = 1;

/// At least over this.
const RECONNECT_SPREAD_MS_MIN: u32 = 1_000;

impl Edge {
    /// Accepts no further session, reads no further request, and tells the sessions there are to come back, each at a time of
    /// its own. What is committed is still delivered.
    pub fn drain<L: Links>(&mut self, links: &mut L) {
        self.draining = true;
        let keys = self.keys();
        let sessions = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
        let spread_ms = RECONNECT_SPREAD_MS_A_SESSION.saturating_mul(sessions).max(RECONNECT_SPREAD_MS_MIN);
        for (nth, key) in (0..sessions).zip(keys) {
            let later_ms = u64::from(spread_ms) * u64::from(nth) / u64::from(sessions);
            let later_ms = u32::try_from(later_ms).expect("at most the spread");
            let goodbye = Goodbye { reconnect_after_ms: RECONNECT_AFTER_MS.saturating_add(later_ms) };
            self.write_reply(links, key, Which::Control, &goodbye.into());
        }
    }

    /// Whether everything that was submitted is answered: nothing more is committed because of this edge.
    pub fn is_settled(&self) -> bool {
        self.reserved == 0 && self.outbox.is_empty() && self.stalled.is_none() && !self.marks.are_open()
    }

    /// Begins to end the sessions: no further slice of catch-up, which they read on from their cursors elsewhere.
    pub fn stop_catching_up(&mut self) {
        self.catching_up_stopped = true;
    }

    /// Closes the sessions that have everything that was queued for them, as far as their peers have acknowledged it. They
    /// have it all once the last committed batch is processed.
    pub fn close_delivered<L: Links>(&mut self, links: &mut L) {
        if self.has_more() || !self.rounds.is_empty() {
            return;
        }
        let keys = self.sessions.iter().filter(|session| session.has_nothing_waiting()).map(|session| session.key);
        let delivered = |key: &LinkKey| links.link(*key).is_none_or(|link| link.unacknowledged().is_none());
        let delivered: Vec<LinkKey> = keys.filter(delivered).collect();
        self.close_as_draining(links, delivered);
    }

    /// Closes every session.
    pub fn close_all<L: Links>(&mut self, links: &mut L) {
        let keys = self.keys();
        self.close_as_draining(links, keys);
    }

    fn close_as_draining<L: Links>(&mut self, links: &mut L, keys: Vec<LinkKey>) {
        for key in keys {
            self.close(links, key, ErrorCode::DRAINING, "the broker is stopping: reconnect");
        }
    }

    fn keys(&self) -> Vec<LinkKey> {
        self.sessions.iter().map(|session| session.key).collect()
    }
}

impl Session {
    /// Whether everything that was written for it is with QUIC.
    fn has_nothing_waiting(&self) -> bool {
        let urgent = self.urgent.as_ref().is_none_or(|(_, outbox)| outbox.is_empty());
        self.is_answered() && urgent && self.inbox.remainder.is_empty() && self.inbox.receipts.is_empty()
    }
}
