//! The production sequencer, store, keeper and spare on any storage, without edges: whoever holds it hands in inputs, lets it
//! commit, and takes the replies, all in one thread and on a clock that stands until it is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carillon::clock::{Clock, SystemClock};
use carillon::index::Index;
use carillon::journal::{
    CommitError, Identity, JournalOptions, Preparer, Reader, RecoveryReport, SegmentJournal, Storage,
};
use carillon::keeper::{self, Keeper, KeeperOptions, Retention};
use carillon::sequencer::ring::ring;
use carillon::sequencer::{
    self, EdgeId, Flow, Mail, NoOutlets, Origin, Sequencer, Submission, Submit, ToEdge, Wake, mailbox, submissions,
};
use carillon::store::{self, StoreError, StoreOptions};
use carillon_core::effect::Reply;
use carillon_core::input::{Attach, Authority, Input};
use carillon_protocol::ids::{DeviceId, Epoch, Incarnation, Position, ProducerId, ShardId, Timestamp};
use carillon_transport::LinkKey;
use crossbeam::channel::{Sender, bounded};

/// Whose journal it is.
pub const SHARD: ShardId = ShardId(0);

/// Which history it is, the same in every run.
pub const IDENTITY: Identity = Identity { incarnation: Incarnation(0x5eed), salt: 0x5a17 };

/// Replies that may wait; who hands in more before it takes them has made a mistake.
const REPLIES: usize = 4_096;

/// When every run begins.
const START_MS: u64 = 1_767_225_600_000;

/// A clock that is set.
pub struct SetClock {
    start: Instant,
    passed_ms: AtomicU64,
}

impl Default for SetClock {
    fn default() -> Self {
        Self { start: carillon_transport::Clock::now(&SystemClock), passed_ms: AtomicU64::new(0) }
    }
}

impl SetClock {
    /// Time passes.
    pub fn advance(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn passed_ms(&self) -> u64 {
        self.passed_ms.load(Ordering::Relaxed)
    }
}

impl carillon_transport::Clock for SetClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms())
    }
}

impl Clock for SetClock {
    fn wall(&self) -> Timestamp {
        Timestamp(START_MS + self.passed_ms())
    }
}

/// Nobody sleeps here.
struct Awake;

impl Wake for Awake {
    fn wake(&self) {}
}

/// What a rig stands on.
#[derive(Clone)]
pub struct Ground {
    /// Where journal and snapshots lie.
    pub storage: Arc<dyn Storage>,
    /// The index, as it is before a replay.
    pub index: Arc<Index>,
    /// Its time.
    pub clock: Arc<SetClock>,
    /// Size of the segments.
    pub segment_bytes: u64,
    /// What the journal may have, in bytes.
    pub retention_bytes: Option<u64>,
}

/// See the module.
pub struct Rig {
    /// What opening it found and did.
    pub report: RecoveryReport,
    /// The snapshot that it began with; 0: none.
    pub snapshot: Position,
    /// The shard's state as it was opened.
    pub state: Vec<u8>,
    /// Reads the journal.
    pub reader: Reader,
    /// Makes the next segment in advance.
    pub preparer: Preparer,
    /// Takes snapshots and lets segments go.
    pub keeper: Keeper,
    sequencer: Sequencer<SegmentJournal>,
    submit: Submit,
    mail: Mail,
    _running: Sender<()>,
}

/// How a store is opened here.
pub fn store_options(ground: &Ground) -> StoreOptions {
    let (epoch, identity) = (Epoch(1), Some(IDENTITY));
    let (segment_bytes, reserve_bytes) = (ground.segment_bytes, ground.segment_bytes);
    let journal = JournalOptions { epoch, segment_bytes, reserve_bytes, identity, ..JournalOptions::new(SHARD) };
    StoreOptions { journal, clock: ground.clock.clone(), progress: None }
}

impl Rig {
    /// Opens what is there, or makes it.
    ///
    /// # Errors
    /// As [`store::open`].
    pub fn open(ground: &Ground) -> Result<Self, StoreError> {
        let store = store::open(ground.storage.clone(), &store_options(ground), &mut &*ground.index)?;
        let opened = store.opened;
        let (submit, queues) = submissions();
        let (mailbox, mail) = mailbox(Arc::new(Awake), [REPLIES; 3]);
        let (running, stop) = bounded(0);
        let options = KeeperOptions {
            snapshot_journal_bytes: u64::MAX,
            snapshot_interval: Duration::from_secs(u64::MAX / 2_000),
            snapshot_bytes_a_second: u64::MAX,
            retention: Retention { age: None, bytes_max: ground.retention_bytes },
        };
        let parts = keeper::Parts {
            shard: SHARD,
            storage: ground.storage.clone(),
            reader: opened.reader.clone(),
            upkeep: opened.upkeep.clone(),
            floor: ground.index.clone(),
            clock: ground.clock.clone(),
            options,
            uncovered_bytes: store.uncovered_bytes,
        };
        let state = carillon::snapshot::encode(&store.shard);
        let parts_of_sequencer = sequencer::Parts {
            shard: store.shard,
            journal: opened.journal,
            ring: ring(16, 1 << 20).0,
            index: ground.index.clone(),
            clock: ground.clock.clone(),
            queues,
            edges: vec![mailbox],
            outlets: Box::new(NoOutlets),
            policies: Arc::default(),
        };
        Ok(Self {
            report: opened.report,
            snapshot: store.snapshot,
            state,
            reader: opened.reader,
            preparer: opened.preparer,
            keeper: Keeper::new(parts, stop),
            sequencer: Sequencer::new(parts_of_sequencer),
            submit,
            mail,
            _running: running,
        })
    }

    /// Hands in an input of the session of this number.
    ///
    /// # Panics
    /// If more is handed in than is taken.
    pub fn submit(&self, session: u32, input: Input) {
        let from = Origin { edge: EdgeId(0), link: LinkKey { index: session, generation: 0 } };
        let is_publish = matches!(input, Input::Publish { .. });
        let submission = Submission::Input { from, input };
        let taken = if is_publish { self.submit.publish(submission) } else { self.submit.control(submission) };
        taken.expect("there is room");
    }

    /// Lets it commit what was handed in. Returns its replies by session, those too that had left it when the commit failed, and
    /// whether it did, which is final.
    pub fn step(&mut self) -> (Vec<(u32, Reply)>, Result<Flow, CommitError>) {
        let flow = self.sequencer.step();
        let replies = self.mail.replies.try_iter().filter_map(|message| match message {
            ToEdge::Reply { link, reply } => Some((link.index, reply)),
            ToEdge::Counts(_) | ToEdge::Receipts { .. } | ToEdge::Bodies { .. } | ToEdge::Found { .. } => None,
        });
        (replies.collect(), flow)
    }
}

/// A session of this user, with a producer of the same number.
pub fn attach(handle: &str, number: u64) -> Input {
    Input::Attach(Attach {
        tenant: "acme".into(),
        handle: handle.into(),
        authority: Authority::User,
        device: DeviceId(number),
        producer: Some(ProducerId(number)),
    })
}
