//! The sequencer: the one thread that owns the shard and its journal.
//!
//! It runs at its own pace: drain what has come (bounded), handle each input, commit once, index, show the batch in the
//! ring, release the replies. Nothing leaves it before the batch it rests on is durable; a failed commit is final. It
//! waits for nobody: not for an edge (the ring lets go of what is too old, replies have reserved room), not for a reader.

mod fences;
mod queue;
pub mod ring;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply, Signal};
use carillon_core::input::Input;
use carillon_core::record::Record;
use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::Position;
use carillon_protocol::publish::PublishRefused;
use crossbeam::channel::TrySendError;

use crate::clock::Clock;
use crate::index::{Index, ReadMark};
use crate::journal::{BATCH_BYTES_MAX, CommitError, Draft, Journal};
use crate::metrics::meter::SequencerMeter;
use fences::Fences;
pub use queue::{
    CONTROLS_QUEUED_MAX, CountsAnswer, CountsQuestion, EdgeId, Mail, Mailbox, Origin, PUBLISHES_QUEUED_MAX,
    ReceiptsAnswer, ReceiptsQuestion, Submission, Submit, Submitted, ToEdge, Wake, mailbox, submissions,
    submissions_with_room,
};
use ring::RingWriter;

/// Inputs handled before a commit, from each queue: bounds the wait of the first one to a few milliseconds of CPU. The
/// batch's bytes bound it too.
const INPUTS_A_BATCH_MAX: usize = 2_048;

/// A batch with this much in it takes no further control input, so that whoever adds and removes members by the thousand
/// leaves room for everybody's publishes.
const CONTROL_BYTES_A_BATCH_MAX: usize = BATCH_BYTES_MAX / 2;

/// The longest sleep: a missed timer of a clock that was set is found again after it.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// When an edge had no room for news of fenced sessions, it is tried again after this.
const FENCE_RETRY: Duration = Duration::from_millis(1);

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
    queues: Submitted,
    edges: Vec<Mailbox>,
    fences: Fences,
    effects: Effects,
    /// The batch that is being made.
    draft: Draft,
    signals: Vec<Signal>,
    /// Its marks, for the index.
    marks: Vec<ReadMark>,
    /// Held back until the batch is durable.
    replies: Vec<(Origin, Reply)>,
    /// Likewise, for the edges themselves.
    counts: Vec<(EdgeId, CountsAnswer)>,
    /// Likewise, for sessions that were not told something.
    receipts: Vec<(Origin, ReceiptsAnswer)>,
    /// Fenced sessions whose edge had no room for the news; bounded by the sessions of all edges.
    fenced: VecDeque<Origin>,
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
}

impl<J: Journal> Sequencer<J> {
    /// A sequencer that goes on where the journal ends.
    ///
    /// # Panics
    /// If shard and journal do not end at the same position.
    pub fn new(parts: Parts<J>) -> Self {
        let Parts { shard, journal, ring, index, clock, queues, edges } = parts;
        assert_eq!(shard.head(), journal.head(), "the shard is replayed to the journal's head");
        let draft = Draft::new(journal.head().next());
        let mut sequencer = Self {
            shard,
            journal,
            ring,
            index,
            clock,
            queues,
            edges,
            fences: Fences::default(),
            effects: Effects::default(),
            draft,
            signals: Vec::new(),
            marks: Vec::new(),
            replies: Vec::new(),
            counts: Vec::new(),
            receipts: Vec::new(),
            fenced: VecDeque::new(),
            stopping: false,
            meter: Arc::default(),
        };
        sequencer.shard.resume(sequencer.clock.wall(), &mut sequencer.effects);
        sequencer.stage_effects(None);
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
        let mut select = crossbeam::channel::Select::new_biased();
        select.recv(&self.queues.controls);
        select.recv(&self.queues.publishes);
        // The only outcome of interest is that there is something, or that the time is over.
        select.ready_timeout(self.sleep()).ok();
    }

    fn sleep(&self) -> Duration {
        if self.stopping || !self.draft.is_empty() {
            return Duration::ZERO;
        }
        if !self.fenced.is_empty() {
            return FENCE_RETRY;
        }
        let Some(due) = self.shard.next_timer() else { return SLEEP_MAX };
        Duration::from_millis(due.0.saturating_sub(self.clock.wall().0)).min(SLEEP_MAX)
    }

