//! The broker's real parts on one thread, and the people around it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use carillon::clock::Clock;
use carillon::dings::DingPolicies;
use carillon::dings::rates::Rates;
use carillon::edge::limits::{Limits, URGENT_BYTES_MAX};
use carillon::edge::{self, Edge, Left, Stats};
use carillon::index::Index;
use carillon::journal::{Identity, Journal, JournalOptions, MemoryStorage, Opened, SegmentJournal, open};
use carillon::sequencer::ring::{Found, Ring, RingWriter, ring};
use carillon::sequencer::{
    self, EdgeId, Mail, Mailbox, NoOutlets, Sequencer, Submitted, mailbox, submissions_with_room,
};
use carillon_core::Shard;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{DeviceId, Incarnation, Position, ProducerId, ShardId};
use carillon_protocol::limits::HISTORY_BYTES_MAX;
use carillon_transport::LinkKey;

use super::ledger::Ledger;
use super::links::SimLinks;
use super::parts::{LateReader, PEOPLE, SimClock, SimWake, tokens};
use super::rng::Rng;
use super::session::{Device, Session};
use super::shape::Shape;
use super::told::Told;

pub(super) const SHARD: ShardId = ShardId(0);

/// Links that an edge may ask for in one turn: far above what any bounded turn of these runs needs.
const CALLS_A_TURN_MAX: usize = 20_000;

/// Frames that name gaps: one a stint, of as many as a run has.
const NOTICES_BYTES_MAX: usize = 16 * 1024;

/// Why a run failed.
pub(super) type Outcome = Result<(), String>;

/// The last actions of a run, to be shown when it fails.
#[derive(Default)]
pub(super) struct Log {
    pub(super) on: bool,
    pub(super) lines: VecDeque<String>,
}

/// An edge with its connections.
pub(super) struct Station {
    pub(super) edge: Edge,
    pub(super) links: SimLinks,
    pub(super) wake: Arc<SimWake>,
    pub(super) left: Left,
    /// Gets no turn before this step.
    pub(super) stalled_until: usize,
}

/// What is remembered of every session that said `Hello`, to judge who fences whom.
struct Hello {
    device: usize,
    welcomed_at: Option<usize>,
}

/// See the module.
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) shape: Shape,
    pub(super) clock: Arc<SimClock>,
    pub(super) sequencer: Sequencer<SegmentJournal>,
    ring: Arc<Ring>,
    ring_next: u64,
    pub(super) bodies: Arc<LateReader>,
    pub(super) index: Arc<Index>,
    pub(super) incarnation: Incarnation,
    pub(super) stations: Vec<Station>,
    pub(super) ledger: Ledger,
    pub(super) devices: Vec<Device>,
    /// By [`Session::id`].
    pub(super) sessions: BTreeMap<usize, Session>,
    hellos: Vec<Hello>,
    /// The edges have been told to end.
    pub(super) draining: bool,
    /// What the broker closed sessions for, and how often.
    pub(super) closes: BTreeMap<u16, u64>,
    /// Steps so far.
    pub(super) now: usize,
    pub(super) next_stamp: u64,
    log: Rc<RefCell<Log>>,
}

