//! A broker whose journal was restored from a backup: ids of before are void.

use std::io;
use std::sync::{Arc, Mutex};

use carillon_client::protocol::control::UserFound;
use carillon_client::protocol::kinds::Lane;
use carillon_client::{
    Client, Config, Cursor, ErrorCode, Event, Events, Incarnation, MemoryStore, MessageKind, Position, ProducerId,
    PublishError, RequestError, Saved, ShardId, SignalKind, Start, Store, Unsettled, UserId, Welcome,
};

use crate::broker::{Broker, CONVERSATION, INCARNATION, Session, ding, idle, next, published, soon, welcome, write};

pub(crate) const RESTORED: Incarnation = Incarnation(8);

/// Who had this id before the restore; afterwards somebody else may.
pub(crate) const FRIEND: UserId = UserId(8);

pub(crate) fn restored() -> Welcome {
    Welcome { incarnation: RESTORED, ..welcome() }
}

/// With the read updates of a device that had none before it was welcomed.
pub(crate) fn at(incarnation: Incarnation, position: u64) -> Cursor {
    let receipts_through = welcome().head;
    Cursor { shard: ShardId(0), incarnation, position: Position(position), receipts_through }
}

pub(crate) fn unsettled(number: u64) -> Unsettled {
    Unsettled { number, to: FRIEND.into(), kind: MessageKind::TEXT, payload: "for a friend".into() }
}

/// How the broker tells that it was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// It refuses the cursor.
    ByRefusal,
    /// It does not look at a cursor without a position, and welcomes as what it is.
    ByWelcome,
}

/// Accepts a client of the old history, tells it, and welcomes it as one of none.
pub(crate) async fn accept_anew(broker: &Broker, tells: Tells) -> Session {
    let mut session = broker.accept().await;
    // A process that begins from other cursors than its store's has no read updates yet, one that was welcomed has them from there on.
    let history = session.hello.cursors.iter().map(|said| (said.shard, said.incarnation, said.position));
    let expected = [(ShardId(0), INCARNATION, Position(0))];
    assert_eq!(history.collect::<Vec<_>>(), expected, "it says of which history it is");
    let receipts_through = session.hello.cursors[0].receipts_through;
    assert!([Position(0), welcome().head].contains(&receipts_through), "{receipts_through} is of no journal");
    match tells {
        Tells::ByRefusal => session.close(ErrorCode::CURSOR_INVALID).await,
        Tells::ByWelcome => {
            session.control.send(restored()).await;
            assert_eq!(session.closed().await, ErrorCode::NONE);
            assert!(session.connection.accept_bi().await.is_err(), "nothing of the old history is sent");
        }
    }
    let mut session = broker.accept().await;
    assert_eq!(session.hello.cursors, []);
    session.control.send(restored()).await;
    session
}

/// The first publish of the session is what is published now.
pub(crate) async fn publishes_only(client: &Client, session: &mut Session, number: u64) {
    let anew = soon(client.enqueue(UserId(9), MessageKind::TEXT, "anew")).await.expect("ids are known again");
    let publish = session.publish().await;
    assert_eq!((publish.number, publish.low, publish.target_id), (number, number, 9));
    session.publishes().await.send(published(number)).await;
    soon(anew).await.expect("it is accepted");
}

pub(crate) async fn takes_the_reset(client: &Client, events: &mut Events) {
    assert!(matches!(next(events).await, Event::Reset));
    let handling = client.enqueue(FRIEND, MessageKind::TEXT, "x").await;
    assert!(matches!(handling, Err(PublishError::Reset)), "it may still be dropping its ids");
    assert!(idle(next(events)).await);
}

