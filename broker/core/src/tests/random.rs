//! Random inputs of several tenants and users, against a model that knows only the records.

use super::ding::model;
use super::*;
use crate::input::{BoundedCatchUp, CursorMove, Written};
use crate::limits::STINTS_SCANNED_MAX;
use carillon_protocol::control::{
    ConversationFind, ConversationList, Leave, MemberList, MembersAdd, MembersRemove, UserFind, UserLookup,
};
use carillon_protocol::kinds::{Outlet, Retired, Role, StatusList};
use carillon_protocol::receipt::{MarkRead, ReadStatus};
use carillon_protocol::session::Retire;
use proptest::prelude::*;

mod dings;

/// One step: what, and numbers to make of it what they may.
type Step = (u8, u8, u8, u8);

const USERS: u8 = 3;
const TENANTS: [&str; 2] = ["acme", "globex"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0u8..28, any::<u8>(), any::<u8>(), any::<u8>()), 1..250)
}

fn principal(a: u8) -> Principal {
    let authority = match a >> 6 {
        0 | 1 => Authority::User,
        2 => Authority::Service,
        _ => Authority::Admin,
    };
    Principal { tenant: TenantId(u32::from(a & 1)), user: UserId(u32::from((a >> 1) % (USERS + 1))), authority }
}

/// Small enough to meet often, large enough to miss sometimes.
fn conversation(b: u8) -> ConversationId {
    // The first are the personal ones.
    let ordinal = if b >= 240 { b % 24 } else { 2 * USERS + 1 + b % 10 };
    ConversationId::new(SHARD, u64::from(ordinal))
}

fn input((what, a, b, c): Step, shard: &Shard) -> Input {
    let mut who = principal(a);
    let request = 9;
    let conversation = conversation(b);
    // Mostly of the tenant of what is asked about.
    if let Some(found) = shard.conversations.get(conversation).filter(|_| c < 220) {
        who.tenant = found.tenant;
    }
    let last_seq = shard.conversations.get(conversation).map_or(Seq(0), |found| found.last_seq);
    let (user, users) = (user(c), || users(c));
    let (limit, from) = (u16::from(c % 4), UserId(0));
    let list = StatusList(c % 4);
    let request = match what {
        0 => return attach(a, b),
        1..=6 => return publish(what, who, b, c, shard),
        7 => {
            let moved = CursorMove {
                tenant: who.tenant,
                user,
                device: DeviceId(u64::from(b % 3)),
                position: Position(u64::from(c)),
            };
            return Input::Cursors(Vec::from([moved]));
        }
        8 if b & 1 == 0 => {
            let (device, newest) = (DeviceId(u64::from(b % 3)), u32::from(a % 3));
            let (from, through) = (Position(u64::from(c / 2)), Position(u64::from(c)));
            return Input::CatchUpBounded(BoundedCatchUp { tenant: who.tenant, user, device, from, through, newest });
        }
        8 | 9 => return Input::Tick,
        10 | 11 => {
            let name = if b & 24 != 0 { "" } else { ["a", "b"][usize::from(b & 1)] };
            let create = create(ConversationKind(if b >= 200 { b % 5 } else { 2 + b % 2 }), name, &[]);
            Request::ConversationCreate(ConversationCreate { members: users(), ..create })
        }
        12 | 13 => Request::MembersAdd(MembersAdd { request, conversation, role: Role(c % 5), members: users() }),
        14 => Request::MembersRemove(MembersRemove { request, conversation, members: users() }),
        15 => Request::Leave(Leave { request, conversation }),
        16 => Request::MarkRead(MarkRead {
            request,
            conversation,
            up_to: Seq((last_seq.0 + 1).saturating_sub(u64::from(c % 4))),
        }),
        17 => Request::ReadStatus(
            ReadStatus { request, conversation, seq: Seq(u64::from(c % 8)), list, from, limit },
            Some(Written { author: user, position: Position(u64::from(b)) }),
        ),
        18 => Request::Retire(Retire { request, what: Retired(c % 3), id: u64::from(b % 3) }),
        19 => query(b, c, conversation),
        20.. => return dings::input((what, a, b, c), who, shard),
    };
    Input::Request { who, request }
}

