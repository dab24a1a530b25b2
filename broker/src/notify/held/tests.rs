use super::*;
use bytes::Bytes;
use carillon_protocol::ids::{ConversationId, DingId, Seq, UserId};
use carillon_protocol::kinds::MessageKind;
use proptest::prelude::*;

use super::super::call::OutletId;

const START_MS: u64 = 1_000_000;
const EXPIRES_MS: u64 = START_MS + 60_000;

fn key(user: u32) -> CallKey {
    CallKey { ding: DingId(1), user: UserId(user), attempt: 0 }
}

fn call(user: u32, verb: Verb) -> Call {
    Call {
        key: key(user),
        verb,
        outlet: OutletId::SMS,
        tenant: "acme".into(),
        recipient: "ann".into(),
        sender: "bob".into(),
        step: 1,
        kind: MessageKind::TEXT,
        payload: Bytes::from_static(b"fire"),
        conversation: ConversationId(0),
        seq: Seq(0),
        created_at: Timestamp(START_MS),
        started_at: Timestamp(START_MS),
        expires_at: Timestamp(EXPIRES_MS),
    }
}

/// An outlet's calls under a clock that is moved by hand; jitter is none.
struct World {
    held: Held,
    origin: Instant,
    passed: Duration,
}

const POLICY: Policy = Policy {
    tries_max: 3,
    tries_for: Duration::from_secs(900),
    calls_a_second: 1_000,
    backoff_first: Duration::from_secs(1),
    backoff_max: Duration::from_secs(10),
};

/// A status that another try may better.
const UNWELL: End = End::Failed(Detail(503), None);
const TAKEN: End = End::Taken(Status::Accepted, Detail(202));

impl World {
    fn new(policy: Policy) -> Self {
        let held = Held::new(policy, || u32::MAX / 2);
        let origin = carillon_transport::Clock::now(&crate::clock::SystemClock);
        Self { held, origin, passed: Duration::ZERO }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.origin + self.passed, wall: Timestamp(START_MS + millis(self.passed)) }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.passed += Duration::from_millis(ms);
    }

    fn take(&mut self, user: u32, verb: Verb) {
        self.held.handle_call(call(user, verb), None, self.now());
    }

    /// What is tried now, if anything.
    fn poll(&mut self) -> Option<(u32, Verb)> {
        match self.held.poll_next(self.now()) {
            Next::Try(call) => Some((call.key.user.0, call.verb)),
            Next::At(_) | Next::Idle => None,
        }
    }

    fn end(&mut self, user: u32, verb: Verb, handed: bool, end: End) {
        self.held.handle_end((key(user), verb), Tried { handed, end }, self.now());
    }

    /// Results since the last time.
    fn results(&mut self) -> Vec<(u32, Verb, Outcome, u16)> {
        let results = self.held.take_results().into_iter();
        results.map(|result| (result.key.user.0, result.verb, result.outcome, result.detail.0)).collect()
    }
}

use Verb::{Cancel, Start};

#[test]
fn a_start_is_tried_once_if_it_is_taken() {
    for (status, outcome, detail) in [
        (Status::Accepted, Outcome::Accepted, 202),
        (Status::Delivered, Outcome::Delivered, 202),
        (Status::Answered, Outcome::Answered, 202),
        (Status::Failed, Outcome::Failed, Detail::SAID_FAILED.0),
    ] {
        let mut world = World::new(POLICY);
        world.take(1, Start);
        assert_eq!(world.poll(), Some((1, Start)));
        assert_eq!(world.poll(), None);
        world.end(1, Start, true, End::Taken(status, Detail(202)));
        assert_eq!(world.results(), [(1, Start, outcome, detail)]);
        assert_eq!((world.held.len(), world.held.poll_next(world.now())), (0, Next::Idle));
    }
}

#[test]
fn pauses_double_until_the_tries_are_used_up() {
    let mut world = World::new(POLICY);
    world.take(1, Start);
    for pause_ms in [1_000, 2_000] {
        assert_eq!(world.poll(), Some((1, Start)));
        world.end(1, Start, true, UNWELL);
        world.pass_ms(pause_ms - 1);
        assert_eq!(world.poll(), None, "{pause_ms}");
        world.pass_ms(2);
    }
    assert_eq!(world.poll(), Some((1, Start)));
    world.end(1, Start, true, UNWELL);
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, 503)]);
}

