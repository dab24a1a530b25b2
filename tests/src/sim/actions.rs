//! What happens in a run: one random action a step.

use bytes::{BufMut, Bytes, BytesMut};
use carillon_protocol::control::{ConversationCreate, Leave, MembersAdd, MembersRemove};
use carillon_protocol::ding::{DingConfirm, DingCreate, DingRecall};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, DeviceId, DingId, Incarnation, Position, Seq, UserId};
use carillon_protocol::kinds::{ConversationKind, MessageKind, PostPolicy, Role, Target};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;
use carillon_protocol::session::{Ack, Cursor, Hello, VERSION};

use super::ledger::{Ding, Who};
use super::parts::{PEOPLE, tokens};
use super::session::{CONTROL, News, PUBLISH, Session, Unsettled, bytes_of};
use super::shape::Action;
use super::world::{Outcome, SHARD, World, producer};

impl World {
    /// One step of the run.
    pub(super) fn act(&mut self) -> Outcome {
        self.now += 1;
        let action = self.shape.action(&mut self.rng);
        match action {
            Action::Turn => self.turn_any()?,
            Action::Step => self.step()?,
            Action::Read => self.read_any()?,
            Action::Uplink => {
                let bytes_max = self.rng.between(1, 200);
                if let Some(id) = self.any(|session| !session.uplink.is_empty()) {
                    self.send_up(id, bytes_max);
                }
            }
            Action::Answer => self.answer_read(),
            Action::Publish => self.publish_any(),
            Action::Burst => {
                for _ in 0..self.rng.between(3, 25) {
                    self.publish_any();
                }
            }
            Action::Connect => {
                let device = self.rng.below(self.devices.len());
                self.connect(device);
            }
            Action::Disconnect => {
                if let Some(id) = self.any(|_| true) {
                    self.disconnect(id);
                }
            }
            Action::Window => self.set_window_any(),
            Action::Tease => {
                if let Some(id) = self.any(|_| true) {
                    let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
                    self.stations[edge].links.tease(link);
                }
            }
            Action::Deafen => {
                let until = self.now + self.rng.between(5, 80);
                if let Some(id) = self.any(|_| true) {
                    self.session(id).deaf_until = until;
                }
            }
            Action::Stall => {
                let (nth, until) = (self.rng.below(2), self.now + self.rng.between(5, 60));
                self.stations[nth].stalled_until = until;
            }
            Action::Clock => {
                let ms = self.rng.pick(&[1, 1, 10, 100, 700, 1_100, 3_000, 11_000]);
                self.clock.advance(ms);
            }
            Action::Rest => self.rest()?,
            _ => self.ask_any(action),
        }
        Ok(())
    }

    /// A session that is such, if there is one.
    pub(super) fn any(&mut self, such: impl Fn(&Session) -> bool) -> Option<usize> {
        let ids: Vec<usize> =
            self.sessions.values().filter(|session| such(session)).map(|session| session.id).collect();
        if ids.is_empty() { None } else { Some(self.rng.pick(&ids)) }
    }

    pub(super) fn session(&mut self, id: usize) -> &mut Session {
        self.sessions.get_mut(&id).expect("it lives")
    }

    fn turn_any(&mut self) -> Outcome {
        let nth = self.rng.below(2);
        let events_max = if self.rng.percent(20) { self.rng.between(0, 3) } else { usize::MAX };
        if self.stations[nth].stalled_until > self.now { Ok(()) } else { self.turn(nth, events_max) }
    }

    fn answer_read(&mut self) {
        let waiting = self.bodies.waiting();
        if waiting > 0 {
            let nth = self.rng.below(waiting);
            self.bodies.answer(nth);
        }
    }

    fn set_window_any(&mut self) {
        let window = self.shape.window(&mut self.rng);
        if let Some(id) = self.any(|_| true) {
            let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
            self.stations[edge].links.set_window(link, window);
        }
    }

    fn read_any(&mut self) -> Outcome {
        let now = self.now;
        let Some(id) = self.any(|session| session.deaf_until <= now) else { return Ok(()) };
        let bytes_max = self.rng.pick(&[1, 20, 100, 1_000, 1 << 20]);
        let all = self.rng.percent(60);
        let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
        let streams = self.stations[edge].links.streams(link);
        for stream in streams {
            if all || self.rng.percent(40) {
                self.read(id, stream, bytes_max)?;
            }
        }
        Ok(())
    }

