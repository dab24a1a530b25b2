//! Numbers, results, repeats.

use std::sync::Arc;

use carillon_client::protocol::publish::PublishRefused;
use carillon_client::{ErrorCode, MemoryStore, MessageKind, PublishError, PublishHandle, Store, UserId, Welcome};

use crate::broker::{Broker, CONVERSATION, idle, published, soon, welcome};

async fn enqueue(client: &carillon_client::Client, count: u64) -> Vec<PublishHandle> {
    let mut handles = Vec::new();
    for number in 0..count {
        let payload = number.to_le_bytes().to_vec();
        handles.push(client.enqueue(CONVERSATION, MessageKind::TEXT, payload).await.expect("there is room"));
    }
    handles
}

fn refused(number: u64, code: ErrorCode) -> PublishRefused {
    PublishRefused { number, code, text: "because".into() }
}

#[tokio::test]
async fn many_are_on_their_way_and_results_come_in_any_order() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let handles = enqueue(&client, 100).await;
    assert_eq!(session.numbers(100).await, (1..=100).map(|number| (number, 1)).collect::<Vec<_>>());
    for number in (1..=100).rev() {
        session.publishes().await.send(published(number)).await;
    }
    for (number, handle) in (1..=100).zip(handles) {
        assert_eq!(handle.number(), number);
        assert_eq!(soon(handle).await.unwrap(), published(number));
    }
}

#[tokio::test]
async fn what_has_no_result_is_repeated_under_its_number_before_anything_new() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let mut handles = enqueue(&client, 3).await;
    let first = [session.publish().await, session.publish().await, session.publish().await];
    session.publishes().await.send(published(2)).await;
    assert_eq!(soon(handles.remove(1)).await.unwrap().number, 2);
    session.close(ErrorCode::INTERNAL).await;
    handles.extend(enqueue(&client, 1).await);
    let mut session = broker.accept().await;
    session.control.send(Welcome { producer_highest: 3, ..welcome() }).await;
    let second = [session.publish().await, session.publish().await, session.publish().await];
    assert_eq!(second.each_ref().map(|publish| (publish.number, publish.low)), [(1, 1), (3, 1), (4, 1)]);
    assert_eq!((&second[0], &second[1]), (&first[0], &first[2]), "a repeat has the same content");
    for number in [4, 3, 1] {
        session.publishes().await.send(published(number)).await;
    }
    for handle in handles {
        soon(handle).await.unwrap();
    }
}

#[tokio::test]
async fn without_a_store_numbers_go_on_after_the_highest_with_a_result() {
    let broker = Broker::start();
    let (client, _events, mut session) =
        broker.connect_as(broker.config(), Welcome { producer_highest: 41, ..welcome() }).await;
    let _handle = client.enqueue(UserId(8), MessageKind::CARD, "x").await.unwrap();
    let publish = session.publish().await;
    assert_eq!((publish.number, publish.low, publish.target_id, publish.kind), (42, 42, 8, MessageKind::CARD));
}

#[tokio::test]
async fn after_busy_everything_from_the_refused_number_on_is_sent_again() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let handles = enqueue(&client, 4).await;
    session.numbers(4).await;
    session.publishes().await.send(published(1)).await;
    for number in 2..=4 {
        session.publishes().await.send(refused(number, ErrorCode::BUSY)).await;
    }
    assert_eq!(session.numbers(3).await, [(2, 2), (3, 2), (4, 2)]);
    for number in 2..=4 {
        session.publishes().await.send(published(number)).await;
    }
    for handle in handles {
        soon(handle).await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_is_told_and_settles_the_number() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let (client, _events, mut session) = broker.connect(broker.config().store(Arc::clone(&store) as Arc<_>)).await;
    let handle = enqueue(&client, 1).await.remove(0);
    session.numbers(1).await;
    assert_eq!(store.load().unwrap().unsettled.len(), 1, "saved before it was sent");
    session.publishes().await.send(refused(1, ErrorCode::FORBIDDEN)).await;
    match soon(handle).await {
        Err(PublishError::Refused { code: ErrorCode::FORBIDDEN, text }) => assert_eq!(text, "because"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.load().unwrap().unsettled, []);
    let _handle = enqueue(&client, 1).await;
    assert_eq!(session.numbers(1).await, [(2, 2)]);
}

#[tokio::test]
async fn what_an_earlier_process_left_is_sent_again_first() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let config = broker.config().store(Arc::clone(&store) as Arc<_>);
    let (client, events, mut session) = broker.connect(config.clone()).await;
    let lost = enqueue(&client, 2).await;
    session.numbers(2).await;
    soon(client.close()).await;
    for handle in lost {
        assert!(matches!(soon(handle).await, Err(PublishError::Closed)));
    }
    drop((client, events));

    let (client, _events, mut session) = broker.connect_as(config, Welcome { producer_highest: 1, ..welcome() }).await;
    let new = enqueue(&client, 1).await.remove(0);
    assert_eq!(session.numbers(3).await, [(1, 1), (2, 1), (3, 1)]);
    for number in 1..=3 {
        session.publishes().await.send(published(number)).await;
    }
    for earlier in client.recovered() {
        soon(earlier).await.unwrap();
    }
    soon(new).await.unwrap();
}

#[tokio::test]
async fn a_full_window_waits_for_its_lowest_number() {
    let broker = Broker::start();
    let (client, _events, mut session) = broker.connect(broker.config()).await;
    let _handles = enqueue(&client, 1_024).await;
    session.numbers(1_024).await;
    assert!(idle(client.enqueue(CONVERSATION, MessageKind::TEXT, "x")).await);
    session.publishes().await.send(published(2)).await;
    assert!(idle(client.enqueue(CONVERSATION, MessageKind::TEXT, "x")).await, "1 is still open");
    session.publishes().await.send(published(1)).await;
    let handle = soon(client.enqueue(CONVERSATION, MessageKind::TEXT, "x")).await.unwrap();
    assert_eq!(handle.number(), 1_025);
    assert_eq!(session.numbers(1).await, [(1_025, 3)]);
}

#[tokio::test]
async fn a_fenced_producer_ends_and_leaves_its_publishes_to_the_store() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let (client, _events, mut session) = broker.connect(broker.config().store(Arc::clone(&store) as Arc<_>)).await;
    let handle = enqueue(&client, 1).await.remove(0);
    session.numbers(1).await;
    session.publishes().await.send(refused(1, ErrorCode::FENCED)).await;
    assert!(matches!(soon(handle).await, Err(PublishError::Closed)));
    assert_eq!(store.load().unwrap().unsettled.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_without_asking() {
    let broker = Broker::start();
    let mut config = broker.config();
    let (client, _events, _session) = broker.connect(config.clone()).await;
    let large = client.publish(CONVERSATION, MessageKind::TEXT, vec![0; 65_537]).await;
    assert!(matches!(large, Err(PublishError::TooLarge { bytes: 65_537, bytes_max: 65_536 })));
    config.producer = None;
    let (client, _events, _session) = broker.connect(config).await;
    let without = client.publish(CONVERSATION, MessageKind::TEXT, "x").await;
    assert!(matches!(without, Err(PublishError::NoProducer)));
}
