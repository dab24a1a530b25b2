//! One session, as the protocol has it: `Hello`, `Welcome`, lanes, messages in order, acknowledgements.
//!
//! Holds no payload and no message: what comes is handed on at once.

use std::time::Instant;

use bytes::Bytes;
use carillon_protocol::Frame;
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::{Body, RawFrame};
use carillon_protocol::ids::{Position, ShardId};
use carillon_protocol::kinds::Lane;
use carillon_protocol::receipt::{ReadCountsUpdate, ReadUpdate};
use carillon_protocol::session::{Ack, LaneOpened, Progress, Skipped, Truncated, VERSION, Welcome};
use carillon_transport::{Direction, Link, LinkKey, Read, StreamId};

use crate::channel::{Channel, Purpose};
use crate::failure::Ended;
use crate::fleet::{Acks, Greeting};
use crate::limits::READ_BYTES;

/// What a session tells.
#[derive(Debug)]
pub(crate) enum News {
    /// The broker has welcomed it.
    Open(Welcome),
    /// What was there before it came is read.
    CaughtUp,
    /// A reply on the control stream, or an answer on the publish stream.
    Answer(Frame),
    /// A message.
    Message(Deliver),
    /// An update of who has read, or how many.
    Receipt(Frame),
    /// What came on the urgent lane.
    Urgent(Frame),
    /// It is no more; nothing follows.
    Ended(Ended),
}

/// What the broker did wrong, or what was done to a stream that must live.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Greeted,
    Open,
    Ended,
}

/// A session. Made when its connection is begun.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: LinkKey,
    pub(crate) endpoint: usize,
    phase: Phase,
    publishes: bool,
    /// The `Hello`, until it is sent.
    hello: Bytes,
    channels: Vec<Channel>,
    shard: ShardId,
    /// What the welcome called the head.
    head: Position,
    is_caught_up: bool,
    received: Position,
    acked: Position,
    unacked: u32,
    /// From when on it acknowledges what comes at once.
    ack_at: Instant,
    /// It does not read.
    is_deaf: bool,
}

impl Session {
    /// `start` is the position of the cursor in its `Hello`. It acknowledges from `ack_at` on.
    pub(crate) fn new(link: LinkKey, endpoint: usize, greeting: Greeting, ack_at: Instant) -> Self {
        let Greeting { hello, start, publishes } = greeting;
        Self {
            link,
            endpoint,
            phase: Phase::Connecting,
            publishes,
            hello,
            channels: Vec::new(),
            shard: ShardId(0),
            head: Position(0),
            is_caught_up: false,
            received: start,
            acked: start,
            unacked: 0,
            ack_at,
            is_deaf: false,
        }
    }

    /// Acknowledges, as the SDK does, when the last acknowledgement was long ago, or with many messages since.
    pub(crate) fn ack_if_due(&mut self, link: &mut impl Link, acks: Acks, now: Instant) -> Result<(), Broken> {
        if self.unacked > 0 && (self.unacked >= acks.messages || now >= self.ack_at) {
            self.ack(link, acks, now)?;
        }
        Ok(())
    }

    /// Whether something was to be acknowledged together with what came next, and nothing came.
    pub(crate) fn is_behind(&self, acks: Acks, now: Instant) -> bool {
        self.owes_ack() && now >= self.ack_at + acks.every
    }

    fn owes_ack(&self) -> bool {
        self.phase == Phase::Open && self.received > self.acked && !self.is_deaf
    }

    /// The connection is there: says who is at its end.
    pub(crate) fn greet(&mut self, link: &mut impl Link) -> Result<(), Broken> {
        let stream = link.open_bi(0).ok_or_else(|| Broken("the broker allows no control stream".into()))?;
        let hello = std::mem::take(&mut self.hello);
        self.channels.push(Channel::new(stream, Purpose::Control));
        self.phase = Phase::Greeted;
        self.send(link, Purpose::Control, hello)
    }

