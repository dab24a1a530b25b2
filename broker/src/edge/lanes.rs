//! What goes to a session: replies, and the lanes urgent and inbox.

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::Position;
use carillon_protocol::kinds::Lane;
use carillon_protocol::session::LaneOpened;
use carillon_transport::{Link, LinkKey, Room, StreamId};

use super::catchup::CatchUp;
use super::inbound::Which;
use super::limits::URGENT_BYTES_MAX;
use super::session::{Feed, Outbox, Weight};
use super::{Edge, Links};
use carillon_core::effect::Signal;

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
            let channels = [session.control.as_mut(), session.publish.as_deref_mut()];
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
