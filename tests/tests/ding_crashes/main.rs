//! kill -9 at every point of an escalation: before and after each record, each call to a gateway and each outcome. No step is
//! missed, none starts after a confirmation, and an attempt has one idempotency key.

mod rooms;
mod world;

use std::collections::BTreeSet;
use std::sync::Arc;

use carillon::journal::{JournalOptions, Loss};
use carillon::store::{self, Follow, Store, StoreOptions, Unwritable, Verdict};
use carillon_core::Shard;
use carillon_core::effect::Verb;
use carillon_core::input::{Audience, DingTerms, QuietWindow, Request};
use carillon_core::record::{DingAttempted, PlannedStep, Record};
use carillon_protocol::Frame;
use carillon_protocol::ding::{DingConfirm, DingCreate, DingRecall};
use carillon_protocol::ding_status::DingStatus;
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{DingState, MessageKind, Outlet, QuietHours, Target};
use carillon_tests::outlets::Seen;
use world::{Fate, RECIPIENT, SENDER, SHARD, World};

/// How the DING of a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The recipient confirms after the short message and before the call.
    Confirmed,
    /// The sender recalls it then.
    Recalled,
    /// Nobody does anything.
    Expired,
}

const ENDS: [End; 3] = [End::Confirmed, End::Recalled, End::Expired];

const CONFIRMED_AT_S: u64 = 100;
const EXPIRES_AFTER_S: u64 = 400;

fn step(outlet: Outlet, after_s: u32, every_s: u32, times: u16) -> PlannedStep {
    PlannedStep { outlet, heeds_quiet: 0, times, after_ms: after_s * 1_000, repeat_every_ms: every_s * 1_000 }
}

/// App at once and at 30 s, a short message at 60 s, a call at 180 s and at 240 s.
fn plan() -> Vec<PlannedStep> {
    vec![step(Outlet::APP, 0, 30, 2), step(Outlet::SMS, 60, 0, 1), step(Outlet::PHONE, 180, 60, 2)]
}

fn create() -> Request {
    create_to(7, vec![RECIPIENT], plan())
}

fn create_to(key: u64, recipients: Vec<UserId>, steps: Vec<PlannedStep>) -> Request {
    let create = DingCreate {
        request: 1,
        key,
        target: Target::USERS,
        target_id: 0,
        starts_at: Timestamp(0),
        expires_after_ms: 0,
        quiet: QuietHours::HEED,
        kind: MessageKind::TEXT,
        conversation: ConversationId(0),
        seq: Seq(0),
        recipients,
        steps: Vec::new(),
        payload: bytes::Bytes::from_static(b"fire"),
    };
    let terms = DingTerms {
        steps,
        quiet: QuietWindow::NONE,
        expires_after_ms: EXPIRES_AFTER_S * 1_000,
        audience: Audience::Tenant,
    };
    Request::DingCreate(create, Ok(terms))
}

/// Lets a DING run its course; the process dies on the way as its fate says.
fn run(end: End, fate: Fate, loss: Loss) -> (World, DingId) {
    let mut world = World::new(fate, loss);
    let Frame::DingCreated(created) = world.ask(SENDER, &create()) else { panic!("{fate:?}: not created") };
    let ding = created.ding;
    for second in (5..=EXPIRES_AFTER_S + 5).step_by(5) {
        world.set_time(second * 1_000);
        if second == CONFIRMED_AT_S && end == End::Confirmed {
            let confirm = Request::DingConfirm(DingConfirm { request: 1, ding });
            let reply = world.ask(RECIPIENT, &confirm);
            assert!(matches!(reply, Frame::DingConfirmed(_)), "{fate:?}: {reply:?}");
            world.gateway.lock().seen.push(Seen::Confirmed);
        }
        if second == CONFIRMED_AT_S && end == End::Recalled {
            let reply = world.ask(SENDER, &Request::DingRecall(DingRecall { request: 1, ding }));
            assert!(matches!(reply, Frame::Done(_)), "{fate:?}: {reply:?}");
            world.gateway.lock().seen.push(Seen::Recalled);
        }
        while world.run().is_none() && world.deaths > 0 {
            // Once more, should it have died just now; a run that has nothing to do answers nothing either.
            if world.run().is_none() {
                break;
            }
        }
    }
    (world, ding)
}

/// Reads the records of the journal.
#[derive(Default)]
struct Records(Vec<Record>);

impl Follow for Records {
    fn begin(&mut self, _: store::Begin) -> Position {
        Position(0)
    }

    fn follow(&mut self, _: Position, record: &Record) {
        self.0.push(record.clone());
    }

    fn lose(&mut self, position: Position) {
        panic!("{position} is lost");
    }

    fn end(&mut self, _: &Shard) -> Result<Verdict, Unwritable> {
        Ok(Verdict::InStep)
    }

    fn reset(&mut self, _: store::Begin) {
        self.0.clear();
    }
}

/// What the disk has.
fn read(scenario: &str, world: &World) -> (Shard, Records) {
    // What is read now is read in peace.
    world.storage.restart(Loss::Nothing);
    let mut records = Records::default();
    let clock = Arc::new(carillon::clock::SystemClock);
    let options = StoreOptions { journal: JournalOptions::new(SHARD), clock, progress: None };
    let Store { shard, .. } = store::open(Arc::new(world.storage.clone()), &options, &mut records).expect(scenario);
    (shard, records)
}

