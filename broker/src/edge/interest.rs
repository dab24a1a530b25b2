//! Who on this edge is interested in what: the users of its sessions with their stints, and conversation → sessions.
//!
//! A user's stints are as of max(`as_of`, the edge's `seen`): the attach brought them as of `as_of`, and the edge applies
//! the membership signals beyond it in position order. So a second session of a user needs no stints of its own.

use std::rc::Rc;
use std::sync::Arc;

use carillon_core::effect::{Forgotten, Moment, StintView};
use carillon_core::limits::{PAST_CONVERSATIONS_A_USER_MAX, STINTS_MAX};
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::kinds::HistoryPolicy;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use smallvec::SmallVec;

use super::datagrams::has_open_stint;

/// A user who has sessions on this edge.
#[derive(Debug, Default)]
pub(super) struct EdgeUser {
    /// Connection indexes of the user's sessions.
    pub(super) sessions: SmallVec<[u32; 2]>,
    /// By conversation, then by time. Shared with the lookups under way on reader threads, copied when it changes.
    pub(super) stints: Arc<Vec<StintView>>,
    /// Stints that there were too many of: whoever has not read past them is told.
    pub(super) forgotten: Vec<Forgotten>,
    /// Grows with each change of `forgotten`.
    pub(super) forgotten_changes: u64,
    /// Signals up to here are in the stints already.
    pub(super) as_of: Position,
    /// The edge missed signals: the stints wait for the next attach.
    pub(super) stale: bool,
}

/// What an attach says of a user's stints.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) stints: Vec<StintView>,
    pub(super) forgotten: Vec<Forgotten>,
}

/// Connection indexes, ascending. Shared with the rounds that go over it, copied when it changes under them.
pub(super) type Audience = Rc<Vec<u32>>;

/// The tables of interest.
#[derive(Debug, Default)]
pub(super) struct Interest {
    users: HashMap<(TenantId, UserId), EdgeUser, FxBuildHasher>,
    conversations: HashMap<ConversationId, Audience, FxBuildHasher>,
}

impl Interest {
    pub(super) fn user(&self, tenant: TenantId, user: UserId) -> Option<&EdgeUser> {
        self.users.get(&(tenant, user))
    }

    /// Whether the user is a member now, as far as is known here for sure.
    pub(super) fn is_member(&self, tenant: TenantId, user: UserId, conversation: ConversationId) -> bool {
        self.user(tenant, user).is_some_and(|known| !known.stale && has_open_stint(&known.stints, conversation))
    }

    /// The sessions that a frame of the conversation goes to.
    pub(super) fn audience(&self, conversation: ConversationId) -> Option<&Audience> {
        self.conversations.get(&conversation)
    }

    /// Registers a session. What is known of the user counts only if it is not known here or stale; returns whether it did.
    pub(super) fn add_session(
        &mut self,
        tenant: TenantId,
        user: UserId,
        session: u32,
        known_then: Known,
        as_of: Position,
    ) -> bool {
        if let Some(known) = self.users.get_mut(&(tenant, user)) {
            if !known.sessions.contains(&session) {
                known.sessions.push(session);
            }
            if known.stale {
                self.replace_stints(tenant, user, known_then, as_of);
                return true;
            }
            for conversation in open(&known.stints) {
                listen(&mut self.conversations, conversation, session);
            }
            return false;
        }
        let Known { stints, forgotten } = known_then;
        for conversation in open(&stints) {
            listen(&mut self.conversations, conversation, session);
        }
        let (sessions, stints) = (SmallVec::from_slice(&[session]), Arc::new(stints));
        let known = EdgeUser { sessions, stints, forgotten, forgotten_changes: 1, as_of, stale: false };
        self.users.insert((tenant, user), known);
        true
    }

    /// Forgets a session, and the user with its last one.
    pub(super) fn remove_session(&mut self, tenant: TenantId, user: UserId, session: u32) {
        let Some(known) = self.users.get_mut(&(tenant, user)) else { return };
        known.sessions.retain(|other| *other != session);
        for conversation in open(&known.stints) {
            unlisten(&mut self.conversations, conversation, session);
        }
        if known.sessions.is_empty() {
            self.users.remove(&(tenant, user));
        }
    }

