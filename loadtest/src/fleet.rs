//! All sessions and their sockets, in one thread.
//!
//! Owns the loop: look at every socket, hand events to their sessions, tell what they say, acknowledge now and then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Position;
use carillon_transport::{ConnectionLink, Endpoint, Event, Link, LinkKey, TransportConfig};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::channel::Purpose;
use crate::clock::SystemClock;
use crate::failure::{Ended, Failure};
use crate::limits::{ACK_MESSAGES, ACK_MS, FAREWELL_TURNS};
use crate::session::{Broken, News, Session};
use crate::target::Target;

/// A session of the fleet, in the order of their beginnings.
pub(crate) type SessionIndex = usize;

/// Of no session.
const NOBODY: SessionIndex = SessionIndex::MAX;

/// What opens a session.
pub(crate) struct Greeting {
    /// The `Hello` frame.
    pub(crate) hello: Bytes,
    /// The position of its cursor; 0 without one.
    pub(crate) start: Position,
    /// Whether it will publish.
    pub(crate) publishes: bool,
}

/// When a session acknowledges, whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acks {
    /// After so many messages.
    pub(crate) messages: u32,
    /// With the first message that comes when the last acknowledgement is so long ago; with none, after two or three times this.
    pub(crate) every: Duration,
}

impl Acks {
    /// Those of the SDK.
    pub(crate) const SDK: Self = Self { messages: ACK_MESSAGES, every: Duration::from_millis(ACK_MS as u64) };
}

/// See the module.
pub(crate) struct Fleet {
    clock: SystemClock,
    address: SocketAddr,
    server_name: String,
    endpoints: Vec<Endpoint>,
    /// By endpoint and index of the link.
    owners: Vec<Vec<SessionIndex>>,
    sessions: Vec<Session>,
    acks: Acks,
    /// The session that is looked at next for something to acknowledge, and when the last one was.
    swept: (SessionIndex, Instant),
    /// Nothing happened in the last turn: the next one may sleep.
    is_idle: bool,
    events: Vec<Event>,
    /// Sessions whose end is to be told: at most each of them, once.
    ended: Vec<(SessionIndex, Ended)>,
    /// Sessions that read on: at most each of them, once.
    resumed: Vec<SessionIndex>,
}

impl Fleet {
    /// A fleet without sessions.
    pub(crate) fn new(
        target: &Target,
        tls: Arc<rustls::ClientConfig>,
        (sockets, acks): (u16, Acks),
        clock: SystemClock,
    ) -> Result<Self, Failure> {
        let endpoints = (0..sockets)
            .map(|socket| {
                let config = TransportConfig::client();
                Endpoint::client(local(target.address, socket), tls.clone(), config, Arc::new(clock))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            clock,
            address: target.address,
            server_name: target.server_name.clone(),
            owners: vec![Vec::new(); endpoints.len()],
            endpoints,
            sessions: Vec::new(),
            acks,
            swept: (0, clock.now()),
            is_idle: false,
            events: Vec::new(),
            ended: Vec::new(),
            resumed: Vec::new(),
        })
    }

    /// Begins a session, on the sockets in turn.
    pub(crate) fn connect(&mut self, greeting: Greeting) -> Result<SessionIndex, Failure> {
        let session = self.sessions.len();
        let endpoint = session % self.endpoints.len();
        let link = self.endpoints[endpoint]
            .connect(self.address, &self.server_name)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let ack_at = self.clock.now() + self.acks.every.mul_f64(spread(session));
        self.sessions.push(Session::new(link, endpoint, greeting, ack_at));
        let owners = &mut self.owners[endpoint];
        let index = link.index as usize;
        if owners.len() <= index {
            owners.resize(index + 1, NOBODY);
        }
        owners[index] = session;
        Ok(session)
    }