    /// Drains what has come, commits it as one batch and releases what follows from it.
    ///
    /// # Errors
    /// As [`Sequencer::run`].
    pub fn step(&mut self) -> Result<Flow, CommitError> {
        self.meter.heartbeat.beat(self.clock.now());
        let now = self.clock.wall();
        if self.shard.next_timer().is_some_and(|due| due <= now) {
            self.shard.handle(now, Input::Tick, &mut self.effects);
            self.stage_effects(None);
        }
        let controls = self.drain(CONTROL_BYTES_A_BATCH_MAX, |queues| queues.controls.try_recv().ok());
        let publishes = self.drain(BATCH_BYTES_MAX, |queues| queues.publishes.try_recv().ok());
        self.commit()?;
        self.release();
        let idle = controls == 0 && publishes == 0;
        Ok(if self.stopping && idle { Flow::Stopped } else { Flow::Continue })
    }

    fn drain(&mut self, draft_bytes_max: usize, next: impl Fn(&Submitted) -> Option<Submission>) -> usize {
        let mut drained = 0;
        while drained < INPUTS_A_BATCH_MAX && self.draft.bytes() < draft_bytes_max {
            let Some(submission) = next(&self.queues) else { break };
            self.take(submission);
            drained += 1;
        }
        drained
    }

    fn take(&mut self, submission: Submission) {
        match submission {
            Submission::Input { from, input } => self.take_input(from, input),
            Submission::AttachAgain { from, attach } if self.fences.is_held_by(from) => {
                self.take_input(from, Input::Attach(attach));
            }
            Submission::AttachAgain { from, .. } => {
                let text = "another session of this device or producer took over";
                self.replies.push((from, Reply::AttachRefused { code: ErrorCode::FENCED, text }));
            }
            Submission::Cursors(moves) => {
                self.shard.handle(self.clock.wall(), Input::Cursors(moves), &mut self.effects);
                self.stage_effects(None);
            }
            Submission::Counts { edge, question } => {
                let CountsQuestion { tenant, conversation, position, messages } = question;
                let counted = self.shard.read_counts(conversation, &messages);
                self.counts.push((edge, CountsAnswer { tenant, conversation, position, counted }));
            }
            Submission::Receipts { from, question } => {
                let answer = self.answer_receipts(question);
                self.receipts.push((from, answer));
            }
            Submission::Detach { from } => self.fences.detach(from),
            Submission::Stop => self.stopping = true,
        }
    }

    fn answer_receipts(&self, question: ReceiptsQuestion) -> ReceiptsAnswer {
        match question {
            ReceiptsQuestion::Moved(question) => ReceiptsAnswer::Moved(self.shard.moved(question)),
            ReceiptsQuestion::Counts(questions) => {
                let counted = questions
                    .into_iter()
                    .map(|(conversation, messages)| (conversation, self.shard.read_counts(conversation, &messages)));
                ReceiptsAnswer::Counts(counted.collect())
            }
        }
    }

    fn take_input(&mut self, from: Origin, input: Input) {
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
        let attach = match &input {
            Input::Attach(attach) => Some((attach.device, attach.producer)),
            Input::Publish { .. }
            | Input::Request { .. }
            | Input::Cursors(_)
            | Input::CatchUpBounded(_)
            | Input::Tick => None,
        };
        self.shard.handle(self.clock.wall(), input, &mut self.effects);
        if let (Some((device, producer)), Some(Reply::Attached(attached))) = (attach, &self.effects.reply) {
            let (tenant, user) = (attached.tenant, attached.user);
            let producer = producer.map(|producer| (tenant, user, producer));
            self.fenced.extend(self.fences.attach(from, (tenant, user, device), producer));
        }
        self.stage_effects(Some(from));
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
    }

    /// Everything the replies rest on is durable now.
    fn release(&mut self) {
        let replies = self.replies.drain(..).map(|(to, reply)| (to.edge, ToEdge::Reply { link: to.link, reply }));
        let counts = self.counts.drain(..).map(|(edge, counts)| (edge, ToEdge::Counts(counts)));
        let receipts = self.receipts.drain(..);
        let receipts = receipts.map(|(to, answer)| (to.edge, ToEdge::Receipts { link: to.link, answer }));
        for (edge, message) in replies.chain(counts).chain(receipts) {
            let edge = &self.edges[edge.0];
            match edge.replies.try_send(message) {
                Ok(()) => edge.waker.wake(),
                Err(TrySendError::Full(_)) => unreachable!("an edge reserves room for a reply with its request"),
                // The edge has stopped; its sessions learn nothing, and repeat what they were not told.
                Err(TrySendError::Disconnected(_)) => {}
            }
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

/// Brings the index up to the signals of a durable batch.
pub fn index_signals(index: &Index, signals: &[Signal]) {
    for signal in signals {
        if let Signal::Message { position, conversation, seq, author } = signal {
            index.append(*conversation, *seq, *position, *author);
        }
    }
}
