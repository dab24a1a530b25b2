//! What hardly any session has, and every session has room for.

use std::collections::VecDeque;

/// Items for which an empty queue keeps its room: whoever needed it once does so again, for each read update, or each publish.
const ROOM_KEPT: usize = 16;

/// A queue that most sessions never need: a pointer until something is put into it.
#[derive(Debug)]
#[expect(clippy::box_collection, reason = "8 bytes in each session instead of 32")]
pub(super) struct RareQueue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for RareQueue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> RareQueue<T> {
    pub(super) fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    pub(super) fn push_front(&mut self, item: T) {
        self.0.get_or_insert_default().push_front(item);
    }

    /// With the last one goes the room that many have taken.
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let item = queue.pop_front();
        if queue.is_empty() && queue.capacity() > ROOM_KEPT {
            self.0 = None;
        }
        item
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_pointer_until_it_is_used_and_keeps_little_afterwards() {
        let mut queue = RareQueue::default();
        assert!(queue.is_empty() && queue.pop_front().is_none() && queue.0.is_none());
        assert_eq!(size_of_val(&queue), size_of::<usize>());
        queue.push_back(2);
        queue.push_back(3);
        queue.push_front(1);
        *queue.front_mut().unwrap() = 7;
        assert_eq!((queue.len(), queue.front()), (3, Some(&7)));
        assert_eq!([queue.pop_front(), queue.pop_front(), queue.pop_front()], [Some(7), Some(2), Some(3)]);
        assert!(queue.is_empty() && queue.0.is_some(), "the next item needs no allocation");
        (0..1_000).for_each(|item| queue.push_back(item));
        while queue.pop_front().is_some() {}
        assert!(queue.is_empty() && queue.0.is_none(), "what many took is given back");
    }
}
