//! The calls of one outlet from the hand-over to the result: what is tried next, and what an end of a try means.
//!
//! Owns no connection and reads no clock: time is an argument, ends of tries come in, calls to try go out. What it keeps up:
//!
//! - a start is not tried once its DING has expired, nor after its cancel has come or it was called off;
//! - of one key never more than one try is under way, so that a cancel leaves after the end of the start's last try, and
//!   only if that start may have reached the gateway;
//! - every call that was taken yields exactly one result; a repeat of one that is held yields none of its own.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use carillon_core::turns::Turns;
use carillon_protocol::ids::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::body::Status;
use super::call::{Call, CallKey, CallResult, Detail, Outcome, Verb};
use super::limits::RETRY_AFTER_MAX;
use super::pace::Pace;

/// Both clocks, read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) monotonic: Instant,
    pub(super) wall: Timestamp,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The gateway has it (2xx), and says so much.
    Taken(Status, Detail),
    /// Another try would end alike.
    Refused(Detail),
    /// Another try may end better, but not before this long, if the gateway says so.
    Failed(Detail, Option<Duration>),
}

/// One try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    /// Whether the request may have reached the gateway.
    pub(super) handed: bool,
    pub(super) end: End,
}

/// How often and how fast.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) tries_max: u32,
    pub(super) tries_for: Duration,
    pub(super) calls_a_second: u32,
    pub(super) backoff_first: Duration,
    pub(super) backoff_max: Duration,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try this call.
    Try(Box<Call>),
    /// Nothing before then.
    At(Instant),
    /// Nothing until something comes in.
    Idle,
}

/// When a call is due: by time, and at one time in the order in which they came.
type Turn = (Instant, u64, CallKey);

enum State {
    /// Waits for its turn, or backs off.
    Waits(Turn),
    UnderWay,
    /// A cancel, behind a try of its start.
    Behind,
}

struct Entry {
    call: Call,
    /// Given back with the entry.
    _room: Option<OwnedSemaphorePermit>,
    tries: u32,
    /// When it was tried first.
    tried_at: Option<Instant>,
    handed: bool,
    /// It is not tried again.
    called_off: bool,
    state: State,
}

/// The starts, or the cancels.
#[derive(Default)]
struct Side {
    entries: HashMap<CallKey, Entry>,
    /// Those that are not due yet.
    later: BTreeSet<Turn>,
    /// Those that are: DINGs take turns, and within a round it is by who came first.
    due: Turns<u64>,
}

impl Side {
    /// The one whose turn it is, now that so much time has passed.
    fn first(&mut self, now: Instant) -> Option<CallKey> {
        while let Some((_, came, key)) = self.later.first().copied().filter(|turn| turn.0 <= now) {
            self.later.pop_first();
            self.due.insert(came, key);
        }
        self.due.first()
    }

    /// It waits no longer.
    fn forget(&mut self, turn: &Turn) {
        if !self.later.remove(turn) {
            self.due.remove(&turn.2);
        }
    }
}

/// See the module.
pub(super) struct Held {
    policy: Policy,
    pace: Pace,
    /// Those that are due alternate between starts and cancels: a cancel ends what rings, and a start must not wait for
    /// thousands of them.
    starts: Side,
    cancels: Side,
    /// What was tried last.
    last: Verb,
    came: u64,
    results: Vec<CallResult>,
    /// From 0 to `u32::MAX`, evenly.
    random: fn() -> u32,
}

impl Held {
    pub(super) fn new(policy: Policy, random: fn() -> u32) -> Self {
        let pace = Pace::new(policy.calls_a_second);
        let (starts, cancels, last, results) = (Side::default(), Side::default(), Verb::Start, Vec::new());
        Self { policy, pace, starts, cancels, last, came: 0, results, random }
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.starts.entries.len() + self.cancels.entries.len()
    }

    /// Takes what has been decided since the last time.
    pub(super) fn take_results(&mut self) -> Vec<CallResult> {
        std::mem::take(&mut self.results)
    }

    /// A call comes in, with the room that was reserved for it.
    pub(super) fn handle_call(&mut self, call: Call, room: Option<OwnedSemaphorePermit>, now: Now) {
        match call.verb {
            Verb::Start => self.handle_start(call, room, now),
            Verb::Cancel => self.handle_cancel(call, room, now),
        }
    }

