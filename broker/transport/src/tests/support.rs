//! What the tests share: a clock that can be moved on, certificates, and peers stepped on one thread.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Clock, Endpoint, Event, Link, LinkKey, Read, Room, StreamId, TransportConfig};

/// A test that has not come to its end by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const LOCALHOST: &str = "127.0.0.1:0";

#[expect(clippy::disallowed_methods, reason = "the tests' clock starts from the real time")]
pub(crate) fn system_now() -> Instant {
    Instant::now()
}

/// The real time, plus what a test has moved it on by.
#[derive(Default)]
pub(crate) struct TestClock {
    ahead_ms: AtomicU64,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        system_now() + Duration::from_millis(self.ahead_ms.load(Ordering::SeqCst))
    }
}

/// Both sides' TLS, for a server named `localhost`.
pub(crate) struct Tls {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        Self { certificate: made.cert.der().clone(), key }
    }

    pub(crate) fn server(&self) -> rustls::ServerConfig {
        self.server_with(rustls::crypto::aws_lc_rs::default_provider())
    }

    pub(crate) fn server_with(&self, provider: rustls::crypto::CryptoProvider) -> rustls::ServerConfig {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"carillon/1".to_vec()];
        config
    }

    pub(crate) fn client(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"carillon/1".to_vec()];
        config
    }
}

/// What a stream still has to send and has received.
#[derive(Default)]
pub(crate) struct Flow {
    pub(crate) out: Vec<Bytes>,
    pub(crate) finish: bool,
    pub(crate) received: Vec<u8>,
    pub(crate) finished: bool,
}

/// An endpoint with what it has told, and a simple way of sending and receiving whole streams.
pub(crate) struct Peer {
    pub(crate) endpoint: Endpoint,
    pub(crate) events: Vec<Event>,
    pub(crate) flows: HashMap<(LinkKey, StreamId), Flow>,
}

impl Peer {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, events: Vec::new(), flows: HashMap::new() }
    }

    /// One turn of the loop; returns where the new events begin.
    pub(crate) fn turn(&mut self, wait: Option<Duration>) -> usize {
        let start = self.events.len();
        self.endpoint.poll(wait, &mut self.events).unwrap();
        self.endpoint.flush();
        start
    }

    /// One turn in which everything that came is read into the flows and what waits in them is written.
    pub(crate) fn turn_flowing(&mut self, wait: Option<Duration>) {
        let start = self.turn(wait);
        for position in start..self.events.len() {
            match self.events[position].clone() {
                Event::Readable { link, stream } => self.read_all(link, stream),
                Event::Writable { link, stream } => self.write_on(link, stream),
                _ => {}
            }
        }
        self.endpoint.flush();
    }

    /// Like `turn_flowing`, and sends back what came.
    pub(crate) fn turn_echoing(&mut self, wait: Option<Duration>) {
        self.turn_flowing(wait);
        let lively = self.flows.iter().filter(|(_, flow)| !flow.received.is_empty() || flow.finished);
        let keys: Vec<_> = lively.map(|(key, _)| *key).collect();
        for (link, stream) in keys {
            let flow = self.flows.get_mut(&(link, stream)).unwrap();
            let received = std::mem::take(&mut flow.received);
            if !received.is_empty() {
                flow.out.push(received.into());
            }
            flow.finish = flow.finished;
            self.write_on(link, stream);
        }
        self.endpoint.flush();
    }

    pub(crate) fn read_all(&mut self, link: LinkKey, stream: StreamId) {
        let flow = self.flows.entry((link, stream)).or_default();
        let Some(mut connection) = self.endpoint.link(link) else { return };
        loop {
            match connection.read(stream, usize::MAX) {
                Ok(Read::Data(bytes)) => flow.received.extend_from_slice(&bytes),
                Ok(Read::Finished) => {
                    flow.finished = true;
                    break;
                }
                Ok(Read::Blocked) | Err(_) => break,
            }
        }
    }

    pub(crate) fn write_on(&mut self, link: LinkKey, stream: StreamId) {
        let flow = self.flows.entry((link, stream)).or_default();
        let Some(mut connection) = self.endpoint.link(link) else { return };
        while let Some(next) = flow.out.first_mut() {
            connection.write(stream, next, Room::Shared).unwrap();
            if !next.is_empty() {
                return;
            }
            flow.out.remove(0);
        }
        if flow.finish {
            flow.finish = false;
            connection.finish(stream);
        }
    }

    /// Sends `bytes` and the end of the stream.
    pub(crate) fn send(&mut self, link: LinkKey, stream: StreamId, bytes: Bytes) {
        let flow = self.flows.entry((link, stream)).or_default();
        flow.out.push(bytes);
        flow.finish = true;
        self.write_on(link, stream);
    }

    pub(crate) fn received(&self, link: LinkKey, stream: StreamId) -> &[u8] {
        self.flows.get(&(link, stream)).map_or(&[], |flow| &flow.received)
    }

    pub(crate) fn is_finished(&self, link: LinkKey, stream: StreamId) -> bool {
        self.flows.get(&(link, stream)).is_some_and(|flow| flow.finished)
    }

    pub(crate) fn has(&self, wanted: &Event) -> bool {
        self.events.contains(wanted)
    }

    /// The links that were connected, in order.
    pub(crate) fn connected(&self) -> Vec<LinkKey> {
        let link = |event: &Event| match event {
            Event::Connected { link } => Some(*link),
            _ => None,
        };
        self.events.iter().filter_map(link).collect()
    }

    /// The reasons with which the link was closed: one at most.
    pub(crate) fn closed(&self, key: LinkKey) -> Option<crate::CloseReason> {
        let mut reasons = self.events.iter().filter_map(|event| match event {
            Event::Closed { link, reason } if *link == key => Some(reason.clone()),
            _ => None,
        });
        let reason = reasons.next();
        assert_eq!(reasons.next(), None, "closed twice");
        reason
    }
}

