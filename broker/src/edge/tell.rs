//! Read marks as they are committed: to the sessions that are live with them.
//!
//! A mark goes to the reader's own devices and, in small conversations that name readers, to those who wrote what was read. In
//! others these are told how many have read, soon. Who wrote it is looked up in memory alone; where that does not say it of
//! everything, those who may have written it are asked for at the shard, which knows.

use bytes::Bytes;
use carillon_core::effect::{Signal, StintView};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Position, UserId};
use carillon_protocol::kinds::ReceiptPolicy;
use carillon_protocol::receipt::ReadUpdate;
use carillon_transport::LinkKey;

use super::counts::Moved;
use super::receipts::Told;
use super::{Edge, Links};

impl Edge {
    /// Tells a read mark to the sessions that are live, or to `only` one.
    pub(super) fn tell_read<L: Links>(&mut self, links: &mut L, signal: &Signal, only: Option<LinkKey>) {
        let Signal::Read { position, tenant, conversation, user, from, up_to, members, receipts } = *signal else {
            return;
        };
        let mut told: Vec<UserId> = vec![user];
        if receipts == ReceiptPolicy::ON && members <= self.limits.receipts_live_members_max {
            let (authors, all) = self.parts.index.authors(conversation, from, up_to);
            told.extend(authors.into_iter().filter(|author| *author != user));
            if !all {
                self.leave_to_shard(conversation, position, (user, only));
            }
        } else if receipts != ReceiptPolicy::OFF {
            self.note_moved(conversation, Moved { tenant, from, up_to, first: position, position });
        }
        let through = self.told_through(position);
        let update = ReadUpdate { conversation, user, read_up_to: up_to, position, through }.to_bytes();
        for user in told {
            // Stale stints tell nothing: the sessions are behind, and will be told.
            let Some(known) = self.interest.user(tenant, user).filter(|known| !known.stale) else { continue };
            // The stints may be newer than the mark: who joined after it is not told.
            let covers =
                |s: &StintView| s.joined.position < position && s.left.is_none_or(|left| position <= left.position);
            if !known.stints.iter().any(|s| s.conversation == conversation && covers(s)) {
                continue;
            }
            for index in known.sessions.clone() {
                let key = self.sessions.at(index).map(|session| session.key);
                if let Some(key) = key.filter(|key| only.is_none_or(|only| only == *key)) {
                    self.push_receipt(links, key, (position, through), update.clone());
                }
            }
        }
    }

    /// Some of what a mark passed is not in memory, and may be anybody's here but the reader's own: they are behind from it on.
    fn leave_to_shard(
        &mut self,
        conversation: ConversationId,
        position: Position,
        (reader, only): (UserId, Option<LinkKey>),
    ) {
        let since = self.told_through(Position(position.0 - 1));
        let Some(audience) = self.interest.audience(conversation).cloned() else { return };
        for index in audience.iter() {
            let Some(session) = self.sessions.at(*index) else { continue };
            let is_reader = session.identity().is_some_and(|identity| identity.who.user == reader);
            let key = session.key;
            if !is_reader && only.is_none_or(|only| only == key) {
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
        session.inbox.receipts_held_back |= through < position;
        self.queue_receipt(links, key, through, update);
    }

    /// Writes an update on the inbox, or keeps it until there is room.
    pub(super) fn queue_receipt<L: Links>(&mut self, links: &mut L, key: LinkKey, through: Position, update: Bytes) {
        let Some(session) = self.sessions.at_key(key) else { return };
        session.inbox.receipts.push_back(update);
        session.inbox.receipts_sent = session.inbox.receipts_sent.max(through);
        if !session.inbox.blocked {
            self.flush_inbox(links, key);
        }
    }
}
