//! Sessions that do not read cost the broker no memory and lose nothing.

use std::sync::Arc;

use carillon_client::{Client, Config, Events, Limits, MessageKind, NewConversation, PublishHandle};
use carillon_tests::harness::{Process, connect, next_message, patiently};

const MESSAGES: u64 = 50_000;
const PAYLOAD_BYTES: usize = 128;
const SLOW_SESSIONS: usize = 20;

/// What the broker may grow by while the messages go by: they are 8 MB in the ring and 0.6 MB in the index, and each slow
/// session holds a window of 256 KiB. Kept for every slow session, the messages would be 160 MB.
const GROWTH_KB_MAX: u64 = 64 * 1024;

/// Takes only a few events from the wire until they are asked for.
fn slow(config: Config) -> Config {
    let limits = Limits { events_queued: 4, ..Limits::default() };
    Config { limits, ..config }
}

async fn publish_all(alice: &Client, group: carillon_client::protocol::ids::ConversationId) {
    let mut acks: std::collections::VecDeque<PublishHandle> = std::collections::VecDeque::new();
    for number in 0..MESSAGES {
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(PAYLOAD_BYTES, b'.');
        acks.push_back(patiently(alice.enqueue(group, MessageKind::TEXT, payload)).await.expect("it is durable"));
        if acks.len() >= 512 {
            patiently(acks.pop_front().expect("not empty")).await.expect("it is durable");
        }
    }
    for ack in acks {
        patiently(ack).await.expect("it is durable");
    }
}

async fn read_all(mut events: Events) {
    for number in 0..MESSAGES {
        let message = next_message(&mut events).await;
        assert_eq!(message.seq.0, number + 1);
        assert_eq!(message.payload[..8], number.to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stops_reading_gets_everything_later_and_costs_no_memory() {
    let broker = Arc::new(Process::start());
    let config = |handle: &str| broker.site.config(broker.address, handle);
    let (alice, alice_events) = connect(config("alice")).await;
    drop(alice_events);
    let mut slow_sessions = Vec::new();
    let mut members = Vec::new();
    for nth in 0..SLOW_SESSIONS {
        let (client, events) = connect(slow(config(&format!("slow-{nth}")))).await;
        members.push(client.user());
        slow_sessions.push((client, events));
    }
    let (reader, reader_events) = connect(config("reader")).await;
    members.push(reader.user());
    let group = patiently(alice.create_conversation(NewConversation::group(members))).await.unwrap().conversation;

    let before_kb = broker.resident_kb();
    let reading = tokio::spawn(read_all(reader_events));
    publish_all(&alice, group).await;
    // One who reads is not held up by those who do not.
    reading.await.unwrap();
    let growth_kb = broker.resident_kb().saturating_sub(before_kb);
    assert!(growth_kb < GROWTH_KB_MAX, "{SLOW_SESSIONS} slow sessions: the broker grew by {growth_kb} kB");

    let mut readings = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for (client, events) in slow_sessions {
        clients.push(client);
        readings.spawn(read_all(events));
    }
    while let Some(read) = readings.join_next().await {
        read.unwrap();
    }
}
