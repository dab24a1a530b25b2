//! Calls that take turns by DING, so that a small DING is not behind a large one: start-time fair queueing with calls of one
//! size, as by Goyal, Vin and Cheng (SIGCOMM 1996).
//!
//! Each call gets the number of a round: the one after its DING's last call, or after the round that is on, whichever is later. Within a
//! round the order is the caller's, then that of keys. So a call that comes waits for one call of each other DING and for those of its
//! own DING before it, whatever else waits. Knows no clock and no outlet. Each operation is O(log n).

use alloc::collections::{BTreeMap, BTreeSet};
use carillon_protocol::ids::DingId;

use crate::effect::CallKey;

/// Calls of one DING that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow {
    /// The round of the one that came last.
    last: u64,
    waiting: usize,
}

/// Calls that wait, each once. `O` orders those of one round, and so those of one DING too if it ascends.
#[derive(Debug, PartialEq, Eq)]
pub struct Turns<O> {
    order: BTreeSet<(u64, O, CallKey)>,
    places: BTreeMap<CallKey, (u64, O)>,
    flows: BTreeMap<DingId, Flow>,
    /// The round that is on: that of the call which was taken last.
    round: u64,
}

impl<O: Ord> Default for Turns<O> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), places: BTreeMap::new(), flows: BTreeMap::new(), round: 0 }
    }
}

impl<O: Ord + Copy> Turns<O> {
    /// A call comes. One that waits already keeps its place.
    pub fn insert(&mut self, at: O, key: CallKey) {
        if self.places.contains_key(&key) {
            return;
        }
        let flow = self.flows.entry(key.ding).or_default();
        let round = flow.last.max(self.round) + 1;
        *flow = Flow { last: round, waiting: flow.waiting + 1 };
        self.places.insert(key, (round, at));
        self.order.insert((round, at, key));
    }

    /// A call waits no longer; returns whether it did.
    pub fn remove(&mut self, key: &CallKey) -> bool {
        let Some((round, at)) = self.places.remove(key) else { return false };
        self.order.remove(&(round, at, *key));
        if let Some(flow) = self.flows.get_mut(&key.ding) {
            flow.waiting -= 1;
            if flow.waiting == 0 {
                self.flows.remove(&key.ding);
            }
        }
        true
    }

    /// Whose turn it is.
    pub fn first(&self) -> Option<CallKey> {
        self.order.first().map(|(.., key)| *key)
    }

    /// The call whose turn it is; it waits no longer.
    pub fn pop_first(&mut self) -> Option<CallKey> {
        let (round, _, key) = *self.order.first()?;
        self.round = round;
        self.remove(&key);
        Some(key)
    }

    /// Whether a call waits.
    pub fn contains(&self, key: &CallKey) -> bool {
        self.places.contains_key(key)
    }

    /// What waits, with what the caller ordered it by, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (O, CallKey)> {
        self.places.iter().map(|(key, (_, at))| (*at, *key))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use carillon_protocol::ids::UserId;

    fn key(ding: u64, user: u32) -> CallKey {
        CallKey { ding: DingId(ding), user: UserId(user), attempt: 0 }
    }

    fn take(turns: &mut Turns<u64>, count: usize) -> Vec<(u64, u32)> {
        (0..count).filter_map(|_| turns.pop_first()).map(|key| (key.ding.0, key.user.0)).collect()
    }

    #[test]
    fn a_small_ding_is_not_behind_a_large_one_nor_a_large_one_behind_many_small_ones() {
        let mut turns = Turns::default();
        (0..10_000).for_each(|user| turns.insert(0, key(1, user)));
        assert_eq!(take(&mut turns, 3), [(1, 0), (1, 1), (1, 2)]);
        turns.insert(9, key(2, 7));
        assert_eq!(take(&mut turns, 3), [(1, 3), (2, 7), (1, 4)]);
        // One new DING after the other, each of two: the large one has every other turn nonetheless.
        let mut large = 0;
        for ding in 3..103 {
            (0..2).for_each(|user| turns.insert(10, key(ding, user)));
            large += take(&mut turns, 3).iter().filter(|(ding, _)| *ding == 1).count();
        }
        assert!(large >= 90, "{large} of 300 turns");
    }

    #[test]
    fn within_one_ding_the_order_is_the_caller_s() {
        let mut turns = Turns::default();
        for user in [5, 3] {
            turns.insert(0, key(1, user));
        }
        // A repeat for a low user id is behind what came before it.
        turns.insert(60, CallKey { attempt: 1, ..key(1, 1) });
        assert_eq!(take(&mut turns, 9), [(1, 5), (1, 3), (1, 1)]);
    }

    #[test]
    fn what_is_removed_is_gone_and_a_ding_begins_anew_behind_the_round_that_is_on() {
        let mut turns = Turns::default();
        (0..4).for_each(|user| turns.insert(0, key(1, user)));
        turns.insert(1, key(2, 0));
        turns.insert(1, key(2, 0));
        assert_eq!((turns.remove(&key(1, 0)), turns.remove(&key(1, 0)), turns.len()), (true, false, 4));
        assert_eq!((turns.contains(&key(1, 0)), turns.contains(&key(1, 1))), (false, true));
        assert_eq!(take(&mut turns, 2), [(2, 0), (1, 1)]);
        turns.insert(2, key(2, 0));
        assert_eq!(turns.first(), Some(key(1, 2)));
        assert_eq!(take(&mut turns, 9), [(1, 2), (2, 0), (1, 3)]);
        assert_eq!(turns, Turns { round: turns.round, ..Turns::default() }, "nothing is kept of who does not wait");
    }
}
