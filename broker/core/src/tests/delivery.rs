//! Which messages a user's devices have, as a page of a read status tells it.

use super::*;
use crate::effect::{ReadPage, Unsure};
use crate::input::{BoundedCatchUp, CursorMove, Written};
use crate::record::CatchUpBounded;
use crate::{ApplyError, Contradiction};
use carillon_protocol::control::Leave;
use carillon_protocol::kinds::{ReadState, Retired, StatusList};
use carillon_protocol::receipt::{MarkRead, ReadStatus};
use carillon_protocol::session::Retire;

const PHONE: DeviceId = DEVICE;
const TABLET: DeviceId = DeviceId(77);

/// Ann and bob in a group where ann has written five messages.
struct Pair {
    world: World,
    ann: Principal,
    bob: Principal,
    group: ConversationId,
    /// By seq, from 1.
    positions: Vec<Position>,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new();
        let [ann, bob] = world.users();
        world.attach_as("acme", "user-1", TABLET, None).unwrap();
        let group = world.group(ann, &[bob]);
        let positions = (0..5).map(|_| world.post(ann, group).position).collect();
        Self { world, ann, bob, group, positions }
    }

    fn position(&self, seq: usize) -> Position {
        self.positions[seq - 1]
    }

    fn acknowledge(&mut self, device: DeviceId, position: Position) {
        let moved = CursorMove { tenant: self.bob.tenant, user: self.bob.user, device, position };
        assert!(self.world.handle(Input::Cursors(Vec::from([moved]))).is_none());
    }

    /// Notes that a catch-up up to a message leaves out all but the newest; returns how many records that made.
    fn bound(&mut self, device: DeviceId, (from, through): (usize, usize), newest: u32) -> usize {
        let before = self.world.records.len();
        let Principal { tenant, user, .. } = self.bob;
        let (from, through) = (self.position(from), self.position(through));
        let bounded = BoundedCatchUp { tenant, user, device, from, through, newest };
        assert_eq!(self.world.handle(Input::CatchUpBounded(bounded)), Some(Reply::CatchUpNoted));
        self.world.records.len() - before
    }

    fn page(&mut self, seq: usize, list: StatusList) -> ReadPage {
        let written = Some(Written { author: self.ann.user, position: self.position(seq) });
        let seq = Seq(seq as u64);
        let status = ReadStatus { request: 9, conversation: self.group, seq, list, from: UserId(0), limit: 9 };
        let request = Request::ReadStatus(status, written);
        match self.world.handle(Input::Request { who: self.ann, request }) {
            Some(Reply::ReadPage(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    /// Where bob, who has not read it, is with a message, and what the index has to say to that.
    fn check(&mut self, seq: usize, state: ReadState, unsure: &[(u32, usize)]) {
        let page = self.page(seq, StatusList::OPEN);
        assert_eq!(page.reply.entries.iter().map(|entry| entry.state).collect::<Vec<_>>(), [state], "message {seq}");
        let expected = |&(newest, seq)| Unsure { entry: 0, newest, through: self.position(seq) };
        assert_eq!(page.unsure, unsure.iter().map(expected).collect::<Vec<_>>(), "message {seq}");
        assert_eq!((page.conversation, page.position), (self.group, self.position(seq)));
        self.world.restart();
        self.world.reload();
    }
}

#[test]
fn a_message_is_delivered_when_one_device_has_acknowledged_it() {
    let mut pair = Pair::new();
    pair.check(1, ReadState::NOT_DELIVERED, &[]);
    pair.acknowledge(PHONE, pair.position(2));
    for (seq, state) in [(1, ReadState::DELIVERED), (2, ReadState::DELIVERED), (3, ReadState::NOT_DELIVERED)] {
        pair.check(seq, state, &[]);
    }
    pair.acknowledge(TABLET, pair.position(4));
    pair.check(4, ReadState::DELIVERED, &[]);
    pair.check(5, ReadState::NOT_DELIVERED, &[]);
    // What is read is read, on whatever device.
    let mark = MarkRead { request: 9, conversation: pair.group, up_to: Seq(5) };
    pair.world.request(pair.bob, Request::MarkRead(mark));
    let page = pair.page(5, StatusList::DONE);
    assert_eq!((page.reply.entries[0].state, page.unsure), (ReadState::READ, Vec::new()));
    assert!(pair.page(5, StatusList::OPEN).reply.entries.is_empty());
    assert!(pair.page(5, StatusList::COUNTS).reply.entries.is_empty());
}

#[test]
fn what_a_bounded_catch_up_left_out_is_not_delivered_by_its_device() {
    let mut pair = Pair::new();
    assert_eq!(pair.bound(PHONE, (1, 4), 2), 1);
    assert_eq!(pair.bound(PHONE, (1, 4), 2), 0, "it is known");
    pair.check(1, ReadState::NOT_DELIVERED, &[]);
    pair.acknowledge(PHONE, pair.position(5));
    pair.check(1, ReadState::NOT_DELIVERED, &[(2, 4)]);
    pair.check(4, ReadState::NOT_DELIVERED, &[(2, 4)]);
    pair.check(5, ReadState::DELIVERED, &[]);
    // One that wanted nothing of it, and one that has had it all.
    pair.bound(TABLET, (1, 3), 0);
    pair.acknowledge(TABLET, pair.position(4));
    pair.check(1, ReadState::NOT_DELIVERED, &[(2, 4)]);
    pair.check(4, ReadState::DELIVERED, &[]);
}

#[test]
fn a_retired_device_takes_what_it_acknowledged_with_it() {
    let mut pair = Pair::new();
    pair.acknowledge(TABLET, pair.position(5));
    pair.check(5, ReadState::DELIVERED, &[]);
    let retire = Retire { request: 9, what: Retired::DEVICE, id: TABLET.0 };
    frame!(Done, pair.world.request(pair.bob, Request::Retire(retire)));
    pair.check(5, ReadState::NOT_DELIVERED, &[]);
    assert_eq!(pair.bound(TABLET, (1, 2), 1), 0, "it is no more, and answered");
}

#[test]
fn who_has_left_has_what_was_delivered_before() {
    let mut pair = Pair::new();
    let leave = Leave { request: 9, conversation: pair.group };
    frame!(Done, pair.world.request(pair.bob, Request::Leave(leave)));
    pair.check(5, ReadState::NOT_DELIVERED, &[]);
    pair.acknowledge(PHONE, pair.position(5));
    pair.check(5, ReadState::DELIVERED, &[]);
}

#[test]
fn a_window_that_cannot_be_is_no_record_and_contradicts_as_one() {
    let mut pair = Pair::new();
    let Principal { tenant, user, .. } = pair.bob;
    let head = pair.world.shard.head();
    for (from, through) in [(Position(0), head), (head, Position(head.0 - 1)), (FIRST, head.next())] {
        let bounded = BoundedCatchUp { tenant, user, device: PHONE, from, through, newest: 1 };
        assert_eq!(pair.world.handle(Input::CatchUpBounded(bounded)), Some(Reply::CatchUpNoted));
        assert_eq!(pair.world.shard.head(), head);
        let record = CatchUpBounded { time: Timestamp(9_000), tenant, user, device: PHONE, from, through, newest: 1 };
        let contradiction = Contradiction::Range { what: "window", id: through.0 };
        let error = pair.world.shard.apply(&record.into(), &mut Effects::default());
        assert_eq!(error, Err(ApplyError { position: head.next(), contradiction }));
    }
}
