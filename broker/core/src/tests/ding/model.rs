//! What the records say of DINGs, judged by the invariants alone: it shares no code with what it judges.

use super::*;
use crate::record::{
    DingAdded, DingAttempted, DingConfirmed, DingDeferred, DingEnded, DingOutcome, DingOutcomes, DingsDelivered,
};
use alloc::collections::BTreeSet;
use carillon_protocol::ding_status::STEP_REMINDER;

const MINUTE_MS: u64 = 60_000;
const WEEK_MS: u64 = 7 * 24 * 60 * MINUTE_MS;

/// Quiet hours, minute by minute.
pub(super) fn is_quiet(added: &DingAdded, time: Timestamp) -> bool {
    let minute = time.0 / MINUTE_MS % 1_440;
    let (from, to) = (u64::from(added.quiet_from_min), u64::from(added.quiet_to_min));
    if from < to { (from..to).contains(&minute) } else { from > to && (minute >= from || minute < to) }
}

/// The first time from this one on that is not quiet.
fn loud_from(added: &DingAdded, mut time: Timestamp) -> Timestamp {
    while is_quiet(added, time) {
        time.0 = (time.0 / MINUTE_MS + 1) * MINUTE_MS;
    }
    time
}

/// An attempt by an outlet, to one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelReach {
    pub(super) outlet: Outlet,
    pub(super) state: AttemptState,
    pub(super) cancel: CancelState,
}

impl ModelReach {
    /// Its gateway is to be told if it becomes moot.
    fn under_way(self) -> bool {
        self.cancel == CancelState::NONE && ![AttemptState::FAILED, AttemptState::ANSWERED].contains(&self.state)
    }
}

/// One DING, as the records tell it.
pub(super) struct ModelDing {
    pub(super) added: DingAdded,
    /// Step, outlet, time.
    pub(super) begun: Vec<(u8, Outlet, Timestamp)>,
    pub(super) reaches: BTreeMap<(UserId, u16), ModelReach>,
    pub(super) delivered: BTreeSet<UserId>,
    pub(super) confirmed: BTreeMap<UserId, Timestamp>,
    failed: BTreeSet<UserId>,
    pub(super) ended: Option<(DingState, Timestamp)>,
    not_before: BTreeMap<u8, Timestamp>,
}

impl ModelDing {
    fn new(added: &DingAdded) -> Self {
        assert!(added.recipients.is_sorted_by(|a, b| a < b) && !added.recipients.contains(&added.sender));
        Self {
            added: added.clone(),
            begun: Vec::new(),
            reaches: BTreeMap::new(),
            delivered: BTreeSet::new(),
            confirmed: BTreeMap::new(),
            failed: BTreeSet::new(),
            ended: None,
            not_before: BTreeMap::new(),
        }
    }

    /// When a step is to begin next, `None` if it has begun as often as it may.
    fn due(&self, step: u8) -> Option<Timestamp> {
        let planned = self.added.steps[usize::from(step)];
        let times: Vec<_> = self.begun.iter().filter(|begun| begun.0 == step).collect();
        if times.len() == usize::from(planned.times) {
            return None;
        }
        let due = match times.last() {
            Some((_, _, last)) => last.0 + u64::from(planned.repeat_every_ms),
            None => self.added.starts_at.0 + u64::from(planned.after_ms),
        };
        let due = if planned.heeds_quiet == 1 { loud_from(&self.added, Timestamp(due)) } else { Timestamp(due) };
        Some(due.max(self.not_before.get(&step).copied().unwrap_or_default()))
    }

    fn steps(&self) -> impl Iterator<Item = u8> {
        0..u8::try_from(self.added.steps.len()).unwrap()
    }

    /// When something is to happen to it.
    fn timer(&self) -> Timestamp {
        match self.ended {
            Some((_, time)) => Timestamp(time.0 + WEEK_MS),
            None => self.steps().filter_map(|step| self.due(step)).fold(self.added.expires_at, Timestamp::min),
        }
    }

    fn attempted(&mut self, record: &DingAttempted) {
        let &DingAttempted { time, step, outlet, .. } = record;
        assert!(self.ended.is_none(), "an attempt after the end");
        if step == STEP_REMINDER {
            assert!(!self.begun.is_empty() && time < self.added.expires_at, "a reminder of nothing");
        } else {
            let planned = self.added.steps[usize::from(step)];
            assert_eq!(planned.outlet, outlet);
            assert!(self.due(step).expect("a step begins too often") <= time, "a step begins early");
            assert!(time < self.added.expires_at, "a step begins after its DING's time");
            assert!(planned.heeds_quiet == 0 || !is_quiet(&self.added, time), "a step disturbs quiet hours");
        }
        let number = u16::try_from(self.begun.len()).unwrap();
        assert!(number < 256);
        self.begun.push((step, outlet, time));
        if outlet == Outlet::APP {
            return;
        }
        for user in &self.added.recipients {
            if !self.confirmed.contains_key(user) {
                let reach = ModelReach { outlet, state: AttemptState::STARTED, cancel: CancelState::NONE };
                assert!(self.reaches.insert((*user, number), reach).is_none(), "one key names one attempt");
            }
        }
    }

