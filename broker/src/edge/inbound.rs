//! What comes from clients: events of connections, frames on the control and publish streams.

use std::time::Duration;

use carillon_core::input::{Input, Principal, Request};
use carillon_protocol::Frame;
use carillon_protocol::error::{Done, Error, ErrorCode};
use carillon_protocol::frame::{Body, FrameError, RawFrame, Text};
use carillon_protocol::limits::{
    CURSORS_MAX, ERROR_TEXT_BYTES_MAX, FRAME_BYTES_MAX, HELLO_BYTES_MAX, REQUESTS_PENDING_MAX,
};
use carillon_protocol::publish::Publish;
use carillon_protocol::session::{Ack, Hello, Refresh, VERSION};
use carillon_transport::{Direction, Event, Link, LinkKey, Read, StreamClosed, StreamId};

use super::auth::TokenRefused;
use super::limits::{HELLO_TIMEOUT_MS, Limits, PUBLISH_BYTES_IN_FLIGHT_MAX, READ_CHUNK_BYTES, REFRESHES_A_TICK_MAX};
use super::requests::Asked;
use super::session::{Attaching, Channel, Phase, Session};
use super::{Edge, Links, online, requests};
use crate::sequencer::Submission;

/// Priority of the control and publish streams' replies: between the urgent lane and the inbox.
const PRIORITY_REPLIES: i32 = 2;

/// Which of a client's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Control,
    Publish,
}

/// What ends a connection.
pub(super) type Cause = (ErrorCode, String);

impl Session {
    pub(super) fn channel(&mut self, which: Which) -> Option<&mut Channel> {
        match which {
            Which::Control => self.control.as_mut(),
            Which::Publish => self.publish.as_deref_mut(),
        }
    }

    fn which(&self, stream: StreamId) -> Option<Which> {
        let is = |channel: Option<&Channel>| channel.is_some_and(|channel| channel.stream == stream);
        if is(self.control.as_ref()) {
            Some(Which::Control)
        } else if is(self.publish.as_deref()) {
            Some(Which::Publish)
        } else {
            None
        }
    }

    /// Whether the stream may not be read on now; whatever ends the pause resumes it.
    fn pauses(&self, which: Which, limits: &Limits) -> bool {
        let unread = |channel: &Channel| channel.out.bytes() > limits.reply_bytes_pause;
        match which {
            Which::Control => matches!(self.phase, Phase::Attaching(_)) || self.control.as_ref().is_some_and(unread),
            Which::Publish => {
                self.identity().is_none()
                    || self.publishes.count() >= limits.publishes_in_flight_max
                    || self.publishes.bytes() >= PUBLISH_BYTES_IN_FLIGHT_MAX
                    || self.publish.as_deref().is_some_and(unread)
            }
        }
    }
}

impl Edge {
    pub(super) fn handle_event<L: Links>(&mut self, links: &mut L, event: Event) {
        match event {
            Event::Connected { link } => {
                let until = self.parts.clock.now() + Duration::from_millis(HELLO_TIMEOUT_MS);
                self.sessions.insert(Session::new(link, until));
            }
            Event::Opened { link, stream, direction } => self.handle_opened(links, link, stream, direction),
            Event::Readable { link, stream } => {
                let which = self.sessions.at_key(link).and_then(|session| session.which(stream));
                if let Some(which) = which {
                    self.read(links, link, which);
                }
            }
            Event::Writable { link, stream } => self.handle_writable(links, link, stream),
            Event::Stopped { link, .. } => {
                self.close_for_cause(
                    links,
                    link,
                    ErrorCode::UNEXPECTED_FRAME,
                    "a stream the session needs was stopped",
                );
            }
            Event::Closed { link, reason } => {
                tracing::debug!(?link, ?reason, "connection ended");
                self.count_end(&reason);
                self.forget(link);
            }
            Event::Datagram { link, bytes } => self.handle_datagram(links, link, bytes),
            // More streams allowed: a session without room for its lanes was closed already.
            Event::Available { .. } => {}
        }
    }

