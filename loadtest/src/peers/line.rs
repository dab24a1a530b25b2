//! One connection to a peer: TCP from a loopback address of its own, TLS over it, and the peer's protocol on top.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dialect::{Dialect, Event};
use super::{Peer, PeerTarget};
use crate::failure::Failure;
use crate::fleet::local;
use crate::limits::{PEER_LINE_BYTES_MAX, PEER_READ_BYTES};
use crate::tls;

/// What all connections to a server share.
#[derive(Clone)]
pub(crate) struct Dialler {
    peer: Peer,
    address: SocketAddr,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    sources: u16,
    run: u64,
}

impl Dialler {
    /// Connections come from so many source addresses; `run` tells them from those of other runs.
    ///
    /// # Errors
    /// The authority's file cannot be read, or the name is none.
    pub(crate) fn new(target: &PeerTarget, sources: u16, run: u64) -> Result<Self, Failure> {
        let server_name = ServerName::try_from(target.server_name.clone())
            .map_err(|error| Failure::Usage(format!("--server-name {:?}: {error}", target.server_name)))?;
        let tls = TlsConnector::from(tls::peer_config(&target.ca)?);
        Ok(Self { peer: target.peer, address: target.address, server_name, tls, sources, run })
    }

    /// Connects and waits until the server has let the client in. `number` tells the connection from the others of the run.
    ///
    /// # Errors
    /// In words: nobody answers, the certificate is not trusted, or the server refuses.
    pub(crate) async fn connect(&self, number: u32) -> Result<Line, Failure> {
        let source = u16::try_from(number % u32::from(self.sources)).unwrap_or_default();
        let refused = |why: String| Failure::Broker { phase: "connecting", why };
        let mut tcp = self.dial(source).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::TimedOut => Failure::UnreachablePeer(self.address),
            _ => Failure::Socket(error),
        })?;
        match self.peer {
            Peer::Nats(_) => greeting(&mut tcp).await.map_err(refused)?,
            Peer::Mqtt(_) => {}
        }
        let stream = self.tls.connect(self.server_name.clone(), tcp).await.map_err(|error| {
            Failure::NotAllowed(format!(
                "no TLS with {}: {error} (--ca and --server-name say whom to trust)",
                self.address
            ))
        })?;
        let dialect = Dialect::new(self.peer, &format!("load-{}-{number}", self.run));
        let mut line = Line { stream, dialect, input: BytesMut::new(), out: BytesMut::new() };
        line.dialect.open(&mut line.out);
        line.confirmed().await.map_err(refused)?;
        Ok(line)
    }

    async fn dial(&self, source: u16) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Small messages go out at once, as on any client that cares for latency.
        socket.set_nodelay(true)?;
        socket.bind(local(self.address, source))?;
        socket.connect(self.address).await
    }
}

/// NATS greets in the clear before TLS begins; nothing follows the greeting until the client has begun.
async fn greeting(tcp: &mut TcpStream) -> Result<(), String> {
    let mut line = Vec::new();
    loop {
        match tcp.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(error) => return Err(format!("no greeting: {error}")),
        }
        if line.len() > PEER_LINE_BYTES_MAX {
            return Err("a greeting without an end".to_owned());
        }
    }
    if line.starts_with(b"INFO ") { Ok(()) } else { Err("the greeting is not that of NATS".to_owned()) }
}

/// See the module.
pub(crate) struct Line {
    stream: TlsStream<TcpStream>,
    dialect: Dialect,
    input: BytesMut,
    out: BytesMut,
}

impl Line {
    /// Subscribes, and waits until it is so.
    ///
    /// # Errors
    /// In words, as for all that follow: the connection is of no more use.
    pub(crate) async fn subscribe(&mut self, topic: &str) -> Result<(), String> {
        self.dialect.subscribe(topic, &mut self.out);
        self.confirmed().await
    }

    /// Has a message sent with the next [`Line::flush`].
    pub(crate) fn publish(&mut self, topic: &str, number: u32, payload: Bytes) {
        self.dialect.publish(topic, number, payload, &mut self.out);
    }

    /// Bytes that wait for the next [`Line::flush`].
    pub(crate) fn unsent(&self) -> usize {
        self.out.len()
    }

    /// The next thing that the server said, if all of it is there.
    pub(crate) fn take(&mut self) -> Result<Option<Event>, String> {
        self.dialect.take(&mut self.input, &mut self.out)
    }

    /// Sends what is to be sent. Not cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<(), String> {
        if !self.out.is_empty() {
            self.stream.write_all_buf(&mut self.out).await.map_err(|error| error.to_string())?;
            self.stream.flush().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Waits until something has come. Cancel-safe: nothing is lost.
    pub(crate) async fn fill(&mut self) -> Result<(), String> {
        self.input.reserve(PEER_READ_BYTES);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err("the server closed the connection".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The next thing that the server says. Not cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Event, String> {
        loop {
            if let Some(event) = self.take()? {
                return Ok(event);
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// Waits for the server's word that it has understood what it was told last.
    async fn confirmed(&mut self) -> Result<(), String> {
        loop {
            match self.next().await? {
                Event::Confirmed => return Ok(()),
                // Another client may publish already.
                Event::Message(_) => {}
                Event::Accepted(number) => return Err(format!("an answer to message {number}, which was not sent")),
                Event::Refused(why) => return Err(why),
            }
        }
    }
}
