//! The scenario `fanout` against a peer: every session subscribes to one topic, and one connection publishes to it.
//!
//! Everything runs in one thread, as against Carillon, and is counted by the same tally. A session is a task that waits for what
//! comes; the run itself is the publisher. The topic is new for each run, so that nothing of another one is in the way.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::runtime::Builder;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::timeout;

use super::PeerTarget;
use super::dialect::Event;
use super::line::{Dialler, Line};
use crate::clock::SystemClock;
use crate::failure::Failure;
use crate::fanout::{Costs, Measured, Plan, Report, Tally};
use crate::latency;
use crate::limits::{PEER_AWAKE, PEER_LOOK, PROGRESS_EVERY, PUBLISH_BYTES_A_WRITE, WINDOW};
use crate::process::Usage;
use crate::publisher::payload;
use crate::report::{Point, Recorder};
use crate::schedule::Schedule;
use crate::watch::Watch;

/// What the sessions tell the run.
struct Board {
    watch: Watch,
    open: u32,
    opened_at: Instant,
    /// Since the messages began.
    tally: Option<Tally>,
    /// A session was lost before.
    failed: Option<Failure>,
}

type Shared = Rc<RefCell<Board>>;

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    target: &'a PeerTarget,
    note: &'a mut dyn FnMut(String),
    clock: SystemClock,
    board: Shared,
    number: u64,
    topic: Rc<str>,
}

/// Runs the plan against this peer. Progress is told in sentences. Of the plan, when sessions acknowledge is not used: peers
/// acknowledge each message or none.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with deliveries missing does, and its report says so.
pub fn run(plan: &Plan, target: &PeerTarget, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    let clock = SystemClock;
    let number = u64::try_from(clock.wall().as_millis()).unwrap_or(u64::MAX);
    let board = Board {
        watch: Watch::new(clock, plan.patience, plan.time_limit),
        open: 0,
        opened_at: clock.now(),
        tally: None,
        failed: None,
    };
    let topic = Rc::from(format!("carillon.load.{number}"));
    let board = Rc::new(RefCell::new(board));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, Run { plan, target, note, clock, board, number, topic }.run())
}

impl Run<'_> {
    async fn run(mut self) -> Result<Report, Failure> {
        self.usage()?;
        let dialler = Dialler::new(self.target, self.plan.sockets, self.number)?;
        let line = dialler.connect(self.plan.sessions).await?;
        (self.note)(format!("connecting {} sessions to {}", self.plan.sessions, self.target.peer.name()));
        let (before, begin) = (self.usage()?, self.clock.now());
        self.connect_sessions(&dialler).await?;
        let connected_in = self.board.borrow().opened_at.saturating_duration_since(begin);
        let connected = self.usage()?;
        (self.note)(format!("{} messages in {} rounds", self.plan.messages(), self.plan.rounds));
        let own_before = Usage::of(None)?;
        let (publisher, series) = self.deliver(line).await?;
        // A server that died on the way has no cost to tell; what is missing tells of it.
        let costs = before.zip(connected).zip(self.usage().ok().flatten());
        let board = self.board.borrow();
        Ok(Report::of(&Measured {
            target: self.target.peer.name(),
            plan: self.plan,
            connected_in,
            tally: board.tally.as_ref().expect("the messages have begun"),
            published: self.target.peer.answers().then_some(&publisher.published),
            late_max: publisher.late_max,
            costs: costs.map(|((before, connected), after)| Costs { before, connected, after }),
            own_cpu_s: Usage::of(None)?.cpu_s() - own_before.cpu_s(),
            series,
        }))
    }

    fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.plan.broker_pid.map(|pid| Usage::of(Some(pid))).transpose()
    }

    /// Begins all sessions, so many at once as the plan allows, and waits until all have subscribed.
    async fn connect_sessions(&mut self, dialler: &Dialler) -> Result<(), Failure> {
        let at_once = Arc::new(Semaphore::new(self.plan.connecting_max as usize));
        let (mut begun, mut told) = (0, self.clock.now());
        loop {
            let now = self.clock.now();
            let open = self.check_open(now)?;
            if open == self.plan.sessions {
                return Ok(());
            }
            if now.saturating_duration_since(told) >= PROGRESS_EVERY {
                told = now;
                (self.note)(format!("connecting: {open} of {}", self.plan.sessions));
            }
            if begun == self.plan.sessions {
                tokio::time::sleep(PEER_LOOK).await;
            } else if let Ok(permit) = timeout(PEER_LOOK, Arc::clone(&at_once).acquire_owned()).await {
                let permit = permit.expect("nobody closes it");
                let (dialler, topic, board) = (dialler.clone(), Rc::clone(&self.topic), Rc::clone(&self.board));
                spawn_local(listen(begun, dialler, topic, board, self.clock, permit));
                begun += 1;
            }
        }
    }

    /// How many sessions are open; that none was lost is certain.
    fn check_open(&self, now: Instant) -> Result<u32, Failure> {
        let mut board = self.board.borrow_mut();
        if let Some(failure) = board.failed.take() {
            return Err(failure);
        }
        board.watch.check(now, || format!("{} subscriptions", self.plan.sessions - board.open))?;
        Ok(board.open)
    }

    /// Publishes on schedule until every session has everything, or the patience is over.
    async fn deliver(&mut self, line: Line) -> Result<(Publisher, Vec<Point>), Failure> {
        let schedule = self.plan.schedule(self.clock.now());
        self.board.borrow_mut().watch.begin("delivering");
        self.board.borrow_mut().tally = Some(Tally::new(self.plan, self.number, schedule));
        let mut publisher = Publisher {
            line,
            schedule,
            messages: self.plan.messages(),
            sent: 0,
            accepted: 0,
            awaits_answers: self.target.peer.answers(),
            late_max: Duration::ZERO,
            published: latency::histogram(),
        };
        let mut recorder = Recorder::new(schedule.start, self.plan.broker_pid, &latency::histogram());
        while !self.is_over(&publisher) {
            self.turn(&mut publisher).await.map_err(|why| Failure::Broker { phase: "publishing", why })?;
            let now = self.clock.now();
            let board = self.board.borrow();
            let tally = board.tally.as_ref().expect("the messages have begun");
            recorder.tick(now, || self.plan.due_until(&schedule, now), tally.latency());
        }
        let (now, board) = (self.clock.now(), self.board.borrow());
        let tally = board.tally.as_ref().expect("the messages have begun");
        let series = recorder.finish(now, self.plan.due_until(&schedule, now), tally.latency());
        Ok((publisher, series))
    }

    fn is_over(&self, publisher: &Publisher) -> bool {
        let now = self.clock.now();
        let mut board = self.board.borrow_mut();
        let tally = board.tally.as_ref().expect("the messages have begun");
        let is_done = publisher.is_done() && tally.is_done();
        if tally.has_all_of(publisher.sent) && publisher.next_due().is_some_and(|due| due > now) {
            // Nothing is expected before the next message is due.
            board.watch.note(now);
        }
        is_done || board.watch.is_over(now)
    }

    /// Sends what is due, takes what was answered, and waits a while for more of either.
    async fn turn(&self, publisher: &mut Publisher) -> Result<(), String> {
        let now = self.clock.now();
        while publisher.next_due().is_some_and(|due| due <= now) && publisher.line.unsent() < PUBLISH_BYTES_A_WRITE {
            publisher.send(now, &self.topic, self.number, self.plan.payload_bytes);
        }
        publisher.line.flush().await?;
        while let Some(event) = publisher.line.take()? {
            publisher.take(self.clock.now(), event)?;
        }
        let wait = publisher.next_due().map_or(PEER_LOOK, |due| due.saturating_duration_since(self.clock.now()));
        if wait > PEER_AWAKE {
            // That nothing has come until then is no error.
            timeout((wait - PEER_AWAKE).min(PEER_LOOK), publisher.line.fill()).await.unwrap_or(Ok(()))
        } else {
            yield_now().await;
            Ok(())
        }
    }
}

