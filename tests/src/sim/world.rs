//! The broker's real parts on one thread, and the people around it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use carillon::dings::rates::Rates;
use carillon::dings::{DingPolicies, DingPolicy};
use carillon::edge::Stats;
use carillon::edge::limits::{Limits, URGENT_BYTES_MAX};
use carillon::journal::{MemoryStorage, Room};
use carillon::sequencer::ring::Found;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{DeviceId, ProducerId, ShardId};
use carillon_protocol::kinds::Outlet;
use carillon_protocol::limits::HISTORY_BYTES_MAX;
use carillon_transport::LinkKey;

use super::calls::Called;
use super::coverage::Coverage;
use super::ledger::Ledger;
use super::life::{Life, Outside, SharedDoubt, SharedRoom, open};
use super::parts::{PEOPLE, SimClock};
use super::recovered::Replica;
use super::rng::Rng;
use super::room::{Known, judge_growth};
use super::session::{Device, Session};
use super::shape::{Machine, Shape};
use super::tide::{LARGE_BYTES, Tide};
use super::told::Told;
use crate::outlets::SharedGateway;

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
    /// The step that the run has come to.
    pub(super) step: usize,
    pub(super) lines: VecDeque<String>,
    pub(super) kept_max: usize,
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
    /// In a run whose disk may fill up.
    pub(super) tide: Option<Tide>,
    pub(super) outside: Outside,
    /// The process, dead or alive, that was started last.
    pub(super) life: Life,
    /// Of this life.
    pub(super) room_known: Known,
    /// The process has a fate.
    pub(super) armed: bool,
    /// Failures of the disk before it was started.
    pub(super) failures_before: u64,
    pub(super) ledger: Ledger,
    pub(super) replica: Replica,
    pub(super) called: Called,
    pub(super) devices: Vec<Device>,
    /// By [`Session::id`].
    pub(super) sessions: BTreeMap<usize, Session>,
    hellos: Vec<Hello>,
    /// The edges have been told to end.
    pub(super) draining: bool,
    /// What happened, but for what the edges count.
    pub(super) covered: Coverage,
    /// Steps so far.
    pub(super) now: usize,
    pub(super) next_stamp: u64,
    log: Rc<RefCell<Log>>,
}

