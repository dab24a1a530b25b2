//! A short life of a shard, for seeds: users, conversations, messages, marks and a DING, as the records that they left.

use bytes::{Bytes, BytesMut};
use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply, Verb};
use carillon_core::input::{
    Attach, Audience, Authority, BoundedCatchUp, CallResult, CursorMove, DingReceipt, DingTerms, Input, OutletResult,
    Principal, QuietWindow, Request,
};
use carillon_core::record::{PlannedStep, Record};
use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreate, Leave, MembersAdd};
use carillon_protocol::ding::{DingConfirm, DingCreate};
use carillon_protocol::ids::{
    ConversationId, DeviceId, DingId, Position, ProducerId, Seq, ShardId, TenantId, Timestamp, UserId,
};
use carillon_protocol::kinds::{
    AttemptState, ConversationKind, HistoryPolicy, MessageKind, Outlet, PostPolicy, QuietHours, ReceiptPolicy, Role,
    Target,
};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;

/// Whose life it is.
pub(crate) const SHARD: ShardId = ShardId(0);

const DEVICE: DeviceId = DeviceId(5);
const PRODUCER: ProducerId = ProducerId(9);

/// A shard and the records that made it.
pub(crate) struct Life {
    pub(crate) shard: Shard,
    pub(crate) records: Vec<Record>,
    now: Timestamp,
}

impl Life {
    /// Only tenant and users are there.
    pub(crate) fn young() -> Self {
        let mut life = Self { shard: Shard::new(SHARD), records: Vec::new(), now: Timestamp(1_000_000) };
        for handle in ["ann", "bob", "cyd"] {
            life.handle(Input::Attach(Attach {
                tenant: "acme".into(),
                handle: handle.into(),
                authority: Authority::Service,
                device: DEVICE,
                producer: Some(PRODUCER),
            }));
        }
        life
    }

    /// Everything has happened once.
    pub(crate) fn whole() -> Self {
        let mut life = Self::young();
        let group = life.group("ops");
        life.post(0, 1, group);
        life.post(1, 1, group);
        life.handle(Input::Publish { who: who(0), producer: Some(PRODUCER), publish: publish(2, Target::USER, 2) });
        life.request(1, Request::MarkRead(MarkRead { request: 1, conversation: group, up_to: Seq(1) }));
        let moved = CursorMove { tenant: TenantId(0), user: UserId(1), device: DEVICE, position: Position(9) };
        life.handle(Input::Cursors(vec![moved]));
        let (from, through) = (Position(1), Position(8));
        let (tenant, user, device) = (TenantId(0), UserId(2), DEVICE);
        life.handle(Input::CatchUpBounded(BoundedCatchUp { tenant, user, device, from, through, newest: 2 }));
        life.ding(group);
        life.request(2, Request::Leave(Leave { request: 1, conversation: group }));
        let members = vec![UserId(2)];
        life.request(
            0,
            Request::MembersAdd(MembersAdd { request: 1, conversation: group, role: Role::ADMIN, members }),
        );
        life
    }

    fn group(&mut self, name: &str) -> ConversationId {
        let reply = self.request(
            0,
            Request::ConversationCreate(ConversationCreate {
                request: 1,
                kind: ConversationKind::GROUP,
                post_policy: PostPolicy::MEMBERS,
                history: HistoryPolicy::FULL,
                receipts: ReceiptPolicy::ON,
                name: name.into(),
                members: vec![UserId(1), UserId(2)],
            }),
        );
        let Some(Reply::Frame(Frame::ConversationCreated(created))) = reply else { panic!("{reply:?}") };
        created.conversation
    }

    fn post(&mut self, user: u32, number: u64, to: ConversationId) {
        let publish = publish(number, Target::CONVERSATION, to.0);
        self.handle(Input::Publish { who: who(user), producer: Some(PRODUCER), publish });
    }

    /// A DING of two steps: one recipient has it and confirms, a gateway fails for the other.
    fn ding(&mut self, conversation: ConversationId) {
        let create = DingCreate {
            request: 1,
            key: 77,
            target: Target::USERS,
            target_id: 0,
            starts_at: Timestamp(0),
            expires_after_ms: 0,
            quiet: QuietHours::default(),
            kind: MessageKind::TEXT,
            conversation,
            seq: Seq(1),
            recipients: vec![UserId(1), UserId(2)],
            steps: Vec::new(),
            payload: Bytes::from_static(b"fire"),
        };
        let step =
            |outlet, after_ms| PlannedStep { outlet, heeds_quiet: 1, times: 2, after_ms, repeat_every_ms: 60_000 };
        let terms = DingTerms {
            steps: vec![step(Outlet::APP, 0), step(Outlet::SMS, 30_000)],
            quiet: QuietWindow { from_min: 10, to_min: 11 },
            expires_after_ms: 3_600_000,
            audience: Audience::Tenant,
        };
        self.request(0, Request::DingCreate(create, Ok(terms)));
        let ding = DingId::new(SHARD, 1);
        self.handle(Input::Tick);
        self.handle(Input::DingsReceived(vec![DingReceipt { tenant: TenantId(0), user: UserId(1), ding }]));
        self.now.0 += 31_000;
        self.handle(Input::Tick);
        while let Some(call) = self.shard.next_call(Outlet::SMS, Verb::Start) {
            let key = call.key;
            let result = CallResult::Attempt(AttemptState::FAILED);
            self.handle(Input::OutletResults(vec![OutletResult { key, result, detail: 503 }]));
        }
        self.request(1, Request::DingConfirm(DingConfirm { request: 2, ding }));
    }

    fn request(&mut self, user: u32, request: Request) -> Option<Reply> {
        self.handle(Input::Request { who: who(user), request })
    }

    fn handle(&mut self, input: Input) -> Option<Reply> {
        self.now.0 += 10;
        let mut effects = Effects::default();
        self.shard.handle(self.now, input, &mut effects);
        self.records.append(&mut effects.records);
        effects.reply
    }

    /// Records as they lie in a journal: private part and frame.
    pub(crate) fn encoded(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let encode = |record: &Record| {
            let (mut private, mut frame) = (BytesMut::new(), BytesMut::new());
            record.encode(&mut private, &mut frame);
            (private.to_vec(), frame.to_vec())
        };
        self.records.iter().map(encode).collect()
    }

    /// The canonical bytes of the state.
    pub(crate) fn state(&self) -> Vec<u8> {
        state_of(&self.shard)
    }
}

pub(crate) fn state_of(shard: &Shard) -> Vec<u8> {
    let mut state = Vec::new();
    shard.encode_state(&mut state);
    state
}

pub(crate) fn who(user: u32) -> Principal {
    Principal { tenant: TenantId(0), user: UserId(user), authority: Authority::Service }
}

fn publish(number: u64, target: Target, target_id: u64) -> Publish {
    let (low, kind, payload) = (1, MessageKind::TEXT, Bytes::from_static(b"hello"));
    Publish { number, low, target, target_id, kind, payload }
}
