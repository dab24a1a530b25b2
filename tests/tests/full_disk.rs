//! A disk that fills up under a broker that serves: what makes the journal grow is refused and comes back by itself, all else goes on.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails its test")]

use std::sync::Arc;

use carillon::clock::SystemClock;
use carillon::journal::{MemoryStorage, Room, Storage as _};
use carillon::server::{Options, Server};
use carillon_client::{
    Client, Ding, DingState, Direction, ErrorCode, Event, Events, MessageKind, NewConversation, Recipients, Role, Seq,
    Step,
};
use carillon_protocol::Frame;
use carillon_protocol::ding::DingConfirm;
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;
use carillon_tests::harness::{
    PATIENCE, Site, connect, group_of, next_message, next_texts, next_that, patiently, refusal, say,
};
use carillon_tests::raw::{Dial, Session, hello_of_producer, text_to};
use carillon_transport::Clock as _;

/// Below this nothing that grows is taken. The tests give or take more than that.
const FREE_MIN: u64 = 4 * 1024 * 1024;

/// A broker in this process on a disk whose size can be changed.
struct World {
    site: Site,
    storage: MemoryStorage,
    server: Option<Server>,
}

impl World {
    fn start() -> Self {
        let mut world = Self { site: Site::new(), storage: MemoryStorage::new(), server: None };
        world.start_again();
        world
    }

