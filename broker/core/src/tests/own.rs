//! Own messages behind the watermark, against a list of them.

use super::*;
use crate::limits::OWN_SPANS_MAX;
use crate::own::OwnMessages;
use carillon_protocol::receipt::MarkRead;
use proptest::prelude::*;

/// The same messages twice.
#[derive(Default)]
struct Both {
    own: OwnMessages,
    /// Every own seq.
    model: Vec<u64>,
    last_seq: u64,
    watermark: u64,
}

impl Both {
    fn publish(&mut self, is_own: bool) {
        self.last_seq += 1;
        if is_own {
            self.own.publish(Seq(self.last_seq));
            self.model.push(self.last_seq);
        }
    }

    fn mark(&mut self, up_to: u64) {
        if up_to > self.watermark {
            self.watermark = up_to;
            self.own.mark(Seq(up_to));
        }
    }

    fn after(&self, seq: u64) -> u64 {
        self.model.iter().filter(|own| **own > seq).count() as u64
    }

    /// Exact outside merged spans, and inside them as far off as they say.
    fn check(&self) {
        let spans = self.own.spans();
        assert!(spans.len() <= OWN_SPANS_MAX);
        assert!(spans.is_sorted_by(|a, b| a.last.next() < b.first));
        assert!(spans.first().is_none_or(|oldest| oldest.last.0 > self.watermark), "what was passed is let go of");
        let newest = spans.len().saturating_sub(OWN_SPANS_MAX / 2);
        assert!(spans[newest..].iter().all(|span| span.own == span.len()), "the newer half are runs");
        for seq in self.watermark..=self.last_seq {
            let merged = spans.iter().find(|span| span.first.0 <= seq && seq < span.last.0);
            let off_max = merged.map_or(0, |span| span.own.min(span.len() - span.own));
            let (kept, exact) = (self.own.after(Seq(seq)), self.after(seq));
            assert!(kept.abs_diff(exact) <= off_max, "{kept} for {exact} after {seq}, off by {off_max} at most");
        }
    }
}

proptest! {
    #[test]
    fn own_messages_are_counted_as_a_list_counts_them(
        steps in proptest::collection::vec((0u8..24, any::<u8>()), 1..1_500),
        marks in any::<bool>(),
    ) {
        let mut both = Both::default();
        for (number, (what, a)) in steps.into_iter().enumerate() {
            match what {
                0 => both.mark(both.last_seq),
                1 if marks => both.mark(both.last_seq.saturating_sub(u64::from(a))),
                2..12 => both.publish(true),
                _ => both.publish(false),
            }
            if number % 64 == 0 {
                both.check();
            }
        }
        both.check();
    }

    /// As long as there are no more runs than are kept, nothing is estimated.
    #[test]
    fn few_runs_are_exact(runs in proptest::collection::vec((1usize..9, 1usize..9), 1..=OWN_SPANS_MAX)) {
        let mut both = Both::default();
        for (own, others) in &runs {
            (0..*own).for_each(|_| both.publish(true));
            (0..*others).for_each(|_| both.publish(false));
        }
        prop_assert_eq!(both.own.spans().len(), runs.len());
        for seq in 0..=both.last_seq {
            prop_assert_eq!(both.own.after(Seq(seq)), both.after(seq));
        }
        both.check();
    }
}

#[test]
fn who_writes_and_never_reads_costs_no_more_than_the_spans() {
    let mut both = Both::default();
    for seq in 0..20_000 {
        both.publish(seq % 3 > 0);
        if seq % 2_000 == 0 {
            both.check();
        }
    }
    assert_eq!(both.own.spans().len(), OWN_SPANS_MAX);
    assert_eq!(both.own.after(Seq(0)), both.after(0), "before the oldest span");
    both.mark(10_000);
    both.check();
    let last_merged = both.own.spans().iter().rfind(|span| span.own < span.len()).unwrap().last;
    both.mark(last_merged.0);
    assert_eq!(both.own.after(last_merged), both.after(last_merged.0), "an error ends with its span");
    both.mark(both.last_seq);
    assert!(both.own.spans().is_empty());
}

#[test]
fn who_has_none_pays_a_pointer() {
    assert_eq!(size_of::<OwnMessages>(), size_of::<usize>());
}

#[test]
fn unread_are_what_others_wrote_after_the_watermark() {
    let mut world = World::new();
    let [ann, bob] = world.users();
    let group = world.group(ann, &[bob]);
    for who in [ann, ann, bob, ann, bob, bob] {
        world.post(who, group);
    }
    let check = |world: &mut World, ann_has: u64, bob_has: u64| {
        world.restart();
        world.reload();
        for (who, expected) in [(ann, ann_has), (bob, bob_has)] {
            let unread = world.shard.unread(who.tenant, who.user).find(|(id, _)| *id == group);
            assert_eq!(unread, Some((group, expected)), "{who:?}");
        }
    };
    let mark = |world: &mut World, who, up_to| {
        let mark = MarkRead { request: 9, conversation: group, up_to: Seq(up_to) };
        frame!(Marked, world.request(who, Request::MarkRead(mark)));
    };
    check(&mut world, 3, 3);
    mark(&mut world, ann, 3);
    check(&mut world, 2, 3);
    mark(&mut world, bob, 5);
    check(&mut world, 2, 0);
    mark(&mut world, ann, 6);
    world.post(ann, group);
    check(&mut world, 0, 1);
    world.post(bob, group);
    check(&mut world, 1, 1);
    let leave = Request::Leave(carillon_protocol::control::Leave { request: 9, conversation: group });
    frame!(Done, world.request(bob, leave));
    world.restart();
    world.reload();
    assert!(world.shard.unread(bob.tenant, bob.user).all(|(id, _)| id != group), "who has left has nothing unread");
    // Added and removed: two messages in bob's own conversation, by the broker.
    assert_eq!(world.shard.unread(bob.tenant, bob.user).map(|(_, unread)| unread).collect::<Vec<_>>(), [2]);
}
