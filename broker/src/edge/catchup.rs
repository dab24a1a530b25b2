//! Catching up: a session reads the journal from its own `next`, filtered by its user's stints, until it has reached
//! `seen`; then it is live.
//!
//! It plans some positions ahead from the index (up to a *horizon*), gathers their frames into slices of at most
//! 16 KiB, from the ring or, when they have left it, from the reader pool. Between slices everybody else gets a turn. A
//! full stream stops it without a buffer: what was not written is read again.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use carillon_core::effect::StintView;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::Position;
use carillon_protocol::session::Progress;
use carillon_transport::{Link, LinkKey, Room};

use super::session::Feed;
use super::{Edge, Links};
use crate::index::{Index, Lookup};
use crate::journal::{Entry, ReadError, ReadRequest};
use crate::report::Causes;
use crate::sequencer::ToEdge;

/// Where a session's own reading stands.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// Everything before this was offered.
    next: Position,
    /// The positions to be offered up to the horizon, ascending.
    plan: VecDeque<Position>,
    /// `None`: nothing is planned.
    horizon: Option<Position>,
    /// Frames from disk, the first ones of the plan.
    bodies: VecDeque<Entry>,
    /// A read is under way.
    reading: bool,
    /// The edge missed signals: the user's stints are asked for anew.
    pub(super) attaching: bool,
    /// Stands in the list of sessions that can take a slice.
    queued: bool,
}

impl CatchUp {
    pub(super) fn new(next: Position) -> Self {
        Self {
            next,
            plan: VecDeque::new(),
            horizon: None,
            bodies: VecDeque::new(),
            reading: false,
            attaching: false,
            queued: false,
        }
    }

    /// Positions planned, and bytes of the bodies that wait.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.plan.len(), self.bodies.iter().map(|entry| entry.frame.len()).sum())
    }
}

/// What a slice ended with.
enum Slice {
    /// More at the next turn.
    More,
    /// Nothing can be done before something else has moved on: again a little later.
    Later,
    /// Something else will go on with it.
    Waits,
}

/// The next positions in `[next, through]` that the stints entitle to, at most `positions_max`, and how far the plan is
/// complete.
fn plan(
    index: &Index,
    stints: &[StintView],
    next: Position,
    through: Position,
    positions_max: usize,
) -> (VecDeque<Position>, Position) {
    let mut positions = Vec::new();
    let mut complete = true;
    // Lowered whenever enough is found before it: what lies behind is not looked at.
    let mut reach = through;
    let before_next = Position(next.0.saturating_sub(1));
    for stint in stints {
        let after = stint.joined.max(before_next);
        let until = stint.left.map_or(reach, |left| left.min(reach));
        if after < until {
            // One more than is kept, so that a conversation that was cut is known to be.
            let recent = index.recent();
            let found = recent.positions(stint.conversation, after, until, positions_max + 1, &mut positions);
            found.expect("the index is in memory");
        }
        if positions.len() > 4 * positions_max {
            let (_, last, _) = positions.select_nth_unstable(positions_max);
            reach = *last;
            positions.truncate(positions_max + 1);
            complete = false;
        }
    }
    positions.sort_unstable();
    complete &= positions.len() <= positions_max;
    positions.truncate(positions_max);
    let horizon = if complete { through } else { *positions.last().expect("it was cut, so it is not empty") };
    (positions.into(), horizon)
}

impl Edge {
    /// Puts a session that catches up on the list of those that can take a slice, if it can.
    pub(super) fn schedule_catch_up(&mut self, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let blocked = session.inbox.blocked;
        if let Feed::CatchingUp(catch_up) = &mut session.feed
            && !blocked
            && !catch_up.queued
            && !catch_up.reading
            && !catch_up.attaching
        {
            catch_up.queued = true;
            self.catching_up.push_back(key);
        }
    }

