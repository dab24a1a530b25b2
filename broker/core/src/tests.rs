//! Tests of the shard as a whole: one file a domain, all through one [`World`].

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use carillon_protocol::Frame;
use carillon_protocol::control::ConversationCreate;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{
    ConversationId, DeviceId, Position, ProducerId, Seq, ShardId, TenantId, Timestamp, UserId,
};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, MessageKind, PostPolicy, ReceiptPolicy, Target};
use carillon_protocol::publish::{Publish, Published};

use crate::Shard;
use crate::effect::{Attached, Effects, Reply, Signal};
use crate::input::{Attach, Authority, Input, Principal, Request};
use crate::record::Record;

mod attach;
mod conversation;
mod delivery;
mod ding;
mod members;
mod membership;
mod moved;
mod own;
mod publish;
mod random;
mod ranks;
mod receipt;
mod state;

/// The frame of one kind, or a panic that shows the other one.
macro_rules! frame {
    ($kind:ident, $frame:expr) => {
        match $frame {
            carillon_protocol::Frame::$kind(frame) => frame,
            other => panic!("wanted {}, got {other:?}", stringify!($kind)),
        }
    };
}
use frame;

pub(crate) const SHARD: ShardId = ShardId(3);
pub(crate) const PRODUCER: ProducerId = ProducerId(77);
pub(crate) const DEVICE: DeviceId = DeviceId(55);

