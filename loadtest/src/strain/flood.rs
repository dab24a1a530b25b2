//! First packets of connections that go no further, as somebody sends them who wants a broker's time and memory.
//!
//! They are real ones, of a client that was begun and given up: what a broker does with them it cannot save itself. They are made
//! once, since making them costs more than answering, and sent again and again; what the broker answers is not read.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use carillon_transport::{Endpoint, TransportConfig};

use super::report::{Flooding, Outcome};
use crate::clock::SystemClock;
use crate::failure::Failure;
use crate::limits::{FIRST_PACKETS, FIRST_PACKETS_AT_ONCE, FLOOD_SOCKETS, FLOOD_TICK};
use crate::target::Target;
use crate::tls;

/// See the module.
pub(super) struct Flood {
    rate: u32,
    target: SocketAddr,
    packets: Arc<Vec<Vec<u8>>>,
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
    begun: Option<Instant>,
    took: Duration,
    failed: Option<String>,
}

impl Flood {
    pub(super) fn prepare(target: &Target, rate: u32) -> Result<Self, Failure> {
        Ok(Self {
            rate,
            target: target.address,
            packets: Arc::new(first_packets(target)?),
            sent: Arc::default(),
            over: Arc::default(),
            thread: None,
            begun: None,
            took: Duration::ZERO,
            failed: None,
        })
    }

    pub(super) fn begin(&mut self, now: Instant) -> Result<(), Failure> {
        self.begun = Some(now);
        let sockets = sockets(self.target)?;
        let (rate, packets) = (self.rate, self.packets.clone());
        let (sent, over) = (self.sent.clone(), self.over.clone());
        let run = move || send(&sockets, &packets, (now, rate), &sent, &over);
        self.thread = Some(std::thread::Builder::new().name("flood".to_owned()).spawn(run)?);
        Ok(())
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.over.store(true, Ordering::Relaxed);
        self.took = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => self.failed = Some(error.to_string()),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }

    /// Packets that the kernel has taken so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn outcome(&self) -> Outcome {
        let sent = self.sent();
        let seconds = self.took.as_secs_f64().max(1e-6);
        Outcome::Flood(Flooding {
            offered_per_s: self.rate,
            sent,
            sent_per_s: sent as f64 / seconds,
            failed: self.failed.clone(),
        })
    }
}

/// One packet of each of many connections, caught by a socket that does not answer.
fn first_packets(target: &Target) -> Result<Vec<Vec<u8>>, Failure> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    sink.set_nonblocking(true)?;
    let address = sink.local_addr()?;
    let tls = tls::client_config(&target.ca)?;
    let mut packets = Vec::new();
    let mut buffer = [0; 2_048];
    while packets.len() < FIRST_PACKETS {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut client = Endpoint::client(local, tls.clone(), TransportConfig::client(), Arc::new(SystemClock))?;
        for _ in 0..FIRST_PACKETS_AT_ONCE {
            client.connect(address, &target.server_name).map_err(|error| Failure::Usage(error.to_string()))?;
        }
        client.flush();
        let before = packets.len();
        while let Ok(bytes) = sink.recv(&mut buffer) {
            packets.push(buffer[..bytes].to_vec());
        }
        if packets.len() == before {
            return Err(Failure::Usage("no first packet could be made: loopback takes none".to_owned()));
        }
    }
    Ok(packets)
}

fn sockets(target: SocketAddr) -> Result<Vec<UdpSocket>, Failure> {
    let unspecified: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = |_| {
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(target)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    (0..FLOOD_SOCKETS).map(socket).collect()
}

/// Sends by the clock until it is over. A packet for which the kernel has no room is not sent, and not counted.
fn send(
    sockets: &[UdpSocket],
    packets: &[Vec<u8>],
    (start, rate): (Instant, u32),
    sent: &AtomicU64,
    over: &AtomicBool,
) -> std::io::Result<()> {
    let mut due = 0_usize;
    while !over.load(Ordering::Relaxed) {
        let passed = SystemClock.now().saturating_duration_since(start).as_secs_f64();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "packets, rounded down")]
        let by_now = (passed * f64::from(rate)) as usize;
        while due < by_now {
            let packet = &packets[due % packets.len()];
            // Another socket each time round, so that the same first packet comes from somebody else.
            let round = due / packets.len();
            let socket = &sockets[(due + round) % sockets.len()];
            match socket.send(packet) {
                Ok(_) => sent.fetch_add(1, Ordering::Relaxed),
                Err(error) if is_passing(&error) => 0,
                Err(error) => return Err(error),
            };
            due += 1;
        }
        std::thread::sleep(FLOOD_TICK);
    }
    Ok(())
}

/// Whether the next packet may go out all the same.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused)
}
