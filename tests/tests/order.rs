//! Order: under many publishers at once every subscriber sees one and the same order, without a gap.

use std::collections::HashMap;

use carillon_client::{Client, ConversationId, Events, Message, MessageKind, Published};
use carillon_tests::harness::{Broker, group_of, next_message, patiently};
use tokio::sync::mpsc;

const PUBLISHERS: usize = 8;
const EACH: usize = 600;
const ALL: usize = PUBLISHERS * EACH;

/// Pipelines texts `publisher/number`, each third into the second group, and says the result of each.
fn publish_all(
    client: &Client,
    publisher: usize,
    groups: [ConversationId; 2],
    results: mpsc::Sender<(String, Published)>,
) {
    let (client, (handles_in, mut handles)) = (client.clone(), mpsc::channel(EACH));
    tokio::spawn(async move {
        for number in 0..EACH {
            let (group, text) = (groups[usize::from(number % 3 == 2)], format!("{publisher}/{number}"));
            let handle = client.enqueue(group, MessageKind::TEXT, text.clone()).await.expect("it is enqueued");
            handles_in.send((text, handle)).await.expect("its result is awaited");
        }
    });
    tokio::spawn(async move {
        while let Some((text, handle)) = handles.recv().await {
            let published = handle.await.expect("it is accepted");
            results.send((text, published)).await.expect("the test goes on");
        }
    });
}

async fn read_all(mut events: Events) -> Vec<Message> {
    let mut messages = Vec::with_capacity(ALL);
    for _ in 0..ALL {
        messages.push(next_message(&mut events).await);
    }
    messages
}

fn check(messages: &[Message], groups: [ConversationId; 2], published: &HashMap<String, Published>) {
    assert!(messages.is_sorted_by(|a, b| a.position < b.position), "positions ascend over both groups");
    let mut last_seq = HashMap::from(groups.map(|group| (group, 0)));
    let mut next_number = [0; PUBLISHERS];
    for message in messages {
        let seq = last_seq.get_mut(&message.conversation).expect("one of the two");
        *seq += 1;
        assert_eq!(message.seq.0, *seq, "no gap in {:?}", message.conversation);
        let text = str::from_utf8(&message.payload).expect("text");
        let (publisher, number) = text.split_once('/').expect("publisher/number");
        let publisher: usize = publisher.parse().expect("a number");
        assert_eq!(number.parse(), Ok(next_number[publisher]), "{publisher} in its order");
        next_number[publisher] += 1;
        let said = &published[text];
        assert_eq!(
            (said.conversation, said.seq, said.position, said.time),
            (message.conversation, message.seq, message.position, message.time),
            "the publisher was told the same"
        );
    }
    assert_eq!(next_number, [EACH; PUBLISHERS]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscriber_sees_the_one_order_of_eight_concurrent_publishers() {
    let broker = Broker::start();
    // Six users publish, two of them from two devices at once: order is promised to each publisher, not to each user.
    let mut publishers = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (client, events) = broker.client(&format!("publisher-{}", publisher % 6)).await;
        publishers.push((client, Some(events)));
    }
    let mut live = Vec::new();
    for device in 0..8 {
        live.push(broker.client(&format!("reader-{}", device % 4)).await);
    }
    let users = publishers.iter().map(|(client, _)| client).chain(live.iter().map(|(client, _)| client));
    let users: Vec<_> = users.map(Client::user).collect();
    let groups = [group_of(&publishers[0].0, &users).await, group_of(&publishers[1].0, &users).await];

    let mut reading = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for (client, events) in live {
        clients.push(client);
        reading.spawn(read_all(events));
    }
    // A publisher is a subscriber too; the others of them take nothing, and must not mind.
    reading.spawn(read_all(publishers[0].1.take().unwrap()));

    let (results_in, mut results) = mpsc::channel(ALL);
    for (publisher, (client, _)) in publishers.iter().enumerate() {
        publish_all(client, publisher, groups, results_in.clone());
    }
    drop(results_in);
    let mut published = HashMap::new();
    while let Some((text, result)) = patiently(results.recv()).await {
        assert_eq!(result.repeated, 0);
        published.insert(text, result);
        // Those that come while it flows: each reads the journal first and joins the flow in the middle of it.
        if [ALL / 4, ALL / 2, ALL * 3 / 4].contains(&published.len()) {
            let (client, events) = broker.client("reader-0").await;
            clients.push(client);
            reading.spawn(read_all(events));
        }
    }
    assert_eq!(published.len(), ALL);
    // And one that comes when all is said.
    let (client, events) = broker.client("reader-1").await;
    clients.push(client);
    reading.spawn(read_all(events));

    let mut read = 0;
    while let Some(messages) = patiently(reading.join_next()).await {
        check(&messages.unwrap(), groups, &published);
        read += 1;
    }
    assert_eq!(read, 13);
}
