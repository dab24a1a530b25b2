//! What hardly any session has, and every session has room for.

use std::collections::VecDeque;

/// A queue that is nearly always empty: then it is a pointer without an allocation.
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

    /// The last one takes the allocation with it.
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let queue = self.0.as_mut()?;
        let item = queue.pop_front();
        if queue.is_empty() {
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
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_keeps_nothing() {
        let mut queue = RareQueue::default();
        assert!(queue.is_empty() && queue.pop_front().is_none());
        queue.push_back(2);
        queue.push_back(3);
        queue.push_front(1);
        *queue.front_mut().unwrap() = 7;
        assert_eq!((queue.len(), queue.front()), (3, Some(&7)));
        assert_eq!([queue.pop_front(), queue.pop_front(), queue.pop_front()], [Some(7), Some(2), Some(3)]);
        assert!(queue.is_empty() && queue.0.is_none() && size_of_val(&queue) == size_of::<usize>());
    }
}
