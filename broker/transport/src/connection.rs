//! One connection: quinn-proto's state, its life as the caller sees it, and the [`Link`] to it.

use std::mem;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto as quic;
use quinn_proto::{Dir, Side, VarInt};

use crate::config::TransportConfig;
use crate::congestion;
use crate::event::{CloseReason, Event};
use crate::limits::{CLOSE_REASON_BYTES_MAX, HANDSHAKE_TIMEOUT};
use crate::link::{DatagramRefused, Direction, Link, LinkKey, Read, Room, StreamClosed, StreamId, Unacknowledged};
use crate::timers::Armed;
use crate::unacked::Unacked;

/// Where a connection stands for the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// The handshake runs, until the deadline at most.
    Handshaking { deadline: Instant },
    /// `Connected` was emitted.
    Open,
    /// Closed by us; the `Closed` event is still to be emitted, if the caller knows the connection.
    Closing { announce: bool },
    /// The caller has heard the last of it; quinn-proto may still answer late packets.
    Over,
}

/// Among what its endpoint counts a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Count {
    Nothing,
    /// A handshake that a peer began.
    Incoming,
    /// The caller knows the connection as open.
    Open,
}

/// The send window that writes are counted against.
#[derive(Clone, Copy)]
pub(crate) struct SendWindow {
    shared_bytes: u64,
    reserved_bytes: u64,
}

impl SendWindow {
    pub(crate) fn new(config: &TransportConfig) -> Self {
        let shared_bytes = u64::from(config.send_window_bytes);
        Self { shared_bytes, reserved_bytes: shared_bytes + u64::from(config.send_window_reserve_bytes) }
    }
}

pub(crate) struct Connection {
    pub(crate) quic: quic::Connection,
    pub(crate) key: LinkKey,
    pub(crate) phase: Phase,
    /// Whether it is on the endpoint's list for the next flush.
    pub(crate) touched: bool,
    pub(crate) armed: Armed,
    /// Where its endpoint counts it at present.
    pub(crate) counted: Count,
    /// Whether the handshake ever finished.
    pub(crate) was_open: bool,
    /// Streams whose reserved write was cut short: quinn-proto tells of room in the shared window only, so that
    /// they are tried again after every packet.
    reserved_waiting: Vec<quic::StreamId>,
    /// Streams that the peer opened so far, bidirectional and unidirectional. quinn-proto would let us send on
    /// those that it may open later, which the peer takes for a breach of rules.
    opened_by_peer: [u64; 2],
    /// Streams that we opened so far, bidirectional and unidirectional.
    opened_by_us: [u64; 2],
    /// What was written and not acknowledged.
    unacked: Unacked,
    /// What quinn-proto said when a packet ended the connection. A stateless reset that lies behind the peer's close in the
    /// same batch would overwrite why.
    parting: Vec<quic::Event>,
}

/// What `settle` found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    Lives,
    /// quinn-proto has forgotten the connection; its place is to be freed.
    Drained,
}

impl Connection {
    pub(crate) fn new(quic: quic::Connection, key: LinkKey, now: Instant) -> Self {
        Self {
            quic,
            key,
            phase: Phase::Handshaking { deadline: now + HANDSHAKE_TIMEOUT },
            touched: false,
            armed: Armed::default(),
            counted: Count::Nothing,
            was_open: false,
            reserved_waiting: Vec::new(),
            opened_by_peer: [0; 2],
            opened_by_us: [0; 2],
            unacked: Unacked::default(),
            parting: Vec::new(),
        }
    }

