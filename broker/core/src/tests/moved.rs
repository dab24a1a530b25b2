//! What has moved since a position: against the records, told one by one as a live session would be.

use super::*;
use crate::limits::{NAMED_STINTS_MAX, STINTS_SCANNED_MAX};
use crate::moved::{Moved, MovedQuestion, MovedUpdate, MovedWhat};
use carillon_protocol::control::{Leave, MembersAdd};
use carillon_protocol::kinds::Role;
use carillon_protocol::receipt::MarkRead;

/// Names are told in conversations of at most so many.
const NAMED: u32 = 200;

fn mark(world: &mut World, who: Principal, conversation: ConversationId, up_to: u64) {
    let mark = MarkRead { request: 9, conversation, up_to: Seq(up_to) };
    frame!(Marked, world.request(who, Request::MarkRead(mark)));
}

fn question(who: Principal, since: Position, updates_max: usize, named_members_max: u32) -> MovedQuestion {
    MovedQuestion { tenant: who.tenant, user: who.user, since, updates_max, named_members_max }
}

/// Everything, asked for in pages of so many.
pub(crate) fn all_moved(shard: &Shard, mut question: MovedQuestion) -> Vec<MovedUpdate> {
    let mut updates = Vec::new();
    loop {
        let Moved { as_of, updates: page, more, .. } = shard.moved(question);
        assert_eq!(as_of, shard.head());
        assert!(page.len() <= question.updates_max && (!page.is_empty() || !more));
        assert!(page.is_sorted() && page.iter().all(|update| update.position > question.since), "{page:?}");
        question.since = page.last().map_or(question.since, |last| last.position);
        updates.extend(page);
        if !more {
            return updates;
        }
    }
}

/// In which conversation, and who has read how far there, or the newest own message with counts.
type Told = (u64, Result<(u32, u64), u64>);

fn told(world: &World, who: Principal, since: Position) -> Vec<Told> {
    let updates = all_moved(&world.shard, question(who, since, 99, NAMED));
    assert_eq!(all_moved(&world.shard, question(who, since, 2, NAMED)), updates, "pages end between positions");
    let told = updates.into_iter().map(|update| {
        let what = match update.what {
            MovedWhat::Read { user, read_up_to } => Ok((user.0, read_up_to.0)),
            MovedWhat::Counts { newest_own, .. } => Err(newest_own.0),
        };
        (update.conversation.ordinal(), what)
    });
    told.collect()
}

#[test]
fn after_a_reconnect_a_user_is_told_its_own_marks_and_who_read_what_it_wrote() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob, eve]);
    let id = group.ordinal();
    for who in [ann, bob, ann] {
        world.post(who, group);
    }
    let before = world.shard.head();
    mark(&mut world, bob, group, 1);
    mark(&mut world, eve, group, 2);
    let between = world.shard.head();
    mark(&mut world, bob, group, 3);
    mark(&mut world, ann, group, 3);
    for reload in [false, true] {
        if reload {
            world.reload();
        }
        // Of each the newest mark, in the order of marks.
        let (eve_read, bob_read, ann_read) = ((id, Ok((2, 2))), (id, Ok((1, 3))), (id, Ok((0, 3))));
        assert_eq!(told(&world, ann, before), [eve_read, bob_read, ann_read]);
        assert_eq!(told(&world, ann, between), [bob_read, ann_read], "only what moved");
        assert_eq!(told(&world, bob, before), [eve_read, bob_read, ann_read]);
        // Eve wrote nothing: her own mark alone.
        assert_eq!(told(&world, eve, before), [eve_read]);
        assert_eq!(told(&world, eve, between), []);
        assert_eq!(told(&world, ann, world.shard.head()), []);
    }
    world.restart();
}

