//! The marks: one a session, each when it is due, each answered once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Seq};
use carillon_protocol::receipt::MarkRead;
use hdrhistogram::Histogram;

use crate::channel::Purpose;
use crate::fleet::{Fleet, SessionIndex};
use crate::latency::{histogram, record};
use crate::limits::{BUSY_PAUSE, MARKS_A_TURN};
use crate::schedule::Schedule;

/// What is marked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marking {
    pub(super) conversation: ConversationId,
    pub(super) up_to: Seq,
    /// The session that marks first; the others follow it.
    pub(super) first: SessionIndex,
    /// How many mark, one each.
    pub(super) marks: u32,
    pub(super) schedule: Schedule,
}

/// See the module.
pub(super) struct Storm {
    what: Marking,
    next: u32,
    /// Refused as too much at once, to be sent again.
    again: VecDeque<u32>,
    paused_until: Option<Instant>,
    /// By mark: whether nothing more is to come of it.
    settled: Vec<bool>,
    settled_count: u32,
    pub(super) answered: u32,
    pub(super) repeated: u32,
    pub(super) refused: u32,
    pub(super) first_refusal: Option<String>,
    pub(super) latency: Histogram<u64>,
    pub(super) late_max: Duration,
    pub(super) last: Instant,
}

impl Storm {
    pub(super) fn new(what: Marking) -> Self {
        Self {
            what,
            next: 0,
            again: VecDeque::new(),
            paused_until: None,
            settled: vec![false; what.marks as usize],
            settled_count: 0,
            answered: 0,
            repeated: 0,
            refused: 0,
            first_refusal: None,
            latency: histogram(),
            late_max: Duration::ZERO,
            last: what.schedule.start,
        }
    }

    /// When it began.
    pub(super) fn start(&self) -> Instant {
        self.what.schedule.start
    }

    /// When the next mark is to be sent.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = (self.next < self.what.marks).then(|| self.what.schedule.due_at(self.next));
        let again = self.paused_until.filter(|_| !self.again.is_empty());
        due.into_iter().chain(again).min()
    }

    /// Sends what is due, as many as one turn may.
    pub(super) fn send_due(&mut self, now: Instant, fleet: &mut Fleet) {
        for _ in 0..MARKS_A_TURN {
            let is_again = self.paused_until.is_some_and(|until| until <= now) && !self.again.is_empty();
            let mark = if is_again {
                self.again.pop_front().expect("it is not empty")
            } else if self.next < self.what.marks && self.what.schedule.due_at(self.next) <= now {
                self.late_max = self.late_max.max(now.saturating_duration_since(self.what.schedule.due_at(self.next)));
                self.next += 1;
                self.next - 1
            } else {
                break;
            };
            let Marking { conversation, up_to, first, .. } = self.what;
            let frame = MarkRead { request: 1, conversation, up_to }.to_bytes();
            fleet.send(first + mark as usize, Purpose::Control, frame);
        }
    }

    /// Takes the reply to a session's mark.
    pub(super) fn take(&mut self, session: SessionIndex, now: Instant, frame: &Frame) {
        let Some(mark) = self.mark_of(session) else { return };
        match frame {
            Frame::Marked(marked) if marked.read_up_to >= self.what.up_to => {
                if self.settle(mark) {
                    self.answered += 1;
                    self.last = now;
                    record(&mut self.latency, now, self.what.schedule.due_at(mark));
                } else {
                    self.repeated += 1;
                }
            }
            Frame::Error(error) if error.code == ErrorCode::BUSY => {
                self.again.push_back(mark);
                self.paused_until = Some(now + BUSY_PAUSE);
            }
            Frame::Error(error) => self.refuse(mark, format!("{} ({})", error.code, error.text)),
            other => self.refuse(mark, format!("it was answered by {}", other.name())),
        }
    }

    /// A session is no more: its mark is not answered any more.
    pub(super) fn lose(&mut self, session: SessionIndex) {
        if let Some(mark) = self.mark_of(session) {
            self.settle(mark);
        }
    }

    /// Whether nothing more is to come.
    pub(super) fn is_done(&self) -> bool {
        self.settled_count == self.what.marks
    }

    fn mark_of(&self, session: SessionIndex) -> Option<u32> {
        let mark = u32::try_from(session.checked_sub(self.what.first)?).ok()?;
        (mark < self.what.marks).then_some(mark)
    }

    /// Whether something was still to come of this mark.
    fn settle(&mut self, mark: u32) -> bool {
        let is_first = !std::mem::replace(&mut self.settled[mark as usize], true);
        self.settled_count += u32::from(is_first);
        is_first
    }

    fn refuse(&mut self, mark: u32, why: String) {
        if self.settle(mark) {
            self.refused += 1;
            self.first_refusal.get_or_insert(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use carillon_protocol::error::Error;
    use carillon_protocol::receipt::Marked;

    fn marked(up_to: u64) -> Frame {
        Marked { request: 1, conversation: ConversationId(1), read_up_to: Seq(up_to) }.into()
    }

    fn error(code: ErrorCode) -> Frame {
        Error { request: 1, code, text: "no".into() }.into()
    }

    /// Two sessions, 5 and 6, mark up to 9; what they hear makes so many answers and refusals.
    fn check(heard: &[(SessionIndex, Frame)], answered: u32, repeated: u32, refused: u32, is_done: bool) {
        let schedule = Schedule { start: SystemClock.now(), interval: Duration::ZERO, batch: 1 };
        let mut storm =
            Storm::new(Marking { conversation: ConversationId(1), up_to: Seq(9), first: 5, marks: 2, schedule });
        for (session, frame) in heard {
            storm.take(*session, SystemClock.now(), frame);
        }
        let found = (storm.answered, storm.repeated, storm.refused, storm.is_done());
        assert_eq!(found, (answered, repeated, refused, is_done), "{heard:?}");
    }

    #[test]
    fn each_mark_is_settled_once() {
        check(&[(5, marked(9)), (6, marked(9))], 2, 0, 0, true);
        check(&[(5, marked(9)), (5, marked(9))], 1, 1, 0, false);
        check(&[(4, marked(9)), (7, marked(9))], 0, 0, 0, false);
        check(&[(5, marked(8)), (6, error(ErrorCode::NOT_FOUND))], 0, 0, 2, true);
        check(&[(5, error(ErrorCode::BUSY)), (6, marked(9))], 1, 0, 0, false);
    }
}
