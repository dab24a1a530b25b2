//! What is told about DINGs without being asked: this device has one, and how far those that are watched have come.
//!
//! Invariants: what is queued is of the present session; a watch is asked for in every session until it is given up; progress of one
//! DING is told in the order of its positions.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use carillon_protocol::ding::DingReceived;
use carillon_protocol::ding_status::DingProgress;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DingId, Position};
use carillon_protocol::kinds::DingState;
use carillon_protocol::limits::DINGS_WATCHED_MAX;
use tokio::sync::Notify;

use crate::error::RequestError;
use crate::limits::{DINGS_FOLLOWED_MAX, DINGS_RECEIVED_QUEUED_MAX};
use crate::resets::Resets;

#[derive(Debug, Default)]
struct State {
    /// This device has them; the broker is to be told.
    received: VecDeque<DingId>,
    /// In which session each is, or was, asked for last.
    watched: BTreeMap<DingId, u64>,
    /// The present session, by number.
    session: u64,
    /// The position of the progress told last, of each DING.
    told: HashMap<DingId, Position>,
    /// The DINGs in `told`, the one known longest first.
    order: VecDeque<DingId>,
}

/// News of DINGs, in both directions. A std mutex: held for a few moves.
#[derive(Debug, Default)]
pub(crate) struct DingNews {
    state: Mutex<State>,
    /// There is something to send.
    pub(crate) due: Notify,
}

impl DingNews {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This device has a DING. When there are too many to be told, this one is let go of: its next push says it again.
    pub(crate) fn receive(&self, ding: DingId) {
        let mut state = self.state();
        if state.received.len() < DINGS_RECEIVED_QUEUED_MAX {
            state.received.push_back(ding);
            drop(state);
            self.due.notify_one();
        }
    }

    /// The frames that tell the broker what this device has.
    pub(crate) fn take_received(&self, frames: &mut BytesMut) {
        for ding in self.state().received.drain(..) {
            DingReceived { ding }.encode(frames);
        }
    }

    /// What was to be told in the last session is pushed anew in this one, and nothing is watched in it yet. Before anybody can ask for
    /// anything in it.
    pub(crate) fn begin_session(&self) {
        let mut state = self.state();
        state.received.clear();
        state.session += 1;
    }

