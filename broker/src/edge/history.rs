//! Pages of history, on the bulk lane: served by the edge alone, from the stints it knows, the index and the journal.
//!
//! A session has one page under way; the next one is begun when the lane has taken the last one, so that pages wait as
//! requests of a few bytes, and what is new has at most one page before it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::slice::SliceIndex;

use bytes::{Bytes, BytesMut};
use carillon_core::effect::StintView;
use carillon_protocol::deliver::{History, HistoryPage};
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Position, Seq};
use carillon_protocol::kinds::{Direction, HistoryPolicy, Lane};
use carillon_protocol::limits::{HISTORY_BYTES_MAX, PAGE_ENTRIES_MAX};
use carillon_protocol::session::LaneOpened;
use carillon_transport::{Link, LinkKey, Room, StreamId};

use super::limits::HISTORY_RUN_MESSAGES;
use super::lookups::{Found, Question};
use super::rare::RareQueue;
use super::session::{Outbox, Weight};
use super::{Edge, Links};
use crate::index::{Index, Lookup, Place};
use crate::journal::{Entry, ReadError, ReadRequest};
use crate::sequencer::ToEdge;

const PRIORITY_BULK: i32 = 0;

/// A session's bulk lane.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    lane: Option<(StreamId, Outbox)>,
    /// Asked for, in order; counted as pending requests.
    queue: RareQueue<Asked>,
    page: Option<Box<Page>>,
}

impl Bulk {
    /// What the lane has not taken.
    pub(super) fn bytes(&self) -> usize {
        let page = self.page.as_ref().map_or(0, |page| page.bytes);
        self.lane.as_ref().map_or(0, |(_, out)| out.bytes()) + page
    }

    /// The lane's outbox, if this is its stream.
    pub(super) fn outbox(&mut self, stream: StreamId) -> Option<&mut Outbox> {
        self.lane.as_mut().filter(|(lane, _)| *lane == stream).map(|(_, out)| out)
    }

    fn is_busy(&self) -> bool {
        self.page.is_some() || self.lane.as_ref().is_some_and(|(_, out)| !out.is_empty())
    }
}

/// A page that was asked for.
#[derive(Debug)]
struct Asked {
    query: History,
    /// What the conversation had when it was asked for: the edge must know the user's stints as of there, so that what was
    /// acknowledged before, by whichever edge, is in the page.
    last: Position,
}

/// A page under way.
#[derive(Debug)]
struct Page {
    query: History,
    /// Where the next one starts, if this one gets everything selected.
    next: Seq,
    truncated: Seq,
    /// How many messages were selected.
    selected: u64,
    /// How many are being read.
    run: usize,
    /// Which one is read alone, because it could not be had with others.
    alone: Option<usize>,
    /// What is to be read, ascending.
    places: Vec<Place>,
    /// By ascending seq.
    frames: VecDeque<Bytes>,
    bytes: usize,
}

/// The seqs of one page.
#[derive(Debug, PartialEq, Eq)]
struct Selected {
    /// Inclusive, ascending.
    ranges: Vec<(Seq, Seq)>,
    /// Where the next page starts; 0: nothing more.
    next: Seq,
}

/// What the stints entitle to above the floor, as inclusive ranges of seqs, ascending.
fn entitled(stints: &[StintView], floor: Seq, last: Seq) -> Vec<(Seq, Seq)> {
    let end = |stint: &StintView| stint.left.map_or(last, |left| left.seq);
    let full = stints.last().filter(|stint| stint.history == HistoryPolicy::FULL);
    let ranges: Vec<_> = match full {
        Some(newest) => vec![(Seq(1), end(newest))],
        None => stints.iter().map(|stint| (stint.joined.seq.next(), end(stint))).collect(),
    };
    ranges.into_iter().map(|(first, last)| (first.max(floor.next()), last)).filter(|(f, l)| f <= l).collect()
}

/// Up to where retention took what the stints entitle to; 0: none of it.
fn lost(stints: &[StintView], floor: Seq) -> Seq {
    let behind = entitled(stints, Seq(0), floor).into_iter().filter(|(first, _)| *first <= floor);
    behind.map(|(_, last)| last.min(floor)).max().unwrap_or(Seq(0))
}

/// The last seq of a conversation as of a position, unless that lies on disk, which it does only for a moment: a position that
/// was processed just now is not old.
fn last_seq(index: &Index, conversation: ConversationId, through: Position) -> Option<Seq> {
    let (last, position) = index.last(conversation);
    if position <= through { Some(last) } else { index.recent().rank(conversation, through).ok() }
}

