//! Marks and read statuses.

use super::*;
use crate::conversation::{Conversation, Policies};
use crate::effect::Moment;
use crate::input::Written;
use crate::limits::{MEMBERS_A_PAGE_SCANNED_MAX, STINTS_MAX, STINTS_SCANNED_MAX};
use crate::members::Members;
use crate::membership::{Membership, Stint};
use crate::moved::MarkOrder;
use crate::ranks::Ranks;
use crate::receipt::Page;
use carillon_protocol::control::{ConversationList, Leave, MemberList, MembersAdd, MembersRemove};
use carillon_protocol::kinds::{Role, StatusList};
use carillon_protocol::receipt::{MarkRead, ReadStatus};
use proptest::prelude::*;

/// What is kept to count from says what a look at every member says, of every message and whoever wrote it.
pub(crate) fn check_ranks(conversation: &Conversation) {
    let stints = || conversation.members.iter().flat_map(|(_, member)| member.stints());
    let Some(ranks) = &conversation.ranks else {
        assert!(stints().count() <= STINTS_SCANNED_MAX, "so many stints are looked at one by one");
        return;
    };
    assert!(stints().count() > STINTS_SCANNED_MAX, "so few stints are kept ordered");
    [&ranks.joined, &ranks.watermarks, &ranks.left].into_iter().for_each(Ranks::check);
    assert_eq!([ranks.joined.len(), ranks.watermarks.len()], [stints().count() as u64; 2]);
    assert_eq!(ranks.marks, MarkOrder::of(&conversation.members, stints().count() as u64));
    assert_eq!(ranks.left.len(), stints().filter(|stint| stint.left().is_some()).count() as u64);
    let authors = conversation.members.iter().map(|(user, _)| user).take(3).chain([NOBODY]);
    for author in authors {
        for seq in (1..=conversation.last_seq.0).map(Seq) {
            let (counted, scanned) =
                (conversation.read_counts(seq, author), conversation.read_counts_scanned(seq, author));
            assert_eq!(counted, scanned, "{seq} of {author}");
        }
    }
}

fn mark(conversation: ConversationId, up_to: u64) -> Request {
    Request::MarkRead(MarkRead { request: 9, conversation, up_to: Seq(up_to) })
}

