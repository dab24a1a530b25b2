//! The queues between edges and sequencer. Every one is bounded, and says what happens when it is full.

use std::sync::Arc;

use carillon_core::effect::{Counted, Reply, Reported};
use carillon_core::input::{Attach, CursorMove, DingReceipt, Input, OutletReport, OutletResult};
use carillon_core::moved::{Moved, MovedQuestion};
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, TenantId, UserId};
use carillon_transport::{LinkKey, Waker};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use crate::edge::lookups::Found;
use crate::journal::{Entry, ReadError};

/// Publishes on their way to the sequencer. Full: the edge stops reading publish streams, QUIC slows the senders.
/// Four batches' worth of 64-byte messages.
pub const PUBLISHES_QUEUED_MAX: usize = 4_096;

/// Read marks on their way to the sequencer. Full: the edge keeps the mark and tries again next turn.
pub(super) const MARKS_QUEUED_MAX: usize = 4_096;

/// Everything else on its way to the sequencer. Full: the edge keeps the submission and tries again next turn; it holds
/// at most the pending requests of its sessions.
pub const CONTROLS_QUEUED_MAX: usize = 4_096;

/// Questions on their way to the sequencer, which answers them behind everything else. Full: the edge keeps the question and tries
/// again next turn.
pub const QUESTIONS_QUEUED_MAX: usize = 1_024;

/// Which edge of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId(pub usize);

/// Which session an input comes from, and its reply goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The edge.
    pub edge: EdgeId,
    /// The session's connection there.
    pub link: LinkKey,
}

/// What an edge hands to the sequencer.
#[derive(Debug)]
pub enum Submission {
    /// An input of a session. It is answered.
    Input {
        /// Whose.
        from: Origin,
        /// What.
        input: Input,
    },
    /// A session that was attached asks for its stints anew. It is answered; it takes over from nobody.
    AttachAgain {
        /// Whose.
        from: Origin,
        /// As it was.
        attach: Attach,
        /// The DINGs that it watches: what it may have missed of them comes with the answer.
        watched: Vec<DingId>,
    },
    /// Cursors of sessions that moved since the last time. Not answered.
    Cursors(Vec<CursorMove>),
    /// Devices that have DINGs. Not answered.
    DingsReceived(Vec<DingReceipt>),
    /// What became of calls that were handed to outlets. Not answered.
    OutletResults(Vec<OutletResult>),
    /// What an outlet says later. It is answered when what it rests on is durable.
    OutletReport {
        /// What.
        report: OutletReport,
        /// Where the answer goes.
        answer: oneshot::Sender<Reported>,
    },
    /// The session is gone.
    Detach {
        /// Whose.
        from: Origin,
    },
    /// Finish what is queued and stop.
    Stop,
}

/// What an edge asks the sequencer. It is answered.
#[derive(Debug)]
pub enum Question {
    /// An edge wants to tell authors how many have read.
    Counts {
        /// Which edge.
        edge: EdgeId,
        /// Of what.
        question: CountsQuestion,
    },
    /// A session is to be told what has moved while it was not.
    Receipts {
        /// Whose.
        from: Origin,
        /// What.
        question: ReceiptsQuestion,
    },
}

/// How many have read some messages of a conversation?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsQuestion {
    /// The conversation's tenant.
    pub tenant: TenantId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The newest mark that the edge knows of.
    pub position: Position,
    /// Which, and who wrote them.
    pub messages: Vec<(Seq, UserId)>,
    /// Beside these, of each of `users` its newest message if it lies here: exclusive, and inclusive.
    pub moved: (Seq, Seq),
    /// Who may have written what the edge does not know the author of.
    pub users: Vec<UserId>,
}

/// So many, once what it rests on is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountsAnswer {
    /// As in the question.
    pub tenant: TenantId,
    /// As in the question.
    pub conversation: ConversationId,
    /// As in the question: the counts are as of it, or newer.
    pub position: Position,
    /// None if nobody is to be told.
    pub counted: Vec<Counted>,
}

/// What has moved since a session was told last?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptsQuestion {
    /// Who has read how far, and where the user is to be told how many have.
    Moved(MovedQuestion),
    /// How many have read these messages, by conversation, with their author.
    Counts(Vec<(ConversationId, Vec<(Seq, UserId)>)>),
}

/// So much, once what it rests on is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptsAnswer {
    /// To [`ReceiptsQuestion::Moved`].
    Moved(Moved),
    /// To [`ReceiptsQuestion::Counts`], by conversation as in the question.
    Counts(Vec<(ConversationId, Vec<Counted>)>),
}