    fn deferred(&mut self, record: &DingDeferred) {
        let &DingDeferred { time, step, until, .. } = record;
        assert!(self.ended.is_none() && self.added.steps[usize::from(step)].heeds_quiet == 1);
        assert!(self.due(step).unwrap() <= time && is_quiet(&self.added, time), "nothing to put off");
        assert_eq!(until, loud_from(&self.added, time));
        self.not_before.insert(step, until);
    }

    /// What is under way to these users is moot.
    fn cancel(&mut self, is_moot: impl Fn(UserId) -> bool) {
        for ((user, _), reach) in &mut self.reaches {
            if is_moot(*user) && reach.under_way() {
                reach.cancel = CancelState::DUE;
            }
        }
    }

    fn confirmed(&mut self, record: &DingConfirmed) {
        let user = record.user;
        assert!(self.ended.is_none() && !self.begun.is_empty(), "a confirmation of what is not shown");
        assert!(self.added.recipients.contains(&user));
        assert!(self.confirmed.insert(user, record.time).is_none(), "a second confirmation");
        self.cancel(|other| other == user);
        if self.confirmed.len() == self.added.recipients.len() {
            self.ended = Some((DingState::CONFIRMED, record.time));
        }
    }

    fn end(&mut self, record: &DingEnded) {
        assert!(self.ended.is_none(), "a second end");
        let expired = record.state == DingState::EXPIRED;
        assert!(!expired || record.time >= self.added.expires_at, "expired early");
        let confirmed = self.confirmed.clone();
        self.cancel(|user| !confirmed.contains_key(&user));
        self.ended = Some((record.state, record.time));
        for user in self.added.recipients.iter().filter(|user| expired && !confirmed.contains_key(user)) {
            let took = |((of, _), reach): (&(UserId, u16), &ModelReach)| {
                of == user && ![AttemptState::STARTED, AttemptState::FAILED].contains(&reach.state)
            };
            if !self.delivered.contains(user) && !self.reaches.iter().any(took) {
                self.failed.insert(*user);
            }
        }
    }

    fn outcome(&mut self, outcome: &DingOutcome) {
        let moot = self.ended.is_some() || self.confirmed.contains_key(&outcome.user);
        let reach = self.reaches.get_mut(&(outcome.user, outcome.attempt)).expect("an outcome of nothing");
        if outcome.cancel != CancelState::NONE {
            assert_eq!(reach.cancel, CancelState::DUE, "a cancel ends that was not due");
            assert!([CancelState::DONE, CancelState::GAVE_UP].contains(&outcome.cancel));
            reach.cancel = outcome.cancel;
        }
        if outcome.state.0 == 0 {
            return;
        }
        assert!(outcome.state > reach.state && outcome.state <= AttemptState::ANSWERED, "states move forward");
        reach.state = outcome.state;
        if moot && reach.under_way() {
            reach.cancel = CancelState::DUE;
        }
        if !moot && outcome.state >= AttemptState::DELIVERED {
            self.delivered.insert(outcome.user);
        }
    }

    fn state_of(&self, user: UserId) -> DingState {
        match self.ended {
            _ if self.confirmed.contains_key(&user) => DingState::CONFIRMED,
            Some(_) if self.failed.contains(&user) => DingState::FAILED,
            Some((state, _)) => state,
            None if self.begun.is_empty() => DingState::SCHEDULED,
            None if self.delivered.contains(&user) => DingState::DELIVERED,
            None => DingState::SENT,
        }
    }

