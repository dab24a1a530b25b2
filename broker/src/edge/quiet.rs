//! Live sessions to which nothing was addressed for long: they are told how far the journal is, so that their cursors do not
//! age.
//!
//! A fast journal makes all sessions quiet at once. So a tick chooses some of them, in turn by their place, and the turns
//! after it tell a few each: the cost follows neither the number of sessions nor the speed of the journal, and nothing else on
//! the edge waits for it.

use std::collections::VecDeque;

use carillon_transport::LinkKey;

use super::receipts::Told;
use super::session::{Feed, Session};
use super::{Edge, Links};

/// Who is to be told.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    waiting: VecDeque<LinkKey>,
    /// The place of the one that was told last.
    last: u32,
}

impl Quiet {
    /// Whether nobody is to be told now.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Chooses at most `count_max` of these, which ascend in their places: those behind the one that was told last come first.
    fn choose(&mut self, quiet: &[LinkKey], count_max: usize) {
        let (before, behind) = quiet.split_at(quiet.partition_point(|key| key.index <= self.last));
        self.waiting = behind.iter().chain(before).copied().take(count_max).collect();
    }

    fn next(&mut self) -> Option<LinkKey> {
        let key = self.waiting.pop_front()?;
        self.last = key.index;
        Some(key)
    }
}

impl Edge {
    /// Whether nothing was offered to a live session for long, or it may acknowledge read updates that it was told and of which that
    /// was not said, because counts were due. While they are, there is nothing to say.
    pub(super) fn is_quiet(&self, session: &Session) -> bool {
        let behind = self.seen.0.saturating_sub(session.inbox.sent.0);
        let owes = session.inbox.owes_through(self.told_through(self.seen));
        let due = behind >= self.limits.progress_positions || owes && matches!(session.inbox.told, Told::Live { .. });
        due && matches!(session.feed, Feed::Live { .. })
    }

    /// Chooses who is told in the turns until the next tick; whoever still waits is chosen anew.
    pub(super) fn choose_quiet(&mut self) {
        let quiet: Vec<_> = self.sessions.iter().filter(|session| self.is_quiet(session)).map(|s| s.key).collect();
        self.quiet.choose(&quiet, self.limits.progress_a_tick_max);
    }

    /// Tells a few. A session that an unfinished round has yet to visit must not be told that it has everything.
    pub(super) fn tell_quiet<L: Links>(&mut self, links: &mut L) {
        if !self.rounds.is_empty() {
            return;
        }
        for _ in 0..self.limits.progress_a_turn {
            let Some(key) = self.quiet.next() else { break };
            // It may have been offered something since, or have fallen behind.
            if self.sessions.at_key(key).is_some_and(|session| matches!(session.feed, Feed::Live { .. })) {
                self.tell_progress(links, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(places: &[u32]) -> Vec<LinkKey> {
        places.iter().map(|&index| LinkKey { index, generation: 1 }).collect()
    }

    /// Two are told a tick, of these that are quiet all the time; who, in the order of the ticks?
    fn check(places: &[u32], told: &[u32]) {
        let mut quiet = Quiet::default();
        let mut found = Vec::new();
        while found.len() < told.len() {
            quiet.choose(&keys(places), 2);
            found.extend(std::iter::from_fn(|| quiet.next()).map(|key| key.index));
        }
        assert_eq!(found, told, "of {places:?}");
    }

    #[test]
    fn all_get_their_turn() {
        check(&[1, 4, 5, 9, 12], &[1, 4, 5, 9, 12, 1, 4, 5]);
        check(&[0], &[0, 0, 0]);
        check(&[0, 7], &[7, 0, 7, 0]);
    }

    #[test]
    fn who_was_chosen_and_not_told_is_chosen_again() {
        let mut quiet = Quiet::default();
        quiet.choose(&keys(&[1, 2, 3]), 3);
        assert_eq!(quiet.next().map(|key| key.index), Some(1));
        quiet.choose(&keys(&[1, 2, 3]), 2);
        assert_eq!(quiet.next().map(|key| key.index), Some(2));
    }
}
