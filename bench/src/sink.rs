//! Connections whose other end takes everything at once: what is measured over them is the edge alone.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Buf, Bytes};
use carillon::edge::Links;
use carillon_transport::{DatagramRefused, Link, LinkKey, Read, Room, StreamClosed, StreamId, Unacknowledged};

/// The client's first and second bidirectional stream.
pub const CONTROL: StreamId = StreamId(0);
/// See [`CONTROL`].
pub const PUBLISH: StreamId = StreamId(4);

/// One connection.
#[derive(Debug, Default)]
struct Sink {
    control: VecDeque<Bytes>,
    publish: VecDeque<Bytes>,
    lanes: u64,
}

/// Connections by index.
#[derive(Debug, Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
    /// Bytes that the edge wrote.
    pub written: u64,
    /// Connections that the edge closed.
    pub closed: u64,
}

impl Sinks {
    /// One connection more.
    ///
    /// # Panics
    /// With 2³² of them.
    pub fn connect(&mut self) -> LinkKey {
        self.sinks.push(Sink::default());
        LinkKey { index: u32::try_from(self.sinks.len() - 1).expect("few"), generation: 0 }
    }

    /// The client sends.
    pub fn send(&mut self, key: LinkKey, stream: StreamId, bytes: Bytes) {
        let sink = &mut self.sinks[key.index as usize];
        if stream == CONTROL { &mut sink.control } else { &mut sink.publish }.push_back(bytes);
    }
}

impl Links for Sinks {
    type Link<'a> = SinkLink<'a>;

    fn link(&mut self, key: LinkKey) -> Option<SinkLink<'_>> {
        let Self { sinks, written, closed } = self;
        Some(SinkLink { sink: sinks.get_mut(key.index as usize)?, written, closed })
    }
}

/// A connection, lent to the edge.
#[derive(Debug)]
pub struct SinkLink<'a> {
    sink: &'a mut Sink,
    written: &'a mut u64,
    closed: &'a mut u64,
}

impl Link for SinkLink<'_> {
    fn open_uni(&mut self, _priority: i32) -> Option<StreamId> {
        self.sink.lanes += 1;
        Some(StreamId(self.sink.lanes << 2 | 0b11))
    }

    fn open_bi(&mut self, _priority: i32) -> Option<StreamId> {
        None
    }

    fn set_priority(&mut self, _stream: StreamId, _priority: i32) {}

    fn write(&mut self, _stream: StreamId, bytes: &mut Bytes, _room: Room) -> Result<usize, StreamClosed> {
        let taken = bytes.len();
        bytes.advance(taken);
        *self.written += taken as u64;
        Ok(taken)
    }

    fn read(&mut self, stream: StreamId, _bytes_max: usize) -> Result<Read, StreamClosed> {
        let sent = if stream == CONTROL { &mut self.sink.control } else { &mut self.sink.publish };
        Ok(sent.pop_front().map_or(Read::Blocked, Read::Data))
    }

    fn finish(&mut self, _stream: StreamId) {}

    fn reset(&mut self, _stream: StreamId, _code: u32) {}

    fn stop(&mut self, _stream: StreamId, _code: u32) {}

    fn send_datagram(&mut self, _bytes: Bytes) -> Result<(), DatagramRefused> {
        Ok(())
    }

    fn close(&mut self, _code: u32, _reason: &str) {
        *self.closed += 1;
    }

    fn remote_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        None
    }
}