    pub(super) fn run_catch_up<L: Links>(&mut self, links: &mut L) {
        for key in std::mem::take(&mut self.catching_up_later) {
            self.schedule_catch_up(key);
        }
        for _ in 0..self.catching_up.len().min(self.limits.slices_a_turn) {
            let Some(key) = self.catching_up.pop_front() else { break };
            let Some(session) = self.sessions.at_key(key) else { continue };
            let Feed::CatchingUp(catch_up) = &mut session.feed else { continue };
            catch_up.queued = false;
            if session.inbox.blocked || catch_up.reading || catch_up.attaching {
                continue;
            }
            match self.slice(links, key) {
                Slice::More => self.schedule_catch_up(key),
                Slice::Later => self.catching_up_later.push(key),
                Slice::Waits => {}
            }
        }
    }

    fn slice<L: Links>(&mut self, links: &mut L, key: LinkKey) -> Slice {
        if !self.make_plan(key) {
            return self.turn_live(links, key);
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let mut ends: Vec<(Position, usize)> = Vec::new();
        let gathered = self.gather(key, &mut out, &mut ends);
        let slice = if ends.is_empty() { gathered } else { self.offer(links, key, &out, &ends) };
        out.clear();
        self.scratch = out;
        slice
    }

    /// Plans ahead if nothing is planned. False when there is nothing left up to `seen`.
    fn make_plan(&mut self, key: LinkKey) -> bool {
        let (seen, positions_max) = (self.seen, self.limits.plan_positions_max);
        let Some(session) = self.sessions.at_key(key) else { return false };
        let Some((tenant, user)) = session.identity().map(|identity| (identity.who.tenant, identity.who.user)) else {
            return false;
        };
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return false };
        let Some(known) = self.interest.user(tenant, user) else { return false };
        while catch_up.plan.is_empty() {
            if let Some(horizon) = catch_up.horizon.take() {
                catch_up.next = catch_up.next.max(horizon.next());
            }
            if catch_up.next > seen {
                return false;
            }
            let (positions, horizon) = plan(&self.parts.index, &known.stints, catch_up.next, seen, positions_max);
            catch_up.plan = positions;
            catch_up.horizon = Some(horizon);
        }
        true
    }

    /// Collects the frames of one slice; asks the reader pool when the first of them is neither here nor in the ring.
    fn gather(&mut self, key: LinkKey, out: &mut BytesMut, ends: &mut Vec<(Position, usize)>) -> Slice {
        let mut in_ring = None;
        loop {
            let Some(session) = self.sessions.at_key(key) else { return Slice::Waits };
            let Feed::CatchingUp(catch_up) = &mut session.feed else { return Slice::Waits };
            let Some(position) = catch_up.plan.get(ends.len()).copied() else { return Slice::More };
            let frame = match catch_up.bodies.get(ends.len()) {
                Some(entry) => entry.frame.clone(),
                None => {
                    let found = match in_ring.take().filter(|c: &std::sync::Arc<_>| holds(c, position)) {
                        Some(committed) => Some(committed),
                        None => self.parts.ring.find(position),
                    };
                    let Some(committed) = found else {
                        return if ends.is_empty() { self.ask_reader(key) } else { Slice::More };
                    };
                    let range = committed.batch.frame_range(position).expect("it holds the position");
                    let frame = committed.batch.frames().slice(range);
                    in_ring = Some(committed);
                    frame
                }
            };
            if !out.is_empty() && out.len() + frame.len() > self.limits.slice_bytes_max {
                return Slice::More;
            }
            out.extend_from_slice(&frame);
            ends.push((position, out.len()));
        }
    }

