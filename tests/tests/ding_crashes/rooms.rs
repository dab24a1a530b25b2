//! An outlet that has room for two starts and two cancels, and a gateway that is ill: what waits is held up by nothing that it need
//! not wait for, over every crash.

use carillon::journal::Loss;
use carillon_core::effect::{CallKey, Verb};
use carillon_protocol::Frame;
use carillon_protocol::ding::{DingConfirm, DingRecall};
use carillon_protocol::ding_status::DingAttemptList;
use carillon_protocol::ids::{DingId, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};
use carillon_tests::outlets::Seen;

use super::world::{Fate, SENDER, World};
use super::{Request, create_to, losses, read, step};

const ROOMS: usize = 2;

fn users(numbers: impl IntoIterator<Item = u32>) -> Vec<UserId> {
    numbers.into_iter().map(UserId).collect()
}

/// A DING whose short message goes out at once.
fn send(world: &mut World, key: u64, recipients: Vec<UserId>) -> DingId {
    let steps = vec![step(Outlet::APP, 0, 0, 1), step(Outlet::SMS, 0, 0, 1)];
    match world.ask(SENDER, &create_to(key, recipients, steps)) {
        Frame::DingCreated(created) => created.ding,
        other => panic!("{other:?}"),
    }
}

fn confirm(world: &mut World, user: u32, ding: DingId) {
    let reply = world.ask(UserId(user), &Request::DingConfirm(DingConfirm { request: 1, ding }));
    assert!(matches!(reply, Frame::DingConfirmed(_)), "{reply:?}");
}

/// The key of its short message.
fn key(ding: DingId, user: u32) -> CallKey {
    CallKey { ding, user: UserId(user), attempt: 1 }
}

/// Lets the sequencer work; should it die, the next one too.
fn settle(world: &mut World) {
    for _ in 0..3 {
        world.run();
    }
}

/// Lets the gateway try what it has so often; what it saw meanwhile.
fn work(world: &mut World, times: usize) -> Vec<(Verb, CallKey)> {
    let before = world.gateway.lock().seen.len();
    for _ in 0..times {
        settle(world);
        world.gateway.lock().try_all();
    }
    settle(world);
    let called = |seen: &Seen| match seen {
        Seen::Called(verb, key, _) => Some((*verb, *key)),
        Seen::Confirmed | Seen::Recalled => None,
    };
    world.gateway.lock().seen[before..].iter().filter_map(called).collect()
}

fn narrow(fate: Fate, loss: Loss) -> World {
    let world = World::new(fate, loss);
    world.gateway.lock().rooms = Some(ROOMS);
    world
}

fn last_attempt(world: &mut World, ding: DingId, user: u32) -> (AttemptState, CancelState) {
    let list = DingAttemptList { request: 1, ding, user: UserId(user) };
    match world.ask(SENDER, &Request::DingAttemptList(list)) {
        Frame::DingAttempts(list) => list.entries.last().map(|last| (last.state, last.cancel)).expect("it has begun"),
        other => panic!("{other:?}"),
    }
}

/// Cancels are not taken, and then starts neither; returns how often the process died.
fn trouble(fate: Fate, loss: Loss) -> usize {
    let scenario = format!("{fate:?}, {loss:?}");
    let mut world = narrow(fate, loss);
    let first = send(&mut world, 1, users(1..=5));
    work(&mut world, 6);
    world.gateway.lock().ill = vec![Verb::Cancel];
    (1..=4).for_each(|user| confirm(&mut world, user, first));
    work(&mut world, 1);

    // Two cancels take up all the room for cancels, and others wait: starts have room of their own.
    let second = send(&mut world, 2, users([4, 5]));
    let seen = work(&mut world, 3);
    for user in [4, 5] {
        assert!(seen.contains(&(Verb::Start, key(second, user))), "{scenario}: a start waits behind cancels");
    }

    // One whose start is tried again and again confirms: its cancel finds no room, and yet it is not tried any more.
    world.gateway.lock().ill = vec![Verb::Cancel, Verb::Start];
    let third = send(&mut world, 3, users([4, 5]));
    assert!(work(&mut world, 2).contains(&(Verb::Start, key(third, 4))), "{scenario}");
    confirm(&mut world, 4, third);
    settle(&mut world);
    let seen = work(&mut world, 3);
    assert!(!seen.contains(&(Verb::Start, key(third, 4))), "{scenario}: started after a durable confirmation");
    assert!(seen.contains(&(Verb::Start, key(third, 5))), "{scenario}: the other one has not confirmed");

    // Recalled before there was room: nobody needs to be told of those that never were handed out.
    let fourth = send(&mut world, 4, users(1..=5));
    settle(&mut world);
    let reply = world.ask(SENDER, &Request::DingRecall(DingRecall { request: 1, ding: fourth }));
    assert!(matches!(reply, Frame::Done(_)), "{scenario}: {reply:?}");
    let seen = work(&mut world, 2);
    assert!(!seen.iter().any(|(verb, key)| *verb == Verb::Start && key.ding == fourth), "{scenario}: it was recalled");
    if world.deaths == 0 {
        let moot = (1..=5).filter(|user| last_attempt(&mut world, fourth, *user).1 == CancelState::DONE).count();
        assert_eq!(moot, 4, "one start had room, the others are settled without a call");
    }

    // When the gateway is well, everything comes to its end.
    world.gateway.lock().ill.clear();
    confirm(&mut world, 5, first);
    for ding in [second, third] {
        confirm(&mut world, 5, ding);
    }
    confirm(&mut world, 4, second);
    work(&mut world, 20);
    let (mut shard, _) = read(&scenario, &world);
    shard.resume();
    assert_eq!(shard.outlets_waiting(), [], "{scenario}: a call waits whose outcome is not recorded");
    world.deaths
}

#[test]
fn what_waits_for_no_room_of_its_own_is_held_up_by_nothing() {
    assert_eq!(trouble(Fate::Lives, Loss::Nothing), 0);
}

#[test]
fn nor_is_it_after_a_kill_anywhere() {
    let mut deaths = 0;
    for fates in [|at| Fate::AtDisk(at as u64), Fate::AfterStep] {
        for loss in losses() {
            deaths += (1..).map(|at| trouble(fates(at), loss)).take_while(|died| *died > 0).sum::<usize>();
        }
    }
    assert!(deaths > 100, "{deaths} deaths");
}

#[test]
fn a_small_ding_is_not_behind_a_large_one_also_after_a_kill() {
    for fate in [Fate::Lives, Fate::AfterStep(4)] {
        let mut world = narrow(fate, Loss::Nothing);
        let large = send(&mut world, 1, users(1..=5));
        settle(&mut world);
        let small = send(&mut world, 2, users([5]));
        let seen = work(&mut world, 5);
        let order: Vec<_> = seen.iter().map(|(_, key)| key.ding).collect();
        let nth = order.iter().position(|ding| *ding == small).expect("it is called");
        // Two of the large one were held before, and one has the same round.
        assert!(nth <= 3, "{fate:?}: {order:?}");
        assert_eq!(order.iter().filter(|ding| **ding == large).count(), 5, "{fate:?}");
    }
}
