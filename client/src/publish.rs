//! Publishes without a result: their numbers, their order and their repeats.
//!
//! Invariants: numbers rise by one; `low` is the lowest number without a result; within a session numbers are sent in
//! order; after `BUSY` or `NO_ROOM` nothing is sent until everything from the refused number on is sent again; all that are here are of the
//! history they are bound to.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, Incarnation, ShardId, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::limits::PRODUCER_WINDOW;
use carillon_protocol::publish::{Publish, PublishRefused, Published};
use tokio::sync::{Notify, Semaphore, oneshot};

use crate::error::PublishError;
use crate::limits::PUBLISH_BATCH_BYTES_MAX;
use crate::resets::Resets;
use crate::store::{Saved, Unsettled};

/// What a message is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// The direct conversation with this user, made by its first message.
    User(UserId),
    /// A conversation one may post in.
    Conversation(ConversationId),
}

impl To {
    pub(crate) fn target(self) -> (Target, u64) {
        match self {
            Self::User(user) => (Target::USER, u64::from(user.0)),
            Self::Conversation(conversation) => (Target::CONVERSATION, conversation.0),
        }
    }
}

impl From<UserId> for To {
    fn from(user: UserId) -> Self {
        Self::User(user)
    }
}

impl From<ConversationId> for To {
    fn from(conversation: ConversationId) -> Self {
        Self::Conversation(conversation)
    }
}

/// A message that has its number and is on its way: a future of its result.
///
/// Dropping it does not take the message back.
///
/// # Cancel safety
/// Cancel safe.
#[derive(Debug)]
#[must_use = "the result says whether the message is durable"]
pub struct PublishHandle {
    number: u64,
    result: oneshot::Receiver<Result<Published, PublishError>>,
}

impl PublishHandle {
    /// The producer's number of this publish.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Of a publish that ended because the journal is another.
    pub(crate) fn void(number: u64) -> Self {
        let (waiter, result) = oneshot::channel();
        // The receiver is here.
        let _ = waiter.send(Err(PublishError::Reset));
        Self { number, result }
    }
}

impl Future for PublishHandle {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(cx).map(|result| result.unwrap_or(Err(PublishError::Closed)))
    }
}

/// Who waits for the result of a publish.
pub(crate) type Waiter = oneshot::Sender<Result<Published, PublishError>>;

#[derive(Debug)]
struct Open {
    publish: Unsettled,
    waiter: Waiter,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<u64, Open>,
    /// The next number to be given.
    next: u64,
    /// The next number to be sent in this session.
    cursor: u64,
    /// All below is in the store; above everything without one.
    saved_below: u64,
    /// Sent in this session and not answered.
    outstanding: u64,
    /// The lowest number refused with `BUSY` or `NO_ROOM` since the last rewind.
    busy: Option<u64>,
    /// Rewinds since a publish was accepted.
    refusals: u32,
    /// The last of these refusals, until a publish has its result.
    held: Option<ErrorCode>,
    /// Which history the publishes are of, as far as it is known.
    bound: BTreeMap<ShardId, Incarnation>,
    closed: bool,
}

impl State {
    fn low(&self) -> u64 {
        self.open.first_key_value().map_or(self.next, |(number, _)| *number)
    }
}

/// What the writer has to do next.
#[derive(Debug)]
pub(crate) enum Work {
    /// Give these to the store, then call [`Publishes::save_done`].
    Save(Vec<Unsettled>),
    /// Write these frames.
    Send(Bytes),
    /// Wait a little, the longer the more refusals there were in a row, then call [`Publishes::rewind`].
    BackOff {
        /// How often this happened since a publish was accepted.
        refusals: u32,
    },
    /// Wait for [`Publishes::wake`].
    Wait,
}

/// The publishes of a client that have no result.
///
/// A std mutex: it is held while at most 64 KiB of frames are encoded, never across an await.
#[derive(Debug)]
pub(crate) struct Publishes {
    state: Mutex<State>,
    resets: Arc<Resets>,
    /// Numbers that may be given.
    room: Semaphore,
    /// The writer may have something to do.
    pub(crate) wake: Notify,
}