async fn check_connected(tells: Tells) {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    let config = broker.config().store(Arc::clone(&store) as Arc<_>);
    let (client, mut events, mut session) = broker.connect(config).await;
    assert_eq!(store.load().expect("the store works").cursors, [at(INCARNATION, 0)], "before anything is published");
    client.signal(CONVERSATION, SignalKind::PRESENT);
    let sent = client.enqueue(FRIEND, MessageKind::TEXT, "for a friend").await.expect("there is room");
    session.numbers(1).await;
    session.close(ErrorCode::INTERNAL).await;
    let waiting = client.enqueue(FRIEND, MessageKind::TEXT, "for a friend").await.expect("there is room");
    let mut session = accept_anew(&broker, tells).await;
    for handle in [sent, waiting] {
        assert!(matches!(soon(handle).await, Err(PublishError::Reset)), "{tells:?}");
    }
    assert_eq!(store.load().expect("the store works").unsettled, []);
    let early = client.enqueue(FRIEND, MessageKind::TEXT, "x").await;
    assert!(matches!(early, Err(PublishError::Reset)), "the application does not know yet");
    takes_the_reset(&client, &mut events).await;
    assert!(idle(session.connection.read_datagram()).await, "it is not present where it was");
    publishes_only(&client, &mut session, 3).await;
    assert_eq!(store.load().expect("the store works").cursors, [at(RESTORED, 0)]);
}

#[tokio::test]
async fn a_connected_publisher_is_told_and_nothing_is_repeated() {
    check_connected(Tells::ByRefusal).await;
    check_connected(Tells::ByWelcome).await;
}

async fn check_recovered(tells: Tells, start: Start) {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_cursor(at(INCARNATION, 0)).expect("the store works");
    store.save_unsettled(&[unsettled(1), unsettled(2)]).expect("the store works");
    let connect = Client::connect(broker.config().store(Arc::clone(&store) as Arc<_>).start(start));
    let (connected, mut session) = tokio::join!(soon(connect), accept_anew(&broker, tells));
    let (client, mut events) = connected.expect("the client is welcome");
    for handle in client.recovered() {
        assert!(matches!(soon(handle).await, Err(PublishError::Reset)));
    }
    let saved = store.load().expect("the store works");
    assert_eq!((saved.unsettled, saved.cursors), (Vec::new(), vec![at(RESTORED, 0)]));
    takes_the_reset(&client, &mut events).await;
    publishes_only(&client, &mut session, 3).await;
}

#[tokio::test]
async fn what_an_earlier_process_left_is_not_sent_to_another_journal() {
    check_recovered(Tells::ByRefusal, Start::FromStore).await;
    check_recovered(Tells::ByWelcome, Start::FromStore).await;
    check_recovered(Tells::ByRefusal, Start::Beginning).await;
    check_recovered(Tells::ByWelcome, Start::From(Vec::new())).await;
}

#[tokio::test]
async fn cursors_of_the_application_go_on_where_the_publishes_of_the_store_do_not() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_cursor(at(INCARNATION, 40)).unwrap();
    store.save_unsettled(&[unsettled(1)]).unwrap();
    let own = at(RESTORED, 12);
    let config = broker.config().store(Arc::clone(&store) as Arc<_>).start(Start::From(vec![own]));
    let (client, _events, mut session) = broker.connect_as(config, restored()).await;
    assert_eq!(session.hello.cursors, [own]);
    assert!(matches!(soon(client.recovered().remove(0)).await, Err(PublishError::Reset)));
    let saved = store.load().unwrap();
    assert_eq!((saved.unsettled, saved.cursors), (Vec::new(), vec![own]));
    publishes_only(&client, &mut session, 2).await;
}

#[tokio::test]
async fn a_store_without_a_history_is_of_the_first_it_meets() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_unsettled(&[unsettled(1)]).unwrap();
    let (_client, _events, mut session) = broker.connect(broker.config().store(Arc::clone(&store) as Arc<_>)).await;
    assert_eq!(session.hello.cursors, []);
    assert_eq!(session.numbers(1).await, [(1, 1)]);
    assert_eq!(store.load().unwrap().cursors, [at(INCARNATION, 0)]);
}

#[tokio::test]
async fn a_client_that_publishes_nothing_tells_what_was_left() {
    let broker = Broker::start();
    let store = Arc::new(MemoryStore::new());
    store.save_cursor(at(INCARNATION, 0)).unwrap();
    store.save_unsettled(&[unsettled(1)]).unwrap();
    let config = Config { producer: None, ..broker.config().store(Arc::clone(&store) as Arc<_>) };
    let connect = Client::connect(config.clone());
    let (connected, _session) = tokio::join!(soon(connect), accept_anew(&broker, Tells::ByRefusal));
    let (client, _events) = connected.unwrap();
    let left = client.recovered();
    assert_eq!(left.len(), 1);
    for handle in left {
        assert!(matches!(soon(handle).await, Err(PublishError::Reset)));
    }
    assert_eq!(store.load().unwrap().unsettled, []);
}

