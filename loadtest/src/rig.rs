//! A fleet with what it takes to let its sessions in: tokens, patience, and somebody to tell how far it is.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DeviceId, Position, ProducerId};
use carillon_protocol::session::{Cursor, Hello, NEWEST_ALL, VERSION, Welcome};

use hdrhistogram::Histogram;

use crate::clock::SystemClock;
use crate::failure::{Ended, Failure};
use crate::fleet::{Acks, Fleet, Greeting, SessionIndex};
use crate::kernel::KernelMemory;
use crate::latency::histogram;
use crate::limits::{IDLE_WAIT, PROGRESS_EVERY, SETTLED_CORE_SHARE, SETTLED_LOOK, SETTLED_MAX, TOKEN_MARGIN};
use crate::phases::{Mark, seconds};
use crate::process::Usage;
use crate::report::{Point, Recorder};
use crate::session::News;
use crate::target::Target;
use crate::tls;
use crate::token::{Role, Signer};
use crate::watch::Watch;

/// The device of every session: one a user.
const DEVICE: DeviceId = DeviceId(0x6c6f_6164);

/// The numbering of a publishing session's messages; it goes on from run to run.
const PRODUCER: ProducerId = ProducerId(0x6c6f_6164);

/// How a fleet is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Sockets that the sessions are spread over.
    pub(crate) sockets: u16,
    /// When sessions acknowledge.
    pub(crate) acks: Acks,
    /// Give up when nothing happens for so long.
    pub(crate) patience: Duration,
    /// Give up after so long.
    pub(crate) time_limit: Duration,
}

/// Who a session is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    pub(crate) handle: &'a str,
    pub(crate) role: Role,
    pub(crate) publishes: bool,
    /// `None`: from the journal's beginning.
    pub(crate) cursor: Option<Cursor>,
}

/// See the module.
pub(crate) struct Rig<'a> {
    pub(crate) clock: SystemClock,
    pub(crate) fleet: Fleet,
    pub(crate) watch: Watch,
    address: SocketAddr,
    signer: Signer,
    note: &'a mut dyn FnMut(String),
    told: Instant,
    /// What is recorded second by second, if anything is.
    recorder: Option<Recorder>,
}

impl<'a> Rig<'a> {
    /// A fleet without sessions. Progress is told in sentences.
    pub(crate) fn new(target: &Target, terms: Terms, note: &'a mut dyn FnMut(String)) -> Result<Self, Failure> {
        Self::with_tls(target, terms, tls::client_config(&target.ca)?, note)
    }

    /// The same with sessions that make their handshakes by this.
    pub(crate) fn with_tls(
        target: &Target,
        terms: Terms,
        tls: Arc<rustls::ClientConfig>,
        note: &'a mut dyn FnMut(String),
    ) -> Result<Self, Failure> {
        let clock = SystemClock;
        let expires_at = clock.wall() + terms.time_limit + TOKEN_MARGIN;
        Ok(Self {
            clock,
            fleet: Fleet::new(target, tls, (terms.sockets, terms.acks), clock)?,
            watch: Watch::new(clock, terms.patience, terms.time_limit),
            address: target.address,
            signer: Signer::new(&target.token_key, &target.tenant, expires_at)?,
            note,
            told: clock.now(),
            recorder: None,
        })
    }

    /// What the run does from now on, for its errors.
    pub(crate) fn begin(&mut self, phase: &'static str) {
        self.watch.begin(phase);
        self.told = self.clock.now();
    }

