//! Read updates of a session: which are told as they come, and what moved while they were not.
//!
//! A session is *live* with them from some position on. One that comes back with a `receipts_through`, one whose inbox took no
//! more, and every one of an edge that fell off the ring is *behind*: it is told nothing, and once its inbox has room the shard
//! is asked for what has moved since. The answer is a page in the order of positions; where readers are not named, the edge looks
//! up which messages are the user's own, and the shard counts them. When the last page was told, what the edge has processed
//! since then is told from the ring, and the session is live again.
//!
//! Invariants: what a frame says of `receipts_through`, and all that moved before it, was told on this session or acknowledged
//! before; counts that are due or under way hold it back. A session has one question under way at most, and is asked for only
//! when nothing waits for its inbox.

use std::time::Duration;

use bytes::Bytes;
use carillon_core::effect::{Counted, Signal};
use carillon_core::moved::{Moved, MovedQuestion, MovedUpdate, MovedWhat};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};
use carillon_protocol::receipt::{ReadCountsUpdate, ReadUpdate};
use carillon_transport::LinkKey;

use super::attach::Missed;
use super::limits::{COUNTS_A_FRAME_MAX, COUNTS_A_PAGE_MAX, COUNTS_WALK_MAX};
use super::{Edge, Links};
use crate::sequencer::{Question, ReceiptsAnswer, ReceiptsQuestion};

/// Where a session stands with read updates.
#[derive(Debug)]
pub(super) enum Told {
    /// It is told what is marked after this position, as it comes.
    Live { after: Position },
    /// What has moved since this position is to be asked for.
    Behind { since: Position },
    /// The shard was asked.
    Asking { since: Position },
    /// The shard has answered, but for how many have read.
    Counting(Box<Moved>),
}

impl Default for Told {
    fn default() -> Self {
        Self::Behind { since: Position(0) }
    }
}

impl Told {
    /// Of a session that was attached as of a position, with what its cursor says. One that has had no read update wants none
    /// of the past: there is no telling how much that is, and it can be asked for.
    pub(super) fn begin(receipts_through: Position, as_of: Position) -> Self {
        if receipts_through == Position(0) {
            Self::Live { after: as_of }
        } else {
            Self::Behind { since: receipts_through }
        }
    }
}

impl Edge {
    /// Begins with a session that was attached for the first time.
    pub(super) fn begin_receipts<L: Links>(&mut self, links: &mut L, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        match session.inbox.told {
            Told::Live { after } => self.tell_missed(links, key, after),
            Told::Behind { .. } => self.list_behind(key),
            Told::Asking { .. } | Told::Counting(_) => {}
        }
    }

