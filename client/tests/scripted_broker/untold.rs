//! A client that ended between the broker's restore and its application hearing of it: the next one tells.

use std::sync::Arc;

use carillon_client::{
    Client, Config, Cursor, Event, Events, FileStore, MemoryStore, MessageKind, Position, PublishError, Saved, Start,
    Store,
};

use crate::broker::{Broker, INCARNATION, Session, next, soon};
use crate::restored::{FRIEND, RESTORED, Tells, accept_anew, at, publishes_only, restored, takes_the_reset, unsettled};

/// A client of this store that is told of the restore, and has not told its application.
async fn reset(broker: &Broker, store: &Arc<dyn Store>, tells: Tells) -> (Client, Events, Session) {
    let connect = Client::connect(broker.config().store(Arc::clone(store)));
    let (connected, session) = tokio::join!(soon(connect), accept_anew(broker, tells));
    let (client, events) = connected.expect("the client is welcome");
    (client, events, session)
}

async fn is_void(client: &Client, count: usize) {
    let recovered = client.recovered();
    assert_eq!(recovered.len(), count);
    for handle in recovered {
        assert!(matches!(soon(handle).await, Err(PublishError::Reset)));
    }
}

async fn check_untold(store: Arc<dyn Store>, tells: Tells) {
    let broker = Broker::start();
    store.save_cursor(at(INCARNATION, 0)).expect("the store works");
    store.save_unsettled(&[unsettled(1), unsettled(2)]).expect("the store works");
    let (client, mut events, _session) = reset(&broker, &store, tells).await;
    assert!(matches!(next(&mut events).await, Event::Reset), "it ends while it drops its ids");
    soon(client.close()).await;
    // Whatever was acknowledged of the new journal, the application will have nothing of it.
    store.save_cursor(at(RESTORED, 40)).expect("the store works");
    let config = broker.config().store(Arc::clone(&store));
    let (client, mut events, mut session) = broker.connect_as(config.clone(), restored()).await;
    let of_nothing = Cursor { receipts_through: Position(0), ..at(RESTORED, 0) };
    assert_eq!(session.hello.cursors, [of_nothing], "nor of read updates");
    let early = client.enqueue(FRIEND, MessageKind::TEXT, "x").await;
    assert!(matches!(early, Err(PublishError::Reset)), "the application does not know yet");
    is_void(&client, 2).await;
    let Saved { cursors, reset_due, .. } = store.load().expect("the store works");
    assert_eq!((cursors, reset_due), (vec![at(RESTORED, 0)], Some(vec![1, 2])), "nobody was told");
    takes_the_reset(&client, &mut events).await;
    publishes_only(&client, &mut session, 3).await;
    soon(client.close()).await;
    assert_eq!(store.load().expect("the store works").reset_due, None);
    let (client, _events, mut session) = broker.connect_as(config, restored()).await;
    publishes_only(&client, &mut session, 4).await;
    is_void(&client, 0).await;
}

#[tokio::test]
async fn a_reset_that_the_application_was_not_told_is_told_by_the_next_process() {
    check_untold(Arc::new(MemoryStore::new()), Tells::ByRefusal).await;
    check_untold(Arc::new(MemoryStore::new()), Tells::ByWelcome).await;
    let directory = tempfile::tempdir().unwrap();
    check_untold(Arc::new(FileStore::open(directory.path()).unwrap()), Tells::ByRefusal).await;
}

#[tokio::test]
async fn who_begins_anew_without_events_is_done_with_the_reset() {
    let broker = Broker::start();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    store.save_cursor(at(INCARNATION, 0)).unwrap();
    let (client, _events, _session) = reset(&broker, &store, Tells::ByRefusal).await;
    assert_eq!(store.load().unwrap().reset_due, Some(Vec::new()));
    client.begin_anew();
    soon(client.close()).await;
    assert_eq!(store.load().unwrap().reset_due, None);
}

#[tokio::test]
async fn a_second_restore_adds_to_what_the_first_one_made_void() {
    let broker = Broker::start();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    store.save_unsettled(&[unsettled(1)]).unwrap();
    store.reset().unwrap();
    store.save_cursor(at(INCARNATION, 0)).unwrap();
    store.save_unsettled(&[unsettled(2)]).unwrap();
    let (client, mut events, mut session) = reset(&broker, &store, Tells::ByWelcome).await;
    is_void(&client, 2).await;
    takes_the_reset(&client, &mut events).await;
    publishes_only(&client, &mut session, 3).await;
}

#[tokio::test]
async fn a_client_that_publishes_nothing_and_knows_the_journal_tells_what_was_left() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_cursor(at(INCARNATION, 40)).unwrap();
    store.save_unsettled(&[unsettled(1)]).unwrap();
    let config = broker.config().store(Arc::clone(&store) as Arc<_>).start(Start::From(vec![at(RESTORED, 12)]));
    let config = Config { producer: None, ..config };
    for _ in 0..2 {
        let (client, _events, session) = broker.connect_as(config.clone(), restored()).await;
        assert_eq!(session.hello.cursors, [at(RESTORED, 12)]);
        assert_eq!(store.load().unwrap().reset_due, Some(vec![1]), "as long as nobody asked");
        soon(client.close()).await;
    }
    let (client, _events, _session) = broker.connect_as(config, restored()).await;
    is_void(&client, 1).await;
    soon(client.close()).await;
    assert_eq!(store.load().unwrap().reset_due, None);
}

#[tokio::test]
async fn a_client_that_publishes_nothing_tells_what_a_later_reset_made_void() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_cursor(at(INCARNATION, 0)).unwrap();
    store.save_unsettled(&[unsettled(1)]).unwrap();
    let config = Config { producer: None, ..broker.config().store(Arc::clone(&store) as Arc<_>) };
    let (client, mut events, session) = broker.connect(config).await;
    is_void(&client, 0).await;
    session.close(carillon_client::ErrorCode::INTERNAL).await;
    let _session = accept_anew(&broker, Tells::ByRefusal).await;
    assert!(matches!(next(&mut events).await, Event::Reset));
    is_void(&client, 1).await;
}
