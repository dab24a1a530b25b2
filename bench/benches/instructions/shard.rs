//! The shard, alone: publishes, read marks and counts, sessions that attach, DINGs.
//!
//! The groups are smaller than those that are timed: a million members take minutes to set up under Valgrind.

use std::hint::black_box;

use carillon_bench::dings::Dings;
use carillon_bench::group::Group;
use carillon_core::input::Input;
use gungraun::{library_benchmark, library_benchmark_group};

/// A group of so many that has had some messages, and the next thousand.
fn to_publish(members: u32) -> (Group, Vec<Input>) {
    let mut group = Group::of(members);
    (0..1_000).for_each(|_| group.publish());
    let inputs = (0..1_000).map(|_| group.next_publish()).collect();
    (group, inputs)
}

/// A group of so many of whom half have read a message, and the marks of a thousand of the others.
fn to_mark(members: u32) -> (Group, Vec<Input>) {
    let mut group = Group::of(members);
    group.publish();
    let half = group.members() / 2;
    (0..half).for_each(|member| group.mark_read(member));
    let marks = (half..half + 1_000).map(|member| group.mark(member, group.published())).collect();
    (group, marks)
}

/// A group of so many of whom each four have read up to another message, and how many messages that are.
fn to_count(members: u32) -> (Group, u64) {
    let mut group = Group::of(members);
    let messages = group.read_apart(4);
    (group, messages)
}

/// A member of so many groups, whose device was here before.
fn to_attach(groups: u32) -> Group {
    let mut group = Group::of(10);
    group.enrol_first(groups - 1);
    group.attach(0);
    group
}

/// So many pending DINGs, more that are confirmed, and a hundred that are to be.
fn to_confirm(pending: u32) -> (Dings, Vec<Input>) {
    let mut dings = Dings::of(pending);
    (0..1_000).for_each(|_| dings.create_and_confirm());
    let confirmations = (0..100)
        .map(|_| {
            let creation = dings.creation();
            let ding = dings.take_creation(creation);
            dings.confirmation(ding)
        })
        .collect();
    (dings, confirmations)
}

/// So many pending DINGs, of which some have begun.
fn to_tick(pending: u32) -> Dings {
    let mut dings = Dings::of(pending);
    (0..1_000).for_each(|_| assert_eq!(dings.tick_when_due(), 1));
    dings
}

#[library_benchmark]
#[bench::times_1000(to_publish(10_000))]
fn publish_into_group_of_10000((mut group, inputs): (Group, Vec<Input>)) -> Group {
    for input in inputs {
        black_box(group.handle(input));
    }
    group
}

#[library_benchmark]
#[bench::times_1000(to_mark(100_000))]
fn mark_read_in_group_of_100000((mut group, inputs): (Group, Vec<Input>)) -> Group {
    for input in inputs {
        black_box(group.handle(input));
    }
    group
}

#[library_benchmark]
#[bench::times_100(to_count(100_000))]
fn read_counts_in_group_of_100000((mut group, messages): (Group, u64)) -> Group {
    let mut seq = 0;
    for _ in 0..100 {
        // A prime step, so that each question follows another path.
        seq = (seq + 7_919) % messages;
        black_box(group.read_counts(seq + 1));
    }
    group
}

#[library_benchmark]
#[bench::times_10(to_attach(1_000))]
fn attach_again_with_groups_1000(mut group: Group) -> Group {
    (0..10).for_each(|_| group.attach(0));
    group
}

#[library_benchmark]
#[bench::times_100(to_confirm(10_000))]
fn ding_confirm_among_10000((mut dings, confirmations): (Dings, Vec<Input>)) -> Dings {
    confirmations.into_iter().for_each(|confirmation| dings.confirm(confirmation));
    dings
}

#[library_benchmark]
#[bench::times_1000(to_tick(10_000))]
fn ding_tick_that_fires_one_of_10000(mut dings: Dings) -> Dings {
    (0..1_000).for_each(|_| assert_eq!(dings.tick_when_due(), 1));
    dings
}

#[library_benchmark]
#[bench::times_1000(to_tick(10_000))]
fn ding_tick_that_fires_nothing_of_10000(mut dings: Dings) -> Dings {
    (0..1_000).for_each(|_| assert_eq!(dings.tick(), 0));
    dings
}

library_benchmark_group!(
    name = state;
    benchmarks =
        publish_into_group_of_10000,
        mark_read_in_group_of_100000,
        read_counts_in_group_of_100000,
        attach_again_with_groups_1000,
        ding_confirm_among_10000,
        ding_tick_that_fires_one_of_10000,
        ding_tick_that_fires_nothing_of_10000
);
