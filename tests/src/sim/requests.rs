//! What clients ask for: publishes, requests and acknowledgements, at random.

use bytes::{BufMut, Bytes, BytesMut};
use carillon::clock::Clock;
use carillon_protocol::control::{ConversationCreate, Leave, MembersAdd, MembersRemove};
use carillon_protocol::deliver::History;
use carillon_protocol::ding::{DingConfirm, DingCreate, DingRecall, DingReceived, DingRemind, DingStep};
use carillon_protocol::ding_status::DingWatch;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, DingId, Position, ProducerId, Seq, Timestamp, UserId};
use carillon_protocol::kinds::{
    ConversationKind, Direction, HistoryPolicy, MessageKind, Outlet, PostPolicy, QuietHours, ReceiptPolicy, Retired,
    Role, Target,
};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;
use carillon_protocol::session::{Ack, Retire};

use super::dings::Ding;
use super::history::Asked;
use super::ledger::Who;
use super::parts::PEOPLE;
use super::promises::{Request, Want};
use super::session::{CONTROL, PUBLISH, Session, Unsettled};
use super::shape::Action;
use super::world::{SHARD, World};

impl World {
    /// A device publishes on its newest session.
    pub(super) fn publish_any(&mut self) {
        let is_open = |session: &Session| session.welcome.is_some() && session.ids.1 != ProducerId(0);
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
        if !self.life.stations[self.sessions[&id].edge].links.streams(self.sessions[&id].link).contains(&PUBLISH) {
            self.open_publish(id);
        }
        self.send_publish(id, &publish);
    }

    fn open_publish(&mut self, id: usize) {
        let (edge, link) = (self.sessions[&id].edge, self.sessions[&id].link);
        self.life.stations[edge].links.open(link, PUBLISH);
    }

