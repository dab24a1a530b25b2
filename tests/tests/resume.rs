//! Devices that were away, and brokers that were: everybody goes on where they were, nothing lost, nothing doubled.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use carillon_client::{
    Client, ConnectError, ConversationId, Cursor, Disconnect, ErrorCode, Event, Events, FileStore, Identity,
    MemoryStore, Message, MessageKind, Position, PublishError, PublishHandle, Published, Saved, Start, Store,
    Unsettled,
};
use carillon_tests::harness::{
    Broker, Process, connect, group_of, next_message, next_texts, next_that, patiently, say,
};
use tokio::sync::{mpsc, oneshot};

/// The store of a directory. A client that was dropped lets go of its own a moment later.
async fn open_store(directory: &Path) -> Arc<FileStore> {
    patiently(async {
        loop {
            match FileStore::open(directory) {
                Ok(store) => return Arc::new(store),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
                Err(error) => panic!("the store does not open: {error}"),
            }
        }
    })
    .await
}

/// Pipelines texts that are their own number, seq 1 for number 0, and says how many have their result.
fn publish_in_background(client: &Client, group: ConversationId, numbers: Range<u64>) -> mpsc::Receiver<Published> {
    let (done, results) = mpsc::channel(1_024);
    let (handles_in, mut handles) = mpsc::channel(1_024);
    let client = client.clone();
    tokio::spawn(async move {
        for number in numbers {
            let handle = client.enqueue(group, MessageKind::TEXT, number.to_string()).await.expect("it is enqueued");
            handles_in.send((number, handle)).await.expect("its result is awaited");
        }
    });
    tokio::spawn(async move {
        while let Some((number, handle)) = handles.recv().await {
            let published: Published = handle.await.expect("it is accepted");
            assert_eq!(published.seq.0, number + 1, "one publisher, so seqs follow its numbers");
            done.send(published).await.expect("the test goes on");
        }
    });
    results
}

async fn take(results: &mut mpsc::Receiver<Published>, count: u64) {
    for _ in 0..count {
        patiently(results.recv()).await.expect("every publish has its result");
    }
}

/// The next messages are these, each once and in order.
async fn expect_numbers(events: &mut Events, numbers: Range<u64>) {
    for number in numbers {
        let message = next_message(events).await;
        assert_eq!(text(&message), number.to_string());
        assert_eq!(message.seq.0, number + 1);
    }
}

fn text(message: &Message) -> &str {
    str::from_utf8(&message.payload).expect("text")
}

const CYCLES: u64 = 4;
const BEFORE: u64 = 50;
const DURING: u64 = 600;
const AFTER: u64 = 10;