fn judge(end: End, scenario: &str, world: &mut World, ding: DingId) {
    let expected = match end {
        End::Confirmed => DingState::CONFIRMED,
        End::Recalled => DingState::RECALLED,
        End::Expired => DingState::EXPIRED,
    };
    let status = DingStatus { request: 1, ding, states: 0, from: UserId(0), limit: 1 };
    let Frame::DingStatusReply(status) = world.ask(SENDER, &Request::DingStatus(status)) else { panic!("{scenario}") };
    assert_eq!(status.state, expected, "{scenario}");

    let (mut shard, records) = read(scenario, world);
    let attempts: Vec<&DingAttempted> = records
        .0
        .iter()
        .filter_map(|record| if let Record::DingAttempted(attempted) = record { Some(attempted) } else { None })
        .collect();
    let added = records.0.iter().filter(|record| matches!(record, Record::DingAdded(_))).count();
    assert_eq!(added, 1, "{scenario}: a repeat under the same key made another DING");
    let over = |record: &Record| matches!(record, Record::DingConfirmed(_) | Record::DingEnded(_));
    let over_at = records.0.iter().position(over).expect(scenario);
    let begun_later = records.0[over_at..].iter().any(|record| matches!(record, Record::DingAttempted(_)));
    assert!(!begun_later, "{scenario}: a step began after the end");
    for (nth, step) in plan().iter().enumerate() {
        let begun = attempts.iter().filter(|attempted| usize::from(attempted.step) == nth).count();
        let wanted = if end == End::Expired || nth < 2 { usize::from(step.times) } else { 0 };
        assert_eq!(begun, wanted, "{scenario}: step {nth} by {:?}", step.outlet);
    }
    judge_calls(scenario, world, &attempts);
    shard.resume();
    assert_eq!(shard.outlets_waiting(), [], "{scenario}: a call waits whose outcome is not recorded");
}

/// What the gateway saw of it.
fn judge_calls(scenario: &str, world: &World, attempts: &[&DingAttempted]) {
    let seen = &world.gateway.lock().seen;
    let mut started = BTreeSet::new();
    let mut over = false;
    for seen in seen {
        match seen {
            Seen::Confirmed | Seen::Recalled => over = true,
            Seen::Called(Verb::Start, key, outlet) => {
                assert!(!over, "{scenario}: {key:?} was started after it was moot");
                let attempt = attempts.get(usize::from(key.attempt)).map(|attempted| attempted.outlet);
                assert_eq!(attempt, Some(*outlet), "{scenario}: {key:?} was called without a durable record");
                started.insert(*key);
            }
            Seen::Called(Verb::Cancel, key, outlet) => {
                let attempt = attempts.get(usize::from(key.attempt)).map(|attempted| attempted.outlet);
                assert_eq!(attempt, Some(*outlet), "{scenario}: a cancel of {key:?}, which is none");
            }
        }
    }
    let by_outlets = attempts.iter().filter(|attempted| attempted.outlet != Outlet::APP).count();
    assert_eq!(started.len(), by_outlets, "{scenario}: each attempt has one key and was called");
    for key in started {
        let cancelled = |seen: &Seen| matches!(seen, Seen::Called(Verb::Cancel, other, _) if *other == key);
        assert!(seen.iter().any(cancelled), "{scenario}: nobody told the gateway that {key:?} is moot");
    }
}

fn losses() -> [Loss; 3] {
    [Loss::Nothing, Loss::Everything, Loss::Random(11)]
}

/// Runs to each fate for as long as the process meets it.
fn all(end: End, fates: impl Fn(usize) -> Fate) -> usize {
    let mut deaths = 0;
    for loss in losses() {
        for at in 1.. {
            let fate = fates(at);
            let scenario = format!("{end:?}, {fate:?}, {loss:?}");
            let (mut world, ding) = run(end, fate, loss);
            judge(end, &scenario, &mut world, ding);
            if world.deaths == 0 {
                break;
            }
            deaths += world.deaths;
        }
    }
    deaths
}

#[test]
fn an_escalation_runs_its_course_without_a_crash() {
    for end in ENDS {
        let (mut world, ding) = run(end, Fate::Lives, Loss::Nothing);
        judge(end, "nothing happens", &mut world, ding);
        let (_, _, calls) = world.counted();
        // A short message and, if nobody reacts, two calls; each with its cancel.
        assert_eq!(calls, if end == End::Expired { 6 } else { 2 });
    }
}

#[test]
fn a_kill_around_every_record_misses_no_step_and_starts_none_after_the_end() {
    for end in ENDS {
        let deaths = all(end, |at| Fate::AtDisk(at as u64));
        assert!(deaths > 60, "{deaths} deaths");
    }
}

#[test]
fn a_kill_before_and_after_every_call_repeats_it_under_the_same_key() {
    for end in ENDS {
        let deaths = all(end, Fate::BeforeCall) + all(end, Fate::AfterCall);
        assert!(deaths >= 12, "{deaths} deaths");
    }
}

#[test]
fn a_kill_before_every_outcome_is_recorded_repeats_the_call_under_the_same_key() {
    for end in ENDS {
        let deaths = all(end, Fate::AfterStep);
        assert!(deaths > 60, "{deaths} deaths");
    }
}
