//! Random inputs about DINGs: plans of several steps and outlets, quiet hours, starts to come, references; receipts, reminders,
//! results and reports, mostly of what is there.

use super::*;
use crate::effect::CallKey;
use crate::input::{Audience, CallResult, DingReceipt, DingTerms, OutletReport, OutletResult, QuietWindow, Refused};
use crate::record::PlannedStep;
use crate::tests::ding::{step, terms};
use carillon_protocol::ding::{DingConfirm, DingCreate, DingRecall, DingRemind};
use carillon_protocol::ding_status::{DingAttemptList, DingList, DingStatus, DingWatch};
use carillon_protocol::ids::DingId;
use carillon_protocol::kinds::{AttemptState, CancelState, QuietHours};

/// What is 20 or above.
pub(super) fn input((what, a, b, c): Step, mut who: Principal, shard: &Shard) -> Input {
    let request = 9;
    let mut ding = DingId::new(SHARD, u64::from(b % 32));
    // One of the newest, mostly.
    if let Some((newest, found)) = shard.dings.by_id.iter().rev().nth(usize::from(b % 3)).filter(|_| c < 220) {
        ding = *newest;
        who.tenant = if what > 21 { found.tenant } else { who.tenant };
    }
    let request = match what {
        20 | 21 => Request::DingCreate(create(b, c, shard), conditions(a, b, c)),
        22 => Request::DingConfirm(DingConfirm { request, ding }),
        23 if c & 1 == 0 => Request::DingRecall(DingRecall { request, ding }),
        23 => query(b, c, ding),
        24 => {
            let allowed = if c > 250 { Err(refused()) } else { Ok(()) };
            Request::DingRemind(DingRemind { request, ding, outlet: Outlet(b % 4) }, allowed)
        }
        25 => {
            let receipt = |user| DingReceipt { tenant: who.tenant, user, ding };
            return Input::DingsReceived(users(c).into_iter().chain([NOBODY]).map(receipt).collect());
        }
        26 => return Input::OutletResults(outlet_results(b, c, ding)),
        _ => {
            let key = CallKey { ding, user: user(c), attempt: u16::from(b % 8) };
            return Input::OutletReport(OutletReport { outlet: Outlet(1 + b % 3), key, state: AttemptState(c % 7) });
        }
    };
    Input::Request { who, request }
}

fn query(b: u8, c: u8, ding: DingId) -> Request {
    let (request, limit) = (9, u16::from(c % 4));
    match b % 4 {
        0 => Request::DingStatus(DingStatus { request, ding, states: u16::from(c), from: UserId(0), limit }),
        1 => Request::DingAttemptList(DingAttemptList { request, ding, user: UserId(u32::from(c % USERS)) }),
        2 => Request::DingList(DingList { request, before: if c & 1 == 0 { ding } else { DingId(0) }, limit }),
        _ => Request::DingWatch(DingWatch { request, ding, on: 1 }),
    }
}

/// Some of two attempts for one user, so that one may come twice.
fn outlet_results(b: u8, c: u8, ding: DingId) -> Vec<OutletResult> {
    let key = |attempt: u8| CallKey { ding, user: UserId(u32::from(c % USERS)), attempt: u16::from(attempt % 8) };
    let attempt = |attempt, state: u8| OutletResult {
        key: key(attempt),
        result: CallResult::Attempt(AttemptState(state % 7)),
        detail: u16::from(c),
    };
    let cancel = OutletResult { key: key(b), result: CallResult::Cancel(CancelState(c % 5)), detail: u16::from(b) };
    Vec::from([attempt(b, c), cancel, attempt(b / 8, c / 7), attempt(b, c / 2)])
}

fn refused() -> Refused {
    Refused { code: ErrorCode::LIMIT_REACHED, text: "too often: wait".into() }
}

fn create(b: u8, c: u8, shard: &Shard) -> DingCreate {
    let starts_in = if b & 6 == 2 { u64::from(c) * 1_000 } else { 0 };
    let refers = b & 24 == 8;
    DingCreate {
        request: 9,
        key: u64::from(c % 5),
        target: if b & 1 == 0 { Target::USERS } else { Target::CONVERSATION },
        target_id: conversation(b).0,
        starts_at: Timestamp(shard.last_time().0 + starts_in),
        expires_after_ms: 0,
        quiet: QuietHours::HEED,
        kind: MessageKind::TEXT,
        conversation: if refers { conversation(b) } else { ConversationId(0) },
        seq: Seq(u64::from(refers)),
        recipients: users(c),
        steps: Vec::new(),
        payload: Bytes::from_static(b"now"),
    }
}

/// Up to three steps by as many outlets, and one by the app; some cannot be.
fn conditions(a: u8, b: u8, c: u8) -> Result<DingTerms, Refused> {
    if a > 250 {
        return Err(refused());
    }
    let some = (0..b % 4).map(|nth| PlannedStep {
        heeds_quiet: c >> nth & 1,
        times: u16::from(a >> nth & 3),
        repeat_every_ms: 1_000 * u32::from(c % 4),
        ..step(Outlet(1 + (b % 3 + nth) % 3), u32::from(c) * 40)
    });
    let steps: Vec<_> = some.chain([step(Outlet::APP, u32::from(c % 2) * 500)]).collect();
    let quiet = QuietWindow { from_min: u16::from(a % 4) * 400, to_min: u16::from(b % 4) * 400 };
    let audience = if a & 8 == 0 { Audience::Tenant } else { Audience::Acquainted };
    Ok(DingTerms { quiet, expires_after_ms: u64::from(c) * 1_000, audience, ..terms(&steps) })
}