    /// Puts a session on the list of those to be asked for, if something has moved that it was not told.
    pub(super) fn list_behind(&mut self, key: LinkKey) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let attached = session.identity().is_some();
        let inbox = &mut session.inbox;
        let has_room = !inbox.blocked && inbox.receipts.is_empty() && inbox.remainder.is_empty();
        if attached && has_room && !inbox.behind_listed && matches!(inbox.told, Told::Behind { .. }) {
            inbox.behind_listed = true;
            self.behind.list(key, inbox.asked_in);
        }
    }

    /// A session is told no more from this position on, until the shard was asked.
    pub(super) fn fall_behind_receipts(&mut self, key: LinkKey, since: Position) {
        let Some(session) = self.sessions.at_key(key) else { return };
        if let Told::Live { after } = session.inbox.told {
            // What is replayed to another session may be due again, of which this one was told.
            session.inbox.told = Told::Behind { since: since.max(after).max(session.inbox.receipts_sent) };
        }
    }

    /// Asks what has moved, as far as there is room for the answers, at the pace of [`Behind`](super::behind::Behind).
    pub(super) fn ask_moved(&mut self) {
        let (updates_max, named_members_max) =
            (self.limits.receipts_waiting_max.max(2), self.limits.receipts_live_members_max);
        let (now, every) = (self.instant(), Duration::from_millis(self.limits.counts_every_ms));
        while self.reserved < self.limits.replies_reserved_max {
            let Some((key, interval)) = self.behind.next(now, every) else { break };
            let Some(session) = self.sessions.at_key(key) else { continue };
            session.inbox.behind_listed = false;
            let Some(who) = session.identity().map(|identity| identity.who) else { continue };
            // What blocks it meanwhile lists it again.
            let waits = session.inbox.blocked || !session.inbox.receipts.is_empty();
            let Told::Behind { since } = session.inbox.told else { continue };
            if waits {
                continue;
            }
            session.inbox.told = Told::Asking { since };
            session.inbox.asked_in = interval;
            let question = MovedQuestion { tenant: who.tenant, user: who.user, since, updates_max, named_members_max };
            self.ask_shard(key, ReceiptsQuestion::Moved(question));
        }
    }

    fn ask_shard(&mut self, key: LinkKey, question: ReceiptsQuestion) {
        let from = self.origin(key);
        self.behind.under_way += 1;
        self.submit_question(Question::Receipts { from, question });
    }

    /// What the shard says; an answer to a session that asks no more is let go of.
    pub(super) fn handle_receipts<L: Links>(&mut self, links: &mut L, key: LinkKey, answer: ReceiptsAnswer) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(user) = session.identity().map(|identity| identity.who.user) else { return };
        match (std::mem::take(&mut session.inbox.told), answer) {
            (Told::Asking { since }, ReceiptsAnswer::Moved(mut moved)) => {
                let questions = self.own_messages(user, &mut moved);
                if questions.is_empty() {
                    return self.tell_moved(links, key, &moved, &[]);
                }
                let has_room = self.reserved < self.limits.replies_reserved_max;
                let Some(session) = self.sessions.at_key(key) else { return };
                if !has_room {
                    session.inbox.told = Told::Behind { since };
                    return self.list_behind(key);
                }
                session.inbox.told = Told::Counting(Box::new(moved));
                self.ask_shard(key, ReceiptsQuestion::Counts(questions));
            }
            (Told::Counting(moved), ReceiptsAnswer::Counts(counted)) => self.tell_moved(links, key, &moved, &counted),
            (told, _) => session.inbox.told = told,
        }
    }

    /// The user's messages of which it is to be told how many have read them, by conversation. If they are too many the page ends before.
    fn own_messages(&self, user: UserId, moved: &mut Moved) -> Vec<(ConversationId, Vec<(Seq, UserId)>)> {
        let (mut questions, mut messages) = (Vec::new(), 0);
        let mut end = None;
        for update in &moved.updates {
            let MovedWhat::Counts { newest_own, last_seq } = update.what else { continue };
            if messages >= COUNTS_A_PAGE_MAX {
                end = Some(update.position);
                break;
            }
            let mut own = self.parts.index.written_by(update.conversation, user, (last_seq, COUNTS_WALK_MAX));
            if !own.contains(&newest_own) {
                own.push(newest_own);
                own.sort_unstable();
            }
            let newest = own.split_off(own.len().saturating_sub(COUNTS_A_FRAME_MAX));
            messages += newest.len();
            questions.push((update.conversation, newest.into_iter().map(|seq| (seq, user)).collect()));
        }
        if let Some(end) = end {
            moved.updates.retain(|update| update.position < end);
            moved.more = true;
        }
        questions
    }

    /// Tells what has moved, in order, and goes on behind it.
    fn tell_moved<L: Links>(
        &mut self,
        links: &mut L,
        key: LinkKey,
        moved: &Moved,
        counted: &[(ConversationId, Vec<Counted>)],
    ) {
        let Moved { as_of, updates, more, .. } = moved;
        for (at, update) in updates.iter().enumerate() {
            let through = match updates.get(at + 1) {
                // The last of one position speaks for all of them.
                Some(next) if next.position == update.position => Position(update.position.0 - 1),
                None if !more => *as_of,
                _ => update.position,
            };
            if let Some(frame) = moved_frame(update, through, counted) {
                self.queue_receipt(links, key, through, frame);
            }
        }
        let Some(session) = self.sessions.at_key(key) else { return };
        match updates.last().filter(|_| *more) {
            Some(last) => {
                session.inbox.told = Told::Behind { since: last.position };
                self.list_behind(key);
            }
            None => {
                session.inbox.told = Told::Live { after: *as_of };
                self.tell_missed(links, key, *as_of);
            }
        }
    }

    /// Tells what this edge has processed since a session was found to have everything up to a position.
    fn tell_missed<L: Links>(&mut self, links: &mut L, key: LinkKey, as_of: Position) {
        let Some(session) = self.sessions.at_key(key) else { return };
        let Some(who) = session.identity().map(|identity| identity.who) else { return };
        // Not known to be a member of anything: the next attach, or what blocks it, asks again.
        let stale = self.interest.user(who.tenant, who.user).is_none_or(|known| known.stale);
        let missed = if stale { Missed::Gone } else { self.missed_since(as_of) };
        let Missed::Batches(missed) = missed else {
            let Some(session) = self.sessions.at_key(key) else { return };
            session.inbox.told = Told::Behind { since: as_of };
            if !stale {
                self.list_behind(key);
            }
            return;
        };
        for signal in missed.iter().flat_map(|committed| &committed.signals) {
            // All marks of the shard lie here; few are of this user's conversations.
            if let Signal::Read { position, tenant, conversation, .. } = *signal
                && position > as_of
                && tenant == who.tenant
                && self.interest.user(tenant, who.user).is_some_and(|known| known.was_member(conversation, position))
            {
                self.tell_read(links, signal, Some((key, who.user)));
            }
        }
    }

    /// Up to where all is told, of what moved up to a position: counts that are due hold it back.
    pub(super) fn told_through(&self, position: Position) -> Position {
        self.counts.oldest_due().map_or(position, |oldest| position.min(Position(oldest.0.saturating_sub(1))))
    }
}

/// The frame of an update; `None` if there is nothing to count.
fn moved_frame(update: &MovedUpdate, through: Position, counted: &[(ConversationId, Vec<Counted>)]) -> Option<Bytes> {
    let MovedUpdate { position, conversation, what } = *update;
    match what {
        MovedWhat::Read { user, read_up_to } => {
            Some(ReadUpdate { conversation, user, read_up_to, position, through }.to_bytes())
        }
        MovedWhat::Counts { .. } => {
            let (_, counted) = counted.iter().find(|(of, _)| *of == conversation)?;
            let entries: Vec<_> = counted.iter().map(|counted| counted.entry).collect();
            (!entries.is_empty()).then(|| ReadCountsUpdate { conversation, position, through, entries }.to_bytes())
        }
    }
}
