//! What is true: read from the committed batches alone, record by record, and from nothing an edge has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carillon::journal::{Batch, Entry};
use carillon_core::record::{CursorMoved, Record};
use carillon_protocol::deliver::Deliver;
use carillon_protocol::ding_status::USER_NONE;
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId, Seq, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::ConversationKind;
use carillon_protocol::receipt::ReadUpdate;

use super::dings::Dings;
use super::room::RoomSeen;
use super::told::Marked;

/// A user of a tenant.
pub(super) type Who = (TenantId, UserId);

/// A committed message.
pub(super) struct Message {
    pub(super) deliver: Deliver,
    /// As it lies in the journal.
    pub(super) frame: Bytes,
}

/// Entitled to what lies in `(joined, left]` of the conversation.
struct Stint {
    conversation: ConversationId,
    joined: Position,
    left: Option<Position>,
}

impl Stint {
    fn covers(&self, position: Position) -> bool {
        self.joined < position && self.left.is_none_or(|left| position <= left)
    }
}

/// A conversation.
pub(super) struct Room {
    pub(super) tenant: TenantId,
    pub(super) kind: ConversationKind,
    pub(super) present: BTreeSet<UserId>,
    /// Ascending; the seq of a message is its place, from 1.
    messages: Vec<Position>,
}

impl Room {
    pub(super) fn last_seq(&self) -> Seq {
        Seq(self.messages.len() as u64)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) head: Position,
    /// Every record as it was committed, from position 1.
    entries: Vec<Entry>,
    /// The first position of the newest batch.
    pub(super) newest_batch: Position,
    /// The time of each record.
    times: Vec<Timestamp>,
    tenants: Vec<String>,
    users: BTreeMap<Who, String>,
    pub(super) rooms: BTreeMap<ConversationId, Room>,
    messages: BTreeMap<Position, Message>,
    stints: BTreeMap<Who, Vec<Stint>>,
    marks: BTreeMap<Position, Marked>,
    /// How far each device has acknowledged, by what it said.
    said: BTreeMap<(Who, DeviceId), Position>,
    /// By what was recorded.
    cursors: BTreeMap<(Who, DeviceId), Position>,
    /// How far each present member has read, as far as it was marked.
    watermarks: BTreeMap<(ConversationId, UserId), Seq>,
    pub(super) dings: Dings,
    /// The numbers that clients put into payloads: each message is committed once.
    stamps: BTreeSet<u64>,
    /// Those of messages that must not be committed any more, as the numbers of their publishes are used up; and by which producer.
    /// One that was given up has forgotten them.
    pub(super) used_up: BTreeMap<u64, (Who, ProducerId)>,
    /// Devices and producers, whose ids have nothing in common here, and where they were added last.
    added: BTreeMap<(Who, u64), Position>,
    /// And where they were given up last.
    retired: BTreeMap<(Who, u64), Position>,
    /// Retention has taken everything up to here.
    pub(super) floor: Position,
    /// Bytes of the batches that begin at these positions.
    pub(super) batches: BTreeMap<Position, u64>,
    pub(super) room_seen: RoomSeen,
    /// Bytes of the largest frame of the inbox.
    pub(super) frame_bytes_max: usize,
}

