//! A device whose address changes keeps its session, whichever edge's socket its packets arrive at.

use carillon_client::{Event, Events, MessageKind};
use carillon_tests::harness::{Broker, connect, group_of, patiently, say};
use carillon_tests::proxy::Proxy;
use carillon_transport::TransportConfig;
use tokio::sync::watch;

/// Without the kernel's steering each address lands on either edge's socket: that all these land on one has a chance of
/// 2 × 2⁻⁴⁰.
const MOVES: u64 = 40;

/// Takes what comes and says how much came from the other's endless talk and from the marks between it: in order, once, in
/// one session.
async fn read(mut events: Events, marks: watch::Sender<u64>) {
    let (mut talked, mut seq) = (0, 0);
    loop {
        let Some(event) = events.next().await else { return };
        events.ack(&event);
        match event {
            Event::Message(message) => {
                assert_eq!(message.seq.0, seq + 1, "messages come in order, each once");
                seq = message.seq.0;
                match &message.payload[..4] {
                    b"talk" => {
                        assert_eq!(message.payload[4..], u64::to_le_bytes(talked));
                        talked += 1;
                    }
                    _ => marks.send_modify(|marks| *marks += 1),
                }
            }
            Event::Disconnected { reason } => panic!("the session ended: {reason}"),
            Event::Ended(error) => panic!("the client ended: {error}"),
            _ => {}
        }
    }
}

async fn a_session_survives_moving(transport: TransportConfig) {
    let broker = Broker::start_with(transport);
    let proxy = Proxy::start(broker.address).await;
    let (alice, alice_events) = broker.client("alice").await;
    drop(alice_events);
    let (bob, bob_events) = connect(broker.site.config(proxy.address, "bob")).await;
    let session = bob.welcome().time;
    let group = group_of(&alice, &[bob.user()]).await;
    let (marks_in, mut marks) = watch::channel(0);
    let reading = tokio::spawn(read(bob_events, marks_in));
    let (stop_talking, stop) = watch::channel(false);
    let talker = alice.clone();
    let talking = tokio::spawn(async move {
        let mut talked = 0u64;
        while !*stop.borrow() {
            let text = [&b"talk"[..], &talked.to_le_bytes()].concat();
            patiently(talker.publish(group, MessageKind::TEXT, text)).await.expect("it is durable");
            talked += 1;
        }
    });
    let mut addresses = vec![];
    for nth in 1..=MOVES {
        addresses.push(proxy.rebind().await);
        // From the new address to the broker and back.
        say(&bob, group, format!("mark {nth}")).await;
        patiently(marks.wait_for(|marks| *marks == nth)).await.expect("bob reads");
    }
    stop_talking.send_replace(true);
    talking.await.expect("all that alice said was accepted");
    say(&alice, group, "mark, the last").await;
    tokio::select! {
        read = reading => panic!("bob's events ended: {read:?}"),
        last = patiently(marks.wait_for(|marks| *marks == MOVES + 1)) => drop(last.expect("bob reads")),
    }
    assert_eq!(bob.welcome().time, session, "it is one session");
    addresses.sort_unstable();
    addresses.dedup();
    assert!(addresses.len() > 1, "the address changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_change_of_its_address_where_the_kernel_steers() {
    a_session_survives_moving(TransportConfig::server()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_change_of_its_address_where_edges_hand_over() {
    let mut transport = TransportConfig::server();
    transport.steer_in_kernel = false;
    a_session_survives_moving(transport).await;
}
