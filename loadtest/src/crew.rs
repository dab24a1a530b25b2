//! Users and their groups: made if they are not there, by a service.

use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreate, ConversationFind, Leave, MembersAdd, UserFind};
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};
use carillon_protocol::limits::MEMBERS_A_REQUEST_MAX;
use carillon_protocol::session::Cursor;

use crate::basis::Basis;
use crate::failure::Failure;
use crate::fleet::SessionIndex;
use crate::requests::{Reply, ask, ask_all};
use crate::rig::{Guest, Rig, cursor_at_head};
use crate::token;

/// The users of these handles.
pub(crate) fn find_users(rig: &mut Rig<'_>, service: SessionIndex, handles: &[String]) -> Result<Vec<UserId>, Failure> {
    rig.begin("making the users");
    let find =
        |index: usize, request| UserFind { request, create: 1, handle: handles[index].as_str().into() }.to_bytes();
    let replies = ask_all(rig, service, handles.len(), find)?;
    let found = replies.into_iter().map(|reply| match accepted(rig, reply)? {
        Frame::UserFound(found) => Ok(found.user),
        other => Err(unexpected(rig, &other)),
    });
    found.collect()
}

/// A service and its group of many users, none of whom has a session yet.
pub(crate) struct Gathered {
    /// The highest number of the service's producer.
    pub(crate) producer_highest: u64,
    pub(crate) handles: Vec<String>,
    /// Whose the handles are.
    pub(crate) users: Vec<UserId>,
    pub(crate) group: ConversationId,
    /// Where the journal is once they are members: their sessions miss nothing but what comes after this.
    pub(crate) cursor: Cursor,
}

/// Connects the service of a run, the first session of the fleet, and makes so many users and their group.
pub(crate) fn gather(rig: &mut Rig<'_>, basis: &Basis, count: u32) -> Result<Gathered, Failure> {
    rig.begin("connecting the service");
    let service = Guest { handle: &basis.service(), role: token::Role::Service, publishes: true, cursor: None };
    let (service, welcome) = rig.connect_one(&service)?;
    let handles = basis.users(count);
    let users = find_users(rig, service, &handles)?;
    let group = enlist(rig, service, &format!("{}/{count}", basis.prefix), &users)?;
    let cursor = head(rig, &basis.prefix)?;
    Ok(Gathered { producer_highest: welcome.producer_highest, handles, users, group, cursor })
}

/// A group for each of these handles, its user the only member: the groups' names are this with a slash and a number.
pub(crate) fn enlist_each(
    rig: &mut Rig<'_>,
    service: SessionIndex,
    name: &str,
    handles: &[String],
) -> Result<(Vec<ConversationId>, Vec<UserId>), Failure> {
    let users = find_users(rig, service, handles)?;
    let groups =
        users.iter().zip(0..).map(|(user, nth): (_, u32)| enlist(rig, service, &format!("{name}/{nth}"), &[*user]));
    Ok((groups.collect::<Result<_, _>>()?, users))
}

/// Where the journal is now, by one session more, which misses nothing but what comes after this.
pub(crate) fn head(rig: &mut Rig<'_>, prefix: &str) -> Result<Cursor, Failure> {
    let onlooker =
        Guest { handle: &format!("{prefix}-onlooker"), role: token::Role::Service, publishes: false, cursor: None };
    let (_, welcome) = rig.connect_one(&onlooker)?;
    Ok(cursor_at_head(&welcome))
}

/// The group of this name, with these users among its members; the service is none, so that it gets no delivery.
pub(crate) fn enlist(
    rig: &mut Rig<'_>,
    service: SessionIndex,
    name: &str,
    users: &[UserId],
) -> Result<ConversationId, Failure> {
    enlist_in(rig, service, (ConversationKind::GROUP, name), users)
}

/// The same for a conversation of any kind.
pub(crate) fn enlist_in(
    rig: &mut Rig<'_>,
    service: SessionIndex,
    (kind, name): (ConversationKind, &str),
    users: &[UserId],
) -> Result<ConversationId, Failure> {
    rig.begin("making the group");
    let conversation = find_conversation(rig, service, kind, name)?;
    let parts: Vec<_> = users.chunks(MEMBERS_A_REQUEST_MAX).collect();
    for (done, members) in parts.iter().enumerate() {
        let add =
            |request| MembersAdd { request, conversation, role: Role::MEMBER, members: members.to_vec() }.to_bytes();
        let reply = ask(rig, service, add)?;
        accepted(rig, reply)?;
        rig.tell_count(done * MEMBERS_A_REQUEST_MAX, users.len());
    }
    // The maker of a group is a member of it. A service may go on publishing into it.
    let leave = |request| Leave { request, conversation }.to_bytes();
    match ask(rig, service, leave)? {
        Err(Error { code: ErrorCode::NOT_FOUND, .. }) => {}
        reply => {
            accepted(rig, reply)?;
        }
    }
    Ok(conversation)
}

fn find_conversation(
    rig: &mut Rig<'_>,
    service: SessionIndex,
    kind: ConversationKind,
    name: &str,
) -> Result<ConversationId, Failure> {
    let find = |request| ConversationFind { request, name: name.into() }.to_bytes();
    let create = |request| {
        let (post_policy, members) = (PostPolicy(0), Vec::new());
        ConversationCreate {
            request,
            kind,
            post_policy,
            history: HistoryPolicy(0),
            receipts: ReceiptPolicy(0),
            name: name.into(),
            members,
        }
        .to_bytes()
    };
    let reply = match ask(rig, service, find)? {
        Err(Error { code: ErrorCode::NOT_FOUND, .. }) => ask(rig, service, create)?,
        found => found,
    };
    match accepted(rig, reply)? {
        Frame::ConversationCreated(created) => Ok(created.conversation),
        other => Err(unexpected(rig, &other)),
    }
}

/// The reply of a request that must not be refused.
pub(crate) fn accepted(rig: &Rig<'_>, reply: Reply) -> Result<Frame, Failure> {
    reply.map_err(|Error { code, text, .. }| rig.failed(format!("the broker refused a request: {code} ({text})")))
}

/// A reply of a kind that no broker gives.
pub(crate) fn unexpected(rig: &Rig<'_>, frame: &Frame) -> Failure {
    rig.failed(format!("a request was answered by {}", frame.name()))
}
