//! A sequencer on a simulated disk and clock, some users, and a gateway outside that outlives every crash. It takes everything at
//! once, or has little room and is ill.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use carillon::clock::{Clock, SystemClock};
use carillon::dings::DingPolicies;
use carillon::index::Index;
use carillon::journal::{JournalOptions, Loss, MemoryStorage, SegmentJournal};
use carillon::sequencer::ring::ring;
use carillon::sequencer::{
    self, EdgeId, Mail, Origin, Outlets, Sequencer, Submission, Submit, ToEdge, Wake, mailbox, submissions,
};
use carillon::store::{self, Store, StoreOptions};
use carillon_core::effect::{Call, CallKey, Reply, Verb};
use carillon_core::input::{Attach, Authority, CallResult, Input, OutletResult, Principal, Request};
use carillon_protocol::Frame;
use carillon_protocol::ids::{DeviceId, ShardId, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};
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

/// What the gateway saw, and what the sender and the recipient were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was called.
    Called(Verb, CallKey, Outlet),
    /// The confirmation was durable.
    Confirmed,
    /// The DING was known to be recalled.
    Recalled,
}

#[derive(Default)]
pub(crate) struct Gateway {
    pub(crate) seen: Vec<Seen>,
    /// What it has yet to say; lost with the process that would have heard it.
    results: Vec<OutletResult>,
    calls: usize,
    dead: bool,
    /// How many starts, and how many cancels, it holds until they are tried; `None`: it tries each at once, and takes it.
    pub(crate) rooms: Option<usize>,
    /// What it does not take now, and tries again.
    pub(crate) ill: Vec<Verb>,
    held: Vec<Call>,
}

impl Gateway {
    fn holds(&self, outlet: Outlet, verb: Verb) -> usize {
        self.held.iter().filter(|call| (call.outlet, call.verb) == (outlet, verb)).count()
    }

    /// A start that is held is tried no more.
    fn give_up(&mut self, key: CallKey) {
        if let Some(nth) = self.held.iter().position(|call| (call.verb, call.key) == (Verb::Start, key)) {
            self.held.remove(nth);
            self.results.push(OutletResult { key, result: CallResult::Attempt(AttemptState::FAILED), detail: 10 });
        }
    }

    /// Tries each call that is held.
    pub(crate) fn try_all(&mut self) {
        for call in std::mem::take(&mut self.held) {
            self.seen.push(Seen::Called(call.verb, call.key, call.outlet));
            if self.ill.contains(&call.verb) { self.held.push(call) } else { self.results.push(taken(&call)) }
        }
    }
}

fn taken(call: &Call) -> OutletResult {
    let result = match call.verb {
        Verb::Start => CallResult::Attempt(AttemptState::ACCEPTED),
        Verb::Cancel => CallResult::Cancel(CancelState::DONE),
    };
    OutletResult { key: call.key, result, detail: 0 }
}

#[derive(Clone, Default)]
pub(crate) struct SharedGateway(Arc<Mutex<(Gateway, Option<Fate>)>>);

impl SharedGateway {
    pub(crate) fn lock(&self) -> MutexGuard<'_, (Gateway, Option<Fate>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlets for SharedGateway {
    fn has_room(&self, outlet: Outlet, verb: Verb) -> bool {
        let gateway = &self.lock().0;
        !gateway.dead && gateway.rooms.is_none_or(|rooms| gateway.holds(outlet, verb) < rooms)
    }

    fn hand_out(&self, call: Call) {
        let (gateway, fate) = &mut *self.lock();
        gateway.calls += 1;
        if gateway.dead || matches!(fate, Some(Fate::BeforeCall(at)) if *at == gateway.calls) {
            gateway.dead = true;
            return;
        }
        if gateway.rooms.is_some() {
            if call.verb == Verb::Cancel {
                gateway.give_up(call.key);
            }
            gateway.held.push(call);
            return;
        }
        gateway.seen.push(Seen::Called(call.verb, call.key, call.outlet));
        gateway.results.push(taken(&call));
        gateway.dead = matches!(fate, Some(Fate::AfterCall(at)) if *at == gateway.calls);
    }

    fn has_room_to_call_off(&self, _: Outlet) -> bool {
        !self.lock().0.dead
    }

    fn call_off(&self, _: Outlet, key: CallKey) {
        self.lock().0.give_up(key);
    }
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
        gateway.lock().1 = Some(fate);
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
        let (gateway, fate) = &mut *self.gateway.lock();
        *fate = None;
        gateway.dead = false;
        gateway.results.clear();
        gateway.held.clear();
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
            let results = std::mem::take(&mut self.gateway.lock().0.results);
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
            let dead = self.gateway.lock().0.dead;
            if stepped.is_err() || dead || matches!(self.fate, Fate::AfterStep(at) if at == self.steps) {
                self.die();
                return None;
            }
            if idle && !moved && self.gateway.lock().0.results.is_empty() {
                return last;
            }
        }
    }

    /// How many steps, calls to the disk and calls to gateways a run took.
    pub(crate) fn counted(&self) -> (usize, u64, usize) {
        (self.steps, self.storage.calls(), self.gateway.lock().0.calls)
    }
}

fn origin() -> Origin {
    Origin { edge: EdgeId(0), link: LinkKey { index: 0, generation: 0 } }
}

/// A process on what the disk has; `None` if it dies on the way.
fn start(storage: &MemoryStorage, gateway: &SharedGateway, clock: &Arc<StillClock>) -> Option<Life> {
    let mut journal = JournalOptions::new(SHARD);
    journal.segment_bytes = 64 * 1024;
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