impl World {
    pub(super) fn new(seed: u64, machine: Machine, log: Rc<RefCell<Log>>) -> Self {
        let mut rng = Rng::new(seed);
        let mut shape = Shape::random(&mut rng, machine);
        let mut tide = Tide::of(seed, machine.fails());
        if let Some(tide) = &mut tide {
            tide.shape(&mut shape);
        }
        let outside = Outside {
            storage: MemoryStorage::new(),
            clock: Arc::new(SimClock::new()),
            gateway: SharedGateway::default(),
            policies: Arc::new(policies()),
            doubt: SharedDoubt::default(),
            room: SharedRoom::default(),
        };
        outside.gateway.lock().rooms = Some(shape.gateway_room);
        outside.storage.set_capacity(tide.is_some().then_some(LARGE_BYTES));
        let opened = open(&outside, &shape).expect("an empty directory is opened on a sound disk");
        let life = Life::new(opened, &outside, &shape, &mut rng);
        let devices = devices(shape.devices_a_person);
        Self {
            rng,
            shape,
            tide,
            outside,
            life,
            room_known: Known::default(),
            armed: false,
            failures_before: 0,
            ledger: Ledger::default(),
            replica: Replica::new(),
            called: Called::default(),
            devices,
            sessions: BTreeMap::new(),
            hellos: Vec::new(),
            draining: false,
            covered: Coverage::default(),
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
        self.life.stations.iter().map(|station| station.edge.stats()).collect()
    }

    /// Counts what the edges of this life have counted; it is over.
    pub(super) fn count_edges(&mut self) {
        for stats in self.stats() {
            let covered = &mut self.covered;
            covered.delivered_live += stats.delivered_live;
            covered.delivered_catching_up += stats.delivered_catching_up;
            covered.rounds_cut += stats.rounds_cut;
            covered.fell_behind += stats.fell_behind;
            covered.fell_off_ring += stats.fell_off_ring;
            covered.reads += stats.reads;
            covered.receipts_let_go += stats.receipts_let_go;
        }
    }

    /// What happened in the run, which is over.
    pub(super) fn coverage(&mut self) -> Coverage {
        self.count_edges();
        let (runs, committed, sessions) = (1, self.ledger.head.0, self.hellos.len() as u64);
        let failures = self.outside.storage.failures();
        Coverage { runs, committed, sessions, failures, ..self.covered }
    }

    /// Makes the run's trace depend on all that has happened up to here.
    pub(super) fn trace(&mut self) {
        for part in [self.rng.peek(), self.ledger.head.0, self.outside.storage.calls(), self.sessions.len() as u64] {
            self.covered.trace = (self.covered.trace ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    /// Notes what happens, if anybody wants to know.
    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let log = &mut *self.log.borrow_mut();
        log.step = self.now;
        if log.on {
            log.lines.push_back(format!("{:4} {}", self.now, line()));
            if log.lines.len() > log.kept_max {
                log.lines.pop_front();
            }
        }
    }

    /// The sequencer drains, commits and answers; the ledger learns what it committed.
    pub(super) fn step(&mut self) -> Outcome {
        self.look_at_room();
        let stepped = self.life.sequencer.step();
        let room = self.outside.room.get();
        self.judge_room(room)?;
        if let Err(error) = stepped {
            return self.fail(&error);
        }
        self.note_rolled();
        self.covered.rounds_on_reserve += u64::from(room == Room::Reserve);
        self.covered.rounds_on_last += u64::from(room == Room::Last);
        self.ledger.room_seen.note(room);
        while let Found::Batch(committed) = self.life.ring.at(self.life.ring_next) {
            self.covered.confirmed_on_last += judge_growth(&committed.batch, room)?;
            self.ledger.take(&committed.batch)?;
            self.life.ring_next += 1;
            self.note(|| format!("committed {} to {}", committed.batch.first(), committed.batch.last()));
        }
        if self.ledger.head == self.life.sequencer.head() { Ok(()) } else { Err("a batch is not in the ring".into()) }
    }

    /// An edge takes a turn, with at most so many events.
    pub(super) fn turn(&mut self, nth: usize, events_max: usize) -> Outcome {
        let station = &mut self.life.stations[nth];
        let mut events = station.links.take_events(events_max);
        self.note(|| format!("edge {nth} turns on {events:?}"));
        let station = &mut self.life.stations[nth];
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
        for (link, held) in self.life.stations[nth].edge.held() {
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
        match code {
            ErrorCode::FENCED => self.covered.fenced += 1,
            ErrorCode::RETIRED => self.covered.retired += 1,
            ErrorCode::DRAINING | ErrorCode::SESSIONS_EXHAUSTED => {}
            _ => self.covered.misbehaved += 1,
        }
        let waited_ms = self.outside.clock.passed_ms() - session.connected_at_ms;
        let legitimate = match code {
            ErrorCode::FENCED => self.may_be_fenced(&session) || session.is_retired(&self.ledger),
            // An edge does not know whether the device came back after it was given up, and so takes the news for new.
            ErrorCode::RETIRED => session.retired_at(&self.ledger).is_some_and(|at| at > session.seen),
            ErrorCode::DRAINING => self.draining,
            ErrorCode::SESSIONS_EXHAUSTED => {
                self.covered.sessions_without_room += 1;
                session.welcome.is_none() && session.may_lack_room(&self.ledger)
            }
            ErrorCode::HELLO_TIMEOUT => session.welcome.is_none() && waited_ms >= 10_000,
            // What is to be read cannot be.
            ErrorCode::INTERNAL => self.has_failed(),
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

/// Every outlet, at the rates of a trial.
fn policies() -> DingPolicies {
    let outlets = vec![Outlet::APP, Outlet::SMS, Outlet::PHONE];
    DingPolicies {
        default: DingPolicy { outlets, rates: Rates::TRIAL, ..DingPolicy::default() },
        ..DingPolicies::default()
    }
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
                settled: VecDeque::new(),
                ding_unanswered: None,
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
