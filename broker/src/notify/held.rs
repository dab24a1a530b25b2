//! The calls of one outlet from the hand-over to the result: what is tried next, and what an end of a try means.
//!
//! Owns no connection and reads no clock: time is an argument, ends of tries come in, calls to try go out. What it keeps up:
//!
//! - a start is not tried once its DING has expired, nor after its cancel has come;
//! - of one key never more than one try is under way, so that a cancel leaves after the end of the start's last try, and
//!   only if that start may have reached the gateway;
//! - every call that was taken yields exactly one result; a repeat of one that is held yields none of its own.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

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

/// When a call's turn comes: by time, and at one time in the order in which they came.
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
    handed: bool,
    state: State,
}

/// See the module.
pub(super) struct Held {
    policy: Policy,
    pace: Pace,
    starts: HashMap<CallKey, Entry>,
    cancels: HashMap<CallKey, Entry>,
    /// Turns of starts, and of cancels, which go first: they end what rings.
    starts_wait: BTreeSet<Turn>,
    cancels_wait: BTreeSet<Turn>,
    came: u64,
    results: Vec<CallResult>,
    /// From 0 to `u32::MAX`, evenly.
    random: fn() -> u32,
}

impl Held {
    pub(super) fn new(policy: Policy, random: fn() -> u32) -> Self {
        let pace = Pace::new(policy.calls_a_second);
        let (starts, cancels) = (HashMap::new(), HashMap::new());
        let (starts_wait, cancels_wait) = (BTreeSet::new(), BTreeSet::new());
        Self { policy, pace, starts, cancels, starts_wait, cancels_wait, came: 0, results: Vec::new(), random }
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.starts.len() + self.cancels.len()
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
        if self.starts.contains_key(&call.key) {
            return;
        }
        if self.cancels.contains_key(&call.key) {
            return self.decide(&call, Outcome::Failed, Detail::CANCELLED);
        }
        self.wait(call, room, now.monotonic);
    }

    fn handle_cancel(&mut self, call: Call, room: Option<OwnedSemaphorePermit>, now: Now) {
        let key = call.key;
        if self.cancels.contains_key(&key) {
            return;
        }
        match self.starts.get(&key).map(|start| &start.state) {
            None => self.wait(call, room, now.monotonic),
            Some(State::UnderWay) => {
                let entry = Entry { call, _room: room, tries: 0, handed: false, state: State::Behind };
                self.cancels.insert(key, entry);
            }
            Some(State::Waits(turn)) => {
                self.starts_wait.remove(turn);
                let start = self.starts.remove(&key).expect("it was just seen");
                self.decide(&start.call, Outcome::Failed, Detail::CANCELLED);
                match start.handed {
                    true => self.wait(call, room, now.monotonic),
                    false => self.decide(&call, Outcome::Done, Detail::NOTHING),
                }
            }
            Some(State::Behind) => unreachable!("only cancels are behind something"),
        }
    }

    /// Which call to try now, if there is a place for one more try.
    pub(super) fn poll_next(&mut self, now: Now) -> Next {
        loop {
            let is_due = |turn: &&Turn| turn.0 <= now.monotonic;
            let cancel = self.cancels_wait.first().filter(is_due).map(|turn| (Verb::Cancel, *turn));
            let start = || self.starts_wait.first().filter(is_due).map(|turn| (Verb::Start, *turn));
            let Some((verb, turn)) = cancel.or_else(start) else { return self.later() };
            if verb == Verb::Start && now.wall >= self.starts[&turn.2].call.expires_at {
                self.starts_wait.remove(&turn);
                let start = self.starts.remove(&turn.2).expect("what waits is held");
                self.decide(&start.call, Outcome::Failed, Detail::EXPIRED);
                continue;
            }
            let from = self.pace.from(now.monotonic);
            if from > now.monotonic {
                return Next::At(from);
            }
            self.pace.spend(now.monotonic);
            let (entries, wait) = self.side(verb);
            wait.remove(&turn);
            let entry = entries.get_mut(&turn.2).expect("what waits is held");
            entry.state = State::UnderWay;
            entry.tries += 1;
            return Next::Try(Box::new(entry.call.clone()));
        }
    }

    fn later(&self) -> Next {
        let firsts = [self.cancels_wait.first(), self.starts_wait.first()];
        firsts.into_iter().flatten().map(|turn| turn.0).min().map_or(Next::Idle, Next::At)
    }

    /// A try has ended.
    ///
    /// # Panics
    /// When none of this call is under way.
    pub(super) fn handle_end(&mut self, (key, verb): (CallKey, Verb), tried: Tried, now: Now) {
        let (entries, _) = self.side(verb);
        let mut entry = entries.remove(&key).expect("what is under way is held");
        assert!(matches!(entry.state, State::UnderWay), "a try ends once");
        entry.handed |= tried.handed;
        match verb {
            Verb::Start => self.end_of_start(entry, tried.end, now),
            Verb::Cancel => self.end_of_cancel(entry, tried.end, now),
        }
    }

    fn end_of_start(&mut self, entry: Entry, end: End, now: Now) {
        let key = entry.call.key;
        let cancelled = self.cancels.contains_key(&key);
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
                if entry.tries < self.policy.tries_max && in_time {
                    return self.wait_again(entry, now.monotonic + pause);
                }
                self.decide(&entry.call, Outcome::Failed, detail);
            }
        }
        // The start is over: now its cancel's turn has come, if there is one.
        let Some(Entry { call, _room, .. }) = self.cancels.remove(&key) else { return };
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
            End::Failed(_, after) if entry.tries < self.policy.tries_max => {
                let pause = self.pause(entry.tries, after);
                self.wait_again(entry, now.monotonic + pause);
            }
            End::Failed(detail, _) => self.decide(&entry.call, Outcome::GaveUp, detail),
        }
    }

    /// Twice as long after each try, give or take a half, so that calls that failed together do not come back together.
    fn pause(&self, tries: u32, after: Option<Duration>) -> Duration {
        let doubled =
            self.policy.backoff_first.saturating_mul(1_u32 << (tries - 1).min(16)).min(self.policy.backoff_max);
        let jittered = doubled.mul_f64(0.5 + f64::from((self.random)()) / f64::from(u32::MAX));
        jittered.max(after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    fn wait(&mut self, call: Call, room: Option<OwnedSemaphorePermit>, at: Instant) {
        self.wait_again(Entry { call, _room: room, tries: 0, handed: false, state: State::UnderWay }, at);
    }

    fn wait_again(&mut self, mut entry: Entry, at: Instant) {
        let (verb, turn) = (entry.call.verb, (at, self.came, entry.call.key));
        self.came += 1;
        entry.state = State::Waits(turn);
        let (entries, wait) = self.side(verb);
        wait.insert(turn);
        entries.insert(turn.2, entry);
    }

    fn side(&mut self, verb: Verb) -> (&mut HashMap<CallKey, Entry>, &mut BTreeSet<Turn>) {
        match verb {
            Verb::Start => (&mut self.starts, &mut self.starts_wait),
            Verb::Cancel => (&mut self.cancels, &mut self.cancels_wait),
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
