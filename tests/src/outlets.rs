//! A gateway behind the outlets of a simulated broker: it is outside, and so outlives every crash.
//!
//! It takes everything at once, or has little room and is ill. What it holds and what it has yet to say are lost with the process
//! that would have tried it, or heard it; what it saw is not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use carillon::sequencer::Outlets;
use carillon_core::effect::{Call, CallKey, Verb};
use carillon_core::input::{CallResult, OutletResult};
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};

/// What the gateway saw, and what the sender and the recipient were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was called.
    Called(Verb, CallKey, Outlet),
    /// The confirmation was durable.
    Confirmed,
    /// The DING was known to be recalled.
    Recalled,
}

/// When the process dies over a call, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dies {
    /// Before this call was made.
    Before(usize),
    /// When it was made, before anything else.
    After(usize),
}

/// See the module.
#[derive(Default)]
pub struct Gateway {
    /// In the order in which it happened.
    pub seen: Vec<Seen>,
    /// What it has yet to say.
    pub results: Vec<OutletResult>,
    /// Calls that the broker handed out.
    pub calls: usize,
    /// The process died over a call.
    pub dead: bool,
    /// Whether it is to.
    pub dies: Option<Dies>,
    /// How many starts, and how many cancels, it holds until they are tried; `None`: it tries each at once, and takes it.
    pub rooms: Option<usize>,
    /// What it does not take now, and tries again.
    pub ill: Vec<Verb>,
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

    /// Calls that it holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// What the held call of this place does.
    pub fn verb(&self, nth: usize) -> Verb {
        self.held[nth].verb
    }

    /// Tries a call that is held; it then says this of it, or keeps it for another try.
    pub fn try_one(&mut self, nth: usize, said: Option<CallResult>) {
        let call = &self.held[nth];
        self.seen.push(Seen::Called(call.verb, call.key, call.outlet));
        if let Some(result) = said {
            let key = self.held.remove(nth).key;
            self.results.push(OutletResult { key, result, detail: 0 });
        }
    }

    /// Tries each call that is held.
    pub fn try_all(&mut self) {
        let mut nth = 0;
        for _ in 0..self.held.len() {
            let verb = self.held[nth].verb;
            let ill = self.ill.contains(&verb);
            self.try_one(nth, if ill { None } else { Some(taken(verb)) });
            nth += usize::from(ill);
        }
    }

    /// The process is gone, and with it what it held.
    pub fn forget(&mut self) {
        (self.dead, self.dies) = (false, None);
        self.results.clear();
        self.held.clear();
    }
}

/// What a gateway says that takes what it is called for.
pub fn taken(verb: Verb) -> CallResult {
    match verb {
        Verb::Start => CallResult::Attempt(AttemptState::ACCEPTED),
        Verb::Cancel => CallResult::Cancel(CancelState::DONE),
    }
}

/// A gateway that the broker calls and the test looks at.
#[derive(Clone, Default)]
pub struct SharedGateway(Arc<Mutex<Gateway>>);

impl SharedGateway {
    /// The gateway, for as long as nobody else has it.
    pub fn lock(&self) -> MutexGuard<'_, Gateway> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlets for SharedGateway {
    fn has_room(&self, outlet: Outlet, verb: Verb) -> bool {
        let gateway = self.lock();
        !gateway.dead && gateway.rooms.is_none_or(|rooms| gateway.holds(outlet, verb) < rooms)
    }

    fn hand_out(&self, call: Call) {
        let gateway = &mut *self.lock();
        gateway.calls += 1;
        if gateway.dead || gateway.dies == Some(Dies::Before(gateway.calls)) {
            gateway.dead = true;
            return;
        }
        if call.verb == Verb::Cancel {
            gateway.give_up(call.key);
        }
        gateway.held.push(call);
        if gateway.rooms.is_none() {
            let nth = gateway.held.len() - 1;
            let verb = gateway.held[nth].verb;
            gateway.try_one(nth, Some(taken(verb)));
            gateway.dead = gateway.dies == Some(Dies::After(gateway.calls));
        }
    }

    fn has_room_to_call_off(&self, _: Outlet) -> bool {
        !self.lock().dead
    }

    fn call_off(&self, _: Outlet, key: CallKey) {
        self.lock().give_up(key);
    }
}
