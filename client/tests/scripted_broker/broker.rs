//! A broker without a mind: it accepts, reads frames and sends what it is told to.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use carillon_client::protocol::Frame;
use carillon_client::protocol::decoder::Decoder;
use carillon_client::protocol::deliver::Deliver;
use carillon_client::protocol::kinds::Lane;
use carillon_client::protocol::limits::FRAME_BYTES_MAX;
use carillon_client::protocol::publish::Publish;
use carillon_client::protocol::session::{ALPN, Ack, Hello, LaneOpened};
use carillon_client::{
    Client, Config, ConnectError, ConversationId, DingId, DingPush, ErrorCode, Event, Events, Incarnation, MessageKind,
    Position, ProducerId, Published, Reconnect, Roots, Seq, ShardId, Timestamp, UserId, Welcome,
};
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use rustls_pki_types::PrivatePkcs8KeyDer;

pub(crate) const CONVERSATION: ConversationId = ConversationId(1);
pub(crate) const INCARNATION: Incarnation = Incarnation(7);

/// No step of a test takes this long unless it hangs.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this step hangs")
}

/// Whether nothing comes of it for a while.
pub(crate) async fn idle<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), future).await.is_err()
}

pub(crate) struct Broker {
    endpoint: Endpoint,
    pem: String,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .expect("the key is of the certificate");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("the initial cipher suite");
        let config = ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        Self { endpoint, pem: signed.cert.pem() }
    }

    /// A configuration that leads here and reconnects at once.
    pub(crate) fn config(&self) -> Config {
        let address = self.endpoint.local_addr().expect("it is bound").to_string();
        Config::new(address, "token")
            .server_name("localhost")
            .roots(Roots::Pem(self.pem.clone().into_bytes()))
            .producer(ProducerId(5))
            .reconnect(Reconnect { first_ms: 1, max_ms: 10, jitter: 0.5, attempts_max: None })
    }

    /// The next session, its `Hello` read and not answered.
    pub(crate) async fn accept(&self) -> Session {
        let incoming = soon(self.endpoint.accept()).await.expect("the endpoint is open");
        let connection = soon(incoming.into_future()).await.expect("the handshake succeeds");
        let (send, recv) = soon(connection.accept_bi()).await.expect("a control stream");
        let mut control = Stream { send, recv, decoder: Decoder::new(FRAME_BYTES_MAX) };
        let Frame::Hello(hello) = control.frame().await else { panic!("the first frame is Hello") };
        Session { connection, hello, control, publish: None }
    }

    /// Takes a connection whose handshake fails.
    pub(crate) async fn fail(&self) {
        let incoming = self.endpoint.accept().await.expect("the endpoint is open");
        incoming.await.expect_err("the client does not trust this broker");
    }

    /// The next session, welcomed.
    pub(crate) async fn welcome(&self) -> Session {
        let mut session = self.accept().await;
        session.control.send(welcome()).await;
        session
    }

    /// A client of this configuration and its session, welcomed with this.
    pub(crate) async fn connect_as(&self, config: Config, welcome: Welcome) -> (Client, Events, Session) {
        let accept = async {
            let mut session = self.accept().await;
            session.control.send(welcome).await;
            session
        };
        let (connected, session) = tokio::join!(soon(Client::connect(config)), accept);
        let (client, events) = connected.expect("the client is welcome");
        (client, events, session)
    }

    pub(crate) async fn connect(&self, config: Config) -> (Client, Events, Session) {
        self.connect_as(config, welcome()).await
    }

    /// What a client says whose sessions are closed with these codes, one after the other.
    pub(crate) async fn refuse(&self, config: Config, codes: &[ErrorCode]) -> ConnectError {
        let refuse = async {
            for code in codes {
                self.accept().await.close(*code).await;
            }
        };
        let (connected, ()) = tokio::join!(soon(Client::connect(config)), refuse);
        connected.expect_err("no session is welcome")
    }
}

pub(crate) struct Stream {
    pub(crate) send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

impl Stream {
    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        soon(self.try_frame()).await
    }

    /// The next frame, however long it takes.
    pub(crate) async fn try_frame(&mut self) -> Frame {
        loop {
            if let Some(raw) = self.decoder.poll_frame().expect("whole frames") {
                return Frame::decode(&raw).expect("good frames");
            }
            let chunk = self.recv.read_chunk(usize::MAX, true).await.expect("the client is there");
            self.decoder.push(chunk.expect("streams do not end").bytes);
        }
    }

