//! Calls that wait to be handed to outlets. They follow from the attempts' states and are no part of what is written down.
//!
//! A call waits from the record that makes it due until it is handed out, and after a restart until its outcome is recorded. So
//! an outlet may be as slow as it likes: what it has no room for waits here, at some 120 bytes each in
//! trees, and nothing is lost. DINGs take turns ([`Turns`]); within a round, and within a DING, it is by when the attempt began.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use carillon_protocol::ids::Timestamp;
use carillon_protocol::kinds::Outlet;

use crate::effect::{CallKey, Verb};
use crate::turns::Turns;

/// What waits for one outlet. Each queue is taken from on its own, so that none that finds no room holds up another.
#[derive(Debug, Default, PartialEq, Eq)]
struct Waiting {
    /// Cancels of starts that never were handed out: they need no call.
    moot: Turns<Timestamp>,
    cancels: Turns<Timestamp>,
    starts: Turns<Timestamp>,
    /// Starts that an earlier process may have handed out, among those that wait.
    again: BTreeSet<CallKey>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.moot.len() + self.cancels.len() + self.starts.len()
    }

    fn queue(&mut self, verb: Verb) -> &mut Turns<Timestamp> {
        match verb {
            Verb::Cancel => &mut self.cancels,
            Verb::Start => &mut self.starts,
        }
    }
}

/// The calls of all outlets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    waiting: BTreeMap<Outlet, Waiting>,
    /// Starts that are in an outlet's hands: handed out since the last resume, and it has not said what became of them.
    out: BTreeMap<CallKey, Outlet>,
    /// Those of them that are moot while their cancels wait: the outlet is to be told that it may not try them again.
    called_off: BTreeMap<Outlet, BTreeSet<CallKey>>,
}

impl Calls {
    /// An attempt began, then.
    pub(crate) fn start(&mut self, outlet: Outlet, key: CallKey, began: Timestamp) {
        self.waiting.entry(outlet).or_default().starts.insert(began, key);
    }

    /// An attempt that began then is moot: its start is not handed out any more, its cancel is.
    pub(crate) fn cancel(&mut self, outlet: Outlet, key: CallKey, began: Timestamp) {
        let waiting = self.waiting.entry(outlet).or_default();
        let never_handed = waiting.starts.remove(&key) && !waiting.again.remove(&key);
        if never_handed {
            waiting.moot.insert(began, key);
        } else {
            waiting.cancels.insert(began, key);
        }
        if self.out.get(&key) == Some(&outlet) {
            self.called_off.entry(outlet).or_default().insert(key);
        }
    }

    /// The outcome of a call is recorded.
    pub(crate) fn settle(&mut self, outlet: Outlet, verb: Verb, key: CallKey) {
        self.change(outlet, |waiting| {
            waiting.queue(verb).remove(&key);
            match verb {
                Verb::Cancel => waiting.moot.remove(&key),
                Verb::Start => waiting.again.remove(&key),
            }
        });
        if verb == Verb::Cancel {
            self.told(outlet, &key);
        }
    }

    /// An outlet says what became of a start: it is not in its hands any more. A gateway's callback does not say so.
    pub(crate) fn come_back(&mut self, key: CallKey) {
        if let Some(outlet) = self.out.remove(&key) {
            self.told(outlet, &key);
        }
    }

    /// The outlet need not be told any more that a start is moot.
    fn told(&mut self, outlet: Outlet, key: &CallKey) {
        if let Some(keys) = self.called_off.get_mut(&outlet) {
            keys.remove(key);
            if keys.is_empty() {
                self.called_off.remove(&outlet);
            }
        }
    }

    /// After replay: what waits may have been handed out before. Turns are given out anew by when the attempts began, so that they
    /// follow from the state alone, whether it was replayed or read.
    pub(crate) fn resume(&mut self) {
        self.out.clear();
        self.called_off.clear();
        for waiting in self.waiting.values_mut() {
            let Waiting { moot, cancels, starts, .. } = core::mem::take(waiting);
            waiting.cancels = anew(cancels.iter().chain(moot.iter()));
            waiting.starts = anew(starts.iter());
            waiting.again = waiting.starts.iter().map(|(_, key)| key).collect();
        }
    }

    /// The next call of an outlet that does this; it waits no longer.
    pub(crate) fn take(&mut self, outlet: Outlet, verb: Verb) -> Option<CallKey> {
        let key = self.change(outlet, |waiting| {
            let key = waiting.queue(verb).pop_first()?;
            waiting.again.remove(&key);
            Some(key)
        })??;
        match verb {
            Verb::Start => drop(self.out.insert(key, outlet)),
            // It says the same.
            Verb::Cancel => self.told(outlet, &key),
        }
        Some(key)
    }

    /// A start in an outlet's hands that is moot, while its cancel waits for room; said once.
    pub(crate) fn take_called_off(&mut self, outlet: Outlet) -> Option<CallKey> {
        let key = self.called_off.get(&outlet)?.first().copied()?;
        self.told(outlet, &key);
        Some(key)
    }

    /// The next cancel of an outlet whose start was never handed out; it waits no longer.
    pub(crate) fn take_moot(&mut self, outlet: Outlet) -> Option<CallKey> {
        self.change(outlet, |waiting| waiting.moot.pop_first())?
    }

