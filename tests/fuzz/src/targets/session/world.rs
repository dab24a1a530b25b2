//! An edge, a sequencer and an empty shard on one thread, with a clock that is set.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use carillon::clock::{Clock, SystemClock};
use carillon::dings::DingPolicies;
use carillon::dings::rates::Rates;
use carillon::edge::auth::{AUDIENCE, Authenticator, Claims};
use carillon::edge::limits::Limits;
use carillon::edge::{self, Edge, Left, ReadBodies};
use carillon::index::Index;
use carillon::journal::{
    Identity, JournalOptions, MemoryStorage, Opened, ReadJob, ReadRequest, Reader, SegmentJournal, open,
};
use carillon::sequencer::ring::ring;
use carillon::sequencer::{self, EdgeId, Mail, NoOutlets, Sequencer, Wake, mailbox, submissions_with_room};
use carillon_core::Shard;
use carillon_protocol::ids::{Incarnation, Position, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};

use super::links::Wires;
use crate::life::SHARD;
use crate::targets::token::{PUBLIC, SECRET};

pub(super) const INCARNATION: Incarnation = Incarnation(7);

/// When every run begins.
const START_MS: u64 = 1_767_225_600_000;

/// Turns until nothing is left to do: far above what any input needs.
const TURNS_MAX: usize = 10_000;

/// Tenant, handle and role of everybody.
pub(super) const PEOPLE: [(&str, &str, &str); 4] =
    [("acme", "robot", "service"), ("acme", "ann", "user"), ("acme", "bob", "user"), ("umbra", "eve", "admin")];

/// Time passes when it is told to.
pub(super) struct SetClock {
    start: Instant,
    passed_ms: AtomicU64,
}

impl carillon_transport::Clock for SetClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}

impl Clock for SetClock {
    fn wall(&self) -> Timestamp {
        Timestamp(START_MS + self.passed_ms.load(Ordering::Relaxed))
    }
}

struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// Reads at once, on the edge's thread.
struct AtOnce(Reader);

impl ReadBodies for AtOnce {
    fn submit(&self, request: ReadRequest) -> Result<(), ReadRequest> {
        (request.done)(self.0.read(&request.positions, request.bytes_max));
        Ok(())
    }

    fn run(&self, job: ReadJob) -> Result<(), ReadJob> {
        job();
        Ok(())
    }
}

/// The key that the broker believes, and what it signed for [`PEOPLE`]; made once.
struct Tokens {
    authenticator: Arc<Authenticator>,
    tokens: Vec<String>,
}

fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| {
        let signing = EncodingKey::from_ed_pem(SECRET).unwrap();
        let public = DecodingKey::from_ed_pem(PUBLIC).unwrap();
        let sign = |(tenant, handle, role): &(&str, &str, &str)| {
            let claims = Claims {
                tenant: (*tenant).into(),
                sub: (*handle).into(),
                role: (*role).into(),
                exp: START_MS / 1_000 + 1_000_000,
                aud: AUDIENCE.into(),
            };
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &signing).unwrap()
        };
        let tokens = PEOPLE.iter().map(sign).collect();
        Tokens { authenticator: Arc::new(Authenticator::new(vec![public])), tokens }
    })
}

pub(super) fn token(person: usize) -> &'static str {
    &tokens().tokens[person]
}

/// See the module.
pub(super) struct World {
    pub(super) clock: Arc<SetClock>,
    pub(super) wires: Wires,
    sequencer: Sequencer<SegmentJournal>,
    edge: Edge,
}

impl World {
    pub(super) fn new() -> Self {
        let mut options = JournalOptions::new(SHARD);
        (options.segment_bytes, options.reserve_bytes) = (16 * 1024, 16 * 1024);
        options.identity = Some(Identity { incarnation: INCARNATION, salt: 99 });
        let opened = open(Arc::new(MemoryStorage::new()), options, Position(0), &mut |_| Ok(()));
        let Opened { journal, reader, .. } = opened.unwrap_or_else(|error| panic!("an empty journal: {error}"));
        let clock =
            Arc::new(SetClock { start: carillon_transport::Clock::now(&SystemClock), passed_ms: AtomicU64::new(0) });
        // Room for what one input asks: a queue takes its room when it is made.
        let limits =
            Limits { replies_reserved_max: 512, reads_in_flight_max: 64, marks_under_way_max: 64, ..Limits::default() };
        let (writer, ring) = ring(64, 1 << 20);
        let (submit, queues) = submissions_with_room(64, 64);
        let (index, policies) = (Arc::new(Index::new()), Arc::new(DingPolicies::at(Rates::TRIAL)));
        let room = [limits.replies_reserved_max + limits.reads_in_flight_max, limits.marks_under_way_max, 16];
        let wake: Arc<dyn Wake> = Arc::new(Awake);
        let (mailbox, Mail { replies, replies_in, marked, fences }) = mailbox(wake.clone(), room);
        let peers = edge::Peers::of([wake.clone()]).into_iter().next().unwrap();
        let parts = edge::Parts {
            id: EdgeId(0),
            shard: SHARD,
            incarnation: INCARNATION,
            start: Position(0),
            idle_timeout_ms: 30_000,
            clock: clock.clone(),
            authenticator: tokens().authenticator.clone(),
            submit,
            replies,
            replies_in,
            marked,
            fences,
            waker: wake,
            ring,
            index: index.clone(),
            bodies: Arc::new(AtOnce(reader)),
            peers,
            policies: policies.clone(),
        };
        let edge = Edge::with_limits(parts, limits);
        let sequencer = Sequencer::new(sequencer::Parts {
            shard: Shard::new(SHARD),
            journal,
            ring: writer,
            index,
            clock: clock.clone(),
            queues,
            edges: vec![mailbox],
            outlets: Box::new(NoOutlets),
            policies,
        });
        Self { clock, wires: Wires::default(), sequencer, edge }
    }

    pub(super) fn pass_ms(&self, ms: u64) {
        self.clock.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Edge and sequencer take turns until nothing is left to do.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS_MAX {
            let mut events = std::mem::take(&mut self.wires.events);
            let had_events = !events.is_empty();
            let before = self.sequencer.head();
            let left = self.edge.turn(&mut self.wires, &mut events);
            self.sequencer.step().expect("the disk is well");
            self.wires.settle_closed();
            let busy = had_events || left != Left::Nothing || self.sequencer.head() != before;
            quiet = if busy || !self.wires.events.is_empty() { 0 } else { quiet + 1 };
            // The first quiet turn may have put a question to the sequencer, the second has its answer.
            if quiet == 3 {
                return;
            }
        }
        panic!("after {TURNS_MAX} turns there is still something to do");
    }
}
