//! Users and their group: made if they are not there, by the service.

use carillon_protocol::Frame;
use carillon_protocol::control::{ConversationCreate, ConversationFind, Leave, MembersAdd, UserFind};
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};
use carillon_protocol::limits::MEMBERS_A_REQUEST_MAX;

use super::{PUBLISHER, Run};
use crate::failure::Failure;
use crate::requests::{Reply, ask, ask_all};

/// All users, members of one group; the service is none, so that it gets no delivery.
pub(super) fn enlist(run: &mut Run<'_>) -> Result<ConversationId, Failure> {
    run.watch.begin("making the users");
    let users = find_users(run)?;
    run.watch.begin("making the group");
    let conversation = find_group(run)?;
    for members in users.chunks(MEMBERS_A_REQUEST_MAX) {
        let add =
            |request| MembersAdd { request, conversation, role: Role::MEMBER, members: members.to_vec() }.to_bytes();
        let reply = ask(&mut run.fleet, PUBLISHER, &mut run.watch, add)?;
        accepted(run, reply)?;
    }
    // The maker of a group is a member of it. A service may go on publishing into it.
    let leave = |request| Leave { request, conversation }.to_bytes();
    match ask(&mut run.fleet, PUBLISHER, &mut run.watch, leave)? {
        Err(Error { code: ErrorCode::NOT_FOUND, .. }) => {}
        reply => {
            accepted(run, reply)?;
        }
    }
    Ok(conversation)
}

fn find_users(run: &mut Run<'_>) -> Result<Vec<UserId>, Failure> {
    let handles: Vec<_> = (0..run.plan.sessions).map(|session| run.handle(session)).collect();
    let find =
        |index: usize, request| UserFind { request, create: 1, handle: handles[index].as_str().into() }.to_bytes();
    let replies = ask_all(&mut run.fleet, PUBLISHER, &mut run.watch, handles.len(), find)?;
    let found = replies.into_iter().map(|reply| match accepted(run, reply)? {
        Frame::UserFound(found) => Ok(found.user),
        other => Err(unexpected(run, &other)),
    });
    found.collect()
}

/// The group of this prefix and number of sessions.
fn find_group(run: &mut Run<'_>) -> Result<ConversationId, Failure> {
    let name = format!("{}/{}", run.plan.prefix, run.plan.sessions);
    let find = |request| ConversationFind { request, name: name.as_str().into() }.to_bytes();
    let create = |request| {
        let (kind, post_policy, members) = (ConversationKind::GROUP, PostPolicy(0), Vec::new());
        ConversationCreate {
            request,
            kind,
            post_policy,
            history: HistoryPolicy(0),
            receipts: ReceiptPolicy(0),
            name: name.as_str().into(),
            members,
        }
        .to_bytes()
    };
    let reply = match ask(&mut run.fleet, PUBLISHER, &mut run.watch, find)? {
        Err(Error { code: ErrorCode::NOT_FOUND, .. }) => ask(&mut run.fleet, PUBLISHER, &mut run.watch, create)?,
        found => found,
    };
    match accepted(run, reply)? {
        Frame::ConversationCreated(created) => Ok(created.conversation),
        other => Err(unexpected(run, &other)),
    }
}

fn accepted(run: &Run<'_>, reply: Reply) -> Result<Frame, Failure> {
    reply.map_err(|Error { code, text, .. }| {
        let why = format!("the broker refused a request: {code} ({text})");
        Failure::Broker { phase: run.watch.phase(), why }
    })
}

fn unexpected(run: &Run<'_>, frame: &Frame) -> Failure {
    Failure::Broker { phase: run.watch.phase(), why: format!("a request was answered by {}", frame.name()) }
}