impl Publishes {
    /// Those of an earlier process come first; their handles are returned too.
    pub(crate) fn new(
        saved: Saved,
        unsettled_max: usize,
        has_store: bool,
        resets: Arc<Resets>,
    ) -> (Self, Vec<PublishHandle>) {
        let mut state = State { next: saved.next.max(1), ..State::default() };
        state.bound = saved.cursors.iter().map(|cursor| (cursor.shard, cursor.incarnation)).collect();
        let mut handles = Vec::new();
        for publish in saved.unsettled {
            let (waiter, result) = oneshot::channel();
            let number = publish.number;
            handles.push(PublishHandle { number, result });
            state.next = state.next.max(number + 1);
            state.open.insert(number, Open { publish, waiter });
        }
        state.saved_below = if has_store { state.next } else { u64::MAX };
        let taken = usize::try_from(state.next - state.low()).unwrap_or(usize::MAX);
        let room = Semaphore::new(unsettled_max.saturating_sub(taken));
        (Self { state: Mutex::new(state), resets, room, wake: Notify::new() }, handles)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a publish its number.
    pub(crate) async fn enqueue(
        &self,
        to: To,
        kind: MessageKind,
        payload: Bytes,
    ) -> Result<PublishHandle, PublishError> {
        let begun = self.resets.count();
        let room = self.room.acquire().await.map_err(|_| PublishError::Closed)?;
        let (waiter, result) = oneshot::channel();
        let mut state = self.state();
        if state.closed {
            return Err(PublishError::Closed);
        }
        // Under the lock: what is let in before a reset is found by it.
        if self.resets.voids(begun) {
            return Err(PublishError::Reset);
        }
        room.forget();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, Open { publish: Unsettled { number, to, kind, payload }, waiter });
        drop(state);
        self.wake.notify_one();
        Ok(PublishHandle { number, result })
    }

    /// The publishes are of this history, unless they are known to be of another: then false, and [`Publishes::let_go`] must follow.
    pub(crate) fn bind(&self, shard: ShardId, incarnation: Incarnation) -> bool {
        *self.state().bound.entry(shard).or_insert(incarnation) == incarnation
    }

    /// Forgets everything without a result, and which history it was of. Those who wait are to be told once the store has let go
    /// of it too.
    pub(crate) fn let_go(&self) -> Vec<Waiter> {
        let mut state = self.state();
        let freed = state.next - state.low();
        let open = std::mem::take(&mut state.open);
        state.bound.clear();
        (state.busy, state.held) = (None, None);
        state.outstanding = 0;
        self.room.add_permits(usize::try_from(freed).unwrap_or(0).min(Semaphore::MAX_PERMITS / 2));
        open.into_values().map(|open| open.waiter).collect()
    }

    /// A session begins: everything without a result is sent (again), and numbers up to `highest` are not given.
    pub(crate) fn begin_session(&self, highest: u64) {
        let mut state = self.state();
        if state.next <= highest {
            let skipped = highest + 1 - state.next;
            if !state.open.is_empty() {
                self.room.forget_permits(usize::try_from(skipped).unwrap_or(usize::MAX));
            }
            state.next = highest + 1;
        }
        state.cursor = state.low();
        state.outstanding = 0;
        state.busy = None;
        drop(state);
        self.wake.notify_one();
    }

    /// What is to be done now.
    pub(crate) fn work(&self) -> Work {
        let mut state = self.state();
        if state.busy.is_some() {
            return if state.outstanding == 0 { Work::BackOff { refusals: state.refusals } } else { Work::Wait };
        }
        let low = state.low();
        let end = state.saved_below.min(low.saturating_add(PRODUCER_WINDOW));
        let mut frames = BytesMut::new();
        let (mut cursor, mut sent) = (state.cursor, 0);
        for (number, open) in state.open.range(state.cursor..end.max(state.cursor)) {
            if frames.len() >= PUBLISH_BATCH_BYTES_MAX {
                break;
            }
            let Unsettled { number: _, to, kind, payload } = open.publish.clone();
            let (target, target_id) = to.target();
            Publish { number: *number, low, target, target_id, kind, payload }.encode(&mut frames);
            cursor = number + 1;
            sent += 1;
        }
        if sent > 0 {
            state.cursor = cursor;
            state.outstanding += sent;
            return Work::Send(frames.freeze());
        }
        let unsaved: Vec<_> = state.open.range(state.saved_below..).map(|(_, open)| open.publish.clone()).collect();
        if unsaved.is_empty() { Work::Wait } else { Work::Save(unsaved) }
    }

    /// These are in the store.
    pub(crate) fn save_done(&self, last: u64) {
        let mut state = self.state();
        state.saved_below = state.saved_below.max(last + 1);
    }

    /// The wait after `BUSY` or `NO_ROOM` is over: the refused number and all after it are sent again.
    pub(crate) fn rewind(&self) {
        let mut state = self.state();
        if let Some(busy) = state.busy.take() {
            state.cursor = state.cursor.min(busy);
            state.refusals = state.refusals.saturating_add(1);
        }
    }

    /// Why the broker takes nothing at present: the last refusal after which all is sent again, if nothing had its result since.
    pub(crate) fn held_back(&self) -> Option<ErrorCode> {
        self.state().held
    }

