//! Messages between two users, to every device of both.

use carillon_client::{MessageKind, To};
use carillon_tests::harness::{Broker, connect, next_message, patiently};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_user_reaches_every_device_of_both() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (_alice_phone, mut alice_phone_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let (_bob_phone, mut bob_phone_events) = broker.client("bob").await;

    let published = patiently(alice.publish(bob.user(), MessageKind::TEXT, "hello")).await.unwrap();
    assert_eq!(published.seq.0, 1);

    for events in [&mut alice_events, &mut alice_phone_events, &mut bob_events, &mut bob_phone_events] {
        let message = next_message(events).await;
        assert_eq!(&message.payload[..], b"hello");
        assert_eq!(
            (message.conversation, message.seq, message.position, message.author),
            (published.conversation, published.seq, published.position, alice.user())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_goes_into_the_same_conversation() {
    let broker = Broker::start();
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    let there = patiently(alice.publish(bob.user(), MessageKind::TEXT, "ping")).await.unwrap();
    let back = patiently(bob.publish(alice.user(), MessageKind::TEXT, "pong")).await.unwrap();
    assert_eq!((there.conversation, there.seq.next()), (back.conversation, back.seq));
    for events in [&mut alice_events, &mut bob_events] {
        assert_eq!(&next_message(events).await.payload[..], b"ping");
        assert_eq!(&next_message(events).await.payload[..], b"pong");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_device_gets_what_was_said_before_it_came() {
    let broker = Broker::start();
    let (alice, _alice_events) = broker.client("alice").await;
    let (bob, _bob_events) = broker.client("bob").await;
    for text in ["one", "two", "three"] {
        patiently(alice.publish(bob.user(), MessageKind::TEXT, text)).await.unwrap();
    }
    let (_tablet, mut events) = connect(broker.site.config(broker.address, "bob")).await;
    for text in ["one", "two", "three"] {
        assert_eq!(next_message(&mut events).await.payload, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_to_themselves_or_to_nobody() {
    let broker = Broker::start();
    let (alice, _events) = broker.client("alice").await;
    for to in [To::User(alice.user()), To::User(carillon_client::protocol::ids::UserId(4_711))] {
        patiently(alice.publish(to, MessageKind::TEXT, "?")).await.unwrap_err();
    }
    patiently(alice.find_user("nobody")).await.unwrap_err();
}