    /// Says something to whoever looks.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        (self.note)(text.into());
    }

    /// Says now and then how far the present phase is, if it takes long.
    pub(crate) fn tell_count(&mut self, done: impl Display, of: impl Display) {
        self.tell_progress(format_args!("{done} of {of}"));
    }

    /// Likewise, in other words.
    pub(crate) fn tell_progress(&mut self, how_far: impl Display) {
        let now = self.clock.now();
        if now.saturating_duration_since(self.told) >= PROGRESS_EVERY {
            self.told = now;
            self.note(format!("{}: {how_far}", self.watch.phase()));
        }
    }

    /// Records from this moment on, the present one, who comes in, and what that and the time after it cost the broker of this process id.
    pub(crate) fn record(&mut self, from: Instant, broker_pid: Option<u32>) {
        self.recorder = Some(Recorder::new(from, broker_pid, &histogram()));
    }

    /// What was recorded.
    pub(crate) fn recorded(&mut self) -> Vec<Point> {
        let now = self.clock.now();
        self.recorder.take().map_or_else(Vec::new, |recorder| recorder.finish_idle(now))
    }

    /// Looks at what the broker's strain beside a probe has come to so far, if that is recorded and there is any.
    pub(crate) fn look_beside(&mut self, now: Instant, done: Option<u64>) {
        if let Some(recorder) = &mut self.recorder {
            if let Some(done) = done {
                recorder.strained(done);
            }
            recorder.tick_idle(now);
        }
    }

    /// Looks at those who have come in so far, if that is recorded.
    pub(crate) fn look(&mut self, begun: usize, connected: &Histogram<u64>) {
        let now = self.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.tick(now, || begun as u64, connected);
        }
    }

    /// A number for a run that begins now: of another run of these users it differs in its milliseconds.
    pub(crate) fn run_number(&self) -> u64 {
        u64::try_from(self.clock.wall().as_millis()).unwrap_or(u64::MAX)
    }

    /// What happened to the run, as the broker's doing.
    pub(crate) fn failed(&self, why: impl Into<String>) -> Failure {
        Failure::Broker { phase: self.watch.phase(), why: why.into() }
    }

    /// What opens the session of this guest.
    pub(crate) fn greeting(&self, guest: &Guest<'_>) -> Result<Greeting, Failure> {
        let hello = Hello {
            version: VERSION,
            device: DEVICE,
            producer: if guest.publishes { PRODUCER } else { ProducerId(0) },
            newest: NEWEST_ALL,
            token: self.signer.token(guest.handle, guest.role)?.as_str().into(),
            client: concat!("carillon-loadtest/", env!("CARGO_PKG_VERSION")).into(),
            cursors: guest.cursor.into_iter().collect(),
        };
        let start = guest.cursor.map_or(Position(0), |cursor| cursor.position);
        Ok(Greeting { hello: hello.to_bytes(), start, publishes: guest.publishes })
    }

    /// Opens one session, and waits for its welcome.
    pub(crate) fn connect_one(&mut self, guest: &Guest<'_>) -> Result<(SessionIndex, Welcome), Failure> {
        let session = self.fleet.connect(self.greeting(guest)?)?;
        let (mut welcome, mut ended) = (None, None);
        while welcome.is_none() {
            self.fleet.turn(IDLE_WAIT, &mut |from, _, news| match news {
                News::Open(open) if from == session => welcome = Some(open),
                News::Ended(why) => ended = Some(why),
                News::Open(_)
                | News::CaughtUp
                | News::Answer(_)
                | News::Message(_)
                | News::Receipt(_)
                | News::Urgent(_) => {}
            })?;
            self.check_lost(ended.as_ref())?;
            self.watch.check(self.clock.now(), || format!("the welcome of {}", guest.handle))?;
        }
        Ok((session, welcome.expect("the loop ends with it")))
    }

    /// Lets the sessions be for so long: they acknowledge and keep their connections. None may end.
    pub(crate) fn turn_for(&mut self, long: Duration) -> Result<(), Failure> {
        let begin = self.clock.now();
        loop {
            let passed = self.clock.now().saturating_duration_since(begin);
            if passed >= long {
                return Ok(());
            }
            self.tell_count(format_args!("{} s", passed.as_secs()), format_args!("{} s", long.as_secs()));
            // Nothing is waited for but the time.
            self.watch.note(self.clock.now());
            self.turn(&mut |_, _, _| {})?;
            self.watch.check(self.clock.now(), || "the time to pass".to_owned())?;
        }
    }

    /// Lets the broker of this process id do what the preparation has left it to do behind its answers, the index on disk before all, so
    /// that it is in no figure. Without a process id nothing is waited for.
    pub(crate) fn settle(&mut self, broker_pid: Option<u32>) -> Result<(), Failure> {
        let begin = self.mark(broker_pid)?;
        let mut from = begin;
        loop {
            if from.broker.is_none() || seconds(&begin, &from) >= SETTLED_MAX.as_secs_f64() {
                return Ok(());
            }
            self.turn_for(SETTLED_LOOK)?;
            let to = self.mark(broker_pid)?;
            let busy_s = from.broker_cpu_s_until(&to).unwrap_or_default();
            if busy_s < SETTLED_CORE_SHARE * seconds(&from, &to) {
                return Ok(());
            }
            from = to;
        }
    }

    /// One turn of the fleet, of which no session may end.
    pub(crate) fn turn(&mut self, tell: &mut impl FnMut(SessionIndex, Instant, &News)) -> Result<(), Failure> {
        let (mut lost, now) = (None, self.clock.now());
        if let Some(recorder) = &mut self.recorder {
            recorder.tick_idle(now);
        }
        self.fleet.turn(IDLE_WAIT, &mut |session, now, news| {
            tell(session, now, &news);
            if let News::Ended(why) = news {
                lost = Some(why);
            }
        })?;
        self.check_lost(lost.as_ref())
    }

    /// A moment between two phases, with what the broker of this process id has cost until then. One that has died has no cost
    /// to tell; what is missing tells of it.
    pub(crate) fn mark(&self, broker_pid: Option<u32>) -> Result<Mark, Failure> {
        let broker = broker_pid.and_then(|pid| Usage::of(Some(pid)).ok());
        let kernel = broker_pid.and_then(|_| KernelMemory::now());
        Ok(Mark { at: self.clock.now(), broker, own: Usage::of(None)?, kernel })
    }

    /// No session may be lost yet.
    pub(crate) fn check_lost(&self, lost: Option<&Ended>) -> Result<(), Failure> {
        lost.map_or(Ok(()), |why| Err(why.failure(self.watch.phase(), self.address)))
    }
}

/// A cursor at the head of the journal as this welcome has it.
pub(crate) fn cursor_at_head(welcome: &Welcome) -> Cursor {
    let Welcome { shard, incarnation, head, .. } = *welcome;
    Cursor { shard, incarnation, position: head, receipts_through: Position(0) }
}

/// How long a turn may sleep when something is due then.
pub(crate) fn sleep_until(due: Instant, now: Instant) -> Duration {
    due.saturating_duration_since(now).min(IDLE_WAIT)
}
