//! Catching up: a session reads the journal from its own `next`, filtered by its user's stints, until it has reached
//! `seen`; then it is live.
//!
//! It plans some positions ahead from the index (up to a *horizon*), gathers their frames into slices of at most
//! 16 KiB, from the ring or, when they have left it, from the reader pool. Between slices everybody else gets a turn. A
//! full stream stops it without a buffer: what was not written is read again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use carillon_core::input::{BoundedCatchUp, Input};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::Position;
use carillon_protocol::session::Truncated;
use carillon_transport::{Link, LinkKey, Room};

use super::lookups::{Found, Question};
use super::session::Feed;
use super::{Edge, Links};
use crate::journal::{Entry, ReadError, ReadRequest};
use crate::report::Causes;
use crate::sequencer::ring::Committed;
use crate::sequencer::{Submission, ToEdge};

mod live;
mod plan;
mod unreadable;

pub(super) use plan::skips;
pub use plan::{Plan, PlanBounds, Skip, plan};
pub(super) use unreadable::places_at;

/// The smallest `Deliver`: no slice holds more of them.
const FRAME_BYTES_MIN: usize = 49;

/// Where a session's own reading stands.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// Everything before this was offered.
    next: Position,
    /// Frames that name what does not come. They go first, and do not move `next`.
    notices: VecDeque<Bytes>,
    /// What retention took up to here was named.
    named_floor: Position,
    /// What the shard has forgotten was named as of this change of it.
    named_changes: u64,
    /// The newest so many of each conversation are wanted, and it is not yet known which.
    newest: Option<u32>,
    /// What is left out.
    skips: Arc<Vec<Skip>>,
    /// The positions to be offered up to the horizon, ascending.
    plan: VecDeque<Position>,
    /// `None`: nothing is planned.
    horizon: Option<Position>,
    /// Frames from disk, the first ones of the plan.
    bodies: VecDeque<Entry>,
    /// The first position of the plan, if its bytes are damaged.
    unreadable: Option<Position>,
    /// A read is under way.
    reading: bool,
    /// A question to the index is under way, asked when the floors had this version.
    asking: Option<u64>,
    /// The edge missed signals: the user's stints are asked for anew.
    pub(super) attaching: bool,
    /// The stints that are under way were asked for without a DING that the session watches since.
    pub(super) attach_is_stale: bool,
    /// The shard is told that something is left out: nothing is offered before that is durable, so that no cursor beyond it
    /// counts for what the device never had.
    noting: bool,
    /// Stands in the list of sessions that can take a slice.
    queued: bool,
}

impl CatchUp {
    /// Everything from `next` on.
    pub(super) fn new(next: Position) -> Self {
        Self {
            next,
            notices: VecDeque::new(),
            named_floor: Position(0),
            named_changes: 0,
            newest: None,
            skips: Arc::default(),
            plan: VecDeque::new(),
            horizon: None,
            bodies: VecDeque::new(),
            unreadable: None,
            reading: false,
            asking: None,
            attaching: false,
            attach_is_stale: false,
            noting: false,
            queued: false,
        }
    }

    /// As [`CatchUp::new`], of what is there now only the newest so many of each conversation.
    pub(super) fn bounded(next: Position, newest: u32) -> Self {
        Self { newest: Some(newest), ..Self::new(next) }
    }

    /// Positions planned, and bytes of what waits.
    pub(super) fn held(&self) -> (usize, usize) {
        let bodies = self.bodies.iter().map(|entry| &entry.frame).chain(&self.notices);
        (self.plan.len(), bodies.map(Bytes::len).sum())
    }

    fn forget_plan(&mut self) {
        self.plan.clear();
        self.bodies.clear();
        self.horizon = None;
        self.unreadable = None;
    }

    /// Whether something else will go on with it.
    fn waits(&self) -> bool {
        self.reading || self.asking.is_some() || self.attaching || self.noting
    }

    /// Queues frames that name what does not come, to be told to a device that was sent everything up to `sent`.
    fn name(&mut self, gone: Vec<Truncated>, sent: Position) {
        let told = gone.into_iter().map(|gone| Truncated { position: sent, ..gone });
        self.notices.extend(told.map(|told| told.to_bytes()));
    }
}

/// What there is to be offered.
enum Next {
    /// Notices, or a plan.
    Ready,
    /// Nothing up to `seen`.
    Nothing,
    /// The index is asked, or the shard.
    Asking,
    /// Retention is at work: again a little later.
    Later,
}

/// What a slice holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Notices,
    Messages,
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

impl Edge {
    /// Puts a session that catches up on the list of those that can take a slice, if it can.
    pub(super) fn schedule_catch_up(&mut self, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let blocked = session.inbox.blocked;
        if let Feed::CatchingUp(catch_up) = &mut session.feed
            && !blocked
            && !catch_up.queued
            && !catch_up.waits()
        {
            catch_up.queued = true;
            self.catching_up.push_back(key);
        }
    }

