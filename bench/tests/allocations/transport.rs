//! The transport's part of a delivery: a write to a stream of a QUIC connection. The packets that QUIC makes of it are not counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carillon::clock::SystemClock;
use carillon::material::Material;
use carillon::tls::{server_config, trusting};
use carillon_bench::{as_received, deliver};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::Seq;
use carillon_transport::{Endpoint, Event, Link, LinkKey, Read, Room, StreamId, TransportConfig};

use crate::budgets;
use crate::counting::{Asked, asked_by, traced};
use crate::hold;

/// Written before acknowledgements are waited for: fewer than what the connection may have under way.
const WRITES_A_ROUND: u64 = 20;

/// Rounds before anything is counted.
const ROUNDS_WARM: u64 = 20;

/// A peer that has not acknowledged by then never will: each turn waits for a millisecond.
const TURNS_MAX: u32 = 20_000;

/// A server's connection and the client at its other end, in one thread.
struct Connection {
    server: Endpoint,
    client: Endpoint,
    link: LinkKey,
    stream: StreamId,
    events: Vec<Event>,
    frame: Bytes,
}

impl Connection {
    fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let material = Material::ensure(directory.path()).expect("keys");
        let tls = server_config(&material.certificate, &material.key).expect("a certificate");
        let mut trusts = (*trusting(Some(&material.ca)).expect("an authority")).clone();
        trusts.alpn_protocols.clone_from(&tls.alpn_protocols);
        let address = "127.0.0.1:0".parse().expect("an address");
        let clock = Arc::new(SystemClock);
        let mut servers =
            Endpoint::bind_group(address, 1, tls, TransportConfig::server(), clock.clone()).expect("bound");
        let server = servers.remove(0);
        let mut client = Endpoint::client(address, Arc::new(trusts), TransportConfig::client(), clock).expect("bound");
        client.connect(server.local_address(), "localhost").expect("a connection begins");
        let (link, stream) = (LinkKey { index: 0, generation: 0 }, StreamId(0));
        let frame = as_received(deliver(Seq(1)).to_bytes().into());
        let mut connection = Self { server, client, link, stream, events: Vec::new(), frame };
        connection.link = connection.until(|connection, event| match event {
            Some(Event::Connected { link }) => connection.server.link(*link).is_some().then_some(*link),
            _ => None,
        });
        let opened = connection.server.link(connection.link).and_then(|mut link| link.open_uni(0));
        connection.stream = opened.expect("the client allows streams");
        connection
    }

    /// Turns of both sides until something is found, with each event of the server, and without one after each turn.
    fn until<T>(&mut self, found: impl Fn(&mut Self, Option<&Event>) -> Option<T>) -> T {
        for _ in 0..TURNS_MAX {
            let mut events = std::mem::take(&mut self.events);
            self.server.poll(Some(Duration::from_millis(1)), &mut events).expect("the server polls");
            let result = events.iter().find_map(|event| found(self, Some(event)));
            events.clear();
            self.client.poll(Some(Duration::from_millis(1)), &mut events).expect("the client polls");
            for event in events.drain(..) {
                if let Event::Readable { link, stream } = event {
                    let mut link = self.client.link(link).expect("it is open");
                    while matches!(link.read(stream, usize::MAX), Ok(Read::Data(_))) {}
                }
            }
            self.events = events;
            self.server.flush();
            self.client.flush();
            if let Some(result) = result.or_else(|| found(self, None)) {
                return result;
            }
        }
        panic!("nothing was found in {TURNS_MAX} turns");
    }

    fn write(&mut self) {
        let mut bytes = self.frame.clone();
        let mut link = self.server.link(self.link).expect("it is open");
        let taken = link.write(self.stream, &mut bytes, Room::Shared).expect("the stream is open");
        assert_eq!(taken, self.frame.len(), "there is room");
    }

    /// Writes, and then waits until the client has everything.
    fn round(&mut self, mut write: impl FnMut(&mut Self)) {
        for _ in 0..WRITES_A_ROUND {
            write(self);
            self.server.flush();
        }
        self.until(|connection, _| {
            let owed = connection.server.link(connection.link)?.unacknowledged();
            owed.is_none().then_some(())
        });
    }
}

#[test]
fn a_write_to_a_connection() {
    let mut connection = Connection::open();
    (0..ROUNDS_WARM).for_each(|_| connection.round(Connection::write));
    let mut asked = Asked::default();
    for _ in 0..budgets::TRANSPORT_WRITE.operations / WRITES_A_ROUND {
        connection.round(|connection| asked += asked_by(|| connection.write()).1);
    }
    hold(&budgets::TRANSPORT_WRITE, asked, || traced(|| connection.write()).1);
}
