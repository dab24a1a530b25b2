//! The edge: one thread a core, its own socket, its own connections and sessions; nothing shared, no lock.
//!
//! Owns the sessions, their streams and lanes, the tables of interest, and the live/catching-up state of each. Knows
//! nothing of sockets beyond the [`Links`] it is handed, so that it runs on simulated ones in tests. Takes its turn
//! ([`Edge::turn`]) whenever something happened: events, replies, the ring, rounds, slices of catch-up; each bounded, so
//! that none keeps the others waiting.
//!
//! Invariants: a session is offered its frames strictly in position order, once; it becomes live only when it has read
//! up to `seen`, on this thread, between slices. Nothing here waits: not for the sequencer, not for a file.

mod attach;
pub mod auth;
mod behind;
pub mod catchup;
mod counts;
mod datagrams;
mod dings;
mod directory;
mod drain;
mod fanout;
mod history;
mod inbound;
mod interest;
mod lanes;
pub mod limits;
mod links;
pub mod lookups;
mod marks;
mod meters;
mod online;
mod peers;
mod pinned;
mod quiet;
mod rare;
mod read_status;
mod receipts;
mod requests;
mod run;
mod session;
mod stats;
mod tell;
mod tick;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use carillon_core::effect::Reply;
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{Incarnation, Position, ShardId, Timestamp};
use carillon_transport::{Event, Link, LinkKey};
use crossbeam::channel::{Receiver, Sender};

use crate::clock::Clock;
use crate::dings::DingPolicies;
use crate::index::Index;
use crate::journal::{ReadJob, ReadRequest, ReaderPool};
use crate::metrics::meter::EdgeMeter;
use crate::sequencer::ring::Ring;
use crate::sequencer::{EdgeId, Origin, Question, Submission, Submit, ToEdge, Wake};
use auth::Authenticator;
use behind::Behind;
use counts::Counts;
use datagrams::Signals;
use dings::Dings;
pub use directory::{Directory, Listed};
use fanout::Round;
use interest::Interest;
use limits::Limits;
pub use links::Links;
use marks::Marks;
pub use peers::Peers;
use pinned::Pinned;
use quiet::Quiet;
pub use run::{Control, run};
pub use session::Held;
use session::{Session, Sessions};
pub use stats::Stats;

/// Where bodies that have left the ring come from.
pub trait ReadBodies: Send + Sync {
    /// Asks for frames; the request's `done` is called once with them.
    ///
    /// # Errors
    /// Gives the request back when too many are queued.
    fn submit(&self, request: ReadRequest) -> Result<(), ReadRequest>;

    /// Does something else that may wait for a file, such as a lookup in the index on disk.
    ///
    /// # Errors
    /// Gives the job back when too many are queued.
    fn run(&self, job: ReadJob) -> Result<(), ReadJob>;
}

impl ReadBodies for ReaderPool {
    fn submit(&self, request: ReadRequest) -> Result<(), ReadRequest> {
        ReaderPool::submit(self, request)
    }

    fn run(&self, job: ReadJob) -> Result<(), ReadJob> {
        ReaderPool::run(self, job)
    }
}

/// What an edge is made of.
pub struct Parts {
    /// Which edge.
    pub id: EdgeId,
    /// The shard it serves.
    pub shard: ShardId,
    /// The journal's incarnation.
    pub incarnation: Incarnation,
    /// The last position when the broker started: the ring begins after it.
    pub start: Position,
    /// What `Welcome` says.
    pub idle_timeout_ms: u32,
    /// For timeouts and tokens.
    pub clock: Arc<dyn Clock>,
    /// For tokens.
    pub authenticator: Arc<Authenticator>,
    /// To the sequencer.
    pub submit: Submit,
    /// From the sequencer.
    pub replies: Receiver<ToEdge>,
    /// The other end of `replies`, for reads.
    pub replies_in: Sender<ToEdge>,
    /// From the sequencer: answers to read marks.
    pub marked: Receiver<(LinkKey, Reply)>,
    /// From the sequencer: sessions that were taken over.
    pub fences: Receiver<LinkKey>,
    /// Wakes this edge.
    pub waker: Arc<dyn Wake>,
    /// Committed batches.
    pub ring: Arc<Ring>,
    /// Where messages lie.
    pub index: Arc<Index>,
    /// Bodies from disk.
    pub bodies: Arc<dyn ReadBodies>,
    /// The other edges.
    pub peers: Peers,
    /// What tenants allow of DINGs.
    pub policies: Arc<DingPolicies>,
}