    /// What has no answer is sent again, lowest first.
    pub(super) fn publish_again(&mut self, id: usize) {
        let session = &self.sessions[&id];
        let device = &mut self.devices[session.device];
        if device.current != Some(id) || session.ids.1 == ProducerId(0) {
            return;
        }
        if session.retired_at(&self.ledger).is_some() {
            // What became of them was forgotten with the producer.
            device.unsettled.clear();
        }
        if device.unsettled.is_empty() {
            return;
        }
        let low = *device.unsettled.keys().next().expect("not empty");
        let again: Vec<Publish> =
            device.unsettled.values().map(|unsettled| Publish { low, ..unsettled.publish.clone() }).collect();
        self.open_publish(id);
        for publish in again {
            self.send_publish(id, &publish);
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
    pub(super) fn ask_any(&mut self, action: Action) {
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
                    self.ask(id, Want::Confirm(ding), |request| DingConfirm { request, ding });
                }
            }
            Action::Recall => {
                let sent = |ding: &Ding| !ding.ended && (ding.tenant, ding.sender) == who;
                if let Some(ding) = self.any_ding(sent) {
                    self.ask(id, Want::Recall(ding), |request| DingRecall { request, ding });
                }
            }
            Action::Remind => {
                let sent = |ding: &Ding| ding.started() && !ding.ended && (ding.tenant, ding.sender) == who;
                if let Some(ding) = self.any_ding(sent) {
                    let outlet = self.rng.pick(&[Outlet::APP, Outlet::SMS, Outlet::PHONE]);
                    self.ask(id, Want::Remind(ding), |request| DingRemind { request, ding, outlet });
                }
            }
            Action::Watch => self.watch(id, who),
            Action::Unwatch => {
                let watched: Vec<DingId> = self.sessions[&id].watches.keys().copied().collect();
                if !watched.is_empty() {
                    let ding = self.rng.pick(&watched);
                    self.unwatch(id, ding);
                }
            }
            Action::Mark => {
                if let Some(conversation) = self.any_room(who) {
                    let last = usize::try_from(self.ledger.rooms[&conversation].last_seq().0).expect("few");
                    let up_to = Seq(self.rng.between(0, last) as u64);
                    self.ask(id, Want::Mark(conversation, up_to), |request| MarkRead { request, conversation, up_to });
                }
            }
            Action::History => self.ask_history(id, who),
            Action::Retire => self.retire(id),
            Action::Ack => {
                let (position, receipts_through) = (self.sessions[&id].last, self.sessions[&id].told.through);
                self.ledger.say(who, self.sessions[&id].ids.0, position);
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

    /// A user gives up one of their devices, or its producer.
    fn retire(&mut self, id: usize) {
        let person = self.sessions[&id].person;
        let mine: Vec<usize> = (0..self.devices.len()).filter(|at| self.devices[*at].person == person).collect();
        let device = &self.devices[self.rng.pick(&mine)];
        let (what, retired) = match self.rng.percent(70) {
            true => (Retired::DEVICE, device.id.0),
            false => (Retired::PRODUCER, device.producer.0),
        };
        self.ask(id, Want::Retire(retired), |request| Retire { request, what, id: retired });
    }

    fn ask_history(&mut self, id: usize, who: Who) {
        let Some(conversation) = self.any_room(who) else { return };
        let last = usize::try_from(self.ledger.rooms[&conversation].last_seq().0).expect("few");
        let from = Seq(if self.rng.percent(30) { u64::MAX } else { self.rng.between(0, last + 2) as u64 });
        let direction = self.rng.pick(&[Direction::BACKWARD, Direction::FORWARD]);
        let limit = self.rng.pick(&[1, 2, 3, 9, 1_000]);
        let head = self.ledger.head;
        let request = self.sessions[&id].next_request;
        let query = History { request, conversation, from, direction, limit };
        self.ask(id, Want::History, |_| query.clone());
        if let Some(session) = self.sessions.get_mut(&id) {
            session.pages_asked.insert(request, Asked { query, head });
        }
    }

    fn change_members(&mut self, id: usize, who: Who) {
        let Some(conversation) = self.any_room(who) else { return };
        let members = self.any_users(who);
        match self.rng.below(5) {
            0 => self.ask(id, Want::Remove(conversation, vec![who.1]), |request| Leave { request, conversation }),
            1 | 2 => {
                let want = Want::Remove(conversation, members.clone());
                self.ask(id, want, |request| MembersRemove { request, conversation, members });
            }
            _ => {
                let role = if self.rng.percent(90) { Role::MEMBER } else { Role::ADMIN };
                let want = Want::Add(conversation, members.clone());
                self.ask(id, want, |request| MembersAdd { request, conversation, role, members });
            }
        }
    }

    pub(super) fn create_conversation(&mut self, id: usize, who: Who) {
        if self.ledger.rooms_of(who.0).len() >= 12 {
            return;
        }
        let (kind, post_policy, members) = (ConversationKind::GROUP, PostPolicy(0), self.any_users(who));
        let (history, name) = (HistoryPolicy(0), Default::default());
        self.ask(id, Want::Conversation, |request| ConversationCreate {
            request,
            kind,
            post_policy,
            history,
            receipts: ReceiptPolicy(0),
            name,
            members,
        });
    }

    /// A DING of one's own, or of anybody: services may.
    fn watch(&mut self, id: usize, who: Who) {
        let manages = PEOPLE[self.sessions[&id].person].2 == "service";
        let open = self.rng.percent(80);
        let such = |ding: &Ding| ding.tenant == who.0 && (manages || ding.sender == who.1) && !(open && ding.ended);
        let Some(ding) = self.any_ding(such) else { return };
        let session = self.session(id);
        session.watched.insert(ding);
        let request = session.next_request;
        if session.watches.contains_key(&ding) {
            return;
        }
        session.watches.insert(ding, request);
        self.ask(id, Want::Watch, |request| DingWatch { request, ding, on: 1 });
        // Changed one's mind, before there is an answer.
        if self.rng.percent(10) && self.sessions.contains_key(&id) {
            self.unwatch(id, ding);
        }
    }

    fn unwatch(&mut self, id: usize, ding: DingId) {
        let session = self.session(id);
        session.watches.remove(&ding);
        let request = session.next_request;
        session.unwatches.insert(request, ding);
        self.ask(id, Want::Unwatch, |request| DingWatch { request, ding, on: 0 });
    }

    /// The broker is told of the DINGs that have come; of some never, as a device that is lost says nothing.
    pub(super) fn say_received(&mut self, id: usize) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for ding in std::mem::take(&mut session.arrived) {
            if self.rng.percent(70) {
                self.session(id).said.insert(ding);
                self.send(id, CONTROL, &DingReceived { ding });
            }
        }
    }

    fn ding(&mut self, id: usize, who: Who) {
        let (key, payload_bytes) = (self.next_stamp, self.rng.between(0, 200));
        self.next_stamp += 1;
        let recipients = self.any_users(who);
        let expires_after_ms = self.rng.pick(&[0, 2_000, 60_000]);
        let repeat_every_ms = self.rng.pick(&[0, 1_000, 5_000]);
        let ring = DingStep { outlet: Outlet::APP, times: 10, after_ms: 0, repeat_every_ms };
        // Without a plan of its own it has the tenant's.
        let again =
            DingStep { outlet: Outlet::APP, times: 1, after_ms: self.rng.pick(&[0, 300, 4_000]), repeat_every_ms: 0 };
        let phone = self.rng.pick(&[Outlet::SMS, Outlet::PHONE]);
        let times = self.rng.pick(&[1, 1, 3]);
        let call = DingStep { outlet: phone, times, after_ms: again.after_ms, repeat_every_ms };
        let steps = match self.rng.below(5) {
            _ if repeat_every_ms == 0 => Vec::new(),
            0 => vec![ring, again],
            1 => vec![again, ring, again],
            2 | 3 => vec![ring, call],
            _ => vec![ring],
        };
        let later_ms = self.rng.pick(&[0, 0, 0, 500, 3_000]);
        let starts_at = Timestamp(if later_ms == 0 { 0 } else { self.outside.clock.wall().0 + later_ms });
        let room = self.any_room(who).filter(|_| self.rng.percent(40));
        let (target, target_id, recipients) = match room {
            Some(room) => (Target::CONVERSATION, room.0, Vec::new()),
            None => (Target::USERS, 0, recipients),
        };
        let payload = Bytes::from(vec![7; payload_bytes]);
        let kind = MessageKind::TEXT;
        let create = DingCreate {
            request: 0,
            key,
            target,
            target_id,
            expires_after_ms,
            starts_at,
            quiet: QuietHours::HEED,
            kind,
            conversation: ConversationId(0),
            seq: Seq(0),
            recipients,
            steps,
            payload,
        };
        let device = self.sessions[&id].device;
        self.devices[device].ding_unanswered = Some(create.clone());
        self.ask(id, Want::Ding { key }, |request| DingCreate { request, ..create });
    }

    /// A DING without an answer is sent again under its key.
    pub(super) fn ding_again(&mut self, id: usize) {
        let device = &mut self.devices[self.sessions[&id].device];
        let Some(create) = device.ding_unanswered.clone().filter(|_| device.current == Some(id)) else { return };
        self.covered.dings_repeated += 1;
        self.ask(id, Want::Ding { key: create.key }, |request| DingCreate { request, ..create });
    }

    /// A publish that was answered is sent once more, perhaps with other content under its number.
    pub(super) fn repeat_any(&mut self) {
        let publishes = |session: &Session| session.welcome.is_some() && session.ids.1 != ProducerId(0);
        let Some(id) = self.any(publishes) else { return };
        let Some(who) = self.sessions[&id].who else { return };
        let device = &self.devices[self.sessions[&id].device];
        if device.current != Some(id) || device.settled.is_empty() || device.producer != self.sessions[&id].ids.1 {
            return;
        }
        let nth = self.rng.below(device.settled.len());
        let settled = &device.settled[nth].0;
        let (mut stamp, mut publish) = (settled.stamp, settled.publish.clone());
        let session = &self.sessions[&id];
        if session.repeats.contains_key(&publish.number)
            || session.under_way.iter().any(|(number, _)| *number == publish.number)
        {
            return;
        }
        let same = self.rng.percent(50);
        if !same {
            stamp = self.next_stamp;
            self.next_stamp += 1;
            publish.payload = Bytes::copy_from_slice(&stamp.to_le_bytes());
        }
        self.ledger.used_up.insert(stamp, (who, device.producer));
        self.covered.repeated += 1;
        let number = publish.number;
        self.session(id).repeats.insert(number, same);
        self.note(|| format!("session {id} publishes {number} once more"));
        if !self.life.stations[self.sessions[&id].edge].links.streams(self.sessions[&id].link).contains(&PUBLISH) {
            self.open_publish(id);
        }
        self.send(id, PUBLISH, &publish);
    }

    fn any_ding(&mut self, such: impl Fn(&Ding) -> bool) -> Option<DingId> {
        let dings: Vec<DingId> = self.ledger.dings.iter().filter(|(_, ding)| such(ding)).map(|(id, _)| *id).collect();
        if dings.is_empty() { None } else { Some(self.rng.pick(&dings)) }
    }

    fn ask<F: Body>(&mut self, id: usize, want: Want, frame: impl FnOnce(u32) -> F) {
        let (head, round) = (self.ledger.head, self.ledger.room_seen.now());
        let session = self.session(id);
        let request = session.next_request;
        session.next_request += 1;
        session.pending.insert(request, Request { want: want.clone(), head, round });
        self.note(|| format!("session {id} asks for {want:?} as {request}"));
        self.send(id, CONTROL, &frame(request));
    }
}
