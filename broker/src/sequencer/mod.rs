//! The sequencer: the one thread that owns the shard and its journal.
//!
//! It runs at its own pace: drain what has come (bounded), handle each input, answer some questions, commit once, index, show the
//! batch in the ring, release the replies. Nothing leaves it before the batch it rests on is durable; a failed commit is final. It
//! waits for nobody: not for an edge (the ring lets go of what is too old, replies have reserved room), not for a reader.

mod fences;
mod ledger;
mod outlets;
mod questions;
mod queue;
pub mod ring;
mod room;
mod time;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply, Reported, Signal};
use carillon_core::input::{DingTerms, Input, Principal, Refused, Request};
use carillon_core::record::Record;
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{DingId, Position, Timestamp};
use carillon_protocol::publish::PublishRefused;
use crossbeam::channel::TrySendError;
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::dings::DingPolicies;
use crate::dings::rates::{DingRates, Rates};
use crate::index::{Index, ReadMark};
use crate::journal::{BATCH_BYTES_MAX, CommitError, Draft, Journal};
use crate::metrics::meter::SequencerMeter;
use fences::Fences;
pub use outlets::{NoOutlets, Outlets};
pub use queue::{
    CONTROLS_QUEUED_MAX, CountsAnswer, CountsQuestion, EdgeId, Mail, Mailbox, Origin, PUBLISHES_QUEUED_MAX,
    QUESTIONS_QUEUED_MAX, Question, ReceiptsAnswer, ReceiptsQuestion, Submission, Submit, Submitted, ToEdge, Wake,
    mailbox, submissions, submissions_with_room,
};
use ring::RingWriter;
use room::Scarcity;
use time::SteadyTime;

/// Inputs handled before a commit, from each queue: bounds the wait of the first one to a few milliseconds of CPU. The
/// batch's bytes bound it too.
const INPUTS_A_BATCH_MAX: usize = 2_048;

/// Read marks handled before a commit: about 0.3 ms. Everybody marks at once when something new is read; who publishes or confirms
/// meanwhile has a part in every commit, whatever the number of marks.
pub const MARKS_A_BATCH_MAX: usize = 512;

/// A batch with this much in it takes no further control input, so that whoever adds and removes members by the thousand
/// leaves room for everybody's publishes.
const CONTROL_BYTES_A_BATCH_MAX: usize = BATCH_BYTES_MAX / 2;

/// The longest sleep: a missed timer of a clock that was set is found again after it.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// When an edge had no room for news of fenced sessions, it is tried again after this.
const FENCE_RETRY: Duration = Duration::from_millis(1);

/// How long ago the end of a DING may be of which an edge that fell off the ring has told nobody. A connection whose edge does not answer is
/// over after 30 s of silence, and what an edge falls behind by while it does answer is less: twenty times that.
const DINGS_MISSED_MS: u64 = 10 * 60 * 1_000;

/// Whether the sequencer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    Continue,
    /// It was asked to stop, and everything that was queued is done.
    Stopped,
}

/// The shard, its journal and what it needs to answer.
pub struct Sequencer<J> {
    shard: Shard,
    journal: J,
    ring: RingWriter,
    index: Arc<Index>,
    clock: Arc<dyn Clock>,
    time: SteadyTime,
    queues: Submitted,
    edges: Vec<Mailbox>,
    outlets: Box<dyn Outlets>,
    policies: Arc<DingPolicies>,
    ding_rates: DingRates,
    fences: Fences,
    effects: Effects,
    /// The batch that is being made.
    draft: Draft,
    signals: Vec<Signal>,
    /// Its marks, for the index.
    marks: Vec<ReadMark>,
    /// Held back until the batch is durable.
    replies: Vec<(Origin, Reply)>,
    /// Likewise, answers to read marks.
    marked: Vec<(Origin, Reply)>,
    /// Likewise, to questions.
    answers: Vec<(EdgeId, ToEdge)>,
    /// Likewise, for outlets.
    reported: Vec<(oneshot::Sender<Reported>, Reported)>,
    /// Fenced sessions whose edge had no room for the news; bounded by the sessions of all edges.
    fenced: VecDeque<Origin>,
    scarcity: Scarcity,
    stopping: bool,
    meter: Arc<SequencerMeter>,
}

/// What a sequencer is made of.
pub struct Parts<J> {
    /// Replayed up to the journal's head.
    pub shard: Shard,
    /// Open.
    pub journal: J,
    /// Where batches are shown.
    pub ring: RingWriter,
    /// Up to the journal's head.
    pub index: Arc<Index>,
    /// For the time of records.
    pub clock: Arc<dyn Clock>,
    /// What edges submit.
    pub queues: Submitted,
    /// By [`EdgeId`].
    pub edges: Vec<Mailbox>,
    /// Where DINGs go beside the app.
    pub outlets: Box<dyn Outlets>,
    /// What tenants allow of DINGs.
    pub policies: Arc<DingPolicies>,
}

