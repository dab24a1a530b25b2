//! What comes into the shard: one closed enum. Everything from a session is parsed and authenticated before it is an input.

use alloc::vec::Vec;

use carillon_protocol::control::{
    ConversationCreate, ConversationFind, ConversationList, Leave, MemberList, MembersAdd, MembersRemove, UserFind,
    UserLookup,
};
use carillon_protocol::ding::{DingConfirm, DingCreate, DingRecall, DingRemind};
use carillon_protocol::ding_status::{DingAttemptList, DingList, DingStatus, DingWatch};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{DeviceId, DingId, Position, ProducerId, TenantId, UserId};
use carillon_protocol::kinds::{AttemptState, CancelState, Outlet};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::{MarkRead, ReadStatus};
use carillon_protocol::session::Retire;

use crate::effect::CallKey;
use crate::record::PlannedStep;

/// What the token of a session lets it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// A person: what memberships and roles allow.
    User,
    /// A backend service of the tenant: may manage every conversation of the tenant and name users.
    Service,
    /// An administrator of the tenant: as a service.
    Admin,
}

impl Authority {
    /// Whether it reaches beyond its own memberships.
    pub const fn manages_tenant(self) -> bool {
        match self {
            Self::User => false,
            Self::Service | Self::Admin => true,
        }
    }
}

/// Who sends an input. The tenant comes from the session, never from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The session's tenant.
    pub tenant: TenantId,
    /// The session's user.
    pub user: UserId,
    /// What its token lets it do.
    pub authority: Authority,
}

/// A session that has authenticated and wants its view of the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The tenant's name, from the token.
    pub tenant: Text,
    /// The user's handle, from the token.
    pub handle: Text,
    /// What the token lets it do.
    pub authority: Authority,
    /// The device.
    pub device: DeviceId,
    /// The producer, if the session publishes.
    pub producer: Option<ProducerId>,
}

/// What the index says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Who wrote it.
    pub author: UserId,
    /// Where it lies.
    pub position: Position,
}

/// Hours of the day in which some steps do not begin, in minutes of the day in UTC; they may reach over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuietWindow {
    /// Inclusive, below 1,440.
    pub from_min: u16,
    /// Exclusive, below 1,440; as `from_min`: there are none.
    pub to_min: u16,
}

/// Whom a sender may send DINGs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every user of the tenant.
    Tenant,
    /// Who is in a conversation with the sender.
    Acquainted,
}

/// What a tenant's policy makes of a new DING. It rests on configuration, which the shard does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DingTerms {
    /// The plan: its own, or the tenant's.
    pub steps: Vec<PlannedStep>,
    /// The hours that hold up those of its steps that heed them.
    pub quiet: QuietWindow,
    /// From its start to when it gives up.
    pub expires_after_ms: u64,
    /// Whom it may go to.
    pub audience: Audience,
}

/// A request that configuration refuses, if it was not done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub code: ErrorCode,
    /// What to do about it.
    pub text: Text,
}

/// A request of a session on its control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Move a watermark.
    MarkRead(MarkRead),
    /// Who has read. The message is looked up in the index beforehand, `None` if there is no such message.
    ReadStatus(ReadStatus, Option<Written>),
    /// A new DING, and what the tenant's policy makes of it.
    DingCreate(DingCreate, Result<DingTerms, Refused>),
    /// A confirmation.
    DingConfirm(DingConfirm),
    /// Take a DING back.
    DingRecall(DingRecall),
    /// Remind who has not confirmed, if the tenant's policy lets the sender.
    DingRemind(DingRemind, Result<(), Refused>),
    /// Where a DING stands.
    DingStatus(DingStatus),
    /// Every attempt to reach one recipient of a DING.
    DingAttemptList(DingAttemptList),
    /// The DINGs that the user sent.
    DingList(DingList),
    /// May the session be told of a DING's progress?
    DingWatch(DingWatch),
    /// A new group or channel.
    ConversationCreate(ConversationCreate),
    /// A conversation by name.
    ConversationFind(ConversationFind),
    /// The user's conversations.
    ConversationList(ConversationList),
    /// New members or roles.
    MembersAdd(MembersAdd),
    /// Members removed.
    MembersRemove(MembersRemove),
    /// Leave.
    Leave(Leave),
    /// The members.
    MemberList(MemberList),
    /// A user by handle.
    UserFind(UserFind),
    /// Handles by user.
    UserLookup(UserLookup),
    /// Give up a device or producer.
    Retire(Retire),
}