    /// The broker opened a stream.
    pub(crate) fn lane_opened(&mut self, stream: StreamId, direction: Direction) -> Result<(), Broken> {
        match direction {
            Direction::Unidirectional => {
                self.channels.push(Channel::new(stream, Purpose::Opening));
                Ok(())
            }
            Direction::Bidirectional => Err(Broken("the broker opened a bidirectional stream".into())),
        }
    }

    /// Writes to the control or publish stream; what is not taken goes out later.
    pub(crate) fn send(&mut self, link: &mut impl Link, to: Purpose, bytes: Bytes) -> Result<(), Broken> {
        let channel = self.channels.iter_mut().find(|channel| channel.purpose == to);
        let channel = channel.ok_or_else(|| Broken(format!("there is no {to:?} stream")))?;
        channel.send(link, bytes).map_err(|error| Broken(format!("{to:?} stream: {error}")))
    }

    /// Whether all that was sent on a stream was taken.
    pub(crate) fn is_clear(&self, to: Purpose) -> bool {
        self.channels.iter().any(|channel| channel.purpose == to && channel.is_clear())
    }

    /// A stream takes more.
    pub(crate) fn writable(&mut self, link: &mut impl Link, stream: StreamId) -> Result<(), Broken> {
        match self.channels.iter_mut().find(|channel| channel.stream == stream) {
            Some(channel) => channel.flush(link).map_err(|error| Broken(error.to_string())),
            None => Ok(()),
        }
    }

    /// Acknowledges all that has come. Does nothing while an earlier acknowledgement waits for room.
    pub(crate) fn ack(&mut self, link: &mut impl Link, acks: Acks, now: Instant) -> Result<(), Broken> {
        if !self.owes_ack() || !self.is_clear(Purpose::Control) {
            return Ok(());
        }
        self.ack_at = now + acks.every;
        self.acked = self.received;
        self.unacked = 0;
        let ack = Ack { shard: self.shard, position: self.received, receipts_through: Position(0) };
        self.send(link, Purpose::Control, ack.to_bytes())
    }

    /// It is over; answers whether that is news.
    pub(crate) fn end(&mut self) -> bool {
        self.channels = Vec::new();
        std::mem::replace(&mut self.phase, Phase::Ended) != Phase::Ended
    }

    /// Reads nothing, and acknowledges nothing, until it reads on.
    pub(crate) fn stop_reading(&mut self) {
        self.is_deaf = true;
    }

    /// Reads again; answers whether it had stopped. What has come meanwhile is read when each of its streams is.
    pub(crate) fn read_on(&mut self) -> bool {
        std::mem::take(&mut self.is_deaf)
    }