    /// The message is durable. False if the number had its result before.
    pub(crate) fn published(&self, published: Published) -> bool {
        match self.settle(published.number) {
            Some(waiter) => {
                self.state().refusals = 0;
                // Whoever does not wait for the result does not want it.
                let _ = waiter.send(Ok(published));
                true
            }
            None => false,
        }
    }

    /// The message was refused. `None` if it will be sent again, or had its result before; else who is to be told, once the
    /// store has let go of it.
    pub(crate) fn refused(&self, refused: &PublishRefused) -> Option<Waiter> {
        if !refused.code.is_passing() {
            return self.settle(refused.number);
        }
        let mut state = self.state();
        state.outstanding = state.outstanding.saturating_sub(1);
        if state.open.contains_key(&refused.number) {
            state.busy = Some(state.busy.map_or(refused.number, |busy| busy.min(refused.number)));
            state.held = Some(refused.code);
        }
        drop(state);
        self.wake.notify_one();
        None
    }

    fn settle(&self, number: u64) -> Option<Waiter> {
        let mut state = self.state();
        let low = state.low();
        state.outstanding = state.outstanding.saturating_sub(1);
        let open = state.open.remove(&number);
        state.held = None;
        let advanced = state.low() - low;
        // Room counts numbers from low on, so it grows only when low does.
        self.room.add_permits(usize::try_from(advanced).unwrap_or(0).min(Semaphore::MAX_PERMITS / 2));
        let waiting = advanced > 0 || state.busy.is_some();
        drop(state);
        if waiting {
            self.wake.notify_one();
        }
        open.map(|open| open.waiter)
    }

