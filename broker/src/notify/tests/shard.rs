//! The calls of `docs/DING.md` as a shard hands them out.

use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply};
use carillon_core::input::{Attach, Audience, Authority, DingTerms, Input, Principal, QuietWindow, Request};
use carillon_core::record::PlannedStep;
use carillon_protocol::Frame;
use carillon_protocol::control::ConversationCreate;
use carillon_protocol::ding::{DingConfirm, DingCreate};
use carillon_protocol::ids::{DeviceId, ProducerId, ShardId, TenantId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, QuietHours, ReceiptPolicy, Target};
use carillon_protocol::publish::Publish;

use super::*;

const BOB: UserId = UserId(0);
const ANN: UserId = UserId(7);
const DEVICE: DeviceId = DeviceId(1);
const PRODUCER: ProducerId = ProducerId(1);

/// 2026-11-27T20:00:00Z
const CREATED_MS: u64 = 1_795_809_600_000;

fn at(ms: u64) -> Timestamp {
    Timestamp(CREATED_MS + ms)
}

fn handle(shard: &mut Shard, now: Timestamp, input: Input) -> Option<Reply> {
    let mut effects = Effects::default();
    shard.handle(now, input, &mut effects);
    effects.reply.take()
}

fn ask(shard: &mut Shard, now: Timestamp, user: UserId, request: Request) -> Frame {
    let who = Principal { tenant: TenantId(0), user, authority: Authority::User };
    match handle(shard, now, Input::Request { who, request }) {
        Some(Reply::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

/// Bob, ann and six others, and the ninth message of the 42nd conversation.
fn peopled() -> Shard {
    let mut shard = Shard::new(ShardId(0));
    for handle_of in ["bob", "u1", "u2", "u3", "u4", "u5", "u6", "ann"] {
        let (tenant, handle_of) = ("acme".into(), handle_of.into());
        let authority = Authority::User;
        let attach = Attach { tenant, handle: handle_of, authority, device: DEVICE, producer: Some(PRODUCER) };
        assert!(matches!(handle(&mut shard, at(0), Input::Attach(attach)), Some(Reply::Attached(_))));
    }
    loop {
        let create = ConversationCreate {
            request: 1,
            kind: ConversationKind::GROUP,
            post_policy: PostPolicy(0),
            history: HistoryPolicy(0),
            receipts: ReceiptPolicy(0),
            name: "".into(),
            members: vec![ANN],
        };
        match ask(&mut shard, at(0), BOB, Request::ConversationCreate(create)) {
            Frame::ConversationCreated(created) if created.conversation == ConversationId(42) => break,
            Frame::ConversationCreated(created) => assert!(created.conversation < ConversationId(42)),
            other => panic!("{other:?}"),
        }
    }
    for number in 1..=9 {
        let (target, kind, payload) = (Target::CONVERSATION, MessageKind::TEXT, Bytes::from_static(b"look"));
        let publish = Publish { number, low: number, target, target_id: 42, kind, payload };
        let who = Principal { tenant: TenantId(0), user: BOB, authority: Authority::User };
        let reply = handle(&mut shard, at(0), Input::Publish { who, producer: Some(PRODUCER), publish });
        assert!(matches!(reply, Some(Reply::Frame(Frame::Published(_)))), "{reply:?}");
    }
    shard
}

/// A short message that begins a minute after the app, and its cancel when ann confirms.
pub(super) fn documented() -> [Call; 2] {
    let mut shard = peopled();
    let create = DingCreate {
        request: 1,
        key: 1,
        target: Target::USERS,
        target_id: 0,
        starts_at: Timestamp(0),
        expires_after_ms: 0,
        quiet: QuietHours::HEED,
        kind: MessageKind::TEXT,
        conversation: ConversationId(42),
        seq: Seq(9),
        recipients: vec![ANN],
        steps: Vec::new(),
        payload: Bytes::from_static("Fire in hall 3 🔔".as_bytes()),
    };
    let step = |outlet, times, after_ms, repeat_every_ms| PlannedStep {
        outlet,
        heeds_quiet: 0,
        times,
        after_ms,
        repeat_every_ms,
    };
    let steps = vec![step(OutletId::APP, 2, 0, 30_000), step(OutletId::SMS, 1, 60_000, 0)];
    let (quiet, expires_after_ms, audience) = (QuietWindow::NONE, 3_600_000, Audience::Tenant);
    let terms = DingTerms { steps, quiet, expires_after_ms, audience };
    let Frame::DingCreated(created) = ask(&mut shard, at(0), BOB, Request::DingCreate(create, Ok(terms))) else {
        panic!("a DING to ann is refused")
    };
    for ms in [30_000, 60_000] {
        handle(&mut shard, at(ms), Input::Tick);
    }
    let started = shard.next_call(OutletId::SMS, Verb::Start).expect("the short message has begun");
    let confirm = Request::DingConfirm(DingConfirm { request: 1, ding: created.ding });
    assert!(matches!(ask(&mut shard, at(85_250), ANN, confirm), Frame::DingConfirmed(_)));
    let cancelled = shard.next_call(OutletId::SMS, Verb::Cancel).expect("it is moot");
    [started, cancelled]
}
