//! A server in the process of the test that speaks just enough of a peer's protocol to see that the clients do, too.
//!
//! Everybody who subscribes gets everything that is published after it. It counts on what the clients of this crate send, and is no
//! example of a server.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::{Buf, Bytes, BytesMut};
use carillon::material::{Material, SERVER_NAME};
use carillon::tls;
use carillon_loadtest::peers::{Peer, PeerTarget};
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode};
use rumqttc::mqttbytes::{Error, QoS};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

/// What is wrong with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The third message is delivered to nobody.
    Loses,
    /// The third message is delivered twice.
    Repeats,
}

/// A server that serves until it is dropped.
pub(crate) struct Server {
    pub(crate) target: PeerTarget,
    hub: Arc<Mutex<Hub>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

/// Where what is published goes.
#[derive(Default)]
struct Hub {
    subscribers: Vec<mpsc::Sender<Bytes>>,
    published: u32,
}

#[derive(Clone)]
struct Serving {
    peer: Peer,
    fault: Fault,
    hub: Arc<Mutex<Hub>>,
}

impl Server {
    pub(crate) fn start(peer: Peer, fault: Fault) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let material = Material::ensure(directory.path()).expect("certificates and keys");
        let config = tls::server_config(&material.certificate, &material.key).expect("a certificate");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let hub = Arc::<Mutex<Hub>>::default();
        let serving = Serving { peer, fault, hub: Arc::clone(&hub) };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::spawn(accept(listener, TlsAcceptor::from(config), serving));
                stopped.await.ok();
            });
        });
        let target = PeerTarget { peer, address, server_name: SERVER_NAME.into(), ca: material.ca };
        Self { target, hub, stop: Some(stop), thread: Some(thread), _directory: directory }
    }
}

impl Server {
    /// How much was published so far, requests included.
    pub(crate) fn published(&self) -> u32 {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner).published
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().expect("it runs").join();
        assert!(std::thread::panicking() || ended.is_ok(), "the server failed");
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, serving: Serving) {
    loop {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        let (tls, serving) = (tls.clone(), serving.clone());
        tokio::spawn(async move {
            if matches!(serving.peer, Peer::Nats(_)) {
                tcp.write_all(b"INFO {\"tls_required\":true}\r\n").await.expect("a client that reads");
            }
            // A client that does not trust the certificate goes away here.
            if let Ok(stream) = tls.accept(tcp).await {
                serve(stream, serving).await;
            }
        });
    }
}

/// Reads until the client is gone; one task more writes what it is to be told.
async fn serve(stream: tokio_rustls::server::TlsStream<TcpStream>, serving: Serving) {
    let (mut read, mut write) = tokio::io::split(stream);
    let (tell, mut told) = mpsc::channel::<Bytes>(1_024);
    tokio::spawn(async move {
        while let Some(bytes) = told.recv().await {
            if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
    });
    let mut input = BytesMut::new();
    while read.read_buf(&mut input).await.is_ok_and(|bytes| bytes > 0) {
        loop {
            let mut out = BytesMut::new();
            let step = match serving.peer {
                Peer::Nats(_) => nats(&mut input, &mut out),
                Peer::Mqtt(_) => mqtt(&mut input, &mut out),
            };
            if !out.is_empty() && tell.send(out.freeze()).await.is_err() {
                return;
            }
            match step {
                Step::Wait => break,
                Step::Next => {}
                Step::Subscribe => hub_of(&serving).subscribers.push(tell.clone()),
                Step::Publish(frame) => serving.publish(frame).await,
            }
        }
    }
}

fn hub_of(serving: &Serving) -> std::sync::MutexGuard<'_, Hub> {
    serving.hub.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Serving {
    async fn publish(&self, frame: Bytes) {
        let (subscribers, number) = {
            let mut hub = hub_of(self);
            hub.published += 1;
            (hub.subscribers.clone(), hub.published)
        };
        let times = match self.fault {
            Fault::Loses if number == 3 => 0,
            Fault::Repeats if number == 3 => 2,
            Fault::None | Fault::Loses | Fault::Repeats => 1,
        };
        for subscriber in subscribers {
            for _ in 0..times {
                // One that is gone gets nothing.
                subscriber.send(frame.clone()).await.ok();
            }
        }
    }
}

/// What a client's word asks for.
enum Step {
    /// More bytes.
    Wait,
    Next,
    Subscribe,
    /// With the frame that subscribers get.
    Publish(Bytes),
}

fn nats(input: &mut BytesMut, out: &mut BytesMut) -> Step {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Step::Wait };
    let line = String::from_utf8(input[..=end].to_vec()).expect("a text");
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    match words[..] {
        ["PUB", subject, .., bytes] => {
            let bytes: usize = bytes.parse().expect("a number");
            if input.len() < end + 1 + bytes + 2 {
                return Step::Wait;
            }
            input.advance(end + 1);
            let payload = input.split_to(bytes + 2);
            if let [_, _, reply, _] = words[..] {
                write!(out, "MSG {reply} 2 9\r\n{{\"seq\":1}}\r\n").expect("a buffer");
            }
            let mut frame = BytesMut::from(format!("MSG {subject} 1 {bytes}\r\n").as_bytes());
            frame.extend_from_slice(&payload);
            return Step::Publish(frame.freeze());
        }
        ["SUB", _, "1"] => {
            input.advance(end + 1);
            return Step::Subscribe;
        }
        ["SUB", _, "2"] | ["CONNECT", ..] => {}
        ["PING"] => out.extend_from_slice(b"PONG\r\n"),
        _ => panic!("a client said {line:?}"),
    }
    input.advance(end + 1);
    Step::Next
}

fn mqtt(input: &mut BytesMut, out: &mut BytesMut) -> Step {
    let packet = match Packet::read(input, 1 << 20) {
        Ok(packet) => packet,
        Err(Error::InsufficientBytes(_)) => return Step::Wait,
        Err(error) => panic!("a client sent no packet: {error:?}"),
    };
    let mut say = |packet: Packet| {
        packet.write(out, 1 << 20).expect("a packet");
    };
    match packet {
        Packet::Connect(_) => say(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))),
        Packet::Subscribe(asked) => {
            let granted = SubscribeReasonCode::Success(asked.filters[0].qos);
            say(Packet::SubAck(SubAck::new(asked.pkid, vec![granted])));
            return Step::Subscribe;
        }
        Packet::Publish(publish) => {
            if publish.qos == QoS::AtLeastOnce {
                say(Packet::PubAck(PubAck::new(publish.pkid)));
            }
            let mut frame = BytesMut::new();
            Packet::Publish(Publish { pkid: 1, ..publish }).write(&mut frame, 1 << 20).expect("a packet");
            return Step::Publish(frame.freeze());
        }
        Packet::PubAck(ack) => assert_eq!(ack.pkid, 1, "what was acknowledged was sent"),
        other => panic!("a client said {other:?}"),
    }
    Step::Next
}