fn status(conversation: ConversationId, seq: u64, list: StatusList, author: Option<UserId>) -> Request {
    let status = ReadStatus { request: 9, conversation, seq: Seq(seq), list, from: UserId(0), limit: 2 };
    Request::ReadStatus(status, author.map(|author| Written { author, position: Position(1) }))
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

/// One group that users join, leave, read and write, many times over.
fn live(world: &mut World, group: ConversationId, owner: Principal, users: &[Principal], (what, a, b): (u8, u8, u8)) {
    let who = users[usize::from(a) % users.len()];
    let (request, conversation, members) = (9, group, Vec::from([who.user]));
    let last_seq = world.shard.conversations.get(group).unwrap().last_seq;
    match what {
        0 | 1 => _ = world.post(owner, group),
        2..=4 => {
            let add = MembersAdd { request, conversation, role: Role::MEMBER, members };
            world.request(owner, Request::MembersAdd(add));
        }
        5..=7 => _ = world.request(owner, Request::MembersRemove(MembersRemove { request, conversation, members })),
        _ => _ = world.request(who, mark(group, last_seq.0.saturating_sub(u64::from(b % 8)))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn counts_follow_every_change_of_the_stints(
        steps in proptest::collection::vec((0u8..12, any::<u8>(), any::<u8>()), 1..400),
        restless in 0usize..2 * STINTS_MAX,
    ) {
        let mut world = World::new();
        let [owner, a, b, c] = world.users();
        let group = world.group(owner, &[]);
        // Some begin when one user's stints are already as many as are kept.
        for _ in 0..restless {
            for what in [2, 0, 5] {
                live(&mut world, group, owner, &[a], (what, 0, 0));
            }
            check_ranks(world.shard.conversations.get(group).unwrap());
        }
        for (number, step) in steps.into_iter().enumerate() {
            live(&mut world, group, owner, &[a, b, c], step);
            if number % 32 == 31 {
                world.reload();
            }
            check_ranks(world.shard.conversations.get(group).unwrap());
        }
        world.restart();
        check_ranks(world.shard.conversations.get(group).unwrap());
    }
}

/// A group whose members are the first so many users, all of whom joined at the beginning and have read up to some seq.
fn group_of(members: u32, last_seq: u64, read_up_to: impl Fn(u32) -> u64) -> Conversation {
    let mut list = Members::default();
    for user in 0..members {
        let mut stint = Stint::begin(Seq(0), FIRST);
        stint.read_up_to = Seq(read_up_to(user));
        assert!(list.insert(UserId(user), Membership::new(Role::MEMBER, stint)));
    }
    let policies = Policies::of_kind(ConversationKind::GROUP);
    let mut group = Conversation::new(TenantId(0), ConversationKind::GROUP, policies, None, list);
    group.last_seq = Seq(last_seq);
    group
}

#[test]
fn a_page_looks_at_so_many_members_and_names_where_to_go_on() {
    let scanned = u32::try_from(MEMBERS_A_PAGE_SCANNED_MAX).unwrap();
    let members = 2 * scanned + 100;
    let late = members - 10;
    let group = group_of(members, 5, |user| if user < late { 5 } else { 4 });
    let seq = Seq(5);
    let check = |list, from, limit, expected: (core::ops::Range<u32>, u32)| {
        let (entries, next) = group.read_page(seq, UserId(3), Page { list, from: UserId(from), limit });
        let users: Vec<_> = entries.iter().map(|entry| entry.user.0).collect();
        assert_eq!((users, next.0), (expected.0.collect(), expected.1), "{list:?} from {from}");
    };
    // Nobody is found in two pages, and yet they are not the last.
    check(StatusList::OPEN, 0, 100, (0..0, scanned));
    check(StatusList::OPEN, scanned, 100, (0..0, 2 * scanned));
    check(StatusList::OPEN, 2 * scanned, 100, (late..members, u32::MAX));
    check(StatusList::OPEN, late - scanned + 4, 4, (late..late + 4, late + 4));
    check(StatusList::OPEN, late + 4, 6, (late + 4..members, u32::MAX));
    check(StatusList::DONE, 4, 3, (4..7, 7));
    check(StatusList::DONE, late - 1, 3, (late - 1..late, u32::MAX));
    check(StatusList::DONE, late, 3, (0..0, u32::MAX));
    check(StatusList::COUNTS, 0, 3, (0..0, u32::MAX));
    let (author, reader) = (UserId(3), UserId(members - 1));
    let counts = |author| group.read_counts(seq, author);
    assert_eq!((counts(author).read, counts(author).unread), (late - 1, 10));
    assert_eq!((counts(reader).read, counts(reader).unread), (late, 9));
    assert_eq!((counts(NOBODY), counts(author)), (counts(NOBODY), group.read_counts_scanned(seq, author)));
}

#[test]
fn who_is_forgotten_is_counted_no_longer() {
    let limit = u32::try_from(STINTS_SCANNED_MAX).unwrap();
    let mut group = group_of(limit + 3, 5, |user| u64::from(user % 6));
    let left = Moment { seq: Seq(5), position: Position(9) };
    for user in 0..limit {
        assert_eq!(group.members.update(UserId(user), |member| member.leave(left)), Some(true));
        group.rank_ended(left.seq);
        check_ranks(&group);
    }
    for user in 0..4 {
        assert_eq!(group.ranks.is_some(), user < 3);
        assert!(group.forget(UserId(user)).is_some() && group.forget(UserId(user)).is_none());
        check_ranks(&group);
    }
    assert_eq!(group.read_counts(Seq(3), NOBODY), group.read_counts_scanned(Seq(3), NOBODY));
}

#[test]
fn a_small_conversation_pays_one_pointer() {
    let conversation = group_of(u32::try_from(STINTS_SCANNED_MAX).unwrap(), 0, |_| 0);
    assert!(conversation.ranks.is_none());
    assert_eq!(size_of_val(&conversation.ranks), size_of::<usize>());
}

#[test]
fn what_is_told_of_who_has_read_is_the_conversations_policy() {
    let mut world = World::new();
    let [ann, bob, eve, stranger] = world.users();
    let robot = world.service("robot");
    let mut made = |kind, receipts| {
        let create = ConversationCreate { receipts, ..create(kind, "", &[bob, eve]) };
        let id = frame!(ConversationCreated, world.request(ann, Request::ConversationCreate(create))).conversation;
        world.post(ann, id);
        frame!(Marked, world.request(bob, mark(id, 1)));
        id
    };
    let (group, channel) = (ConversationKind::GROUP, ConversationKind::CHANNEL);
    let cases = [
        (made(group, ReceiptPolicy(0)), ReceiptPolicy::ON),
        (made(channel, ReceiptPolicy(0)), ReceiptPolicy::COUNTS),
        (made(channel, ReceiptPolicy::ON), ReceiptPolicy::ON),
        (made(group, ReceiptPolicy::COUNTS), ReceiptPolicy::COUNTS),
        (made(group, ReceiptPolicy::OFF), ReceiptPolicy::OFF),
    ];
    world.restart();
    world.reload();
    let told = |signal: &Signal| match signal {
        Signal::Read { conversation, receipts, .. } => Some((*conversation, *receipts)),
        _ => None,
    };
    assert_eq!(world.signals.iter().filter_map(told).collect::<Vec<_>>(), cases);
    for (id, receipts) in cases {
        let list = ConversationList { request: 9, from: id, limit: 1 };
        let listed = frame!(Conversations, world.request(bob, Request::ConversationList(list)));
        let entry = listed.entries[0];
        // Marks work under every policy.
        assert_eq!((entry.conversation, entry.receipts, entry.read_up_to), (id, receipts, Seq(1)));
        let (counts, names) = match receipts {
            ReceiptPolicy::ON => (true, true),
            ReceiptPolicy::COUNTS => (true, false),
            _ => (false, false),
        };
        // Neither the author nor a service is told more.
        for who in [ann, robot] {
            for (list, told) in [(StatusList::COUNTS, counts), (StatusList::DONE, names), (StatusList::OPEN, names)] {
                let reply = world.request(who, status(id, 1, list, Some(ann.user)));
                if told {
                    let reply = frame!(ReadStatusReply, reply);
                    assert_eq!((reply.read, reply.unread), (1, 1));
                } else {
                    assert_eq!(code(reply), ErrorCode::FORBIDDEN, "{receipts:?} {list:?}");
                }
            }
            let list = MemberList { request: 9, conversation: id, from: UserId(0), limit: 9 };
            let members = frame!(Members, world.request(who, Request::MemberList(list))).entries;
            let marked = members.iter().find(|entry| entry.user == bob.user).unwrap().read_up_to;
            assert_eq!(marked, Seq(u64::from(names)), "{receipts:?}");
        }
        let refused = code(world.request(stranger, status(id, 1, StatusList::COUNTS, Some(ann.user))));
        assert_eq!(refused, ErrorCode::NOT_FOUND, "a policy is not told to who may not know of the conversation");
        let list = MemberList { request: 9, conversation: id, from: bob.user, limit: 1 };
        let own = frame!(Members, world.request(bob, Request::MemberList(list))).entries[0];
        assert_eq!((own.user, own.read_up_to), (bob.user, Seq(1)), "one's own is told");
    }
}
