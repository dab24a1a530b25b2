//! Which step begins when: delays, repeats, quiet hours, what was missed.

use super::*;
use crate::limits::{DING_RETENTION_MS, DINGS_OPEN_A_USER_MAX, RECIPIENTS_A_TICK_MAX, TIMERS_A_TICK_MAX};
use crate::record::DingDeferred;

const HOUR_MS: u64 = 3_600_000;
const NIGHT: QuietWindow = QuietWindow { from_min: 22 * 60, to_min: 7 * 60 };

/// The steps that began, with their times.
fn begun(world: &World) -> Vec<(u8, u64)> {
    let begun = world.records.iter().filter_map(|record| match record {
        Record::DingAttempted(attempted) => Some((attempted.step, attempted.time.0)),
        _ => None,
    });
    begun.collect()
}

#[test]
fn steps_begin_at_their_times_and_keep_their_interval() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let sms = PlannedStep { times: 3, repeat_every_ms: 5_000, ..step(Outlet::SMS, 2_000) };
    send(&mut world, ann, ding(1, &[bob]), terms(&[step(Outlet::APP, 0), sms]));
    for now in (1_000..70_000).step_by(500) {
        tick(&mut world, now);
        world.reload();
    }
    assert_eq!(begun(&world), [(0, 1_000), (1, 3_000), (1, 8_000), (1, 13_000)]);
    world.restart();
}

#[test]
fn a_step_that_was_missed_begins_once_and_the_one_due_longest_first() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let phone = PlannedStep { times: 9, repeat_every_ms: 1_000, ..step(Outlet::PHONE, 20_000) };
    send(&mut world, ann, ding(1, &[bob]), terms(&[phone, step(Outlet::APP, 0), step(Outlet::SMS, 10_000)]));
    world.restart();
    assert_eq!((tick(&mut world, 40_000), tick(&mut world, 40_000)), (2, 0));
    assert_eq!(begun(&world), [(1, 1_000), (2, 40_000), (0, 40_000)]);
    assert_eq!(world.shard.next_timer(), Some(Timestamp(41_000)), "from when it began, not from when it was due");
}

#[test]
fn a_tick_between_a_confirmation_and_the_next_step_begins_nothing() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve]), escalating());
    world.now = Timestamp(11_000);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    assert_eq!(tick(&mut world, 11_000), 1, "the step begins for the other");
    assert_eq!(call(&mut world, Outlet::SMS).key.user, eve.user);
    frame!(DingConfirmed, confirm(&mut world, eve, id));
    assert_eq!(tick(&mut world, 11_000), 0);
    assert_eq!(tick(&mut world, 21_000), 0);
}

#[test]
fn a_step_that_heeds_quiet_hours_waits_until_they_are_over() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    world.now = Timestamp(23 * HOUR_MS);
    let sms = PlannedStep { heeds_quiet: 1, ..step(Outlet::SMS, 0) };
    let plan = [step(Outlet::APP, 0), sms, step(Outlet::PHONE, 60_000)];
    let long = DingTerms { quiet: NIGHT, expires_after_ms: 24 * HOUR_MS, ..terms(&plan) };
    let id = send(&mut world, ann, ding(1, &[bob]), long);
    assert_eq!(begun(&world), [(0, 23 * HOUR_MS)]);
    assert_eq!(tick(&mut world, 23 * HOUR_MS + 60_000), 1, "the step that does not heed them begins");
    assert_eq!(status(&mut world, ann, id).next_step_at, Timestamp(31 * HOUR_MS));
    world.restart();
    assert_eq!((tick(&mut world, 31 * HOUR_MS - 1), tick(&mut world, 31 * HOUR_MS)), (0, 1));
    assert_eq!(begun(&world).last(), Some(&(1, 31 * HOUR_MS)));
}

#[test]
fn a_step_missed_before_quiet_hours_is_put_off_durably() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    world.now = Timestamp(21 * HOUR_MS);
    let sms = PlannedStep { heeds_quiet: 1, ..step(Outlet::SMS, 60_000) };
    let plan = terms(&[step(Outlet::APP, 0), sms]);
    let id = send(&mut world, ann, ding(1, &[bob]), DingTerms { quiet: NIGHT, expires_after_ms: 24 * HOUR_MS, ..plan });
    // The broker was down from before the step to the middle of the night.
    world.restart();
    assert_eq!((tick(&mut world, 26 * HOUR_MS), tick(&mut world, 26 * HOUR_MS)), (1, 0));
    let (time, until) = (Timestamp(26 * HOUR_MS), Timestamp(31 * HOUR_MS));
    assert_eq!(world.records.last(), Some(&DingDeferred { time, ding: id, step: 1, until }.into()));
    world.reload();
    world.restart();
    // Again it is night before anybody looks: it is put off once more.
    assert_eq!(tick(&mut world, 22 * HOUR_MS + 24 * HOUR_MS), 1);
    assert!(matches!(world.records.last(), Some(Record::DingEnded(_))), "or it is over meanwhile");
    assert_eq!(begun(&world), [(0, 21 * HOUR_MS)]);
    assert_eq!(status(&mut world, ann, id).entries[0].state, DingState::FAILED, "no device had it, no outlet took it");
}

