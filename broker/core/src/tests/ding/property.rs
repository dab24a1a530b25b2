//! Random lives of DINGs, with crashes, slow and lying outlets and clocks that jump, against the model.

use super::model::Model;
use super::*;
use alloc::collections::BTreeSet;
use carillon_protocol::control::{MembersAdd, MembersRemove};
use carillon_protocol::kinds::Role;
use proptest::prelude::*;

const OUTLETS: [Outlet; 4] = [Outlet::APP, Outlet::SMS, Outlet::PHONE, Outlet(64)];

/// Numbers that follow from one, for the details of a step.
struct Dice(u32);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % bound
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(u32::try_from(of.len()).unwrap()) as usize]
    }

    fn plan(&mut self) -> DingTerms {
        let mut steps = Vec::new();
        for _ in 0..=self.below(3) {
            steps.push(PlannedStep {
                outlet: self.one(&OUTLETS),
                heeds_quiet: u8::from(self.below(3) == 0),
                times: self.one(&[1, 1, 2, 5]),
                after_ms: self.one(&[0, 0, 1_000, 1_500, 60_000, 7_200_000]),
                repeat_every_ms: self.one(&[1_000, 2_500, 90_000, 3_600_000]),
            });
        }
        steps.push(PlannedStep { after_ms: self.one(&[0, 0, 3_000]), ..step(Outlet::APP, 0) });
        let (from_min, to_min) = self.one(&[(0, 0), (1_320, 420), (720, 840), (1, 0), (0, 1_439)]);
        DingTerms {
            steps,
            quiet: QuietWindow { from_min, to_min },
            expires_after_ms: self.one(&[4_000, 60_000, 3_600_000, 100_000_000]),
            audience: Audience::Tenant,
        }
    }
}