    /// Writes a slice; what the stream does not take beyond the frame it cuts is planned again.
    fn offer<L: Links>(&mut self, links: &mut L, key: LinkKey, out: &[u8], ends: &[(Position, usize)]) -> Slice {
        let Some(session) = self.sessions.at_key(key) else { return Slice::Waits };
        let (Some(stream), Some(mut link)) = (session.inbox.stream, links.link(key)) else { return Slice::Waits };
        let slice = self.pinned.pin(Bytes::copy_from_slice(out), out.len());
        let mut rest = slice.clone();
        let written = link.write(stream, &mut rest, Room::Shared);
        drop(link);
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return Slice::Waits };
        if written.is_err() {
            self.lost_stream(links, key);
            return Slice::Waits;
        }
        let taken = slice.len() - rest.len();
        // The frames that begin before the cut were offered, the last of them perhaps in part.
        let begun = ends.iter().take_while(|(_, end)| *end <= taken).count();
        let whole = rest.is_empty() || begun > 0 && ends[begun - 1].1 == taken;
        let offered = if whole { begun } else { begun + 1 };
        if !whole {
            session.inbox.remainder = slice.slice(taken..ends[offered - 1].1);
        }
        session.inbox.blocked = !rest.is_empty();
        catch_up.plan.drain(..offered);
        catch_up.bodies.drain(..offered.min(catch_up.bodies.len()));
        if let Some((position, _)) = offered.checked_sub(1).map(|last| ends[last]) {
            catch_up.next = position.next();
            session.inbox.sent = position;
        }
        self.stats.delivered_catching_up += offered as u64;
        if session.inbox.blocked { Slice::Waits } else { Slice::More }
    }

    fn ask_reader(&mut self, key: LinkKey) -> Slice {
        if self.reading >= self.limits.reads_in_flight_max {
            return Slice::Later;
        }
        let ring = self.parts.ring.clone();
        let Some(session) = self.sessions.at_key(key) else { return Slice::Waits };
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return Slice::Waits };
        let positions = catch_up.plan.iter().copied().take_while(|position| ring.find(*position).is_none()).collect();
        let (replies, waker) = (self.parts.replies_in.clone(), self.parts.waker.clone());
        let request = ReadRequest {
            positions,
            bytes_max: self.limits.slice_bytes_max,
            done: Box::new(move |entries| {
                // Room was reserved; an edge that is gone needs no bodies.
                replies.try_send(ToEdge::Bodies { link: key, entries }).ok();
                waker.wake();
            }),
        };
        if self.parts.bodies.submit(request).is_err() {
            return Slice::Later;
        }
        catch_up.reading = true;
        self.reading += 1;
        self.stats.reads += 1;
        Slice::Waits
    }

    pub(super) fn handle_bodies<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        entries: Result<Vec<Entry>, ReadError>,
    ) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return };
        catch_up.reading = false;
        match entries {
            Ok(entries) => {
                // The plan may have been made anew while they were read.
                let planned = catch_up.plan.iter();
                let fits = entries.iter().zip(planned).all(|(entry, position)| entry.position == *position);
                if fits && entries.len() <= catch_up.plan.len() {
                    catch_up.bodies = entries.into();
                }
                self.schedule_catch_up(key);
            }
            Err(error) => {
                tracing::error!(error = %Causes(&error), ?key, "a message could not be read from the journal");
                self.close(links, key, ErrorCode::INTERNAL, "a message could not be read from the journal");
            }
        }
    }

    /// Everything up to `seen` was offered: from here on the session is fed as batches come.
    fn turn_live<L: Links>(&mut self, links: &mut L, key: LinkKey) -> Slice {
        let seen = self.seen;
        let Some(session) = self.sessions.at_key(key) else { return Slice::Waits };
        let Some(identity) = session.identity() else { return Slice::Waits };
        let (tenant, user) = (identity.who.tenant, identity.who.user);
        // Stints from beyond `seen` would let a live session have what came before them.
        if self.interest.user(tenant, user).is_none_or(|known| known.stale || known.as_of > seen) {
            return Slice::Later;
        }
        let Feed::CatchingUp(catch_up) = &session.feed else { return Slice::Waits };
        // A device that comes from an edge that is ahead has a cursor beyond `seen`: what lies between it has already.
        if catch_up.next > seen.next() {
            return Slice::Later;
        }
        debug_assert_eq!(catch_up.next, seen.next(), "a session turns live exactly at the edge's position");
        session.feed = Feed::Live { from: seen.next() };
        self.tell_progress(links, key);
        Slice::Waits
    }

    /// Tells a session that nothing more was addressed to it up to `seen`. Only when no round is unfinished.
    pub(super) fn tell_progress<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let position = self.seen;
        let shard = self.parts.shard;
        let Some(session) = self.sessions.at_key(key) else { return };
        if session.inbox.sent >= position || session.inbox.blocked {
            return;
        }
        let (Some(stream), Some(mut link)) = (session.inbox.stream, links.link(key)) else { return };
        let mut frame = Progress { shard, position }.to_bytes();
        let written = link.write(stream, &mut frame, Room::Shared);
        drop(link);
        if written.is_err() {
            return self.lost_stream(links, key);
        }
        session.inbox.sent = position;
        if !frame.is_empty() {
            session.inbox.remainder = frame;
            session.inbox.blocked = true;
            self.fall_behind(key, None);
        }
    }

    /// The edge missed batches: every session reads on by itself, with stints asked for anew.
    pub(super) fn recover_from_fall(&mut self) {
        self.stats.fell_off_ring += 1;
        self.interest.mark_stale();
        let keys: Vec<LinkKey> = self.sessions.iter_mut().map(|session| session.key).collect();
        for key in keys {
            self.fall_behind(key, None);
            let feed = self.sessions.at_key(key).map(|session| &mut session.feed);
            if let Some(Feed::CatchingUp(catch_up)) = feed
                && !std::mem::replace(&mut catch_up.attaching, true)
            {
                self.attaching_again.push_back(key);
            }
        }
        // From the newest batch on, so that the edge does not fall again before it has caught its breath.
        let newest = self.parts.ring.head() - 1;
        if let crate::sequencer::ring::Found::Batch(committed) = self.parts.ring.at(newest) {
            tracing::warn!(from = %self.seen, to = %committed.batch.first(), "the edge fell off the ring");
            self.seen = Position(committed.batch.first().0 - 1);
            self.next_ordinal = newest;
        }
    }
}

