//! What a client is told: messages, receipts, DINGs, and what becomes of the session.

use carillon_protocol::control::MembershipChanged;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::ding::DingPush;
use carillon_protocol::ding_status::{DingProgress, DingUpdate};
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, ShardId, Timestamp, UserId};
use carillon_protocol::kinds::MessageKind;
use carillon_protocol::presence::Signalled;
use carillon_protocol::receipt::{ReadCountsUpdate, ReadUpdate};
use carillon_protocol::session::{Progress, Skipped, Truncated, Welcome};

use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::error::{ConnectError, Disconnect};
use crate::shared::{Handle, Shared};

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The conversation.
    pub conversation: ConversationId,
    /// Its number in the conversation.
    pub seq: Seq,
    /// Its place in the shard's journal: what is acknowledged.
    pub position: Position,
    /// Who published it.
    pub author: UserId,
    /// When the broker sequenced it.
    pub time: Timestamp,
    /// What the payload is.
    pub kind: MessageKind,
    /// Opaque.
    pub payload: Bytes,
}

impl From<Deliver> for Message {
    fn from(frame: Deliver) -> Self {
        let Deliver { position, conversation, seq, author, time, kind, payload } = frame;
        Self { conversation, seq, position, author, time, kind, payload }
    }
}

/// The user's membership in a conversation has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The user's personal conversation, which says so.
    pub personal: ConversationId,
    /// The number of the event there.
    pub seq: Seq,
    /// Its place in the shard's journal: what is acknowledged.
    pub position: Position,
    /// When.
    pub time: Timestamp,
    /// Which conversation, what, and by whom.
    pub changed: MembershipChanged,
}

/// What [`Events::next`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message, once and in position order.
    Message(Message),
    /// The user's membership in a conversation has changed.
    Membership(Membership),
    /// A member has read further.
    Read(ReadUpdate),
    /// More have read messages that the user wrote, where readers are not named as they read: in large conversations, and where
    /// the policy is `COUNTS`. Newer counts of a message replace older ones.
    ReadCounts(ReadCountsUpdate),
    /// A DING to confirm with [`Client::confirm`](crate::Client::confirm). Given once in the life of this client: the broker's repeats
    /// of one that was given are suppressed, whether it was confirmed since or not, so ringing again is up to the application. The broker is told that this device has it,
    /// before the application takes it; see [`Config::shows_dings`](crate::Config::shows_dings).
    Ding(DingPush),
    /// Somebody has confirmed a DING, or it is over: then its `user` is `u32::MAX`, and a device that shows it takes it away. Of DINGs that
    /// this user was given, and of those it sent: confirmations of these only with up to 200 recipients.
    DingUpdate(DingUpdate),
    /// A DING that this client was given is over for this user: confirmed on another device, expired or recalled while there was no
    /// connection. A device that shows it takes it away.
    DingOver(DingId),
    /// How far a DING has come: one that this user sent, or that is watched ([`Client::watch_ding`](crate::Client::watch_ding)). Says all the counts, so the
    /// newest is all that is needed; none older than one that was given is given.
    DingProgress(DingProgress),
    /// Another member signals something: true for a moment, and perhaps not the last word. Nothing to acknowledge.
    Signal(Signalled),
    /// Nothing was addressed to the device up to here. Acknowledged by itself when all before it is.
    Progress(Progress),
    /// Of these, the device will not get what it has not had: retention deleted them, the membership they belong to is
    /// too long ago, or their bytes on the broker's disk are damaged. May be told again after a reconnect.
    Truncated(Truncated),
    /// [`Config::newest`](crate::Config::newest) leaves these out; [`Client::history`](crate::Client::history) has them. May be told
    /// again after a reconnect.
    Skipped(Skipped),
    /// The broker's journal is another than the one this client is of: it was restored from a backup, say. The cursors were dropped,
    /// and everything starts anew from the beginning. Positions, seqs and all ids (users, conversations, DINGs) seen before mean
    /// nothing any more, or something else. Publishes without a result have ended with
    /// [`PublishError::Reset`](crate::PublishError), and nothing that names an id is accepted until the next event is asked for: by
    /// then, drop every id, everywhere in the application. To go on before, call [`Client::begin_anew`](crate::Client::begin_anew).
    Reset,
    /// A session is open.
    Connected(Welcome),
    /// The session is over; another will be opened.
    Disconnected {
        /// Why.
        reason: Disconnect,
    },
    /// The client has ended by itself; nothing follows.
    Ended(ConnectError),
}