    /// When the connection wants to be called next.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Handshaking { deadline } => Some(deadline),
            Phase::Open | Phase::Closing { .. } | Phase::Over => None,
        };
        match (own, self.quic.poll_timeout()) {
            (Some(own), Some(quic)) => Some(own.min(quic)),
            (own, quic) => own.or(quic),
        }
    }

    /// Where its endpoint should count it.
    pub(crate) fn count(&self) -> Count {
        match self.phase {
            Phase::Handshaking { .. } if self.quic.side() == Side::Server => Count::Incoming,
            Phase::Open => Count::Open,
            Phase::Handshaking { .. } | Phase::Closing { .. } | Phase::Over => Count::Nothing,
        }
    }

    /// Whether the caller knows the connection, or would like to hear of its failure.
    fn is_announced(&self) -> bool {
        match self.phase {
            Phase::Handshaking { .. } => self.quic.side() == Side::Client,
            Phase::Open => true,
            Phase::Closing { .. } | Phase::Over => false,
        }
    }

    /// Closes from our side, once.
    pub(crate) fn close(&mut self, now: Instant, code: u32, reason: &str) {
        if matches!(self.phase, Phase::Handshaking { .. } | Phase::Open) {
            let announce = self.is_announced();
            let fitting = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
            self.let_go();
            congestion::open_for_close(self.quic.congestion_state());
            self.quic.close(now, code.into(), Bytes::copy_from_slice(fitting.as_bytes()));
            self.phase = Phase::Closing { announce };
        }
    }

    /// Drops what is queued on streams: quinn-proto would keep it until it has answered the last late packet.
    fn let_go(&mut self) {
        let us = self.quic.side();
        let both = [Dir::Bi, Dir::Uni];
        let ours = both.map(|dir| (us, dir, self.opened_by_us[dir as usize]));
        let theirs = (!us, Dir::Bi, self.opened_by_peer[Dir::Bi as usize]);
        for (opener, dir, count) in ours.into_iter().chain([theirs]) {
            for index in 0..count {
                // Finished, stopped or gone: there is nothing to drop.
                let _gone = self.quic.send_stream(quic::StreamId::new(opener, dir, index)).reset(VarInt::from_u32(0));
            }
        }
    }

    /// Emits the `Closed` event that a close from our side still owes.
    pub(crate) fn announce_close(&mut self, reason: CloseReason, events: &mut Vec<Event>) {
        if let Phase::Closing { announce } = self.phase {
            if announce {
                events.push(Event::Closed { link: self.key, reason });
            }
            self.phase = Phase::Over;
        }
    }

    /// A packet for the connection.
    pub(crate) fn handle_event(&mut self, event: quic::ConnectionEvent) {
        self.quic.handle_event(event);
        if self.quic.is_closed() {
            self.parting.extend(std::iter::from_fn(|| self.quic.poll()));
        }
    }

    /// Exchanges what the connection and its endpoint have to tell each other, and emits the caller's events.
    pub(crate) fn settle(&mut self, endpoint: &mut quic::Endpoint, events: &mut Vec<Event>) -> Settled {
        let handle = quic::ConnectionHandle(self.key.index as usize);
        let mut drained = false;
        for event in mem::take(&mut self.parting) {
            self.translate(event, events);
        }
        loop {
            let mut quiet = true;
            while let Some(event) = self.quic.poll_endpoint_events() {
                quiet = false;
                drained |= event.is_drained();
                if let Some(answer) = endpoint.handle_event(handle, event) {
                    self.quic.handle_event(answer);
                }
            }
            while let Some(event) = self.quic.poll() {
                quiet = false;
                self.translate(event, events);
            }
            if quiet {
                break;
            }
        }
        let link = self.key;
        if self.phase == Phase::Open {
            let waiting = self.reserved_waiting.drain(..);
            events.extend(waiting.map(|stream| Event::Writable { link, stream: stream_id(stream) }));
        }
        if drained { Settled::Drained } else { Settled::Lives }
    }

    fn translate(&mut self, event: quic::Event, events: &mut Vec<Event>) {
        let link = self.key;
        match event {
            quic::Event::HandshakeDataReady | quic::Event::DatagramsUnblocked => {}
            quic::Event::Connected => {
                if matches!(self.phase, Phase::Handshaking { .. }) {
                    self.phase = Phase::Open;
                    self.was_open = true;
                    events.push(Event::Connected { link });
                }
            }
            quic::Event::ConnectionLost { reason } => {
                self.let_go();
                if self.is_announced() {
                    let reason = close_reason(reason, self.phase == Phase::Open);
                    events.push(Event::Closed { link, reason });
                }
                if !matches!(self.phase, Phase::Closing { .. }) {
                    self.phase = Phase::Over;
                }
            }
            quic::Event::DatagramReceived => {
                while let Some(bytes) = self.quic.datagrams().recv() {
                    self.emit(events, Event::Datagram { link, bytes });
                }
            }
            quic::Event::Stream(event) => self.translate_stream(event, events),
        }
    }

    fn translate_stream(&mut self, event: quic::StreamEvent, events: &mut Vec<Event>) {
        let link = self.key;
        match event {
            quic::StreamEvent::Opened { dir } => {
                while let Some(stream) = self.quic.streams().accept(dir) {
                    self.opened_by_peer[dir as usize] = stream.index() + 1;
                    let stream = stream_id(stream);
                    self.emit(events, Event::Opened { link, stream, direction: stream.direction() });
                    self.emit(events, Event::Readable { link, stream });
                }
            }
            quic::StreamEvent::Readable { id } => {
                self.emit(events, Event::Readable { link, stream: stream_id(id) });
            }
            quic::StreamEvent::Writable { id } => {
                self.emit(events, Event::Writable { link, stream: stream_id(id) });
            }
            quic::StreamEvent::Stopped { id, error_code } => {
                self.emit(events, Event::Stopped { link, stream: stream_id(id), code: error_code.into_inner() });
            }
            quic::StreamEvent::Available { dir } => {
                let direction = match dir {
                    Dir::Bi => Direction::Bidirectional,
                    Dir::Uni => Direction::Unidirectional,
                };
                self.emit(events, Event::Available { link, direction });
            }
            quic::StreamEvent::Finished { .. } => {}
        }
    }

    /// Emits what only an open connection may tell: nothing comes before `Connected` or after `Closed`. A server
    /// learns of no stream before the handshake is done, since 0-RTT is off.
    fn emit(&self, events: &mut Vec<Event>, event: Event) {
        if self.phase == Phase::Open {
            events.push(event);
        }
    }
}

