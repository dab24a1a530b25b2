//! A client below the SDK: it writes what bytes it likes on what streams it likes, and sees each frame and the close as they
//! come.
//!
//! It stands on the transport's client role. Blocking, one connection on a socket of its own, driven by the calls made on it:
//! between them nothing is sent or answered. [`Raw`] is a connection, [`Session`] one that said a good Hello. Nothing here
//! sleeps; a call that waits longer than [`PATIENCE`] panics and says for what.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carillon::clock::SystemClock;
use carillon::material::SERVER_NAME;
use carillon_protocol::Frame;
use carillon_protocol::decoder::Decoder;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DeviceId, ProducerId};
use carillon_protocol::kinds::{Lane, MessageKind, Target};
use carillon_protocol::limits::FRAME_BYTES_MAX;
use carillon_protocol::publish::Publish;
use carillon_protocol::session::{ALPN, Hello, LaneOpened, NEWEST_ALL, VERSION, Welcome};
use carillon_transport::{
    Clock as TransportClock, CloseReason, Endpoint, Event, Link, LinkKey, Read, Room, StreamId, TransportConfig,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::harness::{PATIENCE, Site};

/// A sleep ends by what comes; this only bounds how late a lost patience is noticed.
const TURN: Duration = Duration::from_millis(500);

/// How a broker closed a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The application error code.
    pub code: ErrorCode,
    /// What it says to people.
    pub reason: String,
}

impl Closed {
    /// Asserts the code, and that the reason can be read by people.
    ///
    /// # Panics
    /// If not.
    pub fn check(&self, code: ErrorCode, of_what: &str) {
        assert_eq!(self.code, code, "{of_what}: {}", self.reason);
        assert!(self.reason.len() >= 8, "{of_what}: the reason {:?} says nothing", self.reason);
        let control = self.reason.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER);
        assert!(!control, "{of_what}: the reason {:?} is not for people", self.reason);
    }
}

/// How to reach a broker.
#[derive(Clone)]
pub struct Dial {
    /// Where it listens.
    pub address: SocketAddr,
    /// TLS with the site's authority and the right ALPN.
    pub tls: rustls::ClientConfig,
    /// The client's limits.
    pub transport: TransportConfig,
}

impl Dial {
    /// As a good client does.
    ///
    /// # Panics
    /// If the site's authority cannot be read.
    pub fn new(site: &Site, address: SocketAddr) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&site.material.ca).expect("the authority's certificate") {
            roots.add(certificate.expect("a certificate in PEM")).expect("a root certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Self { address, tls, transport: TransportConfig::client() }
    }

    /// A connection without any stream.
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Panics
    /// If nothing comes at all.
    pub fn connect(&self) -> Result<Raw, CloseReason> {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut endpoint =
            Endpoint::client(local, Arc::new(self.tls.clone()), self.transport.clone(), Arc::new(SystemClock))
                .expect("a client endpoint");
        let link = endpoint.connect(self.address, SERVER_NAME).expect("a connection is begun");
        let (events, streams) = (Vec::new(), BTreeMap::new());
        let mut raw = Raw { endpoint, link, events, connected: false, closed: None, streams, datagrams: Vec::new() };
        raw.until("a connection", |raw| (raw.connected || raw.closed.is_some()).then_some(()));
        if raw.connected { Ok(raw) } else { Err(raw.closed.expect("it is one of the two")) }
    }

    /// A connection with a control stream on which this Hello was sent.
    ///
    /// # Panics
    /// If there is no connection.
    pub fn greet(&self, hello: &Hello) -> (Raw, StreamId) {
        let mut raw = self.connect().expect("a connection");
        let control = raw.open_bi();
        raw.send(control, hello);
        (raw, control)
    }

    /// An open session with a control and a publish stream.
    ///
    /// # Errors
    /// How the broker refused it.
    ///
    /// # Panics
    /// If there is no connection, or the broker answers with something else.
    pub fn attach(&self, hello: &Hello) -> Result<Session, Closed> {
        self.connect().expect("a connection").attach(hello)
    }

    /// As [`Dial::attach`], tried until a broker that has just been started serves.
    ///
    /// # Panics
    /// If it never does, or refuses the Hello.
    pub fn attach_when_served(&self, hello: &Hello) -> Session {
        let start = SystemClock.now();
        let raw = loop {
            match self.connect() {
                Ok(raw) => break raw,
                Err(reason) => {
                    assert!(SystemClock.now().duration_since(start) < PATIENCE, "nobody serves: {reason:?}");
                }
            }
        };
        raw.attach(hello).expect("a session")
    }

    /// How the broker refuses this Hello.
    ///
    /// # Panics
    /// If it does not.
    pub fn refused(&self, hello: &Hello) -> Closed {
        let (mut raw, control) = self.greet(hello);
        match raw.next_frame(control) {
            Err(closed) => closed,
            Ok(frame) => panic!("Hello was answered by {frame:?}"),
        }
    }
}

