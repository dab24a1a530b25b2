//! The gateway is called: no start that is moot, none without a durable record, and none that is missing.

use std::collections::BTreeSet;

use carillon::sequencer::Submission;
use carillon_core::effect::{CallKey, Verb};
use carillon_core::input::CallResult;
use carillon_protocol::kinds::AttemptState;

use super::world::{Outcome, World};
use crate::outlets::{Seen, taken};

/// What a run knows of the calls that its gateway saw.
#[derive(Default)]
pub(super) struct Called {
    started: BTreeSet<CallKey>,
    cancelled: BTreeSet<CallKey>,
}

impl World {
    /// The gateway tries some of what it holds, and may be ill.
    pub(super) fn call_some(&mut self) -> Outcome {
        let held = self.outside.gateway.lock().held();
        for _ in 0..self.rng.between(1, 3).min(held) {
            let (held, ill) = (self.outside.gateway.lock().held(), self.rng.percent(30));
            if held == 0 {
                break;
            }
            let nth = self.rng.below(held);
            let said = if ill { None } else { Some(self.said(nth)) };
            self.outside.gateway.lock().try_one(nth, said);
        }
        self.judge_calls()?;
        if self.rng.percent(80) { self.hear() } else { Ok(()) }
    }

    fn said(&mut self, nth: usize) -> CallResult {
        let verb = self.outside.gateway.lock().verb(nth);
        let states = [AttemptState::ACCEPTED, AttemptState::DELIVERED, AttemptState::FAILED, AttemptState::ANSWERED];
        match verb {
            Verb::Start if self.rng.percent(50) => CallResult::Attempt(self.rng.pick(&states)),
            Verb::Start | Verb::Cancel => taken(verb),
        }
    }

    /// The gateway is well and tries everything; returns whether there was anything.
    pub(super) fn call_all(&mut self) -> Result<bool, String> {
        let busy = {
            let gateway = &mut *self.outside.gateway.lock();
            let busy = gateway.held() > 0 || !gateway.results.is_empty();
            gateway.try_all();
            busy
        };
        self.judge_calls()?;
        self.hear()?;
        Ok(busy)
    }

    /// The sequencer is told what became of calls, if it has room for that.
    fn hear(&mut self) -> Outcome {
        let results = std::mem::take(&mut self.outside.gateway.lock().results);
        if results.is_empty() {
            return Ok(());
        }
        if let Err(back) = self.life.submit.control(Submission::OutletResults(results)) {
            let Submission::OutletResults(results) = *back else { return Err("another submission came back".into()) };
            let gateway = &mut *self.outside.gateway.lock();
            let newer = std::mem::replace(&mut gateway.results, results);
            gateway.results.extend(newer);
        }
        Ok(())
    }

    /// What the gateway has seen since.
    fn judge_calls(&mut self) -> Outcome {
        let seen = std::mem::take(&mut self.outside.gateway.lock().seen);
        for seen in seen {
            let Seen::Called(verb, key, outlet) = seen else { continue };
            self.note(|| format!("the gateway is called: {verb:?} {key:?} by {outlet:?}"));
            self.covered.calls += 1;
            let ding = self.ledger.dings.get(&key.ding).ok_or(format!("{key:?} is of no durable DING"))?;
            match verb {
                Verb::Start if ding.may_start(key, outlet) => self.called.started.insert(key),
                Verb::Start => return Err(format!("{key:?} was started by {outlet:?}, and may not")),
                Verb::Cancel if ding.moot().any(|moot| moot == key) => self.called.cancelled.insert(key),
                Verb::Cancel => return Err(format!("{key:?} was cancelled, and is not moot")),
            };
        }
        Ok(())
    }

    /// At rest every call was made that was to be made, and nothing is due.
    pub(super) fn judge_escalations(&self) -> Outcome {
        let now = carillon::clock::Clock::wall(&*self.outside.clock);
        for (id, ding) in self.ledger.dings.iter() {
            if let Some(overdue) = ding.overdue(now) {
                return Err(format!("at rest at {now}, DING {id}: {overdue}"));
            }
            if let Some(key) = ding.wanted().find(|key| !self.called.started.contains(key)) {
                return Err(format!("at rest, {key:?} was never started"));
            }
            let told = |key: &CallKey| self.called.cancelled.contains(key) || !self.called.started.contains(key);
            if let Some(key) = ding.moot().find(|key| !ding.forgotten && !told(key)) {
                return Err(format!("at rest, the gateway was not told that {key:?} is moot"));
            }
        }
        Ok(())
    }
}
