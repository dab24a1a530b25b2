//! Packed members, against a map of everything that was ever said of each.

use super::*;
use crate::effect::Moment;
use crate::limits::STINTS_MAX;
use crate::members::{MemberMut, Members};
use crate::membership::{Member, Membership, Stint};
use crate::own::{OwnMessages, Span};
use carillon_protocol::kinds::Role;
use proptest::prelude::*;

/// A member as plainly as can be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plain {
    role: Role,
    stints: Vec<Stint>,
    newest_own: Seq,
    own: Vec<Span>,
}

impl Plain {
    fn new(role: Role, stint: Stint) -> Self {
        Self { role, stints: Vec::from([stint]), newest_own: Seq(0), own: Vec::new() }
    }

    fn of_removed(member: Membership) -> Self {
        let (stints, own) = (member.stints().collect(), member.rest.own.spans().to_vec());
        Self { role: member.latest.role, stints, newest_own: member.latest.newest_own, own }
    }

    fn of(member: Member<'_>) -> Self {
        let own = member.own().map_or(&[][..], OwnMessages::spans).to_vec();
        Self { role: member.role(), stints: member.stints().collect(), newest_own: member.newest_own(), own }
    }

    fn last(&self) -> &Stint {
        self.stints.last().unwrap()
    }

    fn present(&self) -> Option<Stint> {
        self.stints.last().filter(|stint| stint.left().is_none()).copied()
    }
}

const ROLES: [Role; 3] = [Role::MEMBER, Role::ADMIN, Role::OWNER];

/// The same members twice, and the time that goes on from step to step.
#[derive(Default)]
struct Both {
    members: Members,
    map: BTreeMap<UserId, Plain>,
    now: Moment,
}

impl Both {
    /// One step for a user; time goes on by as much as is said, so that values of all widths come.
    fn step(&mut self, (user, what, on): (u32, u8, u64)) {
        self.now = Moment { seq: Seq(self.now.seq.0 + on / 3), position: Position(self.now.position.0 + on + 1) };
        let (user, Moment { seq, position }) = (UserId(user), self.now);
        let role = ROLES[usize::from(what % 3)];
        match what {
            0..=9 => self.join(user, role),
            10..=12 => {
                let left = self.members.update(user, |member| member.leave(self.now));
                assert_eq!(left, self.map.get(&user).map(|plain| plain.present().is_some()));
                if let Some(plain) = self.map.get_mut(&user).filter(|plain| plain.present().is_some()) {
                    plain.stints.last_mut().unwrap().end(self.now);
                    plain.own.clear();
                }
            }
            13 => {
                let removed = self.members.remove(user);
                assert_eq!(removed.map(Plain::of_removed), self.map.remove(&user));
            }
            14 | 15 => {
                self.members.update(user, |member| member.latest.role = role);
                self.map.entry(user).and_modify(|plain| plain.role = role);
            }
            16..=18 => {
                let member = self.members.get_mut(user);
                let is_before = |member: Member<'_>| member.is_present() && member.read_up_to() < seq;
                if let Some(mut member) = member.filter(|member| is_before(member.view())) {
                    member.mark(self.now);
                }
                let plain = self.map.get_mut(&user).filter(|plain| plain.present().is_some_and(|s| s.read_up_to < seq));
                if let Some(plain) = plain {
                    let stint = plain.stints.last_mut().unwrap();
                    (stint.read_up_to, stint.marked_at) = (seq, position);
                    plain.own.clear();
                }
            }
            _ => self.write(user),
        }
    }

    fn join(&mut self, user: UserId, role: Role) {
        let stint = Stint::begin(self.now.seq, self.now.position);
        let forgotten = self.members.update(user, |member| match member.present_mut() {
            Some(_) => None,
            None => member.rejoin(role, stint),
        });
        let inserted = forgotten.is_none() && self.members.insert(user, Membership::new(role, stint));
        assert_eq!(inserted, !self.map.contains_key(&user));
        let plain = self.map.entry(user).or_insert_with(|| Plain::new(role, stint));
        if !inserted && plain.present().is_none() {
            plain.role = role;
            plain.stints.push(stint);
        }
        let oldest = (plain.stints.len() > STINTS_MAX).then(|| plain.stints.remove(0));
        assert_eq!(forgotten.flatten(), oldest);
    }

    fn write(&mut self, user: UserId) {
        self.now.seq = self.now.seq.next();
        let seq = self.now.seq;
        if let Some(mut member) = self.members.get_mut(user).filter(MemberMut::is_present) {
            member.wrote(seq);
        }
        if let Some(plain) = self.map.get_mut(&user).filter(|plain| plain.present().is_some()) {
            plain.newest_own = seq;
            match plain.own.last_mut().filter(|span| span.last.next() == seq) {
                Some(span) => (span.last, span.own) = (seq, span.own + 1),
                None => plain.own.push(Span { first: seq, last: seq, own: 1 }),
            }
        }
    }

