//! Once a second: hellos that did not come, tokens that ended, cursors handed on, who of the quiet sessions is told where the journal is.

use std::time::Duration;

use carillon_core::input::CursorMove;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Position;
use carillon_transport::LinkKey;

use super::limits::{CURSORS_A_RECORD_MAX, TICK_MS};
use super::session::{Identity, Phase};
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
        self.renew_signals();
        let now = self.now();
        let mut over: Vec<(LinkKey, ErrorCode, &str)> = Vec::new();
        let mut moves: Vec<CursorMove> = Vec::new();
        for session in self.sessions.iter_mut() {
            session.refreshes = 0;
            session.signals = 0;
            match &session.phase {
                Phase::AwaitingHello { until } if *until <= instant => {
                    over.push((session.key, ErrorCode::HELLO_TIMEOUT, "no Hello came in time"));
                }
                Phase::Attached(identity) if identity.expires_at <= now => {
                    over.push((session.key, ErrorCode::TOKEN_EXPIRED, "the token expired: reconnect with a new one"));
                }
                Phase::Attached(identity) => {
                    moves.extend(session.acked.take().map(|position| cursor_move(identity, position)));
                }
                Phase::AwaitingHello { .. } | Phase::Attaching(_) => {}
            }
        }
        self.count_sessions();
        for (key, code, text) in over {
            self.close_for_cause(links, key, code, text);
        }
        self.choose_quiet();
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
}