#[test]
fn what_is_due_at_once_begins_in_the_batch_that_makes_it() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]), terms(&[step(Outlet::SMS, 0), step(Outlet::APP, 0)]));
    let batch = &world.records[world.records.len() - 3..];
    let kinds = matches!(batch, [Record::DingAdded(_), Record::DingAttempted(_), Record::DingAttempted(_)]);
    assert!(kinds, "{batch:?}");
    assert_eq!(status(&mut world, ann, id).state, DingState::SENT);
}

#[test]
fn open_dings_are_bounded_and_a_tick_fires_so_many() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let count = DINGS_OPEN_A_USER_MAX as u64;
    let mut shard_only = |create| {
        let mut effects = Effects::default();
        let request = Request::DingCreate(create, Ok(nagging()));
        world.shard.handle(world.now, Input::Request { who: ann, request }, &mut effects);
        world.records.append(&mut effects.records);
        world.signals.append(&mut effects.signals);
    };
    (0..count).for_each(|key| shard_only(ding(key, &[bob])));
    assert_eq!(refused(&mut world, ann, ding(count, &[eve]), nagging()), ErrorCode::LIMIT_REACHED, "sent");
    assert_eq!(refused(&mut world, eve, ding(1, &[bob]), nagging()), ErrorCode::LIMIT_REACHED, "waiting");
    frame!(DingConfirmed, confirm(&mut world, bob, DingId::new(SHARD, 1)));
    send(&mut world, eve, ding(1, &[bob]), nagging());
    assert_eq!(refused(&mut world, eve, ding(2, &[bob]), nagging()), ErrorCode::LIMIT_REACHED);
    send(&mut world, ann, ding(count, &[eve]), nagging());
    assert_eq!(tick(&mut world, 11_000), TIMERS_A_TICK_MAX);
    assert_eq!(world.shard.next_timer(), Some(Timestamp(11_000)), "the rest stays due");
    let rest = core::iter::from_fn(|| Some(tick(&mut world, 11_000)).filter(|fired| *fired > 0)).sum::<usize>();
    assert_eq!(rest + TIMERS_A_TICK_MAX, DINGS_OPEN_A_USER_MAX + 1);
    world.restart();
    world.reload();
}

#[test]
fn steps_do_not_wait_for_what_is_to_be_forgotten() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    for key in 0..TIMERS_A_TICK_MAX as u64 {
        let id = send(&mut world, ann, ding(key, &[bob]), nagging());
        frame!(DingConfirmed, confirm(&mut world, bob, id));
    }
    let forgotten_at = world.now.0 + DING_RETENTION_MS;
    let starts_at = Timestamp(forgotten_at + 1_000);
    send(&mut world, ann, DingCreate { starts_at, ..ding(1_000, &[bob]) }, nagging());
    world.restart();
    assert_eq!(world.shard.next_timer(), Some(Timestamp(forgotten_at)));
    assert_eq!(tick(&mut world, starts_at.0), TIMERS_A_TICK_MAX);
    assert_eq!(begun(&world).last(), Some(&(0, starts_at.0)), "it comes before what has been due longer");
    assert_eq!(tick(&mut world, starts_at.0), 1);
}

#[test]
fn a_tick_begins_steps_for_so_many_recipients_and_one_ding_more() {
    let mut world = World::new();
    let everybody: Vec<_> = (0..10_000).map(|number| world.user_alone(&std::format!("user-{number}"))).collect();
    let robot = world.service("robot");
    for key in 0..4 {
        send(&mut world, robot, ding(key, &everybody), nagging());
    }
    let a_tick = RECIPIENTS_A_TICK_MAX / everybody.len();
    assert_eq!((tick(&mut world, 11_000), tick(&mut world, 11_000)), (a_tick, 4 - a_tick));
    assert_eq!(tick(&mut world, 11_000), 0);
}
