//! How DINGs stand, to their senders: states, counts, pages, attempts, and what is told live.

use super::*;
use carillon_protocol::ding_status::{DingList, DingProgress, DingWatch, STATES_UNCONFIRMED, STEP_REMINDER, state_bit};

fn progress(world: &World) -> DingProgress {
    let mut told = world.signals.iter().rev().filter_map(|signal| match signal {
        Signal::Ding { progress, .. } => Some(progress.clone()),
        _ => None,
    });
    told.next().expect("a DING has moved")
}

#[test]
fn each_recipient_has_its_own_state_and_times() {
    let mut world = World::new();
    let [ann, bob, eve, joe, zoe] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve, joe, zoe]), escalating());
    let states = |world: &mut World| {
        let reply = status(world, ann, id);
        assert_eq!(progress(world).delivered, reply.delivered, "what is told live is what is answered");
        assert_eq!(progress(world).confirmed, reply.confirmed);
        assert_eq!(progress(world).failed, reply.failed);
        reply.entries.iter().map(|entry| entry.state).collect::<Vec<_>>()
    };
    assert_eq!(states(&mut world), [DingState::SENT; 4]);
    world.now = Timestamp(2_000);
    received(&mut world, bob, id);
    received(&mut world, eve, id);
    world.now = Timestamp(3_000);
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    use DingState as S;
    assert_eq!(states(&mut world), [S::CONFIRMED, S::DELIVERED, S::SENT, S::SENT]);
    tick(&mut world, 11_000);
    let key = |user: Principal| CallKey { ding: id, user: user.user, attempt: 1 };
    came_to(&mut world, key(joe), AttemptState::ACCEPTED);
    came_to(&mut world, key(zoe), AttemptState::FAILED);
    assert_eq!(states(&mut world), [S::CONFIRMED, S::DELIVERED, S::SENT, S::SENT]);
    world.reload();
    tick(&mut world, 61_000);
    assert_eq!(states(&mut world), [S::CONFIRMED, S::EXPIRED, S::EXPIRED, S::FAILED]);
    world.reload();
    world.restart();
    let reply = status(&mut world, ann, id);
    let times = |entry: usize| (reply.entries[entry].delivered_at.0, reply.entries[entry].confirmed_at.0);
    assert_eq!([times(0), times(1), times(2)], [(2_000, 3_000), (2_000, 0), (0, 0)]);
    assert_eq!([reply.entries[0].via, reply.entries[1].via], [Outlet::APP, Outlet(0)]);
    assert_eq!((reply.state, reply.sent_at, reply.ended_at), (S::EXPIRED, Timestamp(1_000), Timestamp(61_000)));
    assert_eq!((reply.next_step_at, reply.attempts, reply.steps.len()), (Timestamp(0), 2, 3));
    assert_eq!(world.shard.dings_by_state(), crate::DingCounts { expired: 1, ..Default::default() });
}

#[test]
fn a_status_is_given_in_pages_of_the_states_wanted() {
    let mut world = World::new();
    let [ann, bob, eve, joe, zoe] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve, joe, zoe]), nagging());
    frame!(DingConfirmed, confirm(&mut world, eve, id));
    let mut page = |states, from, limit| {
        let request = DingStatus { request: 9, ding: id, states, from, limit };
        let reply = frame!(DingStatusReply, world.request(ann, Request::DingStatus(request)));
        (reply.entries.iter().map(|entry| entry.user).collect::<Vec<_>>(), reply.next)
    };
    let (first, last) = (UserId(0), UserId(u32::MAX));
    assert_eq!(page(0, first, 10), (Vec::new(), last));
    assert_eq!(page(STATES_UNCONFIRMED, first, 2), (Vec::from([bob.user, joe.user]), zoe.user));
    assert_eq!(page(STATES_UNCONFIRMED, zoe.user, 2), (Vec::from([zoe.user]), last));
    assert_eq!(page(STATES_UNCONFIRMED, first, 0), (Vec::from([bob.user]), joe.user), "at least one");
    assert_eq!(page(state_bit(DingState::CONFIRMED), first, 2), (Vec::from([eve.user]), last));
    assert_eq!(page(state_bit(DingState::FAILED), first, 2), (Vec::new(), last));
    assert_eq!(page(STATES_ALL, last, u16::MAX), (Vec::new(), last));
}

