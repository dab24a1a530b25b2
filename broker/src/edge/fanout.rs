//! Fan-out: committed batches to the live sessions that are interested.
//!
//! Consecutive messages of one conversation in a batch make one *round*: their frames lie back to back and go to each
//! session as one slice. The list of sessions is fixed when the round starts, and `seen` then includes it. A round to many
//! is cut into chunks; before a later frame is pushed to a session that an unfinished round has not visited, that round's
//! frames are pushed first, so that each session keeps its order whatever round reaches it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use carillon_core::effect::{Moment, Signal};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{ConversationId, Position};
use carillon_transport::{Link, LinkKey, Room};

use super::interest::Audience;
use super::limits::{EXPECTED_AHEAD, PACK_SESSIONS, PINNED_FACTOR_MAX};
use super::{Edge, Links};
use crate::sequencer::ring::{Committed, Found};

/// Frames on their way to the sessions that were interested when it started.
#[derive(Clone)]
pub(super) struct Round {
    committed: Arc<Committed>,
    first: Position,
    last: Position,
    /// Of the batch's frames.
    range: Range<usize>,
    /// What is sent: the frames in that range.
    frames: Bytes,
    audience: Audience,
    /// How many of the audience were visited.
    visited: usize,
}

impl Round {
    /// Whether a session stands in the part of the audience that was not visited yet.
    fn has_ahead(&self, session: u32) -> bool {
        self.audience[self.visited..].binary_search(&session).is_ok()
    }
}

/// Messages of one conversation that follow each other in a batch.
struct Run {
    conversation: ConversationId,
    first: Position,
    last: Position,
    range: Range<usize>,
}

impl Edge {
    pub(super) fn process_ring<L: Links>(&mut self, links: &mut L) {
        for _ in 0..self.limits.batches_a_turn {
            if self.rounds.len() >= self.limits.rounds_unfinished_max {
                break;
            }
            match self.parts.ring.at(self.next_ordinal) {
                Found::Batch(committed) => {
                    self.process_batch(links, &committed);
                    self.next_ordinal += 1;
                }
                Found::NotYet => break,
                Found::Gone => self.recover_from_fall(),
            }
        }
    }

    fn process_batch<L: Links>(&mut self, links: &mut L, committed: &Arc<Committed>) {
        let mut run: Option<Run> = None;
        // The batch as sessions get slices of it, made when the first of them does.
        let mut whole: Option<Bytes> = None;
        for signal in &committed.signals {
            if let Signal::Message { position, conversation, .. } = signal {
                let range = committed.batch.frame_range(*position).expect("a message signal is of its batch");
                match &mut run {
                    Some(run) if run.conversation == *conversation && run.range.end == range.start => {
                        run.last = *position;
                        run.range.end = range.end;
                    }
                    other => {
                        let conversation = *conversation;
                        let next = Run { conversation, first: *position, last: *position, range };
                        if let Some(done) = other.replace(next) {
                            self.start_round(links, committed, done, &mut whole);
                        }
                    }
                }
                continue;
            }
            if let Some(done) = run.take() {
                self.start_round(links, committed, done, &mut whole);
            }
            self.process_signal(links, signal);
        }
        if let Some(done) = run {
            self.start_round(links, committed, done, &mut whole);
        }
        self.seen = committed.batch.last();
    }

    fn process_signal<L: Links>(&mut self, links: &mut L, signal: &Signal) {
        match signal {
            Signal::Message { .. } => unreachable!("messages make rounds"),
            Signal::MembersAdded { position, tenant, conversation, seq, history, users } => {
                let joined = Moment { seq: *seq, position: *position };
                for user in users {
                    self.interest.begin_stint(*tenant, *user, (*conversation, *history), joined);
                }
            }
            Signal::MembersRemoved { position, tenant, conversation, seq, users } => {
                let left = Moment { seq: *seq, position: *position };
                for user in users {
                    self.interest.end_stint(*tenant, *user, *conversation, left);
                }
            }
            Signal::Read { .. } => self.tell_read(links, signal, None),
            Signal::Urgent { .. } => self.push_urgent_to(links, signal),
            Signal::Ding { tenant, sender, progress } => self.note_ding(links, *tenant, *sender, progress.clone()),
            Signal::DeviceRetired { tenant, user, device } => {
                self.close_retired(links, *tenant, *user, |identity| identity.device == *device);
            }
            Signal::ProducerRetired { tenant, user, producer } => {
                self.close_retired(links, *tenant, *user, |identity| identity.producer == Some(*producer));
            }
        }
    }