/// At most `limit` seqs from `from` on, in the direction.
fn select(entitled: &[(Seq, Seq)], from: Seq, direction: Direction, limit: u64) -> Selected {
    let mut selected = Selected { ranges: Vec::new(), next: Seq(0) };
    let mut wanted = limit;
    let mut take = |first: u64, last: u64, newest_first: bool| -> ControlFlow<()> {
        if first > last {
            return ControlFlow::Continue(());
        }
        if wanted == 0 {
            selected.next = Seq(if newest_first { last } else { first });
            return ControlFlow::Break(());
        }
        let count = (last - first + 1).min(wanted);
        wanted -= count;
        if newest_first {
            selected.ranges.insert(0, (Seq(last - count + 1), Seq(last)));
            if count <= last - first {
                selected.next = Seq(last - count);
                return ControlFlow::Break(());
            }
        } else {
            selected.ranges.push((Seq(first), Seq(first + count - 1)));
            if count <= last - first {
                selected.next = Seq(first + count);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    // Ends early when the page is full: then `next` says where it goes on.
    let _full = if direction == Direction::BACKWARD {
        entitled.iter().rev().try_for_each(|(first, last)| take(first.0, last.0.min(from.0), true))
    } else {
        entitled.iter().try_for_each(|(first, last)| take(first.0.max(from.0), last.0, false))
    };
    selected
}

impl Edge {
    /// Queues a page; it is a pending request until it is answered.
    pub(super) fn handle_history<L: Links>(&mut self, links: &mut L, key: LinkKey, query: History) {
        if query.direction != Direction::BACKWARD && query.direction != Direction::FORWARD {
            let text = "the direction must be backward or forward".into();
            let error = Error { request: query.request, code: ErrorCode::INVALID, text };
            return self.answer(links, key, &error.into());
        }
        let Some(session) = self.sessions.at_key(key) else { return };
        let last = self.parts.index.last(query.conversation).1;
        session.bulk.queue.push_back(Asked { query, last });
        self.serve_history(links, key);
    }

    /// Begins the next page, if none is under way and the lane is free.
    pub(super) fn serve_history<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        loop {
            let Some(session) = self.sessions.at_key(key) else { return };
            let Some(who) = session.identity().map(|identity| identity.who) else { return };
            if session.bulk.is_busy() || session.bulk.queue.is_empty() {
                return;
            }
            // Stints that missed signals may lack an end: the page waits for the next attach.
            let Some(known) = self.interest.user(who.tenant, who.user).filter(|known| !known.stale) else { return };
            let through = known.as_of.max(self.seen);
            if session.bulk.queue.front().is_some_and(|asked| asked.last > through) {
                // The batch is committed and about to be processed here.
                return self.history_later.push(key);
            }
            let Some(conversation) = session.bulk.queue.front().map(|asked| asked.query.conversation) else { return };
            let Some(last) = last_seq(&self.parts.index, conversation, through) else {
                return self.history_later.push(key);
            };
            let Some(Asked { query, .. }) = session.bulk.queue.pop_front() else { return };
            let stints = known.stints_in(query.conversation);
            if stints.is_empty() {
                let text = "no such conversation, or none of yours".into();
                let error = Error { request: query.request, code: ErrorCode::NOT_FOUND, text };
                self.answer(links, key, &error.into());
                continue;
            }
            let floor = self.parts.index.floor(conversation).0;
            let (entitled, truncated) = (entitled(stints, floor, last), lost(stints, floor));
            let limit = u64::from(query.limit).clamp(1, PAGE_ENTRIES_MAX as u64);
            let Selected { ranges, next } = select(&entitled, query.from, query.direction, limit);
            let selected = ranges.iter().map(|(first, last)| last.0 - first.0 + 1).sum();
            let (places, frames) = (Vec::new(), VecDeque::new());
            let page = Page { query, next, truncated, selected, run: 0, alone: None, places, frames, bytes: 0 };
            session.bulk.page = Some(Box::new(page));
            if let Some(Found::Page(places)) = self.ask(key, Question::Page { conversation, ranges }) {
                self.read_page(links, key, places);
            }
        }
    }

    /// Goes on with pages that waited for this edge to come as far as they were asked for.
    pub(super) fn serve_history_later<L: Links>(&mut self, links: &mut L) {
        for key in std::mem::take(&mut self.history_later) {
            self.serve_history(links, key);
        }
    }

    /// The places are known: reads the bodies.
    pub(super) fn read_page<L: Links>(&mut self, links: &mut L, key: LinkKey, places: Vec<Place>) {
        let Some(page) = self.page(key) else { return };
        if (places.len() as u64) < page.selected {
            // Retention has taken some of them since.
            return self.select_anew(links, key);
        }
        page.places = places;
        self.read_run(links, key);
    }

    /// Reads on: forward as much as a page holds, backward a few at a time, as the oldest of them may not fit.
    fn read_run<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let Some(page) = self.page(key) else { return };
        if page.places.is_empty() {
            return self.send_page(links, key);
        }
        let backward = page.query.direction == Direction::BACKWARD;
        let begin = if backward { page.places.len().saturating_sub(HISTORY_RUN_MESSAGES) } else { 0 };
        page.run = page.places.len() - begin;
        let bytes_max = if backward { usize::MAX } else { HISTORY_BYTES_MAX };
        self.read_places(key, begin.., bytes_max);
    }

    /// Has some of the places read.
    fn read_places(&mut self, key: LinkKey, places: impl SliceIndex<[Place], Output = [Place]>, bytes_max: usize) {
        let Some(page) = self.page(key) else { return };
        let positions: Vec<_> = page.places[places].iter().map(|place| place.position).collect();
        let (replies, waker) = (self.parts.replies_in.clone(), self.parts.waker.clone());
        let done = Box::new(move |entries| {
            // Room was reserved; an edge that is gone needs no bodies.
            replies.try_send(ToEdge::Found { link: key, found: Found::PageBodies(entries) }).ok();
            waker.wake();
        });
        self.page_reads.push_back((key, ReadRequest { positions, bytes_max, done }));
        self.run_page_reads();
    }

    /// Hands reads to the reader threads, as far as there is room for them.
    pub(super) fn run_page_reads(&mut self) {
        while self.reading < self.limits.reads_in_flight_max {
            let Some((key, request)) = self.page_reads.pop_front() else { break };
            if self.sessions.at_key(key).is_none() {
                continue;
            }
            if let Err(request) = self.parts.bodies.submit(request) {
                self.page_reads.push_front((key, request));
                break;
            }
            self.reading += 1;
            self.stats.reads += 1;
        }
    }

    pub(super) fn handle_page_bodies<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        entries: Result<Vec<Entry>, ReadError>,
    ) {
        let Some(page) = self.page(key) else { return };
        let backward = page.query.direction == Direction::BACKWARD;
        match entries {
            // It could not be read with others and can be now: they are read again.
            Ok(_) if page.alone.take().is_some() => self.read_run(links, key),
            // All of a run fits: it is short because the next of it cannot be read, and alone it says why.
            Ok(entries) if backward && entries.len() < page.run => {
                let at = page.places.len() - page.run + entries.len();
                page.alone = Some(at);
                self.read_places(key, at..=at, usize::MAX);
            }
            Ok(entries) => match page.take(entries) {
                ControlFlow::Continue(()) => self.read_run(links, key),
                ControlFlow::Break(()) => self.send_page(links, key),
            },
            // The page goes on without it.
            Err(error) if error.is_of_record() => {
                let first = if backward { page.places.len() - page.run } else { 0 };
                let place = page.places.remove(page.alone.take().unwrap_or(first));
                self.tell_unreadable(place.position, &error);
                self.read_run(links, key);
            }
            // Retention was faster: the page is selected anew, above the new floor.
            Err(ReadError::Truncated { first }) if self.parts.index.truncated_through().next() >= first => {
                self.select_anew(links, key);
            }
            Err(error) => {
                tracing::error!(%error, ?key, "a page of history could not be read from the journal");
                self.close(links, key, ErrorCode::INTERNAL, "a message could not be read from the journal");
            }
        }
    }

    fn select_anew<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(page) = session.bulk.page.take() else { return };
        session.bulk.queue.push_front(Asked { query: page.query, last: Position(0) });
        self.serve_history(links, key);
    }

    fn page(&mut self, key: LinkKey) -> Option<&mut Page> {
        self.sessions.at_key(key)?.bulk.page.as_deref_mut()
    }

    fn send_page<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(page) = session.bulk.page.take() else { return };
        session.requests_pending -= 1;
        let unread = session.control.as_ref().is_some_and(|control| control.unread);
        let Some(mut link) = links.link(key) else { return };
        let (stream, out) = match &mut session.bulk.lane {
            Some(lane) => lane,
            none => {
                let Some(stream) = link.open_uni(PRIORITY_BULK) else {
                    drop(link);
                    let text = "allow the broker three unidirectional streams";
                    return self.close_for_cause(links, key, ErrorCode::UNEXPECTED_FRAME, text);
                };
                let lane = none.insert((stream, Outbox::default()));
                let opened = LaneOpened { lane: Lane::BULK }.to_bytes();
                // A closed stream shows again with the page.
                lane.1.write(&mut link, stream, opened, Room::Shared, Weight::Own).ok();
                lane
            }
        };
        let written = out.write(&mut link, *stream, page.to_bytes(), Room::Shared, Weight::Own);
        drop(link);
        if written.is_err() {
            return self.lost_stream(links, key);
        }
        if unread {
            self.resume(key);
        }
        self.serve_history(links, key);
    }
}

