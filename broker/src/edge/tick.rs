//! Once a second: hellos that did not come, tokens that ended, cursors handed on, quiet sessions told where the journal is.

use std::time::Duration;

use carillon_core::input::CursorMove;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Position;
use carillon_protocol::session::Goodbye;
use carillon_transport::LinkKey;

use super::inbound::Which;
use super::limits::{CURSORS_A_RECORD_MAX, TICK_MS};
use super::session::{Feed, Identity, Phase, Session};
use super::{Edge, Links};
use crate::sequencer::Submission;

/// A session's cursor as the shard is told of it.
pub(super) fn cursor_move(identity: &Identity, position: Position) -> CursorMove {
    CursorMove { tenant: identity.who.tenant, user: identity.who.user, device: identity.device, position }
}

impl Edge {
    pub(super) fn tick<L: Links>(&mut self, links: &mut L) {
        // The cadence and what waits by the monotonic clock; a token ends by the wall's.
        let instant = self.parts.clock.now();
        self.meter.heartbeat.beat(instant);
        if instant < self.next_tick {
            return;
        }
        self.next_tick = instant + Duration::from_millis(TICK_MS);
        let now = self.now();
        let mut over: Vec<(LinkKey, ErrorCode, &str)> = Vec::new();
        let mut quiet: Vec<LinkKey> = Vec::new();
        let mut moves: Vec<CursorMove> = Vec::new();
        for session in self.sessions.iter_mut() {
            session.refreshes = 0;
            match &session.phase {
                Phase::AwaitingHello { until } if *until <= instant => {
                    over.push((session.key, ErrorCode::HELLO_TIMEOUT, "no Hello came in time"));
                }
                Phase::Attached(identity) if identity.expires_at <= now => {
                    over.push((session.key, ErrorCode::TOKEN_EXPIRED, "the token expired: reconnect with a new one"));
                }
                Phase::Attached(identity) => {
                    moves.extend(session.acked.take().map(|position| cursor_move(identity, position)));
                    let behind = self.seen.0.saturating_sub(session.inbox.sent.0);
                    if behind >= self.limits.progress_positions && matches!(session.feed, Feed::Live { .. }) {
                        quiet.push(session.key);
                    }
                }
                Phase::AwaitingHello { .. } | Phase::Attaching(_) => {}
            }
        }
        self.count_sessions();
        for (key, code, text) in over {
            self.close_for_cause(links, key, code, text);
        }
        // A session that an unfinished round has yet to visit must not be told that it has everything.
        if self.rounds.is_empty() {
            for key in quiet {
                self.tell_progress(links, key);
            }
        }
        self.hand_on_cursors(moves);
        self.ask_again();
    }

    fn hand_on_cursors(&mut self, mut moves: Vec<CursorMove>) {
        while !moves.is_empty() {
            let rest = moves.split_off(moves.len().min(CURSORS_A_RECORD_MAX));
            self.submit(Submission::Cursors(moves));
            moves = rest;
        }
    }

    /// Accepts no further session and tells those there are to come back after about `reconnect_after_ms`, spread so that
    /// they do not come all at once. What is committed is still delivered.
    pub fn drain<L: Links>(&mut self, links: &mut L, reconnect_after_ms: u32) {
        self.draining = true;
        let keys: Vec<LinkKey> = self.sessions.iter_mut().map(|session| session.key).collect();
        let spread = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
        for (nth, key) in (0..spread).zip(keys) {
            let share = u64::from(reconnect_after_ms) * u64::from(nth) / u64::from(spread);
            let later = u32::try_from(share).expect("at most reconnect_after_ms");
            let goodbye = Goodbye { reconnect_after_ms: reconnect_after_ms.saturating_add(later) };
            self.write_reply(links, key, Which::Control, &goodbye.into());
        }
    }

    /// Whether everything that was submitted is answered, and the answers are with QUIC.
    pub fn is_settled(&self) -> bool {
        self.reserved == 0
            && self.outbox.is_empty()
            && self.stalled.is_none()
            && self.sessions.iter().all(Session::is_answered)
    }

    /// Closes every session, acknowledgements handed on.
    pub fn close_all<L: Links>(&mut self, links: &mut L) {
        let keys: Vec<LinkKey> = self.sessions.iter_mut().map(|session| session.key).collect();
        for key in keys {
            self.close(links, key, ErrorCode::DRAINING, "the broker is stopping: reconnect");
        }
    }
}
