//! Whether the ids that the application holds are of the journal that is served.
//!
//! When the broker serves another journal than before, every id that the application knows may belong to somebody else. From then on
//! nothing that names an id is accepted from it, until it has said that it dropped them: by asking for the next event after
//! `Event::Reset`, or outright.
//!
//! Invariants: the ids are void before anything of the old journal is let go of, so that nothing is accepted in between; what was
//! begun before a reset, and waited, is not accepted after it; the store keeps that a reset is due until the application is done with
//! it, so that the next process tells it if this one cannot.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    /// How many there were.
    count: u64,
    /// The application may hold ids of another journal.
    is_void: bool,
    /// `Event::Reset` is to be put in the queue.
    is_due: bool,
    /// So often it was put there.
    said: u64,
    /// So often it was taken.
    given: u64,
    /// The store keeps that a reset is due.
    is_kept: bool,
    /// The application is done with what the store keeps.
    is_done: bool,
}

/// The resets of a client. A std mutex: held for a few instructions, also inside that of the publishes.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    state: Mutex<State>,
    taken: Notify,
    /// The store may have something to forget.
    pub(crate) done: Notify,
}

impl Resets {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal is another: ids are void.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        state.count += 1;
        state.is_void = true;
        state.is_due = true;
        state.is_done = false;
    }

    /// The application is to be told by [`Client::recovered`](crate::Client::recovered) alone: the ids it holds are of the journal
    /// that is served.
    pub(crate) fn begin_unsaid(&self) {
        self.state().is_done = false;
    }

    /// The store keeps that a reset is due.
    pub(crate) fn keep(&self) {
        self.state().is_kept = true;
    }

    /// Whether the store is to forget that a reset was due; it counts as forgotten.
    pub(crate) fn take_done(&self) -> bool {
        let mut state = self.state();
        let is_over = state.is_kept && state.is_done;
        state.is_kept &= !is_over;
        is_over
    }

    /// How many resets there were: what was begun at another count names ids of another journal.
    pub(crate) fn count(&self) -> u64 {
        self.state().count
    }

    /// Whether what names ids, and was begun at this count, must not be accepted.
    pub(crate) fn voids(&self, count: u64) -> bool {
        let state = self.state();
        state.is_void || state.count != count
    }

    /// Whether the application holds void ids.
    pub(crate) fn is_void(&self) -> bool {
        self.state().is_void
    }

    /// Whether `Event::Reset` is to be said.
    pub(crate) fn is_due(&self) -> bool {
        self.state().is_due
    }

    /// `Event::Reset` goes into the queue now.
    pub(crate) fn say(&self) {
        let mut state = self.state();
        state.is_due = false;
        state.said += 1;
    }

    /// Nobody takes events any more. The ids stay void: nobody was told.
    pub(crate) fn say_to_nobody(&self) {
        self.state().is_due = false;
    }

    /// The application has been given an `Event::Reset`.
    pub(crate) fn give(&self) {
        self.state().given += 1;
        self.taken.notify_waiters();
    }

    /// The application is done with the `Event::Reset` it was given last.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        if state.is_told() {
            state.is_void = false;
            state.is_done = true;
            self.done.notify_one();
        }
    }

    /// The application has asked what became of earlier publishes.
    pub(crate) fn hear(&self) {
        let mut state = self.state();
        if !state.is_void {
            state.is_done = true;
            self.done.notify_one();
        }
    }

    /// The application says that it holds no id from before.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.state();
        state.is_void = false;
        state.is_done = true;
        self.done.notify_one();
    }

    /// Waits until the application was given every `Event::Reset`. Cancel safe.
    pub(crate) async fn told(&self) {
        loop {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            // Before the look at the state, so that nothing is missed between.
            taken.as_mut().enable();
            if self.state().is_told() {
                return;
            }
            taken.await;
        }
    }
}

impl State {
    fn is_told(&self) -> bool {
        !self.is_due && self.given == self.said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_void_until_every_reset_was_dealt_with() {
        let resets = Resets::default();
        let before = resets.count();
        assert!(!resets.voids(before));
        resets.begin();
        resets.say();
        resets.settle();
        assert!(resets.is_void(), "the application was not given it");
        resets.give();
        assert!(resets.is_void(), "it was, and may be dropping its ids");
        resets.begin();
        resets.settle();
        assert!(resets.is_void(), "there is another");
        resets.say();
        resets.give();
        resets.settle();
        assert!(!resets.is_void());
        assert!(resets.voids(before), "what was begun before it is of another journal");
        assert!(!resets.voids(resets.count()));
    }

    #[test]
    fn without_events_only_the_application_says_when_it_is_over() {
        let resets = Resets::default();
        resets.begin();
        resets.say_to_nobody();
        assert!(resets.is_void());
        resets.begin_anew();
        assert!(!resets.is_void());
    }

    #[test]
    fn the_store_keeps_it_until_the_application_is_done() {
        let resets = Resets::default();
        resets.begin();
        resets.keep();
        resets.say();
        resets.give();
        resets.hear();
        assert!(!resets.take_done(), "it may still be dropping its ids");
        resets.settle();
        assert!(resets.take_done() && !resets.take_done(), "once");
        resets.begin_unsaid();
        resets.keep();
        assert!(!resets.take_done());
        resets.hear();
        assert!(resets.take_done());
    }
}
