//! DINGs that were given to the application: which it has had, and which it still shows.
//!
//! A session begins with the pushes of all DINGs that wait for the user; `Welcome` says how many. So what the application
//! shows and what is not among them ended while there was no connection. `DingsOpen` says the same inside a session, of a broker that may have
//! missed what was over.

use std::collections::{HashSet, VecDeque};

use carillon_protocol::ding_status::{DingUpdate, USER_NONE};
use carillon_protocol::ids::{DingId, UserId};

use crate::limits::DINGS_SHOWN_MAX;

/// Oldest first; bounded.
#[derive(Debug, Default)]
pub(super) struct Shown {
    known: HashSet<DingId>,
    order: VecDeque<DingId>,
    /// Known, and not told to be over.
    open: HashSet<DingId>,
    /// Pushes of all that is open that have not come yet.
    awaited: u32,
    /// Those of them that have come and are known.
    come: HashSet<DingId>,
}

impl Shown {
    pub(super) fn has(&self, ding: DingId) -> bool {
        self.known.contains(&ding)
    }

    /// It is given to the application.
    pub(super) fn insert(&mut self, ding: DingId) {
        if !self.known.insert(ding) {
            return;
        }
        self.open.insert(ding);
        self.order.push_back(ding);
        if self.order.len() > DINGS_SHOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.open.remove(&oldest);
        }
    }

    /// Pushes of all that is open begin, so many; returns what is over if there are none.
    pub(super) fn begin_pushes(&mut self, dings_open: u32) -> Vec<DingId> {
        self.awaited = dings_open;
        self.come.clear();
        if dings_open == 0 { self.take_over() } else { Vec::new() }
    }

    /// A push has come; returns what is over, with the last of those of all that is open.
    pub(super) fn push(&mut self, ding: DingId) -> Vec<DingId> {
        if self.awaited == 0 {
            return Vec::new();
        }
        self.awaited -= 1;
        if self.has(ding) {
            self.come.insert(ding);
        }
        if self.awaited == 0 { self.take_over() } else { Vec::new() }
    }

    /// A DING may be over for this user.
    pub(super) fn update(&mut self, update: &DingUpdate, user: UserId) {
        if update.user == user || update.user == USER_NONE {
            self.open.remove(&update.ding);
        }
    }

    fn take_over(&mut self) -> Vec<DingId> {
        let mut over: Vec<_> = self.open.difference(&self.come).copied().collect();
        over.sort_unstable();
        over.iter().for_each(|ding| {
            self.open.remove(ding);
        });
        self.come.clear();
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::ids::Timestamp;
    use carillon_protocol::kinds::DingState;

    fn shown(dings: &[u64]) -> Shown {
        let mut shown = Shown::default();
        shown.begin_pushes(0);
        dings.iter().for_each(|ding| shown.insert(DingId(*ding)));
        shown
    }

    #[test]
    fn the_oldest_ding_is_forgotten_when_there_are_too_many() {
        let mut shown = Shown::default();
        for id in 0..=DINGS_SHOWN_MAX as u64 {
            shown.insert(DingId(id));
            shown.insert(DingId(id));
        }
        assert_eq!((shown.known.len(), shown.order.len()), (DINGS_SHOWN_MAX, DINGS_SHOWN_MAX));
        assert!(!shown.has(DingId(0)) && shown.has(DingId(1)) && shown.open.len() == DINGS_SHOWN_MAX);
    }

    #[test]
    fn what_is_not_among_the_first_pushes_of_a_session_is_over_once() {
        let mut three = shown(&[1, 2, 3]);
        assert_eq!(three.begin_pushes(2), []);
        assert_eq!(three.push(DingId(2)), []);
        // One that is new counts among them.
        assert_eq!(three.push(DingId(9)), [DingId(1), DingId(3)]);
        three.insert(DingId(9));
        assert_eq!(three.push(DingId(4)), [], "a later push says nothing of others");
        assert_eq!(three.begin_pushes(0), [DingId(2), DingId(9)]);
        assert_eq!(three.begin_pushes(0), []);
    }

    #[test]
    fn what_was_told_to_be_over_is_not_told_again() {
        let mut three = shown(&[1, 2, 3]);
        let (state, time, confirmed, recipients) = (DingState::CONFIRMED, Timestamp(1), 1, 2);
        let update = |ding, user| DingUpdate { ding: DingId(ding), user, state, time, confirmed, recipients };
        three.update(&update(1, UserId(7)), UserId(7));
        three.update(&update(2, USER_NONE), UserId(7));
        three.update(&update(3, UserId(8)), UserId(7));
        assert_eq!(three.begin_pushes(0), [DingId(3)]);
    }

    #[test]
    fn pushes_of_all_that_is_open_may_begin_anew_inside_a_session() {
        let mut three = shown(&[1, 2, 3]);
        assert_eq!((three.begin_pushes(1), three.push(DingId(2))), (vec![], vec![DingId(1), DingId(3)]));
        assert_eq!(three.push(DingId(9)), [], "it is live");
        three.insert(DingId(9));
        assert_eq!((three.begin_pushes(1), three.push(DingId(9))), (vec![], vec![DingId(2)]));
        assert_eq!(three.begin_pushes(0), [DingId(9)]);
    }

    #[test]
    fn a_session_that_ends_early_says_nothing() {
        let mut two = shown(&[1, 2]);
        assert_eq!((two.begin_pushes(2), two.push(DingId(1))), (vec![], vec![]));
        assert_eq!((two.begin_pushes(1), two.push(DingId(2))), (vec![], vec![DingId(1)]));
    }
}
