//! DINGs, a file a topic, and what these share.

use super::*;
use crate::effect::{Call, CallKey, Reported, Verb};
use crate::input::{Audience, CallResult, DingReceipt, DingTerms, OutletReport, OutletResult, QuietWindow, Refused};
use crate::record::PlannedStep;
use carillon_protocol::ding::{DingConfirm, DingCreate, DingPush, DingRecall, DingRemind};
use carillon_protocol::ding_status::{
    DingAttempt, DingAttemptList, DingStatus, DingStatusReply, DingUpdate, STATES_ALL, USER_NONE,
};
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::DingId;
use carillon_protocol::kinds::{AttemptState, CancelState, DingState, Outlet, QuietHours};

mod lifecycle;
pub(in crate::tests) mod model;
mod outlets;
mod plan;
mod property;
mod rights;
pub(in crate::tests) mod state;
mod status;

/// A step that begins once.
pub(in crate::tests) const fn step(outlet: Outlet, after_ms: u32) -> PlannedStep {
    PlannedStep { outlet, heeds_quiet: 0, times: 1, after_ms, repeat_every_ms: 0 }
}

pub(in crate::tests) fn terms(steps: &[PlannedStep]) -> DingTerms {
    DingTerms { steps: steps.into(), quiet: QuietWindow::NONE, expires_after_ms: 60_000, audience: Audience::Tenant }
}

/// By the app, every 10 s until it expires after a minute.
pub(in crate::tests) fn nagging() -> DingTerms {
    terms(&[PlannedStep { times: 100, repeat_every_ms: 10_000, ..step(Outlet::APP, 0) }])
}

/// By the app, then a short message after 10 s, then a call after 20 s.
pub(in crate::tests) fn escalating() -> DingTerms {
    terms(&[step(Outlet::APP, 0), step(Outlet::SMS, 10_000), step(Outlet::PHONE, 20_000)])
}

pub(in crate::tests) fn ding(key: u64, recipients: &[Principal]) -> DingCreate {
    DingCreate {
        request: 9,
        key,
        target: Target::USERS,
        target_id: 0,
        starts_at: Timestamp(0),
        expires_after_ms: 0,
        quiet: QuietHours::HEED,
        kind: MessageKind::TEXT,
        conversation: ConversationId(0),
        seq: Seq(0),
        recipients: recipients.iter().map(|recipient| recipient.user).collect(),
        steps: Vec::new(),
        payload: Bytes::from_static(b"fire"),
    }
}

fn ask(world: &mut World, who: Principal, create: DingCreate, terms: DingTerms) -> Frame {
    world.request(who, Request::DingCreate(create, Ok(terms)))
}

/// Sends a DING that must be accepted.
pub(in crate::tests) fn send(world: &mut World, who: Principal, create: DingCreate, terms: DingTerms) -> DingId {
    frame!(DingCreated, ask(world, who, create, terms)).ding
}

fn refused(world: &mut World, who: Principal, create: DingCreate, terms: DingTerms) -> ErrorCode {
    code(ask(world, who, create, terms))
}

fn confirm(world: &mut World, who: Principal, ding: DingId) -> Frame {
    world.request(who, Request::DingConfirm(DingConfirm { request: 9, ding }))
}

fn recall(world: &mut World, who: Principal, ding: DingId) -> Frame {
    world.request(who, Request::DingRecall(DingRecall { request: 9, ding }))
}

fn remind(world: &mut World, who: Principal, ding: DingId, outlet: Outlet) -> Frame {
    world.request(who, Request::DingRemind(DingRemind { request: 9, ding, outlet }, Ok(())))
}

fn status_of(world: &mut World, who: Principal, ding: DingId, states: u16) -> Frame {
    let (request, from, limit) = (9, UserId(0), 100);
    world.request(who, Request::DingStatus(DingStatus { request, ding, states, from, limit }))
}

fn status(world: &mut World, who: Principal, ding: DingId) -> DingStatusReply {
    frame!(DingStatusReply, status_of(world, who, ding, STATES_ALL))
}

fn attempts(world: &mut World, who: Principal, ding: DingId, user: UserId) -> Vec<DingAttempt> {
    let list = DingAttemptList { request: 9, ding, user };
    frame!(DingAttempts, world.request(who, Request::DingAttemptList(list))).entries
}

fn received(world: &mut World, who: Principal, ding: DingId) {
    let receipt = DingReceipt { tenant: who.tenant, user: who.user, ding };
    assert_eq!(world.handle(Input::DingsReceived(Vec::from([receipt]))), None);
}

fn result(key: CallKey, result: CallResult) -> OutletResult {
    OutletResult { key, result, detail: 0 }
}

fn results(world: &mut World, results: &[OutletResult]) -> usize {
    let before = world.records.len();
    assert_eq!(world.handle(Input::OutletResults(results.into())), None);
    world.records.len() - before
}

/// An attempt has come so far.
fn came_to(world: &mut World, key: CallKey, state: AttemptState) -> usize {
    results(world, &[result(key, CallResult::Attempt(state))])
}

fn report(world: &mut World, outlet: Outlet, key: CallKey, state: AttemptState) -> Reported {
    match world.handle(Input::OutletReport(OutletReport { outlet, key, state })) {
        Some(Reply::Reported(reported)) => reported,
        other => panic!("{other:?}"),
    }
}

/// Records made by a tick at this time.
pub(in crate::tests) fn tick(world: &mut World, now: u64) -> usize {
    world.now = Timestamp(now);
    let before = world.records.len();
    assert_eq!(world.handle(Input::Tick), None);
    world.records.len() - before
}

/// What an outlet gets.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::tests) enum Next {
    /// Without a call.
    Moot(CallKey),
    Call(Call),
}

/// What is next for an outlet that has room for everything.
pub(in crate::tests) fn next(shard: &mut Shard, outlet: Outlet) -> Option<Next> {
    if let Some(key) = shard.next_moot(outlet) {
        return Some(Next::Moot(key));
    }
    shard.next_call(outlet, Verb::Cancel).or_else(|| shard.next_call(outlet, Verb::Start)).map(Next::Call)
}

/// The calls of an outlet, all of them.
fn calls(world: &mut World, outlet: Outlet) -> Vec<Next> {
    core::iter::from_fn(|| next(&mut world.shard, outlet)).collect()
}

/// The one call of an outlet.
fn call(world: &mut World, outlet: Outlet) -> Call {
    match &calls(world, outlet)[..] {
        [Next::Call(call)] => call.clone(),
        other => panic!("{other:?}"),
    }
}

/// The users and the frame of the last signal for the urgent lane.
fn urgent(world: &World) -> (Vec<UserId>, RawFrame) {
    let signals = world.signals.iter().rev();
    let mut urgent = signals.filter_map(|signal| match signal {
        Signal::Urgent { users, frame, .. } => Some((users.clone(), RawFrame::new(frame.clone()).unwrap())),
        _ => None,
    });
    urgent.next().expect("something was urgent")
}