    fn handle_start(&mut self, call: Call, room: Option<OwnedSemaphorePermit>, now: Now) {
        if self.starts.entries.contains_key(&call.key) {
            return;
        }
        if self.cancels.entries.contains_key(&call.key) {
            return self.decide(&call, Outcome::Failed, Detail::CANCELLED);
        }
        self.wait(call, room, now.monotonic);
    }

    fn handle_cancel(&mut self, call: Call, room: Option<OwnedSemaphorePermit>, now: Now) {
        let key = call.key;
        if self.cancels.entries.contains_key(&key) {
            return;
        }
        match self.starts.entries.get(&key).map(|start| &start.state) {
            None => self.wait(call, room, now.monotonic),
            Some(State::UnderWay) => {
                let entry = Entry {
                    call,
                    _room: room,
                    tries: 0,
                    tried_at: None,
                    handed: false,
                    called_off: false,
                    state: State::Behind,
                };
                self.cancels.entries.insert(key, entry);
            }
            Some(State::Waits(turn)) => {
                let turn = *turn;
                self.starts.forget(&turn);
                let start = self.starts.entries.remove(&key).expect("it was just seen");
                self.decide(&start.call, Outcome::Failed, Detail::CANCELLED);
                match start.handed {
                    true => self.wait(call, room, now.monotonic),
                    false => self.decide(&call, Outcome::Done, Detail::NOTHING),
                }
            }
            Some(State::Behind) => unreachable!("only cancels are behind something"),
        }
    }

    /// A start is moot, and its cancel has found no room yet: it is not tried again. A cancel may go out later although
    /// nothing was handed over.
    pub(super) fn handle_call_off(&mut self, key: CallKey) {
        let Some(start) = self.starts.entries.get_mut(&key) else { return };
        match start.state {
            State::UnderWay => start.called_off = true,
            State::Waits(turn) => {
                self.starts.forget(&turn);
                let start = self.starts.entries.remove(&key).expect("it was just seen");
                self.decide(&start.call, Outcome::Failed, Detail::CANCELLED);
            }
            State::Behind => unreachable!("only cancels are behind something"),
        }
    }

    /// Which call to try now, if there is a place for one more try.
    pub(super) fn poll_next(&mut self, now: Now) -> Next {
        loop {
            let cancel = self.cancels.first(now.monotonic).map(|key| (Verb::Cancel, key));
            let start = self.starts.first(now.monotonic).map(|key| (Verb::Start, key));
            let next = match self.last {
                Verb::Start => cancel.or(start),
                Verb::Cancel => start.or(cancel),
            };
            let Some((verb, key)) = next else { return self.later() };
            if verb == Verb::Start && now.wall >= self.starts.entries[&key].call.expires_at {
                self.starts.due.remove(&key);
                let start = self.starts.entries.remove(&key).expect("what waits is held");
                self.decide(&start.call, Outcome::Failed, Detail::EXPIRED);
                continue;
            }
            let from = self.pace.from(now.monotonic);
            if from > now.monotonic {
                return Next::At(from);
            }
            self.pace.spend(now.monotonic);
            self.last = verb;
            let side = self.side(verb);
            side.due.pop_first();
            let entry = side.entries.get_mut(&key).expect("what waits is held");
            entry.state = State::UnderWay;
            entry.tries += 1;
            entry.tried_at.get_or_insert(now.monotonic);
            return Next::Try(Box::new(entry.call.clone()));
        }
    }

    fn later(&self) -> Next {
        let firsts = [self.cancels.later.first(), self.starts.later.first()];
        firsts.into_iter().flatten().map(|turn| turn.0).min().map_or(Next::Idle, Next::At)
    }

    /// A try has ended.
    ///
    /// # Panics
    /// When none of this call is under way.
    pub(super) fn handle_end(&mut self, (key, verb): (CallKey, Verb), tried: Tried, now: Now) {
        let mut entry = self.side(verb).entries.remove(&key).expect("what is under way is held");
        assert!(matches!(entry.state, State::UnderWay), "a try ends once");
        entry.handed |= tried.handed;
        match verb {
            Verb::Start => self.end_of_start(entry, tried.end, now),
            Verb::Cancel => self.end_of_cancel(entry, tried.end, now),
        }
    }