/// What the edge has left to do when its turn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing before something happens.
    Nothing,
    /// Something waits for room in a queue: try again within a millisecond.
    Retry,
    /// More work at once.
    Work,
}

/// See the module.
pub struct Edge {
    parts: Parts,
    limits: Limits,
    sessions: Sessions,
    interest: Interest,
    /// Replies that are owed to this edge: room taken in its queue.
    reserved: usize,
    /// Reads under way.
    reading: usize,
    /// Submissions that found the queue full, in order; at most what the sessions may have pending.
    outbox: VecDeque<Submission>,
    /// Questions that found theirs full; at most those under way of what has moved, and an interval's of counts.
    questions: VecDeque<Question>,
    /// The one publish that found the queue full; while it waits no publish stream is read.
    stalled: Option<Submission>,
    /// Sessions whose streams are to be read on.
    resuming: VecDeque<LinkKey>,
    /// Sessions that catch up and can take a slice now.
    catching_up: VecDeque<LinkKey>,
    /// Sessions that catch up and have to wait for a reader, or for this edge to reach their stints.
    catching_up_later: Vec<LinkKey>,
    /// Questions to the index that wait for a reader thread.
    lookups: VecDeque<(LinkKey, ReadJob)>,
    /// Those that wait for the index to be rebuilt.
    lookups_later: Vec<(LinkKey, lookups::Question)>,
    /// Sessions whose next page of history waits for this edge to have processed what is committed.
    history_later: Vec<LinkKey>,
    /// Pages of history that wait for a reader thread.
    page_reads: VecDeque<(LinkKey, ReadRequest)>,
    /// Sessions whose stints are to be asked for anew, once there is room for the answer. Each stands here once.
    attaching_again: VecDeque<LinkKey>,
    /// Sessions that are to be told what has moved.
    behind: Behind,
    marks: Marks,
    next_ordinal: u64,
    /// The last position processed: whoever is live has been offered everything up to here, or stands in a round.
    seen: Position,
    /// Cut rounds, oldest first.
    rounds: VecDeque<Round>,
    next_tick: Instant,
    quiet: Quiet,
    scratch: BytesMut,
    pinned: Pinned,
    /// When to look again for sessions that pin too much.
    relieve_again_at: Option<Instant>,
    signals: Signals,
    counts: Counts,
    dings: Dings,
    stats: Stats,
    /// What was logged last as damaged.
    last_unreadable: Position,
    meter: Arc<EdgeMeter>,
    draining: bool,
    catching_up_stopped: bool,
}

impl Edge {
    /// An edge without sessions.
    pub fn new(parts: Parts) -> Self {
        Self::with_limits(parts, Limits::default())
    }

    /// As [`Edge::new`], cutting its work elsewhere: for tests.
    pub fn with_limits(parts: Parts, limits: Limits) -> Self {
        let next_tick = parts.clock.now() + Duration::from_millis(limits::TICK_MS);
        let seen = parts.start;
        Self {
            parts,
            limits,
            sessions: Sessions::default(),
            interest: Interest::default(),
            reserved: 0,
            reading: 0,
            outbox: VecDeque::new(),
            questions: VecDeque::new(),
            stalled: None,
            resuming: VecDeque::new(),
            catching_up: VecDeque::new(),
            catching_up_later: Vec::new(),
            lookups: VecDeque::new(),
            lookups_later: Vec::new(),
            history_later: Vec::new(),
            page_reads: VecDeque::new(),
            attaching_again: VecDeque::new(),
            behind: Behind::default(),
            marks: Marks::default(),
            next_ordinal: 0,
            seen,
            rounds: VecDeque::new(),
            next_tick,
            quiet: Quiet::default(),
            scratch: BytesMut::new(),
            pinned: Pinned::default(),
            relieve_again_at: None,
            signals: Signals::default(),
            counts: Counts::default(),
            dings: Dings::default(),
            stats: Stats::default(),
            last_unreadable: Position(0),
            meter: Arc::default(),
            draining: false,
            catching_up_stopped: false,
        }
    }

