//! DINGs as the committed records have them, judged by what `docs/DING.md` says of plans and confirmations.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use carillon_core::effect::CallKey;
use carillon_core::record::{DingAdded, DingAttempted, DingOutcome, PlannedStep, Record};
use carillon_protocol::ding::DingPush;
use carillon_protocol::ding_status::STEP_REMINDER;
use carillon_protocol::ids::{DingId, Position, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{AttemptState, DingState, Outlet};

use super::ledger::Who;

/// States in which a call is not under way any more.
const ENDED: [AttemptState; 2] = [AttemptState::FAILED, AttemptState::ANSWERED];

/// A step that began, or a reminder.
pub(super) struct Attempt {
    pub(super) step: u8,
    pub(super) outlet: Outlet,
    pub(super) time: Timestamp,
    pub(super) position: Position,
    /// Those who had not confirmed then.
    pub(super) to: BTreeSet<UserId>,
}

/// A DING.
pub(super) struct Ding {
    pub(super) tenant: TenantId,
    pub(super) sender: UserId,
    pub(super) key: u64,
    pub(super) push: DingPush,
    added_at: Position,
    starts_at: Timestamp,
    steps: Vec<PlannedStep>,
    pub(super) recipients: BTreeSet<UserId>,
    pub(super) confirmed: BTreeSet<UserId>,
    /// Who has it, or had it before they confirmed.
    pub(super) delivered: BTreeSet<UserId>,
    pub(super) attempts: Vec<Attempt>,
    /// How far each call has come, by user and attempt.
    reached: BTreeMap<(UserId, u16), AttemptState>,
    /// Calls that were under way when their user confirmed, or the DING ended.
    moot: BTreeSet<(UserId, u16)>,
    /// As a whole.
    pub(super) state: DingState,
    /// Where it moved last; 0 before it begins.
    pub(super) moved_at: Position,
    pub(super) ended: bool,
    /// Whom nothing had reached when it expired.
    missed: usize,
    /// Nobody waits for what is to be said of it.
    pub(super) forgotten: bool,
}

impl Ding {
    fn new(added_at: Position, added: DingAdded) -> Self {
        let (ding, sender, time, kind) = (added.ding, added.sender, added.time, added.kind);
        let (expires_at, conversation, seq) = (added.expires_at, added.conversation, added.seq);
        let push = DingPush { ding, sender, time, expires_at, kind, conversation, seq, payload: added.payload };
        Self {
            tenant: added.tenant,
            sender,
            key: added.key,
            push,
            added_at,
            starts_at: added.starts_at,
            steps: added.steps,
            recipients: added.recipients.into_iter().collect(),
            confirmed: BTreeSet::new(),
            delivered: BTreeSet::new(),
            attempts: Vec::new(),
            reached: BTreeMap::new(),
            moot: BTreeSet::new(),
            state: DingState::SCHEDULED,
            moved_at: Position(0),
            ended: false,
            missed: 0,
            forgotten: false,
        }
    }

    /// Its first step has begun: before that nobody is shown it.
    pub(super) fn started(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Its counts as they are told: who has it and has not confirmed, who has confirmed, whom nothing has reached.
    pub(super) fn counts(&self) -> [usize; 3] {
        let delivered = self.delivered.difference(&self.confirmed).count();
        [delivered, self.confirmed.len(), self.missed]
    }

    /// Whether the user has it, or a gateway took it for them.
    fn was_reached(&self, user: UserId) -> bool {
        let worked = [AttemptState::ACCEPTED, AttemptState::DELIVERED, AttemptState::ANSWERED];
        let mut reached = self.reached.range((user, 0)..=(user, u16::MAX));
        self.delivered.contains(&user)
            || self.confirmed.contains(&user)
            || reached.any(|(_, state)| worked.contains(state))
    }

    /// Whether it still waits for the user.
    pub(super) fn waits_for(&self, who: Who) -> bool {
        self.started()
            && !self.ended
            && self.tenant == who.0
            && self.recipients.contains(&who.1)
            && !self.confirmed.contains(&who.1)
    }

    /// When a step is due next, if it is to begin once more.
    fn due(&self, step: u8) -> Option<Timestamp> {
        let planned = self.steps.get(usize::from(step))?;
        let mut begun = self.attempts.iter().filter(|attempt| attempt.step == step);
        if begun.clone().count() >= usize::from(planned.times) {
            return None;
        }
        let (from, after_ms) = match begun.next_back() {
            Some(last) => (last.time, planned.repeat_every_ms),
            None => (self.starts_at, planned.after_ms),
        };
        Some(Timestamp(from.0 + u64::from(after_ms)))
    }

    fn begin(&mut self, position: Position, begun: &DingAttempted) -> Result<(), String> {
        let DingAttempted { time, ding, step, outlet } = *begun;
        let planned = self.steps.get(usize::from(step));
        let due =
            planned.is_some_and(|planned| planned.outlet == outlet) && self.due(step).is_some_and(|due| due <= time);
        if self.ended || time >= self.push.expires_at || !(due || step == STEP_REMINDER) {
            let (state, due) = (self.state, self.due(step));
            return Err(format!("{begun:?} of a DING that is {state:?}; the step is due at {due:?}"));
        }
        if !self.started() {
            (self.state, self.moved_at) = (DingState::SENT, position);
        }
        let to: BTreeSet<UserId> = self.recipients.difference(&self.confirmed).copied().collect();
        if to.is_empty() {
            return Err(format!("a step of DING {ding} begins for nobody"));
        }
        self.attempts.push(Attempt { step, outlet, time, position, to });
        Ok(())
    }

    /// What is under way to these users is moot.
    fn call_off(&mut self, user: UserId) {
        for (nth, attempt) in (0u16..).zip(&self.attempts) {
            let ended = self.reached.get(&(user, nth)).is_some_and(|state| ENDED.contains(state));
            if attempt.outlet != Outlet::APP && attempt.to.contains(&user) && !ended {
                self.moot.insert((user, nth));
            }
        }
    }

    fn confirm(&mut self, position: Position, user: UserId) -> Result<(), String> {
        if self.ended || !self.started() || !self.recipients.contains(&user) || !self.confirmed.insert(user) {
            return Err(format!("{user} confirms DING {}, which is {:?}", self.push.ding, self.state));
        }
        self.call_off(user);
        self.moved_at = position;
        if self.confirmed == self.recipients {
            (self.ended, self.state) = (true, DingState::CONFIRMED);
        }
        Ok(())
    }

    fn end(&mut self, position: Position, state: DingState, time: Timestamp) -> Result<(), String> {
        let unreached = self.recipients.iter().filter(|user| !self.was_reached(**user)).count();
        let early = state == DingState::EXPIRED && time < self.push.expires_at;
        if self.ended || early {
            return Err(format!("DING {}, which is {:?}, ends at {time} as {state:?}", self.push.ding, self.state));
        }
        for user in self.recipients.difference(&self.confirmed).copied().collect::<Vec<_>>() {
            self.call_off(user);
        }
        self.missed = if state == DingState::EXPIRED { unreached } else { 0 };
        (self.ended, self.state, self.moved_at) = (true, state, position);
        Ok(())
    }

    fn note(&mut self, position: Position, outcome: &DingOutcome) -> Result<(), String> {
        let DingOutcome { user, attempt, state, .. } = *outcome;
        if state == AttemptState(0) {
            return Ok(());
        }
        let before = self.reached.insert((user, attempt), state);
        if before.is_some_and(|before| before >= state) {
            return Err(format!("{outcome:?} after {before:?}"));
        }
        let is_moot = self.ended || self.confirmed.contains(&user);
        let has_it = [AttemptState::DELIVERED, AttemptState::ANSWERED].contains(&state);
        if is_moot && !ENDED.contains(&state) {
            self.moot.insert((user, attempt));
        }
        // A phone that has taken the message counts as a device that has it.
        if has_it && !is_moot && self.delivered.insert(user) {
            self.moved_at = position;
        }
        Ok(())
    }

    /// What should have happened by now, and has not.
    pub(super) fn overdue(&self, now: Timestamp) -> Option<String> {
        if self.ended {
            return None;
        }
        if self.push.expires_at <= now {
            return Some(format!("it expires at {}", self.push.expires_at));
        }
        let steps = u8::try_from(self.steps.len()).ok()?;
        let late = |step: &u8| self.due(*step).is_some_and(|due| due <= now);
        (0..steps).find(late).map(|step| format!("step {step} is due at {:?}", self.due(step)))
    }

    /// Whether a call to a gateway may start now.
    pub(super) fn may_start(&self, key: CallKey, outlet: Outlet) -> bool {
        let attempt = self.attempts.get(usize::from(key.attempt));
        let begun = attempt.is_some_and(|attempt| attempt.outlet == outlet && attempt.to.contains(&key.user));
        begun && !self.ended && !self.confirmed.contains(&key.user)
    }

    /// Calls that are to have been started: to users for whom it is not moot.
    pub(super) fn wanted(&self) -> impl Iterator<Item = CallKey> + '_ {
        let attempts = (0u16..).zip(&self.attempts).filter(|(_, attempt)| attempt.outlet != Outlet::APP);
        let ding = self.push.ding;
        let keys = attempts
            .flat_map(move |(attempt, begun)| begun.to.iter().map(move |user| CallKey { ding, user: *user, attempt }));
        keys.filter(|key| !self.ended && !self.confirmed.contains(&key.user))
    }

    /// Calls of which the gateway is to be told that they are moot, if it ever saw them.
    pub(super) fn moot(&self) -> impl Iterator<Item = CallKey> + '_ {
        self.moot.iter().map(|(user, attempt)| CallKey { ding: self.push.ding, user: *user, attempt: *attempt })
    }
}