#[test]
fn an_outage_of_ten_minutes_loses_nothing_and_tries_end_by_their_age() {
    for (outage_s, verb, expected) in [
        (600, Start, Outcome::Accepted),
        (600, Cancel, Outcome::Done),
        (901, Start, Outcome::Failed),
        (901, Cancel, Outcome::GaveUp),
    ] {
        let mut world = World::new(Policy { tries_max: 100, backoff_max: Duration::from_secs(60), ..POLICY });
        world.held.handle_call(Call { expires_at: Timestamp(u64::MAX), ..call(1, verb) }, None, world.now());
        let mut results = Vec::new();
        while results.is_empty() {
            if world.poll().is_some() {
                world.end(1, verb, true, if world.passed.as_secs() < outage_s { UNWELL } else { TAKEN });
            }
            results = world.results();
            world.pass_ms(500);
        }
        let of = results.iter().map(|result| result.2).collect::<Vec<_>>();
        assert_eq!((of, world.held.len()), (vec![expected], 0), "{outage_s} s, {verb:?}");
        assert!(world.passed.as_secs() < 910, "{:?}", world.passed);
    }
}

#[test]
fn a_pause_is_never_longer_than_the_longest_but_for_what_the_gateway_asks_within_a_bound() {
    let world = World::new(Policy { backoff_max: Duration::from_secs(3), ..POLICY });
    let after = |seconds| Some(Duration::from_secs(seconds));
    for (tries, asked, seconds) in [
        (1, None, 1),
        (2, None, 2),
        (3, None, 3),
        (40, None, 3),
        (1, after(7), 7),
        (3, after(1), 3),
        (1, after(9_999), 300),
    ] {
        assert_eq!(world.held.pause(tries, asked).as_secs_f64().round(), f64::from(seconds), "{tries} {asked:?}");
    }
    for (random, seconds) in [(0, 0.5), (u32::MAX, 1.5)] {
        let held = Held::new(POLICY, if random == 0 { || 0 } else { || u32::MAX });
        assert_eq!(held.pause(1, None).as_secs_f64(), seconds);
    }
}

#[test]
fn nothing_is_tried_from_the_expiry_on() {
    let mut world = World::new(Policy { calls_a_second: 1, ..POLICY });
    world.take(1, Start);
    world.take(2, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    // The second one waits for the rate until its DING has expired.
    assert_eq!(world.poll(), None);
    world.pass_ms(60_000);
    assert_eq!(world.poll(), None);
    assert_eq!(world.results(), [(2, Start, Outcome::Failed, Detail::EXPIRED.0)]);
    // The first one's next try would come too late: it fails for what happened.
    world.end(1, Start, true, UNWELL);
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, 503)]);
}

#[test]
fn a_try_that_would_come_after_the_expiry_is_not_waited_for() {
    let mut world = World::new(POLICY);
    world.take(1, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.end(1, Start, true, End::Failed(Detail(429), Some(Duration::from_secs(61))));
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, 429)]);
}

#[test]
fn what_is_refused_is_not_tried_again() {
    let mut world = World::new(POLICY);
    world.take(1, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.end(1, Start, true, End::Refused(Detail(400)));
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, 400)]);
    assert_eq!(world.held.len(), 0);
}

#[test]
fn a_cancel_of_what_never_left_says_so_and_nothing_goes_out() {
    let mut world = World::new(POLICY);
    world.take(1, Start);
    world.take(1, Cancel);
    let nothing = (1, Cancel, Outcome::Done, Detail::NOTHING.0);
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, Detail::CANCELLED.0), nothing]);
    assert_eq!((world.poll(), world.held.len()), (None, 0));
    // Nor when it was tried and did not come through.
    world.take(1, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.end(1, Start, false, End::Failed(Detail::CONNECT, None));
    world.take(1, Cancel);
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, Detail::CANCELLED.0), nothing]);
    assert_eq!((world.poll(), world.held.len()), (None, 0));
}

#[test]
fn a_cancel_while_backing_off_ends_the_tries_and_goes_out() {
    let mut world = World::new(POLICY);
    world.take(1, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.end(1, Start, true, UNWELL);
    world.take(1, Cancel);
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, Detail::CANCELLED.0)]);
    assert_eq!(world.poll(), Some((1, Cancel)));
    world.end(1, Cancel, true, TAKEN);
    assert_eq!(world.results(), [(1, Cancel, Outcome::Done, 202)]);
    world.pass_ms(10_000);
    assert_eq!((world.poll(), world.held.len()), (None, 0));
}

