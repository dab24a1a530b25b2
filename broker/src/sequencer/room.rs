//! What is refused while the journal's disk has no room. A policy that stands before the shard: what it refuses makes no record,
//! and what makes none is never refused.

use std::collections::BTreeMap;

use carillon_core::Shard;
use carillon_core::effect::Reply;
use carillon_core::input::{Input, Request};
use carillon_protocol::error::{Error, ErrorCode};
use carillon_protocol::publish::{Publish, PublishRefused};

use super::Origin;
use crate::journal::Room;

const TEXT: &str = "the broker's disk has no room: nothing was done; try again later, its operator has been told";

/// What an input does to a journal that may not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// No record, or one that must not be lost: what was begun goes on.
    Must,
    /// A small record that people wait for.
    Small,
    /// It makes the journal grow, or has it grow later.
    Growth,
}

impl Weight {
    fn may(self, room: Room) -> bool {
        match room {
            Room::Enough => true,
            Room::Reserve => self < Self::Growth,
            Room::Last => self < Self::Small,
        }
    }
}

/// How much room there is, and who was refused for want of it.
#[derive(Debug, Default)]
pub(super) struct Scarcity {
    room: Room,
    /// The lowest publish of a session that was refused and has not come again. Bounded by the sessions of all edges.
    refused: BTreeMap<Origin, u64>,
}

impl Scarcity {
    /// Takes note of the room that there is. Who makes files ready tells of its coming and going; here the rest is told.
    pub(super) fn note(&mut self, room: Room) {
        let before = std::mem::replace(&mut self.room, room);
        if room == Room::Last && before != Room::Last {
            tracing::error!(
                "half of the journal's reserve is used: receipts and new devices are refused too, only open DINGs go on; free \
                 room on its disk, or the broker ends when it is used up"
            );
        } else if before == Room::Last && room != Room::Last {
            tracing::warn!(room = room.name(), "there is a little more room for the journal again");
        }
    }

    /// Whether cursors, which are advisory, may be noted.
    pub(super) fn may_note_cursors(&self) -> bool {
        Weight::Small.may(self.room)
    }

    /// The session is gone.
    pub(super) fn detach(&mut self, origin: Origin) {
        self.refused.remove(&origin);
    }

    /// The refusal of an input that there is no room for.
    pub(super) fn refuse(&mut self, shard: &Shard, from: Origin, input: &Input) -> Option<Reply> {
        if self.room == Room::Enough && self.refused.is_empty() {
            return None;
        }
        match input {
            Input::Publish { who, producer, publish } => {
                let is_new = shard.is_new_publish(*who, *producer, publish);
                (!self.takes(from, publish, is_new)).then(|| {
                    let refused =
                        PublishRefused { number: publish.number, code: ErrorCode::NO_ROOM, text: TEXT.into() };
                    Reply::Frame(refused.into())
                })
            }
            Input::Request { who, request } => {
                let repeats = match request {
                    Request::DingCreate(create, _) => shard.knows_ding_key(*who, create.key),
                    _ => false,
                };
                (!repeats && !weight(request).may(self.room)).then(|| {
                    let error = Error { request: request.number(), code: ErrorCode::NO_ROOM, text: TEXT.into() };
                    Reply::Frame(error.into())
                })
            }
            Input::Attach(attach) => {
                let refused = !Weight::Small.may(self.room) && !shard.knows_session(attach);
                refused.then_some(Reply::AttachRefused { code: ErrorCode::SESSIONS_EXHAUSTED, text: TEXT })
            }
            Input::Cursors(_)
            | Input::CatchUpBounded(_)
            | Input::DingsReceived(_)
            | Input::OutletResults(_)
            | Input::OutletReport(_)
            | Input::Tick => None,
        }
    }

    /// Whether a publish may be recorded. So that the order holds, nothing new is taken behind a refused one until that has
    /// come again, or was settled otherwise.
    fn takes(&mut self, from: Origin, publish: &Publish, is_new: bool) -> bool {
        let lowest = self.refused.get(&from).copied().filter(|lowest| publish.low <= *lowest);
        if !is_new {
            // It is answered for good, as before or otherwise.
            if lowest.is_none_or(|lowest| lowest == publish.number) {
                self.refused.remove(&from);
            }
            return true;
        }
        if lowest.is_some_and(|lowest| publish.number > lowest) {
            return false;
        }
        if Weight::Growth.may(self.room) {
            // One below it leaves it refused.
            if lowest.is_none_or(|lowest| lowest == publish.number) {
                self.refused.remove(&from);
            }
            return true;
        }
        self.refused.insert(from, publish.number);
        false
    }
}