/// The publishing connection.
struct Publisher {
    line: Line,
    schedule: Schedule,
    messages: u32,
    sent: u32,
    accepted: u32,
    awaits_answers: bool,
    late_max: Duration,
    published: Histogram<u64>,
}

impl Publisher {
    /// When the next message is to be sent; `None` if all were, or an answer must come first.
    fn next_due(&self) -> Option<Instant> {
        let is_open = !self.awaits_answers || u64::from(self.sent - self.accepted) < WINDOW;
        (self.sent < self.messages && is_open).then(|| self.schedule.due_at(self.sent))
    }

    fn send(&mut self, now: Instant, topic: &str, run: u64, payload_bytes: usize) {
        let late = now.saturating_duration_since(self.schedule.due_at(self.sent));
        self.late_max = self.late_max.max(late);
        self.line.publish(topic, self.sent, payload(run, self.sent, payload_bytes));
        self.sent += 1;
    }

    fn take(&mut self, now: Instant, event: Event) -> Result<(), String> {
        match event {
            Event::Accepted(index) => {
                self.accepted += 1;
                latency::record(&mut self.published, now, self.schedule.due_at(index));
                Ok(())
            }
            Event::Refused(why) => Err(format!("the server refused a message: {why}")),
            Event::Confirmed | Event::Message(_) => Ok(()),
        }
    }

    fn is_done(&self) -> bool {
        self.sent == self.messages && (!self.awaits_answers || self.accepted == self.messages)
    }
}

/// One session, from its first packet to the end of the run.
async fn listen(
    session: u32,
    dialler: Dialler,
    topic: Rc<str>,
    board: Shared,
    clock: SystemClock,
    permit: OwnedSemaphorePermit,
) {
    let subscribed = async {
        let mut line = dialler.connect(session).await?;
        let refused = |why: String| Failure::Broker { phase: "subscribing", why };
        line.subscribe(&topic).await.map_err(refused)?;
        Ok(line)
    };
    let mut line = match subscribed.await {
        Ok(line) => line,
        Err(failure) => {
            board.borrow_mut().failed.get_or_insert(failure);
            return;
        }
    };
    drop(permit);
    let now = clock.now();
    {
        let mut board = board.borrow_mut();
        board.open += 1;
        board.opened_at = now;
        board.watch.note(now);
    }
    loop {
        match line.next().await {
            Ok(event) => board.borrow_mut().take(session, clock.now(), event),
            Err(why) => return board.borrow_mut().lose(why),
        }
    }
}

impl Board {
    fn take(&mut self, session: u32, now: Instant, event: Event) {
        match event {
            Event::Message(payload) => {
                self.watch.note(now);
                if let Some(tally) = &mut self.tally {
                    tally.take(session as usize, now, &payload, |_| true);
                }
            }
            Event::Confirmed | Event::Accepted(_) | Event::Refused(_) => {}
        }
    }

    fn lose(&mut self, why: String) {
        match &mut self.tally {
            Some(tally) => tally.lose(why),
            None => {
                self.failed.get_or_insert(Failure::Broker { phase: "connecting", why });
            }
        }
    }
}
