//! Opening, losing and closing sessions.

use std::sync::Arc;
use std::time::Duration;

use carillon_client::protocol::control::UserHandles;
use carillon_client::protocol::error::Done;
use carillon_client::protocol::session::Goodbye;
use carillon_client::{
    Client, ConnectError, Cursor, Disconnect, ErrorCode, Event, MemoryStore, MessageKind, Position, PublishError,
    Reconnect, Roots, ShardId, Start, Store, UserId,
};

use crate::broker::{Broker, CONVERSATION, INCARNATION, idle, next, position, soon, welcome};

/// With the read updates of a device that had none before it was welcomed.
fn cursor(position: u64) -> Cursor {
    let (position, receipts_through) = (Position(position), welcome().head);
    Cursor { shard: ShardId(0), incarnation: INCARNATION, position, receipts_through }
}

#[tokio::test]
async fn hello_says_who_and_where_to_go_on() {
    let broker = Broker::start();
    let config = broker.config().start(Start::From(vec![cursor(40)]));
    let device = config.device;
    let (client, _events, session) = broker.connect(config).await;
    assert_eq!((session.hello.device, session.hello.producer.0), (device, 5));
    assert_eq!((session.hello.version, session.hello.token.as_str()), (1, "token"));
    assert_eq!(session.hello.cursors, [cursor(40)]);
    assert_eq!((client.user(), client.welcome().handle.as_str()), (UserId(3), "alice"));
}

#[tokio::test]
async fn what_cannot_heal_is_an_error_at_once() {
    let broker = Broker::start();
    for code in [ErrorCode::UNAUTHENTICATED, ErrorCode::UNSUPPORTED_VERSION, ErrorCode::TOO_MANY_DEVICES] {
        match broker.refuse(broker.config(), &[code]).await {
            ConnectError::Refused { code: refused, text } => assert_eq!((refused, text.as_str()), (code, "because")),
            other => panic!("{other}"),
        }
    }
    let config = broker.config().start(Start::From(vec![cursor(40)]));
    let error = broker.refuse(config, &[ErrorCode::CURSOR_INVALID]).await;
    assert!(matches!(error, ConnectError::Refused { code: ErrorCode::CURSOR_INVALID, .. }), "{error}");
}

