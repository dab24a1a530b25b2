//! A list that only grows, in segments: nothing in it ever moves, so that growing by one never copies what is there.
//!
//! A vector of a million users would be copied, a hundred megabytes in one go of the shard's thread, each time it doubles, and be half
//! empty afterwards. The first segment grows as a vector does, since most tenants are small.

use alloc::vec::Vec;

/// Elements of a segment, a power of two: 64 KB of users, 128 KB of conversations.
const SEGMENT: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Segments<T> {
    /// All full but the last one.
    segments: Vec<Vec<T>>,
}

impl<T> Segments<T> {
    pub(crate) const fn new() -> Self {
        Self { segments: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.last().map_or(0, |last| (self.segments.len() - 1) * SEGMENT + last.len())
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.segments.get(at / SEGMENT)?.get(at % SEGMENT)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.segments.get_mut(at / SEGMENT)?.get_mut(at % SEGMENT)
    }

    pub(crate) fn push(&mut self, element: T) {
        if self.segments.last().is_none_or(|last| last.len() == SEGMENT) {
            let capacity = if self.segments.is_empty() { 0 } else { SEGMENT };
            self.segments.push(Vec::with_capacity(capacity));
        }
        self.segments.last_mut().expect("one was added").push(element);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_where_they_were_put() {
        let mut list = Segments::new();
        for at in 0..3 * SEGMENT + 5 {
            assert_eq!((list.len(), list.get(at)), (at, None));
            list.push(at);
            assert_eq!(list.get(at), Some(&at));
        }
        *list.get_mut(SEGMENT).unwrap() += 1;
        assert!(list.iter().copied().eq((0..SEGMENT).chain([SEGMENT + 1]).chain(SEGMENT + 1..3 * SEGMENT + 5)));
        assert_eq!(list.get_mut(3 * SEGMENT + 5), None);
    }

    #[test]
    fn what_is_there_does_not_move() {
        let mut list = Segments::new();
        (0..=SEGMENT).for_each(|at| list.push(at));
        let places = [0, SEGMENT - 1, SEGMENT].map(|at| core::ptr::from_ref(list.get(at).unwrap()));
        (0..4 * SEGMENT).for_each(|at| list.push(at));
        assert_eq!(places, [0, SEGMENT - 1, SEGMENT].map(|at| core::ptr::from_ref(list.get(at).unwrap())));
    }
}