    pub(super) fn run_catch_up<L: Links>(&mut self, links: &mut L) {
        if self.catching_up_stopped {
            return;
        }
        for key in std::mem::take(&mut self.catching_up_later) {
            self.schedule_catch_up(key);
        }
        for _ in 0..self.catching_up.len().min(self.limits.slices_a_turn) {
            let Some(key) = self.catching_up.pop_front() else { break };
            let Some(session) = self.sessions.at_key(key) else { continue };
            let Feed::CatchingUp(catch_up) = &mut session.feed else { continue };
            catch_up.queued = false;
            if session.inbox.blocked || catch_up.waits() {
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
        match self.find_next(key) {
            Next::Ready => {}
            Next::Nothing => return self.turn_live(links, key),
            Next::Asking => return Slice::Waits,
            Next::Later => return Slice::Later,
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let mut ends: Vec<(Position, usize)> = Vec::new();
        let slice = if self.gather_notices(key, &mut out, &mut ends) {
            self.offer(links, key, &out, &ends, What::Notices)
        } else {
            let gathered = self.gather(key, &mut out, &mut ends);
            if ends.is_empty() { gathered } else { self.offer(links, key, &out, &ends, What::Messages) }
        };
        out.clear();
        self.scratch = out;
        slice
    }

    /// Names what does not come, and plans ahead if nothing is planned.
    fn find_next(&mut self, key: LinkKey) -> Next {
        let seen = self.seen;
        let bounds = PlanBounds {
            positions_max: self.limits.plan_positions_max,
            wide_positions_max: self.limits.plan_positions_wide_max,
        };
        loop {
            let Some(floors) = self.parts.index.floors_version() else { return Next::Later };
            if !self.name_gone(key, floors) {
                return Next::Later;
            }
            let Some(session) = self.sessions.at_key(key) else { return Next::Nothing };
            let Some(who) = session.identity().map(|identity| identity.who) else { return Next::Nothing };
            let Feed::CatchingUp(catch_up) = &mut session.feed else { return Next::Nothing };
            let Some(known) = self.interest.user(who.tenant, who.user) else { return Next::Nothing };
            if catch_up.noting {
                return Next::Asking;
            }
            if let Some(position) = catch_up.unreadable {
                let stints = known.stints.clone();
                catch_up.asking = Some(floors);
                let Some(found) = self.ask(key, Question::At { stints, position }) else { return Next::Asking };
                self.take_answer(key, found);
                continue;
            }
            if !catch_up.notices.is_empty() || !catch_up.plan.is_empty() {
                return Next::Ready;
            }
            if let Some(horizon) = catch_up.horizon.take() {
                catch_up.next = catch_up.next.max(horizon.next());
            }
            let (stints, next, through) = (known.stints.clone(), catch_up.next, seen);
            if next > through {
                return Next::Nothing;
            }
            if catch_up.newest.is_some() && self.reserved >= self.limits.replies_reserved_max {
                return Next::Later;
            }
            let question = match catch_up.newest {
                Some(newest) => Question::Skips { stints, next, through, newest },
                None => Question::Plan { stints, skips: catch_up.skips.clone(), next, through, bounds },
            };
            catch_up.asking = Some(floors);
            let Some(found) = self.ask(key, question) else { return Next::Asking };
            self.take_answer(key, found);
        }
    }

    /// What retention took, and what the shard has forgotten, is named before anything that lies behind it. False if nothing was
    /// named yet: the floors have risen meanwhile, or lie beyond what this edge has processed.
    fn name_gone(&mut self, key: LinkKey, floors: u64) -> bool {
        let (floor, seen) = (self.parts.index.truncated_through(), self.seen);
        let Some(session) = self.sessions.at_key(key) else { return true };
        let Some(who) = session.identity().map(|identity| identity.who) else { return true };
        let sent = session.inbox.sent;
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return true };
        let Some(known) = self.interest.user(who.tenant, who.user) else { return true };
        if catch_up.named_changes != known.forgotten_changes {
            catch_up.named_changes = known.forgotten_changes;
            catch_up.name(plan::forgotten(known, catch_up.next), sent);
        }
        if floor >= catch_up.next && floor > catch_up.named_floor {
            // What the edge has yet to process still comes, from the ring: it must not be named as gone. Nor does the edge know yet
            // who was entitled to it.
            if floor > seen {
                return false;
            }
            let gone = plan::truncations(&self.parts.index, known, catch_up.next);
            if self.parts.index.floors_version() != Some(floors) {
                return false;
            }
            catch_up.named_floor = floor;
            catch_up.name(gone, sent);
            catch_up.next = floor.next();
            catch_up.forget_plan();
        }
        true
    }

    /// An answer of the index to [`Edge::find_next`]; one that came too late for its question is let go.
    pub(super) fn take_answer(&mut self, key: LinkKey, found: Found) {
        let (from, has_room) = (self.origin(key), self.reserved < self.limits.replies_reserved_max);
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some((who, device)) = session.identity().map(|identity| (identity.who, identity.device)) else { return };
        let sent = session.inbox.sent;
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return };
        // Floors that rose while it was asked may have hidden what was there before: it is asked again, and named first.
        let asked = catch_up.asking.take();
        if asked.is_none() || asked != self.parts.index.floors_version() {
            return;
        }
        match found {
            // Without room for the shard's answer it is asked again.
            Found::Skips { next, through, skips } if next == catch_up.next && has_room => {
                catch_up.notices.extend(skips.iter().map(|skip| skip.frame(sent).to_bytes()));
                let newest = catch_up.newest.take().filter(|_| !skips.is_empty());
                catch_up.noting = newest.is_some();
                catch_up.skips = Arc::new(skips);
                let Some(newest) = newest else { return };
                let bounded =
                    BoundedCatchUp { tenant: who.tenant, user: who.user, device, from: next, through, newest };
                self.reserved += 1;
                self.submit(Submission::Input { from, input: Input::CatchUpBounded(bounded) });
            }
            Found::At { position, places } => self.name_unreadable(key, position, places),
            Found::Plan { next, plan } if next == catch_up.next && catch_up.plan.is_empty() => {
                catch_up.plan = plan.positions;
                catch_up.horizon = Some(plan.horizon);
            }
            _ => {}
        }
    }

    /// It is durable that something is left out.
    pub(super) fn handle_catch_up_noted(&mut self, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        if let Feed::CatchingUp(catch_up) = &mut session.feed {
            catch_up.noting = false;
        }
        self.schedule_catch_up(key);
    }

    /// Notices of one slice; false if there are none.
    fn gather_notices(&mut self, key: LinkKey, out: &mut BytesMut, ends: &mut Vec<(Position, usize)>) -> bool {
        let slice_bytes_max = self.limits.slice_bytes_max;
        let Some(session) = self.sessions.at_key(key) else { return false };
        let Feed::CatchingUp(catch_up) = &session.feed else { return false };
        for notice in &catch_up.notices {
            if !out.is_empty() && out.len() + notice.len() > slice_bytes_max {
                break;
            }
            out.extend_from_slice(notice);
            ends.push((Position(0), out.len()));
        }
        !ends.is_empty()
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
                    let found = match in_ring.take().filter(|c: &Arc<_>| holds(c, position)) {
                        Some(committed) => Some(committed),
                        None => self.parts.ring.find(position),
                    };
                    let Some(committed) = found.filter(|_| !self.parts.index.is_lost(position)) else {
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
    fn offer<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        out: &[u8],
        ends: &[(Position, usize)],
        what: What,
    ) -> Slice {
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
        if what == What::Notices {
            catch_up.notices.drain(..offered);
            return if session.inbox.blocked { Slice::Waits } else { Slice::More };
        }
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
        let (ring, index) = (self.parts.ring.clone(), self.parts.index.clone());
        let Some(session) = self.sessions.at_key(key) else { return Slice::Waits };
        let Feed::CatchingUp(catch_up) = &mut session.feed else { return Slice::Waits };
        let planned = catch_up.plan.iter().copied().take(self.limits.slice_bytes_max / FRAME_BYTES_MIN + 1);
        let positions: Vec<_> = planned.take_while(|at| index.is_lost(*at) || ring.find(*at).is_none()).collect();
        let first = positions.first().copied().unwrap_or_default();
        let (replies, waker) = (self.parts.replies_in.clone(), self.parts.waker.clone());
        let request = ReadRequest {
            positions,
            bytes_max: self.limits.slice_bytes_max,
            done: Box::new(move |entries| {
                // Room was reserved; an edge that is gone needs no bodies.
                replies.try_send(ToEdge::Bodies { link: key, first, entries }).ok();
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
        (first, entries): (Position, Result<Vec<Entry>, ReadError>),
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
            // Retention was faster than the reader: what it took is named with the next plan.
            Err(ReadError::Truncated { first }) if self.parts.index.truncated_through().next() >= first => {
                catch_up.forget_plan();
                self.schedule_catch_up(key);
            }
            Err(error) if error.is_of_record() && catch_up.plan.front() == Some(&first) => {
                self.pass_over(key, first, &error);
            }
            // The plan was made anew while it was read.
            Err(error) if error.is_of_record() => self.schedule_catch_up(key),
            Err(error) => {
                tracing::error!(error = %Causes(&error), ?key, "a message could not be read from the journal");
                self.close(links, key, ErrorCode::INTERNAL, "a message could not be read from the journal");
            }
        }
    }
}

fn holds(committed: &Committed, position: Position) -> bool {
    committed.batch.first() <= position && position <= committed.batch.last()
}