    /// How many sessions have been begun so far.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Looks at every socket once and tells what happened, and when. Sleeps for `wait` at most, and only if nothing
    /// happened in the turn before.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        tell: &mut impl FnMut(SessionIndex, Instant, News),
    ) -> Result<(), Failure> {
        if self.is_idle {
            self.sleep(wait)?;
        }
        self.is_idle = true;
        for at in 0..self.endpoints.len() {
            let mut events = std::mem::take(&mut self.events);
            self.endpoints[at].poll(Some(Duration::ZERO), &mut events)?;
            let now = self.clock.now();
            self.is_idle &= events.is_empty();
            for event in events.drain(..) {
                self.handle(at, event, &mut |session, news| tell(session, now, news));
            }
            self.events = events;
        }
        let now = self.clock.now();
        for session in std::mem::take(&mut self.resumed) {
            for stream in self.sessions[session].streams() {
                self.with(session, |of, link| of.read(link, stream, &mut |news| tell(session, now, news)));
            }
        }
        self.sweep();
        let now = self.clock.now();
        for (session, why) in self.ended.drain(..) {
            tell(session, now, News::Ended(why));
        }
        for endpoint in &mut self.endpoints {
            endpoint.flush();
        }
        Ok(())
    }

    /// Sleeps until a packet has come, a timer is due, or this is over. The endpoints' own pollers know one socket each, and whole
    /// milliseconds only.
    fn sleep(&mut self, wait: Duration) -> Result<(), Failure> {
        // What was written since the last turn leaves first.
        for endpoint in &mut self.endpoints {
            endpoint.flush();
        }
        let now = self.clock.now();
        let timers = self.endpoints.iter().filter_map(Endpoint::next_deadline).min();
        let wait = timers.map_or(wait, |at| wait.min(at.saturating_duration_since(now)));
        if wait.is_zero() {
            return Ok(());
        }
        let mut sockets: Vec<_> = self.endpoints.iter().map(|endpoint| PollFd::new(endpoint, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(wait).ok();
        match poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(Failure::Socket(error.into())),
        }
    }

    /// Writes frames to the control or publish stream of a session. If it has ended, or ends by this, the next turn says so.
    pub(crate) fn send(&mut self, session: SessionIndex, to: Purpose, bytes: Bytes) {
        self.with(session, |session, link| session.send(link, to, bytes));
    }

    /// Whether all that a session sent on a stream was taken.
    pub(crate) fn is_clear(&self, session: SessionIndex, to: Purpose) -> bool {
        self.sessions[session].is_clear(to)
    }

    /// Reads nothing more of what a session gets: its windows fill, and the broker cannot send on.
    pub(crate) fn stop_reading(&mut self, session: SessionIndex) {
        self.sessions[session].stop_reading();
    }

    /// Reads on what has come meanwhile, from the next turn on.
    pub(crate) fn read_on(&mut self, session: SessionIndex) {
        if self.sessions[session].read_on() {
            self.resumed.push(session);
        }
    }

    /// Ends a session in good order; nothing more is told of it.
    pub(crate) fn leave(&mut self, session: SessionIndex) {
        let session = &mut self.sessions[session];
        if let Some(mut link) = self.endpoints[session.endpoint].link(session.link) {
            link.close(u32::from(ErrorCode::NONE.0), "the load test has what it wanted");
        }
        session.end();
    }

    /// Closes every session in good order.
    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        for endpoint in &mut self.endpoints {
            endpoint.close_all(u32::from(ErrorCode::NONE.0), "the load test is over");
            endpoint.flush();
        }
        for _ in 0..FAREWELL_TURNS {
            if self.endpoints.iter().all(|endpoint| endpoint.links_open() == 0) {
                break;
            }
            self.turn(Duration::ZERO, &mut |_, _, _| {})?;
        }
        Ok(())
    }

    fn handle(&mut self, at: usize, event: Event, tell: &mut impl FnMut(SessionIndex, News)) {
        match event {
            Event::Connected { link } => self.with_link(at, link, |_, session, link| session.greet(link)),
            Event::Opened { link, stream, direction } => {
                self.with_link(at, link, |_, session, _| session.lane_opened(stream, direction));
            }
            Event::Readable { link, stream } => {
                let (acks, now) = (self.acks, self.clock.now());
                self.with_link(at, link, |index, session, link| {
                    session.read(link, stream, &mut |news| tell(index, news))?;
                    session.ack_if_due(link, acks, now)
                });
            }
            Event::Writable { link, stream } => {
                self.with_link(at, link, |_, session, link| session.writable(link, stream));
            }
            Event::Stopped { link, stream, code } => {
                self.with_link(at, link, |_, _, _| Err(Broken(format!("the broker stopped {stream} with code {code}"))))
            }
            Event::Closed { link, reason } => {
                if let Some(session) = self.owner(at, link)
                    && self.sessions[session].end()
                {
                    self.ended.push((session, Ended::Connection(reason)));
                }
            }
            // Streams are refused only by a broker that allows fewer than the protocol has; datagrams are passed over.
            Event::Available { .. } | Event::Datagram { .. } => {}
        }
    }

    fn owner(&self, at: usize, link: LinkKey) -> Option<SessionIndex> {
        let session = *self.owners[at].get(link.index as usize)?;
        self.sessions.get(session).filter(|found| found.link == link).map(|_| session)
    }

    fn with_link(
        &mut self,
        at: usize,
        link: LinkKey,
        act: impl FnOnce(SessionIndex, &mut Session, &mut ConnectionLink<'_>) -> Result<(), Broken>,
    ) {
        if let Some(index) = self.owner(at, link) {
            self.with(index, |session, link| act(index, session, link));
        }
    }

    /// Lets a session act on its connection, if it has one. A broker that broke the protocol is told so.
    fn with(
        &mut self,
        index: SessionIndex,
        act: impl FnOnce(&mut Session, &mut ConnectionLink<'_>) -> Result<(), Broken>,
    ) {
        let session = &mut self.sessions[index];
        let Some(mut link) = self.endpoints[session.endpoint].link(session.link) else { return };
        if let Err(Broken(why)) = act(session, &mut link) {
            link.close(u32::from(ErrorCode::MALFORMED.0), &why);
            if session.end() {
                self.ended.push((index, Ended::Broken(why)));
            }
        }
    }

    /// Looks at as many sessions as their share of the time since the last turn is, so that each was looked at within
    /// [`Acks::every`], and lets those acknowledge to which nothing more came.
    fn sweep(&mut self) {
        let (mut next, since) = self.swept;
        let now = self.clock.now();
        let share = now.saturating_duration_since(since).as_secs_f64() / self.acks.every.as_secs_f64();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the sessions, rounded down"
        )]
        let due = (share.min(1.0) * self.sessions.len() as f64) as usize;
        if due == 0 && share < 1.0 {
            return;
        }
        for _ in 0..due {
            next = (next + 1) % self.sessions.len();
            let acks = self.acks;
            if self.sessions[next].is_behind(acks, now) {
                self.with(next, |session, link| session.ack(link, acks, now));
            }
        }
        self.swept = (next, now);
    }
}

/// A number from 0 to 1 for each session, evenly spread however many there are: multiples of the golden ratio, modulo 1
/// (Knuth, The Art of Computer Programming, 6.4). Devices do not acknowledge in step.
fn spread(session: SessionIndex) -> f64 {
    (session as f64 * 0.618_033_988_749_895).fract()
}

/// Any port of the same machine, each socket on a loopback address of its own where there are many (Linux has all of
/// 127.0.0.0/8), or of any interface if the broker is elsewhere.
pub(crate) fn local(remote: SocketAddr, socket: u16) -> SocketAddr {
    let ip = match remote {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => {
            IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + u32::from(socket)))
        }
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(v6) if v6.ip().is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, 0)
}