/// All that were ever made.
#[derive(Default)]
pub(super) struct Dings {
    by_id: BTreeMap<DingId, Ding>,
    keys: BTreeMap<(Who, u64), DingId>,
}

impl Deref for Dings {
    type Target = BTreeMap<DingId, Ding>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl Dings {
    fn known(&mut self, id: DingId) -> Result<&mut Ding, String> {
        self.by_id.get_mut(&id).ok_or_else(|| format!("a record of DING {id}, which is none"))
    }

    /// Where the DING under a key was added.
    pub(super) fn added(&self, who: Who, key: u64) -> Option<Position> {
        self.keys.get(&(who, key)).and_then(|id| self.by_id.get(id)).map(|ding| ding.added_at)
    }

    /// Takes the next record, which is of a DING.
    pub(super) fn apply(&mut self, position: Position, record: Record) -> Result<(), String> {
        match record {
            Record::DingAdded(added) => {
                let (id, key) = (added.ding, ((added.tenant, added.sender), added.key));
                if self.keys.insert(key, id).is_some() {
                    return Err(format!("DING {id} is a second one under the key {}", added.key));
                }
                self.by_id.insert(id, Ding::new(position, added));
            }
            Record::DingAttempted(begun) => self.known(begun.ding)?.begin(position, &begun)?,
            Record::DingsDelivered(delivered) => {
                for entry in &delivered.entries {
                    let ding = self.known(entry.ding)?;
                    if !ding.started() || ding.ended {
                        return Err(format!("DING {}, which is not shown, was delivered", entry.ding));
                    }
                    ding.delivered.insert(entry.user);
                    ding.moved_at = position;
                }
            }
            Record::DingOutcomes(outcomes) => {
                for outcome in &outcomes.entries {
                    self.known(outcome.ding)?.note(position, outcome)?;
                }
            }
            Record::DingConfirmed(confirmed) => self.known(confirmed.ding)?.confirm(position, confirmed.user)?,
            Record::DingEnded(ended) => self.known(ended.ding)?.end(position, ended.state, ended.time)?,
            Record::DingForgotten(forgotten) => {
                let ding = self.known(forgotten.ding)?;
                ding.forgotten = true;
                let key = ((ding.tenant, ding.sender), ding.key);
                self.keys.remove(&key);
            }
            Record::DingDeferred(_) => {}
            other => return Err(format!("{other:?} is not of a DING")),
        }
        Ok(())
    }
}