fn stream_id(stream: quic::StreamId) -> StreamId {
    StreamId(VarInt::from(stream).into_inner())
}

fn quic_stream(stream: StreamId) -> quic::StreamId {
    let side = if stream.is_opened_by_client() { Side::Client } else { Side::Server };
    let dir = if stream.is_bidirectional() { Dir::Bi } else { Dir::Uni };
    quic::StreamId::new(side, dir, stream.0 >> 2)
}

fn close_reason(error: quic::ConnectionError, was_open: bool) -> CloseReason {
    match error {
        quic::ConnectionError::ApplicationClosed(close) => CloseReason::ByPeer {
            code: close.error_code.into_inner(),
            reason: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        quic::ConnectionError::ConnectionClosed(close) if was_open => CloseReason::Aborted(close.to_string()),
        quic::ConnectionError::ConnectionClosed(close)
            if close.error_code == quic::TransportErrorCode::CONNECTION_REFUSED =>
        {
            CloseReason::Refused
        }
        quic::ConnectionError::TransportError(error) if was_open => CloseReason::ProtocolViolated(error.to_string()),
        quic::ConnectionError::Reset => CloseReason::Reset,
        quic::ConnectionError::TimedOut => CloseReason::TimedOut,
        quic::ConnectionError::LocallyClosed => CloseReason::ByUs,
        error @ (quic::ConnectionError::ConnectionClosed(_)
        | quic::ConnectionError::TransportError(_)
        | quic::ConnectionError::VersionMismatch
        | quic::ConnectionError::CidsExhausted) => CloseReason::HandshakeFailed(error.to_string()),
    }
}

/// Which side opened a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    Us,
    Peer,
}

/// An endpoint's connection, lent out; what is done through it leaves with the next flush.
pub struct ConnectionLink<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) window: SendWindow,
    pub(crate) now: Instant,
    /// Where a close is noted, so that the next poll announces it.
    pub(crate) closing: &'a mut Vec<u32>,
}

impl ConnectionLink<'_> {
    /// Who opened the stream, if that has happened.
    fn opener(&self, stream: StreamId) -> Option<Opener> {
        let id = quic_stream(stream);
        if id.initiator() == self.connection.quic.side() {
            // quinn-proto knows which of ours exist.
            Some(Opener::Us)
        } else {
            (id.index() < self.connection.opened_by_peer[id.dir() as usize]).then_some(Opener::Peer)
        }
    }

    /// The sending half of a stream that has one; quinn-proto panics on the others.
    fn sending(&mut self, stream: StreamId) -> Option<quic::SendStream<'_>> {
        let opener = self.opener(stream)?;
        let has_half = stream.is_bidirectional() || opener == Opener::Us;
        has_half.then(|| self.connection.quic.send_stream(quic_stream(stream)))
    }

    /// The receiving half of a stream that has one.
    fn receiving(&mut self, stream: StreamId) -> Option<quic::RecvStream<'_>> {
        let opener = self.opener(stream)?;
        let has_half = stream.is_bidirectional() || opener == Opener::Peer;
        has_half.then(|| self.connection.quic.recv_stream(quic_stream(stream)))
    }

    fn open(&mut self, dir: Dir, priority: i32) -> Option<StreamId> {
        let opened = self.connection.quic.streams().open(dir)?;
        self.connection.opened_by_us[dir as usize] = opened.index() + 1;
        let stream = stream_id(opened);
        self.set_priority(stream, priority);
        Some(stream)
    }

    /// The smoothed round trip time.
    #[must_use]
    pub fn round_trip(&self) -> std::time::Duration {
        self.connection.quic.rtt()
    }

    /// Writes until `bytes` is empty or the stream is blocked, so that a remainder always leaves the stream
    /// registered for a `Writable` event.
    fn write_all(&mut self, stream: StreamId, bytes: &mut Bytes) -> Result<(), quic::WriteError> {
        if bytes.is_empty() {
            return Ok(());
        }
        // Both halves of the connection are used at once: its streams, and the count of what they hold.
        let mut unacked = mem::take(&mut self.connection.unacked);
        let outcome = unacked.write(stream, bytes, self.now, |rest| {
            let mut sending = self.sending(stream).ok_or(quic::WriteError::ClosedStream)?;
            sending.write_chunks(std::slice::from_mut(rest)).map(|written| written.bytes)
        });
        self.connection.unacked = unacked;
        outcome
    }
}

