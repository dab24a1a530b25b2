//! Read marks that wait: a storm of them keeps nobody else waiting.
//!
//! When everybody in a large group marks it read within seconds, marks are most of what an edge does, and the least urgent. So they
//! wait here, and not where everything else goes past: in the queue to the sequencer, in the replies from it, in the ring. Few are
//! under way at once, and an edge answers few in a turn, after everything else.
//!
//! Invariants: a session's marks keep their order; a mark that waits here is one of the requests that its session may have pending,
//! and so is bounded; the reply queue for marks has room for all that are under way.

use std::collections::VecDeque;

use carillon_core::effect::Reply;
use carillon_core::input::{Input, Principal, Request};
use carillon_protocol::receipt::MarkRead;
use carillon_transport::LinkKey;

use super::{Edge, Links};
use crate::sequencer::Submission;

/// See the module.
#[derive(Default)]
pub(super) struct Marks {
    /// At most what the sessions may have pending.
    waiting: VecDeque<Submission>,
    /// With the sequencer, or answered and not taken: room taken in the queue of answers.
    under_way: usize,
    /// Sessions whose read updates are written in a later turn. Each stands here once.
    untold: VecDeque<LinkKey>,
    /// Sessions that were told of a mark in this turn.
    told: usize,
}

impl Marks {
    /// Whether a mark that came is not answered.
    pub(super) fn are_open(&self) -> bool {
        self.under_way > 0 || !self.waiting.is_empty()
    }
}

impl Edge {
    /// Takes a mark that a session asks for.
    pub(super) fn submit_mark(&mut self, key: LinkKey, who: Principal, mark: MarkRead) {
        let from = self.origin(key);
        self.marks
            .waiting
            .push_back(Submission::Input { from, input: Input::Request { who, request: Request::MarkRead(mark) } });
        self.hand_over_marks();
    }

    /// Hands marks to the sequencer, as far as few are under way.
    pub(super) fn hand_over_marks(&mut self) {
        while self.marks.under_way < self.limits.marks_under_way_max {
            let Some(mark) = self.marks.waiting.pop_front() else { return };
            if let Err(back) = self.parts.submit.mark(mark) {
                self.marks.waiting.push_front(*back);
                return;
            }
            self.marks.under_way += 1;
        }
    }

    /// Answers some marks, and tells some sessions of theirs; the others have it in later turns.
    pub(super) fn answer_marks<L: Links>(&mut self, links: &mut L) {
        for _ in 0..self.limits.marks_a_turn {
            let Ok((key, reply)) = self.parts.marked.try_recv() else { break };
            self.marks.under_way -= 1;
            // What the reader's own devices are told of it goes with the answer in one packet.
            self.tell_untold(links, key);
            match reply {
                Reply::Frame(frame) => self.answer(links, key, &frame),
                other => unreachable!("a mark is answered by a frame, not by {other:?}"),
            }
        }
        for _ in 0..self.limits.marks_a_turn {
            let Some(key) = self.marks.untold.pop_front() else { break };
            let Some(session) = self.sessions.at_key(key) else { continue };
            session.inbox.untold = false;
            self.tell(links, key);
        }
        self.marks.told = 0;
        self.hand_over_marks();
    }

    /// Writes what was left to a later turn now: something goes out that says that it was told, or that it goes with.
    pub(super) fn tell_untold<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        if self.sessions.at_key(key).is_some_and(|session| session.inbox.untold) {
            self.tell(links, key);
        }
    }

    fn tell<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        if self.sessions.at_key(key).is_some_and(|session| !session.inbox.blocked) {
            self.flush_inbox(links, key);
        }
    }

    /// Writes the read updates that wait for a session now, or, when enough sessions were told in this turn, in a later one.
    pub(super) fn tell_paced<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let many_wait = session.inbox.receipts.len() >= self.limits.receipts_waiting_max / 2;
        if many_wait || (self.marks.told < self.limits.marks_a_turn && !session.inbox.untold) {
            self.marks.told += 1;
            return self.tell(links, key);
        }
        if !std::mem::replace(&mut session.inbox.untold, true) {
            self.marks.untold.push_back(key);
        }
    }

    /// Whether marks wait for this edge's next turn.
    pub(super) fn has_marks_to_answer(&self) -> bool {
        !self.parts.marked.is_empty() || !self.marks.untold.is_empty()
    }

    /// Whether marks wait for room in the sequencer's queue. Those that wait for others to be answered are woken by the answer.
    pub(super) fn has_marks_to_hand_over(&self) -> bool {
        !self.marks.waiting.is_empty() && self.marks.under_way < self.limits.marks_under_way_max
    }
}
