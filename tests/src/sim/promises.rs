//! Requests and what their replies promise: what a reply says is durable when a client reads it.

use carillon_protocol::Frame;
use carillon_protocol::ding_status::STEP_REMINDER;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, UserId};

use super::ledger::{Ledger, Who};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Add(ConversationId, Vec<UserId>),
    Remove(ConversationId, Vec<UserId>),
    Conversation,
    Ding { key: u64 },
    Confirm(DingId),
    Recall(DingId),
    Remind(DingId),
    Mark(ConversationId, Seq),
    Retire(u64),
    Watch,
    Unwatch,
    History,
}

/// A request without a reply.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) want: Want,
    /// The journal's head when it was asked.
    pub(super) head: Position,
    /// The sequencer's rounds until then.
    pub(super) round: u64,
}

impl Request {
    /// Whether the reply is one to this request, and true.
    pub(super) fn judge(&self, reply: &Frame, who: Who, ledger: &Ledger) -> Result<(), String> {
        let holds = match (&self.want, reply) {
            (_, Frame::Error(error)) if error.code == ErrorCode::NO_ROOM => self.may_lack_room(who, ledger),
            // A refusal says nothing that could be lost.
            (_, Frame::Error(_)) => true,
            (Want::Add(conversation, users), Frame::Done(_)) => users.iter().all(|user| {
                let mut stints = ledger.stints((who.0, *user), *conversation);
                stints.any(|(_, left)| left.is_none_or(|left| left > self.head))
            }),
            (Want::Remove(conversation, users), Frame::Done(_)) => users.iter().all(|user| {
                let mut stints = ledger.stints((who.0, *user), *conversation);
                stints.all(|(joined, left)| left.is_some() || joined > self.head)
            }),
            (Want::Conversation, Frame::ConversationCreated(created)) => {
                ledger.rooms.get(&created.conversation).is_some_and(|room| room.tenant == who.0)
            }
            (Want::Ding { key }, Frame::DingCreated(created)) => {
                let found = ledger.dings.get(&created.ding);
                found.is_some_and(|ding| (ding.tenant, ding.sender, ding.key) == (who.0, who.1, *key))
            }
            (Want::Confirm(ding), Frame::DingConfirmed(_)) => {
                ledger.dings.get(ding).is_some_and(|ding| ding.confirmed.contains(&who.1))
            }
            (Want::Recall(ding), Frame::Done(_)) => ledger.dings.get(ding).is_some_and(|ding| ding.ended),
            (Want::Remind(ding), Frame::DingReminded(_)) => ledger.dings.get(ding).is_some_and(|ding| {
                let mut reminders = ding.attempts.iter().filter(|attempt| attempt.step == STEP_REMINDER);
                reminders.any(|reminder| reminder.position > self.head)
            }),
            (Want::Mark(conversation, up_to), Frame::Marked(marked)) => {
                marked.conversation == *conversation
                    && marked.read_up_to >= *up_to
                    && has_read(who, (*conversation, *up_to), ledger)
            }
            (Want::Retire(id), Frame::Done(_)) => ledger.retired(who, *id).is_some_and(|at| at > self.head),
            (Want::Watch | Want::Unwatch, Frame::Done(_)) => true,
            (_, _) => false,
        };
        if holds { Ok(()) } else { Err(format!("{reply:?} answers {self:?}, and does not hold")) }
    }
}

/// A member has marked a message, or what was there when it joined needs no mark.
fn has_read(who: Who, (conversation, up_to): (ConversationId, Seq), ledger: &Ledger) -> bool {
    let position = ledger.position_of(conversation, up_to).unwrap_or_default();
    let before = |(joined, _): (Position, Option<Position>)| position <= joined;
    let marked = ledger.marks().map(|(_, marked)| marked);
    let mut own = marked.filter(|(tenant, mark)| (*tenant, mark.user) == who && mark.conversation == conversation);
    own.any(|(_, mark)| mark.read_up_to >= up_to) || ledger.stints(who, conversation).any(before)
}