    /// The client reads of one stream, judges what it reads and perhaps stores it; returns how much there was.
    pub(super) fn read(
        &mut self,
        id: usize,
        stream: carillon_transport::StreamId,
        bytes_max: usize,
    ) -> Result<usize, String> {
        let Some(session) = self.sessions.get_mut(&id) else { return Ok(0) };
        let bytes = self.stations[session.edge].links.receive(session.link, stream, bytes_max);
        let count = bytes.len();
        if count == 0 {
            return Ok(0);
        }
        let device = &mut self.devices[session.device];
        let news = session.take(stream, bytes, device, &self.ledger).map_err(|why| format!("session {id}: {why}"))?;
        let line = (session.last, session.receipts);
        if self.rng.percent(80) {
            let stored = device.cursor.map_or((Position(0), Position(0)), |c| (c.position, c.receipts_through));
            let (position, receipts_through) = (stored.0.max(session.last), stored.1.max(session.receipts));
            device.cursor = Some(Cursor { shard: SHARD, incarnation: self.incarnation, position, receipts_through });
        }
        self.note(|| format!("session {id} reads {count} of {stream}: at {line:?}"));
        if let News::Welcomed = news {
            self.note_welcome(id);
            self.publish_again(id);
        }
        Ok(count)
    }

    /// A device connects to either edge. Its older session is told nothing.
    pub(super) fn connect(&mut self, device_at: usize) {
        let nth = self.rng.below(2);
        let window = self.shape.window(&mut self.rng);
        let device = &self.devices[device_at];
        let (person, hello_device, producer) = (device.person, DeviceId(device.id), producer(device));
        let mut cursor = device.cursor;
        if let (Some(id), true) = (device.current, self.rng.percent(50)) {
            self.disconnect(id);
        }
        let mut misbehaved = None;
        match self.rng.below(60) {
            0 | 1 => cursor = None,
            2 => {
                let position = Position(self.ledger.head.0 + 1_000);
                let incarnation = self.incarnation;
                cursor = Some(Cursor { shard: SHARD, incarnation, position, receipts_through: Position(0) });
                misbehaved = Some(ErrorCode::CURSOR_INVALID);
            }
            3 => {
                let (incarnation, position) = (Incarnation(8), Position(1));
                cursor = Some(Cursor { shard: SHARD, incarnation, position, receipts_through: Position(0) });
                misbehaved = Some(ErrorCode::CURSOR_INVALID);
            }
            _ => {}
        }
        let station = &mut self.stations[nth];
        let link = station.links.connect(window);
        station.links.open(link, CONTROL);
        let falls = station.edge.stats().fell_off_ring;
        let id = self.note_hello(device_at);
        let mut session = Session::new(id, nth, link, device_at, person);
        (session.last, session.receipts) =
            cursor.map_or((Position(0), Position(0)), |c| (c.position, c.receipts_through));
        session.connected_at_ms = self.clock.passed_ms();
        session.hello_at = self.now;
        session.misbehaved = misbehaved;
        session.falls = falls;
        let (start, handle) = (session.last, PEOPLE[person]);
        self.note(|| {
            format!(
                "session {id}: device {hello_device} of {handle:?} connects to edge {nth} as {link:?} after {start}"
            )
        });
        self.sessions.insert(id, session);
        self.devices[device_at].current = Some(id);
        let hello = Hello {
            version: VERSION,
            device: hello_device,
            producer,
            token: tokens().tokens[person].as_str().into(),
            client: "simulation".into(),
            cursors: cursor.into_iter().collect(),
        };
        self.send(id, CONTROL, &hello);
    }

    pub(super) fn disconnect(&mut self, id: usize) {
        let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
        self.note(|| format!("session {id} disconnects"));
        self.stations[edge].links.disconnect(link);
        self.forget(id);
    }

    /// Sends a frame, now or when the uplink lets it.
    pub(super) fn send(&mut self, id: usize, stream: carillon_transport::StreamId, frame: &impl Body) {
        self.session(id).uplink.push_back((stream, bytes_of(frame)));
        match self.rng.below(4) {
            0 => {}
            1 => {
                let bytes_max = self.rng.between(1, 100);
                self.send_up(id, bytes_max);
            }
            _ => {
                self.send_up(id, usize::MAX);
            }
        }
    }

