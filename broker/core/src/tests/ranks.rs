//! The counted multiset, against a sorted list.

use super::*;
use crate::ranks::Ranks;
use proptest::prelude::*;

/// The same seqs twice.
struct Both {
    ranks: Ranks,
    model: BTreeMap<u64, u64>,
}

impl Both {
    fn of(mut seqs: Vec<u64>) -> Self {
        seqs.sort_unstable();
        let sorted: Vec<_> = seqs.iter().copied().map(Seq).collect();
        let mut model = BTreeMap::new();
        for seq in seqs {
            *model.entry(seq).or_default() += 1;
        }
        Self { ranks: Ranks::from_sorted(&sorted), model }
    }

    fn insert(&mut self, seq: u64) {
        self.ranks.insert(Seq(seq));
        *self.model.entry(seq).or_default() += 1;
    }

    fn remove(&mut self, seq: u64) {
        self.ranks.remove(Seq(seq));
        let count = self.model.get_mut(&seq).unwrap();
        *count -= 1;
        if *count == 0 {
            self.model.remove(&seq);
        }
    }

    /// The one at this place of those that are there, if any is.
    fn some(&self, place: u64) -> Option<u64> {
        let at = usize::try_from(place).unwrap() % self.model.len().max(1);
        self.model.keys().nth(at).copied()
    }

    /// Every count there can be, and the tree's invariants.
    fn check(&self) {
        self.ranks.check();
        let mut count = 0;
        for (&seq, &often) in self.model.iter().rev() {
            assert_eq!(self.ranks.count_from(Seq(seq + 1)), count, "above {seq}");
            count += often;
            assert_eq!(self.ranks.count_from(Seq(seq)), count, "from {seq}");
        }
        assert_eq!((self.ranks.count_from(Seq(0)), self.ranks.len()), (count, count));
    }
}

proptest! {
    #[test]
    fn any_insertions_and_removals_count_as_a_list(
        start in proptest::collection::vec(0u64..500, 0..600),
        steps in proptest::collection::vec((0u8..5, 0u64..3_000), 1..3_000),
    ) {
        let mut both = Both::of(start);
        both.check();
        for (number, (what, seq)) in steps.into_iter().enumerate() {
            match both.some(seq).filter(|_| what < 2) {
                Some(there) => both.remove(there),
                None => both.insert(seq),
            }
            if number % 500 == 0 {
                both.check();
            }
        }
        both.check();
        while let Some(first) = both.some(7) {
            both.remove(first);
        }
        both.check();
        prop_assert!(both.ranks.heap_bytes() <= 1_024, "what is empty keeps one leaf at most");
    }

    /// The group's life: messages come, watermarks go to the newest or a little behind it, for ever.
    #[test]
    fn watermarks_that_move_forward_for_ever_leave_nothing_behind(
        members in 1usize..700,
        behind in 1u64..400,
        steps in proptest::collection::vec(any::<u64>(), 4_000),
    ) {
        let mut both = Both::of([0].repeat(members));
        let mut watermarks = [0].repeat(members);
        let mut last_seq = 0;
        let mut most_bytes = 0;
        for (number, step) in steps.into_iter().enumerate() {
            last_seq += 1;
            let member = usize::try_from(step >> 32).unwrap() % members;
            let up_to = last_seq - (step % behind).min(last_seq);
            if up_to > watermarks[member] {
                both.remove(watermarks[member]);
                both.insert(up_to);
                watermarks[member] = up_to;
            }
            most_bytes = most_bytes.max(both.ranks.heap_bytes());
            if number % 1_000 == 0 {
                both.check();
            }
        }
        both.check();
        // Half full at worst, plus a leaf and an inner node that may have nobody to be joined with.
        prop_assert!(most_bytes <= 17 * members + 8_192, "{most_bytes} bytes for {members} members");
    }
}

#[test]
fn equal_seqs_share_their_entries() {
    let mut both = Both::of([7].repeat(200_000));
    both.check();
    assert!(both.ranks.heap_bytes() <= 64, "{} bytes", both.ranks.heap_bytes());
    for seq in [6, 8].repeat(70_000) {
        both.insert(seq);
        both.remove(7);
    }
    both.check();
    for _ in 0..60_000 {
        both.remove(7);
        both.insert(8);
    }
    both.check();
    assert_eq!(both.some(0), Some(6));
    assert!(both.ranks.heap_bytes() <= 64, "{} bytes", both.ranks.heap_bytes());
}

#[test]
#[should_panic(expected = "only what was inserted is removed")]
fn what_is_not_there_is_not_removed() {
    Both::of(Vec::from([1, 3])).ranks.remove(Seq(2));
}

/// The limit of a group, every watermark and every joining at another seq. The bytes are what was asked of the allocator:
/// the capacities of all nodes.
#[test]
fn a_million_members_take_32_megabytes_at_most() {
    const MEMBERS: u64 = 1_000_000;
    const BYTES_MAX: usize = 32_000_000;
    let mut joined = Ranks::from_sorted(&[]);
    (0..MEMBERS).for_each(|seq| joined.insert(Seq(seq)));
    let mut watermarks = Ranks::from_sorted(&[]);
    // A prime step visits every member once, in no order that a tree would like.
    let order = || (0..MEMBERS).map(|at| at * 618_033_989 % MEMBERS);
    order().for_each(|seq| watermarks.insert(Seq(seq)));
    let inserted = watermarks.heap_bytes();
    // Each member reads on, to a seq that nobody else has, twice over.
    for round in 0..2 {
        for seq in order() {
            watermarks.remove(Seq(round * MEMBERS + seq));
            watermarks.insert(Seq((round + 1) * MEMBERS + seq));
        }
    }
    let moved = watermarks.heap_bytes();
    for seq in order().filter(|seq| seq % 8 != 0) {
        watermarks.remove(Seq(2 * MEMBERS + seq));
        watermarks.insert(Seq(3 * MEMBERS));
    }
    let (read, appended) = (watermarks.heap_bytes(), joined.heap_bytes());
    std::println!("joined {appended}, watermarks {inserted}, moved {moved}, an eighth still apart {read}");
    assert!(appended + inserted.max(moved) <= BYTES_MAX, "{appended} + {inserted} or {moved}");
    assert!(read <= moved / 4, "{read} bytes of {moved} are left");
    assert_eq!(watermarks.count_from(Seq(3 * MEMBERS)), MEMBERS * 7 / 8);
    watermarks.check();
    joined.check();
}
