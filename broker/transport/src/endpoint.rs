//! The loop: wait, receive, fire timers, tell the caller, send.

mod incoming;

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use quinn_proto as quic;
use thiserror::Error;

use crate::batch::Batch;
use crate::config::TransportConfig;
use crate::connection::{Connection, ConnectionLink, Count, Phase, SendWindow, Settled};
use crate::event::{CloseReason, Event};
use crate::limits::POLLS_UNDRAINED_MAX;
use crate::link::LinkKey;
use crate::prefetch::prefetch;
use crate::socket::{Socket, SocketBuffers};
use crate::stats::Stats;
use crate::steer::{Packet, Steering};
use crate::table::Table;
use crate::timers::{Due, Timers};
use crate::unproved::Unproved;
use crate::waker::{Clock, Waker};

pub(crate) const WAKE_TOKEN: mio::Token = mio::Token(0);
const SOCKET_TOKEN: mio::Token = mio::Token(1);

/// Why a connection was not begun. Nothing was changed, and no event follows.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConnectError {
    /// The endpoint was bound for the server role.
    #[error("the endpoint has no client configuration")]
    NotAClient,
    /// The endpoint holds `connections_max` connections.
    #[error("the endpoint is full")]
    Full,
    /// No packet can be sent to the address: it has no port, or is of the family that the local socket lacks.
    #[error("{remote} cannot be reached from {local}")]
    Address {
        /// Where to.
        remote: SocketAddr,
        /// Where from.
        local: SocketAddr,
    },
    /// The name is not one that a certificate can have.
    #[error("{0:?} is not a server name")]
    ServerName(String),
}

/// What a client role needs for each connection.
pub(crate) struct ClientRole {
    pub(crate) config: quic::ClientConfig,
    /// Dealt out in turn: see `TransportConfig::transport_variants`.
    pub(crate) variants: Vec<Arc<quic::TransportConfig>>,
    pub(crate) connects: usize,
}

/// The parts an endpoint is built from, made by `group`.
pub(crate) struct Parts {
    pub(crate) quic: quic::Endpoint,
    pub(crate) socket: Socket,
    pub(crate) poll: mio::Poll,
    pub(crate) waker: Waker,
    pub(crate) steering: Steering,
    pub(crate) client: Option<ClientRole>,
    pub(crate) config: TransportConfig,
    pub(crate) clock: Arc<dyn Clock>,
}

/// One socket with its connections, owned and driven by one thread.
///
/// The thread's loop is: [`poll`](Self::poll), act on the events through [`link`](Self::link), do its own
/// work, [`flush`](Self::flush).
pub struct Endpoint {
    pub(crate) quic: quic::Endpoint,
    socket: Socket,
    pub(crate) connections: Table,
    /// Indices of connections that may have something to send.
    touched: Vec<u32>,
    /// Indices of those closed from this side, whose `Closed` event is owed.
    closing: Vec<u32>,
    timers: Timers,
    batch: Batch,
    steering: Steering,
    client: Option<ClientRole>,
    pub(crate) config: TransportConfig,
    window: SendWindow,
    clock: Arc<dyn Clock>,
    poll: mio::Poll,
    wakes: mio::Events,
    waker: Waker,
    accepting: bool,
    /// Connections that began and had no turn to speak.
    entered: Vec<u32>,
    /// What was received and not yet handled, with the connection it is for.
    arrived: Vec<(u32, quic::ConnectionEvent)>,
    /// The last receipt left nothing in the socket: the precondition of sleeping, since readiness is told once.
    drained: bool,
    polls_undrained: u32,
    links_open: usize,
    handshakes_incoming: u32,
    unproved: Unproved,
    stats: Stats,
    /// Kept for reuse, empty between calls.
    packets: Vec<Packet>,
    due: Vec<Due>,
    response: Vec<u8>,
}

/// The socket, to wait for packets of several endpoints at once. Who has done that polls without a timeout.
impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.io.as_fd()
    }
}

impl Endpoint {
    pub(crate) fn assemble(parts: Parts) -> io::Result<Self> {
        let Parts { quic, socket, poll, waker, steering, client, config, clock } = parts;
        poll.registry().register(&mut SourceFd(&socket.io.as_raw_fd()), SOCKET_TOKEN, mio::Interest::READABLE)?;
        let unproved = Unproved::new(clock.now());
        Ok(Self {
            quic,
            batch: Batch::new(socket.gso_segments_max()),
            socket,
            connections: Table::default(),
            touched: Vec::new(),
            closing: Vec::new(),
            timers: Timers::new(clock.now()),
            steering,
            client,
            window: SendWindow::new(&config),
            config,
            clock,
            poll,
            wakes: mio::Events::with_capacity(2),
            waker,
            accepting: true,
            entered: Vec::new(),
            arrived: Vec::new(),
            drained: false,
            polls_undrained: 0,
            links_open: 0,
            handshakes_incoming: 0,
            unproved,
            stats: Stats::default(),
            packets: Vec::new(),
            due: Vec::new(),
            response: Vec::new(),
        })
    }

