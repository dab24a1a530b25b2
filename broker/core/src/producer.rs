//! Idempotent publishing: the results of a producer's unsettled numbers.
//!
//! Invariant: results lie in `[low, low + PRODUCER_WINDOW)`, ascending, and the newest is never dropped.

use alloc::collections::VecDeque;
use carillon_protocol::ids::{ConversationId, Position, ProducerId, Seq, Timestamp};
use carillon_protocol::limits::PRODUCER_WINDOW;
use carillon_protocol::publish::Publish;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Applied, Contradiction};

/// What became of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) number: u64,
    pub(crate) fingerprint: u64,
    pub(crate) conversation: ConversationId,
    pub(crate) seq: Seq,
    pub(crate) position: Position,
    pub(crate) time: Timestamp,
}

/// One numbering of publishes.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    /// The highest `low` of a recorded publish, 0 before the first.
    pub(crate) low: u64,
    /// Ascending by number.
    pub(crate) outcomes: VecDeque<Outcome>,
}

/// What a number is to a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// `number` or `low` is 0, or `number < low`.
    Malformed,
    /// `number ≥ low + 1,024`.
    OutsideWindow,
    /// Below the highest recorded `low`.
    Settled,
    /// Has an outcome.
    Known(Outcome),
    /// May be recorded.
    New,
}

impl Producer {
    pub(crate) const fn new(id: ProducerId) -> Self {
        Self { id, low: 0, outcomes: VecDeque::new() }
    }

    /// The highest number with an outcome, 0 without one.
    pub(crate) fn highest(&self) -> u64 {
        self.outcomes.back().map_or(0, |outcome| outcome.number)
    }

    pub(crate) fn standing(&self, number: u64, low: u64) -> Standing {
        if low == 0 || number < low {
            return Standing::Malformed;
        }
        if number - low >= PRODUCER_WINDOW {
            return Standing::OutsideWindow;
        }
        if number < self.low {
            return Standing::Settled;
        }
        match self.outcomes.binary_search_by_key(&number, |outcome| outcome.number) {
            Ok(at) => Standing::Known(self.outcomes[at]),
            Err(_) => Standing::New,
        }
    }

    /// Keeps the outcome and lets go of what `low` settles.
    pub(crate) fn apply(&mut self, outcome: Outcome, low: u64) -> Applied {
        if self.standing(outcome.number, low) != Standing::New {
            return Err(Contradiction::Range { what: "publish number", id: outcome.number });
        }
        self.low = self.low.max(low);
        let settled = self.outcomes.partition_point(|kept| kept.number < self.low);
        self.outcomes.drain(..settled);
        let at = self.outcomes.partition_point(|kept| kept.number < outcome.number);
        self.outcomes.insert(at, outcome);
        Ok(())
    }
}

/// What tells a repeat from a conflict: XXH3 (64 bits, seed 0) over target (1 byte), target id (8 bytes, little-endian), kind
/// (1 byte) and payload. It lies in journals and so must never change.
pub(crate) fn fingerprint(publish: &Publish) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&[publish.target.0]);
    hash.update(&publish.target_id.to_le_bytes());
    hash.update(&[publish.kind.0]);
    hash.update(&publish.payload);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::kinds::{MessageKind, Target};

    fn outcome(number: u64) -> Outcome {
        let conversation = ConversationId(1);
        Outcome { number, fingerprint: number, conversation, seq: Seq(1), position: Position(1), time: Timestamp(1) }
    }

    /// Records `numbers` (with their low) and checks what `(number, low)` is then.
    fn check(recorded: &[(u64, u64)], number: u64, low: u64, expected: Standing) {
        let mut producer = Producer::new(ProducerId(1));
        for &(number, low) in recorded {
            producer.apply(outcome(number), low).unwrap();
        }
        assert_eq!(producer.standing(number, low), expected, "{recorded:?} then {number} with low {low}");
    }

    #[test]
    fn a_number_stands_where_the_window_says() {
        check(&[], 0, 0, Standing::Malformed);
        check(&[], 1, 0, Standing::Malformed);
        check(&[], 0, 1, Standing::Malformed);
        check(&[], 4, 5, Standing::Malformed);
        check(&[], 1, 1, Standing::New);
        check(&[], 1024, 1, Standing::New);
        check(&[], 1025, 1, Standing::OutsideWindow);
        check(&[], u64::MAX, u64::MAX, Standing::New);
        check(&[], u64::MAX, 1, Standing::OutsideWindow);
        check(&[(1, 1), (2, 1)], 1, 1, Standing::Known(outcome(1)));
        check(&[(1, 1), (2, 2)], 1, 1, Standing::Settled);
        check(&[(1, 1), (5, 3)], 4, 1, Standing::New);
        check(&[(1, 1), (5, 3)], 2, 2, Standing::Settled);
        check(&[(5, 1), (2, 1)], 2, 1, Standing::Known(outcome(2)));
        check(&[(9, 9), (10, 4)], 8, 4, Standing::Settled);
    }

    #[test]
    fn outcomes_stay_within_the_window() {
        let mut producer = Producer::new(ProducerId(1));
        for number in 1..=5_000u64 {
            producer.apply(outcome(number), number.saturating_sub(1_023).max(1)).unwrap();
            assert!(producer.outcomes.len() as u64 <= PRODUCER_WINDOW);
            assert_eq!(producer.highest(), number);
        }
        assert_eq!(producer.outcomes.len() as u64, PRODUCER_WINDOW);
    }

    #[test]
    fn the_fingerprint_is_the_same_for_ever() {
        let publish = Publish {
            number: 7,
            low: 7,
            target: Target::USER,
            target_id: 0x0102,
            kind: MessageKind::TEXT,
            payload: bytes::Bytes::from_static(b"hello"),
        };
        let flat = [2, 2, 1, 0, 0, 0, 0, 0, 0, 1, b'h', b'e', b'l', b'l', b'o'];
        assert_eq!(fingerprint(&publish), xxhash_rust::xxh3::xxh3_64(&flat));
    }
}