/// A world of five users and a group, its model, and what outlets hold.
struct Run {
    world: World,
    who: Vec<Principal>,
    group: ConversationId,
    model: Model,
    noted: usize,
    /// Handed out since the last resume.
    taken: BTreeSet<(Outlet, Verb, CallKey)>,
    /// Every attempt that was ever started at a gateway, as it was.
    started: BTreeMap<CallKey, Call>,
    in_flight: Vec<(Verb, CallKey)>,
    next_key: u64,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        world.now = Timestamp(20 * 3_600_000);
        let who: [Principal; 5] = world.users();
        let group = world.group(who[0], &who[1..4]);
        Self {
            world,
            who: who.into(),
            group,
            model: Model::default(),
            noted: 0,
            taken: BTreeSet::new(),
            started: BTreeMap::new(),
            in_flight: Vec::new(),
            next_key: 0,
        }
    }

    /// Notes what was recorded; the shard, and what it has to hand out, must agree with it.
    fn check(&mut self) {
        for record in &self.world.records[self.noted..] {
            self.model.note(record);
        }
        self.noted = self.world.records.len();
        self.model.check(&self.world.shard);
        let due = self.model.calls();
        let waiting: Vec<_> = due.difference(&self.taken).collect();
        assert_eq!(self.world.shard.calls_waiting(), waiting.len());
        for outlet in OUTLETS {
            let waits = waiting.iter().any(|call| call.0 == outlet);
            assert_eq!(self.world.shard.outlets_waiting().contains(&outlet), waits, "{outlet:?}");
        }
    }

    fn any_ding(&self, dice: &mut Dice) -> DingId {
        let newest = self.world.shard.dings.by_id.keys().next_back().map_or(0, |id| id.ordinal());
        DingId::new(SHARD, newest.saturating_sub(u64::from(dice.below(4))))
    }

    /// Mostly one that was begun, else one that never was.
    fn any_key(&self, dice: &mut Dice) -> CallKey {
        let keys: Vec<_> = self.started.keys().rev().take(20).copied().collect();
        if dice.below(4) > 0 && !keys.is_empty() {
            return dice.one(&keys);
        }
        let user = dice.one(&[UserId(0), UserId(1), UserId(4), NOBODY, USER_NONE]);
        let attempt = dice.one(&[0, 1, 2, 255, u16::MAX]);
        let ding = self.any_ding(dice);
        CallKey { ding: dice.one(&[ding, DingId(0), DingId(u64::MAX)]), user, attempt }
    }

    fn create(&mut self, dice: &mut Dice) {
        let who = dice.one(&self.who);
        self.next_key += u64::from(dice.below(8) > 0);
        let starts_in = dice.one(&[0, 0, 0, 5_000, 7_200_000]);
        let create = DingCreate {
            target: dice.one(&[Target::USERS, Target::USERS, Target::CONVERSATION]),
            target_id: self.group.0,
            starts_at: Timestamp(if starts_in == 0 { 0 } else { self.world.now.0 + starts_in }),
            ..ding(self.next_key, &[dice.one(&self.who), dice.one(&self.who), dice.one(&self.who)])
        };
        let terms = dice.plan();
        ask(&mut self.world, who, create, terms);
    }

    fn confirm(&mut self, dice: &mut Dice) {
        let (who, id) = (dice.one(&self.who), self.any_ding(dice));
        let found = self.model.dings.get(&id).filter(|ding| ding.added.recipients.contains(&who.user));
        let expected = match found {
            None => Err(ErrorCode::NOT_FOUND),
            Some(ding) => match (ding.confirmed.get(&who.user), ding.ended) {
                (Some(time), _) => Ok(*time),
                (None, Some(_)) => Err(ErrorCode::DING_OVER),
                (None, None) if ding.begun.is_empty() => Err(ErrorCode::NOT_FOUND),
                (None, None) => Ok(self.world.now.max(self.model.time)),
            },
        };
        let answered = match confirm(&mut self.world, who, id) {
            Frame::DingConfirmed(confirmed) => Ok(confirmed.time),
            refused => Err(code(refused)),
        };
        assert_eq!(answered, expected);
    }

    fn take(&mut self, dice: &mut Dice) {
        let outlet = dice.one(&OUTLETS);
        for _ in 0..dice.below(4) {
            match next(&mut self.world.shard, outlet) {
                None => return,
                Some(Next::Moot(key)) => {
                    assert!(self.model.calls().contains(&(outlet, Verb::Cancel, key)));
                    assert!(!self.started.contains_key(&key), "it was handed out, and the gateway is not told");
                    assert!(self.taken.insert((outlet, Verb::Cancel, key)));
                    self.in_flight.push((Verb::Cancel, key));
                }
                Some(Next::Call(call)) => {
                    assert!(self.model.calls().contains(&(outlet, call.verb, call.key)), "not due: {call:?}");
                    assert!(self.taken.insert((outlet, call.verb, call.key)), "twice: {call:?}");
                    self.in_flight.push((call.verb, call.key));
                    if call.verb == Verb::Start {
                        let first = self.started.entry(call.key).or_insert_with(|| call.clone());
                        assert_eq!(*first, call, "one key names one attempt");
                    }
                }
            }
        }
    }

    /// News of what was handed out, in any order; sometimes it stays in flight and comes again.
    fn results(&mut self, dice: &mut Dice) {
        let mut batch = Vec::new();
        for _ in 0..=dice.below(5) {
            let honest = !self.in_flight.is_empty() && dice.below(6) > 0;
            let (verb, key) = if honest {
                let at = dice.below(u32::try_from(self.in_flight.len()).unwrap()) as usize;
                if dice.below(3) == 0 { self.in_flight[at] } else { self.in_flight.swap_remove(at) }
            } else {
                (dice.one(&[Verb::Start, Verb::Cancel]), self.any_key(dice))
            };
            let state = AttemptState(dice.one(&[2, 2, 2, 3, 3, 4, 5, 0, 1, 200]));
            let cancel = CancelState(dice.one(&[2, 2, 3, 0, 1, 200]));
            let news = if verb == Verb::Start { CallResult::Attempt(state) } else { CallResult::Cancel(cancel) };
            batch.push(result(key, news));
        }
        results(&mut self.world, &batch);
    }

    fn report(&mut self, dice: &mut Dice) {
        let (outlet, key) = (dice.one(&OUTLETS), self.any_key(dice));
        let begun_by = self.model.dings.get(&key.ding).and_then(|ding| ding.reaches.get(&(key.user, key.attempt)));
        let outlet = if dice.below(2) == 0 { outlet } else { begun_by.map_or(outlet, |reach| reach.outlet) };
        let state = AttemptState(dice.one(&[3, 4, 4, 5, 5, 0, 77]));
        let expected = if begun_by.is_none_or(|reach| reach.outlet != outlet) {
            Reported::Unknown
        } else {
            let ding = &self.model.dings[&key.ding];
            let is_late = ding.ended.is_some() && !ding.confirmed.contains_key(&key.user);
            if state == AttemptState::ANSWERED && is_late { Reported::Over } else { Reported::Done }
        };
        assert_eq!(report(&mut self.world, outlet, key, state), expected);
        if state == AttemptState::ANSWERED && expected == Reported::Done {
            self.check();
            assert!(self.model.dings[&key.ding].confirmed.contains_key(&key.user), "an answer confirms");
        }
    }

    /// Ticks until nothing is due: then nothing may be overdue.
    fn settle(&mut self) {
        let now = self.world.now;
        while tick(&mut self.world, now.0) > 0 {
            self.check();
        }
        let late = self.model.next_timer().filter(|due| *due <= now.max(self.model.time));
        assert_eq!(late, None, "a step was missed");
    }

    /// The process ends and another begins: what was in flight may be answered to nobody.
    fn crash(&mut self, dice: &mut Dice) {
        if dice.below(2) == 0 {
            self.world.restart()
        } else {
            self.world.reload()
        }
        self.taken.clear();
        if dice.below(2) == 0 {
            self.in_flight.clear();
        }
    }

    fn pass_time(&mut self, dice: &mut Dice) {
        let now = &mut self.world.now.0;
        match dice.below(12) {
            0..=5 => *now += u64::from(dice.below(2_000)),
            6 => *now += u64::from(dice.below(7_200_000)),
            7 => *now += 3_600_000 * u64::from(dice.below(30)),
            8 => *now = now.saturating_sub(u64::from(dice.below(7_200_000))),
            _ => *now = self.model.next_timer().map_or(*now, |next| (*now).max(next.0)),
        }
    }

    fn change_members(&mut self, dice: &mut Dice) {
        let (request, conversation, members) = (9, self.group, Vec::from([dice.one(&self.who).user]));
        let change = if dice.below(2) == 0 {
            Request::MembersRemove(MembersRemove { request, conversation, members })
        } else {
            Request::MembersAdd(MembersAdd { request, conversation, role: Role::MEMBER, members })
        };
        self.world.request(self.who[0], change);
    }

    fn step(&mut self, what: u8, mut dice: Dice) {
        let dice = &mut dice;
        self.pass_time(dice);
        let (who, id) = (dice.one(&self.who), self.any_ding(dice));
        match what {
            0..=2 => self.create(dice),
            3..=5 => self.confirm(dice),
            6 => drop(recall(&mut self.world, who, id)),
            7 => drop(remind(&mut self.world, who, id, dice.one(&OUTLETS))),
            8 | 9 => received(&mut self.world, who, id),
            10..=12 => self.take(dice),
            13..=15 => self.results(dice),
            16 | 17 => self.report(dice),
            18 => self.crash(dice),
            19 => self.change_members(dice),
            _ => self.settle(),
        }
        self.check();
    }

    /// Nothing is left of any DING in the end, by its timers alone.
    fn finish(mut self) {
        self.settle();
        while let Some(next) = self.world.shard.next_timer() {
            self.world.now = self.world.now.max(next);
            self.settle();
        }
        assert!(self.model.dings.is_empty() && self.model.calls().is_empty());
        assert!(self.world.shard.outlets_waiting().is_empty());
    }
}

proptest! {
    #[test]
    fn a_life_of_dings_keeps_every_invariant(steps in proptest::collection::vec((0u8..24, any::<u32>()), 1..120)) {
        let mut run = Run::new();
        for (what, seed) in steps {
            run.step(what, Dice(seed));
        }
        run.world.restart();
        run.taken.clear();
        run.finish();
    }
}
