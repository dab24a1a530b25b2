//! What goes to a session: replies, and the lanes urgent and inbox.

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{Position, UserId};
use carillon_protocol::kinds::{Lane, ReceiptPolicy};
use carillon_protocol::receipt::ReadUpdate;
use carillon_protocol::session::LaneOpened;
use carillon_transport::{Link, LinkKey, Room, StreamId};

use super::catchup::CatchUp;
use super::counts::Moved;
use super::inbound::Which;
use super::limits::URGENT_BYTES_MAX;
use super::receipts::Told;
use super::session::{Feed, Outbox, Weight};
use super::{Edge, Links};
use carillon_core::effect::{Signal, StintView};

const PRIORITY_URGENT: i32 = 3;
const PRIORITY_INBOX: i32 = 1;

impl Edge {
    /// The reply to a request or publish: its room is free again, and its stream may be read on.
    pub(super) fn answer<L: Links>(&mut self, links: &mut L, key: LinkKey, frame: &Frame) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let which = match frame {
            Frame::Published(_) | Frame::PublishRefused(_) => {
                session.publishes.settle_oldest();
                Which::Publish
            }
            _ => {
                session.requests_pending -= 1;
                Which::Control
            }
        };
        let unread = session.channel(which).is_some_and(|channel| channel.unread);
        self.write_reply(links, key, which, frame);
        if unread {
            self.resume(key);
        }
    }

    /// Writes a frame on a stream the client opened, behind what waits there.
    pub(super) fn write_reply<L: Links>(&mut self, links: &mut L, key: LinkKey, which: Which, frame: &Frame) {
        self.count_reply(frame);
        self.scratch.clear();
        frame.encode(&mut self.scratch);
        let bytes = self.pinned.pin(Bytes::copy_from_slice(&self.scratch), self.scratch.len());
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(channel) = session.channel(which) else { return };
        let Some(mut link) = links.link(key) else { return };
        if channel.out.write(&mut link, channel.stream, bytes, Room::Reserved, Weight::Own).is_err() {
            drop(link);
            self.lost_stream(links, key);
        }
    }

    pub(super) fn lost_stream<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        self.close_for_cause(links, key, ErrorCode::UNEXPECTED_FRAME, "a stream the session needs was stopped");
    }

    pub(super) fn handle_writable<L: Links>(&mut self, links: &mut L, key: LinkKey, stream: StreamId) {
        let Some(session) = self.sessions.at_key(key) else { return };
        if session.inbox.stream == Some(stream) {
            session.inbox.blocked = false;
            return self.flush_inbox(links, key);
        }
        let Some(mut link) = links.link(key) else { return };
        let outbox = if let Some((_, outbox)) = session.urgent.as_mut().filter(|(urgent, _)| *urgent == stream) {
            outbox
        } else if let Some(outbox) = session.bulk.outbox(stream) {
            let flushed = outbox.flush(&mut link, stream, Room::Shared);
            drop(link);
            return match flushed {
                Ok(()) => self.serve_history(links, key),
                Err(_) => self.lost_stream(links, key),
            };
        } else {
            let channels = [session.control.as_mut(), session.publish.as_mut()];
            let Some(channel) = channels.into_iter().flatten().find(|channel| channel.stream == stream) else { return };
            &mut channel.out
        };
        let flushed = outbox.flush(&mut link, stream, Room::Reserved);
        drop(link);
        match flushed {
            Ok(()) => self.resume(key),
            Err(_) => self.lost_stream(links, key),
        }
    }

    /// Opens the inbox lane of a session that was just attached; false if the client allows no stream.
    pub(super) fn open_inbox<L: Links>(&mut self, links: &mut L, key: LinkKey) -> bool {
        let Some(stream) = links.link(key).and_then(|mut link| link.open_uni(PRIORITY_INBOX)) else { return false };
        let Some(session) = self.sessions.at_key(key) else { return false };
        session.inbox.stream = Some(stream);
        session.inbox.remainder = LaneOpened { lane: Lane::INBOX }.to_bytes();
        self.flush_inbox(links, key);
        true
    }

    /// Pushes a frame on the urgent lane, opened with the first one. What an attach brings is not weighed: it shares the
    /// bytes of the shard's open DINGs, and must all go out.
    pub(super) fn push_urgent<L: Links>(&mut self, links: &mut L, key: LinkKey, frame: Bytes, weight: Weight) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(mut link) = links.link(key) else { return };
        if session.urgent.is_none() {
            let Some(stream) = link.open_uni(PRIORITY_URGENT) else {
                drop(link);
                let text = "allow the broker three unidirectional streams";
                return self.close_for_cause(links, key, ErrorCode::UNEXPECTED_FRAME, text);
            };
            let mut outbox = Outbox::default();
            let header = LaneOpened { lane: Lane::URGENT }.to_bytes();
            // A closed stream shows again with the frame.
            outbox.write(&mut link, stream, header, Room::Reserved, Weight::Own).ok();
            session.urgent = Some((stream, outbox));
        }
        let Some((stream, outbox)) = &mut session.urgent else { return };
        let written = outbox.write(&mut link, *stream, frame, Room::Reserved, weight);
        let slow = outbox.bytes() > URGENT_BYTES_MAX;
        drop(link);
        if written.is_err() {
            self.lost_stream(links, key);
        } else if slow {
            self.close_for_cause(links, key, ErrorCode::SLOW, "the urgent lane is not read: reconnect to go on");
        }
    }

    /// Pushes an urgent frame to every session of these users here, but to those whose attach brought it.
    pub(super) fn push_urgent_to<L: Links>(&mut self, links: &mut L, signal: &Signal) {
        let Signal::Urgent { position, tenant, users, frame } = signal else { return };
        let frame = self.pinned.pin(frame.clone(), frame.len());
        for user in users {
            let Some(known) = self.interest.user(*tenant, *user) else { continue };
            for index in known.sessions.clone() {
                let Some(session) = self.sessions.at(index) else { continue };
                let key = session.key;
                if session.identity().is_some_and(|identity| identity.as_of < *position) {
                    self.push_urgent(links, key, frame.clone(), Weight::Own);
                }
            }
        }
    }

    /// Tells a read mark: to the reader's own devices and, in small conversations that name readers, to those who wrote what was
    /// read. In others these are told how many have read, soon.
    /// To the sessions that are live, or to `only` one.
    pub(super) fn tell_read<L: Links>(&mut self, links: &mut L, signal: &Signal, only: Option<LinkKey>) {
        let Signal::Read { position, tenant, conversation, user, from, up_to, members, receipts } = signal else {
            return;
        };
        let mut told: Vec<UserId> = vec![*user];
        if *receipts == ReceiptPolicy::ON && *members <= self.limits.receipts_live_members_max {
            let authors = self.parts.index.authors(*conversation, *from, *up_to);
            told.extend(authors.into_iter().filter(|author| author != user));
        } else if *receipts != ReceiptPolicy::OFF {
            self.note_moved(
                *conversation,
                Moved { tenant: *tenant, from: *from, up_to: *up_to, first: *position, position: *position },
            );
        }
        let (conversation, user, read_up_to, position) = (*conversation, *user, *up_to, *position);
        let through = self.told_through(position);
        let update = ReadUpdate { conversation, user, read_up_to, position, through }.to_bytes();
        for user in told {
            // Stale stints tell nothing: the sessions are behind, and will be told.
            let Some(known) = self.interest.user(*tenant, user).filter(|known| !known.stale) else { continue };
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

    /// Tells a live session of a mark; one whose inbox takes no more is told later what has moved.
    pub(super) fn push_receipt<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        (position, through): (Position, Position),
        update: Bytes,
    ) {
        let let_go_since = self.told_through(Position(position.0 - 1));
        let Some(session) = self.sessions.at_key(key) else { return };
        // A device that was answered by a shard that is ahead of this edge has it already.
        let Told::Live { after } = session.inbox.told else { return };
        if position <= after {
            return;
        }
        if session.inbox.receipts.len() >= self.limits.receipts_waiting_max {
            self.stats.receipts_let_go += 1;
            return self.fall_behind_receipts(key, let_go_since);
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

    /// Writes what waits on the inbox: the rest of a cut frame, then read updates. Then catching up may go on.
    pub(super) fn flush_inbox<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(mut link) = links.link(key) else { return };
        let inbox = &mut session.inbox;
        let Some(stream) = inbox.stream else { return };
        let mut lost = false;
        while !inbox.blocked && !lost {
            if inbox.remainder.is_empty() {
                let Some(next) = inbox.receipts.pop_front() else { break };
                inbox.remainder = next;
            }
            lost = link.write(stream, &mut inbox.remainder, Room::Shared).is_err();
            inbox.blocked = !inbox.remainder.is_empty();
        }
        let blocked = inbox.blocked;
        drop(link);
        if lost {
            return self.lost_stream(links, key);
        }
        if blocked {
            self.fall_behind(key, None);
        } else {
            self.schedule_catch_up(key);
            self.list_behind(key);
        }
    }

    /// Turns a live session to catching up: from `next`, or from where the rounds have left it.
    pub(super) fn fall_behind(&mut self, key: LinkKey, next: Option<Position>) {
        let resume_at = next.unwrap_or_else(|| self.resume_position(key.index));
        let Some(session) = self.sessions.at_key(key) else { return };
        if let Feed::Live { .. } = session.feed {
            session.feed = Feed::CatchingUp(Box::new(CatchUp::new(resume_at)));
            self.stats.fell_behind += 1;
        }
    }
}