    /// Counts here, for an operator.
    #[must_use]
    pub fn with_meter(mut self, meter: Arc<EdgeMeter>) -> Self {
        self.meter = meter;
        self
    }

    /// Handles what happened and does a bounded amount of what is left.
    pub fn turn<L: Links>(&mut self, links: &mut L, events: &mut Vec<Event>) -> Left {
        for event in events.drain(..) {
            self.handle_event(links, event);
        }
        self.take_fences(links);
        self.take_kicks(links);
        self.take_signals(links);
        self.take_replies(links);
        self.attach_again();
        self.ask_moved();
        self.hand_over();
        self.resume_reading(links);
        self.process_ring(links);
        self.ask_counts();
        self.tell_dings(links);
        self.hand_on_received();
        self.run_rounds(links);
        self.run_catch_up(links);
        self.serve_history_later(links);
        self.run_lookups();
        self.run_page_reads();
        self.relieve(links);
        self.tick(links);
        self.tell_quiet(links);
        self.tell_gone(links);
        self.answer_marks(links);
        self.publish_stats();
        self.left()
    }

    fn left(&self) -> Left {
        if self.has_more() || !self.rounds.is_empty() || !self.parts.replies.is_empty() {
            return Left::Work;
        }
        let peers = &self.parts.peers;
        if !self.quiet.is_empty()
            || !self.catching_up.is_empty()
            || self.has_marks_to_answer()
            || !peers.kicks.is_empty()
            || !peers.signals.is_empty()
        {
            return Left::Work;
        }
        let waits = self.stalled.is_some() || !self.outbox.is_empty() || !self.catching_up_later.is_empty();
        let waits = waits || !self.attaching_again.is_empty() || !self.questions.is_empty() || self.behind.is_due();
        let waits = waits || !self.lookups.is_empty() || !self.page_reads.is_empty() || !self.history_later.is_empty();
        let waits = waits || !self.resuming.is_empty() || self.has_marks_to_hand_over();
        if waits { Left::Retry } else { Left::Nothing }
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// What each session holds because its streams did not take it.
    pub fn held(&self) -> impl Iterator<Item = (LinkKey, Held)> {
        self.sessions.iter().map(|session| (session.key, session.held()))
    }

    /// The last position processed.
    pub fn seen(&self) -> Position {
        self.seen
    }

    /// Sessions that are yet to be told what has moved, and can be.
    pub fn behind(&self) -> usize {
        self.behind.len()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn origin(&self, link: LinkKey) -> Origin {
        Origin { edge: self.parts.id, link }
    }

    fn instant(&self) -> Instant {
        self.parts.clock.now()
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.wall()
    }

    /// Hands a control submission to the sequencer, now or in a later turn, behind those that wait already.
    fn submit(&mut self, submission: Submission) {
        self.outbox.push_back(submission);
        self.hand_over();
    }

    /// As [`Edge::submit`], for what the sequencer answers behind everything else. Room for the answer is taken.
    fn submit_question(&mut self, question: Question) {
        self.reserved += 1;
        self.questions.push_back(question);
        self.hand_over();
    }

    fn hand_over(&mut self) {
        while let Some(question) = self.questions.pop_front() {
            if let Err(back) = self.parts.submit.question(question) {
                self.questions.push_front(*back);
                break;
            }
        }
        while let Some(submission) = self.outbox.pop_front() {
            if let Err(back) = self.parts.submit.control(submission) {
                self.outbox.push_front(*back);
                break;
            }
        }
        if let Some(publish) = self.stalled.take()
            && let Err(back) = self.parts.submit.publish(publish)
        {
            self.stalled = Some(*back);
        }
    }

    fn take_replies<L: Links>(&mut self, links: &mut L) {
        for _ in 0..self.limits.replies_a_turn {
            let Ok(message) = self.parts.replies.try_recv() else { break };
            match message {
                ToEdge::Reply { link, reply } => {
                    self.reserved -= 1;
                    self.handle_reply(links, link, reply);
                }
                ToEdge::Counts(answer) => {
                    self.reserved -= 1;
                    self.tell_counts(links, answer);
                }
                ToEdge::Receipts { link, answer } => {
                    self.reserved -= 1;
                    self.behind.under_way -= 1;
                    self.handle_receipts(links, link, answer);
                }
                ToEdge::Bodies { link, first, entries } => {
                    self.reading -= 1;
                    self.handle_bodies(links, link, (first, entries));
                }
                ToEdge::Found { link, found } => {
                    self.reading -= 1;
                    self.handle_found(links, link, found);
                }
            }
        }
    }

    fn handle_reply<L: Links>(&mut self, links: &mut L, link: LinkKey, reply: Reply) {
        match reply {
            Reply::Frame(frame) => {
                if let Frame::Error(refused) = &frame {
                    self.dings.refuse(link, refused.request);
                }
                self.answer(links, link, &frame);
            }
            Reply::ReadPage(page) => self.complete_read_page(links, link, page),
            Reply::CatchUpNoted => self.handle_catch_up_noted(link),
            Reply::Attached(attached) => self.handle_attached(links, link, attached),
            Reply::AttachRefused { code, text } => self.close(links, link, code, text),
            Reply::Watching { request, progress } => self.handle_watching(links, link, request, progress),
            Reply::Reported(_) => unreachable!("no session reports for an outlet"),
        }
    }

    fn take_fences<L: Links>(&mut self, links: &mut L) {
        for _ in 0..limits::FENCES_QUEUED_MAX {
            let Ok(link) = self.parts.fences.try_recv() else { break };
            self.close(links, link, ErrorCode::FENCED, "another session of this device or producer took over");
        }
    }

    /// Ends a session: its connection is told why, everybody forgets it.
    fn close<L: Links>(&mut self, links: &mut L, key: LinkKey, code: ErrorCode, text: &str) {
        if let Some(mut link) = links.link(key) {
            link.close(u32::from(code.0), text);
            self.meter.closes.count(code);
        }
        self.forget(key);
    }

    /// As [`Edge::close`], for what a peer did wrong.
    fn close_for_cause<L: Links>(&mut self, links: &mut L, key: LinkKey, code: ErrorCode, text: &str) {
        self.stats.closed_for_cause += 1;
        if let Some(link) = links.link(key) {
            tracing::debug!(peer = %link.remote_address(), ?code, text, "session closed");
        }
        self.close(links, key, code, text);
    }

    fn forget(&mut self, key: LinkKey) {
        let Some(session) = self.sessions.remove(key) else { return };
        if !self.lookups.is_empty() || !self.page_reads.is_empty() {
            self.lookups.retain(|(of, _)| *of != key);
            self.page_reads.retain(|(of, _)| *of != key);
        }
        if let Some(identity) = session.identity() {
            self.interest.remove_session(identity.who.tenant, identity.who.user, key.index);
            self.parts.peers.directory.leave(identity.who.tenant, identity.who.user, self.origin(key));
        }
        self.note_gone(&session);
        self.unwatch_all(&session);
        self.flush_cursor(&session);
        if !matches!(session.phase, session::Phase::AwaitingHello { .. }) {
            let from = self.origin(key);
            self.submit(Submission::Detach { from });
        }
    }

    /// A session's last acknowledgement goes to the sequencer with it.
    fn flush_cursor(&mut self, session: &Session) {
        let (Some(position), Some(identity)) = (session.acked, session.identity()) else { return };
        self.submit(Submission::Cursors(vec![tick::cursor_move(identity, position)]));
    }
}