fn user(c: u8) -> UserId {
    UserId(u32::from(c % (USERS + 1)))
}

fn users(c: u8) -> Vec<UserId> {
    Vec::from([user(c), UserId(u32::from(c / 7 % USERS))])
}

fn query(b: u8, c: u8, conversation: ConversationId) -> Request {
    let (request, from, limit) = (9, UserId(0), u16::from(c % 4));
    match c % 5 {
        0 => Request::ConversationFind(ConversationFind { request, name: "a".into() }),
        1 => Request::MemberList(MemberList { request, conversation, from, limit }),
        2 => Request::UserFind(UserFind {
            request,
            create: b & 1,
            handle: std::format!("named-{}", b % 3).as_str().into(),
        }),
        3 => Request::ConversationList(ConversationList { request, from: conversation, limit }),
        _ => Request::UserLookup(UserLookup { request, users: Vec::from([from, NOBODY]) }),
    }
}

fn attach(a: u8, b: u8) -> Input {
    let tenant = TENANTS[usize::from(a & 1)].into();
    let handle = std::format!("user-{}", (a >> 1) % USERS).as_str().into();
    let producer = (b & 4 != 0).then_some(ProducerId(u64::from(b / 2 % 2)));
    let authority = Authority::User;
    Input::Attach(Attach { tenant, handle, authority, device: DeviceId(u64::from(b % 3)), producer })
}

/// Mostly the producer's next number, sometimes the last again, or one that leaves a gap, or any.
fn publish(what: u8, who: Principal, b: u8, c: u8, shard: &Shard) -> Input {
    let target = Target(1 + (what & 1));
    let target_id = if target == Target::USER { u64::from(b % (USERS + 1)) } else { conversation(b).0 };
    let producer = ProducerId(u64::from(c % 2));
    let user = shard.directory.user(who.tenant, who.user);
    let highest = user.and_then(|user| user.producer(producer)).map_or(0, |producer| producer.highest());
    let number = match c % 8 {
        0 => highest,
        1 => u64::from(c / 8),
        2 => highest + 1 + u64::from(c / 32),
        _ => highest + 1,
    };
    let low = number.saturating_sub(u64::from(c / 16)).max(u64::from(b < 250));
    let (kind, payload) = (MessageKind(if b >= 240 { b % 8 } else { 1 }), Bytes::copy_from_slice(&[c / 128]));
    let publish = Publish { number, low, target, target_id, kind, payload };
    Input::Publish { who, producer: Some(producer), publish }
}

/// A stint as the records tell it.
#[derive(Clone, Copy, Debug, Default)]
struct ModelStint {
    joined: (Seq, Position),
    left: Option<(Seq, Position)>,
    read_up_to: Seq,
}

/// Who may have what, from the records alone.
#[derive(Default)]
struct Model {
    tenants: BTreeMap<ConversationId, TenantId>,
    last: BTreeMap<ConversationId, Seq>,
    /// Who wrote each message, by seq.
    authors: BTreeMap<ConversationId, Vec<UserId>>,
    stints: BTreeMap<(TenantId, UserId, ConversationId), Vec<ModelStint>>,
}

impl Model {
    fn of(records: &[Record]) -> Self {
        let mut model = Self::default();
        for (position, record) in (1..).map(Position).zip(records) {
            match record {
                Record::Message(message) => {
                    model.last.insert(message.deliver.conversation, message.deliver.seq);
                    model.authors.entry(message.deliver.conversation).or_default().push(message.deliver.author);
                }
                Record::UserAdded(added) => {
                    model.tenants.insert(added.personal, added.tenant);
                    model.join(position, added.personal, added.user);
                }
                Record::ConversationAdded(added) => {
                    model.tenants.insert(added.conversation, added.tenant);
                    added.grants.iter().for_each(|grant| model.join(position, added.conversation, grant.user));
                }
                Record::MembersAdded(added) => {
                    added.grants.iter().for_each(|grant| model.join(position, added.conversation, grant.user));
                }
                Record::MembersRemoved(removed) => {
                    let last = model.last_seq(removed.conversation);
                    for user in &removed.users {
                        let stint = model.stints_of(removed.conversation, *user).last_mut().unwrap();
                        assert!(stint.left.replace((last, position)).is_none(), "only members are removed");
                    }
                }
                Record::ReadMarked(marked) => {
                    let stint = model.stints_of(marked.conversation, marked.user).last_mut().unwrap();
                    assert!(marked.up_to > stint.read_up_to && stint.left.is_none(), "watermarks move forward");
                    stint.read_up_to = marked.up_to;
                }
                _ => {}
            }
        }
        model
    }

