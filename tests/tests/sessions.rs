//! The live sessions of a user are listed and ended, whichever edges hold them.

use carillon_client::{Config, ConnectError, DeviceId, ErrorCode, Event};
use carillon_tests::harness::{Broker, connect, next_that, patiently, refusal};

/// As many devices as a user may have: that they are all on one of two edges has a chance of 2⁻¹⁵.
const SESSIONS: u64 = 16;

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_all_edges_are_listed_and_ended() {
    let broker = Broker::start();
    let (mut clients, mut configs) = (Vec::new(), Vec::new());
    for nth in 1..=SESSIONS {
        let config = broker.site.config(broker.address, "ann").device(DeviceId(nth));
        let config = Config { client: format!("phone {nth}"), ..config };
        configs.push(config.clone());
        clients.push(connect(config).await);
    }
    let ann = clients[0].0.user();
    let (operator, _operator_events) = broker.service("operator").await;
    let listed = patiently(operator.sessions(ann)).await.unwrap();
    let mut devices: Vec<u64> = listed.iter().map(|session| session.device.0).collect();
    devices.sort_unstable();
    assert_eq!(devices, (1..=SESSIONS).collect::<Vec<_>>());
    let mut edges: Vec<u16> = listed.iter().map(|session| session.edge).collect();
    edges.sort_unstable();
    edges.dedup();
    assert_eq!(edges, [0, 1], "one edge lists and ends sessions of the other");
    for session in &listed {
        assert_eq!(session.client, format!("phone {}", session.device));
        assert!(session.address.starts_with("127.0.0.1:") && session.producer.is_some() && session.since.0 > 0);
    }
    let own = patiently(clients[0].0.sessions(ann)).await.unwrap();
    assert_eq!(own, listed, "a user sees the own sessions");

    assert_eq!(patiently(operator.kick(ann, Some(DeviceId(3)))).await.unwrap(), 1);
    assert_eq!(patiently(operator.kick(ann, Some(DeviceId(77)))).await.unwrap(), 0);
    let (_, mut events) = clients.remove(2);
    let (code, text) = ended(&mut events).await;
    assert_eq!((code, text.as_str()), (ErrorCode::KICKED, "KICKED: ended by operator"));
    assert_eq!(patiently(operator.kick(ann, None)).await.unwrap(), u32::try_from(SESSIONS - 1).unwrap());
    for (_, mut events) in clients {
        assert_eq!(ended(&mut events).await.0, ErrorCode::KICKED);
    }
    assert_eq!(patiently(operator.sessions(ann)).await.unwrap(), []);
    assert_eq!(patiently(operator.presence(&[ann])).await.unwrap(), [None]);
    // The token is as good as before.
    let (again, _events) = connect(configs.swap_remove(2)).await;
    assert_eq!(patiently(again.sessions(ann)).await.unwrap().len(), 1);
}

async fn ended(events: &mut carillon_client::Events) -> (ErrorCode, String) {
    patiently(async {
        loop {
            match events.next().await {
                Some(Event::Ended(ConnectError::Refused { code, text })) => return (code, text),
                Some(_) => {}
                None => panic!("the client ended without a word"),
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_looks_after_the_own_sessions_alone() {
    let broker = Broker::start();
    let (ann, _ann_events) = broker.client("ann").await;
    let (bob, mut bob_events) = broker.client("bob").await;
    assert_eq!(refusal(patiently(ann.sessions(bob.user())).await), ErrorCode::FORBIDDEN);
    assert_eq!(refusal(patiently(ann.kick(bob.user(), None)).await), ErrorCode::FORBIDDEN);
    let config = broker.site.config(broker.address, "bob").device(DeviceId(5));
    let (other, _other_events) = connect(config).await;
    let first = patiently(other.sessions(bob.user())).await.unwrap()[0].device;
    assert_eq!(patiently(other.kick(bob.user(), Some(first))).await.unwrap(), 1);
    assert_eq!(ended(&mut bob_events).await.1, "KICKED: ended by bob");
    let token = broker.site.token_of("other", "mallory", "admin");
    let (mallory, _mallory_events) = connect(broker.site.config_with(broker.address, token)).await;
    assert_eq!(patiently(mallory.kick(bob.user(), None)).await.unwrap_or(0), 0, "another tenant's user of that number");
    assert_eq!(patiently(other.sessions(bob.user())).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_moves_on_is_listed_once() {
    let broker = Broker::start();
    let config = broker.site.config(broker.address, "ann").device(DeviceId(5));
    let (first, mut first_events) = connect(config.clone()).await;
    let user = first.user();
    let (second, _second_events) = connect(config).await;
    let fenced = next_that(&mut first_events, |event| match event {
        Event::Disconnected { .. } => None,
        Event::Ended(ConnectError::Refused { code, .. }) => Some(*code),
        _ => None,
    });
    assert_eq!(fenced.await, ErrorCode::FENCED);
    patiently(async {
        while second.sessions(user).await.unwrap().len() != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