    fn check(&self, id: DingId, shard: &Shard) {
        let found = &shard.dings.by_id[&id];
        let states = found.recipients.iter().map(|recipient| (recipient.user, found.state_of(recipient)));
        let expected = self.added.recipients.iter().map(|user| (*user, self.state_of(*user)));
        assert_eq!(states.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{id}");
        let delivered = self.delivered.iter().filter(|user| !self.confirmed.contains_key(user)).count();
        let counts = [found.delivered, found.confirmed, found.failed].map(|count| count as usize);
        assert_eq!(counts, [delivered, self.confirmed.len(), self.failed.len()], "{id}");
        for recipient in &found.recipients {
            let reaches = recipient.reaches.iter().map(|reach| (reach.attempt, reach.state, reach.cancel));
            let own = self.reaches.iter().filter(|((user, _), _)| *user == recipient.user);
            let expected = own.map(|((_, attempt), reach)| (*attempt, reach.state, reach.cancel));
            assert_eq!(reaches.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{id}");
        }
    }
}

/// All DINGs that are kept.
#[derive(Default)]
pub(in crate::tests) struct Model {
    pub(super) dings: BTreeMap<DingId, ModelDing>,
    given_out: u64,
    pub(super) time: Timestamp,
}

impl Model {
    pub(in crate::tests) fn of(records: &[Record]) -> Self {
        let mut model = Self::default();
        records.iter().for_each(|record| model.note(record));
        model
    }

    fn ding(&mut self, id: DingId) -> &mut ModelDing {
        self.dings.get_mut(&id).expect("a DING that is kept")
    }

    /// Takes in the next record; panics if it breaks an invariant.
    pub(super) fn note(&mut self, record: &Record) {
        assert!(record.time() >= self.time, "time moves forward");
        self.time = record.time();
        match record {
            Record::DingAdded(added) => {
                self.given_out += 1;
                assert_eq!(added.ding.ordinal(), self.given_out);
                self.dings.insert(added.ding, ModelDing::new(added));
            }
            Record::DingAttempted(record) => self.ding(record.ding).attempted(record),
            Record::DingDeferred(record) => self.ding(record.ding).deferred(record),
            Record::DingsDelivered(DingsDelivered { entries, .. }) => {
                for entry in entries {
                    let ding = self.ding(entry.ding);
                    assert!(ding.ended.is_none() && !ding.begun.is_empty(), "a device has what it was not shown");
                    assert!(ding.added.recipients.contains(&entry.user) && !ding.confirmed.contains_key(&entry.user));
                    assert!(ding.delivered.insert(entry.user), "it is known already");
                }
            }
            Record::DingOutcomes(DingOutcomes { entries, .. }) => {
                entries.iter().for_each(|entry| self.ding(entry.ding).outcome(entry));
            }
            Record::DingConfirmed(record) => self.ding(record.ding).confirmed(record),
            Record::DingEnded(record) => self.ding(record.ding).end(record),
            Record::DingForgotten(record) => {
                let forgotten = self.dings.remove(&record.ding).expect("a DING that is kept");
                assert!(forgotten.ended.is_some(), "an open DING is forgotten");
            }
            _ => {}
        }
    }

    /// Every call whose outcome is not recorded: starts of what is not moot, and cancels that are due.
    pub(super) fn calls(&self) -> BTreeSet<(Outlet, Verb, CallKey)> {
        let mut calls = BTreeSet::new();
        for (&ding, found) in &self.dings {
            for (&(user, attempt), reach) in &found.reaches {
                let key = CallKey { ding, user, attempt };
                if reach.cancel == CancelState::DUE {
                    calls.insert((reach.outlet, Verb::Cancel, key));
                } else if reach.cancel == CancelState::NONE && reach.state == AttemptState::STARTED {
                    assert!(found.ended.is_none() && !found.confirmed.contains_key(&user), "a moot call is started");
                    calls.insert((reach.outlet, Verb::Start, key));
                }
            }
        }
        calls
    }

    /// When the first thing is to happen.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.dings.values().map(ModelDing::timer).min()
    }

    /// The shard says the same of every DING.
    pub(in crate::tests) fn check(&self, shard: &Shard) {
        assert!(self.dings.keys().eq(shard.dings.by_id.keys()));
        self.dings.iter().for_each(|(id, ding)| ding.check(*id, shard));
        assert_eq!(shard.next_timer(), self.next_timer());
        let count = |is: &dyn Fn(Option<DingState>) -> bool| {
            self.dings.values().filter(|ding| is(ding.ended.map(|(state, _)| state))).count() as u64
        };
        let counts = crate::DingCounts {
            open: count(&|state| state.is_none()),
            confirmed: count(&|state| state == Some(DingState::CONFIRMED)),
            expired: count(&|state| state == Some(DingState::EXPIRED)),
            recalled: count(&|state| state == Some(DingState::RECALLED)),
        };
        assert_eq!(shard.dings_by_state(), counts);
        for (tenant, user) in self.users() {
            let waits = |ding: &ModelDing| {
                let of = ding.added.tenant == tenant && ding.added.recipients.contains(&user);
                of && ding.ended.is_none() && !ding.confirmed.contains_key(&user)
            };
            let expected = self.dings.iter().filter(|(_, ding)| waits(ding)).map(|(id, _)| id);
            let dings = &shard.directory.user(tenant, user).unwrap().dings();
            assert!(dings.waiting.iter().eq(expected), "what waits for {user}");
            let sent = self.dings.iter().filter(|(_, ding)| (ding.added.tenant, ding.added.sender) == (tenant, user));
            let open = sent.clone().filter(|(_, ding)| ding.ended.is_none()).count();
            assert!(dings.sent.iter().eq(sent.map(|(id, _)| id)) && dings.sent_open == open, "what {user} sent");
        }
    }

    fn users(&self) -> BTreeSet<(TenantId, UserId)> {
        let users = |ding: &ModelDing| ding.added.recipients.clone().into_iter().chain([ding.added.sender]);
        self.dings.values().flat_map(|ding| users(ding).map(|user| (ding.added.tenant, user))).collect()
    }

    /// The calls that a shard hands out after it resumed are those without an outcome, each once. They are gone then.
    pub(in crate::tests) fn check_calls(&self, resumed: &mut Shard) {
        let mut expected = self.calls();
        for outlet in resumed.outlets_waiting() {
            while let Some(next) = next(resumed, outlet) {
                let Next::Call(call) = next else { panic!("nobody knows what was handed out before: {next:?}") };
                assert_eq!(call.outlet, outlet);
                assert!(expected.remove(&(outlet, call.verb, call.key)), "not due, or twice: {call:?}");
            }
        }
        assert!(expected.is_empty(), "never handed out again: {expected:?}");
    }
}