impl Link for ConnectionLink<'_> {
    fn open_uni(&mut self, priority: i32) -> Option<StreamId> {
        self.open(Dir::Uni, priority)
    }

    fn open_bi(&mut self, priority: i32) -> Option<StreamId> {
        self.open(Dir::Bi, priority)
    }

    fn set_priority(&mut self, stream: StreamId, priority: i32) {
        if let Some(mut sending) = self.sending(stream) {
            // A stream that is gone needs none.
            let _gone = sending.set_priority(priority);
        }
    }

    fn write(&mut self, stream: StreamId, bytes: &mut Bytes, room: Room) -> Result<usize, StreamClosed> {
        if self.connection.quic.is_closed() {
            return Err(StreamClosed::Gone);
        }
        let offered = bytes.len();
        if room == Room::Reserved {
            self.connection.quic.set_send_window(self.window.reserved_bytes);
        }
        let outcome = self.write_all(stream, bytes);
        if room == Room::Reserved {
            self.connection.quic.set_send_window(self.window.shared_bytes);
        }
        let taken = offered - bytes.len();
        match outcome {
            Ok(()) => Ok(taken),
            Err(quic::WriteError::Blocked) => {
                let waiting = quic_stream(stream);
                if room == Room::Reserved && !self.connection.reserved_waiting.contains(&waiting) {
                    self.connection.reserved_waiting.push(waiting);
                }
                Ok(taken)
            }
            Err(quic::WriteError::Stopped(code)) => Err(StreamClosed::Stopped { code: code.into_inner() }),
            Err(quic::WriteError::ClosedStream) => Err(StreamClosed::Gone),
        }
    }

    fn read(&mut self, stream: StreamId, bytes_max: usize) -> Result<Read, StreamClosed> {
        let mut receiving = self.receiving(stream).ok_or(StreamClosed::Gone)?;
        let mut chunks = receiving.read(true).map_err(|error| match error {
            quic::ReadableError::ClosedStream => StreamClosed::Gone,
            quic::ReadableError::IllegalOrderedRead => unreachable!("every read is ordered"),
        })?;
        let outcome = chunks.next(bytes_max.max(1));
        // Whether credit is now to be sent is answered by the flush, which the link is marked for.
        let _ = chunks.finalize();
        match outcome {
            Ok(Some(chunk)) => Ok(Read::Data(chunk.bytes)),
            Ok(None) => Ok(Read::Finished),
            Err(quic::ReadError::Blocked) => Ok(Read::Blocked),
            Err(quic::ReadError::Reset(code)) => Err(StreamClosed::Reset { code: code.into_inner() }),
        }
    }

    fn finish(&mut self, stream: StreamId) {
        if let Some(mut sending) = self.sending(stream) {
            // Stopped or gone already: there is nobody to tell.
            let _gone = sending.finish();
        }
    }

    fn reset(&mut self, stream: StreamId, code: u32) {
        if let Some(mut sending) = self.sending(stream) {
            let _gone = sending.reset(code.into());
        }
    }

    fn stop(&mut self, stream: StreamId, code: u32) {
        if let Some(mut receiving) = self.receiving(stream) {
            let _gone = receiving.stop(code.into());
        }
    }

    fn send_datagram(&mut self, bytes: Bytes) -> Result<(), DatagramRefused> {
        if self.connection.quic.is_closed() {
            return Err(DatagramRefused::Closed);
        }
        let mut datagrams = self.connection.quic.datagrams();
        datagrams.send(bytes, true).map_err(|error| match error {
            quic::SendDatagramError::UnsupportedByPeer | quic::SendDatagramError::Disabled => {
                DatagramRefused::Unsupported
            }
            // `Blocked` does not come, since room is made by dropping.
            quic::SendDatagramError::TooLarge | quic::SendDatagramError::Blocked(_) => {
                DatagramRefused::TooLarge { bytes_max: datagrams.max_size().unwrap_or(0) }
            }
        })
    }

    fn close(&mut self, code: u32, reason: &str) {
        self.connection.close(self.now, code, reason);
        self.closing.push(self.connection.key.index);
    }

    fn remote_address(&self) -> SocketAddr {
        self.connection.quic.remote_address()
    }

    fn unacknowledged(&self) -> Option<Unacknowledged> {
        self.connection.unacked.sum()
    }
}