impl<J: Journal> Sequencer<J> {
    /// A sequencer that goes on where the journal ends.
    ///
    /// # Panics
    /// If shard and journal do not end at the same position.
    pub fn new(parts: Parts<J>) -> Self {
        let Parts { shard, journal, ring, index, clock, queues, edges, outlets, policies } = parts;
        assert_eq!(shard.head(), journal.head(), "the shard is replayed to the journal's head");
        let draft = Draft::new(journal.head().next());
        let time = SteadyTime::new(clock.clone(), shard.last_time());
        let mut sequencer = Self {
            shard,
            journal,
            ring,
            index,
            clock,
            time,
            queues,
            edges,
            outlets,
            policies,
            ding_rates: DingRates::default(),
            fences: Fences::default(),
            effects: Effects::default(),
            draft,
            signals: Vec::new(),
            marks: Vec::new(),
            replies: Vec::new(),
            marked: Vec::new(),
            answers: Vec::new(),
            reported: Vec::new(),
            fenced: VecDeque::new(),
            scarcity: Scarcity::default(),
            stopping: false,
            meter: Arc::default(),
        };
        sequencer.shard.resume();
        sequencer.hand_out();
        sequencer
    }

    /// Counts here, for an operator.
    #[must_use]
    pub fn with_meter(mut self, meter: Arc<SequencerMeter>) -> Self {
        self.meter = meter;
        self.count_state();
        self
    }

    /// Runs until it is asked to stop.
    ///
    /// # Errors
    /// The journal failed: nothing that was not durable was answered, and nothing will be. Final.
    pub fn run(mut self) -> Result<(), CommitError> {
        loop {
            self.wait();
            if self.step()? == Flow::Stopped {
                return Ok(());
            }
        }
    }

    /// Sleeps until there is an input or a timer is due.
    fn wait(&mut self) {
        let sleep = self.sleep();
        let mut select = crossbeam::channel::Select::new_biased();
        select.recv(&self.queues.controls);
        select.recv(&self.queues.publishes);
        select.recv(&self.queues.marks);
        select.recv(&self.queues.questions);
        // The only outcome of interest is that there is something, or that the time is over.
        select.ready_timeout(sleep).ok();
    }

    fn sleep(&mut self) -> Duration {
        if self.stopping || !self.draft.is_empty() {
            return Duration::ZERO;
        }
        if !self.fenced.is_empty() {
            return FENCE_RETRY;
        }
        let Some(due) = self.shard.next_timer() else { return SLEEP_MAX };
        Duration::from_millis(due.0.saturating_sub(self.time.now().0)).min(SLEEP_MAX)
    }

    /// Drains what has come, commits it as one batch and releases what follows from it.
    ///
    /// # Errors
    /// As [`Sequencer::run`].
    pub fn step(&mut self) -> Result<Flow, CommitError> {
        self.meter.heartbeat.beat(self.clock.now());
        self.look_at_room();
        let now = self.time.now();
        if self.shard.next_timer().is_some_and(|due| due <= now) {
            self.shard.handle(now, Input::Tick, &mut self.effects);
            self.stage_effects(None);
        }
        let few = (INPUTS_A_BATCH_MAX, CONTROL_BYTES_A_BATCH_MAX);
        let controls = self.drain(few, |queues| queues.controls.try_recv().ok());
        let marks = self.drain_marks();
        let many = (INPUTS_A_BATCH_MAX, BATCH_BYTES_MAX);
        let publishes = self.drain(many, |queues| queues.publishes.try_recv().ok());
        let questions = self.answer_questions();
        self.commit()?;
        self.release();
        self.hand_out();
        let idle = controls == 0 && marks == 0 && publishes == 0 && questions == 0;
        Ok(if self.stopping && idle { Flow::Stopped } else { Flow::Continue })
    }

    fn look_at_room(&mut self) {
        let room = self.journal.room();
        self.scarcity.note(room);
        self.meter.room.set(room as u64);
        self.meter.prepared_bytes.set(self.journal.prepared_bytes());
    }

    /// Before the publishes, which would leave no room in the batch.
    fn drain_marks(&mut self) -> usize {
        let others = self.replies.len();
        let drained = self.drain((MARKS_A_BATCH_MAX, BATCH_BYTES_MAX), |queues| queues.marks.try_recv().ok());
        self.marked.extend(self.replies.drain(others..));
        drained
    }