/// A good Hello of a user, without a producer or a cursor.
pub fn hello(site: &Site, handle: &str, device: u64) -> Hello {
    Hello {
        version: VERSION,
        device: DeviceId(device),
        producer: ProducerId(0),
        newest: NEWEST_ALL,
        token: site.token(handle, "user").as_str().into(),
        client: "raw/1".into(),
        cursors: Vec::new(),
    }
}

/// As [`hello`], with a producer.
pub fn hello_of_producer(site: &Site, handle: &str, device: u64, producer: u64) -> Hello {
    Hello { producer: ProducerId(producer), ..hello(site, handle, device) }
}

/// A text to a user, under this number with everything below it settled.
pub fn text_to(user: carillon_protocol::ids::UserId, number: u64, text: &str) -> Publish {
    Publish {
        number,
        low: number,
        target: Target::USER,
        target_id: u64::from(user.0),
        kind: MessageKind::TEXT,
        payload: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// What came on one stream.
struct Incoming {
    decoder: Decoder,
    frames: VecDeque<Frame>,
    lane: Option<Lane>,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { decoder: Decoder::new(FRAME_BYTES_MAX), frames: VecDeque::new(), lane: None }
    }
}

impl Incoming {
    fn push(&mut self, bytes: Bytes) {
        self.decoder.push(bytes);
        while let Some(raw) = self.decoder.poll_frame().expect("the broker sends frames") {
            match Frame::decode(&raw).expect("the broker sends good frames") {
                Frame::LaneOpened(LaneOpened { lane }) => self.lane = Some(lane),
                frame => self.frames.push_back(frame),
            }
        }
    }
}

/// One connection. Dropped, it vanishes without a word, as a phone in a tunnel does.
pub struct Raw {
    endpoint: Endpoint,
    link: LinkKey,
    events: Vec<Event>,
    connected: bool,
    closed: Option<CloseReason>,
    streams: BTreeMap<StreamId, Incoming>,
    datagrams: Vec<Bytes>,
}

impl Raw {
    /// Says Hello and opens a session on this connection.
    ///
    /// # Errors
    /// How the broker refused it.
    ///
    /// # Panics
    /// If the broker answers with something else.
    pub fn attach(mut self, hello: &Hello) -> Result<Session, Closed> {
        let control = self.open_bi();
        self.send(control, hello);
        let welcome = match self.next_frame(control)? {
            Frame::Welcome(welcome) => welcome,
            other => panic!("Hello was answered by {other:?}"),
        };
        let publish = self.open_bi();
        Ok(Session { raw: self, control, publish, welcome })
    }

    /// Opens a bidirectional stream: control, then publish.
    ///
    /// # Panics
    /// If the broker allows none.
    pub fn open_bi(&mut self) -> StreamId {
        self.try_open_bi().expect("the broker allows a stream")
    }

    /// Opens a bidirectional stream if the broker allows one. It learns of it by the first byte.
    pub fn try_open_bi(&mut self) -> Option<StreamId> {
        self.endpoint.link(self.link)?.open_bi(0)
    }

    /// Opens a unidirectional stream if the broker allows one.
    pub fn try_open_uni(&mut self) -> Option<StreamId> {
        self.endpoint.link(self.link)?.open_uni(0)
    }

    /// Sends bytes; those that come after the end of the connection are nobody's.
    pub fn write(&mut self, stream: StreamId, bytes: impl Into<Bytes>) {
        let mut rest = bytes.into();
        self.until("room on a stream", |raw| {
            let Some(mut link) = raw.endpoint.link(raw.link) else { return Some(()) };
            let gone = link.write(stream, &mut rest, Room::Shared).is_err();
            (gone || rest.is_empty()).then_some(())
        });
        self.endpoint.flush();
    }

    /// Sends a frame.
    pub fn send(&mut self, stream: StreamId, frame: &impl Body) {
        self.write(stream, frame.to_bytes());
    }

    /// Sends a datagram, as far as there is room for it.
    pub fn send_datagram(&mut self, bytes: Bytes) {
        if let Some(mut link) = self.endpoint.link(self.link) {
            // It may be lost anyway.
            let _lost = link.send_datagram(bytes);
        }
        self.endpoint.flush();
    }

    /// The datagrams that came since this was last asked.
    pub fn datagrams(&mut self) -> Vec<Bytes> {
        mem::take(&mut self.datagrams)
    }

    /// Ends our half of a stream.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(mut link) = self.endpoint.link(self.link) {
            link.finish(stream);
        }
        self.endpoint.flush();
    }

    /// Abandons our half of a stream.
    pub fn reset(&mut self, stream: StreamId) {
        if let Some(mut link) = self.endpoint.link(self.link) {
            link.reset(stream, 0);
        }
        self.endpoint.flush();
    }

    /// Wants nothing more from a stream.
    pub fn stop(&mut self, stream: StreamId) {
        if let Some(mut link) = self.endpoint.link(self.link) {
            link.stop(stream, 0);
        }
        self.endpoint.flush();
    }

    /// The next frame on a stream.
    ///
    /// # Errors
    /// The broker closed the connection first.
    pub fn next_frame(&mut self, stream: StreamId) -> Result<Frame, Closed> {
        self.until("a frame", |raw| {
            let frame = raw.streams.get_mut(&stream).and_then(|incoming| incoming.frames.pop_front());
            frame.map(Ok).or_else(|| raw.closed.clone().map(|reason| Err(by_peer(reason))))
        })
    }

    /// The stream of a lane, when its opening has come.
    ///
    /// # Panics
    /// If the broker closes the connection first.
    pub fn lane(&mut self, lane: Lane) -> StreamId {
        self.until("a lane", |raw| {
            let opened = raw.streams.iter().find(|(_, incoming)| incoming.lane == Some(lane));
            let stream = opened.map(|(stream, _)| *stream);
            assert!(stream.is_some() || raw.closed.is_none(), "no lane {lane:?}: {:?}", raw.closed);
            stream
        })
    }

    /// How the broker closed the connection; waits for it.
    ///
    /// # Panics
    /// If it ended otherwise.
    pub fn closed(&mut self) -> Closed {
        by_peer(self.until("a close", |raw| raw.closed.clone()))
    }

    /// Why the connection ended, whoever ended it; waits for it.
    pub fn ended(&mut self) -> CloseReason {
        self.until("the end", |raw| raw.closed.clone())
    }

    /// Closes the connection in good order. What came and was not read is thrown away.
    pub fn close(mut self) {
        if let Some(mut link) = self.endpoint.link(self.link) {
            link.close(u32::from(ErrorCode::NONE.0), "");
        }
        self.endpoint.flush();
    }

    /// One turn of the loop.
    fn turn(&mut self) {
        self.endpoint.poll(Some(TURN), &mut self.events).expect("a socket that works");
        for event in mem::take(&mut self.events) {
            match event {
                Event::Connected { .. } => self.connected = true,
                Event::Readable { stream, .. } => self.read(stream),
                Event::Closed { reason, .. } => self.closed = Some(reason),
                Event::Datagram { bytes, .. } => self.datagrams.push(bytes),
                Event::Opened { .. } | Event::Writable { .. } | Event::Stopped { .. } | Event::Available { .. } => {}
            }
        }
        self.endpoint.flush();
    }

    fn read(&mut self, stream: StreamId) {
        let incoming = self.streams.entry(stream).or_default();
        let Some(mut link) = self.endpoint.link(self.link) else { return };
        while let Ok(Read::Data(bytes)) = link.read(stream, usize::MAX) {
            incoming.push(bytes);
        }
    }

    fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = SystemClock.now();
        loop {
            if let Some(picked) = pick(self) {
                return picked;
            }
            assert!(SystemClock.now().duration_since(start) < PATIENCE, "waited too long for {what}");
            self.turn();
        }
    }
}