    fn start_again(&mut self) {
        let options = Options { segment_bytes: 1024 * 1024, free_bytes_min: FREE_MIN, ..self.site.options() };
        self.server = Some(Server::start_on(options, Arc::new(self.storage.clone())).unwrap());
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Another device of this user.
    async fn client(&self, handle: &str) -> (Client, Events) {
        connect(self.site.config(self.server().address(), handle)).await
    }

    /// A session whose publishes are numbered by the test.
    fn raw(&self, handle: &str) -> Session {
        let hello = hello_of_producer(&self.site, handle, 0xa11ce, 0xfeed);
        Dial::new(&self.site, self.server().address()).attach(&hello).unwrap()
    }

    /// Leaves so much free, and waits until the broker has seen it.
    fn leave(&self, free: u64, room: Room) {
        self.storage.set_capacity(Some(self.storage.used_bytes() + free));
        self.until(room);
    }

    fn until(&self, room: Room) {
        let start = SystemClock.now();
        while self.server().metrics().room() != room {
            assert!(start.elapsed() < PATIENCE, "the room is {:?}, never {room:?}", self.server().metrics().room());
            std::thread::yield_now();
        }
    }

    /// Waits until spare and reserve are there.
    fn prepared(&self) {
        let start = SystemClock.now();
        let ready = |storage: &MemoryStorage| {
            storage.names().iter().filter(|name| name.ends_with(".journal.ready")).count() == 2
        };
        while !ready(&self.storage) {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.storage.names());
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.take().map(Server::stop);
    }
}

/// A publish that leaves everything from the first on unsettled.
fn numbered(to: carillon_client::UserId, number: u64) -> Publish {
    Publish { low: 1, ..text_to(to, number, &number.to_string()) }
}

/// Its seq and whether it is a repeat, or why it was refused.
fn outcome(answer: Frame) -> Result<(u64, u8), ErrorCode> {
    match answer {
        Frame::Published(published) => Ok((published.seq.0, published.repeated)),
        Frame::PublishRefused(refused) => Err(refused.code),
        other => panic!("it was answered by {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grows_is_refused_while_reading_receipts_and_confirmations_go_on() {
    let world = World::start();
    let (alice, mut alices) = world.client("alice").await;
    let (bob, mut bobs) = world.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    let last = say(&alice, group, "before").await;
    let urgent = || urgent_to(bob.user());
    let (open, recalled) = (alice.ding(urgent()).await.unwrap().ding, alice.ding(urgent()).await.unwrap().ding);
    world.prepared();
    world.leave(FREE_MIN - 1, Room::Reserve);
    // What grows.
    let (waiting, payload) = (alice.clone(), "kept until there is room");
    let kept = tokio::spawn(async move { waiting.publish(group, MessageKind::TEXT, payload).await });
    assert_eq!(refusal(patiently(alice.ding(urgent())).await), ErrorCode::NO_ROOM);
    let new = NewConversation::group(vec![bob.user()]);
    assert_eq!(refusal(patiently(alice.create_conversation(new)).await), ErrorCode::NO_ROOM);
    let (carol, mut carols) = world.client("carol").await;
    let members = [carol.user()];
    assert_eq!(refusal(patiently(alice.add_members(group, &members, Role::MEMBER)).await), ErrorCode::NO_ROOM);
    assert_eq!(refusal(patiently(alice.remove_members(group, &[bob.user()])).await), ErrorCode::NO_ROOM);
    assert_eq!(refusal(patiently(bob.leave(group)).await), ErrorCode::NO_ROOM);
    // What goes on: reading, on a new device too, receipts, and the DINGs that are open.
    assert_eq!(next_message(&mut bobs).await.payload, "before");
    let (_tablet, mut tablets) = world.client("bob").await;
    assert_eq!(next_message(&mut tablets).await.payload, "before");
    let page = patiently(bob.history(group, Seq(u64::MAX), Direction::BACKWARD, 10)).await.unwrap();
    assert_eq!(page.messages.len(), 1);
    assert_eq!(patiently(bob.mark_read(group, last.seq)).await.unwrap(), last.seq);
    assert_eq!(patiently(alice.read_counts(group, last.seq)).await.unwrap().read, 1);
    patiently(bob.confirm(open)).await.unwrap();
    patiently(alice.recall_ding(recalled)).await.unwrap();
    let confirmed = next_that(&mut alices, |event| match event {
        Event::DingUpdate(update) => Some((update.ding, update.state)),
        _ => None,
    });
    assert_eq!(confirmed.await, (open, DingState::CONFIRMED));
    assert!(!kept.is_finished());
    // By itself.
    world.storage.set_capacity(None);
    assert_eq!(patiently(kept).await.unwrap().unwrap().seq, Seq(2));
    assert_eq!(next_texts(&mut bobs, 1).await, [payload]);
    patiently(alice.add_members(group, &members, Role::MEMBER)).await.unwrap();
    say(&alice, group, "after").await;
    assert_eq!(next_texts(&mut carols, 1).await, ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_keep_their_order_over_a_refusal_and_count_once() {
    let world = World::start();
    let (bob, mut bobs) = world.client("bob").await;
    let mut alice = world.raw("alice");
    let mut publish = |number| outcome(alice.publish(&numbered(bob.user(), number)).unwrap());
    assert_eq!(publish(1), Ok((1, 0)));
    world.prepared();
    world.leave(0, Room::Reserve);
    assert_eq!(publish(2), Err(ErrorCode::NO_ROOM));
    assert_eq!(publish(1), Ok((1, 1)), "a repeat makes no record");
    world.storage.set_capacity(None);
    world.until(Room::Enough);
    assert_eq!(publish(3), Err(ErrorCode::NO_ROOM), "it would come before the one that was refused");
    assert_eq!(publish(2), Ok((2, 0)));
    assert_eq!(publish(3), Ok((3, 0)));
    assert_eq!(publish(2), Ok((2, 1)));
    assert_eq!(next_texts(&mut bobs, 3).await, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_starts_on_a_full_disk_serves_what_it_has() {
    let mut world = World::start();
    let (alice, _alices) = world.client("alice").await;
    let (bob, _bobs) = world.client("bob").await;
    let group = group_of(&alice, &[bob.user()]).await;
    for nth in 1..=100 {
        say(&alice, group, nth.to_string()).await;
    }
    world.prepared();
    world.server.take().unwrap().stop().unwrap();
    world.storage.set_capacity(Some(world.storage.used_bytes()));
    for _ in 0..3 {
        drop(world.server.take());
        world.start_again();
        world.until(Room::Reserve);
        let mut alice = world.raw("alice");
        assert_eq!(outcome(alice.publish(&numbered(bob.user(), 1)).unwrap()), Err(ErrorCode::NO_ROOM));
        let (bob, mut bobs) = world.client("bob").await;
        assert_eq!(next_texts(&mut bobs, 100).await.last().unwrap(), "100");
        patiently(bob.mark_read(group, Seq(100))).await.unwrap();
    }
    world.storage.set_capacity(None);
    world.until(Room::Enough);
    assert_eq!(outcome(world.raw("alice").publish(&numbered(bob.user(), 1)).unwrap()), Ok((1, 0)));
}

/// A DING by app to one user.
fn urgent_to(user: carillon_client::UserId) -> Ding {
    Ding::new(Recipients::Users(vec![user]), MessageKind::TEXT, "fire")
        .step(Step::after(carillon_client::Outlet::APP, std::time::Duration::ZERO))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_room_is_left_to_open_dings() {
    let mut world = World::start();
    let (alice, _alices) = world.client("alice").await;
    let bob = world.raw("bob").welcome.user;
    let group = group_of(&alice, &[bob]).await;
    let seq = say(&alice, group, "before").await.seq;
    let open = alice.ding(urgent_to(bob)).await.unwrap().ding;
    world.prepared();
    world.server.take().unwrap().stop().unwrap();
    // As if it had been used up.
    world.storage.remove("reserve.journal.ready").unwrap();
    world.storage.set_capacity(Some(world.storage.used_bytes()));
    world.start_again();
    world.until(Room::Last);
    let mut bob = world.raw("bob");
    let refused = |answer: Frame| match answer {
        Frame::Error(error) => error.code,
        other => panic!("it was answered by {other:?}"),
    };
    let mark = MarkRead { request: 7, conversation: group, up_to: seq };
    assert_eq!(refused(bob.request(&mark).unwrap()), ErrorCode::NO_ROOM, "receipts wait");
    let stranger = hello_of_producer(&world.site, "carol", 0xca401, 0xfeed);
    Dial::new(&world.site, world.server().address()).refused(&stranger);
    let confirm = DingConfirm { request: 8, ding: open };
    let confirmed = bob.request(&confirm).unwrap();
    assert!(matches!(confirmed, Frame::DingConfirmed(_)), "{confirmed:?}");
    world.storage.set_capacity(None);
    world.until(Room::Enough);
    let marked = bob.request(&mark).unwrap();
    assert!(matches!(marked, Frame::Marked(_)), "{marked:?}");
}