    fn last_seq(&self, conversation: ConversationId) -> Seq {
        self.last.get(&conversation).copied().unwrap_or_default()
    }

    fn stints_of(&mut self, conversation: ConversationId, user: UserId) -> &mut Vec<ModelStint> {
        self.stints.entry((self.tenants[&conversation], user, conversation)).or_default()
    }

    fn join(&mut self, position: Position, conversation: ConversationId, user: UserId) {
        let last = self.last_seq(conversation);
        let stints = self.stints_of(conversation, user);
        if stints.last().is_none_or(|stint| stint.left.is_some()) {
            stints.push(ModelStint { joined: (last, position), left: None, read_up_to: last });
        }
    }

    /// Each user's stints are those the shard attaches it with.
    fn check_stints(&self, world: &mut World) {
        for (tenant, name) in TENANTS.into_iter().enumerate() {
            for user in 0..USERS {
                let Ok(attached) = world.attach_as(name, &std::format!("user-{user}"), DeviceId(0), None) else {
                    continue;
                };
                let views = attached.stints.iter().map(|view| {
                    (view.conversation, (view.joined.seq, view.joined.position), view.left.map(|m| (m.seq, m.position)))
                });
                let model =
                    self.stints.iter().filter(|((at, of, _), _)| (*at, *of) == (attached.tenant, attached.user));
                let model = model.flat_map(|((_, _, conversation), stints)| {
                    stints.iter().map(|stint| (*conversation, stint.joined, stint.left))
                });
                let known: Vec<_> = model.collect();
                if !known.is_empty() {
                    assert_eq!(views.collect::<Vec<_>>(), known, "{tenant} {user}");
                }
            }
        }
    }

    /// What each member has not read is what others wrote after the member's watermark.
    fn check_unread(&self, shard: &Shard) {
        let mut unread = BTreeMap::new();
        for (&(tenant, user, conversation), stints) in &self.stints {
            let expected = unread.entry((tenant, user)).or_insert_with(Vec::new);
            let Some(stint) = stints.last().filter(|stint| stint.left.is_none()) else { continue };
            let authors = self.authors.get(&conversation).map_or(&[][..], |authors| authors);
            let after = &authors[usize::try_from(stint.read_up_to.0).unwrap()..];
            expected.push((conversation, after.iter().filter(|author| **author != user).count() as u64));
        }
        for ((tenant, user), expected) in unread {
            assert_eq!(shard.unread(tenant, user).collect::<Vec<_>>(), expected, "{tenant:?} {user}");
        }
    }

    /// Who has read a message is what the stints and marks say.
    fn check_readers(&self, world: &mut World, conversation: ConversationId, seq: Seq, author: UserId) {
        let tenant = self.tenants[&conversation];
        let who = Principal { tenant, user: UserId(0), authority: Authority::Admin };
        let (mut read, mut unread) = (0, 0);
        for ((_, user, _), stints) in self.stints.iter().filter(|((_, _, of), _)| *of == conversation) {
            let covers = |stint: &&ModelStint| stint.joined.0 < seq && stint.left.is_none_or(|left| seq <= left.0);
            if let Some(stint) = stints.iter().find(covers).filter(|_| *user != author) {
                read += u32::from(stint.read_up_to >= seq);
                unread += u32::from(stint.read_up_to < seq);
            }
        }
        let status = ReadStatus { request: 9, conversation, seq, list: StatusList::COUNTS, from: UserId(0), limit: 1 };
        let reply = frame!(
            ReadStatusReply,
            world.request(who, Request::ReadStatus(status, Some(Written { author, position: Position(1) })))
        );
        assert_eq!((reply.read, reply.unread), (read, unread), "{conversation} {seq}");
    }
}

