//! A sequencer on a simulated disk and clock, some users, and a gateway outside that outlives every crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carillon::clock::{Clock, SystemClock};
use carillon::dings::DingPolicies;
use carillon::index::Index;
use carillon::journal::{JournalOptions, Loss, MemoryStorage, SegmentJournal};
use carillon::sequencer::ring::ring;
use carillon::sequencer::{
    self, EdgeId, Mail, Origin, Sequencer, Submission, Submit, ToEdge, Wake, mailbox, submissions,
};
use carillon::store::{self, Store, StoreOptions};
use carillon_core::effect::Reply;
use carillon_core::input::{Attach, Authority, Input, Principal, Request};
use carillon_protocol::Frame;
use carillon_protocol::ids::{DeviceId, ShardId, TenantId, Timestamp, UserId};
use carillon_tests::outlets::{Dies, SharedGateway};
use carillon_transport::LinkKey;

pub(crate) const SHARD: ShardId = ShardId(0);
pub(crate) const SENDER: UserId = UserId(0);
pub(crate) const RECIPIENT: UserId = UserId(1);

/// Where the process dies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It does not.
    Lives,
    /// In this call to the disk.
    AtDisk(u64),
    /// Before this call to a gateway was made.
    BeforeCall(usize),
    /// When this call was made, before anything else.
    AfterCall(usize),
    /// After this step of the sequencer, with all that waits in its queues.
    AfterStep(usize),
}

/// Time passes when it is told to.
pub(crate) struct StillClock {
    start: Instant,
    passed_ms: AtomicU64,
}

impl carillon_transport::Clock for StillClock {
    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}

impl Clock for StillClock {
    fn wall(&self) -> Timestamp {
        Timestamp(1_000_000 + self.passed_ms.load(Ordering::Relaxed))
    }
}

struct Unheard;

impl Wake for Unheard {
    fn wake(&self) {}
}

/// One process.
struct Life {
    sequencer: Sequencer<SegmentJournal>,
    submit: Submit,
    mail: Mail,
}

/// See the module.
pub(crate) struct World {
    pub(crate) storage: MemoryStorage,
    pub(crate) gateway: SharedGateway,
    clock: Arc<StillClock>,
    life: Option<Life>,
    fate: Fate,
    loss: Loss,
    steps: usize,
    pub(crate) deaths: usize,
}

impl World {
    pub(crate) fn new(fate: Fate, loss: Loss) -> Self {
        let storage = MemoryStorage::new();
        if let Fate::AtDisk(call) = fate {
            storage.crash_at(call);
        }
        let gateway = SharedGateway::default();
        gateway.lock().dies = match fate {
            Fate::BeforeCall(at) => Some(Dies::Before(at)),
            Fate::AfterCall(at) => Some(Dies::After(at)),
            Fate::Lives | Fate::AtDisk(_) | Fate::AfterStep(_) => None,
        };
        let start = carillon_transport::Clock::now(&SystemClock);
        let clock = Arc::new(StillClock { start, passed_ms: AtomicU64::new(0) });
        Self { storage, gateway, clock, life: None, fate, loss, steps: 0, deaths: 0 }
    }

    pub(crate) fn set_time(&self, ms: u64) {
        self.clock.passed_ms.store(ms, Ordering::Relaxed);
    }

    /// The process that lives, or a new one with both users; it may die at once.
    fn life(&mut self) -> Option<&mut Life> {
        if self.life.is_none() {
            let life = start(&self.storage, &self.gateway, &self.clock);
            match life {
                Some(life) => self.life = Some(life),
                None => self.die(),
            }
        }
        self.life.as_mut()
    }

    fn die(&mut self) {
        self.life = None;
        self.deaths += 1;
        assert!(self.deaths < 10, "{:?}: it dies once", self.fate);
        self.fate = Fate::Lives;
        self.storage.restart(self.loss);
        self.gateway.lock().forget();
    }

    /// Asks until it is answered, over deaths.
    pub(crate) fn ask(&mut self, user: UserId, request: &Request) -> Frame {
        loop {
            let who = Principal { tenant: TenantId(0), user, authority: Authority::User };
            let request = request.clone();
            self.submit(Submission::Input { from: origin(), input: Input::Request { who, request } });
            if let Some(Reply::Frame(frame)) = self.run() {
                return frame;
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        loop {
            if let Some(life) = self.life() {
                life.submit.control(submission).expect("room in the queue");
                return;
            }
        }
    }

    /// Lets the sequencer work until nothing is left to do now; returns the last reply. Ends early when the process dies.
    pub(crate) fn run(&mut self) -> Option<Reply> {
        let mut last = None;
        loop {
            let results = std::mem::take(&mut self.gateway.lock().results);
            let idle = results.is_empty();
            if !idle {
                self.submit(Submission::OutletResults(results));
            }
            let life = self.life()?;
            let before = life.sequencer.head();
            let stepped = life.sequencer.step();
            let moved = life.sequencer.head() != before;
            while let Ok(ToEdge::Reply { reply, .. }) = life.mail.replies.try_recv() {
                last = Some(reply);
            }
            self.steps += 1;
            let dead = self.gateway.lock().dead;
            if stepped.is_err() || dead || matches!(self.fate, Fate::AfterStep(at) if at == self.steps) {
                self.die();
                return None;
            }
            if idle && !moved && self.gateway.lock().results.is_empty() {
                return last;
            }
        }
    }

    /// How many steps, calls to the disk and calls to gateways a run took.
    pub(crate) fn counted(&self) -> (usize, u64, usize) {
        (self.steps, self.storage.calls(), self.gateway.lock().calls)
    }
}

fn origin() -> Origin {
    Origin { edge: EdgeId(0), link: LinkKey { index: 0, generation: 0 } }
}

/// A process on what the disk has; `None` if it dies on the way.
fn start(storage: &MemoryStorage, gateway: &SharedGateway, clock: &Arc<StillClock>) -> Option<Life> {
    let mut journal = JournalOptions::new(SHARD);
    (journal.segment_bytes, journal.reserve_bytes) = (64 * 1024, 64 * 1024);
    let options = StoreOptions { journal, clock: clock.clone(), progress: None };
    let index = Arc::new(Index::new());
    let Store { shard, opened, .. } = store::open(Arc::new(storage.clone()), &options, &mut &*index).ok()?;
    let (ring, _) = ring(64, 1 << 20);
    let (submit, queues) = submissions();
    let (mailbox, mail) = mailbox(Arc::new(Unheard), [64; 3]);
    let parts = sequencer::Parts {
        shard,
        journal: opened.journal,
        ring,
        index,
        clock: clock.clone(),
        queues,
        edges: vec![mailbox],
        outlets: Box::new(gateway.clone()),
        policies: Arc::new(DingPolicies::default()),
    };
    for (handle, device) in [("ann", 1), ("bob", 2), ("eve", 3), ("joe", 4), ("kim", 5), ("lea", 6)] {
        let attach = Attach {
            tenant: "acme".into(),
            handle: handle.into(),
            authority: Authority::User,
            device: DeviceId(device),
            producer: None,
        };
        submit.control(Submission::Input { from: origin(), input: Input::Attach(attach) }).ok()?;
    }
    let mut life = Life { sequencer: Sequencer::new(parts), submit, mail };
    life.sequencer.step().ok()?;
    while life.mail.replies.try_recv().is_ok() {}
    Some(life)
}