/// A client and a server on one thread.
pub(crate) struct World {
    pub(crate) client: Peer,
    pub(crate) server: Peer,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) tls: Tls,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(TransportConfig::client(), TransportConfig::server())
    }

    pub(crate) fn with(client: TransportConfig, server: TransportConfig) -> Self {
        Self::at(LOCALHOST, client, LOCALHOST, server)
    }

    pub(crate) fn at(client_at: &str, client: TransportConfig, server_at: &str, server: TransportConfig) -> Self {
        let (clock, tls) = (Arc::new(TestClock::default()), Tls::new());
        let server = bind_group(server_at.parse().unwrap(), 1, &tls, server, &clock).pop().unwrap();
        let client = bind_client(client_at.parse().unwrap(), &tls, client, &clock);
        Self { client: Peer::new(client), server: Peer::new(server), clock, tls }
    }

    pub(crate) fn connect(&mut self) -> LinkKey {
        let address = self.server.endpoint.local_address();
        self.client.endpoint.connect(address, "localhost").unwrap()
    }

    /// A connection that both sides know: the client's key and the server's.
    pub(crate) fn connected(&mut self) -> (LinkKey, LinkKey) {
        let before = self.server.connected().len();
        let client = self.connect();
        self.until(|world| {
            world.client.has(&Event::Connected { link: client }) && world.server.connected().len() > before
        });
        (client, self.server.connected()[before])
    }

    /// Turns both sides, reading and writing what flows, until `done`.
    pub(crate) fn until(&mut self, done: impl FnMut(&mut Self) -> bool) {
        self.until_with(Peer::turn_flowing, done);
    }

    /// Turns the client, reading and writing what flows, and the server by `serve`, until `done`.
    pub(crate) fn until_with(
        &mut self,
        serve: fn(&mut Peer, Option<Duration>),
        mut done: impl FnMut(&mut Self) -> bool,
    ) {
        let start = system_now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "client: {:?}\nserver: {:?}", self.client.events, self.server.events);
            self.client.turn_flowing(Some(Duration::ZERO));
            serve(&mut self.server, Some(Duration::from_millis(1)));
        }
    }
}

pub(crate) fn bind_group(
    address: SocketAddr,
    threads: usize,
    tls: &Tls,
    config: TransportConfig,
    clock: &Arc<TestClock>,
) -> Vec<Endpoint> {
    Endpoint::bind_group(address, threads, Arc::new(tls.server()), config, clock.clone()).unwrap()
}

pub(crate) fn bind_client(address: SocketAddr, tls: &Tls, config: TransportConfig, clock: &Arc<TestClock>) -> Endpoint {
    Endpoint::client(address, Arc::new(tls.client()), config, clock.clone()).unwrap()
}

/// Bytes that differ from one seed to another and along the way.
pub(crate) fn pattern(seed: usize, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at * 31 + at / 251 + seed * 17).to_ne_bytes()[0]).collect()
}