#[test]
fn a_cancel_waits_for_the_try_that_is_under_way() {
    for (handed, end, start, cancel) in [
        (true, TAKEN, (Outcome::Accepted, 202), None),
        (true, UNWELL, (Outcome::Failed, Detail::CANCELLED.0), None),
        (true, End::Refused(Detail(400)), (Outcome::Failed, 400), None),
        (false, End::Failed(Detail::CONNECT, None), (Outcome::Failed, Detail::CANCELLED.0), Some(Detail::NOTHING.0)),
        (false, End::Refused(Detail::REFUSED_ADDRESS), (Outcome::Failed, 3), Some(Detail::NOTHING.0)),
    ] {
        let mut world = World::new(POLICY);
        world.take(1, Start);
        assert_eq!(world.poll(), Some((1, Start)));
        world.take(1, Cancel);
        assert_eq!((world.poll(), world.results()), (None, Vec::new()));
        world.end(1, Start, handed, end);
        let mut expected = vec![(1, Start, start.0, start.1)];
        expected.extend(cancel.map(|detail| (1, Cancel, Outcome::Done, detail)));
        assert_eq!(world.results(), expected, "{end:?}");
        assert_eq!(world.poll(), cancel.is_none().then_some((1, Cancel)), "{end:?}");
    }
}

