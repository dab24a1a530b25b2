//! What a crowd has got of the messages of one conversation: each session each message, once and in order.

use carillon_protocol::deliver::Deliver;
use carillon_protocol::ids::ConversationId;

use crate::fleet::SessionIndex;
use crate::publisher::index_in;

/// See the module.
#[derive(Debug)]
pub(crate) struct Inboxes {
    run: u64,
    conversation: ConversationId,
    first: SessionIndex,
    /// By session: the message that it must get next.
    next: Vec<u32>,
    pub(crate) delivered: u64,
    /// What came again, or ahead of its turn.
    pub(crate) misplaced: u64,
}

impl Inboxes {
    /// Of so many sessions, from this one on.
    pub(crate) fn new(run: u64, conversation: ConversationId, first: SessionIndex, sessions: usize) -> Self {
        Self { run, conversation, first, next: vec![0; sessions], delivered: 0, misplaced: 0 }
    }

    /// A session got a message; answers which of them it is, if it was its turn.
    pub(crate) fn take(&mut self, session: SessionIndex, deliver: &Deliver) -> Option<u32> {
        let next = self.next.get_mut(session.checked_sub(self.first)?)?;
        let index = index_in(&deliver.payload, self.run).filter(|_| deliver.conversation == self.conversation)?;
        let is_next = index == *next;
        if is_next {
            self.delivered += 1;
        } else {
            self.misplaced += 1;
        }
        *next = (*next).max(index + 1);
        is_next.then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::payload;
    use carillon_protocol::ids::{Position, Seq, Timestamp, UserId};
    use carillon_protocol::kinds::MessageKind;

    const HERE: ConversationId = ConversationId(9);

    /// Gives session 4 these messages of run 5 and says what was counted.
    fn check(conversation: ConversationId, indices: &[u32], delivered: u64, misplaced: u64) {
        let mut inboxes = Inboxes::new(5, HERE, 4, 1);
        for index in indices {
            let deliver = Deliver {
                position: Position(1),
                conversation,
                seq: Seq(1),
                author: UserId(0),
                time: Timestamp(0),
                kind: MessageKind::TEXT,
                payload: payload(5, *index, 16),
            };
            inboxes.take(4, &deliver);
            assert!(inboxes.take(5, &deliver).is_none() && inboxes.take(3, &deliver).is_none());
        }
        assert_eq!((inboxes.delivered, inboxes.misplaced), (delivered, misplaced), "{indices:?}");
    }

    #[test]
    fn what_comes_in_order_counts_and_nothing_else() {
        check(HERE, &[0, 1, 2], 3, 0);
        check(HERE, &[0, 0, 1], 2, 1);
        check(HERE, &[1, 0, 2], 1, 2);
        check(ConversationId(8), &[0, 1], 0, 0);
    }
}
