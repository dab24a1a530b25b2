//! Signals: what is true of a member for a moment. They may be lost, in either direction.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carillon_protocol::ids::ConversationId;
use carillon_protocol::kinds::SignalKind;
use carillon_protocol::limits::PRESENT_CONVERSATIONS_MAX;
use carillon_protocol::presence::Signal;
use tokio::sync::Notify;

use crate::client::Client;
use crate::limits::SIGNALS_QUEUED_MAX;
use crate::resets::Resets;

/// What the application signals, until the session sends it.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    state: Mutex<State>,
    /// There is something to send.
    pub(crate) due: Notify,
}

#[derive(Debug, Default)]
struct State {
    queued: VecDeque<Signal>,
    /// Where this client is present: said again in each session.
    present: Vec<ConversationId>,
}

impl Signals {
    // A std mutex: held for a few moves.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As with all that names an id, not while ids are void; a signal may be lost anyhow.
    fn push(&self, signal: Signal, resets: &Resets) {
        let mut state = self.state();
        // Under the lock: what is let in before a reset is found by `forget`.
        if resets.is_void() {
            return;
        }
        let known = state.present.iter().position(|present| *present == signal.conversation);
        match (signal.kind, known) {
            (SignalKind::PRESENT, None) if state.present.len() < PRESENT_CONVERSATIONS_MAX => {
                state.present.push(signal.conversation);
            }
            (SignalKind::AWAY, Some(known)) => drop(state.present.swap_remove(known)),
            _ => {}
        }
        // The newest is worth most.
        if state.queued.len() >= SIGNALS_QUEUED_MAX {
            state.queued.pop_front();
        }
        state.queued.push_back(signal);
        drop(state);
        self.due.notify_one();
    }

    /// Forgets where this client is present: ids are void already.
    pub(crate) fn forget(&self) {
        *self.state() = State::default();
    }

    /// The next signal to send.
    pub(crate) fn pop(&self) -> Option<Signal> {
        self.state().queued.pop_front()
    }

    /// A new session knows nothing of where this client is present; what was signalled without one is old.
    pub(crate) fn begin_session(&self) {
        let mut state = self.state();
        let again = |conversation: &ConversationId| Signal { conversation: *conversation, kind: SignalKind::PRESENT };
        let queued = state.present.iter().map(again).collect();
        state.queued = queued;
        drop(state);
        self.due.notify_one();
    }

    /// Whether this client is present there.
    pub(crate) fn is_present(&self, conversation: ConversationId) -> bool {
        self.state().present.contains(&conversation)
    }

    /// Says `PRESENT` again: another session of the user has ended, and the others took it for the user's last.
    pub(crate) fn say_present(&self, conversation: ConversationId, resets: &Resets) {
        self.push(Signal { conversation, kind: SignalKind::PRESENT }, resets);
    }
}

/// Signals to the members of a conversation who are online; they get [`Event::Signal`](crate::Event::Signal).
impl Client {
    /// Signals, if there is a session; returns at once, and nobody ever learns whether it arrived. Of more than 10 a second the
    /// broker lets go. `PRESENT`, in at most 8 conversations at a time, is said again in each new session until `AWAY`.
    pub fn signal(&self, conversation: ConversationId, kind: SignalKind) {
        self.shared().signals.push(Signal { conversation, kind }, &self.shared().resets);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_new_session_is_told_where_the_client_is_present_and_nothing_old() {
        let signals = Signals::default();
        let resets = Resets::default();
        let push = |id: u64, kind| signals.push(Signal { conversation: ConversationId(id), kind }, &resets);
        push(1, SignalKind::PRESENT);
        push(2, SignalKind::PRESENT);
        push(3, SignalKind::TYPING);
        push(1, SignalKind::AWAY);
        signals.begin_session();
        let due: Vec<_> = std::iter::from_fn(|| signals.pop()).collect();
        assert_eq!(due, [Signal { conversation: ConversationId(2), kind: SignalKind::PRESENT }]);
        signals.forget();
        signals.begin_session();
        assert_eq!(signals.pop(), None);
    }

    #[test]
    fn the_oldest_signals_are_let_go_of() {
        let (signals, resets) = (Signals::default(), Resets::default());
        for id in 0..=SIGNALS_QUEUED_MAX as u64 {
            signals.push(Signal { conversation: ConversationId(id), kind: SignalKind::TYPING }, &resets);
        }
        let due: Vec<_> = std::iter::from_fn(|| signals.pop()).collect();
        assert_eq!((due.len(), due[0].conversation), (SIGNALS_QUEUED_MAX, ConversationId(1)));
    }

    #[test]
    fn who_says_present_during_a_reset_is_not_present_after_it() {
        let conversation = ConversationId(1);
        for _ in 0..1_000 {
            let (signals, resets, start) = (Signals::default(), Resets::default(), Barrier::new(2));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    // So often that the reset falls into the midst of one.
                    while !resets.is_void() {
                        signals.push(Signal { conversation, kind: SignalKind::PRESENT }, &resets);
                    }
                });
                start.wait();
                resets.begin();
                signals.forget();
            });
            assert!(!signals.is_present(conversation));
        }
    }
}