impl World {
    pub(super) fn new(seed: u64, log: Rc<RefCell<Log>>) -> Self {
        let mut rng = Rng::new(seed);
        let shape = Shape::random(&mut rng);
        let incarnation = Incarnation(7);
        let Opened { journal, reader, .. } = journal(&shape, incarnation);
        let start = journal.head();
        let clock = Arc::new(SimClock::new());
        let bodies = Arc::new(LateReader::new(reader, shape.reader_room));
        let (writer, ring) = ring(shape.ring_batches, shape.ring_bytes);
        let (submit, queues) = submissions_with_room(shape.publishes_queued, shape.controls_queued);
        let index = Arc::new(Index::new());
        let policies = Arc::new(DingPolicies::at(Rates::TRIAL));
        let (mut mailboxes, mut stations) = (Vec::new(), Vec::new());
        let wakes = [(); 2].map(|()| Arc::new(SimWake::default()));
        let peers = edge::Peers::of(wakes.iter().map(|wake| wake.clone() as Arc<dyn sequencer::Wake>));
        for ((nth, wake), peers) in wakes.into_iter().enumerate().zip(peers) {
            let room = shape.limits.replies_reserved_max + shape.limits.reads_in_flight_max;
            let room = [room, shape.limits.marks_under_way_max, shape.fences_queued];
            let (mailbox, Mail { replies, replies_in, marked, fences }) = mailbox(wake.clone(), room);
            mailboxes.push(mailbox);
            let parts = edge::Parts {
                id: EdgeId(nth),
                shard: SHARD,
                incarnation,
                start,
                idle_timeout_ms: 30_000,
                clock: clock.clone(),
                authenticator: tokens().authenticator.clone(),
                submit: submit.clone(),
                replies,
                replies_in,
                marked,
                fences,
                waker: wake.clone(),
                ring: ring.clone(),
                index: index.clone(),
                bodies: bodies.clone(),
                peers,
                policies: policies.clone(),
            };
            let edge = Edge::with_limits(parts, shape.limits);
            let links = SimLinks::new(rng.fork(), shape.stingy);
            stations.push(Station { edge, links, wake, left: Left::Nothing, stalled_until: 0 });
        }
        let clock_of = clock.clone() as Arc<dyn Clock>;
        let parts = sequencer_parts((journal, writer, index.clone()), clock_of, (queues, mailboxes), policies);
        let devices = devices(shape.devices_a_person);
        Self {
            rng,
            shape,
            clock,
            sequencer: Sequencer::new(parts),
            ring,
            ring_next: 0,
            bodies,
            index,
            incarnation,
            stations,
            ledger: Ledger::default(),
            devices,
            sessions: BTreeMap::new(),
            hellos: Vec::new(),
            draining: false,
            closes: BTreeMap::new(),
            now: 0,
            next_stamp: 1,
            log,
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.shape.limits
    }

    /// What the edges counted.
    pub(super) fn stats(&self) -> Vec<Stats> {
        self.stations.iter().map(|station| station.edge.stats()).collect()
    }

    /// Sessions opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.hellos.len() as u64
    }

