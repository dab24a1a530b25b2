//! The connections of one edge: streams with windows that fill up, cut writes anywhere, and open again when the client
//! has read. What `carillon_transport::Link` promises is kept, and nothing beyond it: `Writable` comes only where a write
//! was short, `Readable` only where a read found nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use carillon::edge::Links;
use carillon_transport::{
    CloseReason, DatagramRefused, Direction, Event, Link, LinkKey, Read, Room, StreamClosed, StreamId, Unacknowledged,
};

use super::rng::Rng;

/// Streams that a client lets the broker open, as the protocol has it.
const LANES_MAX: u64 = 3;

/// One stream, both ways.
#[derive(Default)]
struct Stream {
    /// Written by the edge, not yet read by the client.
    down: BytesMut,
    /// How much of that there may be.
    window: usize,
    /// A write was short: `Writable` is owed.
    short: bool,
    /// Sent by the client, not yet read by the edge.
    up: VecDeque<Bytes>,
    /// The edge found nothing to read: `Readable` is owed.
    drained: bool,
}

struct Connection {
    streams: BTreeMap<StreamId, Stream>,
    lanes: u64,
    window: usize,
    closed: bool,
}

/// See the module.
pub(super) struct SimLinks {
    /// By index: the generation in use or last used, and the connection.
    slots: Vec<(u32, Option<Connection>)>,
    events: VecDeque<Event>,
    /// What the edge closed since it was last asked.
    closed: Vec<(LinkKey, u32, String)>,
    rng: Rng,
    /// How likely a write is cut though there is room, in percent.
    pub(super) stingy: usize,
    /// Calls of the edge since it was last asked.
    pub(super) calls: usize,
}

impl SimLinks {
    pub(super) fn new(rng: Rng, stingy: usize) -> Self {
        Self { slots: Vec::new(), events: VecDeque::new(), closed: Vec::new(), rng, stingy, calls: 0 }
    }

    /// A client connects, whose streams have this window.
    pub(super) fn connect(&mut self, window: usize) -> LinkKey {
        let free = self.slots.iter().position(|(_, connection)| connection.is_none());
        let index = free.unwrap_or_else(|| {
            self.slots.push((u32::MAX, None));
            self.slots.len() - 1
        });
        let (generation, slot) = &mut self.slots[index];
        *generation = generation.wrapping_add(1);
        *slot = Some(Connection { streams: BTreeMap::new(), lanes: 0, window, closed: false });
        let link = LinkKey { index: u32::try_from(index).expect("few"), generation: *generation };
        self.events.push_back(Event::Connected { link });
        link
    }

    /// The client opens a stream; the first bytes come later.
    pub(super) fn open(&mut self, link: LinkKey, stream: StreamId) {
        let Some(connection) = self.connection(link) else { return };
        let window = connection.window;
        connection.streams.insert(stream, Stream { window, ..Stream::default() });
        self.events.push_back(Event::Opened { link, stream, direction: Direction::Bidirectional });
        self.events.push_back(Event::Readable { link, stream });
    }

    /// The client's bytes arrive.
    pub(super) fn send(&mut self, link: LinkKey, stream: StreamId, bytes: Bytes) {
        let Some(stream_of) = self.stream(link, stream) else { return };
        stream_of.up.push_back(bytes);
        if std::mem::take(&mut stream_of.drained) {
            self.events.push_back(Event::Readable { link, stream });
        }
    }

    /// The client goes away.
    pub(super) fn disconnect(&mut self, link: LinkKey) {
        if self.connection(link).is_some() {
            self.end(link, CloseReason::TimedOut);
        }
    }

    fn end(&mut self, link: LinkKey, reason: CloseReason) {
        self.slots[link.index as usize].1 = None;
        self.events.push_back(Event::Closed { link, reason });
    }

    /// The streams of a connection.
    pub(super) fn streams(&mut self, link: LinkKey) -> Vec<StreamId> {
        self.connection(link).map(|connection| connection.streams.keys().copied().collect()).unwrap_or_default()
    }

    /// The client reads at most so many bytes.
    pub(super) fn receive(&mut self, link: LinkKey, stream: StreamId, bytes_max: usize) -> Bytes {
        let Some(found) = self.stream(link, stream) else { return Bytes::new() };
        let bytes = found.down.len().min(bytes_max);
        let read = found.down.split_to(bytes).freeze();
        self.make_writable(link, stream);
        read
    }

    /// Every stream of the connection gets another window.
    pub(super) fn set_window(&mut self, link: LinkKey, window: usize) {
        let Some(connection) = self.connection(link) else { return };
        connection.window = window;
        for stream in connection.streams.values_mut() {
            stream.window = window;
        }
        for stream in self.streams(link) {
            self.make_writable(link, stream);
        }
    }