impl Page {
    /// Takes what was read, as far as it fits; `Break`: the page is full, or has everything.
    fn take(&mut self, entries: Vec<Entry>) -> ControlFlow<()> {
        if self.query.direction == Direction::FORWARD {
            let taken = entries.len().min(self.places.len());
            self.frames = entries.into_iter().map(|entry| entry.frame).collect();
            if let Some(place) = self.places.get(taken) {
                self.next = place.seq;
            }
            return ControlFlow::Break(());
        }
        for entry in entries.into_iter().rev() {
            let Some(place) = self.places.pop_if(|place| place.position == entry.position) else {
                return ControlFlow::Break(());
            };
            if !self.frames.is_empty() && self.bytes + entry.frame.len() > HISTORY_BYTES_MAX {
                self.next = place.seq;
                return ControlFlow::Break(());
            }
            self.bytes += entry.frame.len();
            self.frames.push_front(entry.frame);
        }
        if self.places.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn to_bytes(&self) -> Bytes {
        let count = u16::try_from(self.frames.len()).expect("PAGE_ENTRIES_MAX is under 65,536");
        let (request, conversation) = (self.query.request, self.query.conversation);
        let header = HistoryPage { request, conversation, count, next: self.next, truncated: self.truncated };
        let mut bytes = BytesMut::from(header.to_bytes());
        for frame in &self.frames {
            bytes.extend_from_slice(frame);
        }
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::effect::Moment;

    fn stint(joined: u64, left: Option<u64>, history: HistoryPolicy) -> StintView {
        let moment = |seq| Moment { seq: Seq(seq), position: Position(10 * seq) };
        StintView { conversation: ConversationId(1), joined: moment(joined), left: left.map(moment), history }
    }

    fn check(ranges: &[(u64, u64)], from: u64, direction: Direction, limit: u64, expected: &[(u64, u64)], next: u64) {
        let seqs = |ranges: &[(u64, u64)]| ranges.iter().map(|(f, l)| (Seq(*f), Seq(*l))).collect::<Vec<_>>();
        let selected = select(&seqs(ranges), Seq(from), direction, limit);
        assert_eq!(selected, Selected { ranges: seqs(expected), next: Seq(next) });
    }

    #[test]
    fn a_page_goes_over_the_gaps_between_stints_in_both_directions() {
        let ranges = [(3, 5), (8, 9), (20, 30)];
        check(&ranges, u64::MAX, Direction::BACKWARD, 4, &[(27, 30)], 26);
        check(&ranges, 21, Direction::BACKWARD, 4, &[(8, 9), (20, 21)], 5);
        check(&ranges, 5, Direction::BACKWARD, 3, &[(3, 5)], 0);
        check(&ranges, 2, Direction::BACKWARD, 3, &[], 0);
        check(&ranges, 0, Direction::FORWARD, 4, &[(3, 5), (8, 8)], 9);
        check(&ranges, 6, Direction::FORWARD, 2, &[(8, 9)], 20);
        check(&ranges, 29, Direction::FORWARD, 9, &[(29, 30)], 0);
        check(&ranges, 31, Direction::FORWARD, 9, &[], 0);
        check(&[], 1, Direction::FORWARD, 9, &[], 0);
    }

    #[test]
    fn entitlement_is_by_stint_unless_the_history_is_open() {
        let joined = [stint(2, Some(5), HistoryPolicy::JOINED), stint(9, None, HistoryPolicy::JOINED)];
        let seqs = |stints: &[StintView], floor| {
            let ranges = entitled(stints, Seq(floor), Seq(12));
            ranges.iter().map(|(first, last)| (first.0, last.0)).collect::<Vec<_>>()
        };
        assert_eq!(seqs(&joined, 0), [(3, 5), (10, 12)]);
        assert_eq!(seqs(&joined, 4), [(5, 5), (10, 12)]);
        assert_eq!(seqs(&joined, 12), []);
        let full = [stint(2, Some(5), HistoryPolicy::FULL), stint(9, None, HistoryPolicy::FULL)];
        assert_eq!(seqs(&full, 0), [(1, 12)]);
        assert_eq!(seqs(&full[..1], 1), [(2, 5)]);
    }

    #[test]
    fn who_joined_later_has_lost_nothing() {
        let stints = [stint(2, Some(5), HistoryPolicy::JOINED), stint(9, None, HistoryPolicy::JOINED)];
        for (floor, expected) in [(0, 0), (2, 0), (3, 3), (7, 5), (9, 5), (10, 10), (12, 12)] {
            assert_eq!(lost(&stints, Seq(floor)), Seq(expected), "floor {floor}");
        }
        assert_eq!(lost(&[stint(9, None, HistoryPolicy::FULL)], Seq(3)), Seq(3));
    }
}