    /// Its streams, as far as they are open.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.channels.iter().map(|channel| channel.stream).collect()
    }

    /// Reads a stream until there is nothing more, unless it does not read.
    pub(crate) fn read(
        &mut self,
        link: &mut impl Link,
        stream: StreamId,
        tell: &mut impl FnMut(News),
    ) -> Result<(), Broken> {
        let Some(at) = self.channels.iter().position(|channel| channel.stream == stream) else { return Ok(()) };
        while !self.is_deaf {
            match link.read(stream, READ_BYTES) {
                Ok(Read::Data(_)) if self.channels[at].purpose == Purpose::Unread => {}
                Ok(Read::Data(bytes)) => {
                    self.channels[at].decoder.push(bytes);
                    self.take_frames(link, at, tell)?;
                }
                Ok(Read::Blocked) => return Ok(()),
                Ok(Read::Finished) => return Err(Broken(format!("the broker finished {stream}"))),
                Err(error) => return Err(Broken(format!("{stream}: {error}"))),
            }
        }
        Ok(())
    }

    fn take_frames(&mut self, link: &mut impl Link, at: usize, tell: &mut impl FnMut(News)) -> Result<(), Broken> {
        while let Some(raw) = self.channels[at].decoder.poll_frame().map_err(malformed)? {
            match self.channels[at].purpose {
                Purpose::Control if self.phase == Phase::Greeted => self.take_welcome(link, &raw, tell)?,
                Purpose::Control | Purpose::Publish => tell(News::Answer(Frame::decode(&raw).map_err(malformed)?)),
                Purpose::Opening => self.channels[at].purpose = lane(&raw)?,
                Purpose::Inbox => self.take_inbox(&raw, tell)?,
                Purpose::Urgent => tell(News::Urgent(Frame::decode(&raw).map_err(malformed)?)),
                Purpose::Unread => {}
            }
        }
        Ok(())
    }

    fn take_welcome(
        &mut self,
        link: &mut impl Link,
        raw: &RawFrame,
        tell: &mut impl FnMut(News),
    ) -> Result<(), Broken> {
        if raw.kind != Welcome::KIND {
            return Err(unexpected(raw, "control stream before Welcome"));
        }
        let welcome = Welcome::decode(raw).map_err(malformed)?;
        if welcome.version != VERSION {
            return Err(Broken(format!("the broker welcomes in version {}, asked was {VERSION}", welcome.version)));
        }
        if self.publishes {
            let stream = link.open_bi(0).ok_or_else(|| Broken("the broker allows no publish stream".into()))?;
            self.channels.push(Channel::new(stream, Purpose::Publish));
        }
        (self.shard, self.head, self.phase) = (welcome.shard, welcome.head, Phase::Open);
        tell(News::Open(welcome));
        self.note_caught_up(tell);
        Ok(())
    }

    fn take_inbox(&mut self, raw: &RawFrame, tell: &mut impl FnMut(News)) -> Result<(), Broken> {
        let (position, message) = match raw.kind {
            Deliver::KIND => {
                let deliver = Deliver::decode(raw).map_err(malformed)?;
                (deliver.position, Some(deliver))
            }
            Progress::KIND => (Progress::decode(raw).map_err(malformed)?.position, None),
            Truncated::KIND => (Truncated::decode(raw).map_err(malformed)?.position, None),
            Skipped::KIND => (Skipped::decode(raw).map_err(malformed)?.position, None),
            // Read updates lie between the others with positions of their own.
            ReadUpdate::KIND | ReadCountsUpdate::KIND => {
                tell(News::Receipt(Frame::decode(raw).map_err(malformed)?));
                return Ok(());
            }
            _ => return Err(unexpected(raw, "inbox lane")),
        };
        let is_in_order = position > self.received || (message.is_none() && position == self.received);
        if !is_in_order {
            return Err(Broken(format!("position {position} came after {}", self.received)));
        }
        self.received = position;
        if let Some(message) = message {
            self.unacked += 1;
            tell(News::Message(message));
        }
        self.note_caught_up(tell);
        Ok(())
    }

    /// The inbox may run ahead of the welcome, which is on another stream.
    fn note_caught_up(&mut self, tell: &mut impl FnMut(News)) {
        if !self.is_caught_up && self.phase == Phase::Open && self.received >= self.head {
            self.is_caught_up = true;
            tell(News::CaughtUp);
        }
    }
}

fn lane(raw: &RawFrame) -> Result<Purpose, Broken> {
    if raw.kind != LaneOpened::KIND {
        return Err(unexpected(raw, "lane before LaneOpened"));
    }
    Ok(match LaneOpened::decode(raw).map_err(malformed)?.lane {
        Lane::INBOX => Purpose::Inbox,
        Lane::URGENT => Purpose::Urgent,
        _ => Purpose::Unread,
    })
}

fn malformed(error: carillon_protocol::frame::FrameError) -> Broken {
    Broken(error.to_string())
}

fn unexpected(raw: &RawFrame, place: &str) -> Broken {
    Broken(format!("a frame of kind {:#04x} on the {place}", raw.kind))
}