/// A shard, its journal and what it told the edges. Each input is checked for what always holds.
pub(crate) struct World {
    pub(crate) shard: Shard,
    pub(crate) now: Timestamp,
    pub(crate) records: Vec<Record>,
    pub(crate) signals: Vec<Signal>,
    seqs: BTreeMap<ConversationId, Seq>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (records, signals) = (Vec::new(), Vec::new());
        Self { shard: Shard::new(SHARD), now: Timestamp(1_000), records, signals, seqs: BTreeMap::new() }
    }

    pub(crate) fn handle(&mut self, input: Input) -> Option<Reply> {
        let mut effects = Effects::default();
        let mut before = Vec::new();
        self.shard.encode_state(&mut before);
        self.shard.handle(self.now, input, &mut effects);
        if effects.records.is_empty() {
            let mut after = Vec::new();
            self.shard.encode_state(&mut after);
            assert!(before == after, "the state changed without a record");
        }
        for record in &effects.records {
            self.records.push(record.clone());
            if let Record::Message(message) = record {
                let deliver = &message.deliver;
                assert_eq!(deliver.position.0, self.records.len() as u64, "positions are gap-free");
                let last = self.seqs.entry(deliver.conversation).or_default();
                assert_eq!(deliver.seq, last.next(), "seqs are gap-free");
                *last = deliver.seq;
            }
        }
        assert_eq!(self.shard.head().0, self.records.len() as u64);
        self.signals.append(&mut effects.signals);
        effects.reply
    }

    /// Replays the journal through its bytes into a fresh shard, checks that it is the same, and goes on with it.
    pub(crate) fn restart(&mut self) {
        let mut shard = Shard::new(SHARD);
        let mut effects = Effects::default();
        for record in &self.records {
            let (mut private, mut frame) = (BytesMut::new(), BytesMut::new());
            record.encode(&mut private, &mut frame);
            let record = Record::decode(private.freeze(), frame.freeze()).unwrap();
            shard.apply(&record, &mut effects).unwrap();
        }
        shard.resume();
        assert_eq!(effects.signals, self.signals, "replay tells the edges the same");
        assert!(effects.records.is_empty() && effects.reply.is_none());
        let bytes = bytes_of(&shard);
        assert!(bytes == bytes_of(&self.shard), "replay gives the same state");
        assert_eq!(shard.next_timer(), self.shard.next_timer());
        let mut reloaded = Shard::decode_state(SHARD, &bytes).unwrap();
        reloaded.resume();
        assert_eq!(shard.dings.calls, reloaded.dings.calls, "replay and a snapshot hand out the same");
        let model = ding::model::Model::of(&self.records);
        model.check(&shard);
        model.check_calls(&mut reloaded);
        self.shard = shard;
    }

    /// As [`World::restart`], from a snapshot instead of the journal.
    pub(crate) fn reload(&mut self) {
        let bytes = bytes_of(&self.shard);
        let mut shard = Shard::decode_state(SHARD, &bytes).unwrap();
        shard.resume();
        assert!(bytes_of(&shard) == bytes, "a snapshot is read as it was written");
        assert_eq!(shard.next_timer(), self.shard.next_timer());
        assert_eq!((shard.head(), shard.last_time()), (self.shard.head(), self.shard.last_time()));
        self.shard = shard;
    }

    pub(crate) fn attach(&mut self, tenant: &str, handle: &str) -> Result<Attached, ErrorCode> {
        self.attach_as(tenant, handle, DEVICE, Some(PRODUCER))
    }

    pub(crate) fn attach_as(
        &mut self,
        tenant: &str,
        handle: &str,
        device: DeviceId,
        producer: Option<ProducerId>,
    ) -> Result<Attached, ErrorCode> {
        let (tenant, handle, authority) = (tenant.into(), handle.into(), Authority::User);
        match self.handle(Input::Attach(Attach { tenant, handle, authority, device, producer })) {
            Some(Reply::Attached(attached)) => Ok(attached),
            Some(Reply::AttachRefused { code, text }) => {
                assert!(text.contains(':'), "a refusal says what to do: {text}");
                Err(code)
            }
            other => panic!("{other:?}"),
        }
    }

    /// A user of the tenant "acme".
    pub(crate) fn user(&mut self, handle: &str) -> Principal {
        let Attached { tenant, user, .. } = self.attach("acme", handle).unwrap();
        Principal { tenant, user, authority: Authority::User }
    }

    /// As [`World::user`], without a look at the whole state: for tests of very many.
    pub(crate) fn user_alone(&mut self, handle: &str) -> Principal {
        let (tenant, handle, authority) = ("acme".into(), handle.into(), Authority::User);
        let attach = Attach { tenant, handle, authority, device: DEVICE, producer: None };
        let mut effects = Effects::default();
        self.shard.handle(self.now, Input::Attach(attach), &mut effects);
        self.records.append(&mut effects.records);
        self.signals.append(&mut effects.signals);
        match effects.reply {
            Some(Reply::Attached(Attached { tenant, user, .. })) => Principal { tenant, user, authority },
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn service(&mut self, handle: &str) -> Principal {
        Principal { authority: Authority::Service, ..self.user(handle) }
    }

    /// Makes users with handles "user-0", "user-1" and so on.
    pub(crate) fn users<const N: usize>(&mut self) -> [Principal; N] {
        core::array::from_fn(|number| self.user(&std::format!("user-{number}")))
    }

    pub(crate) fn request(&mut self, who: Principal, request: Request) -> Frame {
        match self.handle(Input::Request { who, request }) {
            Some(Reply::Frame(frame)) => frame,
            Some(Reply::ReadPage(page)) => page.reply.into(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, who: Principal, publish: Publish) -> Frame {
        self.publish_by(who, Some(PRODUCER), publish)
    }

    pub(crate) fn publish_by(&mut self, who: Principal, producer: Option<ProducerId>, publish: Publish) -> Frame {
        match self.handle(Input::Publish { who, producer, publish }) {
            Some(Reply::Frame(frame)) => frame,
            other => panic!("{other:?}"),
        }
    }

    /// Posts a message that must be accepted, under the producer's next number.
    pub(crate) fn post(&mut self, who: Principal, conversation: ConversationId) -> Published {
        let user = self.shard.directory.user(who.tenant, who.user).unwrap();
        let number = user.producer(PRODUCER).unwrap().highest() + 1;
        frame!(Published, self.publish(who, message(number, conversation)))
    }

    pub(crate) fn group(&mut self, owner: Principal, members: &[Principal]) -> ConversationId {
        let create = create(ConversationKind::GROUP, "", members);
        frame!(ConversationCreated, self.request(owner, Request::ConversationCreate(create))).conversation
    }

    /// The signals since the last call.
    pub(crate) fn signals_since(&self, count: usize) -> &[Signal] {
        &self.signals[count..]
    }
}

impl Shard {
    /// What the user has not read, by conversation: as `Conversations` tells it page by page.
    pub(crate) fn unread(&self, tenant: TenantId, user: UserId) -> impl Iterator<Item = (ConversationId, u64)> {
        let present = self.directory.user(tenant, user).map_or(&[][..], |user| &user.present);
        present.iter().map(move |&id| {
            (id, self.conversations.get(id).and_then(|found| found.unread(user)).expect("a present member"))
        })
    }
}

pub(crate) fn bytes_of(shard: &Shard) -> Vec<u8> {
    let mut bytes = Vec::new();
    shard.encode_state(&mut bytes);
    bytes
}

pub(crate) fn code(frame: Frame) -> ErrorCode {
    match frame {
        Frame::Error(error) => {
            assert!(!error.text.is_empty() && error.request == 9, "{error:?}");
            error.code
        }
        Frame::PublishRefused(refused) => {
            assert!(!refused.text.is_empty());
            refused.code
        }
        other => panic!("wanted a refusal, got {other:?}"),
    }
}

pub(crate) fn message(number: u64, conversation: ConversationId) -> Publish {
    Publish {
        number,
        low: number,
        target: Target::CONVERSATION,
        target_id: conversation.0,
        kind: MessageKind::TEXT,
        payload: Bytes::from_static(b"hello"),
    }
}

pub(crate) fn create(kind: ConversationKind, name: &str, members: &[Principal]) -> ConversationCreate {
    let members = members.iter().map(|member| member.user).collect();
    ConversationCreate {
        request: 9,
        kind,
        post_policy: PostPolicy(0),
        history: HistoryPolicy(0),
        receipts: ReceiptPolicy(0),
        name: name.into(),
        members,
    }
}

pub(crate) const NOWHERE: ConversationId = ConversationId::new(SHARD, 9_999);
pub(crate) const NOBODY: UserId = UserId(9_999);
pub(crate) const ELSEWHERE: TenantId = TenantId(9_999);
pub(crate) const FIRST: Position = Position(1);
