//! A user who comes and goes for ever: the stints that are too many are forgotten, and a device that missed them is told.

use std::ops::RangeInclusive;

use carillon_client::{DeviceId, Event, Role, Seq};
use carillon_tests::harness::{Broker, connect, group_of, next_that, patiently, say};

/// Of one user in one conversation.
const STINTS_MAX: u64 = 64;

#[tokio::test(flavor = "multi_thread")]
async fn stints_beyond_the_limit_are_named_to_a_device_that_missed_them() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, bob_events) = broker.client("bob").await;
    let bobs = [bob.user()];
    patiently(bob.close()).await;
    drop(bob_events);
    let group = group_of(&alice, &[]).await;
    // Odd seqs are published without bob, even ones with him: the nth stint has seq 2n.
    let stints = STINTS_MAX + 3;
    for _ in 0..stints {
        say(&alice, group, "without bob").await;
        alice.add_members(group, &bobs, Role::MEMBER).await.unwrap();
        say(&alice, group, "with bob").await;
        alice.remove_members(group, &bobs).await.unwrap();
    }
    let (phone, mut events) = connect(broker.site.config(broker.address, "bob").device(DeviceId(77))).await;
    let gone: RangeInclusive<Seq> = next_that(&mut events, |event| match event {
        Event::Truncated(gap) if gap.conversation == group => Some(gap.first..=gap.last),
        Event::Message(message) => panic!("{message:?} before the gap is named"),
        _ => None,
    })
    .await;
    assert_eq!(gone, Seq(2)..=Seq(6), "the three stints that are too many");
    for nth in 4..=stints {
        let seq = next_that(&mut events, |event| match event {
            Event::Message(message) => Some(message.seq),
            Event::Truncated(gap) => panic!("{gap:?} is named twice"),
            _ => None,
        });
        assert_eq!(seq.await, Seq(2 * nth));
    }
    drop(phone);
}