#[tokio::test]
async fn requests_that_name_ids_fail_until_the_application_knows() {
    let broker = Broker::start();
    let (client, events, mut session) = broker.connect(broker.config()).await;
    drop(events);
    let asked = tokio::spawn({
        let client = client.clone();
        async move { client.leave(CONVERSATION).await }
    });
    assert_eq!(session.control.frame().await.name(), "Leave");
    session.close(ErrorCode::INTERNAL).await;
    let mut session = accept_anew(&broker, Tells::ByRefusal).await;
    assert!(matches!(soon(asked).await.unwrap(), Err(RequestError::Reset)), "it would be repeated otherwise");
    assert!(matches!(soon(client.leave(CONVERSATION)).await, Err(RequestError::Reset)));
    let (found, ()) = tokio::join!(soon(client.find_user("bob")), async {
        assert_eq!(session.control.frame().await.name(), "UserFind", "nothing else is asked");
        session.control.send(UserFound { request: 2, user: UserId(9) }).await;
    });
    assert_eq!(found.unwrap(), UserId(9));
    // Nobody takes events, so nobody can be told: the application says so itself.
    let unheard = client.enqueue(UserId(9), MessageKind::TEXT, "x").await;
    assert!(matches!(unheard, Err(PublishError::Reset)));
    client.begin_anew();
    publishes_only(&client, &mut session, 1).await;
}

#[tokio::test]
async fn a_ding_of_the_new_journal_comes_after_the_reset_whatever_its_id() {
    let broker = Broker::start();
    let (_client, mut events, session) = broker.connect(broker.config()).await;
    write(&mut session.lane(Lane::URGENT).await, ding(1)).await;
    assert!(matches!(next(&mut events).await, Event::Ding(_)));
    session.close(ErrorCode::INTERNAL).await;
    let session = accept_anew(&broker, Tells::ByRefusal).await;
    let mut urgent = session.lane(Lane::URGENT).await;
    write(&mut urgent, ding(1)).await;
    assert!(matches!(next(&mut events).await, Event::Reset));
    assert!(matches!(next(&mut events).await, Event::Ding(_)), "another one of the same id");
}

/// A store that says in which order it was used.
#[derive(Default)]
struct Ordered {
    store: MemoryStore,
    calls: Mutex<Vec<String>>,
}

impl Ordered {
    fn note(&self, call: String) {
        self.calls.lock().expect("nobody panicked").push(call);
    }
}

impl Store for Ordered {
    fn load(&self) -> io::Result<Saved> {
        self.store.load()
    }

    fn save_cursor(&self, cursor: Cursor) -> io::Result<()> {
        self.note(format!("cursor of {}", cursor.incarnation.0));
        self.store.save_cursor(cursor)
    }

    fn save_unsettled(&self, publishes: &[Unsettled]) -> io::Result<()> {
        self.note(format!("{} unsettled", publishes.len()));
        self.store.save_unsettled(publishes)
    }

    fn settle(&self, numbers: &[u64]) -> io::Result<()> {
        self.store.settle(numbers)
    }

    fn reset(&self) -> io::Result<()> {
        self.note("reset".to_owned());
        self.store.reset()
    }

    fn reset_done(&self) -> io::Result<()> {
        self.note("reset done".to_owned());
        self.store.reset_done()
    }
}

#[tokio::test]
async fn the_store_knows_the_history_before_a_publish_and_loses_the_publish_before_the_history() {
    let broker = Broker::start();
    let store = Arc::new(Ordered::default());
    let config = broker.config().store(Arc::clone(&store) as Arc<_>).producer(ProducerId(5));
    let (client, mut events, mut session) = broker.connect(config).await;
    let handle = client.enqueue(FRIEND, MessageKind::TEXT, "x").await.unwrap();
    session.numbers(1).await;
    session.close(ErrorCode::INTERNAL).await;
    let _session = accept_anew(&broker, Tells::ByWelcome).await;
    assert!(matches!(soon(handle).await, Err(PublishError::Reset)));
    assert!(matches!(next(&mut events).await, Event::Reset));
    soon(client.close()).await;
    let calls = store.calls.lock().unwrap().clone();
    assert_eq!(calls, ["cursor of 7", "1 unsettled", "reset", "cursor of 8"], "it may not be done with the reset");
}
