//! How many have read, told to authors where readers are not named as they read: in large conversations, and where the receipt
//! policy is `COUNTS`.
//!
//! A mark only notes which seqs of its conversation have moved. At most once an interval the shard is asked, for each such
//! conversation, how many have read the newest messages of those authors who are here; the answer goes to each author's sessions as
//! one frame. So a storm of marks costs an edge a few questions a second, whatever their number.
//!
//! Invariants: a conversation has one question under way at most, and a question is asked an interval after the last answer
//! at the earliest; what moves in between, and what a limit leaves, stays due.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_core::effect::Counted;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::receipt::ReadCountsUpdate;
use carillon_transport::LinkKey;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::limits::{
    COUNTS_A_FRAME_MAX, COUNTS_AN_INTERVAL_MAX, COUNTS_LOOKED_AT_MAX, COUNTS_USERS_MAX, COUNTS_WALK_MAX, TICK_MS,
};
use super::receipts::Told;
use super::{Edge, Links};
use crate::sequencer::{CountsAnswer, CountsQuestion, Question};

/// What has moved in a conversation since its authors were told last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) tenant: TenantId,
    /// Who has read, if it is one user alone: of its own messages nothing has moved.
    pub(super) reader: Option<UserId>,
    /// Exclusive.
    pub(super) from: Seq,
    /// Inclusive.
    pub(super) up_to: Seq,
    /// Of the first mark that was not told.
    pub(super) first: Position,
    /// Of the newest mark.
    pub(super) position: Position,
}

/// What an update of counts speaks of.
#[derive(Clone, Copy, Debug)]
struct Spoken {
    /// The newest mark.
    position: Position,
    /// All that moved up to here was told.
    through: Position,
    /// And this much without the update.
    before: Position,
}

/// The conversations whose authors are to be told.
#[derive(Debug, Default)]
pub(super) struct Counts {
    moved: HashMap<ConversationId, Moved, FxBuildHasher>,
    /// Those in `moved`, the one that has waited longest first.
    due: VecDeque<ConversationId>,
    /// At most as many as one interval asks about.
    under_way: HashMap<ConversationId, Position, FxBuildHasher>,
    /// The first mark of each of both that was not told, and how often it is one: what is replayed to a session is noted again.
    firsts: BTreeMap<Position, u32>,
    /// No question before this time, once there was one.
    next: Option<Instant>,
}

impl Counts {
    /// Takes in what a mark moved; false if too many conversations are due.
    fn note(&mut self, conversation: ConversationId, moved: Moved, due_max: usize) -> bool {
        if let Some(known) = self.moved.get_mut(&conversation) {
            known.reader = known.reader.filter(|reader| moved.reader == Some(*reader));
            known.from = known.from.min(moved.from);
            known.up_to = known.up_to.max(moved.up_to);
            // What is replayed to a session is older.
            known.position = known.position.max(moved.position);
            return true;
        }
        if self.due.len() >= due_max {
            return false;
        }
        *self.firsts.entry(moved.first).or_default() += 1;
        self.moved.insert(conversation, moved);
        self.due.push_back(conversation);
        true
    }

    /// The first mark of which it is still to be told how many have read.
    pub(super) fn oldest_due(&self) -> Option<Position> {
        self.firsts.first_key_value().map(|(first, _)| *first)
    }

    /// The question was answered; the first mark that it was about.
    fn settle(&mut self, conversation: ConversationId) -> Option<Position> {
        let first = self.under_way.remove(&conversation)?;
        self.forget_first(first);
        Some(first)
    }

    fn forget_first(&mut self, first: Position) {
        if let Some(times) = self.firsts.get_mut(&first) {
            *times -= 1;
            if *times == 0 {
                self.firsts.remove(&first);
            }
        }
    }

    /// The next conversation to be looked at that has no question under way, of so many that were not looked at yet.
    fn take(&mut self, unseen: &mut usize) -> Option<(ConversationId, Moved)> {
        while *unseen > 0 {
            *unseen -= 1;
            let conversation = self.due.pop_front()?;
            if self.under_way.contains_key(&conversation) {
                self.due.push_back(conversation);
                continue;
            }
            let moved = self.moved.remove(&conversation).expect("what is due has moved");
            return Some((conversation, moved));
        }
        None
    }
}

impl Edge {
    /// A mark that names nobody: its authors are told how many have read, soon. Where too many conversations are due, the members here are
    /// to be told what has moved, but for the reader.
    pub(super) fn note_moved(&mut self, conversation: ConversationId, moved: Moved, only: Option<(LinkKey, UserId)>) {
        // Nobody here is in the conversation.
        if self.interest.audience(conversation).is_none() {
            return;
        }
        if self.counts.due.is_empty() {
            self.counts.next = Some(self.later());
        }
        if !self.counts.note(conversation, moved, self.limits.counts_due_max) {
            self.stats.receipts_let_go += 1;
            self.leave_to_shard(conversation, moved.position, (moved.reader, only));
        }
    }