    /// Notes what happens, if anybody wants to know.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let log = &mut *self.log.borrow_mut();
        if log.on {
            log.lines.push_back(format!("{:4} {}", self.now, line()));
        }
    }

    /// The sequencer drains, commits and answers; the ledger learns what it committed.
    pub(super) fn step(&mut self) -> Outcome {
        self.sequencer.step().map_err(|error| error.to_string())?;
        while let Found::Batch(committed) = self.ring.at(self.ring_next) {
            self.ledger.take(&committed.batch)?;
            self.ring_next += 1;
            self.note(|| format!("committed {} to {}", committed.batch.first(), committed.batch.last()));
        }
        if self.ledger.head == self.sequencer.head() { Ok(()) } else { Err("a batch is not in the ring".into()) }
    }

    /// An edge takes a turn, with at most so many events.
    pub(super) fn turn(&mut self, nth: usize, events_max: usize) -> Outcome {
        let station = &mut self.stations[nth];
        let mut events = station.links.take_events(events_max);
        self.note(|| format!("edge {nth} turns on {events:?}"));
        let station = &mut self.stations[nth];
        station.wake.clear();
        station.links.calls = 0;
        station.left = station.edge.turn(&mut station.links, &mut events);
        let (calls, left, seen, stats) = (station.links.calls, station.left, station.edge.seen(), station.edge.stats());
        let closed = station.links.take_closed();
        self.note(|| format!("edge {nth} has {left:?} left, seen {seen}, {stats:?}"));
        if calls > CALLS_A_TURN_MAX {
            return Err(format!("edge {nth} asked for {calls} links in one turn"));
        }
        self.judge_held(nth)?;
        closed.into_iter().try_for_each(|(link, code, reason)| self.judge_close(nth, link, code, &reason))
    }

    /// Every session's memory has a bound.
    fn judge_held(&self, nth: usize) -> Outcome {
        let limits = self.limits();
        // A read update or progress is smaller than this, and so is one of 32 counts.
        let frame_bytes_max = self.ledger.frame_bytes_max.max(600);
        let replies_max = 2 * limits.reply_bytes_pause + 600 * (20 + limits.publishes_in_flight_max);
        for (link, held) in self.stations[nth].edge.held() {
            let within = held.remainder_bytes <= frame_bytes_max
                && held.body_bytes <= limits.slice_bytes_max.max(frame_bytes_max) + NOTICES_BYTES_MAX
                && held.bulk_bytes <= HISTORY_BYTES_MAX + 2 * frame_bytes_max
                && held.planned <= limits.plan_positions_max.max(limits.plan_positions_wide_max)
                && held.receipts <= limits.receipts_waiting_max
                && held.urgent_bytes <= URGENT_BYTES_MAX
                && held.reply_bytes <= replies_max;
            if !within {
                return Err(format!("edge {nth} holds {held:?} for {link:?}; a frame has {frame_bytes_max} at most"));
            }
        }
        Ok(())
    }

    /// The broker closed a connection: had it reason to?
    fn judge_close(&mut self, nth: usize, link: LinkKey, code: u32, reason: &str) -> Outcome {
        let code = ErrorCode(u16::try_from(code).map_err(|_| format!("close code {code}"))?);
        self.note(|| format!("edge {nth} closed {link:?}: {code:?}, {reason}"));
        let found = self.sessions.values().find(|session| session.edge == nth && session.link == link);
        let Some(id) = found.map(|session| session.id) else { return Ok(()) };
        let session = self.forget(id);
        *self.closes.entry(code.0).or_default() += 1;
        let waited_ms = self.clock.passed_ms() - session.connected_at_ms;
        let legitimate = match code {
            ErrorCode::FENCED => self.may_be_fenced(&session) || session.is_retired(&self.ledger),
            // An edge does not know whether the device came back after it was given up, and so takes the news for new.
            ErrorCode::RETIRED => session.retired_at(&self.ledger).is_some_and(|at| at > session.seen),
            ErrorCode::DRAINING => self.draining,
            ErrorCode::HELLO_TIMEOUT => session.welcome.is_none() && waited_ms >= 10_000,
            _ => session.misbehaved == Some(code),
        };
        if legitimate { Ok(()) } else { Err(format!("session {id} was closed for {code:?}: {reason}")) }
    }

    /// Only a session that is not known to be older than this one may have fenced it.
    fn may_be_fenced(&self, session: &Session) -> bool {
        self.hellos.iter().enumerate().any(|(id, other)| {
            let older = other.welcomed_at.is_some_and(|welcomed_at| welcomed_at < session.hello_at);
            id != session.id && other.device == session.device && !older
        })
    }

    /// The next session says `Hello`.
    pub(super) fn note_hello(&mut self, device: usize) -> usize {
        self.hellos.push(Hello { device, welcomed_at: None });
        self.hellos.len() - 1
    }

    pub(super) fn note_welcome(&mut self, id: usize) {
        self.hellos[id].welcomed_at = Some(self.now);
    }

    /// The session is over.
    pub(super) fn forget(&mut self, id: usize) -> Session {
        let session = self.sessions.remove(&id).expect("it lives");
        let device = &mut self.devices[session.device];
        if device.current == Some(id) {
            device.current = None;
        }
        session
    }
}

fn sequencer_parts(
    (journal, ring, index): (SegmentJournal, RingWriter, Arc<Index>),
    clock: Arc<dyn Clock>,
    (queues, edges): (Submitted, Vec<Mailbox>),
    policies: Arc<DingPolicies>,
) -> sequencer::Parts<SegmentJournal> {
    let (shard, outlets) = (Shard::new(SHARD), Box::new(NoOutlets));
    sequencer::Parts { shard, journal, ring, index, clock, queues, edges, outlets, policies }
}

/// A fresh journal in memory.
fn journal(shape: &Shape, incarnation: Incarnation) -> Opened {
    let mut options = JournalOptions::new(SHARD);
    options.segment_bytes = shape.segment_bytes;
    options.identity = Some(Identity { incarnation, salt: 99 });
    open(Arc::new(MemoryStorage::new()), options, Position(0), &mut |_| Ok(())).expect("a journal")
}

/// Everybody's devices.
fn devices(devices_a_person: usize) -> Vec<Device> {
    let mut devices = Vec::new();
    for person in 0..PEOPLE.len() {
        for nth in 0..devices_a_person {
            let id = DeviceId((person * 100 + nth + 1) as u64);
            devices.push(Device {
                person,
                id,
                producer: producer_of(id),
                cursor: None,
                told: Told::default(),
                next_number: 1,
                unsettled: BTreeMap::new(),
                current: None,
            });
        }
    }
    devices
}

/// The producer of a device.
pub(super) fn producer_of(device: DeviceId) -> ProducerId {
    ProducerId(device.0 + 1_000_000)
}