    fn change<T>(&mut self, outlet: Outlet, change: impl FnOnce(&mut Waiting) -> T) -> Option<T> {
        let waiting = self.waiting.get_mut(&outlet)?;
        let changed = change(waiting);
        if waiting.len() == 0 {
            self.waiting.remove(&outlet);
        }
        Some(changed)
    }

    /// Outlets for which calls wait.
    pub(crate) fn outlets(&self) -> Vec<Outlet> {
        self.waiting.keys().copied().collect()
    }

    /// How many calls wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.values().map(Waiting::len).sum()
    }
}

fn anew(waiting: impl Iterator<Item = (Timestamp, CallKey)>) -> Turns<Timestamp> {
    let mut all: Vec<_> = waiting.collect();
    all.sort_unstable();
    let mut turns = Turns::default();
    all.into_iter().for_each(|(began, key)| turns.insert(began, key));
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::ids::{DingId, UserId};

    const BEGAN: Timestamp = Timestamp(5);

    fn key(ding: u64) -> CallKey {
        CallKey { ding: DingId(ding), user: UserId(1), attempt: 0 }
    }

    #[test]
    fn each_queue_is_taken_from_on_its_own_and_what_was_never_handed_out_is_moot() {
        let mut calls = Calls::default();
        (1..=4).for_each(|ding| calls.start(Outlet::SMS, key(ding), BEGAN));
        assert_eq!(calls.take(Outlet::SMS, Verb::Start), Some(key(1)));
        calls.cancel(Outlet::SMS, key(1), BEGAN);
        calls.cancel(Outlet::SMS, key(3), BEGAN);
        assert_eq!(calls.len(), 4);
        assert_eq!(calls.take(Outlet::SMS, Verb::Start), Some(key(2)), "whatever has become of cancels");
        assert_eq!((calls.take_moot(Outlet::SMS), calls.take_moot(Outlet::SMS)), (Some(key(3)), None));
        assert_eq!(calls.take(Outlet::SMS, Verb::Cancel), Some(key(1)));
        assert_eq!(calls.take(Outlet::SMS, Verb::Cancel), None);
        assert_eq!(calls.take(Outlet::SMS, Verb::Start), Some(key(4)));
        assert_eq!((calls.take(Outlet::SMS, Verb::Start), calls.outlets()), (None, Vec::new()));
    }

    #[test]
    fn after_a_restart_nobody_knows_what_was_handed_out() {
        let mut calls = Calls::default();
        calls.start(Outlet::SMS, key(1), BEGAN);
        calls.start(Outlet::SMS, key(2), BEGAN);
        calls.start(Outlet::PHONE, key(1), BEGAN);
        calls.settle(Outlet::PHONE, Verb::Start, key(1));
        calls.cancel(Outlet::SMS, key(2), BEGAN);
        calls.resume();
        calls.cancel(Outlet::SMS, key(1), BEGAN);
        assert_eq!(calls.outlets(), [Outlet::SMS]);
        assert_eq!(calls.take_moot(Outlet::SMS), None);
        let taken = [(); 3].map(|()| calls.take(Outlet::SMS, Verb::Cancel));
        assert_eq!(taken, [Some(key(1)), Some(key(2)), None]);
    }

    #[test]
    fn after_a_restart_it_is_by_when_attempts_began_and_dings_take_turns() {
        let mut calls = Calls::default();
        let of = |ding, user, attempt| CallKey { ding: DingId(ding), user: UserId(user), attempt };
        for key in [of(1, 1, 0), of(1, 2, 0)] {
            calls.start(Outlet::SMS, key, Timestamp(10));
        }
        calls.start(Outlet::SMS, of(1, 1, 1), Timestamp(20));
        calls.start(Outlet::SMS, of(2, 9, 0), Timestamp(30));
        for _ in 0..2 {
            let expected = [of(1, 1, 0), of(2, 9, 0), of(1, 2, 0), of(1, 1, 1)];
            assert_eq!([(); 4].map(|()| calls.take(Outlet::SMS, Verb::Start)), expected.map(Some));
            // In another order, as a snapshot has them.
            calls.start(Outlet::SMS, of(1, 1, 0), Timestamp(10));
            calls.start(Outlet::SMS, of(1, 1, 1), Timestamp(20));
            calls.start(Outlet::SMS, of(1, 2, 0), Timestamp(10));
            calls.start(Outlet::SMS, of(2, 9, 0), Timestamp(30));
            calls.resume();
        }
    }

    #[test]
    fn a_start_in_an_outlet_s_hands_is_called_off_once_unless_its_cancel_is_taken_or_it_came_back() {
        let mut calls = Calls::default();
        (1..=5).for_each(|ding| calls.start(Outlet::SMS, key(ding), BEGAN));
        (1..=4).for_each(|ding| assert_eq!(calls.take(Outlet::SMS, Verb::Start), Some(key(ding))));
        calls.come_back(key(2));
        // A callback knows more of it, and yet it is in the outlet's hands.
        calls.settle(Outlet::SMS, Verb::Start, key(3));
        (1..=5).for_each(|ding| calls.cancel(Outlet::SMS, key(ding), BEGAN));
        assert_eq!(calls.take(Outlet::SMS, Verb::Cancel), Some(key(1)));
        assert_eq!(calls.take_called_off(Outlet::SMS), Some(key(3)));
        calls.come_back(key(4));
        assert_eq!(calls.take_called_off(Outlet::SMS), None);
        calls.resume();
        assert_eq!((calls.out.len(), calls.called_off.len()), (0, 0));
    }
}