    fn end_of_start(&mut self, entry: Entry, end: End, now: Now) {
        let key = entry.call.key;
        let cancelled = entry.called_off || self.cancels.entries.contains_key(&key);
        let handed = entry.handed;
        match end {
            End::Taken(status, detail) => {
                let (outcome, detail) = match status {
                    Status::Accepted => (Outcome::Accepted, detail),
                    Status::Delivered => (Outcome::Delivered, detail),
                    Status::Answered => (Outcome::Answered, detail),
                    Status::Failed => (Outcome::Failed, Detail::SAID_FAILED),
                };
                self.decide(&entry.call, outcome, detail);
            }
            End::Refused(detail) => self.decide(&entry.call, Outcome::Failed, detail),
            End::Failed(..) if cancelled => self.decide(&entry.call, Outcome::Failed, Detail::CANCELLED),
            End::Failed(detail, after) => {
                let pause = self.pause(entry.tries, after);
                let in_time = now.wall.0.saturating_add(millis(pause)) < entry.call.expires_at.0;
                if in_time && self.may_try_again(&entry, now.monotonic + pause) {
                    return self.wait_again(entry, now.monotonic + pause);
                }
                self.decide(&entry.call, Outcome::Failed, detail);
            }
        }
        // The start is over: now its cancel's turn has come, if there is one.
        let Some(Entry { call, _room, .. }) = self.cancels.entries.remove(&key) else { return };
        match handed {
            true => self.wait(call, _room, now.monotonic),
            false => self.decide(&call, Outcome::Done, Detail::NOTHING),
        }
    }

    fn end_of_cancel(&mut self, entry: Entry, end: End, now: Now) {
        match end {
            End::Taken(_, detail) => self.decide(&entry.call, Outcome::Done, detail),
            // The gateway does not know the start, or no longer: there is nothing to be cancelled.
            End::Refused(detail @ (Detail(404) | Detail(410))) => self.decide(&entry.call, Outcome::Done, detail),
            End::Refused(detail) => self.decide(&entry.call, Outcome::GaveUp, detail),
            End::Failed(detail, after) => {
                let again_at = now.monotonic + self.pause(entry.tries, after);
                match self.may_try_again(&entry, again_at) {
                    true => self.wait_again(entry, again_at),
                    false => self.decide(&entry.call, Outcome::GaveUp, detail),
                }
            }
        }
    }

    fn may_try_again(&self, entry: &Entry, at: Instant) -> bool {
        let Policy { tries_max, tries_for, .. } = self.policy;
        entry.tries < tries_max && entry.tried_at.is_none_or(|first| at.saturating_duration_since(first) <= tries_for)
    }

    /// Twice as long after each try, give or take a half, so that calls that failed together do not come back together.
    fn pause(&self, tries: u32, after: Option<Duration>) -> Duration {
        let doubled =
            self.policy.backoff_first.saturating_mul(1_u32 << (tries - 1).min(16)).min(self.policy.backoff_max);
        let jittered = doubled.mul_f64(0.5 + f64::from((self.random)()) / f64::from(u32::MAX));
        jittered.max(after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    fn wait(&mut self, call: Call, room: Option<OwnedSemaphorePermit>, at: Instant) {
        self.wait_again(
            Entry {
                call,
                _room: room,
                tries: 0,
                tried_at: None,
                handed: false,
                called_off: false,
                state: State::UnderWay,
            },
            at,
        );
    }

    fn wait_again(&mut self, mut entry: Entry, at: Instant) {
        let (verb, turn) = (entry.call.verb, (at, self.came, entry.call.key));
        self.came += 1;
        entry.state = State::Waits(turn);
        let side = self.side(verb);
        side.later.insert(turn);
        side.entries.insert(turn.2, entry);
    }

    fn side(&mut self, verb: Verb) -> &mut Side {
        match verb {
            Verb::Start => &mut self.starts,
            Verb::Cancel => &mut self.cancels,
        }
    }

    fn decide(&mut self, call: &Call, outcome: Outcome, detail: Detail) {
        let Call { outlet, key, verb, .. } = *call;
        self.results.push(CallResult { outlet, key, verb, outcome, detail });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