    fn drain(
        &mut self,
        (inputs_max, draft_bytes_max): (usize, usize),
        next: impl Fn(&Submitted) -> Option<Submission>,
    ) -> usize {
        let mut drained = 0;
        while drained < inputs_max && self.draft.bytes() < draft_bytes_max {
            let Some(submission) = next(&self.queues) else { break };
            self.take(submission);
            drained += 1;
        }
        drained
    }

    fn take(&mut self, submission: Submission) {
        match submission {
            Submission::Input { from, input } => self.take_input(from, input),
            Submission::AttachAgain { from, attach, watched } if self.fences.is_held_by(from) => {
                self.take_input(from, Input::Attach(attach));
                self.add_missed(&watched);
            }
            Submission::AttachAgain { from, .. } => {
                let text = "another session of this device or producer took over";
                self.replies.push((from, Reply::AttachRefused { code: ErrorCode::FENCED, text }));
            }
            // The broker's copy is advisory: the client's is the truth.
            Submission::Cursors(_) if !self.scarcity.may_note_cursors() => {}
            Submission::Cursors(moves) => self.take_unanswered(Input::Cursors(moves)),
            Submission::DingsReceived(received) => self.take_unanswered(Input::DingsReceived(received)),
            Submission::OutletResults(results) => self.take_unanswered(Input::OutletResults(results)),
            Submission::OutletReport { report, answer } => {
                self.shard.handle(self.time.now(), Input::OutletReport(report), &mut self.effects);
                if let Some(Reply::Reported(reported)) = self.effects.reply.take() {
                    self.reported.push((answer, reported));
                }
                self.stage_effects(None);
            }
            Submission::Detach { from } => {
                self.fences.detach(from);
                self.scarcity.detach(from);
            }
            Submission::Stop => self.stopping = true,
        }
    }

    /// The session whose answer this is may have missed how DINGs have moved.
    fn add_missed(&mut self, watched: &[DingId]) {
        let since = Timestamp(self.time.now().0.saturating_sub(DINGS_MISSED_MS));
        if let Some((_, Reply::Attached(attached))) = self.replies.last_mut() {
            attached.progress = self.shard.dings_missed((attached.tenant, attached.user), watched, since);
        }
    }

    fn take_unanswered(&mut self, input: Input) {
        self.shard.handle(self.time.now(), input, &mut self.effects);
        self.stage_effects(None);
    }

    fn take_input(&mut self, from: Origin, mut input: Input) {
        if let Input::Publish { who, producer: Some(producer), publish } = &input
            && !self.fences.holds(from, (who.tenant, who.user, *producer))
        {
            let refused = PublishRefused {
                number: publish.number,
                code: ErrorCode::FENCED,
                text: "another session of this producer took over".into(),
            };
            self.replies.push((from, Reply::Frame(Frame::PublishRefused(refused))));
            return;
        }
        if let Some(refusal) = self.scarcity.refuse(&self.shard, from, &input) {
            self.replies.push((from, refusal));
            return;
        }
        let limited = match &mut input {
            Input::Request { who, request } => self.limit_dings(*who, request),
            _ => None,
        };
        let attach = match &input {
            Input::Attach(attach) => Some((attach.device, attach.producer)),
            Input::Publish { .. }
            | Input::Request { .. }
            | Input::Cursors(_)
            | Input::DingsReceived(_)
            | Input::OutletResults(_)
            | Input::OutletReport(_)
            | Input::CatchUpBounded(_)
            | Input::Tick => None,
        };
        self.shard.handle(self.time.now(), input, &mut self.effects);
        if let (Some((device, producer)), Some(Reply::Attached(attached))) = (attach, &self.effects.reply) {
            let (tenant, user) = (attached.tenant, attached.user);
            let producer = producer.map(|producer| (tenant, user, producer));
            self.fenced.extend(self.fences.attach(from, (tenant, user, device), producer));
        }
        // Only what was done counts.
        if let Some((who, rates)) = limited.filter(|_| !self.effects.records.is_empty()) {
            self.ding_rates.spend(rates, who.tenant, who.user, self.shard.last_time());
        }
        self.stage_effects(Some(from));
    }

    /// Holds a DING, or a reminder, against the rates of its sender; one that is too many is refused by the shard, unless it knows
    /// it. Returns who pays for it, and how, if it is done.
    fn limit_dings(&mut self, who: Principal, request: &mut Request) -> Option<(Principal, Rates)> {
        let refusal = match request {
            Request::DingCreate(create, terms @ Ok(_)) if !self.shard.knows_ding_key(who, create.key) => {
                Refusal::Terms(terms)
            }
            Request::DingRemind(_, allowed @ Ok(())) => Refusal::Reminder(allowed),
            _ => return None,
        };
        let rates = self.shard.tenant_name(who.tenant).map(|tenant| self.policies.of(tenant).rates).unwrap_or_default();
        let now = self.time.now();
        if let Err(refused) = self.ding_rates.check(rates, who.tenant, who.user, now) {
            match refusal {
                Refusal::Terms(terms) => *terms = Err(refused),
                Refusal::Reminder(allowed) => *allowed = Err(refused),
            }
            return None;
        }
        Some((who, rates))
    }

