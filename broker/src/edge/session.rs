//! A session as its edge sees it.

use std::time::Instant;

use bytes::Bytes;
use carillon_core::input::{Authority, Principal};
use carillon_protocol::decoder::Decoder;
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{ConversationId, DeviceId, Position, ProducerId, Timestamp};
use carillon_protocol::session::Hello;
use carillon_transport::{Link, LinkKey, Room, StreamClosed, StreamId};

use super::catchup::CatchUp;
use super::history::Bulk;
use super::rare::RareQueue;
use super::receipts::Told;

/// How far a session has come.
#[derive(Debug)]
pub(super) enum Phase {
    /// Connected; `Hello` must come before this time.
    AwaitingHello { until: Instant },
    /// The sequencer has its `Attach`.
    Attaching(Box<Attaching>),
    /// It has its `Welcome`.
    Attached(Box<Identity>),
}

/// What is kept between `Hello` and `Welcome`.
#[derive(Debug)]
pub(super) struct Attaching {
    pub(super) hello: Hello,
    pub(super) tenant: Text,
    pub(super) handle: Text,
    pub(super) authority: Authority,
    pub(super) expires_at: Timestamp,
}

/// Who an attached session is.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) who: Principal,
    pub(super) tenant: Text,
    pub(super) handle: Text,
    pub(super) device: DeviceId,
    pub(super) producer: Option<ProducerId>,
    pub(super) expires_at: Timestamp,
    /// The attach's position: urgent signals up to here came with it.
    pub(super) as_of: Position,
}

/// Where a session's inbox is fed from.
#[derive(Debug)]
pub(super) enum Feed {
    /// Not attached.
    Idle,
    /// From committed batches as they come; the first of them had this position.
    Live { from: Position },
    /// From the journal, at its own pace.
    CatchingUp(Box<CatchUp>),
}

/// Whether what waits counts as the session's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It does.
    Own,
    /// Its bytes are the shard's.
    Shared,
}

/// One direction of a stream with what did not fit yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RareQueue<(Bytes, Weight)>,
    bytes: usize,
}

impl Outbox {
    /// Bytes of the session's own that wait for the stream.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes now what can be written, and keeps the rest in order.
    pub(super) fn write(
        &mut self,
        link: &mut impl Link,
        stream: StreamId,
        mut frame: Bytes,
        room: Room,
        weight: Weight,
    ) -> Result<(), StreamClosed> {
        if self.waiting.is_empty() {
            link.write(stream, &mut frame, room)?;
        }
        if !frame.is_empty() {
            if weight == Weight::Own {
                self.bytes += frame.len();
            }
            self.waiting.push_back((frame, weight));
        }
        Ok(())
    }

    /// Goes on writing when the stream takes more.
    pub(super) fn flush(&mut self, link: &mut impl Link, stream: StreamId, room: Room) -> Result<(), StreamClosed> {
        while let Some((frame, weight)) = self.waiting.front_mut() {
            let written = link.write(stream, frame, room)?;
            if *weight == Weight::Own {
                self.bytes -= written;
            }
            if !frame.is_empty() {
                break;
            }
            self.waiting.pop_front();
        }
        Ok(())
    }
}

/// The publishes of a session that wait for their reply. Replies come in the order of the publishes.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    sizes: RareQueue<usize>,
    bytes: usize,
}

impl InFlight {
    pub(super) fn begin(&mut self, frame_bytes: usize) {
        self.sizes.push_back(frame_bytes);
        self.bytes += frame_bytes;
    }

    pub(super) fn settle_oldest(&mut self) {
        self.bytes -= self.sizes.pop_front().expect("each publish is answered once");
    }

    pub(super) fn count(&self) -> usize {
        self.sizes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A bidirectional stream of the client: control or publish.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) stream: StreamId,
    pub(super) decoder: Decoder,
    pub(super) out: Outbox,
    /// There may be bytes or frames that were left for later.
    pub(super) unread: bool,
}

impl Channel {
    pub(super) fn new(stream: StreamId, frame_bytes_max: usize) -> Self {
        Self { stream, decoder: Decoder::new(frame_bytes_max), out: Outbox::default(), unread: true }
    }
}

/// The inbox lane of a session.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) stream: Option<StreamId>,
    /// The rest of the one frame that the stream cut.
    pub(super) remainder: Bytes,
    /// Read updates that wait behind it.
    pub(super) receipts: RareQueue<Bytes>,
    /// The stream takes no more; a `Writable` event will come.
    pub(super) blocked: bool,
    /// The highest position offered, and the most that may be acknowledged.
    pub(super) sent: Position,
    /// The most that `receipts_through` may say.
    pub(super) receipts_sent: Position,
    /// Its updates are written in a later turn.
    pub(super) untold: bool,
    /// Where it stands with read updates.
    pub(super) told: Told,
    /// Stands in the list of sessions to be told what has moved.
    pub(super) behind_listed: bool,
    /// The interval in which the shard was asked what has moved, last.
    pub(super) asked_in: u64,
    /// The newest update that said less of `receipts_through` than its own position: until so much was said, the rest is to be.
    pub(super) receipts_held_back: Position,
}

impl Inbox {
    /// An update waits to be written.
    pub(super) fn keep_receipt(&mut self, through: Position, update: Bytes) {
        self.receipts.push_back(update);
        self.receipts_sent = self.receipts_sent.max(through);
    }

    /// An update was told that speaks for less than itself, or for all up to itself.
    pub(super) fn note_told(&mut self, position: Position, through: Position) {
        if through < position {
            self.receipts_held_back = self.receipts_held_back.max(position);
        }
    }