#[test]
fn a_start_that_is_called_off_is_not_tried_again_and_its_cancel_comes_when_it_may() {
    let cancelled = [(1, Start, Outcome::Failed, Detail::CANCELLED.0)];
    let mut world = World::new(POLICY);
    world.take(1, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.end(1, Start, true, UNWELL);
    world.held.handle_call_off(key(1));
    assert_eq!(world.results(), cancelled);
    // One that is due is forgotten as well as one that backs off.
    world.take(1, Start);
    world.take(2, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.held.handle_call_off(key(2));
    assert_eq!(world.results(), [(2, Start, Outcome::Failed, Detail::CANCELLED.0)]);
    world.held.handle_call_off(key(1));
    world.end(1, Start, true, UNWELL);
    assert_eq!(world.results(), cancelled);
    world.pass_ms(10_000);
    assert_eq!((world.poll(), world.held.len()), (None, 0));
    world.held.handle_call_off(key(1));
    world.take(1, Cancel);
    assert_eq!((world.poll(), world.results()), (Some((1, Cancel)), Vec::new()));
    // One that is taken all the same says so.
    world.take(3, Start);
    assert_eq!(world.poll(), Some((3, Start)));
    world.held.handle_call_off(key(3));
    world.end(3, Start, true, TAKEN);
    assert_eq!(world.results(), [(3, Start, Outcome::Accepted, 202)]);
}

#[test]
fn a_cancel_of_a_start_that_was_decided_before_goes_out_even_when_the_ding_has_expired() {
    let mut world = World::new(POLICY);
    world.pass_ms(3_600_000);
    world.take(1, Cancel);
    assert_eq!(world.poll(), Some((1, Cancel)));
    for pause_ms in [1_001, 2_001] {
        world.end(1, Cancel, true, UNWELL);
        world.pass_ms(pause_ms);
        assert_eq!(world.poll(), Some((1, Cancel)));
    }
    world.end(1, Cancel, true, UNWELL);
    assert_eq!(world.results(), [(1, Cancel, Outcome::GaveUp, 503)]);
}

#[test]
fn what_a_gateway_does_not_know_is_cancelled() {
    for (detail, outcome) in [(404, Outcome::Done), (410, Outcome::Done), (400, Outcome::GaveUp)] {
        let mut world = World::new(POLICY);
        world.take(1, Cancel);
        assert_eq!(world.poll(), Some((1, Cancel)));
        world.end(1, Cancel, true, End::Refused(Detail(detail)));
        assert_eq!(world.results(), [(1, Cancel, outcome, detail)]);
    }
}

#[test]
fn repeats_of_what_is_held_change_nothing_and_a_start_behind_its_cancel_is_not_tried() {
    let mut world = World::new(POLICY);
    world.take(1, Start);
    world.take(1, Start);
    assert_eq!(world.poll(), Some((1, Start)));
    world.take(1, Start);
    world.take(1, Cancel);
    world.take(1, Cancel);
    assert_eq!((world.poll(), world.held.len()), (None, 2));
    world.end(1, Start, true, TAKEN);
    assert_eq!(world.results(), [(1, Start, Outcome::Accepted, 202)]);
    world.take(1, Start);
    assert_eq!(world.results(), [(1, Start, Outcome::Failed, Detail::CANCELLED.0)]);
    assert_eq!((world.poll(), world.poll()), (Some((1, Cancel)), None));
}

#[test]
fn cancels_and_starts_alternate_each_in_the_order_in_which_they_came() {
    let mut world = World::new(POLICY);
    for user in [3, 1, 2] {
        world.take(user, Start);
    }
    for user in [9, 5, 7, 8, 6] {
        world.take(user, Cancel);
    }
    let order: Vec<_> = std::iter::from_fn(|| world.poll()).collect();
    let expected =
        [(9, Cancel), (3, Start), (5, Cancel), (1, Start), (7, Cancel), (2, Start), (8, Cancel), (6, Cancel)];
    assert_eq!(order, expected);
}

#[test]
fn a_ding_that_comes_behind_a_thousand_calls_of_another_has_the_next_turn_but_one() {
    let mut world = World::new(POLICY);
    (0..1_000).for_each(|user| world.take(user, Start));
    assert_eq!([world.poll(), world.poll()], [Some((0, Start)), Some((1, Start))]);
    let other = CallKey { ding: DingId(2), ..key(7_777) };
    world.held.handle_call(Call { key: other, ..call(0, Start) }, None, world.now());
    assert_eq!([world.poll(), world.poll()], [Some((2, Start)), Some((7_777, Start))]);
}

#[test]
fn the_rate_holds_for_all_that_goes_out() {
    let mut world = World::new(Policy { calls_a_second: 5, ..POLICY });
    for user in 0..20 {
        world.take(user, if user % 2 == 0 { Start } else { Cancel });
    }
    let mut left = 0;
    for _ in 0..2_000 {
        left += u32::from(world.poll().is_some());
        world.pass_ms(1);
    }
    assert_eq!(left, 10, "in two seconds");
}

/// What may happen to calls of three keys.
fn event() -> impl Strategy<Value = (u8, u32, bool, u8)> {
    (0..6_u8, 0..3_u32, any::<bool>(), 0..4_u8)
}

proptest! {
    #[test]
    fn every_call_has_one_result_and_none_is_tried_twice_at_once_or_after_its_cancel(
        events in proptest::collection::vec(event(), 1..200)
    ) {
        let mut world = World::new(Policy { tries_max: 2, ..POLICY });
        let mut under_way: Vec<(u32, Verb)> = Vec::new();
        // Calls that owe a result; keys whose cancel has come.
        let mut owed: Vec<(u32, Verb)> = Vec::new();
        let mut cancelled: Vec<u32> = Vec::new();
        let settle = |world: &mut World, owed: &mut Vec<(u32, Verb)>| {
            for (user, verb, ..) in world.results() {
                let nth = owed.iter().position(|call| *call == (user, verb)).expect("a result is owed");
                owed.remove(nth);
            }
            assert_eq!(world.held.len(), owed.len());
        };
        let later = std::iter::repeat_n([(1, 0, true, 0), (4, 0, true, 0), (3, 0, true, 1)], 60).flatten();
        for (what, user, handed, how) in events.into_iter().chain(later) {
            match what {
                0 if !cancelled.contains(&user) && !owed.contains(&(user, Start)) => {
                    owed.push((user, Start));
                    world.take(user, Start);
                }
                1 if how > 0 && !owed.contains(&(user, Cancel)) => {
                    owed.push((user, Cancel));
                    cancelled.push(user);
                    world.take(user, Cancel);
                }
                2 | 4 => if let Some((user, verb)) = world.poll() {
                    prop_assert!(under_way.iter().all(|other| other.0 != user), "two tries of one key");
                    prop_assert!(verb == Cancel || !cancelled.contains(&user), "a start after its cancel");
                    under_way.push((user, verb));
                },
                3 if !under_way.is_empty() => {
                    let (user, verb) = under_way.remove(0);
                    let ends = [TAKEN, End::Refused(Detail(400)), UNWELL, End::Failed(Detail::CONNECT, None)];
                    world.end(user, verb, handed, ends[usize::from(how)]);
                }
                _ => world.pass_ms(700),
            }
            settle(&mut world, &mut owed);
        }
        // In the end all was decided, the tail of events having polled and ended often enough.
        for _ in 0..20 {
            world.pass_ms(20_000);
            while let Some(call) = world.poll() {
                under_way.push(call);
            }
            for (user, verb) in under_way.drain(..) {
                world.end(user, verb, true, UNWELL);
            }
            settle(&mut world, &mut owed);
        }
        prop_assert_eq!(owed, Vec::new());
    }
}
