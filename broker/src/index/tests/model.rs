//! Whatever happens in whatever order, the index says what a plain list says.

use proptest::prelude::*;

use super::world::{GROUPS, World, group};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Publish { nth: usize, count: u64 },
    Mark { nth: usize, user: u32, share: u64 },
    Flush { keep_bytes: usize },
    Truncate { share: u64, tell: bool, has_room: bool },
    Restart,
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    let counts = prop_oneof![1..4u64, 1..300u64];
    prop_oneof![
        8 => (0..GROUPS, counts).prop_map(|(nth, count)| Step::Publish { nth, count }),
        6 => (0..GROUPS, 0..2u32, 0..=100u64).prop_map(|(nth, user, share)| Step::Mark { nth, user, share }),
        4 => prop_oneof![Just(0), 0..3_000usize, Just(usize::MAX)].prop_map(|keep_bytes| Step::Flush { keep_bytes }),
        2 => (0..100u64, prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(share, tell, has_room)| Step::Truncate { share, tell, has_room }),
        2 => Just(Step::Restart),
        1 => Just(Step::Lose),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_says_what_a_list_says(steps in prop::collection::vec(step(), 1..30)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Publish { nth, count } => world.publish(nth, count),
                Step::Mark { nth, user, share } => world.mark(nth, user, world.published(nth) * share / 100),
                Step::Flush { keep_bytes } => world.flush(keep_bytes),
                Step::Truncate { share, tell, has_room } => {
                    let keep_from = Position(world.head() * share / 100);
                    let done = world.truncate_with(keep_from, tell, has_room);
                    prop_assert!(done.is_ok() || done == Err(TruncateError::Unwritten) && !has_room);
                    if !tell {
                        world.restart();
                    }
                }
                Step::Restart => world.restart(),
                Step::Lose => world.restart_after(|directory| std::fs::remove_dir_all(directory).unwrap()),
            }
            world.check();
            prop_assert_eq!(world.index.stats().rebuilds, 0);
        }
    }
}

#[test]
fn a_replay_begins_where_the_flush_ended() {
    let mut world = World::new();
    world.publish(0, 300);
    world.flush(usize::MAX);
    world.publish(1, 10);
    world.restart();
    assert!(world.index.author(group(1), Seq(10)).is_some());
    assert!(world.index.author(group(0), Seq(300)).is_none(), "what was flushed is not read again");
    world.check();
}