    /// Outlets get what they have room for. What needs no call is settled with the next batch.
    fn hand_out(&mut self) {
        let moot = outlets::hand_out(&mut self.shard, &*self.outlets);
        if !moot.is_empty() {
            self.take_unanswered(Input::OutletResults(moot));
        }
    }

    /// Moves what an input brought into the batch; the reply waits with it.
    fn stage_effects(&mut self, from: Option<Origin>) {
        for record in self.effects.records.drain(..) {
            if let Record::ReadMarked(mark) = &record {
                self.marks.push(ReadMark::of(self.draft.next_position(), mark));
            }
            self.draft.push(|private, frame| record.encode(private, frame));
        }
        for signal in &self.effects.signals {
            self.fences.note_retired(signal);
        }
        self.signals.append(&mut self.effects.signals);
        if let (Some(from), Some(reply)) = (from, self.effects.reply.take()) {
            self.replies.push((from, reply));
        }
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        if self.draft.is_empty() {
            return Ok(());
        }
        let next = Draft::new(self.draft.next_position());
        let records = next.first().0 - self.draft.first().0;
        let begun = self.clock.now();
        let batch = self.journal.commit(std::mem::replace(&mut self.draft, next))?;
        let took = self.clock.now().saturating_duration_since(begun);
        self.meter.commit_us.observe(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.meter.batch_records.observe(records);
        self.meter.batch_bytes.observe(batch.bytes() as u64);
        self.count_state();
        debug_assert_eq!(batch.last(), self.shard.head(), "the shard and its journal are in step");
        let signals = std::mem::take(&mut self.signals);
        self.marks.drain(..).for_each(|mark| self.index.append_mark(&mark));
        index_signals(&self.index, &signals);
        self.index.reach(batch.last());
        self.ring.publish(batch, signals);
        for edge in &self.edges {
            edge.waker.wake();
        }
        Ok(())
    }

    fn count_state(&self) {
        let dings = self.shard.dings_by_state();
        self.meter.head.set(self.journal.head().0);
        self.meter.dings_open.set(dings.open);
        self.meter.dings_confirmed.set(dings.confirmed);
        self.meter.dings_expired.set(dings.expired);
        self.meter.dings_recalled.set(dings.recalled);
        self.meter.ding_calls_waiting.set(self.shard.calls_waiting() as u64);
    }

    /// Everything the replies rest on is durable now.
    fn release(&mut self) {
        let replies = self.replies.drain(..).map(|(to, reply)| (to.edge, ToEdge::Reply { link: to.link, reply }));
        for (edge, message) in replies.chain(self.answers.drain(..)) {
            let edge = &self.edges[edge.0];
            match edge.replies.try_send(message) {
                Ok(()) => edge.waker.wake(),
                Err(TrySendError::Full(_)) => unreachable!("an edge reserves room for a reply with its request"),
                // The edge has stopped; its sessions learn nothing, and repeat what they were not told.
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        for (to, reply) in self.marked.drain(..) {
            let edge = &self.edges[to.edge.0];
            match edge.marked.try_send((to.link, reply)) {
                Ok(()) => edge.waker.wake(),
                Err(TrySendError::Full(_)) => unreachable!("an edge has room for the marks that it has under way"),
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        for (answer, reported) in self.reported.drain(..) {
            // Who has gone away meanwhile repeats the report.
            answer.send(reported).ok();
        }
        for _ in 0..self.fenced.len() {
            let Some(origin) = self.fenced.pop_front() else { break };
            let edge = &self.edges[origin.edge.0];
            if let Err(TrySendError::Full(_)) = edge.fences.try_send(origin.link) {
                self.fenced.push_back(origin);
            }
            edge.waker.wake();
        }
    }

    /// The last position handed to the journal and durable.
    pub fn head(&self) -> Position {
        self.journal.head()
    }
}

/// Where the sequencer says that a sender's rate is used up.
enum Refusal<'a> {
    Terms(&'a mut Result<DingTerms, Refused>),
    Reminder(&'a mut Result<(), Refused>),
}

/// Brings the index up to the signals of a durable batch.
pub fn index_signals(index: &Index, signals: &[Signal]) {
    for signal in signals {
        if let Signal::Message { position, conversation, seq, author } = signal {
            index.append(*conversation, *seq, *position, *author);
        }
    }
}