/// What comes back to an edge.
#[derive(Debug)]
pub enum ToEdge {
    /// The answer to an input, after what it rests on is durable.
    Reply {
        /// The session.
        link: LinkKey,
        /// The answer.
        reply: Reply,
    },
    /// The answer to an edge's own question.
    Counts(CountsAnswer),
    /// The answer to a session's [`Question::Receipts`].
    Receipts {
        /// The session.
        link: LinkKey,
        /// The answer.
        answer: ReceiptsAnswer,
    },
    /// What the reader pool found for a session that catches up.
    Bodies {
        /// The session.
        link: LinkKey,
        /// The first position that was asked for.
        first: Position,
        /// The frames, in order.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// What a reader thread found for an edge's question.
    Found {
        /// The session.
        link: LinkKey,
        /// The answer.
        found: Found,
    },
}

/// Wakes an edge's thread.
pub trait Wake: Send + Sync {
    /// Makes the thread look at its queues.
    fn wake(&self);
}

impl Wake for Waker {
    fn wake(&self) {
        Waker::wake(self);
    }
}

/// The edges' side of the sequencer's queues.
#[derive(Clone, Debug)]
pub struct Submit {
    publishes: Sender<Submission>,
    controls: Sender<Submission>,
    marks: Sender<Submission>,
    questions: Sender<Question>,
}

impl Submit {
    /// Hands over a publish.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn publish(&self, submission: Submission) -> Result<(), Box<Submission>> {
        give_back(self.publishes.try_send(submission))
    }

    /// Hands over a read mark: less urgent than anything else.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn mark(&self, submission: Submission) -> Result<(), Box<Submission>> {
        give_back(self.marks.try_send(submission))
    }

    /// Hands over anything else.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn control(&self, submission: Submission) -> Result<(), Box<Submission>> {
        give_back(self.controls.try_send(submission))
    }

    /// Hands over a question.
    ///
    /// # Errors
    /// Gives it back when the queue is full.
    pub fn question(&self, question: Question) -> Result<(), Box<Question>> {
        give_back(self.questions.try_send(question))
    }

    /// What waits, by queue.
    pub fn queued(&self) -> [(&'static str, usize); 4] {
        let Self { publishes, controls, marks, questions } = self;
        [
            ("publish", publishes.len()),
            ("control", controls.len()),
            ("mark", marks.len()),
            ("question", questions.len()),
        ]
    }

    /// Asks the sequencer to finish what is queued and stop; waits for room.
    pub fn stop(&self) {
        // The only error is that it has stopped already.
        self.controls.send(Submission::Stop).ok();
    }
}

/// A stopped sequencer answers nothing more: what is handed to it then counts as taken, and the process is ending.
fn give_back<T>(sent: Result<(), TrySendError<T>>) -> Result<(), Box<T>> {
    match sent {
        Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        Err(TrySendError::Full(back)) => Err(Box::new(back)),
    }
}

/// The sequencer's side of its queues.
#[derive(Debug)]
pub struct Submitted {
    pub(super) publishes: Receiver<Submission>,
    pub(super) controls: Receiver<Submission>,
    pub(super) marks: Receiver<Submission>,
    pub(super) questions: Receiver<Question>,
}

/// The sequencer's queues.
pub fn submissions() -> (Submit, Submitted) {
    submissions_with_room(PUBLISHES_QUEUED_MAX, CONTROLS_QUEUED_MAX)
}

/// As [`submissions`], with room for so many: for tests.
pub fn submissions_with_room(publishes_max: usize, controls_max: usize) -> (Submit, Submitted) {
    let (publishes_in, publishes) = bounded(publishes_max);
    let (controls_in, controls) = bounded(controls_max);
    let (marks_in, marks) = bounded(MARKS_QUEUED_MAX.min(controls_max));
    let (questions_in, questions) = bounded(QUESTIONS_QUEUED_MAX.min(controls_max));
    let submit = Submit { publishes: publishes_in, controls: controls_in, marks: marks_in, questions: questions_in };
    (submit, Submitted { publishes, controls, marks, questions })
}

/// How to reach an edge.
#[derive(Clone)]
pub struct Mailbox {
    /// The edge reserves room here with every request it makes.
    pub replies: Sender<ToEdge>,
    /// Answers to read marks; the edge has few of these under way.
    pub marked: Sender<(LinkKey, Reply)>,
    /// Sessions whose device or producer another session took over. Full: the sequencer keeps the rest until there is room.
    pub fences: Sender<LinkKey>,
    /// Wakes it.
    pub waker: Arc<dyn Wake>,
}

/// What an edge takes out of its [`Mailbox`].
pub struct Mail {
    /// Replies, and bodies from the reader pool.
    pub replies: Receiver<ToEdge>,
    /// The other end of `replies`, for reads.
    pub replies_in: Sender<ToEdge>,
    /// Answers to read marks.
    pub marked: Receiver<(LinkKey, Reply)>,
    /// Sessions that were taken over.
    pub fences: Receiver<LinkKey>,
}

/// A mailbox with room for so many replies, answers to read marks, and fences, and its edge's side.
pub fn mailbox(waker: Arc<dyn Wake>, [replies_max, marked_max, fences_max]: [usize; 3]) -> (Mailbox, Mail) {
    let (replies_in, replies) = bounded(replies_max);
    let (marked_in, marked) = bounded(marked_max);
    let (fences_in, fences) = bounded(fences_max);
    let mailbox = Mailbox { replies: replies_in.clone(), marked: marked_in, fences: fences_in, waker };
    (mailbox, Mail { replies, replies_in, marked, fences })
}