impl Event {
    /// The event that a delivered message is.
    pub(crate) fn from_deliver(frame: Deliver) -> Self {
        if frame.kind == MessageKind::SYSTEM
            && let Ok(raw) = RawFrame::new(frame.payload.clone())
            && raw.kind == MembershipChanged::KIND
            && let Ok(changed) = MembershipChanged::decode(&raw)
        {
            let Deliver { position, conversation: personal, seq, time, .. } = frame;
            return Self::Membership(Membership { personal, seq, position, time, changed });
        }
        Self::Message(frame.into())
    }

    /// What acknowledging this event says.
    fn acknowledgement(&self) -> Option<Acknowledgement> {
        let inbox = |shard, position| Some(Acknowledgement::Inbox(shard, position));
        match self {
            Self::Message(m) => inbox(m.conversation.shard(), m.position),
            Self::Membership(m) => inbox(m.personal.shard(), m.position),
            Self::Progress(p) => Some(Acknowledgement::Both(p.shard, p.position, p.receipts_through)),
            Self::Truncated(t) => inbox(t.conversation.shard(), t.position),
            Self::Skipped(s) => inbox(s.conversation.shard(), s.position),
            Self::ReadCounts(r) => Some(Acknowledgement::Receipt(r.conversation.shard(), r.through)),
            Self::Read(r) => Some(Acknowledgement::Receipt(r.conversation.shard(), r.through)),
            Self::Ding(_)
            | Self::DingUpdate(_)
            | Self::DingOver(_)
            | Self::DingProgress(_)
            | Self::Signal(_)
            | Self::Reset
            | Self::Connected(_)
            | Self::Disconnected { .. }
            | Self::Ended(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Acknowledgement {
    Inbox(ShardId, Position),
    Receipt(ShardId, Position),
    Both(ShardId, Position, Position),
}

impl Acknowledgement {
    fn give(self, shared: &Shared) {
        match self {
            Self::Inbox(shard, position) => shared.cursors.ack(shard, position),
            Self::Receipt(shard, position) => shared.cursors.ack_receipts(shard, position),
            Self::Both(shard, position, receipts) => {
                shared.cursors.ack(shard, position);
                shared.cursors.ack_receipts(shard, receipts);
            }
        }
    }
}

/// The events of a client.
///
/// Bounded: while nobody takes events, the inbox is not read and the broker waits, but replies and DINGs keep coming. Dropping
/// `Events` and keeping the client makes the SDK drop, unacknowledged, what comes.
#[derive(Debug)]
pub struct Events {
    pub(crate) handle: Arc<Handle>,
    pub(crate) urgent: mpsc::Receiver<Event>,
    pub(crate) notices: mpsc::Receiver<Event>,
    pub(crate) inbox: mpsc::Receiver<Event>,
    pub(crate) signals: mpsc::Receiver<Event>,
    pub(crate) auto_ack: bool,
    given: Option<Acknowledgement>,
    is_reset_given: bool,
}

impl Events {
    pub(crate) fn new(handle: Arc<Handle>, [urgent, notices, inbox, signals]: [mpsc::Receiver<Event>; 4]) -> Self {
        Self { handle, urgent, notices, inbox, signals, auto_ack: false, given: None, is_reset_given: false }
    }

    /// The next event, DINGs first (but none of another journal before its [`Event::Reset`]); `None` after the client was closed, or has ended and said so. What was not given
    /// by then comes again to the next client.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        if self.auto_ack
            && let Some(given) = self.given.take()
        {
            given.give(&self.handle.shared);
        }
        if std::mem::take(&mut self.is_reset_given) {
            self.handle.shared.resets.settle();
        }
        let event = tokio::select! {
            biased;
            () = self.handle.shared.ended() => return self.handle.shared.take_failure().map(Event::Ended),
            Some(event) = self.urgent.recv() => event,
            Some(event) = self.notices.recv() => event,
            Some(event) = self.signals.recv() => event,
            Some(event) = self.inbox.recv() => event,
        };
        if matches!(event, Event::Reset) {
            self.handle.shared.cursors.reset_seen();
            self.handle.shared.resets.give();
            self.is_reset_given = true;
        }
        self.given = event.acknowledgement();
        Some(event)
    }

    /// Whether an event is acknowledged when the next one is asked for; off at first. With it, an event is done with when `next` is called again.
    pub fn auto_ack(&mut self, on: bool) {
        self.auto_ack = on;
    }

    /// Acknowledges this event and all before it in its shard (read updates have an acknowledgement of their own). Returns at
    /// once: acknowledgements are put together, given to the store, then sent.
    pub fn ack(&self, event: &Event) {
        if let Some(acknowledgement) = event.acknowledgement() {
            acknowledgement.give(&self.handle.shared);
        }
    }
}