    fn close_retired<L: Links>(
        &mut self,
        links: &mut L,
        tenant: carillon_protocol::ids::TenantId,
        user: carillon_protocol::ids::UserId,
        is: impl Fn(&super::session::Identity) -> bool,
    ) {
        let Some(known) = self.interest.user(tenant, user) else { return };
        for index in known.sessions.clone() {
            let Some(session) = self.sessions.at(index) else { continue };
            let key = session.key;
            if session.identity().is_some_and(&is) {
                self.close(links, key, ErrorCode::RETIRED, "this device or producer was retired");
            }
        }
    }

    fn start_round<L: Links>(
        &mut self,
        links: &mut L,
        committed: &Arc<Committed>,
        run: Run,
        whole: &mut Option<Bytes>,
    ) {
        let Some(audience) = self.interest.audience(run.conversation) else { return };
        let Run { first, last, range, .. } = run;
        let all = committed.batch.frames();
        // A slice keeps its whole batch alive until its receiver acknowledges it: the little that a batch has for these
        // sessions is copied, once for all of them, so that a window of slices pins eight windows at most.
        let little = range.len() < all.len() / PINNED_FACTOR_MAX;
        let frames = if little {
            self.pinned.pin(Bytes::copy_from_slice(&all[range.clone()]), range.len())
        } else {
            whole.get_or_insert_with(|| self.pinned.pin(all.clone(), committed.batch.bytes())).slice(range.clone())
        };
        let audience = audience.clone();
        let round = Round { committed: committed.clone(), first, last, range, frames, audience, visited: 0 };
        if round.audience.len() > self.limits.round_chunk_sessions {
            self.stats.rounds_cut += 1;
            self.rounds.push_back(round);
            return;
        }
        for session in round.audience.iter() {
            self.visit(links, *session, &round);
        }
    }

    /// One chunk of the oldest unfinished round.
    pub(super) fn run_rounds<L: Links>(&mut self, links: &mut L) {
        let Some(mut round) = self.rounds.pop_front() else { return };
        let end = round.audience.len().min(round.visited + self.limits.round_chunk_sessions);
        while round.visited < end {
            let session = round.audience[round.visited];
            if let Some(later) = round.audience.get(round.visited + EXPECTED_AHEAD) {
                links.expect(*later);
            }
            round.visited += 1;
            self.visit(links, session, &round);
            if round.visited.is_multiple_of(PACK_SESSIONS) {
                links.pack();
            }
        }
        if round.visited < round.audience.len() {
            self.rounds.push_front(round);
        }
    }

    /// Pushes a round to one session, the unfinished older ones first.
    fn visit<L: Links>(&mut self, links: &mut L, index: u32, round: &Round) {
        for older in 0..self.rounds.len() {
            let ahead = &self.rounds[older];
            if ahead.first >= round.first {
                break;
            }
            if ahead.has_ahead(index) {
                let ahead = ahead.clone();
                self.push_round(links, index, &ahead);
            }
        }
        self.push_round(links, index, round);
    }

    fn push_round<L: Links>(&mut self, links: &mut L, index: u32, round: &Round) {
        let Some(session) = self.sessions.at(index) else { return };
        if !session.awaits(round.first) {
            return;
        }
        let key = session.key;
        let (Some(stream), Some(mut link)) = (session.inbox.stream, links.link(key)) else { return };
        let mut bytes = round.frames.clone();
        let written = link.write(stream, &mut bytes, Room::Shared);
        drop(link);
        if written.is_err() {
            return self.lost_stream(links, key);
        }
        self.stats.delivered_live += round.last.0 - round.first.0 + 1;
        if bytes.is_empty() {
            session.inbox.sent = round.last;
            return;
        }
        let cut = round.range.end - bytes.len();
        self.handle_short_write(key, round, cut);
    }

    /// The stream took the frames up to byte `cut`: keeps the rest of the one that was cut, reads the later ones again.
    fn handle_short_write(&mut self, key: LinkKey, round: &Round, cut: usize) {
        let batch = &round.committed.batch;
        let mut position = round.first;
        let frame_end = loop {
            let range = batch.frame_range(position).expect("a round's positions are of its batch");
            if range.end > cut || position == round.last {
                break range.end;
            }
            position = position.next();
        };
        let Some(session) = self.sessions.at_key(key) else { return };
        session.inbox.remainder = round.frames.slice(cut - round.range.start..frame_end - round.range.start);
        session.inbox.blocked = true;
        session.inbox.sent = position;
        self.fall_behind(key, Some(position.next()));
    }

    /// Where a live session that leaves this state has to read on: at the first round that has not visited it, else
    /// behind what it was offered. That may be beyond `seen`, which includes a batch only when all of it is processed.
    pub(super) fn resume_position(&mut self, index: u32) -> Position {
        let seen = self.seen;
        let Some(session) = self.sessions.at(index) else { return seen.next() };
        let unvisited = self.rounds.iter().find(|round| round.has_ahead(index) && session.awaits(round.first));
        unvisited.map_or(seen.max(session.inbox.sent).next(), |round| round.first)
    }
}
