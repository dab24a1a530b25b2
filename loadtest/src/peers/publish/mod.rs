//! The scenario `publish` against a peer: producers that publish as fast as their windows let them, and count what is acknowledged.
//!
//! A producer is one connection, and one task in the run's thread. The load is closed: the next message is sent when one is
//! acknowledged, so that what is found is the capacity with so much under way.

mod stream;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use hdrhistogram::Histogram;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::dialect::Event;
use super::line::{Dialler, Line};
use super::{Peer, PeerTarget};
use crate::clock::SystemClock;
use crate::failure::Failure;
use crate::latency;
use crate::limits::PEER_LOOK;
use crate::process::Usage;
use crate::publish::{Measured, Plan, Report};
use crate::publisher::payload;
use crate::report::Recorder;
use crate::watch::Watch;
use stream::Stream;

/// What the producers tell the run, and the run the producers.
struct Board {
    watch: Watch,
    stage: Stage,
    running: u32,
    sent: u64,
    acknowledged: u64,
    /// Of those, while it is measured.
    measured: u64,
    published: Histogram<u64>,
    failed: Option<String>,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    WarmingUp,
    Measuring,
    /// Nothing more is sent.
    Ending,
}

type Shared = Rc<RefCell<Board>>;

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    target: &'a PeerTarget,
    clock: SystemClock,
    board: Shared,
    number: u64,
    topic: Rc<str>,
}

/// Runs the plan against this peer. Progress is told in sentences.
///
/// # Errors
/// [`Failure`] if it did not come to figures; a run with messages that have no answer does, and its report says so.
pub fn run(plan: &Plan, target: &PeerTarget, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
    if !target.peer.answers() {
        let why = format!("{} acknowledges nothing: say --qos 1", target.peer.name());
        return Err(Failure::Usage(why));
    }
    let clock = SystemClock;
    let number = u64::try_from(clock.wall().as_millis()).unwrap_or(u64::MAX);
    let board = Board {
        watch: Watch::new(clock, plan.patience, plan.time_limit),
        stage: Stage::WarmingUp,
        running: 0,
        sent: 0,
        acknowledged: 0,
        measured: 0,
        published: latency::histogram(),
        failed: None,
    };
    let board = Rc::new(RefCell::new(board));
    let topic = Rc::from(format!("carillon.load.{number}"));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, Run { plan, target, clock, board, number, topic }.run(note))
}

