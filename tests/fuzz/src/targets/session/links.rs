//! Connections that are no sockets: what clients send is there at once, what the edge writes is kept.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use carillon::edge::Links;
use carillon_transport::{
    CloseReason, DatagramRefused, Direction, Event, Link, LinkKey, Read, Room, StreamClosed, StreamId, Unacknowledged,
};

/// Streams that a client lets the broker open, as the protocol has it.
const LANES_MAX: u64 = 3;

#[derive(Default)]
struct Stream {
    down: BytesMut,
    up: VecDeque<Bytes>,
    finished: bool,
}

#[derive(Default)]
struct Connection {
    streams: BTreeMap<StreamId, Stream>,
    lanes: u64,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Wires {
    connections: Vec<Option<Connection>>,
    pub(super) events: Vec<Event>,
    /// Closed by the edge: which, with what code.
    pub(super) closed: Vec<(LinkKey, u32)>,
    /// What was written to a stream that is gone with its connection.
    gone: Vec<BytesMut>,
}

/// No slot is used twice, so all are of the first generation.
fn key(index: usize) -> LinkKey {
    LinkKey { index: u32::try_from(index).unwrap(), generation: 0 }
}

impl Wires {
    /// A client connects.
    pub(super) fn connect(&mut self) -> LinkKey {
        self.connections.push(Some(Connection::default()));
        let link = key(self.connections.len() - 1);
        self.events.push(Event::Connected { link });
        link
    }

    /// The client's bytes arrive on a stream, which it opens with the first.
    pub(super) fn send(&mut self, link: LinkKey, stream: StreamId, bytes: Bytes) {
        let Some(connection) = self.connection(link) else { return };
        let opened = !connection.streams.contains_key(&stream);
        let found = connection.streams.entry(stream).or_default();
        if !bytes.is_empty() {
            found.up.push_back(bytes);
        }
        if opened {
            let direction = Direction::Bidirectional;
            self.events.push(Event::Opened { link, stream, direction });
        }
        self.events.push(Event::Readable { link, stream });
    }

    /// The client ends a stream.
    pub(super) fn finish(&mut self, link: LinkKey, stream: StreamId) {
        if let Some(found) = self.connection(link).and_then(|connection| connection.streams.get_mut(&stream)) {
            found.finished = true;
            self.events.push(Event::Readable { link, stream });
        }
    }

    /// The client goes away.
    pub(super) fn disconnect(&mut self, link: LinkKey) {
        if self.take(link) {
            self.events.push(Event::Closed { link, reason: CloseReason::TimedOut });
        }
    }

    /// What the edge closed is gone, and it is told so.
    pub(super) fn settle_closed(&mut self) {
        let closed: Vec<_> = (0..self.connections.len()).map(key).filter(|link| self.is_closed(*link)).collect();
        for link in closed {
            self.take(link);
            self.events.push(Event::Closed { link, reason: CloseReason::ByUs });
        }
    }

    fn is_closed(&mut self, link: LinkKey) -> bool {
        self.connection(link).is_some_and(|connection| connection.closed)
    }

    fn take(&mut self, link: LinkKey) -> bool {
        let Some(gone) = self.connections[link.index as usize].take() else { return false };
        self.gone.extend(gone.streams.into_values().map(|stream| stream.down));
        true
    }

    /// What was written so far, a stream each.
    pub(super) fn written(&self) -> impl Iterator<Item = &[u8]> {
        let living = self.connections.iter().flatten().flat_map(|connection| connection.streams.values());
        living.map(|stream| &stream.down[..]).chain(self.gone.iter().map(|bytes| &bytes[..]))
    }

    fn connection(&mut self, link: LinkKey) -> Option<&mut Connection> {
        self.connections.get_mut(link.index as usize)?.as_mut()
    }
}

impl Links for Wires {
    type Link<'a> = Wire<'a>;

    fn link(&mut self, key: LinkKey) -> Option<Wire<'_>> {
        self.connection(key)?;
        Some(Wire { wires: self, key })
    }
}

/// A connection, lent to the edge.
pub(super) struct Wire<'a> {
    wires: &'a mut Wires,
    key: LinkKey,
}

impl Wire<'_> {
    fn stream(&mut self, stream: StreamId) -> Result<&mut Stream, StreamClosed> {
        let connection = self.wires.connection(self.key).filter(|connection| !connection.closed);
        connection.and_then(|connection| connection.streams.get_mut(&stream)).ok_or(StreamClosed::Gone)
    }
}

impl Link for Wire<'_> {
    fn open_uni(&mut self, _priority: i32) -> Option<StreamId> {
        let connection = self.wires.connection(self.key)?;
        if connection.closed || connection.lanes == LANES_MAX {
            return None;
        }
        let stream = StreamId(connection.lanes << 2 | 0b11);
        connection.lanes += 1;
        connection.streams.insert(stream, Stream::default());
        Some(stream)
    }

    fn open_bi(&mut self, _priority: i32) -> Option<StreamId> {
        None
    }

    fn set_priority(&mut self, _stream: StreamId, _priority: i32) {}

    fn write(&mut self, stream: StreamId, bytes: &mut Bytes, _room: Room) -> Result<usize, StreamClosed> {
        let found = self.stream(stream)?;
        found.down.extend_from_slice(bytes);
        Ok(std::mem::take(bytes).len())
    }

    fn read(&mut self, stream: StreamId, bytes_max: usize) -> Result<Read, StreamClosed> {
        let found = self.stream(stream)?;
        let Some(mut chunk) = found.up.pop_front() else {
            return Ok(if found.finished { Read::Finished } else { Read::Blocked });
        };
        let read = chunk.split_to(chunk.len().min(bytes_max.max(1)));
        if !chunk.is_empty() {
            found.up.push_front(chunk);
        }
        Ok(Read::Data(read))
    }

    fn finish(&mut self, _stream: StreamId) {}

    fn reset(&mut self, _stream: StreamId, _code: u32) {}

    fn stop(&mut self, _stream: StreamId, _code: u32) {}

    fn send_datagram(&mut self, bytes: Bytes) -> Result<(), DatagramRefused> {
        assert!(!bytes.is_empty(), "a datagram says something");
        Ok(())
    }

    fn close(&mut self, code: u32, reason: &str) {
        assert!(!reason.chars().any(char::is_control), "a reason is for people: {reason:?}");
        let key = self.key;
        if let Some(connection) = self.wires.connection(key)
            && !std::mem::replace(&mut connection.closed, true)
        {
            self.wires.closed.push((key, code));
        }
    }

    fn remote_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        None
    }
}