    /// The address the socket is bound to.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.socket.local_address()
    }

    /// A handle by which other threads end this endpoint's sleep.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The socket buffers that the kernel granted.
    ///
    /// # Errors
    ///
    /// The kernel would not say.
    pub fn socket_buffers(&self) -> io::Result<SocketBuffers> {
        self.socket.buffers()
    }

    /// When a timer of a connection is due, `None` without any: whoever waits elsewhere for the socket, which
    /// [`AsFd`](std::os::fd::AsFd) gives, polls again by then.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// What the endpoint has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Connections that were `Connected` and not yet `Closed`.
    #[must_use]
    pub fn links_open(&self) -> usize {
        self.links_open
    }

    /// Refuses new connections from now on; those whose handshake runs may finish it.
    pub fn stop_accepting(&mut self) {
        self.accepting = false;
    }

    /// Closes every connection with an application error code; `Closed` events follow.
    pub fn close_all(&mut self, code: u32, reason: &str) {
        let now = self.clock.now();
        for connection in self.connections.iter_mut() {
            connection.close(now, code, reason);
            self.closing.push(connection.key.index);
            touch(&mut self.touched, connection);
        }
    }

    /// Moves to another local socket, as a NAT or a change of network does to a client.
    #[cfg(test)]
    pub(crate) fn rebind(&mut self, io: std::net::UdpSocket) -> io::Result<()> {
        self.socket = Socket::new(io, &self.config)?;
        let descriptor = self.socket.io.as_raw_fd();
        self.poll.registry().register(&mut SourceFd(&descriptor), SOCKET_TOKEN, mio::Interest::READABLE)
    }

    /// Begins a connection. `Connected` or `Closed` follows; until then the link may be used, but opens no stream.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub fn connect(&mut self, remote: SocketAddr, server_name: &str) -> Result<LinkKey, ConnectError> {
        let local = self.local_address();
        let role = self.client.as_mut().ok_or(ConnectError::NotAClient)?;
        if self.quic.open_connections() >= self.config.connections_max as usize {
            return Err(ConnectError::Full);
        }
        let reachable = match (local, remote) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
            (SocketAddr::V4(_), SocketAddr::V6(_)) => return Err(ConnectError::Address { remote, local }),
            _ => remote,
        };
        let mut config = role.config.clone();
        config.transport_config(role.variants[role.connects % role.variants.len()].clone());
        role.connects = role.connects.wrapping_add(1);
        let now = self.clock.now();
        let (handle, connection) =
            self.quic.connect(now, config, reachable, server_name).map_err(|error| match error {
                quic::ConnectError::InvalidServerName(name) => ConnectError::ServerName(name),
                quic::ConnectError::InvalidRemoteAddress(_) => ConnectError::Address { remote, local },
                quic::ConnectError::CidsExhausted | quic::ConnectError::EndpointStopping => ConnectError::Full,
                quic::ConnectError::NoDefaultClientConfig | quic::ConnectError::UnsupportedVersion => {
                    ConnectError::NotAClient
                }
            })?;
        Ok(self.enter(now, handle, connection))
    }

    /// The link of a key, `None` when its connection is gone; whatever is done with it leaves with the next flush.
    pub fn link(&mut self, key: LinkKey) -> Option<ConnectionLink<'_>> {
        let connection = self.connections.at_mut(key.index)?;
        if connection.key != key || connection.phase == Phase::Over {
            return None;
        }
        touch(&mut self.touched, connection);
        Some(ConnectionLink { connection, window: self.window, now: self.clock.now(), closing: &mut self.closing })
    }

    /// Waits at most `timeout` (`None`: until something happens) for packets, a timer or a wake; processes what
    /// came, boundedly, and appends events. Flushes before it waits, and does not wait if there are events to tell.
    /// May return without any event.
    ///
    /// # Errors
    ///
    /// The socket or the poller is unusable; the endpoint is of no further use.
    pub fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let told = events.len();
        self.announce_closes(events);
        self.flush();
        self.wait(if events.len() > told { Some(Duration::ZERO) } else { timeout })?;
        self.receive(events)?;
        let now = self.clock.now();
        self.take_handovers(now, events);
        // What is already here may be the acknowledgement that a loss timer waits for.
        if self.drained || self.polls_undrained > POLLS_UNDRAINED_MAX {
            self.fire_timers(now, events);
        }
        self.settle_entered(events);
        Ok(())
    }

    /// Says that the link at this index is about to be used: its memory is asked for meanwhile.
    pub fn expect(&self, index: u32) {
        if let Some(connection) = self.connections.at(index) {
            prefetch(connection);
        }
    }

    /// Builds and sends the packets of every connection touched since the last flush.
    pub fn flush(&mut self) {
        self.pack();
        self.batch.flush(&self.socket.io, &mut self.stats);
    }

    /// Builds the packets of every connection touched since the last flush, and sends full batches of them; the rest leaves with
    /// the flush. Worth calling while the connections are still in the caches.
    pub fn pack(&mut self) {
        let now = self.clock.now();
        let mut touched = mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.pack_one(now, index);
        }
        self.touched = touched;
    }

    fn pack_one(&mut self, now: Instant, index: u32) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        connection.touched = false;
        loop {
            let segments_max = self.batch.segments_max();
            let built = self.batch.fill(&self.socket.io, &mut self.stats, |buffer| {
                connection.quic.poll_transmit(now, segments_max, buffer)
            });
            if !built {
                break;
            }
        }
        if let Some(deadline) = connection.deadline() {
            self.timers.arm(index, &mut connection.armed, deadline);
        }
    }

    /// Sleeps, unless there is something to do already.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let until_timer = self.timers.next_deadline().map(|at| at.saturating_duration_since(self.clock.now()));
        let wait = match (timeout, until_timer) {
            (Some(timeout), Some(until_timer)) => Some(timeout.min(until_timer)),
            (timeout, until_timer) => timeout.or(until_timer),
        };
        // Looking into the socket costs what asking the poller would, so that a wait of nothing asks nobody.
        let mut outcome = Ok(());
        if self.drained && wait != Some(Duration::ZERO) && self.waker.prepare_sleep() {
            outcome = self.poll.poll(&mut self.wakes, wait);
        }
        self.waker.note_awake();
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            outcome => outcome,
        }
    }

    fn fire_timers(&mut self, now: Instant, events: &mut Vec<Event>) {
        let mut due = mem::take(&mut self.due);
        self.timers.expire(now, &mut due);
        for Due { index, tick } in due.drain(..) {
            let Some(connection) = self.connections.at_mut(index) else { continue };
            if !connection.armed.take(tick) {
                continue;
            }
            let deadline = connection.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.stats.timers_fired += 1;
                if matches!(connection.phase, Phase::Handshaking { deadline } if deadline <= now) {
                    connection.close(now, 0, "the handshake took too long");
                    connection.announce_close(CloseReason::TimedOut, events);
                }
                connection.quic.handle_timeout(now);
                self.leave(now, index, events);
            } else if let Some(deadline) = deadline {
                self.timers.arm(index, &mut connection.armed, deadline);
            }
        }
        self.due = due;
    }

    fn announce_closes(&mut self, events: &mut Vec<Event>) {
        let mut closing = mem::take(&mut self.closing);
        for index in closing.drain(..) {
            if let Some(connection) = self.connections.at_mut(index) {
                connection.announce_close(CloseReason::ByUs, events);
                self.recount(index);
            }
        }
        self.closing = closing;
    }

    /// Lets a connection speak, and frees its place if quinn-proto has forgotten it.
    fn settle(&mut self, index: u32, events: &mut Vec<Event>) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        let settled = connection.settle(&mut self.quic, events);
        self.recount(index);
        if settled == Settled::Drained {
            self.free(index, events);
        }
    }

    /// Those that began in this poll have had no turn to speak yet.
    fn settle_entered(&mut self, events: &mut Vec<Event>) {
        let mut entered = mem::take(&mut self.entered);
        for index in entered.drain(..) {
            self.settle(index, events);
        }
        self.entered = entered;
    }

    /// A connection's packets were handled, and others' follow: while it is in the caches it speaks, and if the caller has nothing
    /// to answer, its own answers are built.
    fn leave(&mut self, now: Instant, index: u32, events: &mut Vec<Event>) {
        let told = events.len();
        self.settle(index, events);
        let Some(connection) = self.connections.at_mut(index) else { return };
        if events.len() > told {
            touch(&mut self.touched, connection);
        } else if !connection.touched {
            self.pack_one(now, index);
        }
    }

    fn free(&mut self, index: u32, events: &mut Vec<Event>) {
        if let Some(connection) = self.connections.at_mut(index) {
            // A close from our side may be drained before its announcement was due.
            connection.announce_close(CloseReason::ByUs, events);
            self.stats.handshakes_failed += u64::from(!connection.was_open);
            self.connections.remove(index);
        }
    }

    /// Brings the counts in line with what became of a connection.
    fn recount(&mut self, index: u32) {
        let Some(connection) = self.connections.at_mut(index) else { return };
        let after = connection.count();
        let before = mem::replace(&mut connection.counted, after);
        match before {
            Count::Nothing => {}
            Count::Incoming => self.handshakes_incoming -= 1,
            Count::Open => self.links_open -= 1,
        }
        match after {
            Count::Nothing => {}
            Count::Incoming => self.handshakes_incoming += 1,
            Count::Open => self.links_open += 1,
        }
    }
}

/// Puts a connection on the list for the next flush, once.
fn touch(touched: &mut Vec<u32>, connection: &mut Connection) {
    if !mem::replace(&mut connection.touched, true) {
        touched.push(connection.key.index);
    }
}
