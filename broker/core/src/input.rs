//! What comes into the shard: one closed enum. Everything from a session is parsed and authenticated before it is an input.

use alloc::vec::Vec;

use carillon_protocol::control::{
    ConversationCreate, ConversationFind, ConversationList, Leave, MemberList, MembersAdd, MembersRemove, UserFind,
    UserLookup,
};
use carillon_protocol::ding::{DingConfirm, DingCreate, DingRecall, DingStatus};
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{DeviceId, Position, ProducerId, TenantId, UserId};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::{MarkRead, ReadStatus};
use carillon_protocol::session::Retire;

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

/// A request of a session on its control stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Move a watermark.
    MarkRead(MarkRead),
    /// Who has read. The message is looked up in the index beforehand, `None` if there is no such message.
    ReadStatus(ReadStatus, Option<Written>),
    /// A new DING.
    DingCreate(DingCreate),
    /// A confirmation.
    DingConfirm(DingConfirm),
    /// Where a DING stands.
    DingStatus(DingStatus),
    /// Take a DING back.
    DingRecall(DingRecall),
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
            Self::DingCreate(request) => request.request,
            Self::DingConfirm(request) => request.request,
            Self::DingStatus(request) => request.request,
            Self::DingRecall(request) => request.request,
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
    /// Time has passed: fire what is due. No reply.
    Tick,
}