impl Run<'_> {
    async fn run(self, note: &mut dyn FnMut(String)) -> Result<Report, Failure> {
        self.usage()?;
        let dialler = Dialler::new(self.target, self.plan.sources, self.number)?;
        let mut line = dialler.connect(self.plan.producers).await?;
        let refused = |why: String| Failure::Broker { phase: "making the stream", why };
        let stream = match self.target.peer {
            Peer::Nats(_) => Some(Stream::make(&mut line, self.number, &self.topic).await.map_err(refused)?),
            Peer::Mqtt(_) => None,
        };
        note(format!("connecting {} producers to {}", self.plan.producers, self.target.peer.name()));
        // Nobody publishes before all are there, or the last ones would come late.
        let mut lines = Vec::new();
        for number in 0..self.plan.producers {
            lines.push(dialler.connect(number).await?);
        }
        for line in lines {
            self.begin(line);
        }
        note("publishing".to_owned());
        let report = self.measure().await?;
        if let Some(stream) = stream {
            stream.remove(&mut line).await.map_err(refused)?;
        }
        Ok(report)
    }

    /// A producer on this connection.
    fn begin(&self, line: Line) {
        self.board.borrow_mut().running += 1;
        let producer = Producer {
            line,
            topic: Rc::clone(&self.topic),
            board: Rc::clone(&self.board),
            clock: self.clock,
            run: self.number,
            window: self.plan.window as usize,
            payload_bytes: self.plan.payload_bytes,
            sent: 0,
            pending: VecDeque::new(),
        };
        spawn_local(producer.run());
    }

    fn usage(&self) -> Result<Option<Usage>, Failure> {
        self.plan.server_pid.map(|pid| Usage::of(Some(pid))).transpose()
    }

    async fn measure(&self) -> Result<Report, Failure> {
        let plan = self.plan;
        self.wait_until(self.clock.now() + plan.warm_up, None).await?;
        let (before, own_before, begin) = (self.usage()?, Usage::of(None)?, self.clock.now());
        self.board.borrow_mut().stage = Stage::Measuring;
        let sent = self.board.borrow().sent;
        let mut recorder = Recorder::new(begin, plan.server_pid, &self.board.borrow().published);
        self.wait_until(begin + plan.measured, Some((&mut recorder, sent))).await?;
        self.board.borrow_mut().stage = Stage::Ending;
        let end = self.clock.now();
        let series = recorder.finish(end, self.board.borrow().sent - sent, &self.board.borrow().published);
        let took = end.saturating_duration_since(begin);
        let (after, own_cpu_s) = (self.usage()?, Usage::of(None)?.cpu_s() - own_before.cpu_s());
        self.wait_for_answers().await;
        let board = self.board.borrow();
        Ok(Report::of(Measured {
            target: self.target.peer.name(),
            plan,
            took,
            sent: board.sent,
            acknowledged: board.acknowledged,
            measured: board.measured,
            published: &board.published,
            costs: before.zip(after),
            own_cpu_s,
            offered: None,
            late_ms_max: 0.0,
            series,
        }))
    }

    /// Lets the producers publish; no producer may be lost, and something must happen now and then.
    async fn wait_until(&self, end: Instant, mut recorder: Option<(&mut Recorder, u64)>) -> Result<(), Failure> {
        self.board.borrow_mut().watch.begin("publishing");
        while self.clock.now() < end {
            sleep(PEER_LOOK.min(end.saturating_duration_since(self.clock.now()))).await;
            let mut board = self.board.borrow_mut();
            if let Some(why) = board.failed.take() {
                return Err(Failure::Broker { phase: "publishing", why });
            }
            let now = self.clock.now();
            if let Some((recorder, before)) = &mut recorder {
                // Sent as fast as the windows let: what was let out is what is offered.
                recorder.tick(now, || board.sent - *before, &board.published);
            }
            board.watch.check(now, || "acknowledgements".to_owned())?;
        }
        Ok(())
    }

    /// Until each producer has all its answers, or the patience is over.
    async fn wait_for_answers(&self) {
        self.board.borrow_mut().watch.begin("waiting for the last answers");
        while self.board.borrow().running > 0 && !self.board.borrow().watch.is_over(self.clock.now()) {
            sleep(PEER_LOOK).await;
        }
    }
}

/// A connection that publishes.
struct Producer {
    line: Line,
    topic: Rc<str>,
    board: Shared,
    clock: SystemClock,
    run: u64,
    window: usize,
    payload_bytes: usize,
    sent: u32,
    /// Number and time of what has no answer, the oldest first.
    pending: VecDeque<(u32, Instant)>,
}

impl Producer {
    async fn run(mut self) {
        let ended = self.publish().await;
        let mut board = self.board.borrow_mut();
        board.running -= 1;
        if let Err(why) = ended {
            board.failed.get_or_insert(why);
        }
    }

    /// Publishes until the run ends, and then until the last answer.
    async fn publish(&mut self) -> Result<(), String> {
        loop {
            let is_ending = self.board.borrow().stage == Stage::Ending;
            if is_ending && self.pending.is_empty() {
                return Ok(());
            }
            if !is_ending {
                self.send();
            }
            self.line.flush().await?;
            while let Some(event) = self.line.take()? {
                self.take(event)?;
            }
            if self.pending.len() == self.window || is_ending && !self.pending.is_empty() {
                self.line.fill().await?;
            }
        }
    }

    /// Fills the window.
    fn send(&mut self) {
        let now = self.clock.now();
        while self.pending.len() < self.window {
            self.line.publish(&self.topic, self.sent, payload(self.run, self.sent, self.payload_bytes));
            self.pending.push_back((self.sent, now));
            self.sent = self.sent.wrapping_add(1);
            self.board.borrow_mut().sent += 1;
        }
    }

    fn take(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Accepted(number) => {
                let place = self.pending.iter().position(|(pending, _)| *pending == number);
                let (_, since) = place
                    .and_then(|place| self.pending.remove(place))
                    .ok_or_else(|| format!("an answer to message {number}, which has one or was not sent"))?;
                self.board.borrow_mut().take(self.clock.now(), since);
                Ok(())
            }
            Event::Refused(why) => Err(format!("the server refused a message: {why}")),
            Event::Confirmed | Event::Message(_) => Ok(()),
        }
    }
}

impl Board {
    fn take(&mut self, now: Instant, since: Instant) {
        self.watch.note(now);
        self.acknowledged += 1;
        if self.stage == Stage::Measuring {
            self.measured += 1;
            latency::record(&mut self.published, now, since);
        }
    }
}