#[tokio::test]
async fn attempts_that_may_go_better_are_repeated_up_to_their_limit() {
    let broker = Broker::start();
    let reconnect = Reconnect { attempts_max: Some(3), ..broker.config().reconnect };
    let codes = [ErrorCode::SESSIONS_EXHAUSTED, ErrorCode::DRAINING, ErrorCode::INTERNAL];
    match broker.refuse(broker.config().reconnect(reconnect), &codes).await {
        ConnectError::Unreachable { attempts: 3, cause } => assert!(cause.to_string().contains("INTERNAL"), "{cause}"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_broker_that_nobody_vouches_for_is_a_tls_error() {
    let (broker, other) = (Broker::start(), Broker::start());
    let Roots::Pem(pem) = other.config().roots else { unreachable!("it is PEM") };
    let attempt = Client::connect(broker.config().roots(Roots::Pem(pem)));
    let accept = async {
        // The handshake fails on this side too.
        let _ = tokio::time::timeout(Duration::from_secs(1), broker.fail()).await;
    };
    let (connected, ()) = tokio::join!(soon(attempt), accept);
    assert!(matches!(connected, Err(ConnectError::Tls(_))), "{connected:?}");
}

#[tokio::test]
async fn a_draining_broker_is_given_the_time_it_asks_for() {
    let broker = Broker::start();
    let (client, mut events, mut session) = broker.connect(broker.config()).await;
    assert!(matches!(soon(events.next()).await, Some(Event::Connected(_))));
    session.control.send(Goodbye { reconnect_after_ms: 600 }).await;
    // When the answer after it was read, so was the Goodbye.
    let (left, ()) = tokio::join!(soon(client.leave(CONVERSATION)), async {
        assert_eq!(session.control.frame().await.name(), "Leave");
        session.control.send(Done { request: 1 }).await;
    });
    left.unwrap();
    session.close(ErrorCode::DRAINING).await;
    match soon(events.next()).await {
        Some(Event::Disconnected { reason: Disconnect::Closed { code, text } }) => {
            assert_eq!((code, text.as_str()), (ErrorCode::DRAINING, "because"));
        }
        other => panic!("{other:?}"),
    }
    assert!(idle(broker.accept()).await, "the client came back too early");
    let _session = broker.welcome().await;
    assert!(matches!(soon(events.next()).await, Some(Event::Connected(_))));
}

#[tokio::test]
async fn a_fenced_client_ends_and_says_so_once() {
    let broker = Broker::start();
    let (client, mut events, session) = broker.connect(broker.config()).await;
    let on_its_way = client.enqueue(CONVERSATION, MessageKind::TEXT, "x").await.unwrap();
    session.close(ErrorCode::FENCED).await;
    match next(&mut events).await {
        Event::Ended(ConnectError::Refused { code: ErrorCode::FENCED, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(soon(events.next()).await.is_none());
    assert!(matches!(soon(on_its_way).await, Err(PublishError::Closed)));
    let late = soon(client.publish(CONVERSATION, MessageKind::TEXT, "x")).await;
    assert!(matches!(late, Err(PublishError::Closed)));
    soon(client.close()).await;
}

#[tokio::test]
async fn a_malformed_frame_closes_the_connection_and_another_is_opened() {
    let broker = Broker::start();
    let (_client, mut events, mut session) = broker.connect(broker.config()).await;
    session.control.send.write_all(&[0, 0, 0, 0, 0xee, 0, 0, 0]).await.unwrap();
    assert_eq!(session.closed().await, ErrorCode::MALFORMED);
    let session = broker.welcome().await;
    let _inbox = session.deliver([1]).await;
    assert_eq!(position(&mut events).await, 1);
}

#[tokio::test]
async fn an_invalid_cursor_is_dropped_and_everything_starts_anew() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_cursor(cursor(40)).unwrap();
    let refuse_then_welcome = async {
        let session = broker.accept().await;
        assert_eq!(session.hello.cursors, [cursor(40)]);
        session.close(ErrorCode::CURSOR_INVALID).await;
        broker.welcome().await
    };
    let connect = Client::connect(broker.config().store(Arc::clone(&store) as Arc<_>));
    let (connected, session) = tokio::join!(soon(connect), refuse_then_welcome);
    let (_client, mut events) = connected.unwrap();
    assert_eq!(session.hello.cursors, []);
    assert_eq!(store.load().unwrap().cursors, [cursor(0)], "of the new history, before anything else");
    let _inbox = session.deliver([1]).await;
    assert!(matches!(next(&mut events).await, Event::Reset));
    assert_eq!(position(&mut events).await, 1);
}

#[tokio::test]
async fn closing_waits_until_the_last_acknowledgement_was_read() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let config = broker.config().store(Arc::clone(&store) as Arc<_>);
    let (client, mut events, mut session) = broker.connect(config).await;
    let _inbox = session.deliver([4]).await;
    let event = next(&mut events).await;
    events.ack(&event);
    let broker_side = async {
        assert_eq!(session.ack().await.position, Position(4));
        let question = session.control.frame().await;
        assert_eq!(question.name(), "UserLookup");
        let answer = UserHandles { request: 1, entries: Vec::new(), handles: "".into() };
        session.control.send(answer).await;
        assert_eq!(session.closed().await, ErrorCode::NONE);
    };
    tokio::join!(soon(client.close()), broker_side);
    assert!(soon(events.next()).await.is_none());
    assert_eq!(store.load().unwrap().cursors, [cursor(4)]);
}

#[tokio::test]
async fn dropping_all_handles_closes_the_connection() {
    let broker = Broker::start();
    let (client, events, session) = broker.connect(broker.config()).await;
    let clone = client.clone();
    drop(client);
    drop(events);
    assert!(idle(session.connection.closed()).await);
    drop(clone);
    assert_eq!(session.closed().await, ErrorCode::NONE);
}