    fn check_one(&self, user: UserId) {
        let (found, plain) = (self.members.get(user), self.map.get(&user));
        assert_eq!(found.map(Plain::of), plain.cloned());
        let (Some(found), Some(plain)) = (found, plain) else { return };
        assert_eq!((found.last_stint(), found.is_present()), (*plain.last(), plain.present().is_some()));
        assert_eq!(found.read_up_to(), plain.last().read_up_to);
        let mut intervals = Vec::new();
        found.for_each_interval(|joined, left| intervals.push((joined, left)));
        assert!(plain.stints.iter().map(|stint| (stint.joined, stint.left())).eq(intervals));
        let marks = plain.stints.iter().map(|stint| stint.marked_at);
        assert_eq!(found.newest_mark(), marks.max().unwrap());
        for seq in plain.stints.iter().flat_map(|s| [s.joined.seq, s.joined.seq.next(), s.read_up_to]) {
            let covering = plain.stints.iter().find(|stint| stint.covers(seq));
            assert_eq!(found.covering(seq), covering.map(|stint| stint.read_up_to));
        }
    }

    fn check_all(&self) {
        self.members.check();
        let all = |from| self.map.range(from..).map(|(user, plain)| (*user, plain.clone()));
        let unpacked = self.members.iter().map(|(user, member)| (user, Plain::of(member)));
        assert!(unpacked.eq(all(UserId(0))));
        let from = self.map.keys().flat_map(|user| [*user, UserId(user.0 + 1)]).step_by(97);
        for from in from.chain([UserId(0), UserId(u32::MAX)]) {
            let unpacked = self.members.iter_from(from).map(|(user, member)| (user, Plain::of(member)));
            assert!(unpacked.eq(all(from)), "from {from}");
        }
    }
}

/// How far time goes on: mostly little, now and then so far that a column is one more byte wide.
fn on() -> impl Strategy<Value = u64> {
    (0u32..40, any::<u64>()).prop_map(|(bits, any)| any % (1 << bits.saturating_sub(16)))
}

proptest! {
    #[test]
    fn packed_members_are_a_map(
        users in prop::sample::select(alloc::vec![3u32, 700, 4_000]),
        apart in prop::sample::select(alloc::vec![1u32, 1_000, 1_000_000]),
        steps in proptest::collection::vec((any::<u32>(), 0u8..22, on()), 1..4_000),
    ) {
        let mut both = Both::default();
        for (user, what, on) in steps {
            // The same few at the end as at the beginning, so that some come and go more often than is kept.
            let user = if user % 8 == 0 { user % 5 } else { user % users } * apart;
            both.step((user, what, on));
            both.check_one(UserId(user));
        }
        both.check_all();
    }

    #[test]
    fn chunks_keep_apart_whatever_order_users_come_in(
        bits in 10u32..31,
        users in proptest::collection::vec((any::<u32>(), proptest::bool::weighted(0.9)), 1..4_000),
    ) {
        let mut both = Both::default();
        for (user, joins) in users {
            both.step((user % (1 << bits), if joins { 0 } else { 13 }, 0));
        }
        both.check_all();
    }
}

#[test]
fn members_come_in_any_order() {
    let orders: [&dyn Fn(u32) -> u32; 3] = [&|nth| nth, &|nth| 5_000 - nth, &|nth| nth * 2_741 % 5_003];
    for order in orders {
        let mut both = Both::default();
        (0..5_000).for_each(|nth| both.step((order(nth), 0, 3)));
        both.check_all();
        (0..5_000).for_each(|nth| both.step((order(nth * 7 % 5_000), 13, 3)));
        assert!(both.map.is_empty());
        both.check_all();
    }
}

#[test]
fn the_oldest_of_too_many_stints_is_handed_back() {
    let mut both = Both::default();
    for _ in 0..=STINTS_MAX {
        both.step((7, 0, 100));
        both.step((7, 10, 100));
        both.check_one(UserId(7));
    }
    assert_eq!(both.map[&UserId(7)].stints.len(), STINTS_MAX);
}

#[test]
fn who_comes_back_before_all_of_an_upper_chunk_takes_nobody_of_the_lower_one_away() {
    let mut both = Both::default();
    // Two chunks: up to 511, and from 512 on.
    (0..520).for_each(|nth| both.step((nth, 0, 0)));
    both.step((512, 13, 0));
    both.check_all();
    // So late that its row does not fit beside the others.
    both.step((512, 0, 1 << 40));
    both.check_all();
    (0..520).for_each(|nth| both.check_one(UserId(nth)));
}

#[test]
fn users_in_descending_order_behind_a_full_chunk_share_chunks() {
    let mut both = Both::default();
    (0..512).for_each(|nth| both.step((nth, 0, 0)));
    (1_000..6_000).rev().for_each(|nth| both.step((nth, 0, 0)));
    both.check_all();
    assert!(both.members.chunks_for_test() < 40, "{} chunks of 5,512 members", both.members.chunks_for_test());
}