    fn later(&self) -> Instant {
        self.instant() + Duration::from_millis(self.limits.counts_every_ms)
    }

    /// How long the edge may sleep when its turn left nothing.
    pub(super) fn sleep(&self) -> Duration {
        let tick = Duration::from_millis(TICK_MS);
        let counts = self.counts.next.filter(|_| !self.counts.due.is_empty());
        let due = counts.into_iter().chain(self.dings.due_at()).chain(self.behind.due_at()).min();
        due.map_or(tick, |due| due.saturating_duration_since(self.instant()).min(tick))
    }

    /// Asks for the counts that are due.
    pub(super) fn ask_counts(&mut self) {
        let waits = self.counts.due.is_empty() || self.counts.next.is_some_and(|next| self.instant() < next);
        if waits {
            return;
        }
        self.counts.next = Some(self.later());
        let (mut unseen, mut messages_asked) = (self.counts.due.len().min(COUNTS_LOOKED_AT_MAX), 0);
        while messages_asked < COUNTS_AN_INTERVAL_MAX && self.reserved < self.limits.replies_reserved_max {
            let Some((conversation, moved)) = self.counts.take(&mut unseen) else { break };
            let (messages, all) = self.written_here(conversation, &moved);
            let Moved { tenant, reader, from, up_to, first, position } = moved;
            let users = if all { Vec::new() } else { self.users_here(conversation, reader, first) };
            if messages.is_empty() && users.is_empty() {
                self.counts.forget_first(first);
                continue;
            }
            messages_asked += messages.len() + users.len();
            self.counts.under_way.insert(conversation, first);
            let question = CountsQuestion { tenant, conversation, position, messages, moved: (from, up_to), users };
            self.submit_question(Question::Counts { edge: self.parts.id, question });
        }
    }

    /// The newest messages of what has moved whose authors are here, and may be told; and whether nobody can have written others.
    fn written_here(&self, conversation: ConversationId, moved: &Moved) -> (Vec<(Seq, UserId)>, bool) {
        let newest = (moved.up_to, COUNTS_WALK_MAX);
        let (known, all) = self.parts.index.written(conversation, moved.from, newest);
        let mut written: Vec<(Seq, UserId)> = Vec::new();
        for (seq, author) in known.into_iter().rev() {
            let told = written.iter().filter(|(_, of)| *of == author).count();
            let moves = moved.reader != Some(author) && told < COUNTS_A_FRAME_MAX;
            if moves && self.interest.is_member(moved.tenant, author, conversation) {
                written.push((seq, author));
            }
        }
        (written, all)
    }