#[test]
fn after_a_reconnect_the_policy_and_the_size_say_who_is_named() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let before = world.shard.head();
    let cases = [
        (ReceiptPolicy::ON, NAMED, Some(true)),
        (ReceiptPolicy::ON, 3, Some(true)),
        (ReceiptPolicy::ON, 2, Some(false)),
        (ReceiptPolicy::COUNTS, NAMED, Some(false)),
        (ReceiptPolicy::OFF, NAMED, None),
    ];
    for (receipts, named_members_max, named) in cases {
        let create = ConversationCreate { receipts, ..create(ConversationKind::GROUP, "", &[bob, eve]) };
        let id = frame!(ConversationCreated, world.request(ann, Request::ConversationCreate(create))).conversation;
        world.post(ann, id);
        mark(&mut world, bob, id, 1);
        let marked = world.shard.head();
        mark(&mut world, ann, id, 1);
        let own_marked = world.shard.head();
        let of = |position, what| MovedUpdate { position, conversation: id, what };
        let read = |user: UserId| MovedWhat::Read { user, read_up_to: Seq(1) };
        let counts = MovedWhat::Counts { newest_own: Seq(1), last_seq: Seq(1) };
        let mut expected = Vec::from([of(own_marked, read(ann.user))]);
        match named {
            Some(true) => expected.insert(0, of(marked, read(bob.user))),
            Some(false) => expected.insert(0, of(marked, counts)),
            None => {}
        }
        let whole = all_moved(&world.shard, question(ann, before, 99, named_members_max));
        for updates_max in 2..6 {
            let paged = all_moved(&world.shard, question(ann, before, updates_max, named_members_max));
            assert_eq!(paged, whole, "no page ends between two of one position");
        }
        let mut updates = whole;
        updates.retain(|update| update.conversation == id);
        assert_eq!(updates, expected, "{receipts:?} up to {named_members_max}");
        // Under each policy a user's own devices are told of its own marks.
        let mut updates = all_moved(&world.shard, question(bob, before, 2, named_members_max));
        updates.retain(|update| update.conversation == id);
        assert_eq!(updates, [of(marked, read(bob.user))], "{receipts:?}");
    }
}

#[test]
fn after_a_reconnect_a_mark_is_told_to_those_who_were_members_when_it_was_made() {
    let mut world = World::new();
    let [ann, bob, eve] = world.users();
    let group = world.group(ann, &[bob, eve]);
    let id = group.ordinal();
    for who in [bob, ann] {
        world.post(who, group);
    }
    let before = world.shard.head();
    mark(&mut world, eve, group, 1);
    frame!(Done, world.request(bob, Request::Leave(Leave { request: 9, conversation: group })));
    assert_eq!(told(&world, bob, before), [(id, Ok((2, 1)))], "he was one then");
    mark(&mut world, ann, group, 2);
    mark(&mut world, eve, group, 2);
    assert_eq!(told(&world, bob, before), [], "what is newer is not his to know");
    let members = Vec::from([bob.user]);
    let add = MembersAdd { request: 9, conversation: group, role: Role::MEMBER, members };
    frame!(Done, world.request(ann, Request::MembersAdd(add)));
    assert_eq!(told(&world, bob, before), [], "nor is it when he is back");
    world.post(ann, group);
    mark(&mut world, eve, group, 3);
    assert_eq!(told(&world, bob, before), [(id, Ok((2, 3)))]);
    assert_eq!(told(&world, ann, before), [(id, Ok((0, 2))), (id, Ok((2, 3)))]);
    let nobody = Principal { user: NOBODY, ..ann };
    assert_eq!(told(&world, nobody, before), []);
    assert_eq!(told(&world, Principal { tenant: ELSEWHERE, ..ann }, before), []);
}