fn by_peer(reason: CloseReason) -> Closed {
    match reason {
        CloseReason::ByPeer { code, reason } => {
            Closed { code: ErrorCode(u16::try_from(code).expect("a close code")), reason }
        }
        other => panic!("the connection ended otherwise: {other:?}"),
    }
}

/// A connection whose Hello was answered by a Welcome.
pub struct Session {
    /// The connection.
    pub raw: Raw,
    /// The control stream.
    pub control: StreamId,
    /// The publish stream; the broker learns of it by the first byte.
    pub publish: StreamId,
    /// What the broker said.
    pub welcome: Welcome,
}

impl Session {
    /// Sends a request and awaits the next frame on the control stream.
    ///
    /// # Errors
    /// The broker closed the connection instead.
    pub fn request(&mut self, request: &impl Body) -> Result<Frame, Closed> {
        self.raw.send(self.control, request);
        self.raw.next_frame(self.control)
    }

    /// Sends a publish and awaits the next frame on the publish stream.
    ///
    /// # Errors
    /// The broker closed the connection instead.
    pub fn publish(&mut self, publish: &Publish) -> Result<Frame, Closed> {
        self.raw.send(self.publish, publish);
        self.raw.next_frame(self.publish)
    }

    /// The next frame on the inbox lane.
    ///
    /// # Errors
    /// The broker closed the connection first.
    pub fn next_of_inbox(&mut self) -> Result<Frame, Closed> {
        let inbox = self.raw.lane(Lane::INBOX);
        self.raw.next_frame(inbox)
    }
}

/// Frames back to back, to be written at once.
pub fn concat<F: Body>(frames: impl IntoIterator<Item = F>) -> Bytes {
    let mut out = BytesMut::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut out));
    out.freeze()
}