    fn handle_opened<L: Links>(&mut self, links: &mut L, key: LinkKey, stream: StreamId, direction: Direction) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let which = match direction {
            Direction::Bidirectional if session.control.is_none() => {
                session.control = Some(Channel::new(stream, HELLO_BYTES_MAX));
                Which::Control
            }
            Direction::Bidirectional if session.publish.is_none() => {
                session.publish = Some(Box::new(Channel::new(stream, FRAME_BYTES_MAX)));
                Which::Publish
            }
            Direction::Bidirectional | Direction::Unidirectional => {
                let text = "a client opens a control stream and a publish stream, no other";
                return self.close_for_cause(links, key, ErrorCode::UNEXPECTED_FRAME, text);
            }
        };
        if let Some(mut link) = links.link(key) {
            link.set_priority(stream, PRIORITY_REPLIES);
        }
        self.read(links, key, which);
    }

    /// Reads a stream's frames until there are none, the session pauses, or its share of the turn is used up.
    pub(super) fn read<L: Links>(&mut self, links: &mut L, key: LinkKey, which: Which) {
        match self.read_frames(links, key, which) {
            Ok(()) => {}
            Err((code, text)) => self.close_for_cause(links, key, code, &text),
        }
    }

    fn read_frames<L: Links>(&mut self, links: &mut L, key: LinkKey, which: Which) -> Result<(), Cause> {
        let limits = self.limits;
        let mut budget = limits.read_bytes_a_turn;
        loop {
            let draining = self.draining;
            let full = self.reserved >= limits.replies_reserved_max
                || match which {
                    Which::Control => self.is_full_of_received(),
                    Which::Publish => self.stalled.is_some(),
                };
            let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
            let pauses = session.pauses(which, &limits);
            let Some(channel) = session.channel(which) else { return Ok(()) };
            if pauses || full || draining || budget == 0 {
                channel.unread = true;
                if !pauses && !draining {
                    self.resume(key);
                }
                return Ok(());
            }
            if let Some(raw) = channel.decoder.poll_frame().map_err(malformed)? {
                self.handle_frame(links, key, which, &raw)?;
                continue;
            }
            let stream = channel.stream;
            let Some(mut link) = links.link(key) else { return Ok(()) };
            let read = link.read(stream, READ_CHUNK_BYTES);
            drop(link);
            match read {
                Ok(Read::Data(bytes)) => {
                    budget = budget.saturating_sub(bytes.len());
                    channel.decoder.push(bytes);
                }
                // Gone: its end was read before, and an event that came with it says so again.
                Ok(Read::Blocked) | Err(StreamClosed::Gone) => {
                    channel.unread = false;
                    return Ok(());
                }
                Ok(Read::Finished) => return self.handle_finished(links, key, which),
                Err(error) => return Err((ErrorCode::UNEXPECTED_FRAME, format!("{which:?} stream: {error}"))),
            }
        }
    }

    fn handle_finished<L: Links>(&mut self, links: &mut L, key: LinkKey, which: Which) -> Result<(), Cause> {
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        if let Some(channel) = session.channel(which) {
            channel.unread = false;
            if !channel.decoder.is_empty() {
                return Err((ErrorCode::MALFORMED, format!("the {which:?} stream ends inside a frame")));
            }
        }
        // Without a publish stream a session lives on; without its control stream it is over.
        if which == Which::Control {
            self.close(links, key, ErrorCode::NONE, "the control stream ended");
        }
        Ok(())
    }

    /// Puts a session on the list of those to be read on in the next turn.
    pub(super) fn resume(&mut self, key: LinkKey) {
        if let Some(session) = self.sessions.at_key(key)
            && !session.resuming
        {
            session.resuming = true;
            self.resuming.push_back(key);
        }
    }

    pub(super) fn resume_reading<L: Links>(&mut self, links: &mut L) {
        for _ in 0..self.resuming.len() {
            let Some(key) = self.resuming.pop_front() else { break };
            // Once for both streams: each may put the session back on the list, which must not grow by that.
            if let Some(session) = self.sessions.at_key(key) {
                session.resuming = false;
            }
            for which in [Which::Control, Which::Publish] {
                let Some(session) = self.sessions.at_key(key) else { break };
                if session.channel(which).is_some_and(|channel| channel.unread) {
                    self.read(links, key, which);
                }
            }
        }
    }

    fn handle_frame<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        which: Which,
        raw: &RawFrame,
    ) -> Result<(), Cause> {
        if which == Which::Publish {
            return self.handle_publish(key, raw);
        }
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        match &session.phase {
            Phase::AwaitingHello { .. } => self.handle_hello(key, raw),
            Phase::Attached(_) => self.handle_control(links, key, raw),
            Phase::Attaching(_) => unreachable!("the control stream pauses while the session attaches"),
        }
    }

    fn handle_hello(&mut self, key: LinkKey, raw: &RawFrame) -> Result<(), Cause> {
        if raw.kind != Hello::KIND {
            return Err((ErrorCode::UNEXPECTED_FRAME, "the first frame is Hello".into()));
        }
        let hello = Hello::decode(raw).map_err(malformed)?;
        if hello.version != VERSION {
            let text = format!("version {} is not spoken here, {VERSION} is", hello.version);
            return Err((ErrorCode::UNSUPPORTED_VERSION, text));
        }
        if hello.cursors.len() > CURSORS_MAX {
            return Err((ErrorCode::MALFORMED, format!("more than {CURSORS_MAX} cursors")));
        }
        let now = self.now();
        let identity = self.parts.authenticator.verify(hello.token.as_str(), now).map_err(|refused| {
            let code = match refused {
                TokenRefused::TooLong => ErrorCode::MALFORMED,
                TokenRefused::Expired(_) => ErrorCode::TOKEN_EXPIRED,
                TokenRefused::Invalid(_) | TokenRefused::Role(_) => ErrorCode::UNAUTHENTICATED,
            };
            (code, refused.to_string())
        })?;
        let from = self.origin(key);
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        session.phase = Phase::Attaching(Box::new(Attaching {
            hello,
            tenant: identity.tenant,
            handle: identity.handle,
            authority: identity.authority,
            expires_at: identity.expires_at,
        }));
        if let Some(control) = &mut session.control {
            control.decoder.raise_frame_bytes_max(FRAME_BYTES_MAX);
        }
        if let Some(attach) = session.attach() {
            self.reserved += 1;
            self.submit(Submission::Input { from, input: Input::Attach(attach) });
        }
        Ok(())
    }

    fn handle_control<L: Links>(&mut self, links: &mut L, key: LinkKey, raw: &RawFrame) -> Result<(), Cause> {
        let frame = Frame::decode(raw).map_err(malformed)?;
        match frame {
            Frame::Ack(ack) => self.handle_ack(key, ack),
            Frame::Refresh(refresh) => self.handle_refresh(links, key, &refresh),
            Frame::DingReceived(received) => {
                self.note_received(key, received.ding);
                Ok(())
            }
            other => match online::parse(other) {
                Ok(request) => self.handle_online(links, key, request),
                Err(other) => self.handle_request(links, key, *other),
            },
        }
    }

    fn handle_request<L: Links>(&mut self, links: &mut L, key: LinkKey, frame: Frame) -> Result<(), Cause> {
        let (id, request) = requests::parse(frame).map_err(|frame| unexpected(&frame, "control"))?;
        checked_request_id(id)?;
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        let Some(who) = session.identity().map(|identity| identity.who) else { return Ok(()) };
        if session.requests_pending >= REQUESTS_PENDING_MAX {
            let text = format!("{REQUESTS_PENDING_MAX} requests wait already: await a reply first");
            let error = Error { request: id, code: ErrorCode::BUSY, text: text.as_str().into() };
            self.write_reply(links, key, Which::Control, &error.into());
            return Ok(());
        }
        session.requests_pending += 1;
        self.meter.requests.add(1);
        match request {
            Asked::MarkRead(mark) => self.submit_mark(key, who, mark),
            Asked::Shard(request) => self.submit_request(key, who, request),
            Asked::DingCreate(create) => self.submit_ding(key, who, create),
            Asked::DingRemind(remind) => self.submit_reminder(key, who, remind),
            Asked::DingWatch(watch) => self.handle_watch(links, key, watch),
            Asked::History(query) => self.handle_history(links, key, query),
            Asked::ReadStatus(query) => self.handle_read_status(key, query),
        }
        Ok(())
    }

    pub(super) fn submit_request(&mut self, key: LinkKey, who: Principal, request: Request) {
        let from = self.origin(key);
        self.reserved += 1;
        self.submit(Submission::Input { from, input: Input::Request { who, request } });
    }

    fn handle_ack(&mut self, key: LinkKey, ack: Ack) -> Result<(), Cause> {
        let shard = self.parts.shard;
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        if ack.shard != shard || ack.position > session.inbox.sent {
            let text = format!("acknowledged {} of shard {}, sent was {}", ack.position, ack.shard, session.inbox.sent);
            return Err((ErrorCode::ACK_INVALID, text));
        }
        if ack.receipts_through > session.inbox.receipts_sent {
            let text = format!("read updates acknowledged through {}, beyond what was sent", ack.receipts_through);
            return Err((ErrorCode::ACK_INVALID, text));
        }
        session.acked = session.acked.max(Some(ack.position));
        Ok(())
    }

    fn handle_refresh<L: Links>(&mut self, links: &mut L, key: LinkKey, refresh: &Refresh) -> Result<(), Cause> {
        checked_request_id(refresh.request)?;
        let now = self.now();
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        session.refreshes += 1;
        if session.refreshes > REFRESHES_A_TICK_MAX {
            let (request, code) = (refresh.request, ErrorCode::BUSY);
            let busy = Error { request, code, text: "fewer refreshes: a token lasts longer than that".into() };
            self.write_reply(links, key, Which::Control, &busy.into());
            return Ok(());
        }
        let verified = self.parts.authenticator.verify(refresh.token.as_str(), now);
        let Phase::Attached(identity) = &mut session.phase else { return Ok(()) };
        let mut code = ErrorCode::UNAUTHENTICATED;
        let refused = match verified {
            Ok(fresh) if fresh.tenant != identity.tenant || fresh.handle != identity.handle => {
                Some("the new token is for another user: open another session".to_owned())
            }
            Ok(fresh) if fresh.authority != identity.who.authority => {
                Some("the new token has another role: open another session".to_owned())
            }
            Ok(fresh) => {
                identity.expires_at = identity.expires_at.max(fresh.expires_at);
                None
            }
            Err(TokenRefused::TooLong) => {
                code = ErrorCode::TOO_LARGE;
                Some(TokenRefused::TooLong.to_string())
            }
            Err(refused) => Some(refused.to_string()),
        };
        let request = refresh.request;
        let reply = match refused {
            None => Done { request }.into(),
            Some(text) => Error { request, code, text: for_people(&text) }.into(),
        };
        self.write_reply(links, key, Which::Control, &reply);
        Ok(())
    }

    fn handle_publish(&mut self, key: LinkKey, raw: &RawFrame) -> Result<(), Cause> {
        if raw.kind != Publish::KIND {
            let frame = Frame::decode(raw).map_err(malformed)?;
            return Err(unexpected(&frame, "publish"));
        }
        let publish = Publish::decode(raw).map_err(malformed)?;
        let from = self.origin(key);
        let Some(session) = self.sessions.at_key(key) else { return Ok(()) };
        let Some(identity) = session.identity() else { return Ok(()) };
        let input = Input::Publish { who: identity.who, producer: identity.producer, publish };
        session.publishes.begin(raw.bytes.len());
        self.meter.publishes.add(1);
        self.reserved += 1;
        if let Err(back) = self.parts.submit.publish(Submission::Input { from, input }) {
            self.stalled = Some(*back);
        }
        Ok(())
    }
}

/// A text that may hold what a token says, at the length that the protocol promises.
fn for_people(text: &str) -> Text {
    text[..text.floor_char_boundary(ERROR_TEXT_BYTES_MAX)].into()
}

pub(super) fn checked_request_id(request: u32) -> Result<(), Cause> {
    if request == 0 {
        return Err((ErrorCode::MALFORMED, "a request's id is above 0".into()));
    }
    Ok(())
}

fn unexpected(frame: &Frame, stream: &str) -> Cause {
    (ErrorCode::UNEXPECTED_FRAME, format!("{} may not come on the {stream} stream now", frame.name()))
}

#[allow(clippy::needless_pass_by_value, reason = "it is used as a function of map_err")]
pub(super) fn malformed(error: FrameError) -> Cause {
    let code = match error {
        FrameError::TooLarge { .. } => ErrorCode::FRAME_TOO_LARGE,
        _ => ErrorCode::MALFORMED,
    };
    (code, error.to_string())
}