/// A world with a group whose members, beside the first of them, are so many.
fn with_group(members: usize) -> (World, ConversationId, Vec<Principal>) {
    let mut world = World::new();
    let users: Vec<_> = (0..=members).map(|number| world.user(&std::format!("user-{number}"))).collect();
    let (first, rest) = users[1..].split_at(members.min(1_000));
    let group = world.group(users[0], first);
    if !rest.is_empty() {
        let members = rest.iter().map(|who| who.user).collect();
        let add = MembersAdd { request: 9, conversation: group, role: Role::MEMBER, members };
        frame!(Done, world.request(users[0], Request::MembersAdd(add)));
    }
    world.post(users[0], group);
    world.post(users[0], group);
    (world, group, users)
}

#[test]
fn names_are_kept_in_order_up_to_so_many_stints_and_counted_beyond() {
    let most = usize::try_from(NAMED_STINTS_MAX).unwrap() - 1;
    for (members, named) in
        [(STINTS_SCANNED_MAX - 1, true), (STINTS_SCANNED_MAX, true), (most, true), (most + 1, false)]
    {
        let (mut world, group, users) = with_group(members);
        let first = world.shard.head();
        for reader in users[1..].iter().rev() {
            mark(&mut world, *reader, group, 1);
        }
        mark(&mut world, users[members], group, 2);
        mark(&mut world, users[2], group, 2);
        for reload in [false, true] {
            if reload {
                world.reload();
            }
            let ask = |since| all_moved(&world.shard, question(users[0], since, 40, u32::MAX));
            let updates = ask(first);
            if !named {
                assert!(matches!(
                    updates[..],
                    [MovedUpdate { what: MovedWhat::Counts { newest_own: Seq(2), .. }, .. }]
                ));
                continue;
            }
            assert_eq!(updates.len(), members, "each reader once");
            let newest = |updates: &[MovedUpdate]| updates.last().map(|update| update.what);
            assert_eq!(newest(&updates), Some(MovedWhat::Read { user: users[2].user, read_up_to: Seq(2) }));
            assert_eq!(ask(updates[members - 3].position), updates[members - 2..]);
        }
    }
}

#[test]
fn of_however_many_readers_each_is_named_and_a_page_costs_what_it_holds() {
    let (mut world, first, users) = with_group(NAMED as usize - 1);
    let readers = &users[1..];
    let mut all = Vec::from([first]);
    for _ in 0..16_384 / readers.len() + 1 {
        let group = world.group(users[0], readers);
        world.post(users[0], group);
        all.push(group);
    }
    let before = world.shard.head();
    let mut expected = Vec::new();
    // Reader by reader, so that every page has some of each group.
    for (reader, group) in readers.iter().flat_map(|reader| all.iter().map(move |group| (reader, *group))) {
        // Straight into the state: twenty thousand requests would take their time.
        let position = Position(before.0 + 1 + expected.len() as u64);
        world.shard.conversations.get_mut(group).unwrap().mark_for_test(position, reader.user, Seq(1));
        let what = MovedWhat::Read { user: reader.user, read_up_to: Seq(1) };
        expected.push(MovedUpdate { position, conversation: group, what });
    }
    for updates_max in [256, 1_000, usize::MAX] {
        assert!(all_moved(&world.shard, question(users[0], before, updates_max, NAMED)) == expected, "{updates_max}");
    }
    let mut page = question(users[0], before, 256, NAMED);
    for since in [before, expected[expected.len() / 2].position] {
        page.since = since;
        let looks = world.shard.moved(page).looks;
        assert!(looks <= 3 * all.len() + 2 * page.updates_max, "{looks} for a page from {since} on");
    }
}

/// What concerns one user, by the records alone.
struct ByRecords {
    who: Principal,
    conversations: BTreeMap<ConversationId, Followed>,
}

/// What the records say of a conversation of the user's tenant.
struct Followed {
    receipts: ReceiptPolicy,
    /// The user's: from, and up to.
    stints: Vec<(Position, Option<Position>)>,
    last_seq: Seq,
    newest_own: Seq,
    /// By reader.
    newest: BTreeMap<UserId, (Position, Seq)>,
}

impl Followed {
    fn is_in(&self, position: Position) -> bool {
        self.stints.iter().any(|(from, to)| *from < position && to.is_none_or(|to| position <= to))
    }