fn weight(request: &Request) -> Weight {
    match request {
        Request::ReadStatus(..)
        | Request::DingStatus(_)
        | Request::DingAttemptList(_)
        | Request::DingList(_)
        | Request::DingWatch(_)
        | Request::ConversationFind(_)
        | Request::ConversationList(_)
        | Request::MemberList(_)
        | Request::UserLookup(_)
        | Request::DingConfirm(_)
        | Request::DingRecall(_) => Weight::Must,
        Request::MarkRead(_) | Request::Retire(_) => Weight::Small,
        Request::UserFind(find) if find.create == 0 => Weight::Must,
        Request::UserFind(_)
        | Request::DingCreate(..)
        | Request::DingRemind(..)
        | Request::ConversationCreate(_)
        | Request::MembersAdd(_)
        | Request::MembersRemove(_)
        | Request::Leave(_) => Weight::Growth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequencer::EdgeId;
    use bytes::Bytes;
    use carillon_protocol::kinds::{MessageKind, Target};
    use carillon_transport::LinkKey;

    fn origin(index: u32) -> Origin {
        Origin { edge: EdgeId(0), link: LinkKey { index, generation: 0 } }
    }

    /// Publishes, each with its number, its low, whether it is new, and whether it should be taken.
    fn check(scarcity: &mut Scarcity, publishes: &[(u64, u64, bool, bool)]) {
        for (number, low, is_new, taken) in publishes {
            let publish = Publish {
                number: *number,
                low: *low,
                target: Target::USER,
                target_id: 1,
                kind: MessageKind::TEXT,
                payload: Bytes::new(),
            };
            assert_eq!(scarcity.takes(origin(1), &publish, *is_new), *taken, "publish {number} with low {low}");
        }
    }

    fn scarcity(room: Room) -> Scarcity {
        Scarcity { room, ..Scarcity::default() }
    }

    #[test]
    fn nothing_new_is_taken_behind_a_refused_publish_until_that_has_come_again() {
        let mut scarcity = scarcity(Room::Reserve);
        check(&mut scarcity, &[(5, 3, true, false), (6, 3, true, false)]);
        scarcity.room = Room::Enough;
        check(&mut scarcity, &[(7, 3, true, false), (5, 3, true, true), (6, 3, true, true), (7, 3, true, true)]);
        assert!(scarcity.refused.is_empty());
    }

    #[test]
    fn a_repeat_is_answered_and_lets_nothing_pass_that_is_refused() {
        let mut scarcity = scarcity(Room::Last);
        check(&mut scarcity, &[(5, 3, true, false), (4, 3, false, true), (9, 3, false, true), (6, 3, true, false)]);
        scarcity.room = Room::Enough;
        check(&mut scarcity, &[(6, 3, true, false)]);
    }

    #[test]
    fn a_refused_publish_that_is_given_up_holds_nobody_back() {
        // It is refused for good when it comes again.
        let mut first = scarcity(Room::Reserve);
        check(&mut first, &[(5, 3, true, false)]);
        first.room = Room::Enough;
        check(&mut first, &[(5, 3, false, true), (6, 3, true, true)]);
        // Its producer has settled it.
        let mut second = scarcity(Room::Reserve);
        check(&mut second, &[(5, 3, true, false), (6, 6, true, false)]);
        second.room = Room::Enough;
        check(&mut second, &[(7, 6, true, false), (6, 6, true, true)]);
        // Its session is gone.
        let mut third = scarcity(Room::Reserve);
        check(&mut third, &[(5, 3, true, false)]);
        third.room = Room::Enough;
        third.detach(origin(1));
        check(&mut third, &[(6, 3, true, true)]);
        assert!(third.refused.is_empty());
    }

    #[test]
    fn a_lower_number_that_was_never_sent_comes_first_again() {
        let mut scarcity = scarcity(Room::Reserve);
        check(&mut scarcity, &[(5, 3, true, false), (4, 3, true, false)]);
        scarcity.room = Room::Enough;
        check(&mut scarcity, &[(5, 3, true, false), (4, 3, true, true), (5, 3, true, true)]);
    }

    #[test]
    fn a_lower_number_that_is_taken_lets_nothing_pass_that_is_refused() {
        let mut scarcity = scarcity(Room::Reserve);
        check(&mut scarcity, &[(5, 3, true, false)]);
        scarcity.room = Room::Enough;
        check(&mut scarcity, &[(4, 3, true, true), (6, 3, true, false), (5, 3, true, true), (6, 3, true, true)]);
        assert!(scarcity.refused.is_empty());
    }
}