    /// The edge missed signals: what it knows of its users' stints counts no longer.
    pub(super) fn mark_stale(&mut self) {
        for user in self.users.values_mut() {
            user.stale = true;
        }
    }

    fn replace_stints(&mut self, tenant: TenantId, user: UserId, known_then: Known, as_of: Position) {
        let Known { stints, forgotten } = known_then;
        let Some(known) = self.users.get_mut(&(tenant, user)) else { return };
        known.stale = false;
        for session in &known.sessions {
            for conversation in open(&known.stints) {
                unlisten(&mut self.conversations, conversation, *session);
            }
            for conversation in open(&stints) {
                listen(&mut self.conversations, conversation, *session);
            }
        }
        known.stints = Arc::new(stints);
        known.forgotten = forgotten;
        known.forgotten_changes += 1;
        known.as_of = as_of;
    }

    /// Applies a `MembersAdded` signal to one user.
    pub(super) fn begin_stint(
        &mut self,
        tenant: TenantId,
        user: UserId,
        (conversation, history): (ConversationId, HistoryPolicy),
        joined: Moment,
    ) {
        let Some(known) = self.users.get_mut(&(tenant, user)) else { return };
        if joined.position <= known.as_of {
            return;
        }
        let stints = Arc::make_mut(&mut known.stints);
        let at = stints.partition_point(|stint| stint.conversation <= conversation);
        stints.insert(at, StintView { conversation, joined, left: None, history });
        // As the shard does: whoever comes and goes for ever keeps the newest stints.
        let first = stints.partition_point(|stint| stint.conversation < conversation);
        if at - first >= STINTS_MAX {
            let oldest = stints.remove(first);
            known.forget(&oldest);
        }
        for session in &known.sessions {
            listen(&mut self.conversations, conversation, *session);
        }
    }

    /// Applies a `MembersRemoved` signal to one user.
    pub(super) fn end_stint(&mut self, tenant: TenantId, user: UserId, conversation: ConversationId, left: Moment) {
        let Some(known) = self.users.get_mut(&(tenant, user)) else { return };
        if left.position <= known.as_of {
            return;
        }
        let stints = Arc::make_mut(&mut known.stints);
        let open = stints.iter_mut().find(|stint| stint.conversation == conversation && stint.left.is_none());
        let Some(stint) = open else { return };
        stint.left = Some(left);
        for session in &known.sessions {
            unlisten(&mut self.conversations, conversation, *session);
        }
        known.forget_left_first();
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.users.is_empty() && self.conversations.is_empty()
    }
}

impl EdgeUser {
    fn forget(&mut self, stint: &StintView) {
        let (conversation, Some(last)) = (stint.conversation, stint.left) else { return };
        self.forgotten_changes += 1;
        match self.forgotten.iter_mut().find(|range| range.conversation == conversation) {
            Some(range) => range.last = last,
            None => self.forgotten.push(Forgotten { conversation, first: stint.joined.seq.next(), last }),
        }
    }

    /// As the shard does: whoever makes groups and leaves them for ever keeps those left last. Without it the list of a user who
    /// is here for months would grow with each of them.
    fn forget_left_first(&mut self) {
        if self.stints.len() <= PAST_CONVERSATIONS_A_USER_MAX {
            return;
        }
        let by_conversation = self.stints.chunk_by(|a, b| a.conversation == b.conversation);
        let past = by_conversation.filter_map(|stints| stints.last()?.left.map(|left| (left, stints[0].conversation)));
        let past: Vec<(Moment, ConversationId)> = past.collect();
        let first = past.iter().min_by_key(|(left, _)| left.position);
        let Some((left, conversation)) = first.filter(|_| past.len() > PAST_CONVERSATIONS_A_USER_MAX) else { return };
        Arc::make_mut(&mut self.stints).retain(|stint| stint.conversation != *conversation);
        // Which they were is not known any more: there is one range for all of them.
        self.forgotten.retain(|range| range.conversation != *conversation && range.conversation != ConversationId(0));
        let last = Moment { seq: Seq(0), position: left.position };
        self.forgotten.push(Forgotten { conversation: ConversationId(0), first: Seq(0), last });
        self.forgotten_changes += 1;
    }

