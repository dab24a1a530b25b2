//! Read marks as they are committed: to the sessions that are live with them.
//!
//! A mark goes to the reader's own devices and, in small conversations that name readers, to those who wrote what was read. In
//! others these are told how many have read, soon. Who wrote it is looked up in memory alone; where that does not say it of
//! everything, those who may have written it are asked for at the shard, which knows.

use bytes::Bytes;
use carillon_core::effect::Signal;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Position, UserId};
use carillon_protocol::kinds::ReceiptPolicy;
use carillon_protocol::receipt::ReadUpdate;
use carillon_transport::LinkKey;

use super::counts::Moved;
use super::receipts::Told;
use super::{Edge, Links};

impl Edge {
    /// Tells a read mark to the sessions that are live, or to `only` one, whose user was a member then.
    pub(super) fn tell_read<L: Links>(&mut self, links: &mut L, signal: &Signal, only: Option<(LinkKey, UserId)>) {
        let Signal::Read { position, tenant, conversation, user, from, up_to, members, receipts } = *signal else {
            return;
        };
        // Most marks of a shard concern nobody on this edge.
        let is_here = self.interest.audience(conversation).is_some() || self.interest.user(tenant, user).is_some();
        if only.is_none() && !is_here {
            return;
        }
        let mut told: Vec<UserId> = vec![user];
        if receipts == ReceiptPolicy::ON && members <= self.limits.receipts_live_members_max {
            let (authors, all) = self.parts.index.authors(conversation, from, up_to);
            told.extend(authors.into_iter().filter(|author| *author != user));
            if !all {
                self.leave_to_shard(conversation, position, (Some(user), only));
            }
        } else if receipts != ReceiptPolicy::OFF && only.is_none_or(|(_, of)| of != user) {
            let moved = Moved { tenant, reader: Some(user), from, up_to, first: position, position };
            self.note_moved(conversation, moved, only);
        }
        told.retain(|user| only.is_none_or(|(_, of)| of == *user));
        let through = self.told_through(position);
        let update = ReadUpdate { conversation, user, read_up_to: up_to, position, through }.to_bytes();
        for user in told {
            // Stale stints tell nothing: the sessions are behind, and will be told.
            let known = self.interest.user(tenant, user).filter(|known| known.was_member(conversation, position));
            for index in known.map(|known| known.sessions.clone()).unwrap_or_default() {
                let key = self.sessions.at(index).map(|session| session.key);
                if let Some(key) = key.filter(|key| only.is_none_or(|(only, _)| only == *key)) {
                    self.push_receipt(links, key, (position, through), update.clone());
                }
            }
        }
    }

    /// The members here are behind from a mark on, but for the reader itself, or `only` one of them is: some of what was passed is not in
    /// memory and may be anybody's, or too many are to be told.
    pub(super) fn leave_to_shard(
        &mut self,
        conversation: ConversationId,
        position: Position,
        (reader, only): (Option<UserId>, Option<(LinkKey, UserId)>),
    ) {
        let since = self.told_through(Position(position.0 - 1));
        if let Some((key, user)) = only {
            if Some(user) != reader {
                self.fall_behind_receipts(key, since);
                self.list_behind(key);
            }
            return;
        }
        let Some(audience) = self.interest.audience(conversation).cloned() else { return };
        for index in audience.iter() {
            let Some(session) = self.sessions.at(*index) else { continue };
            let is_reader = session.identity().is_some_and(|identity| Some(identity.who.user) == reader);
            let key = session.key;
            if !is_reader {
                self.fall_behind_receipts(key, since);
                self.list_behind(key);
            }
        }
    }

    /// Tells a live session of a mark; one whose inbox takes no more is told later what has moved.
    fn push_receipt<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        (position, through): (Position, Position),
        update: Bytes,
    ) {
        let since = self.told_through(Position(position.0 - 1));
        let Some(session) = self.sessions.at_key(key) else { return };
        // A device that was answered by a shard that is ahead of this edge has it already.
        let Told::Live { after } = session.inbox.told else { return };
        if position <= after {
            return;
        }
        if session.inbox.receipts.len() >= self.limits.receipts_waiting_max {
            self.stats.receipts_let_go += 1;
            return self.fall_behind_receipts(key, since);
        }
        session.inbox.note_told(position, through);
        session.inbox.keep_receipt(through, update);
        self.tell_paced(links, key);
    }

    /// Writes an update on the inbox, or keeps it until there is room.
    pub(super) fn queue_receipt<L: Links>(&mut self, links: &mut L, key: LinkKey, through: Position, update: Bytes) {
        let Some(session) = self.sessions.at_key(key) else { return };
        session.inbox.keep_receipt(through, update);
        if !session.inbox.blocked {
            self.flush_inbox(links, key);
        }
    }
}