    /// Bytes on their way arrive, at most so many; returns whether there were any.
    pub(super) fn send_up(&mut self, id: usize, bytes_max: usize) -> bool {
        let session = self.sessions.get_mut(&id).expect("it lives");
        let links = &mut self.stations[session.edge].links;
        let mut left = bytes_max;
        let any = !session.uplink.is_empty();
        while let Some((stream, mut bytes)) = session.uplink.pop_front() {
            let now = bytes.split_to(bytes.len().min(left));
            left -= now.len();
            if !now.is_empty() {
                links.send(session.link, stream, now);
            }
            if !bytes.is_empty() {
                session.uplink.push_front((stream, bytes));
                break;
            }
        }
        any
    }

    /// A device publishes on its newest session.
    fn publish_any(&mut self) {
        let is_open = |session: &Session| session.welcome.is_some();
        let Some(id) = self.any(is_open) else { return };
        let (device_at, who) = (self.sessions[&id].device, self.sessions[&id].who);
        let Some(who) = who else { return };
        let device = &self.devices[device_at];
        if device.current != Some(id) || device.unsettled.len() > 200 {
            return;
        }
        let (target, target_id) = match self.any_room(who) {
            Some(room) if self.rng.percent(80) => (Target::CONVERSATION, room.0),
            _ => {
                let users = self.ledger.users(who.0);
                (Target::USER, u64::from(self.rng.pick(&users).0))
            }
        };
        let stamp = self.next_stamp;
        self.next_stamp += 1;
        let payload_bytes = match self.rng.below(100) {
            0 => self.rng.between(20_000, 65_536),
            1..5 => self.rng.between(1_000, 5_000),
            _ => self.rng.between(8, 150),
        };
        let mut payload = BytesMut::with_capacity(payload_bytes);
        payload.put_u64_le(stamp);
        payload.resize(payload_bytes, stamp.to_le_bytes()[0]);
        let device = &mut self.devices[device_at];
        let number = device.next_number;
        device.next_number += 1;
        let low = device.unsettled.keys().next().copied().unwrap_or(number);
        let kind = MessageKind::TEXT;
        let publish = Publish { number, low, target, target_id, kind, payload: payload.freeze() };
        device.unsettled.insert(number, Unsettled { stamp, publish: publish.clone() });
        self.note(|| format!("session {id} publishes {number} with {payload_bytes} bytes to {target:?} {target_id}"));
        if !self.stations[self.sessions[&id].edge].links.streams(self.sessions[&id].link).contains(&PUBLISH) {
            self.open_publish(id);
        }
        self.send(id, PUBLISH, &publish);
    }

    fn open_publish(&mut self, id: usize) {
        let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
        self.stations[edge].links.open(link, PUBLISH);
    }

    /// What has no answer is sent again, lowest first.
    fn publish_again(&mut self, id: usize) {
        let device = &self.devices[self.sessions[&id].device];
        if device.current != Some(id) || device.unsettled.is_empty() {
            return;
        }
        let low = *device.unsettled.keys().next().expect("not empty");
        let again: Vec<Publish> =
            device.unsettled.values().map(|unsettled| Publish { low, ..unsettled.publish.clone() }).collect();
        self.open_publish(id);
        for publish in again {
            self.send(id, PUBLISH, &publish);
        }
    }

    /// A conversation, rather one that the user is in.
    fn any_room(&mut self, who: Who) -> Option<ConversationId> {
        let mut rooms = self.ledger.rooms_of(who.0);
        if self.rng.percent(85) {
            rooms.retain(|room| self.ledger.rooms[room].present.contains(&who.1));
        }
        if rooms.is_empty() { None } else { Some(self.rng.pick(&rooms)) }
    }

    fn any_users(&mut self, who: Who) -> Vec<UserId> {
        let users = self.ledger.users(who.0);
        let count = self.rng.between(1, 3);
        (0..count).map(|_| self.rng.pick(&users)).collect()
    }