impl Request {
    /// The number the client chose, which the reply carries.
    pub const fn number(&self) -> u32 {
        match self {
            Self::MarkRead(request) => request.request,
            Self::ReadStatus(request, _) => request.request,
            Self::DingCreate(request, _) => request.request,
            Self::DingConfirm(request) => request.request,
            Self::DingRecall(request) => request.request,
            Self::DingRemind(request, _) => request.request,
            Self::DingStatus(request) => request.request,
            Self::DingAttemptList(request) => request.request,
            Self::DingList(request) => request.request,
            Self::DingWatch(request) => request.request,
            Self::ConversationCreate(request) => request.request,
            Self::ConversationFind(request) => request.request,
            Self::ConversationList(request) => request.request,
            Self::MembersAdd(request) => request.request,
            Self::MembersRemove(request) => request.request,
            Self::Leave(request) => request.request,
            Self::MemberList(request) => request.request,
            Self::UserFind(request) => request.request,
            Self::UserLookup(request) => request.request,
            Self::Retire(request) => request.request,
        }
    }
}

/// How far a device has acknowledged: advisory, the client's own copy is the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMove {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Up to here.
    pub position: Position,
}

/// A catch-up that leaves something out, before anything behind it is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedCatchUp {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The first position that the device has not had.
    pub from: Position,
    /// As of here.
    pub through: Position,
    /// The newest so many of each conversation are offered.
    pub newest: u32,
}

/// A device has a DING.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DingReceipt {
    /// The tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The DING.
    pub ding: DingId,
}

/// What became of a call that was handed to an outlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutletResult {
    /// Which.
    pub key: CallKey,
    /// What.
    pub result: CallResult,
    /// The HTTP status of a failure, or below 100 a reason of the broker's.
    pub detail: u16,
}

/// See [`OutletResult`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// An attempt has come so far.
    Attempt(AttemptState),
    /// The gateway was told, or could not be told, that the attempt is moot.
    Cancel(CancelState),
}

/// What an outlet says later of an attempt that it was handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutletReport {
    /// Whose signature it bears.
    pub outlet: Outlet,
    /// Which attempt.
    pub key: CallKey,
    /// `FAILED`, `DELIVERED` or `ANSWERED`.
    pub state: AttemptState,
}

/// One input. `handle` validates it and turns it into records, effects and at most one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A session attaches. Reply: `Attached` or `AttachRefused`.
    Attach(Attach),
    /// A message. Reply: `Published` or `PublishRefused`.
    Publish {
        /// Who.
        who: Principal,
        /// The session's producer.
        producer: Option<ProducerId>,
        /// The frame.
        publish: Publish,
    },
    /// A request. Reply: the frame that answers it, or `Error`.
    Request {
        /// Who.
        who: Principal,
        /// What.
        request: Request,
    },
    /// Cursors that moved since the last time. No reply.
    Cursors(Vec<CursorMove>),
    /// A device is not offered everything. Reply: `CatchUpNoted`.
    CatchUpBounded(BoundedCatchUp),
    /// Devices have DINGs, since the last time. No reply.
    DingsReceived(Vec<DingReceipt>),
    /// What became of calls, since the last time. No reply.
    OutletResults(Vec<OutletResult>),
    /// An outlet says what became of an attempt. Reply: `Reported`.
    OutletReport(OutletReport),
    /// Time has passed: fire what is due. No reply.
    Tick,
}