    /// The client is over: nobody gets a number or a result any more.
    pub(crate) fn close(&self) {
        self.room.close();
        let mut state = self.state();
        state.closed = true;
        state.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_protocol::frame::RawFrame;
    use carillon_protocol::ids::{Position, Seq, Timestamp};

    fn saved(numbers: &[u64], next: u64) -> Saved {
        let unsettled = numbers.iter().map(|&number| publish(number)).collect();
        Saved { next, unsettled, ..Saved::default() }
    }

    fn new(saved: Saved, unsettled_max: usize, has_store: bool) -> (Publishes, Vec<PublishHandle>) {
        Publishes::new(saved, unsettled_max, has_store, Arc::default())
    }

    fn publish(number: u64) -> Unsettled {
        Unsettled { number, to: To::User(UserId(1)), kind: MessageKind::TEXT, payload: Bytes::new() }
    }

    /// The `(number, low)` that are sent now.
    fn sent(publishes: &Publishes) -> Vec<(u64, u64)> {
        let Work::Send(mut bytes) = publishes.work() else { return Vec::new() };
        let mut sent = Vec::new();
        while !bytes.is_empty() {
            let raw = RawFrame::new(bytes.split_to(carillon_protocol::frame::announced_bytes(&bytes).unwrap()));
            let frame = Publish::decode(&raw.unwrap()).unwrap();
            sent.push((frame.number, frame.low));
        }
        sent
    }

    fn ok(number: u64) -> Published {
        let conversation = ConversationId(1);
        Published { number, conversation, seq: Seq(1), position: Position(1), time: Timestamp(1), repeated: 0 }
    }

    fn busy(number: u64) -> PublishRefused {
        PublishRefused { number, code: ErrorCode::BUSY, text: "".into() }
    }

    async fn enqueue(publishes: &Publishes, count: u64) -> Vec<PublishHandle> {
        let mut handles = Vec::new();
        for _ in 0..count {
            handles.push(publishes.enqueue(To::User(UserId(1)), MessageKind::TEXT, Bytes::new()).await.unwrap());
        }
        handles
    }

    #[tokio::test]
    async fn numbers_go_on_after_the_highest_and_low_follows_the_results() {
        let (publishes, _) = new(Saved::default(), 1024, false);
        publishes.begin_session(41);
        let _handles = enqueue(&publishes, 3).await;
        assert_eq!(sent(&publishes), [(42, 42), (43, 42), (44, 42)]);
        assert!(publishes.published(ok(43)));
        let _more = enqueue(&publishes, 1).await;
        assert_eq!(sent(&publishes), [(45, 42)]);
        assert!(publishes.published(ok(42)));
        publishes.begin_session(45);
        assert_eq!(sent(&publishes), [(44, 44), (45, 44)], "a new session repeats what has no result");
    }

    #[tokio::test]
    async fn room_is_counted_from_low() {
        let (publishes, _) = new(Saved::default(), 2, false);
        publishes.begin_session(0);
        let _handles = enqueue(&publishes, 2).await;
        publishes.published(ok(2));
        assert_eq!(publishes.room.available_permits(), 0, "1 is still open");
        publishes.published(ok(1));
        assert_eq!(publishes.room.available_permits(), 2);
    }

    #[tokio::test]
    async fn after_busy_everything_from_there_is_sent_again() {
        let (publishes, _) = new(Saved::default(), 1024, false);
        publishes.begin_session(0);
        let _handles = enqueue(&publishes, 4).await;
        assert_eq!(sent(&publishes).len(), 4);
        publishes.published(ok(1));
        assert!(publishes.refused(&busy(2)).is_none());
        assert!(matches!(publishes.work(), Work::Wait), "3 and 4 are not answered yet");
        publishes.refused(&busy(3));
        publishes.refused(&busy(4));
        assert!(matches!(publishes.work(), Work::BackOff { refusals: 0 }));
        assert_eq!(publishes.held_back(), Some(ErrorCode::BUSY));
        publishes.rewind();
        assert_eq!(sent(&publishes), [(2, 2), (3, 2), (4, 2)]);
        assert_eq!(publishes.held_back(), Some(ErrorCode::BUSY), "nothing was accepted yet");
        publishes.published(ok(2));
        assert_eq!(publishes.held_back(), None);
        publishes.refused(&busy(3));
        publishes.begin_session(0);
        assert!(publishes.held_back().is_some(), "a connection is no answer");
        publishes.let_go();
        assert_eq!(publishes.held_back(), None, "there is nothing to hold");
    }

    #[tokio::test]
    async fn with_a_store_nothing_is_sent_that_is_not_saved() {
        let (publishes, recovered) = new(saved(&[5, 7], 9), 1024, true);
        assert_eq!(recovered.iter().map(PublishHandle::number).collect::<Vec<_>>(), [5, 7]);
        publishes.begin_session(6);
        assert_eq!(sent(&publishes), [(5, 5), (7, 5)]);
        let handles = enqueue(&publishes, 1).await;
        assert_eq!(handles[0].number(), 9);
        let Work::Save(unsaved) = publishes.work() else { panic!("9 is not saved") };
        assert_eq!(unsaved, [publish(9)]);
        publishes.save_done(9);
        assert_eq!(sent(&publishes), [(9, 5)]);
    }

    #[tokio::test]
    async fn closing_ends_those_who_wait() {
        let (publishes, _) = new(Saved::default(), 1, false);
        let handle = enqueue(&publishes, 1).await.remove(0);
        publishes.close();
        assert!(matches!(handle.await, Err(PublishError::Closed)));
        let more = publishes.enqueue(To::User(UserId(1)), MessageKind::TEXT, Bytes::new()).await;
        assert!(matches!(more, Err(PublishError::Closed)));
    }

    #[tokio::test]
    async fn of_another_history_nothing_is_left_and_numbers_go_on() {
        let (publishes, mut handles) = new(saved(&[5, 7], 9), 6, true);
        let (shard, other) = (ShardId(0), ShardId(1));
        assert!(publishes.bind(shard, Incarnation(1)) && publishes.bind(shard, Incarnation(1)));
        publishes.begin_session(0);
        assert_eq!(sent(&publishes), [(5, 5), (7, 5)]);
        handles.extend(enqueue(&publishes, 1).await);
        assert!(!publishes.bind(shard, Incarnation(2)) && publishes.bind(other, Incarnation(2)));
        publishes.resets.begin();
        let waiters = publishes.let_go();
        assert_eq!((waiters.len(), publishes.room.available_permits()), (3, 6));
        assert!(publishes.bind(shard, Incarnation(2)));
        publishes.begin_session(3);
        assert!(matches!(publishes.work(), Work::Wait), "nothing is sent, nothing saved");
        for waiter in waiters {
            waiter.send(Err(PublishError::Reset)).unwrap();
        }
        for handle in handles {
            assert!(matches!(handle.await, Err(PublishError::Reset)));
        }
        publishes.resets.begin_anew();
        assert_eq!(enqueue(&publishes, 1).await[0].number(), 10);
    }

    #[tokio::test]
    async fn who_waited_for_room_during_a_reset_is_not_let_in_after_it() {
        let (publishes, _) = new(Saved::default(), 1, false);
        publishes.begin_session(0);
        let _open = enqueue(&publishes, 1).await;
        let waits = publishes.enqueue(To::User(UserId(1)), MessageKind::TEXT, Bytes::new());
        tokio::pin!(waits);
        tokio::select! {
            biased;
            done = &mut waits => panic!("there is no room: {done:?}"),
            () = std::future::ready(()) => {}
        }
        publishes.resets.begin();
        drop(publishes.let_go());
        publishes.resets.begin_anew();
        assert!(matches!(waits.await, Err(PublishError::Reset)));
    }
}