    /// Whether the user was a member when the record at this position was made, as far as is known here for sure. Stints may be newer than
    /// the record: who joined after it was none.
    pub(super) fn was_member(&self, conversation: ConversationId, position: Position) -> bool {
        let spans = |s: &StintView| s.joined.position < position && s.left.is_none_or(|left| position <= left.position);
        !self.stale && self.stints_in(conversation).iter().any(spans)
    }

    /// The user's stints in one conversation, by time.
    pub(super) fn stints_in(&self, conversation: ConversationId) -> &[StintView] {
        let start = self.stints.partition_point(|stint| stint.conversation < conversation);
        let end = self.stints.partition_point(|stint| stint.conversation <= conversation);
        &self.stints[start..end]
    }
}

fn open(stints: &[StintView]) -> impl Iterator<Item = ConversationId> + '_ {
    stints.iter().filter(|stint| stint.left.is_none()).map(|stint| stint.conversation)
}

type Conversations = HashMap<ConversationId, Audience, FxBuildHasher>;

fn listen(conversations: &mut Conversations, conversation: ConversationId, session: u32) {
    let audience = Rc::make_mut(conversations.entry(conversation).or_default());
    if let Err(at) = audience.binary_search(&session) {
        audience.insert(at, session);
    }
}

fn unlisten(conversations: &mut Conversations, conversation: ConversationId, session: u32) {
    let Some(audience) = conversations.get_mut(&conversation) else { return };
    let sessions = Rc::make_mut(audience);
    if let Ok(at) = sessions.binary_search(&session) {
        sessions.remove(at);
    }
    if sessions.is_empty() {
        conversations.remove(&conversation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: TenantId = TenantId(0);
    const U: UserId = UserId(1);

    fn stint(conversation: u64, joined: u64, left: Option<u64>) -> StintView {
        let (conversation, history) = (ConversationId(conversation), HistoryPolicy::JOINED);
        StintView { conversation, joined: at(joined), left: left.map(at), history }
    }

    /// In these tests every position has a message of every conversation.
    fn at(position: u64) -> Moment {
        Moment { seq: Seq(position), position: Position(position) }
    }

    fn known(stints: Vec<StintView>) -> Known {
        Known { stints, forgotten: Vec::new() }
    }

    fn joined(conversation: u64) -> (ConversationId, HistoryPolicy) {
        (ConversationId(conversation), HistoryPolicy::JOINED)
    }

    fn check(interest: &Interest, conversation: u64, expected: &[u32]) {
        let audience = interest.audience(ConversationId(conversation)).map(|a| a.to_vec()).unwrap_or_default();
        assert_eq!(audience, expected, "audience of {conversation}");
    }

    #[test]
    fn sessions_of_a_user_share_its_stints() {
        let mut interest = Interest::default();
        let stints = vec![stint(1, 3, None), stint(2, 4, Some(9))];
        assert!(interest.add_session(T, U, 7, known(stints), Position(10)));
        assert!(!interest.add_session(T, U, 3, known(vec![stint(5, 1, None)]), Position(11)));
        check(&interest, 1, &[3, 7]);
        check(&interest, 2, &[]);
        check(&interest, 5, &[]);
        interest.remove_session(T, U, 7);
        check(&interest, 1, &[3]);
        interest.remove_session(T, U, 3);
        assert!(interest.is_empty());
    }

    #[test]
    fn signals_up_to_the_attach_are_in_it_already() {
        let mut interest = Interest::default();
        interest.add_session(T, U, 1, known(vec![stint(1, 3, None)]), Position(10));
        interest.end_stint(T, U, ConversationId(1), at(10));
        interest.begin_stint(T, U, joined(2), at(9));
        check(&interest, 1, &[1]);
        check(&interest, 2, &[]);
        interest.end_stint(T, U, ConversationId(1), at(11));
        interest.begin_stint(T, U, joined(1), at(12));
        check(&interest, 1, &[1]);
        let user = interest.user(T, U).unwrap();
        assert_eq!(*user.stints, [stint(1, 3, Some(11)), stint(1, 12, None)]);
    }

    #[test]
    fn stale_stints_are_replaced_by_the_next_attach() {
        let mut interest = Interest::default();
        interest.add_session(T, U, 1, known(vec![stint(1, 3, None)]), Position(10));
        interest.add_session(T, U, 2, known(Vec::new()), Position(10));
        interest.mark_stale();
        assert!(interest.add_session(T, U, 1, known(vec![stint(1, 3, Some(20)), stint(2, 15, None)]), Position(30)));
        check(&interest, 1, &[]);
        check(&interest, 2, &[1, 2]);
        assert!(!interest.add_session(T, U, 2, known(Vec::new()), Position(31)));
        check(&interest, 2, &[1, 2]);
    }

    #[test]
    fn a_change_leaves_the_audience_of_a_round_under_way_alone() {
        let mut interest = Interest::default();
        interest.add_session(T, U, 1, known(vec![stint(1, 3, None)]), Position(10));
        let round = interest.audience(ConversationId(1)).unwrap().clone();
        interest.end_stint(T, U, ConversationId(1), at(11));
        assert_eq!(*round, [1]);
        check(&interest, 1, &[]);
    }

    #[test]
    fn the_stint_that_is_one_too_many_is_remembered_as_forgotten() {
        let mut interest = Interest::default();
        interest.add_session(T, U, 1, Known::default(), Position(0));
        for nth in 0..STINTS_MAX as u64 + 2 {
            interest.begin_stint(T, U, joined(1), at(2 * nth + 1));
            interest.end_stint(T, U, ConversationId(1), at(2 * nth + 2));
        }
        let user = interest.user(T, U).unwrap();
        assert_eq!(user.stints.len(), STINTS_MAX);
        assert_eq!(user.stints[0], stint(1, 5, Some(6)));
        assert_eq!(user.forgotten, [Forgotten { conversation: ConversationId(1), first: Seq(2), last: at(4) }]);
        assert_eq!(user.forgotten_changes, 3);
    }

    #[test]
    fn of_conversations_left_for_ever_those_left_last_are_kept() {
        let max = PAST_CONVERSATIONS_A_USER_MAX as u64;
        let stay = stint(max + 9, 1, None);
        let past = (1..=max).map(|nth| stint(nth, nth, Some(2 * max - nth))).chain([stay]).collect();
        let mut interest = Interest::default();
        interest.add_session(T, U, 1, known(past), Position(2 * max));
        // The last of them was left first, and then joined again: it is present, and left last.
        let come_and_go = |interest: &mut Interest, conversation, joined_at: u64| {
            interest.begin_stint(T, U, joined(conversation), at(joined_at));
            interest.end_stint(T, U, ConversationId(conversation), at(joined_at + 1));
        };
        come_and_go(&mut interest, max, 3 * max);
        let user = interest.user(T, U).unwrap();
        assert_eq!((user.stints.len() as u64, user.forgotten_changes), (max + 2, 1), "none is one too many");
        for nth in 1..=3 {
            come_and_go(&mut interest, max + nth, 3 * max + 2 * nth);
        }
        let user = interest.user(T, U).unwrap();
        let left = |nth: u64| user.stints_in(ConversationId(nth)).len();
        assert_eq!(
            [max - 4, max - 3, max - 2, max - 1, max, max + 1, max + 3, max + 9].map(left),
            [1, 0, 0, 0, 2, 1, 1, 1]
        );
        assert_eq!(user.stints.len() as u64, max + 2);
        let last = Moment { seq: Seq(0), position: Position(max + 3) };
        assert_eq!(user.forgotten, [Forgotten { conversation: ConversationId(0), first: Seq(0), last }]);
        assert_eq!(user.forgotten_changes, 4);
        check(&interest, max + 9, &[1]);
    }
}
