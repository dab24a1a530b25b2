//! One life of the broker's process: its real parts on one thread, made from what the directory has. It ends when the process dies.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use carillon::clock::Clock;
use carillon::dings::DingPolicies;
use carillon::edge::{self, Edge, Left};
use carillon::index::Index;
use carillon::journal::{
    Batch, CommitError, Draft, Identity, Journal, JournalOptions, MemoryStorage, Opened, Preparer, Room, SegmentJournal,
};
use carillon::keeper::{self, Keeper};
use carillon::sequencer::ring::{Ring, RingWriter, ring};
use carillon::sequencer::{self, EdgeId, Mail, Mailbox, Sequencer, Submit, Submitted, mailbox, submissions_with_room};
use carillon::store::{self, Store, StoreError, StoreOptions};
use carillon_protocol::ids::{Epoch, Incarnation, Position};
use crossbeam::channel::{Sender, bounded};

use super::links::SimLinks;
use super::parts::{LateReader, SimClock, SimWake, tokens};
use super::rng::Rng;
use super::shape::Shape;
use super::world::SHARD;
use crate::outlets::SharedGateway;

/// The history that a run has from its begin to its end.
pub(super) const INCARNATION: Incarnation = Incarnation(7);

/// What is outside of the process, and outlives it.
pub(super) struct Outside {
    pub(super) storage: MemoryStorage,
    pub(super) clock: Arc<SimClock>,
    pub(super) gateway: SharedGateway,
    pub(super) policies: Arc<DingPolicies>,
    pub(super) doubt: SharedDoubt,
    pub(super) room: SharedRoom,
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

/// See the module.
pub(super) struct Life {
    pub(super) sequencer: Sequencer<NotedJournal>,
    pub(super) submit: Submit,
    pub(super) ring: Arc<Ring>,
    pub(super) ring_next: u64,
    pub(super) bodies: Arc<LateReader>,
    pub(super) index: Arc<Index>,
    pub(super) stations: Vec<Station>,
    pub(super) preparer: Preparer,
    pub(super) keeper: Keeper,
    /// The keeper goes on for as long as this is there.
    _keeping: Sender<()>,
}

/// A batch of which only the next start can tell whether it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) first: Position,
    pub(super) last: Position,
    pub(super) bytes: usize,
}

/// The newest one, if there is one.
#[derive(Clone, Default)]
pub(super) struct SharedDoubt(Arc<Mutex<Option<Doubt>>>);

impl SharedDoubt {
    pub(super) fn take(&self) -> Option<Doubt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn get(&self) -> Option<Doubt> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, doubt: Option<Doubt>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
    }
}

/// The room that the sequencer was told of last.
#[derive(Clone, Default)]
pub(super) struct SharedRoom(Arc<Mutex<Room>>);

impl SharedRoom {
    pub(super) fn get(&self) -> Room {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, room: Room) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = room;
    }
}

/// The real journal. What is being committed is noted, so that a start may find all of it or nothing; and how much room there is, so that
/// nobody is refused for want of it who need not be.
pub(super) struct NotedJournal {
    journal: SegmentJournal,
    doubt: SharedDoubt,
    room: SharedRoom,
}

impl Journal for NotedJournal {
    fn incarnation(&self) -> Incarnation {
        self.journal.incarnation()
    }

    fn epoch(&self) -> Epoch {
        self.journal.epoch()
    }

    fn head(&self) -> Position {
        self.journal.head()
    }

    fn room(&self) -> Room {
        let room = self.journal.room();
        self.room.set(room);
        room
    }

    fn prepared_bytes(&self) -> u64 {
        self.journal.prepared_bytes()
    }

    fn commit(&mut self, draft: Draft) -> Result<Batch, CommitError> {
        let last = Position(draft.next_position().0 - 1);
        self.doubt.set(Some(Doubt { first: draft.first(), last, bytes: draft.bytes() }));
        let committed = self.journal.commit(draft);
        if committed.is_ok() {
            self.doubt.set(None);
        }
        committed
    }
}

/// How a run opens its directory.
pub(super) fn store_options(shape: &Shape, clock: &Arc<SimClock>) -> StoreOptions {
    let mut journal = JournalOptions::new(SHARD);
    (journal.segment_bytes, journal.reserve_bytes) = (shape.segment_bytes, shape.reserve_bytes);
    journal.free_bytes_min = shape.free_bytes_min;
    journal.identity = Some(Identity { incarnation: INCARNATION, salt: 99 });
    StoreOptions { journal, clock: clock.clone(), progress: None }
}