/// One publisher, one device that is connected all the time, one that comes now and then and is away whenever the broker is.
async fn nothing_is_lost_or_doubled(end: fn(&mut Process)) {
    let mut broker = Process::start();
    let directory = tempfile::tempdir().expect("a directory");
    let (alice, alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    drop(alice_events);
    let offline = broker.site.config(broker.address, "bob");
    let (bob, bob_events) = connect(offline.clone().store(open_store(directory.path()).await)).await;
    let online = broker.site.config(broker.address, "carol").store(Arc::new(MemoryStore::new()));
    let (carol, mut carol_events) = connect(online).await;
    let group = group_of(&alice, &[bob.user(), carol.user()]).await;
    patiently(bob.close()).await;
    drop((bob, bob_events));

    let total = CYCLES * (BEFORE + DURING + AFTER);
    let reading = tokio::spawn(async move { expect_numbers(&mut carol_events, 0..total).await });
    let (mut published, mut bob_has) = (0, 0);
    for _ in 0..CYCLES {
        take(&mut publish_in_background(&alice, group, published..published + BEFORE), BEFORE).await;
        published += BEFORE;
        let mut results = publish_in_background(&alice, group, published..published + DURING);
        take(&mut results, DURING / 10).await;
        end(&mut broker);
        broker.start_again();
        // Who has nothing to say, and be it that all it said was received, notices only with its next keep-alive, some 10 s
        // later, that the broker was away: a question to the broker is soon answered by a reset.
        for client in [&alice, &carol] {
            patiently(client.conversations()).await.expect("the broker is back");
        }
        take(&mut results, DURING - DURING / 10).await;
        published += DURING;
        take(&mut publish_in_background(&alice, group, published..published + AFTER), AFTER).await;
        published += AFTER;

        // Back for a part of what it missed; the rest is for another time.
        let (bob, mut events) = connect(offline.clone().store(open_store(directory.path()).await)).await;
        let part = bob_has + (published - bob_has) / 3;
        expect_numbers(&mut events, bob_has..part).await;
        bob_has = part;
        patiently(bob.close()).await;
    }
    patiently(reading).await.expect("carol has everything");

    let (bob, mut events) = connect(offline.clone().store(open_store(directory.path()).await)).await;
    expect_numbers(&mut events, bob_has..total).await;
    assert_eq!(say(&alice, group, total.to_string()).await.seq.0, total + 1, "nothing was sequenced twice");
    expect_numbers(&mut events, total..total + 1).await;
    patiently(bob.close()).await;
    let (_tablet, mut events) = connect(broker.site.config(broker.address, "bob")).await;
    expect_numbers(&mut events, 0..total + 1).await;
    broker.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_broker_is_killed() {
    nothing_is_lost_or_doubled(Process::kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_broker_is_stopped() {
    nothing_is_lost_or_doubled(Process::terminate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_tells_its_old_clients_when_it_is_back() {
    let mut broker = Process::start();
    let (bob, mut events) = connect(broker.site.config(broker.address, "bob")).await;
    for _ in 0..3 {
        broker.kill();
        broker.start_again();
        patiently(bob.conversations()).await.unwrap();
        let reason = next_that(&mut events, |event| match event {
            Event::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        });
        // By a stateless reset: whoever gets none waits in vain for its idle timeout.
        assert_eq!(reason.await, Disconnect::Lost("reset by peer".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_client_goes_on_after_its_last_acknowledgement() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let config = broker.site.config(broker.address, "bob");
    let (alice, alice_events) = broker.client("alice").await;
    drop(alice_events);
    let (bob, bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    drop((bob, bob_events));
    take(&mut publish_in_background(&alice, group, 0..200), 200).await;
    let mut has = 0;
    // 1, 2 and 3 fall between the savings of cursors, 100 on the bound where one is saved at once.
    for count in [1, 2, 3, 94, 100] {
        let (client, mut events) = connect(config.clone().store(open_store(directory.path()).await)).await;
        expect_numbers(&mut events, has..has + count).await;
        has += count;
        // Given and not acknowledged: it comes again.
        if has < 200 {
            let unacknowledged = patiently(async {
                loop {
                    if let Event::Message(message) = events.next().await.unwrap() {
                        return message;
                    }
                }
            });
            assert_eq!(text(&unacknowledged.await), has.to_string());
        }
        patiently(client.close()).await;
    }
    assert_eq!(has, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_crashed_misses_nothing() {
    let broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let config = broker.site.config(broker.address, "bob");
    let (alice, alice_events) = broker.client("alice").await;
    drop(alice_events);
    let (bob, bob_events) = broker.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    drop((bob, bob_events));
    take(&mut publish_in_background(&alice, group, 0..500), 500).await;
    let mut has = 0;
    while has < 500 {
        // What runs in a runtime of its own can be cut off like a process.
        let process = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
        let config = config.clone().store(open_store(directory.path()).await);
        let (client, mut events) = patiently(process.spawn(Client::connect(config))).await.unwrap().unwrap();
        let first = next_message(&mut events).await;
        let from: u64 = text(&first).parse().unwrap();
        assert!(from <= has, "{from} comes after {has}: something was skipped");
        let until = (has + 50).min(500);
        expect_numbers(&mut events, from + 1..until).await;
        has = until;
        // The last acknowledgements may or may not be saved.
        process.shutdown_background();
        drop((client, events));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_keeps_its_own_cursor_sees_each_message_once() {
    const MESSAGES: u64 = 400;
    let mut broker = Process::start();
    let config = broker.site.config(broker.address, "bob");
    let (alice, alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    drop(alice_events);
    let (bob, bob_events) = connect(config.clone()).await;
    let group = group_of(&alice, &[bob.user()]).await;
    drop((bob, bob_events));
    take(&mut publish_in_background(&alice, group, 0..MESSAGES), MESSAGES).await;

    let mut cursor: Option<Cursor> = None;
    let mut has = 0;
    while has < MESSAGES {
        let start = Start::From(cursor.into_iter().collect());
        let (client, mut events) = connect(config.clone().start(start)).await;
        let welcome = client.welcome();
        for _ in 0..57.min(MESSAGES - has) {
            let message = next_that(&mut events, |event| match event {
                Event::Message(message) => Some(message.clone()),
                _ => None,
            });
            let message = message.await;
            assert_eq!(text(&message), has.to_string());
            has += 1;
            let (shard, incarnation) = (message.conversation.shard(), welcome.incarnation);
            cursor = Some(Cursor { shard, incarnation, position: message.position, receipts_through: Position(0) });
        }
        drop((client, events));
        broker.kill();
        broker.start_again();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_a_device_that_was_never_connected_wait_over_restarts() {
    let mut broker = Process::start();
    let (alice, alice_events) = connect(broker.site.config(broker.address, "alice")).await;
    drop(alice_events);
    let (bob, bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    patiently(bob.close()).await;
    let mut texts = Vec::new();
    for nth in 0..6 {
        let to_bob = say(&alice, bob.user(), format!("direct {nth}")).await;
        assert_eq!(to_bob.seq.0, nth + 1, "the same conversation after the restart");
        texts.push(format!("direct {nth}"));
        if nth % 2 == 0 {
            broker.kill()
        } else {
            broker.terminate()
        }
        broker.start_again();
    }
    let (_phone, mut events) = connect(broker.site.config(broker.address, "bob")).await;
    assert_eq!(next_texts(&mut events, texts.len()).await, texts);
    drop(bob_events);
}

/// Saving the publish of this number is the last that a store does.
const DIES_AT: u64 = 20;

/// A store whose process dies at a chosen moment: from then on it fails, and what it held stays held.
struct Dying {
    inner: Arc<MemoryStore>,
    /// Dies when it is told to let go of publishes, the broker having accepted them.
    at_settle: bool,
    dead: AtomicBool,
    died: std::sync::Mutex<Option<oneshot::Sender<()>>>,
}

impl Dying {
    fn new(inner: &Arc<MemoryStore>, at_settle: bool) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (died_in, died) = oneshot::channel();
        let (inner, dead) = (inner.clone(), AtomicBool::new(false));
        (Arc::new(Self { inner, at_settle, dead, died: std::sync::Mutex::new(Some(died_in)) }), died)
    }

    fn die_if(&self, now: bool) -> io::Result<()> {
        if now && !self.dead.swap(true, Ordering::SeqCst) {
            let died = self.died.lock().expect("nobody panicked").take();
            died.expect("it dies once").send(()).expect("the test waits for it");
        }
        if self.dead.load(Ordering::SeqCst) { Err(io::Error::other("the process is gone")) } else { Ok(()) }
    }
}

impl Store for Dying {
    fn identity(&self) -> Option<Identity> {
        self.inner.identity()
    }

    fn load(&self) -> io::Result<Saved> {
        self.inner.load()
    }

    fn save_cursor(&self, cursor: Cursor) -> io::Result<()> {
        self.die_if(false)?;
        self.inner.save_cursor(cursor)
    }

    fn save_unsettled(&self, publishes: &[Unsettled]) -> io::Result<()> {
        self.die_if(false)?;
        self.inner.save_unsettled(publishes)?;
        // Saved and never sent.
        self.die_if(!self.at_settle && publishes.iter().any(|publish| publish.number >= DIES_AT))
    }

    fn settle(&self, numbers: &[u64]) -> io::Result<()> {
        self.die_if(self.at_settle)?;
        self.inner.settle(numbers)
    }

    fn reset(&self) -> io::Result<()> {
        self.die_if(false)?;
        self.inner.reset()
    }

    fn reset_done(&self) -> io::Result<()> {
        self.die_if(false)?;
        self.inner.reset_done()
    }
}

/// A client whose process dies with unsettled publishes; the broker is killed too. What the store held is settled by the next
/// client on that store, each once.
async fn what_was_unsettled_is_settled_once(at_settle: bool) {
    const ENQUEUED: u64 = 300;
    let mut broker = Process::start();
    let (bob, mut bob_events) = connect(broker.site.config(broker.address, "bob")).await;
    let kept = Arc::new(MemoryStore::new());
    let (store, died) = Dying::new(&kept, at_settle);
    let config = broker.site.config(broker.address, "alice");
    let (alice, mut alice_events) = connect(config.clone().store(store)).await;
    let group = group_of(&alice, &[bob.user()]).await;
    let mut handles = Vec::new();
    for number in 1..=ENQUEUED {
        // Once the store is dead, nobody gets a number any more.
        let Ok(handle) = alice.enqueue(group, MessageKind::TEXT, number.to_string()).await else { break };
        assert_eq!(handle.number(), number);
        handles.push(handle);
    }
    patiently(died).await.expect("the store dies");
    let mut expected = BTreeSet::new();
    for handle in handles {
        let number = handle.number();
        match patiently(handle).await {
            Ok(_) => drop(expected.insert(number)),
            Err(error) => assert!(matches!(error, PublishError::Closed), "{number}: {error}"),
        }
    }
    let ended = patiently(async {
        loop {
            match alice_events.next().await {
                Some(Event::Ended(error)) => return error,
                Some(_) => {}
                None => panic!("the client does not say why it ended"),
            }
        }
    });
    assert!(matches!(ended.await, ConnectError::Store(_)));
    broker.kill();
    broker.start_again();

    let held: Vec<_> = kept.load().expect("what it holds").unsettled.iter().map(|publish| publish.number).collect();
    let accepted_before = held.iter().filter(|number| expected.contains(number)).count();
    assert!(!held.is_empty());
    assert_eq!(accepted_before > 0, at_settle, "whether the broker had accepted what the store held");
    let (alice, alice_events) = connect(config.clone().store(kept.clone())).await;
    drop(alice_events);
    let recovered = alice.recovered();
    assert_eq!(recovered.iter().map(PublishHandle::number).collect::<Vec<_>>(), held);
    let mut repeated = 0;
    for handle in recovered {
        let number = handle.number();
        expected.insert(number);
        let again = patiently(handle).await.expect("it is settled").repeated;
        // Those before it were on their way, and may have been accepted without a word.
        assert!(at_settle || number < DIES_AT || again == 0, "{number} was sent although it was not saved in peace");
        repeated += usize::from(again);
    }
    assert!(repeated >= accepted_before, "what was accepted before is not accepted again");
    assert!(repeated > 0 || !at_settle);
    say(&alice, group, "the end").await;
    patiently(alice.close()).await;
    assert_eq!(kept.load().expect("what it holds").unsettled, [], "the store has let go of them");
    let (alice, _alice_events) = connect(config.store(kept)).await;
    assert!(alice.recovered().is_empty());

    let mut seen: Vec<u64> = Vec::new();
    loop {
        let message = next_message(&mut bob_events).await;
        assert_eq!(message.seq.0, seen.len() as u64 + 1);
        match text(&message).parse() {
            Ok(number) => seen.push(number),
            Err(_) => break,
        }
    }
    assert_eq!(seen, expected.into_iter().collect::<Vec<_>>(), "each once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_were_saved_and_never_sent_are_sent_by_the_next_client() {
    what_was_unsettled_is_settled_once(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_that_were_accepted_and_not_let_go_of_are_not_accepted_twice() {
    what_was_unsettled_is_settled_once(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_history_is_said_and_everything_starts_anew() {
    let mut broker = Broker::start();
    let directory = tempfile::tempdir().unwrap();
    let offline = broker.site.config(broker.address, "bob");
    let (alice, mut alice_events) = broker.client("alice").await;
    let (bob, mut bob_events) = connect(offline.clone().store(open_store(directory.path()).await)).await;
    let old = bob.welcome();
    let group = group_of(&alice, &[bob.user()]).await;
    say(&alice, group, "of the old history").await;
    let seen = next_message(&mut bob_events).await;
    assert_eq!(next_message(&mut alice_events).await.payload, "of the old history");
    patiently(bob.close()).await;
    drop((bob, bob_events));
    broker.stop().await;
    for lost in ["journal", "index"] {
        std::fs::remove_dir_all(broker.site.data().join(lost)).unwrap();
    }
    broker.start_again();

    // One that was connected, and one that comes with a cursor of the old history.
    patiently(alice.conversations()).await.unwrap();
    alice.begin_anew();
    let (bob, mut bob_events) = connect(offline.clone().store(open_store(directory.path()).await)).await;
    assert_ne!(bob.welcome().incarnation, old.incarnation);
    let group = group_of(&alice, &[bob.user()]).await;
    say(&alice, group, "of the new history").await;
    for events in [&mut alice_events, &mut bob_events] {
        let first = next_that(events, |event| match event {
            Event::Reset => Some(None),
            Event::Message(message) => Some(Some(message.clone())),
            _ => None,
        });
        assert_eq!(first.await, None, "the reset is said before anything else");
        let message = next_message(events).await;
        assert_eq!((text(&message), message.seq.0), ("of the new history", 1));
    }
    // Who keeps its own cursor must throw away what it made of the old history first, and so is refused.
    let (shard, receipts_through) = (seen.conversation.shard(), Position(0));
    let cursor = Cursor { shard, incarnation: old.incarnation, position: seen.position, receipts_through };
    let refused = patiently(Client::connect(offline.start(Start::From(vec![cursor])))).await;
    match refused {
        Err(ConnectError::Refused { code, .. }) => assert_eq!(code, ErrorCode::CURSOR_INVALID),
        other => panic!("{other:?}"),
    }
}