#[test]
fn the_attempts_of_a_recipient_are_those_that_began_before_it_confirmed() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob, eve]), escalating());
    tick(&mut world, 11_000);
    frame!(DingReminded, remind(&mut world, ann, id, Outlet::APP));
    frame!(DingConfirmed, confirm(&mut world, bob, id));
    // In the same millisecond, and yet after it.
    frame!(DingReminded, remind(&mut world, ann, id, Outlet::APP));
    frame!(DingReminded, remind(&mut world, ann, id, Outlet::SMS));
    world.reload();
    world.restart();
    let all = attempts(&mut world, ann, id, eve.user);
    let brief: Vec<_> = all.iter().map(|entry| (entry.attempt, entry.step, entry.outlet)).collect();
    let reminder = |attempt, outlet| (attempt, STEP_REMINDER, outlet);
    let expected = [
        (0, 0, Outlet::APP),
        (1, 1, Outlet::SMS),
        reminder(2, Outlet::APP),
        reminder(3, Outlet::APP),
        reminder(4, Outlet::SMS),
    ];
    assert_eq!(brief, expected);
    let first = attempts(&mut world, ann, id, bob.user);
    assert_eq!(first.iter().map(|entry| entry.attempt).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((first[1].state, first[1].cancel), (AttemptState::STARTED, CancelState::DUE));
}

#[test]
fn the_details_of_a_failure_are_kept() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]), escalating());
    tick(&mut world, 11_000);
    let key = CallKey { ding: id, user: bob.user, attempt: 1 };
    world.now = Timestamp(12_000);
    let failed = CallResult::Attempt(AttemptState::FAILED);
    assert_eq!(results(&mut world, &[OutletResult { detail: 503, ..result(key, failed) }]), 1);
    world.reload();
    let entry = attempts(&mut world, ann, id, bob.user)[1];
    let (state, cancel) = (AttemptState::FAILED, CancelState::NONE);
    let (step, outlet, started_at, time) = (1, Outlet::SMS, Timestamp(11_000), Timestamp(12_000));
    assert_eq!(entry, DingAttempt { attempt: 1, step, outlet, started_at, state, cancel, detail: 503, time });
}

#[test]
fn what_a_user_sent_is_listed_the_newest_first() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let ids = [1, 2, 3].map(|key| send(&mut world, ann, ding(key, &[bob]), nagging()));
    send(&mut world, bob, ding(1, &[ann]), nagging());
    frame!(Done, recall(&mut world, ann, ids[1]));
    let mut page = |before, limit| {
        let list = Request::DingList(DingList { request: 9, before, limit });
        let reply = frame!(Dings, world.request(ann, list));
        (reply.entries.iter().map(|entry| (entry.ding, entry.state)).collect::<Vec<_>>(), reply.next)
    };
    let (sent, recalled) = (DingState::SENT, DingState::RECALLED);
    assert_eq!(page(DingId(0), 2), (Vec::from([(ids[2], sent), (ids[1], recalled)]), ids[1]));
    assert_eq!(page(ids[1], 2), (Vec::from([(ids[0], sent)]), DingId(0)));
    assert_eq!(page(ids[0], 2), (Vec::new(), DingId(0)));
}

#[test]
fn a_watch_begins_with_how_the_ding_stands() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let id = send(&mut world, ann, ding(1, &[bob]), nagging());
    let told = progress(&world);
    let request = Request::DingWatch(DingWatch { request: 9, ding: id, on: 1 });
    let reply = world.handle(Input::Request { who: ann, request });
    let position = world.shard.head();
    assert_eq!(reply, Some(Reply::Watching { request: 9, progress: DingProgress { position, ..told } }));
}

#[test]
fn receipts_count_once_whatever_comes_twice() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let first = send(&mut world, ann, ding(1, &[bob, eve]), nagging());
    let second = send(&mut world, ann, ding(2, &[bob, eve]), nagging());
    let receipt = |who: Principal, ding| DingReceipt { tenant: who.tenant, user: who.user, ding };
    let foreign = DingReceipt { tenant: ELSEWHERE, ..receipt(bob, first) };
    let all = [receipt(eve, second), receipt(bob, first), receipt(eve, first), receipt(bob, first), foreign];
    let before = world.records.len();
    for _ in 0..2 {
        world.handle(Input::DingsReceived(all.into()));
        assert_eq!(world.records.len(), before + 1);
    }
    let delivered = [first, second].map(|id| status(&mut world, ann, id).delivered);
    assert_eq!(delivered, [2, 1]);
    let named = [foreign, receipt(ann, first), receipt(bob, DingId(0)), receipt(bob, DingId(u64::MAX))];
    world.handle(Input::DingsReceived(named.into()));
    assert_eq!(world.records.len(), before + 1);
    world.restart();
}

#[test]
fn many_receipts_take_several_records() {
    let mut world = World::new();
    let everybody: Vec<_> = (0..2_500).map(|number| world.user_alone(&std::format!("user-{number}"))).collect();
    let robot = world.service("robot");
    let id = send(&mut world, robot, ding(1, &everybody), nagging());
    let receipt = |who: &Principal| DingReceipt { tenant: who.tenant, user: who.user, ding: id };
    let before = world.records.len();
    world.handle(Input::DingsReceived(everybody.iter().map(receipt).collect()));
    assert_eq!(world.records.len(), before + everybody.len().div_ceil(crate::limits::DING_DELIVERIES_A_RECORD_MAX));
    assert_eq!(status(&mut world, robot, id).delivered, 2_500);
    world.restart();
}
