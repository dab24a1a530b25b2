//! Positions whose records could not be read: what who reads around damage goes on without.

use std::ops::RangeInclusive;

use carillon_protocol::ids::Position;

/// A set of positions, as runs.
///
/// Invariant: runs ascend and do not touch each other; positions are from 1 on, and not the last number there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    runs: Vec<(Position, Position)>,
}

impl Lost {
    /// Adds a position: at once beyond all others, in O(n) between them.
    pub fn push(&mut self, position: Position) {
        match self.runs.last_mut() {
            Some((_, last)) if position == last.next() => *last = position,
            Some((_, last)) if position <= *last => {
                if !self.contains(position) {
                    *self = self.union(&Self { runs: vec![(position, position)] });
                }
            }
            _ => self.runs.push((position, position)),
        }
    }

    /// Those of both.
    pub fn union(&self, other: &Self) -> Self {
        let mut both: Vec<_> = self.runs.iter().chain(&other.runs).copied().collect();
        both.sort_unstable();
        let mut runs: Vec<(Position, Position)> = Vec::with_capacity(both.len());
        for (first, last) in both {
            match runs.last_mut() {
                Some((_, end)) if first <= end.next() => *end = last.max(*end),
                _ => runs.push((first, last)),
            }
        }
        Self { runs }
    }

    /// The runs, ascending: first and last position.
    pub fn runs(&self) -> &[(Position, Position)] {
        &self.runs
    }

    /// The set with these runs; `None` if there cannot be such a one.
    pub fn of_runs(runs: Vec<(Position, Position)>) -> Option<Self> {
        let is_run = |(first, last): &(Position, Position)| Position(0) < *first && first <= last && last.0 < u64::MAX;
        let are_runs = runs.iter().all(is_run);
        (are_runs && runs.windows(2).all(|pair| pair[0].1.next() < pair[1].0)).then_some(Self { runs })
    }

    /// Whether none is lost.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last.0 - first.0 + 1).sum()
    }

    /// Whether this one is: O(log n).
    pub fn contains(&self, position: Position) -> bool {
        self.meets(position..=position)
    }

    /// Whether any of these is: O(log n).
    pub fn meets(&self, range: RangeInclusive<Position>) -> bool {
        let at = self.runs.partition_point(|(_, last)| last < range.start());
        self.runs.get(at).is_some_and(|(first, _)| first <= range.end())
    }

    /// The last ones between two positions, both excluded, ascending, at most so many.
    pub fn last_between(&self, after: Position, before: Position, count_max: u64) -> Vec<Position> {
        let count_max = usize::try_from(count_max).unwrap_or(usize::MAX);
        let end = self.runs.partition_point(|(first, _)| *first < before);
        let runs = self.runs[..end].iter().rev().take_while(|(_, last)| *last > after);
        let descending = runs.flat_map(|(first, last)| {
            let (first, last) = (first.0.max(after.0 + 1), last.0.min(before.0.saturating_sub(1)));
            (first..=last).rev().map(Position)
        });
        let mut found: Vec<_> = descending.take(count_max).collect();
        found.reverse();
        found
    }

    /// Forgets those up to a position: they would be gone anyway.
    pub fn forget_through(&mut self, position: Position) {
        self.runs.retain_mut(|(first, last)| {
            *first = (*first).max(position.next());
            first <= last
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(positions: &[u64]) -> Lost {
        let mut lost = Lost::default();
        positions.iter().for_each(|position| lost.push(Position(*position)));
        lost
    }

    #[test]
    fn positions_lie_in_runs() {
        let lost = lost(&[3, 4, 4, 5, 9, 11, 12]);
        assert_eq!(lost.runs(), [(3, 5), (9, 9), (11, 12)].map(|(first, last)| (Position(first), Position(last))));
        assert_eq!(lost.count(), 6);
        let inside: Vec<_> = (0..15).filter(|position| lost.contains(Position(*position))).collect();
        assert_eq!(inside, [3, 4, 5, 9, 11, 12]);
        assert_eq!(Lost::of_runs(lost.runs().to_vec()), Some(lost));
    }

    #[test]
    fn two_sets_are_one() {
        let all = [3, 4, 5, 9, 11, 12];
        for split in 0..=all.len() {
            let (left, right) = all.split_at(split);
            assert_eq!(lost(left).union(&lost(right)), lost(&all));
            assert_eq!(lost(right).union(&lost(&all)), lost(&all));
        }
        assert_eq!(lost(&[12, 3, 9, 5, 11, 4, 4]), lost(&all), "in whatever order");
        assert_eq!(lost(&[3, 5]).union(&lost(&[4, 9])), lost(&[3, 4, 5, 9]));
    }

    #[test]
    fn a_range_meets_what_a_list_does() {
        let lost = lost(&[3, 4, 5, 9, 11, 12]);
        for first in 0..15 {
            for last in first..15 {
                let by_list = (first..=last).any(|position| [3, 4, 5, 9, 11, 12].contains(&position));
                assert_eq!(lost.meets(Position(first)..=Position(last)), by_list, "{first} to {last}");
            }
        }
    }

    #[test]
    fn the_last_ones_between_two_are_found() {
        let all = [3, 4, 5, 9, 11, 12];
        let lost = lost(&all);
        for after in 0..14 {
            for before in after + 1..15 {
                for count in 0..8 {
                    let inside: Vec<_> =
                        all.into_iter().filter(|at| after < *at && *at < before).map(Position).collect();
                    let expected = &inside[inside.len().saturating_sub(count)..];
                    assert_eq!(lost.last_between(Position(after), Position(before), count as u64), expected);
                }
            }
        }
    }

    #[test]
    fn what_retention_took_is_forgotten() {
        let all = [3, 4, 5, 9, 11, 12];
        for through in 0..14 {
            let mut some = lost(&all);
            some.forget_through(Position(through));
            let left: Vec<_> = all.into_iter().filter(|at| *at > through).collect();
            assert_eq!(some, lost(&left), "{through}");
        }
    }

    #[test]
    fn runs_that_cannot_be_are_none() {
        for runs in [
            vec![(5, 3)],
            vec![(3, 5), (6, 7)],
            vec![(3, 5), (5, 7)],
            vec![(9, 9), (3, 3)],
            vec![(0, 2)],
            vec![(3, u64::MAX)],
        ] {
            let runs = runs.into_iter().map(|(first, last)| (Position(first), Position(last))).collect();
            assert_eq!(Lost::of_runs(runs), None);
        }
    }
}
