//! Who has read a message: the index says first who wrote it and where it lies, then the shard who has read it, then the index
//! when, and what bounded catch-ups offered. The edge waits for none of them.

use std::collections::BTreeMap;

use carillon_core::effect::ReadPage;
use carillon_core::input::{Request, Written};
use carillon_protocol::ids::{ConversationId, Position, Seq};
use carillon_protocol::kinds::ReadState;
use carillon_protocol::receipt::{ReadStatus, ReadStatusReply};
use carillon_transport::LinkKey;

use super::limits::NEWEST_A_PAGE_MAX;
use super::lookups::{Found, Question};
use super::{Edge, Links};
use crate::index::{Index, Lookup, LookupError, MessageAt};

impl Edge {
    /// The index is asked who wrote the message.
    pub(super) fn handle_read_status(&mut self, key: LinkKey, query: ReadStatus) {
        if let Some(Found::Written { query, written }) = self.ask(key, Question::Written(query)) {
            self.submit_read_status(key, query, written);
        }
    }

    /// Who wrote the message is known: the shard can tell who of the others has read it.
    pub(super) fn submit_read_status(&mut self, key: LinkKey, query: ReadStatus, written: Option<Written>) {
        let Some(who) = self.sessions.at_key(key).and_then(|s| s.identity().map(|identity| identity.who)) else {
            return;
        };
        self.submit_request(key, who, Request::ReadStatus(query, written));
    }

    /// Who has read is known, and durable: the index can tell when. What it says of that does not change any more.
    pub(super) fn complete_read_page<L: Links>(&mut self, links: &mut L, key: LinkKey, page: ReadPage) {
        if let Some(Found::ReadPage(reply)) = self.ask(key, Question::ReadPage(page)) {
            self.answer(links, key, &reply.into());
        }
    }
}

/// Who wrote a message, and where it lies; nobody when there is none, or retention has taken it.
pub(super) fn written(query: &ReadStatus, lookup: &impl Lookup) -> Result<Option<Written>, LookupError> {
    let mut places = Vec::with_capacity(1);
    lookup.places(query.conversation, query.seq, 1, &mut places)?;
    let place = places.first().filter(|place| place.seq == query.seq);
    Ok(place.map(|place| Written { author: place.author, position: place.position }))
}

/// The page with what the index knows: a look at the marks for each reader, and one at the message `newest` further on for
/// each such number.
pub(super) fn complete(index: &Index, lookup: &impl Lookup, page: &ReadPage) -> Result<ReadStatusReply, LookupError> {
    let ReadPage { reply, conversation, seq, position, unsure } = page;
    let mut reply = reply.clone();
    let mut readers: Vec<_> = reply.entries.iter_mut().filter(|entry| entry.state == ReadState::READ).collect();
    if !readers.is_empty() {
        let users: Vec<_> = readers.iter().map(|entry| entry.user).collect();
        let message = MessageAt { conversation: *conversation, seq: *seq, position: *position };
        let times = lookup.read_times(&message, &users)?;
        readers.iter_mut().zip(times).for_each(|(entry, time)| entry.read_at = time);
    }
    let mut known = BTreeMap::new();
    for unsure in unsure {
        if !known.contains_key(&unsure.newest) {
            // Every client asks for as many; who plays with it goes without.
            if known.len() == NEWEST_A_PAGE_MAX {
                continue;
            }
            let further = Seq(seq.0.saturating_add(u64::from(unsure.newest)));
            known.insert(unsure.newest, left_out_from(index, lookup, *conversation, further)?);
        }
        if known[&unsure.newest].is_none_or(|from| unsure.through < from) {
            reply.entries[unsure.entry].state = ReadState::DELIVERED;
        }
    }
    Ok(reply)
}

/// From which position on a catch-up leaves out the message for which this seq is the first too many; `None`: that is not there.
fn left_out_from(
    index: &Index,
    lookup: &impl Lookup,
    conversation: ConversationId,
    further: Seq,
) -> Result<Option<Position>, LookupError> {
    if index.last(conversation).0 < further {
        return Ok(None);
    }
    let mut places = Vec::with_capacity(1);
    lookup.places(conversation, further, 1, &mut places)?;
    // Retention has taken it meanwhile: then it was there long ago.
    let place = places.first().filter(|place| place.seq == further);
    Ok(Some(place.map_or(Position(0), |place| place.position)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::effect::Unsure;
    use carillon_protocol::ids::{Timestamp, UserId};
    use carillon_protocol::receipt::ReadEntry;

    const CONVERSATION: ConversationId = ConversationId(1);

    /// Ten messages at the even positions.
    fn index() -> Index {
        let index = Index::new();
        for seq in 1..=10 {
            index.append(CONVERSATION, Seq(seq), Position(2 * seq), UserId(0));
        }
        index
    }

    /// The state of a message for a device that was offered the newest so many as of a position.
    fn check(seq: u64, newest: u32, through: u64, expected: ReadState) {
        let entry = |user| {
            let (read_up_to, read_at, state) = (Seq(0), Timestamp(0), ReadState::NOT_DELIVERED);
            ReadEntry { user: UserId(user), read_up_to, read_at, state }
        };
        let page = ReadPage {
            reply: ReadStatusReply {
                request: 1,
                read: 0,
                unread: 2,
                next: UserId(u32::MAX),
                entries: vec![entry(5), entry(6)],
            },
            conversation: CONVERSATION,
            seq: Seq(seq),
            position: Position(2 * seq),
            unsure: vec![Unsure { entry: 1, newest, through: Position(through) }],
        };
        let index = index();
        let reply = complete(&index, &index.recent(), &page).unwrap();
        let states = reply.entries.iter().map(|entry| entry.state).collect::<Vec<_>>();
        assert_eq!(states, [ReadState::NOT_DELIVERED, expected], "message {seq} of the newest {newest} at {through}");
    }

    #[test]
    fn a_device_was_offered_the_newest_of_its_time() {
        // As of 13 there were six messages.
        check(4, 3, 13, ReadState::DELIVERED);
        check(3, 3, 13, ReadState::NOT_DELIVERED);
        check(4, 3, 14, ReadState::NOT_DELIVERED);
        check(10, 1, 20, ReadState::DELIVERED);
        check(9, 1, 20, ReadState::NOT_DELIVERED);
        check(1, u32::MAX, 20, ReadState::DELIVERED);
    }
}