    /// A request on the control stream, or an acknowledgement.
    fn ask_any(&mut self, action: Action) {
        let manages = matches!(action, Action::Members | Action::Conversation) && self.rng.percent(70);
        let such = |session: &Session| {
            session.who.is_some() && (!manages || PEOPLE[session.person].2 == "service") && session.pending.len() < 18
        };
        let Some(id) = self.any(such) else { return };
        let Some(who) = self.sessions[&id].who else { return };
        match action {
            Action::Members => self.change_members(id, who),
            Action::Conversation => self.create_conversation(id, who),
            Action::Ding => self.ding(id, who),
            Action::Confirm => {
                let waits = |ding: &Ding| ding.waits_for(who);
                if let Some(ding) = self.any_ding(waits) {
                    self.ask(id, "confirm", |request| DingConfirm { request, ding });
                }
            }
            Action::Recall => {
                let sent = |ding: &Ding| !ding.ended && (ding.tenant, ding.sender) == who;
                if let Some(ding) = self.any_ding(sent) {
                    self.ask(id, "recall", |request| DingRecall { request, ding });
                }
            }
            Action::Mark => {
                if let Some(conversation) = self.any_room(who) {
                    let last = usize::try_from(self.ledger.rooms[&conversation].last_seq().0).expect("few");
                    let up_to = Seq(self.rng.between(0, last) as u64);
                    self.ask(id, "mark", |request| MarkRead { request, conversation, up_to });
                }
            }
            Action::Ack => {
                let (position, receipts_through) = (self.sessions[&id].last, self.sessions[&id].receipts);
                self.send(id, CONTROL, &Ack { shard: SHARD, position, receipts_through });
            }
            Action::Misbehave => {
                let beyond = Position(self.ledger.head.0 + 1_000);
                let mut ack = Ack { shard: SHARD, position: Position(0), receipts_through: Position(0) };
                if self.rng.percent(50) {
                    ack.position = beyond
                } else {
                    ack.receipts_through = beyond
                }
                self.session(id).misbehaved.get_or_insert(ErrorCode::ACK_INVALID);
                self.send(id, CONTROL, &ack);
            }
            _ => unreachable!("{action:?} is no request"),
        }
    }

    fn change_members(&mut self, id: usize, who: Who) {
        let Some(conversation) = self.any_room(who) else { return };
        let members = self.any_users(who);
        match self.rng.below(5) {
            0 => self.ask(id, "members", |request| Leave { request, conversation }),
            1 | 2 => self.ask(id, "members", |request| MembersRemove { request, conversation, members }),
            _ => {
                let role = if self.rng.percent(90) { Role::MEMBER } else { Role::ADMIN };
                self.ask(id, "members", |request| MembersAdd { request, conversation, role, members });
            }
        }
    }

    pub(super) fn create_conversation(&mut self, id: usize, who: Who) {
        if self.ledger.rooms_of(who.0).len() >= 12 {
            return;
        }
        let (kind, post_policy, members) = (ConversationKind::GROUP, PostPolicy(0), self.any_users(who));
        let name = Default::default();
        self.ask(id, "conversation", |request| ConversationCreate { request, kind, post_policy, name, members });
    }

    fn ding(&mut self, id: usize, who: Who) {
        let (key, payload_bytes) = (self.next_stamp, self.rng.between(0, 200));
        self.next_stamp += 1;
        let recipients = self.any_users(who);
        let expires_after_ms = self.rng.pick(&[0, 2_000, 60_000]);
        let repeat_every_ms = self.rng.pick(&[0, 1_000, 5_000]);
        let room = self.any_room(who).filter(|_| self.rng.percent(40));
        let (target, target_id, recipients) = match room {
            Some(room) => (Target::CONVERSATION, room.0, Vec::new()),
            None => (Target::USERS, 0, recipients),
        };
        let payload = Bytes::from(vec![7; payload_bytes]);
        let kind = MessageKind::TEXT;
        self.ask(id, "ding", |request| DingCreate {
            request,
            key,
            target,
            target_id,
            expires_after_ms,
            repeat_every_ms,
            kind,
            recipients,
            payload,
        });
    }

    fn any_ding(&mut self, such: impl Fn(&Ding) -> bool) -> Option<DingId> {
        let dings: Vec<DingId> = self.ledger.dings.iter().filter(|(_, ding)| such(ding)).map(|(id, _)| *id).collect();
        if dings.is_empty() { None } else { Some(self.rng.pick(&dings)) }
    }

    fn ask<F: Body>(&mut self, id: usize, what: &'static str, frame: impl FnOnce(u32) -> F) {
        let session = self.session(id);
        let request = session.next_request;
        session.next_request += 1;
        session.pending.insert(request, what);
        self.note(|| format!("session {id} asks for {what} as {request}"));
        self.send(id, CONTROL, &frame(request));
    }
}