    fn is_present(&self) -> bool {
        self.stints.last().is_some_and(|(_, to)| to.is_none())
    }
}

impl ByRecords {
    fn begin(&mut self, id: ConversationId, receipts: ReceiptPolicy) {
        let (stints, newest, seq) = (Vec::new(), BTreeMap::new(), Seq(0));
        let followed = Followed { receipts, stints, last_seq: seq, newest_own: seq, newest };
        self.conversations.insert(id, followed);
    }

    fn join(&mut self, position: Position, id: ConversationId, user: UserId) {
        let found = self.conversations.get_mut(&id).filter(|found| user == self.who.user && !found.is_present());
        if let Some(found) = found {
            found.stints.push((position, None));
            // What was read before is over.
            found.newest.remove(&user);
        }
    }

    fn take(&mut self, position: Position, record: &Record) {
        match record {
            Record::UserAdded(added) if added.tenant == self.who.tenant => {
                self.begin(added.personal, ReceiptPolicy::ON);
                self.join(position, added.personal, added.user);
            }
            Record::ConversationAdded(added) if added.tenant == self.who.tenant => {
                self.begin(added.conversation, added.receipts);
                added.grants.iter().for_each(|grant| self.join(position, added.conversation, grant.user));
            }
            Record::MembersAdded(added) => {
                added.grants.iter().for_each(|grant| self.join(position, added.conversation, grant.user));
            }
            Record::MembersRemoved(removed) if removed.users.contains(&self.who.user) => {
                let Some(found) = self.conversations.get_mut(&removed.conversation) else { return };
                found.stints.last_mut().unwrap().1 = Some(position);
            }
            Record::Message(message) => {
                let Some(found) = self.conversations.get_mut(&message.deliver.conversation) else { return };
                found.last_seq = message.deliver.seq;
                if message.deliver.author == self.who.user && found.is_present() {
                    found.newest_own = message.deliver.seq;
                }
            }
            Record::ReadMarked(marked) => {
                let Some(found) = self.conversations.get_mut(&marked.conversation) else { return };
                found.newest.insert(marked.user, (position, marked.up_to));
            }
            _ => {}
        }
    }

    fn moved(&self, since: Position) -> Vec<MovedUpdate> {
        let mut moved = Vec::new();
        for (&conversation, found) in &self.conversations {
            let wrote = found.newest_own > Seq(0);
            for (&user, &(position, read_up_to)) in &found.newest {
                let named = wrote && found.receipts == ReceiptPolicy::ON && found.is_in(position);
                if position > since && (user == self.who.user || named) {
                    moved.push(MovedUpdate { position, conversation, what: MovedWhat::Read { user, read_up_to } });
                }
            }
            // One's own marks move nothing of one's own messages.
            let others = found.newest.iter().filter(|(user, _)| **user != self.who.user);
            let position = others.map(|(_, (position, _))| *position).max().unwrap_or_default();
            let now = found.stints.last().filter(|(from, to)| to.is_none() && *from < position);
            if wrote && found.receipts == ReceiptPolicy::COUNTS && position > since && now.is_some() {
                let what = MovedWhat::Counts { newest_own: found.newest_own, last_seq: found.last_seq };
                moved.push(MovedUpdate { position, conversation, what });
            }
        }
        moved.sort_unstable();
        moved
    }
}

/// The shard answers what the records say, from wherever it is asked and in whatever pages.
pub(crate) fn check_moved(world: &World, who: Principal, since: Position, updates_max: usize) {
    let mut by_records = ByRecords { who, conversations: BTreeMap::new() };
    (1..).map(Position).zip(&world.records).for_each(|(position, record)| by_records.take(position, record));
    let found = all_moved(&world.shard, question(who, since, updates_max, u32::MAX));
    assert_eq!(found, by_records.moved(since), "{who:?} since {since}");
}
