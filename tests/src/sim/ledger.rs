//! What is true: read from the committed batches alone, record by record, and from nothing an edge has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use carillon::journal::Batch;
use carillon_core::record::Record;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::ding::DingPush;
use carillon_protocol::ding_status::USER_NONE;
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{ConversationKind, DingState};
use carillon_protocol::receipt::ReadUpdate;

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

/// A DING.
pub(super) struct Ding {
    pub(super) tenant: TenantId,
    pub(super) sender: UserId,
    pub(super) push: DingPush,
    pub(super) recipients: BTreeSet<UserId>,
    pub(super) confirmed: BTreeSet<UserId>,
    /// Who has it, or had it before they confirmed.
    pub(super) delivered: BTreeSet<UserId>,
    /// As a whole.
    pub(super) state: DingState,
    /// Where it moved last; 0 before it begins.
    pub(super) moved_at: Position,
    /// Its first step has begun: before that nobody is shown it.
    pub(super) started: bool,
    pub(super) ended: bool,
}

impl Ding {
    /// Its counts as they are told: who has it and has not confirmed, who has confirmed, whom nothing has reached.
    pub(super) fn counts(&self) -> [usize; 3] {
        let delivered = self.delivered.difference(&self.confirmed).count();
        let missed = self.recipients.len() - delivered - self.confirmed.len();
        [delivered, self.confirmed.len(), if self.state == DingState::EXPIRED { missed } else { 0 }]
    }

    /// Whether it still waits for the user.
    pub(super) fn waits_for(&self, who: Who) -> bool {
        self.started
            && !self.ended
            && self.tenant == who.0
            && self.recipients.contains(&who.1)
            && !self.confirmed.contains(&who.1)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) head: Position,
    /// The time of each record.
    times: Vec<Timestamp>,
    tenants: Vec<String>,
    users: BTreeMap<Who, String>,
    pub(super) rooms: BTreeMap<ConversationId, Room>,
    messages: BTreeMap<Position, Message>,
    stints: BTreeMap<Who, Vec<Stint>>,
    marks: BTreeMap<Position, Marked>,
    pub(super) dings: BTreeMap<DingId, Ding>,
    /// The numbers that clients put into payloads: each message is committed once.
    stamps: BTreeSet<u64>,
    /// Devices and producers, whose ids have nothing in common here, and where they were given up last.
    retired: BTreeMap<(Who, u64), Position>,
    /// Retention has taken everything up to here.
    pub(super) floor: Position,
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
        for entry in batch.entries() {
            if entry.position != self.head.next() {
                return Err(format!("position {} was committed after {}", entry.position, self.head));
            }
            self.head = entry.position;
            self.frame_bytes_max = self.frame_bytes_max.max(entry.frame.len());
            let record = Record::decode(entry.private, entry.frame.clone()).map_err(|error| error.to_string())?;
            self.times.push(record.time());
            self.apply(entry.position, record, entry.frame)?;
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
                let update = ReadUpdate { conversation, user, read_up_to, position, through: Position(0) };
                self.marks.insert(position, (tenant, update));
            }
            Record::DingAdded(_)
            | Record::DingAttempted(_)
            | Record::DingsDelivered(_)
            | Record::DingConfirmed(_)
            | Record::DingEnded(_) => self.apply_ding(position, record)?,
            Record::DingForgotten(_)
            | Record::DingDeferred(_)
            | Record::DingOutcomes(_)
            | Record::CursorsMoved(_)
            | Record::CatchUpBounded(_) => {}
            Record::DeviceRetired(gone) => {
                self.retired.insert(((gone.tenant, gone.user), gone.device.0), position);
            }
            Record::ProducerRetired(gone) => {
                self.retired.insert(((gone.tenant, gone.user), gone.producer.0), position);
            }
            Record::DeviceAdded(_) | Record::ProducerAdded(_) => {}
        }
        Ok(())
    }

    fn apply_ding(&mut self, position: Position, record: Record) -> Result<(), String> {
        match record {
            Record::DingAdded(added) => {
                let (ding, sender, time, kind) = (added.ding, added.sender, added.time, added.kind);
                let (expires_at, conversation, seq) = (added.expires_at, added.conversation, added.seq);
                let payload = added.payload;
                let push = DingPush { ding, sender, time, expires_at, kind, conversation, seq, payload };
                let recipients = added.recipients.into_iter().collect();
                let (tenant, confirmed, delivered) = (added.tenant, BTreeSet::new(), BTreeSet::new());
                let (started, ended, state, moved_at) = (false, false, DingState::SCHEDULED, Position(0));
                let made =
                    Ding { tenant, sender, push, recipients, confirmed, delivered, state, moved_at, started, ended };
                self.dings.insert(ding, made);
            }
            Record::DingAttempted(begun) => {
                let ding = self.dings.get_mut(&begun.ding).ok_or("an unknown DING begins")?;
                if ding.ended {
                    return Err(format!("a step of DING {} begins after its end", begun.ding));
                }
                if !std::mem::replace(&mut ding.started, true) {
                    (ding.state, ding.moved_at) = (DingState::SENT, position);
                }
            }
            Record::DingsDelivered(delivered) => {
                for entry in &delivered.entries {
                    let shown = self.dings.get_mut(&entry.ding).filter(|ding| ding.started && !ding.ended);
                    let ding = shown.ok_or("a DING that is not shown was delivered")?;
                    ding.delivered.insert(entry.user);
                    ding.moved_at = position;
                }
            }
            Record::DingConfirmed(confirmed) => {
                let ding = self.dings.get_mut(&confirmed.ding).ok_or("an unknown DING is confirmed")?;
                ding.confirmed.insert(confirmed.user);
                ding.moved_at = position;
                if ding.confirmed == ding.recipients {
                    (ding.ended, ding.state) = (true, DingState::CONFIRMED);
                }
            }
            Record::DingEnded(ended) => {
                let ding = self.dings.get_mut(&ended.ding).ok_or("an unknown DING ends")?;
                (ding.ended, ding.state, ding.moved_at) = (true, ended.state, position);
            }
            other => return Err(format!("{other:?} is not of a DING")),
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
        if stamp.is_some_and(|stamp| !self.stamps.insert(stamp)) {
            return Err(format!("the message at {position} was committed twice"));
        }
        self.messages.insert(position, Message { deliver, frame });
        Ok(())
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