fn holds(committed: &crate::sequencer::ring::Committed, position: Position) -> bool {
    committed.batch.first() <= position && position <= committed.batch.last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::limits::PLAN_POSITIONS_MAX;
    use carillon_protocol::ids::{ConversationId, Seq, UserId};

    fn check(stints: &[(u64, u64, Option<u64>)], next: u64, through: u64, expected: &[u64], horizon: u64) {
        let index = Index::new();
        // Conversation 1 at the odd positions, 2 at the even ones.
        for position in 1..=20u64 {
            let conversation = ConversationId(2 - position % 2);
            index.append(conversation, Seq(position.div_ceil(2)), Position(position), UserId(0));
        }
        let stints: Vec<StintView> = stints
            .iter()
            .map(|(conversation, joined, left)| StintView {
                conversation: ConversationId(*conversation),
                joined: Position(*joined),
                left: left.map(Position),
            })
            .collect();
        let (positions, end) = plan(&index, &stints, Position(next), Position(through), PLAN_POSITIONS_MAX);
        assert_eq!(positions, expected.iter().map(|p| Position(*p)).collect::<Vec<_>>());
        assert_eq!(end, Position(horizon));
    }

    #[test]
    fn a_plan_merges_conversations_by_position_within_the_stints() {
        check(&[(1, 0, None), (2, 0, None)], 3, 6, &[3, 4, 5, 6], 6);
        check(&[(1, 3, Some(7)), (1, 15, None), (2, 9, Some(10))], 1, 18, &[5, 7, 10, 17], 18);
        check(&[(1, 0, None)], 20, 20, &[], 20);
        check(&[], 1, 9, &[], 9);
    }

    #[test]
    fn a_plan_that_is_cut_ends_at_its_last_position() {
        let index = Index::new();
        let many = PLAN_POSITIONS_MAX as u64 + 5;
        for position in 1..=many {
            index.append(ConversationId(1), Seq(position), Position(position), UserId(0));
        }
        let stint = StintView { conversation: ConversationId(1), joined: Position(0), left: None };
        let (positions, horizon) = plan(&index, &[stint], Position(1), Position(many), PLAN_POSITIONS_MAX);
        assert_eq!(positions.len(), PLAN_POSITIONS_MAX);
        assert_eq!(horizon, Position(PLAN_POSITIONS_MAX as u64));
    }
}