    /// Whether there is something to say, now that all up to here was told.
    pub(super) fn owes_through(&self, told: Position) -> bool {
        self.receipts_held_back > self.receipts_sent && self.receipts_held_back <= told
    }
}

/// What a session holds because its streams did not take it. Every field has a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The rest of the one frame that the inbox cut.
    pub remainder_bytes: usize,
    /// Frames read from disk for the next slice of catch-up, and those that name what does not come.
    pub body_bytes: usize,
    /// Positions planned ahead.
    pub planned: usize,
    /// Read updates that wait.
    pub receipts: usize,
    /// Urgent frames that wait, but for what the attach brought.
    pub urgent_bytes: usize,
    /// Replies that wait, on both streams.
    pub reply_bytes: usize,
    /// A page of history.
    pub bulk_bytes: usize,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: LinkKey,
    pub(super) phase: Phase,
    pub(super) control: Option<Channel>,
    /// Most sessions are of devices, and have none.
    pub(super) publish: Option<Box<Channel>>,
    pub(super) inbox: Inbox,
    pub(super) urgent: Option<(StreamId, Outbox)>,
    pub(super) bulk: Bulk,
    pub(super) feed: Feed,
    pub(super) requests_pending: usize,
    pub(super) publishes: InFlight,
    /// Acknowledged and not yet handed to the sequencer.
    pub(super) acked: Option<Position>,
    /// Signals since the last tick.
    pub(super) signals: u32,
    /// Where it said it is present, at most 8.
    pub(super) present: Vec<ConversationId>,
    /// Refreshes of its token since the last tick.
    pub(super) refreshes: u32,
    /// Stands in the list of sessions whose streams are to be read on.
    pub(super) resuming: bool,
}

/// There is one for each connected device: it is to fit a size that allocators have.
const _: () =
    assert!(size_of::<Session>() <= 512, "sessions have outgrown their size: see docs/PERFORMANCE.md, A session");

impl Session {
    pub(super) fn new(key: LinkKey, hello_until: Instant) -> Self {
        Self {
            key,
            phase: Phase::AwaitingHello { until: hello_until },
            control: None,
            publish: None,
            inbox: Inbox::default(),
            urgent: None,
            bulk: Bulk::default(),
            feed: Feed::Idle,
            requests_pending: 0,
            publishes: InFlight::default(),
            acked: None,
            signals: 0,
            present: Vec::new(),
            refreshes: 0,
            resuming: false,
        }
    }

    /// Who it is, once attached.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match &self.phase {
            Phase::Attached(identity) => Some(identity),
            Phase::AwaitingHello { .. } | Phase::Attaching(_) => None,
        }
    }

    pub(super) fn held(&self) -> Held {
        let (planned, body_bytes) = match &self.feed {
            Feed::CatchingUp(catch_up) => catch_up.held(),
            Feed::Idle | Feed::Live { .. } => (0, 0),
        };
        let channels = self.control.iter().chain(self.publish.as_deref());
        Held {
            remainder_bytes: self.inbox.remainder.len(),
            body_bytes,
            planned,
            receipts: self.inbox.receipts.len(),
            urgent_bytes: self.urgent.as_ref().map_or(0, |(_, outbox)| outbox.bytes()),
            reply_bytes: channels.map(|channel| channel.out.bytes()).sum(),
            bulk_bytes: self.bulk.bytes(),
        }
    }

    /// Whether no reply waits for its stream.
    pub(super) fn is_answered(&self) -> bool {
        let channels = [self.control.as_ref(), self.publish.as_deref()];
        channels.into_iter().flatten().all(|channel| channel.out.is_empty())
    }

    /// Whether a round that begins at this position concerns it: it is live, turned so before the round, and has not had it.
    pub(super) fn awaits(&self, first: Position) -> bool {
        matches!(self.feed, Feed::Live { from } if from <= first) && self.inbox.sent < first
    }
}

/// The sessions of an edge, by the index of their connection.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    count: usize,
}

impl Sessions {
    pub(super) fn insert(&mut self, session: Session) {
        let index = session.key.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        if self.slots[index].replace(Box::new(session)).is_none() {
            self.count += 1;
        }
    }

    pub(super) fn remove(&mut self, key: LinkKey) -> Option<Box<Session>> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.as_ref()?.key != key {
            return None;
        }
        self.count -= 1;
        slot.take()
    }

    pub(super) fn at_key(&mut self, key: LinkKey) -> Option<&mut Session> {
        self.at(key.index).filter(|session| session.key == key)
    }

    pub(super) fn at(&mut self, index: u32) -> Option<&mut Session> {
        self.slots.get_mut(index as usize)?.as_deref_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.slots.iter_mut().flatten().map(|session| &mut **session)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slots.iter().flatten().map(|session| &**session)
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_back_is_owed_when_all_of_it_was_told_and_until_it_is_said() {
        let mut inbox = Inbox::default();
        inbox.note_told(Position(9), Position(9));
        assert!(!inbox.owes_through(Position(99)), "it said all");
        // In a storm counts are due all the time: what is told rises, and all of it is only said when there is an end to it.
        inbox.note_told(Position(20), Position(11));
        inbox.note_told(Position(18), Position(11));
        assert_eq!([11, 19, 20, 30].map(|told| inbox.owes_through(Position(told))), [false, false, true, true]);
        inbox.receipts_sent = Position(20);
        assert!(!inbox.owes_through(Position(30)), "it was said");
    }
}