    /// Says `Writable` without cause, where it is owed.
    pub(super) fn tease(&mut self, link: LinkKey) {
        for stream in self.streams(link) {
            if self.stream(link, stream).is_some_and(|stream| stream.short) {
                self.events.push_back(Event::Writable { link, stream });
            }
        }
    }

    fn make_writable(&mut self, link: LinkKey, stream: StreamId) {
        let Some(found) = self.stream(link, stream) else { return };
        if found.short && found.down.len() < found.window {
            found.short = false;
            self.events.push_back(Event::Writable { link, stream });
        }
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// The next events, at most so many.
    pub(super) fn take_events(&mut self, events_max: usize) -> Vec<Event> {
        let count = self.events.len().min(events_max);
        self.events.drain(..count).collect()
    }

    /// What the edge closed, with code and reason.
    pub(super) fn take_closed(&mut self) -> Vec<(LinkKey, u32, String)> {
        for (link, ..) in &self.closed {
            self.slots[link.index as usize].1 = None;
            self.events.push_back(Event::Closed { link: *link, reason: CloseReason::ByUs });
        }
        std::mem::take(&mut self.closed)
    }

    fn connection(&mut self, link: LinkKey) -> Option<&mut Connection> {
        let (generation, connection) = self.slots.get_mut(link.index as usize)?;
        if *generation == link.generation { connection.as_mut() } else { None }
    }

    fn stream(&mut self, link: LinkKey, stream: StreamId) -> Option<&mut Stream> {
        self.connection(link)?.streams.get_mut(&stream)
    }
}

impl Links for SimLinks {
    type Link<'a> = SimLink<'a>;

    fn link(&mut self, key: LinkKey) -> Option<SimLink<'_>> {
        self.calls += 1;
        self.connection(key)?;
        Some(SimLink { links: self, key })
    }
}

/// A connection, lent to the edge.
pub(super) struct SimLink<'a> {
    links: &'a mut SimLinks,
    key: LinkKey,
}

impl SimLink<'_> {
    fn open_stream(&mut self, stream: StreamId) -> Result<&mut Stream, StreamClosed> {
        let connection = self.links.connection(self.key).filter(|connection| !connection.closed);
        connection.and_then(|connection| connection.streams.get_mut(&stream)).ok_or(StreamClosed::Gone)
    }
}

impl Link for SimLink<'_> {
    fn open_uni(&mut self, _priority: i32) -> Option<StreamId> {
        let connection = self.links.connection(self.key)?;
        if connection.closed || connection.lanes == LANES_MAX {
            return None;
        }
        let stream = StreamId(connection.lanes << 2 | 0b11);
        connection.lanes += 1;
        let window = connection.window;
        connection.streams.insert(stream, Stream { window, ..Stream::default() });
        Some(stream)
    }

    fn open_bi(&mut self, _priority: i32) -> Option<StreamId> {
        None
    }

    fn set_priority(&mut self, _stream: StreamId, _priority: i32) {}

    fn write(&mut self, stream: StreamId, bytes: &mut Bytes, _room: Room) -> Result<usize, StreamClosed> {
        let (cut, share) = (self.links.rng.percent(self.links.stingy), self.links.rng.next());
        let found = self.open_stream(stream)?;
        let mut room = found.window.saturating_sub(found.down.len());
        if cut {
            room = usize::try_from(share % (room as u64 + 1)).expect("at most the room");
        }
        let taken = bytes.len().min(room);
        found.down.extend_from_slice(&bytes.split_to(taken));
        found.short = !bytes.is_empty();
        Ok(taken)
    }

    fn read(&mut self, stream: StreamId, bytes_max: usize) -> Result<Read, StreamClosed> {
        let (cut, share) = (self.links.rng.percent(30), self.links.rng.next());
        let found = self.open_stream(stream)?;
        let Some(mut chunk) = found.up.pop_front() else {
            found.drained = true;
            return Ok(Read::Blocked);
        };
        let mut bytes = chunk.len().min(bytes_max.max(1));
        if cut {
            bytes = usize::try_from(share % bytes as u64).expect("below the chunk") + 1;
        }
        let read = chunk.split_to(bytes);
        if !chunk.is_empty() {
            found.up.push_front(chunk);
        }
        Ok(Read::Data(read))
    }

    fn finish(&mut self, _stream: StreamId) {}

    fn reset(&mut self, _stream: StreamId, _code: u32) {}

    fn stop(&mut self, _stream: StreamId, _code: u32) {}

    fn send_datagram(&mut self, _bytes: Bytes) -> Result<(), DatagramRefused> {
        Err(DatagramRefused::Unsupported)
    }

    fn close(&mut self, code: u32, reason: &str) {
        let key = self.key;
        if let Some(connection) = self.links.connection(key)
            && !std::mem::replace(&mut connection.closed, true)
        {
            self.links.closed.push((key, code, reason.to_owned()));
        }
    }

    fn remote_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    /// Nothing that was written is kept here.
    fn unacknowledged(&self) -> Option<Unacknowledged> {
        None
    }
}