/// The number that a client put into the payload.
pub(super) fn stamp(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

impl Ledger {
    /// Takes the next batch.
    pub(super) fn take(&mut self, batch: &Batch) -> Result<(), String> {
        self.newest_batch = batch.first();
        self.batches.insert(batch.first(), batch.bytes() as u64);
        for entry in batch.entries() {
            if entry.position != self.head.next() {
                return Err(format!("position {} was committed after {}", entry.position, self.head));
            }
            self.head = entry.position;
            self.frame_bytes_max = self.frame_bytes_max.max(entry.frame.len());
            let (private, frame) = (entry.private.clone(), entry.frame.clone());
            let record = Record::decode(private, frame.clone()).map_err(|error| error.to_string())?;
            if self.times.last().is_some_and(|last| record.time() < *last) {
                return Err(format!("time goes back at {}", entry.position));
            }
            self.times.push(record.time());
            self.entries.push(entry);
            self.apply(self.head, record, frame)?;
        }
        Ok(())
    }

    fn apply(&mut self, position: Position, record: Record, frame: Bytes) -> Result<(), String> {
        match record {
            Record::Message(message) => self.note_message(position, message.deliver, frame)?,
            Record::TenantAdded(added) => self.tenants.push(added.name.to_string()),
            Record::UserAdded(added) => {
                self.users.insert((added.tenant, added.user), added.handle.to_string());
                self.add_room(added.personal, added.tenant, ConversationKind::PERSONAL);
                self.join(position, added.personal, added.user);
            }
            Record::ConversationAdded(added) => {
                self.add_room(added.conversation, added.tenant, added.kind);
                for grant in &added.grants {
                    self.join(position, added.conversation, grant.user);
                }
            }
            Record::MembersAdded(added) => {
                for grant in &added.grants {
                    self.join(position, added.conversation, grant.user);
                }
            }
            Record::MembersRemoved(removed) => {
                for user in &removed.users {
                    self.leave(position, removed.conversation, *user);
                }
            }
            Record::ReadMarked(mark) => {
                let tenant = self.rooms[&mark.conversation].tenant;
                let (conversation, user, read_up_to) = (mark.conversation, mark.user, mark.up_to);
                self.raise_watermark(conversation, user, read_up_to)?;
                let update = ReadUpdate { conversation, user, read_up_to, position, through: Position(0) };
                self.marks.insert(position, (tenant, update));
            }
            Record::DingAdded(_)
            | Record::DingAttempted(_)
            | Record::DingDeferred(_)
            | Record::DingsDelivered(_)
            | Record::DingOutcomes(_)
            | Record::DingConfirmed(_)
            | Record::DingEnded(_)
            | Record::DingForgotten(_) => self.dings.apply(position, record)?,
            Record::CursorsMoved(moved) => moved.moves.iter().try_for_each(|moved| self.move_cursor(moved))?,
            Record::CatchUpBounded(_) => {}
            Record::DeviceRetired(gone) => {
                self.retired.insert(((gone.tenant, gone.user), gone.device.0), position);
                self.cursors.remove(&((gone.tenant, gone.user), gone.device));
            }
            Record::ProducerRetired(gone) => {
                self.retired.insert(((gone.tenant, gone.user), gone.producer.0), position);
            }
            Record::DeviceAdded(new) => {
                self.added.insert(((new.tenant, new.user), new.device.0), position);
            }
            Record::ProducerAdded(new) => {
                self.added.insert(((new.tenant, new.user), new.producer.0), position);
            }
        }
        Ok(())
    }

    fn note_message(&mut self, position: Position, deliver: Deliver, frame: Bytes) -> Result<(), String> {
        let room = self.rooms.get_mut(&deliver.conversation).ok_or("a message in an unknown conversation")?;
        room.messages.push(position);
        if (deliver.position, deliver.seq) != (position, room.last_seq()) {
            return Err(format!("at position {position}, seq {}: {deliver:?}", room.last_seq()));
        }
        let stamp = stamp(&deliver.payload).filter(|_| deliver.author != USER_NONE);
        if let Some(stamp) = stamp {
            let used = self.used_up.get(&stamp);
            let forgotten = used.is_some_and(|(who, producer)| self.retired(*who, producer.0).is_some());
            let twice = !self.stamps.insert(stamp);
            if (twice || used.is_some()) && !forgotten {
                return Err(format!(
                    "the message at {position} was committed before: {twice}; or its number is used up"
                ));
            }
        }
        self.messages.insert(position, Message { deliver, frame });
        Ok(())
    }

    /// A device says that it has everything up to here.
    pub(super) fn say(&mut self, who: Who, device: DeviceId, position: Position) {
        let said = self.said.entry((who, device)).or_default();
        *said = position.max(*said);
    }

    /// A cursor moves forward, and not beyond what the device has said.
    fn move_cursor(&mut self, moved: &CursorMoved) -> Result<(), String> {
        let device = ((moved.tenant, moved.user), moved.device);
        let said = self.said.get(&device).copied().unwrap_or_default();
        let before = self.cursors.insert(device, moved.position);
        let sound = moved.position <= said && before.is_none_or(|before| before < moved.position);
        if sound { Ok(()) } else { Err(format!("{moved:?} after {before:?}, the device said {said}")) }
    }

    /// A mark is recorded where it says more than the one before it, and of messages that are there.
    fn raise_watermark(&mut self, conversation: ConversationId, user: UserId, up_to: Seq) -> Result<(), String> {
        let last = self.rooms[&conversation].last_seq();
        let before = self.watermarks.insert((conversation, user), up_to);
        let sound = before.is_none_or(|before| before < up_to) && up_to <= last;
        if sound { Ok(()) } else { Err(format!("{user} marked {up_to} of {last} in {conversation} after {before:?}")) }
    }

    /// The record at this position, as it was committed.
    pub(super) fn entry(&self, position: Position) -> Option<&Entry> {
        let nth = usize::try_from(position.0.checked_sub(1)?).ok()?;
        self.entries.get(nth)
    }

    /// The stints of a user in a conversation: after which position, and up to which one.
    pub(super) fn stints(
        &self,
        who: Who,
        conversation: ConversationId,
    ) -> impl Iterator<Item = (Position, Option<Position>)> + '_ {
        let stints = self.stints.get(&who).into_iter().flatten();
        stints.filter(move |stint| stint.conversation == conversation).map(|stint| (stint.joined, stint.left))
    }

    fn add_room(&mut self, conversation: ConversationId, tenant: TenantId, kind: ConversationKind) {
        let room = Room { tenant, kind, present: BTreeSet::new(), messages: Vec::new() };
        self.rooms.insert(conversation, room);
    }

    fn join(&mut self, position: Position, conversation: ConversationId, user: UserId) {
        let room = self.rooms.get_mut(&conversation).expect("it was added");
        // Who is a member already gets another role, no other stint.
        if room.present.insert(user) {
            let stint = Stint { conversation, joined: position, left: None };
            self.watermarks.remove(&(conversation, user));
            self.stints.entry((room.tenant, user)).or_default().push(stint);
        }
    }

    fn leave(&mut self, position: Position, conversation: ConversationId, user: UserId) {
        let room = self.rooms.get_mut(&conversation).expect("it was added");
        room.present.remove(&user);
        let stints = self.stints.entry((room.tenant, user)).or_default();
        let open = stints.iter_mut().find(|stint| stint.conversation == conversation && stint.left.is_none());
        open.expect("who leaves is a member").left = Some(position);
    }

    /// The time of the record at this position.
    pub(super) fn time(&self, position: Position) -> Option<Timestamp> {
        let nth = usize::try_from(position.0.checked_sub(1)?).ok()?;
        self.times.get(nth).copied()
    }

    pub(super) fn message(&self, position: Position) -> Option<&Message> {
        self.messages.get(&position)
    }

    /// Who wrote a message, retention or not.
    pub(super) fn author(&self, conversation: ConversationId, seq: Seq) -> Option<UserId> {
        let nth = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        let position = self.rooms.get(&conversation)?.messages.get(nth)?;
        self.message(*position).map(|message| message.deliver.author)
    }

    /// By position, ascending.
    pub(super) fn marks(&self) -> impl Iterator<Item = (&Position, &Marked)> {
        self.marks.iter()
    }

    /// Whether the user was a member at both positions, and all the time between.
    pub(super) fn is_in_one_stint(&self, who: Who, conversation: ConversationId, [a, b]: [Position; 2]) -> bool {
        let stints = self.stints.get(&who).into_iter().flatten();
        stints.into_iter().any(|stint| stint.conversation == conversation && stint.covers(a) && stint.covers(b))
    }

    /// Whether one of the messages that a mark has passed, which retention has left, is the user's, written as a member.
    pub(super) fn passed_own(&self, who: Who, mark: &ReadUpdate, before: Seq) -> bool {
        let (reader, conversation) = ((who.0, mark.user), mark.conversation);
        (before.next().0..=mark.read_up_to.0).map(Seq).any(|seq| {
            let own = self.author(conversation, seq) == Some(who.1);
            self.position_of(conversation, seq).is_some_and(|position| {
                let read = self.is_in_one_stint(reader, conversation, [position, mark.position]);
                own && read && position > self.floor && self.is_entitled(who, conversation, position)
            })
        })
    }

    pub(super) fn mark(&self, position: Position) -> Option<&Marked> {
        self.marks.get(&position)
    }

    /// Whether the user was a member of the conversation at this position.
    pub(super) fn is_entitled(&self, who: Who, conversation: ConversationId, position: Position) -> bool {
        let stints = self.stints.get(&who).into_iter().flatten();
        stints.into_iter().any(|stint| stint.conversation == conversation && stint.covers(position))
    }

    /// The first message after this position that is the user's to have.
    pub(super) fn next_entitled(&self, who: Who, after: Position) -> Option<Position> {
        let stints = self.stints.get(&who).into_iter().flatten();
        let first = |stint: &Stint| {
            let messages = &self.rooms[&stint.conversation].messages;
            let from = after.max(stint.joined);
            let next = *messages.get(messages.partition_point(|position| *position <= from))?;
            stint.covers(next).then_some(next)
        };
        stints.filter_map(first).min()
    }

    /// The messages of a conversation that were the user's to have, retention or not, by seq.
    pub(super) fn entitled(
        &self,
        who: Who,
        conversation: ConversationId,
    ) -> impl Iterator<Item = (Seq, Position)> + '_ {
        let messages = self.rooms.get(&conversation).map(|room| &room.messages[..]).unwrap_or_default();
        let messages = (1..).zip(messages).map(|(seq, position)| (Seq(seq), *position));
        messages.filter(move |(_, position)| self.is_entitled(who, conversation, *position))
    }

    /// Where a message lies.
    pub(super) fn position_of(&self, conversation: ConversationId, seq: Seq) -> Option<Position> {
        let at = usize::try_from(seq.0.checked_sub(1)?).ok()?;
        self.rooms.get(&conversation)?.messages.get(at).copied()
    }

    /// Where this device or producer of the user was given up last.
    pub(super) fn retired(&self, who: Who, id: u64) -> Option<Position> {
        self.retired.get(&(who, id)).copied()
    }

    /// Whether this device and its producer were there at this position, and have not been given up.
    pub(super) fn knew(&self, who: Who, (device, producer): (DeviceId, ProducerId), at: Position) -> bool {
        let is_there = |id| {
            let added = self.added.get(&(who, id));
            added.is_some_and(|added| *added <= at && self.retired(who, id).is_none_or(|retired| retired < *added))
        };
        is_there(device.0) && (producer == ProducerId(0) || is_there(producer.0))
    }

    /// Whom a handle stands for.
    pub(super) fn find(&self, tenant: &str, handle: &str) -> Option<Who> {
        let is = |(who, name): &(&Who, &String)| self.tenants[who.0.0 as usize] == tenant && *name == handle;
        self.users.iter().find(is).map(|(who, _)| *who)
    }

    /// Everybody in a tenant.
    pub(super) fn users(&self, tenant: TenantId) -> Vec<UserId> {
        self.users.keys().filter(|who| who.0 == tenant).map(|who| who.1).collect()
    }

    /// The groups and direct conversations of a tenant.
    pub(super) fn rooms_of(&self, tenant: TenantId) -> Vec<ConversationId> {
        let is = |room: &Room| room.tenant == tenant && room.kind != ConversationKind::PERSONAL;
        self.rooms.iter().filter(|(_, room)| is(room)).map(|(id, _)| *id).collect()
    }
}