    /// Who of the conversation is here, and may have written what is not in memory. Too many are none: each is told from before the
    /// first mark what has moved.
    fn users_here(&mut self, conversation: ConversationId, reader: Option<UserId>, first: Position) -> Vec<UserId> {
        let Some(audience) = self.interest.audience(conversation).cloned() else { return Vec::new() };
        if audience.len() > COUNTS_USERS_MAX {
            self.leave_to_shard(conversation, first, (reader, None));
            return Vec::new();
        }
        let user = |index: &u32| self.sessions.at(*index)?.identity().map(|identity| identity.who.user);
        let mut users: Vec<_> = audience.iter().filter_map(user).filter(|user| reader != Some(*user)).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// What the shard counted: to the sessions of each author.
    pub(super) fn tell_counts<L: Links>(&mut self, links: &mut L, answer: CountsAnswer) {
        let CountsAnswer { tenant, conversation, position, mut counted } = answer;
        let first = self.counts.settle(conversation).unwrap_or(position);
        // Who cannot be told now is to be told from before the first mark that was counted.
        let spoken =
            Spoken { position, through: self.told_through(position), before: self.told_through(Position(first.0 - 1)) };
        self.counts.next = Some(self.later());
        counted.sort_unstable_by_key(|counted| (counted.author, counted.entry.seq));
        for own in counted.chunk_by(|a, b| a.author == b.author) {
            let author = own[0].author;
            if !self.interest.is_member(tenant, author, conversation) {
                continue;
            }
            let entries = own.iter().map(|Counted { entry, .. }| *entry).collect();
            let frame = ReadCountsUpdate { conversation, position, through: spoken.through, entries }.to_bytes();
            let sessions = self.interest.user(tenant, author).map(|known| known.sessions.clone()).unwrap_or_default();
            for index in sessions {
                let key: Option<LinkKey> = self.sessions.at(index).map(|session| session.key);
                if let Some(key) = key {
                    self.push_counts(links, key, spoken, frame.clone());
                }
            }
        }
    }
}

impl Edge {
    /// To one session of an author, unless it is to be told otherwise what has moved. One whose inbox takes no more is, from before
    /// the first mark that was counted.
    fn push_counts<L: Links>(&mut self, links: &mut L, key: LinkKey, spoken: Spoken, frame: Bytes) {
        let Some(session) = self.sessions.at_key(key) else { return };
        if !matches!(session.inbox.told, Told::Live { .. }) {
            return;
        }
        if session.inbox.receipts.len() >= self.limits.receipts_waiting_max {
            self.stats.receipts_let_go += 1;
            return self.fall_behind_receipts(key, spoken.before);
        }
        session.inbox.note_told(spoken.position, spoken.through);
        self.queue_receipt(links, key, spoken.through, frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::limits::COUNTS_DUE_MAX;

    fn moved(from: u64, up_to: u64, position: u64) -> Moved {
        let (from, up_to, position) = (Seq(from), Seq(up_to), Position(position));
        Moved { tenant: TenantId(0), reader: Some(UserId(1)), from, up_to, first: position, position }
    }

    #[test]
    fn what_moves_again_is_due_once_and_the_longest_waiting_comes_first() {
        let mut counts = Counts::default();
        for (conversation, moved) in [(1, moved(4, 6, 10)), (2, moved(0, 1, 11)), (1, moved(2, 5, 12))] {
            assert!(counts.note(ConversationId(conversation), moved, COUNTS_DUE_MAX));
        }
        let mut unseen = 9;
        let (first, moved) = counts.take(&mut unseen).unwrap();
        assert_eq!((first, moved.from, moved.up_to, moved.position), (ConversationId(1), Seq(2), Seq(6), Position(12)));
        assert_eq!(counts.take(&mut unseen).unwrap().0, ConversationId(2));
        assert!(counts.take(&mut unseen).is_none() && counts.moved.is_empty());
    }

    #[test]
    fn one_reader_alone_is_known_until_another_has_read() {
        let mut counts = Counts::default();
        let mut reader_after = |reader| {
            let moved = Moved { reader: Some(UserId(reader)), ..moved(0, 1, 10) };
            assert!(counts.note(ConversationId(1), moved, COUNTS_DUE_MAX));
            counts.moved[&ConversationId(1)].reader
        };
        assert_eq!([1, 1, 2, 1].map(&mut reader_after), [Some(UserId(1)), Some(UserId(1)), None, None]);
    }

    #[test]
    fn a_conversation_with_a_question_under_way_stays_due() {
        let mut counts = Counts::default();
        counts.under_way.insert(ConversationId(1), Position(9));
        assert!(
            counts.note(ConversationId(1), moved(0, 1, 10), COUNTS_DUE_MAX)
                && counts.note(ConversationId(2), moved(0, 1, 11), COUNTS_DUE_MAX)
        );
        let mut unseen = counts.due.len();
        assert_eq!(counts.take(&mut unseen).unwrap().0, ConversationId(2));
        assert!(counts.take(&mut unseen).is_none());
        counts.under_way.clear();
        assert_eq!(counts.take(&mut 1).unwrap().0, ConversationId(1));
    }

    #[test]
    fn the_oldest_mark_that_is_due_is_known_until_its_question_is_answered() {
        let mut counts = Counts::default();
        for (conversation, position) in [(1, 10), (2, 11), (1, 12), (3, 11)] {
            assert!(counts.note(ConversationId(conversation), moved(0, 1, position), COUNTS_DUE_MAX));
        }
        assert_eq!(counts.oldest_due(), Some(Position(10)));
        let (first, asked) = counts.take(&mut 1).unwrap();
        counts.under_way.insert(first, asked.first);
        assert_eq!(counts.oldest_due(), Some(Position(10)), "it is not told yet");
        assert_eq!(counts.settle(first), Some(Position(10)));
        assert_eq!(counts.oldest_due(), Some(Position(11)));
        // Two conversations of one mark there are none, but one that is replayed is noted twice.
        let (_, second) = counts.take(&mut 1).unwrap();
        counts.forget_first(second.first);
        assert_eq!(counts.oldest_due(), Some(Position(11)));
        let (_, third) = counts.take(&mut 1).unwrap();
        counts.forget_first(third.first);
        assert_eq!(counts.oldest_due(), None);
    }

    #[test]
    fn so_many_conversations_are_due_at_most() {
        let mut counts = Counts::default();
        let all = COUNTS_DUE_MAX as u64;
        assert!((0..all).all(|conversation| counts.note(
            ConversationId(conversation),
            moved(0, 1, 10),
            COUNTS_DUE_MAX
        )));
        assert!(!counts.note(ConversationId(all), moved(0, 1, 11), COUNTS_DUE_MAX));
        assert!(counts.note(ConversationId(0), moved(1, 2, 12), COUNTS_DUE_MAX), "what is due may move on");
        assert_eq!(counts.due.len(), COUNTS_DUE_MAX);
    }
}