    pub(crate) async fn send(&mut self, frame: impl Into<Frame>) {
        write(&mut self.send, frame).await;
    }
}

pub(crate) async fn write(stream: &mut SendStream, frame: impl Into<Frame>) {
    let mut bytes = BytesMut::new();
    frame.into().encode(&mut bytes);
    stream.write_all(&bytes).await.expect("the client is there");
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    pub(crate) control: Stream,
    publish: Option<Stream>,
}

impl Session {
    pub(crate) async fn close(self, code: ErrorCode) {
        self.connection.close(VarInt::from_u32(code.0.into()), b"because");
        soon(self.connection.closed()).await;
    }

    /// The code the client closes with.
    pub(crate) async fn closed(&self) -> ErrorCode {
        match soon(self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                ErrorCode(u16::try_from(close.error_code.into_inner()).expect("codes are u16"))
            }
            other => panic!("the client did not close: {other}"),
        }
    }

    pub(crate) async fn publishes(&mut self) -> &mut Stream {
        if self.publish.is_none() {
            let (send, recv) = soon(self.connection.accept_bi()).await.expect("a publish stream");
            self.publish = Some(Stream { send, recv, decoder: Decoder::new(FRAME_BYTES_MAX) });
        }
        self.publish.as_mut().expect("it was opened above")
    }

    pub(crate) async fn publish(&mut self) -> Publish {
        match self.publishes().await.frame().await {
            Frame::Publish(publish) => publish,
            other => panic!("{} on the publish stream", other.name()),
        }
    }

    /// The `(number, low)` of the next publishes.
    pub(crate) async fn numbers(&mut self, count: usize) -> Vec<(u64, u64)> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let publish = self.publish().await;
            numbers.push((publish.number, publish.low));
        }
        numbers
    }

    pub(crate) async fn ack(&mut self) -> Ack {
        match self.control.frame().await {
            Frame::Ack(ack) => ack,
            other => panic!("{} instead of an Ack", other.name()),
        }
    }

    pub(crate) async fn lane(&self, lane: Lane) -> SendStream {
        let mut stream = soon(self.connection.open_uni()).await.expect("room for a lane");
        write(&mut stream, LaneOpened { lane }).await;
        stream
    }

    /// Delivers messages at these positions on a new inbox lane.
    pub(crate) async fn deliver(&self, positions: impl IntoIterator<Item = u64>) -> SendStream {
        let mut inbox = self.lane(Lane::INBOX).await;
        for position in positions {
            write(&mut inbox, deliver(position)).await;
        }
        inbox
    }
}

pub(crate) fn welcome() -> Welcome {
    Welcome {
        version: 1,
        user: UserId(3),
        shard: ShardId(0),
        incarnation: INCARNATION,
        head: Position(100),
        producer_highest: 0,
        time: Timestamp(1_000_000),
        idle_timeout_ms: 30_000,
        payload_bytes_max: 65_536,
        dings_open: 0,
        handle: "alice".into(),
    }
}

pub(crate) fn deliver(position: u64) -> Deliver {
    Deliver {
        position: Position(position),
        conversation: CONVERSATION,
        seq: Seq(position),
        author: UserId(9),
        time: Timestamp(1),
        kind: MessageKind::TEXT,
        payload: Bytes::from_static(b"hello"),
    }
}

pub(crate) fn published(number: u64) -> Published {
    let (seq, position) = (Seq(number), Position(number + 100));
    Published { number, conversation: CONVERSATION, seq, position, time: Timestamp(1), repeated: 0 }
}

pub(crate) fn ding(id: u64) -> DingPush {
    DingPush {
        ding: DingId(id),
        sender: UserId(9),
        time: Timestamp(1),
        expires_at: Timestamp(2),
        kind: MessageKind::TEXT,
        conversation: ConversationId(0),
        seq: Seq(0),
        payload: Bytes::new(),
    }
}

/// The next event that is not about the session as such.
pub(crate) async fn next(events: &mut Events) -> Event {
    loop {
        match soon(events.next()).await.expect("the client lives") {
            Event::Connected(_) | Event::Disconnected { .. } => {}
            other => return other,
        }
    }
}

/// The position of the next message.
pub(crate) async fn position(events: &mut Events) -> u64 {
    match next(events).await {
        Event::Message(message) => message.position.0,
        other => panic!("{other:?} instead of a message"),
    }
}
