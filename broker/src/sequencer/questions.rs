//! Questions about receipts: they change nothing, and there may be one for each session of every edge. So they have a queue of their
//! own, which is looked at behind the others', and a step answers as many as take about a millisecond.

use carillon_core::effect::Counted;
use carillon_protocol::ids::{ConversationId, Seq, UserId};

use super::queue::{CountsAnswer, CountsQuestion, Question, ReceiptsAnswer, ReceiptsQuestion};
use super::{Sequencer, ToEdge};
use crate::journal::Journal;

/// Conversations and marks that are looked at in a step, and those of the question that exceeds it: about a millisecond, at less than
/// 0.1 µs each.
const LOOKS_A_STEP_MAX: usize = 16_384;

/// What counting who has read one message costs in looks: 1 µs.
const LOOKS_A_COUNT: usize = 16;

/// What finding the newest message of one user in a conversation costs.
const LOOKS_A_USER: usize = 2;

impl<J: Journal> Sequencer<J> {
    /// Answers what this step has time for; the answers wait for the batch. Returns how many.
    pub(super) fn answer_questions(&mut self) -> usize {
        let (mut answered, mut looks) = (0, 0);
        while looks < LOOKS_A_STEP_MAX {
            let Ok(question) = self.queues.questions.try_recv() else { break };
            let (answer, cost) = self.answer_question(question);
            self.answers.push(answer);
            answered += 1;
            // Each costs something, so that there are so many answers at most.
            looks += cost.max(1);
        }
        answered
    }

    /// The answer and its edge, and what it cost in looks.
    fn answer_question(&self, question: Question) -> ((super::EdgeId, ToEdge), usize) {
        match question {
            Question::Counts { edge, question } => {
                let (answer, cost) = self.count(question);
                ((edge, ToEdge::Counts(answer)), cost)
            }
            Question::Receipts { from, question: ReceiptsQuestion::Moved(question) } => {
                let moved = self.shard.moved(question);
                let cost = moved.looks;
                ((from.edge, ToEdge::Receipts { link: from.link, answer: ReceiptsAnswer::Moved(moved) }), cost)
            }
            Question::Receipts { from, question: ReceiptsQuestion::Counts(questions) } => {
                let cost = questions.iter().map(|(_, messages)| LOOKS_A_COUNT * messages.len()).sum();
                let count = |(conversation, messages): (ConversationId, Vec<(Seq, UserId)>)| {
                    (conversation, self.shard.read_counts(conversation, &messages))
                };
                let counted: Vec<(ConversationId, Vec<Counted>)> = questions.into_iter().map(count).collect();
                ((from.edge, ToEdge::Receipts { link: from.link, answer: ReceiptsAnswer::Counts(counted) }), cost)
            }
        }
    }

    fn count(&self, question: CountsQuestion) -> (CountsAnswer, usize) {
        let CountsQuestion { tenant, conversation, position, mut messages, moved, users } = question;
        messages.extend(self.shard.newest_written(conversation, &users, moved));
        messages.sort_unstable();
        messages.dedup();
        let counted = self.shard.read_counts(conversation, &messages);
        let cost = LOOKS_A_COUNT * messages.len() + LOOKS_A_USER * users.len();
        (CountsAnswer { tenant, conversation, position, counted }, cost)
    }
}