fn run(steps: &[Step], reloads: bool) -> World {
    let mut world = World::new();
    for user in 0..2 * USERS {
        // With the two producers that publishes use.
        world.handle(attach(user, 4));
        world.handle(attach(user, 6));
    }
    make_restless_group(&mut world);
    for (number, step) in steps.iter().enumerate() {
        world.now.0 += u64::from(step.2) * u64::from(step.3) / 64;
        if number % 50 == 49 {
            // Past the retention of what is over.
            world.now.0 += 8 * 86_400_000;
        }
        let input = input(*step, &world.shard);
        world.handle(input);
        if step.1 % 4 == 0 {
            ding::next(&mut world.shard, Outlet(2 + step.2 % 2));
        }
        if reloads && number % 16 == 7 {
            world.reload();
        }
        world.shard.conversations.iter().for_each(|(_, conversation)| receipt::check_ranks(conversation));
    }
    world
}

/// A group in which two users were so often that its stints are kept ordered.
fn make_restless_group(world: &mut World) {
    let who = Principal { tenant: TenantId(0), user: UserId(0), authority: Authority::Admin };
    let conversation = world.group(who, &[]);
    let members = Vec::from([UserId(1), UserId(2)]);
    for _ in 0..=STINTS_SCANNED_MAX / members.len() {
        let (request, role, members) = (9, Role::MEMBER, members.clone());
        let add = MembersAdd { request, conversation, role, members: members.clone() };
        world.request(who, Request::MembersAdd(add));
        world.request(who, Request::MembersRemove(MembersRemove { request, conversation, members }));
    }
    assert!(world.shard.conversations.get(conversation).unwrap().ranks.is_some());
}

proptest! {
    #[test]
    fn replay_gives_the_same_state_and_signals(steps in steps()) {
        let mut world = run(&steps, false);
        model::Model::of(&world.records).check(&world.shard);
        world.restart();
        world.reload();
        let reloaded = run(&steps, true);
        prop_assert!(bytes_of(&reloaded.shard) == bytes_of(&world.shard), "a snapshot changes what follows");
        prop_assert_eq!(reloaded.records, world.records);
    }

    #[test]
    fn entitlement_readers_and_what_moved_are_what_the_records_say(
        steps in steps(),
        since in any::<u8>(),
        updates_max in 2u8..5,
    ) {
        let mut world = run(&steps, false);
        let model = Model::of(&world.records);
        let messages: Vec<_> = world.records.iter().filter_map(|record| match record {
            Record::Message(message) => Some(message.deliver.clone()),
            _ => None,
        }).collect();
        for deliver in messages {
            model.check_readers(&mut world, deliver.conversation, deliver.seq, deliver.author);
        }
        model.check_unread(&world.shard);
        for user in 0..USERS * 2 {
            let who = Principal { tenant: TenantId(u32::from(user & 1)), user: UserId(u32::from(user / 2)), authority: Authority::User };
            for since in [0, u64::from(since), world.shard.head().0 / 2] {
                moved::check_moved(&world, who, Position(since), usize::from(updates_max));
            }
        }
        model.check_stints(&mut world);
    }

    #[test]
    fn no_records_are_applied_twice_or_out_of_order(steps in steps(), at in any::<prop::sample::Index>()) {
        let world = run(&steps, false);
        let messages: Vec<_> = world.records.iter().filter(|record| matches!(record, Record::Message(_))).collect();
        prop_assume!(!messages.is_empty());
        let mut shard = world.shard;
        let head = shard.head();
        prop_assert!(shard.apply(messages[at.index(messages.len())], &mut Effects::default()).is_err());
        prop_assert_eq!(shard.head(), head);
    }
}
