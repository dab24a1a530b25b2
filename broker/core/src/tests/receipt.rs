//! Marks and read statuses.

use super::*;
use carillon_protocol::control::{Leave, MembersAdd};
use carillon_protocol::kinds::{Role, StatusList};
use carillon_protocol::receipt::{MarkRead, ReadStatus};

fn mark(conversation: ConversationId, up_to: u64) -> Request {
    Request::MarkRead(MarkRead { request: 9, conversation, up_to: Seq(up_to) })
}

fn status(conversation: ConversationId, seq: u64, list: StatusList, author: Option<UserId>) -> Request {
    let status = ReadStatus { request: 9, conversation, seq: Seq(seq), list, from: UserId(0), limit: 2 };
    Request::ReadStatus(status, author)
}

#[test]
fn watermarks_only_move_forward_and_not_beyond_the_last_message() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob]);
    for _ in 0..3 {
        world.post(ann, group);
    }
    let mut check = |who, up_to, expected: Result<u64, ErrorCode>, records: usize| {
        let before = world.records.len();
        let frame = world.request(who, mark(group, up_to));
        match expected {
            Ok(seq) => assert_eq!(frame!(Marked, frame).read_up_to, Seq(seq)),
            Err(expected) => assert_eq!(code(frame), expected),
        }
        assert_eq!(world.records.len() - before, records);
    };
    check(bob, 2, Ok(2), 1);
    check(bob, 1, Ok(2), 0);
    check(bob, 2, Ok(2), 0);
    check(bob, 4, Err(ErrorCode::INVALID), 0);
    check(bob, u64::MAX, Err(ErrorCode::INVALID), 0);
    check(bob, 3, Ok(3), 1);
    check(eve, 1, Err(ErrorCode::NOT_FOUND), 0);
    assert_eq!(code(world.request(bob, mark(NOWHERE, 0))), ErrorCode::NOT_FOUND);
    let read = world.signals.iter().rev().find(|signal| matches!(signal, Signal::Read { .. })).unwrap();
    assert!(matches!(read, Signal::Read { from: Seq(2), up_to: Seq(3), members: 2, .. }), "{read:?}");
    world.restart();
}

#[test]
fn those_entitled_to_a_message_have_read_it_or_not() {
    let mut world = World::new();
    let [ann, bob, eve, dan, late, plain, stranger] = world.users();
    let group = world.group(ann, &[bob, eve, dan]);
    world.post(bob, group);
    frame!(Done, world.request(dan, Request::Leave(Leave { request: 9, conversation: group })));
    let members = Vec::from([late.user, dan.user]);
    let add = MembersAdd { request: 9, conversation: group, role: Role::ADMIN, members };
    frame!(Done, world.request(ann, Request::MembersAdd(add)));
    let members = Vec::from([plain.user]);
    let add = MembersAdd { request: 9, conversation: group, role: Role::MEMBER, members };
    frame!(Done, world.request(ann, Request::MembersAdd(add)));
    world.post(bob, group);
    frame!(Marked, world.request(eve, mark(group, 1)));
    frame!(Marked, world.request(dan, mark(group, 2)));
    world.restart();
    let author = Some(bob.user);
    let mut check = |who, seq, list, expected: (u32, u32, &[UserId], UserId)| {
        let reply = frame!(ReadStatusReply, world.request(who, status(group, seq, list, author)));
        let entries: Vec<_> = reply.entries.iter().map(|entry| entry.user).collect();
        assert_eq!((reply.read, reply.unread, &entries[..], reply.next), expected, "{seq} {list:?}");
    };
    let last = UserId(u32::MAX);
    // The author is in neither list; dan's later stint does not cover the first message, his mark there does not count.
    check(bob, 1, StatusList::DONE, (1, 2, &[eve.user], last));
    check(bob, 1, StatusList::OPEN, (1, 2, &[ann.user, dan.user], last));
    check(ann, 2, StatusList::DONE, (1, 4, &[dan.user], last));
    check(late, 2, StatusList::OPEN, (1, 4, &[ann.user, eve.user], late.user));
    check(late, 1, StatusList::COUNTS, (1, 2, &[], last));

    let mut refused = |who, request, expected| assert_eq!(code(world.request(who, request)), expected);
    refused(eve, status(group, 1, StatusList::COUNTS, author), ErrorCode::FORBIDDEN);
    refused(plain, status(group, 1, StatusList::COUNTS, author), ErrorCode::NOT_FOUND);
    refused(plain, status(group, 2, StatusList::COUNTS, author), ErrorCode::FORBIDDEN);
    refused(stranger, status(group, 1, StatusList::COUNTS, author), ErrorCode::NOT_FOUND);
    refused(stranger, status(NOWHERE, 1, StatusList::COUNTS, author), ErrorCode::NOT_FOUND);
    refused(ann, status(group, 0, StatusList::COUNTS, author), ErrorCode::NOT_FOUND);
    refused(ann, status(group, 3, StatusList::COUNTS, author), ErrorCode::NOT_FOUND);
    refused(ann, status(group, 1, StatusList::COUNTS, None), ErrorCode::NOT_FOUND);
    refused(ann, status(group, 1, StatusList(7), author), ErrorCode::INVALID);
}