/// Opens the directory as a start of the broker does.
pub(super) fn open(outside: &Outside, shape: &Shape) -> Result<(Store, Arc<Index>), StoreError> {
    let index = Arc::new(Index::new());
    let options = store_options(shape, &outside.clock);
    let store = store::open(Arc::new(outside.storage.clone()), &options, &mut &*index)?;
    Ok((store, index))
}

impl Life {
    /// A process on an open directory.
    pub(super) fn new((store, index): (Store, Arc<Index>), outside: &Outside, shape: &Shape, rng: &mut Rng) -> Self {
        let Store { shard, opened, uncovered_bytes, .. } = store;
        let Opened { journal, reader, upkeep, preparer, .. } = opened;
        let start = journal.head();
        let bodies = Arc::new(LateReader::new(reader.clone(), shape.reader_room));
        let (writer, ring) = ring(shape.ring_batches, shape.ring_bytes);
        let (submit, queues) = submissions_with_room(shape.publishes_queued, shape.controls_queued);
        let common = Common { start, submit: &submit, ring: &ring, index: &index, bodies: &bodies, outside, shape };
        let (mailboxes, stations) = common.stations(rng);
        let (stop, stopped) = bounded(0);
        let keeper = Keeper::new(
            keeper::Parts {
                shard: SHARD,
                storage: Arc::new(outside.storage.clone()),
                reader,
                upkeep,
                floor: index.clone(),
                clock: outside.clock.clone(),
                options: shape.keeper,
                uncovered_bytes,
            },
            stopped,
        );
        let journal = NotedJournal { journal, doubt: outside.doubt.clone(), room: outside.room.clone() };
        let parts = sequencer_parts((shard, journal), (writer, index.clone()), (queues, mailboxes), outside);
        let sequencer = Sequencer::new(parts);
        Self { sequencer, submit, ring, ring_next: 0, bodies, index, stations, preparer, keeper, _keeping: stop }
    }
}

/// What all edges share.
struct Common<'a> {
    start: Position,
    submit: &'a Submit,
    ring: &'a Arc<Ring>,
    index: &'a Arc<Index>,
    bodies: &'a Arc<LateReader>,
    outside: &'a Outside,
    shape: &'a Shape,
}

impl Common<'_> {
    fn stations(&self, rng: &mut Rng) -> (Vec<Mailbox>, Vec<Station>) {
        let wakes = [(); 2].map(|()| Arc::new(SimWake::default()));
        let peers = edge::Peers::of(wakes.iter().map(|wake| wake.clone() as Arc<dyn sequencer::Wake>));
        let both = wakes.into_iter().enumerate().zip(peers);
        both.map(|((nth, wake), peers)| self.station(nth, wake, peers, rng.fork())).unzip()
    }

    fn station(&self, nth: usize, wake: Arc<SimWake>, peers: edge::Peers, rng: Rng) -> (Mailbox, Station) {
        let Self { shape, outside, .. } = self;
        let room = shape.limits.replies_reserved_max + shape.limits.reads_in_flight_max;
        let room = [room, shape.limits.marks_under_way_max, shape.fences_queued];
        let (mailbox, Mail { replies, replies_in, marked, fences }) = mailbox(wake.clone(), room);
        let parts = edge::Parts {
            id: EdgeId(nth),
            shard: SHARD,
            incarnation: INCARNATION,
            start: self.start,
            idle_timeout_ms: 30_000,
            clock: outside.clock.clone(),
            authenticator: tokens().authenticator.clone(),
            submit: self.submit.clone(),
            replies,
            replies_in,
            marked,
            fences,
            waker: wake.clone(),
            ring: self.ring.clone(),
            index: self.index.clone(),
            bodies: self.bodies.clone(),
            peers,
            policies: outside.policies.clone(),
        };
        let edge = Edge::with_limits(parts, shape.limits);
        let links = SimLinks::new(rng, shape.stingy);
        (mailbox, Station { edge, links, wake, left: Left::Nothing, stalled_until: 0 })
    }
}

fn sequencer_parts(
    (shard, journal): (carillon_core::Shard, NotedJournal),
    (ring, index): (RingWriter, Arc<Index>),
    (queues, edges): (Submitted, Vec<Mailbox>),
    outside: &Outside,
) -> sequencer::Parts<NotedJournal> {
    let (outlets, policies) = (Box::new(outside.gateway.clone()), outside.policies.clone());
    let clock = outside.clock.clone() as Arc<dyn Clock>;
    sequencer::Parts { shard, journal, ring, index, clock, queues, edges, outlets, policies }
}

/// A process is away for so long before somebody starts it again.
pub(super) fn away(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.pick(&[0, 5, 5, 300, 2_000, 20_000, 90_000]))
}