    /// Forgets everything: ids are void already.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        *state = State { session: state.session, ..State::default() };
    }

    /// A DING is to be watched in each session.
    pub(crate) fn watch(&self, ding: DingId, resets: &Resets) -> Result<(), RequestError> {
        let mut state = self.state();
        // Under the lock: what is let in before a reset is found by `forget`.
        if resets.is_void() {
            return Err(RequestError::Reset);
        }
        let have = state.watched.len() + usize::from(!state.watched.contains_key(&ding));
        if have > DINGS_WATCHED_MAX {
            return Err(RequestError::TooLarge { what: "DINGs watched", have, max: DINGS_WATCHED_MAX });
        }
        let session = state.session;
        state.watched.insert(ding, session);
        Ok(())
    }

    /// A DING is to be watched no longer.
    pub(crate) fn unwatch(&self, ding: DingId) {
        self.state().watched.remove(&ding);
    }

    /// A watched DING that was not asked for in the present session.
    pub(crate) fn unrenewed(&self) -> Option<DingId> {
        let state = self.state();
        state.watched.iter().find(|(_, session)| **session < state.session).map(|(ding, _)| *ding)
    }

    /// A DING was asked for in the present session.
    pub(crate) fn renew(&self, ding: DingId) {
        let mut state = self.state();
        let session = state.session;
        if let Some(asked) = state.watched.get_mut(&ding) {
            *asked = session;
        }
    }

    /// Whether this is no older than what was told of its DING last; then it counts as told. A DING that is over is watched no more.
    pub(crate) fn is_news(&self, progress: &DingProgress) -> bool {
        let mut state = self.state();
        let DingProgress { ding, position, .. } = *progress;
        if progress.state != DingState::SENT && progress.state != DingState::SCHEDULED {
            state.watched.remove(&ding);
        }
        match state.told.insert(ding, position) {
            // Records that move one DING several times have one position.
            Some(told) if told > position => {
                state.told.insert(ding, told);
                return false;
            }
            Some(_) => {}
            None => state.order.push_back(ding),
        }
        if state.order.len() > DINGS_FOLLOWED_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.told.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::ids::Timestamp;

    fn progress(ding: u64, position: u64, state: DingState) -> DingProgress {
        let (ding, position, time) = (DingId(ding), Position(position), Timestamp(1));
        DingProgress { ding, state, time, position, recipients: 2, delivered: 0, confirmed: 0, failed: 0 }
    }

    #[test]
    fn progress_goes_forward_for_each_ding_by_itself() {
        let news = DingNews::default();
        let is_news = |ding, position| news.is_news(&progress(ding, position, DingState::SENT));
        assert!(is_news(1, 5) && is_news(1, 6) && is_news(2, 3), "each goes its own way");
        assert!(!is_news(1, 5), "it came late");
        assert!(is_news(1, 6), "one record may move it twice");
        assert!(is_news(1, 7));
        news.forget();
        assert!(is_news(1, 1), "another journal begins anew");
    }

    #[test]
    fn the_ding_known_longest_is_forgotten_when_there_are_too_many() {
        let news = DingNews::default();
        for ding in 0..=DINGS_FOLLOWED_MAX as u64 {
            assert!(news.is_news(&progress(ding, 9, DingState::SENT)));
        }
        assert!(!news.is_news(&progress(1, 8, DingState::SENT)), "the second one is known");
        assert!(news.is_news(&progress(0, 8, DingState::SENT)), "the first one is not");
        let state = news.state();
        assert_eq!((state.told.len(), state.order.len()), (DINGS_FOLLOWED_MAX, DINGS_FOLLOWED_MAX));
    }

    #[test]
    fn watches_are_bounded_and_end_with_the_ding() {
        let (news, resets) = (DingNews::default(), Resets::default());
        for ding in 1..=DINGS_WATCHED_MAX as u64 {
            news.watch(DingId(ding), &resets).unwrap();
        }
        news.watch(DingId(1), &resets).unwrap();
        assert!(matches!(news.watch(DingId(999), &resets), Err(RequestError::TooLarge { have: 65, max: 64, .. })));
        assert!(news.is_news(&progress(2, 1, DingState::CONFIRMED)));
        news.watch(DingId(999), &resets).unwrap();
        assert_eq!(news.unrenewed(), None, "all were asked for in this session");
        news.begin_session();
        news.watch(DingId(3), &resets).unwrap();
        news.unwatch(DingId(999));
        let renewed = std::iter::from_fn(|| news.unrenewed().inspect(|ding| news.renew(*ding)));
        let renewed: Vec<_> = renewed.map(|ding| ding.0).collect();
        assert_eq!(renewed, std::iter::once(1).chain(4..=DINGS_WATCHED_MAX as u64).collect::<Vec<_>>());
        resets.begin();
        assert!(matches!(news.watch(DingId(7), &resets), Err(RequestError::Reset)));
    }

    #[test]
    fn what_is_too_much_to_be_told_is_let_go_of() {
        let news = DingNews::default();
        for ding in 0..=DINGS_RECEIVED_QUEUED_MAX as u64 {
            news.receive(DingId(ding));
        }
        assert_eq!(news.state().received.len(), DINGS_RECEIVED_QUEUED_MAX);
        let mut frames = BytesMut::new();
        news.take_received(&mut frames);
        assert!(!frames.is_empty());
        news.receive(DingId(1));
        news.begin_session();
        frames.clear();
        news.take_received(&mut frames);
        assert!(frames.is_empty(), "it was of the last session");
    }
}
