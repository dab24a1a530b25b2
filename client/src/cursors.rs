//! How far the device is in each shard: what was handed out, what the application acknowledged, what was saved and sent.
//!
//! Invariants, a shard: `sent ≤ saved ≤ acked ≤ through`; all move forward only, until a reset. An acknowledgement on the wire is
//! never beyond what this session received, because a broker that resumed from a cursor has not sent more yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carillon_protocol::ids::{Incarnation, Position, ShardId};
use carillon_protocol::session::{Ack, Cursor};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock;
use crate::limits::{ACK_DELAY_MAX_MS, ACK_INTERVAL_MS, ACKS_COALESCED_MAX};

/// Two positions that are acknowledged apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    inbox: Position,
    receipts: Position,
}

impl Mark {
    fn raise(&mut self, other: Self) {
        self.inbox = self.inbox.max(other.inbox);
        self.receipts = self.receipts.max(other.receipts);
    }

    fn min(self, other: Self) -> Self {
        Self { inbox: self.inbox.min(other.inbox), receipts: self.receipts.min(other.receipts) }
    }
}

#[derive(Debug, Default)]
struct ShardCursor {
    incarnation: Incarnation,
    /// The incarnation that the store has; 0: no cursor.
    saved_as: Incarnation,
    /// The last position with something addressed to the device that was handed out.
    addressed: Position,
    /// The last position handed out, progress included.
    through: Mark,
    acked: Mark,
    saved: Mark,
    sent: Mark,
    /// The last positions of this session.
    received: Mark,
    /// The last two read updates had one position: that it is acknowledged does not say of which.
    receipts_alike: bool,
}

impl ShardCursor {
    fn at(cursor: Cursor) -> Self {
        let mark = Mark { inbox: cursor.position, receipts: cursor.receipts_through };
        Self {
            incarnation: cursor.incarnation,
            saved_as: Incarnation(0),
            addressed: mark.inbox,
            through: mark,
            acked: mark,
            saved: mark,
            sent: mark,
            received: mark,
            receipts_alike: false,
        }
    }

    /// What may be acknowledged on the wire.
    fn sendable(&self) -> Mark {
        let mut mark = self.sent;
        mark.raise(self.saved.min(self.received));
        mark
    }

    fn cursor(&self, shard: ShardId, mark: Mark) -> Cursor {
        let Mark { inbox, receipts } = mark;
        Cursor { shard, incarnation: self.incarnation, position: inbox, receipts_through: receipts }
    }
}

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<ShardId, ShardCursor>,
    /// Acknowledgements since the last save.
    unsaved: u32,
    /// Acknowledgements since the last that was sent.
    unsent: u32,
    /// When the last one was sent.
    sent_at: Option<Instant>,
    /// One came when the last that was sent was long ago: it is not to wait.
    is_due: bool,
    /// Between a reset and the application hearing of it, acknowledgements are of the old history.
    reset_unseen: bool,
}

/// When an acknowledgement is to be sent.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Now,
    At(Instant),
}

impl State {
    fn due(&self) -> Due {
        if self.shards.values().all(|cursor| cursor.sendable() == cursor.sent) {
            return Due::Nothing;
        }
        match self.sent_at {
            Some(sent) if !self.is_due && self.unsent < ACKS_COALESCED_MAX => {
                Due::At(sent + Duration::from_millis(ACK_DELAY_MAX_MS))
            }
            Some(_) | None => Due::Now,
        }
    }

    fn is_sent_at_once(&self, now: Instant) -> bool {
        self.sent_at.is_none_or(|sent| now.duration_since(sent) >= Duration::from_millis(ACK_INTERVAL_MS))
    }
}

/// The cursors of a client.
///
/// A std mutex: it is held for a few instructions, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    state: Mutex<State>,
    /// There is something to save.
    pub(crate) dirty: Notify,
    /// There is enough to save at once.
    pub(crate) full: Notify,
    /// There is something to send.
    pub(crate) saved: Notify,
}

impl Cursors {
    /// The cursors to go on from; of a shard that is not among them, the incarnation of the `stored` one alone.
    pub(crate) fn new(cursors: Vec<Cursor>, stored: &[Cursor]) -> Self {
        let from_none =
            stored.iter().map(|stored| ShardCursor { incarnation: stored.incarnation, ..Default::default() });
        let mut shards: BTreeMap<_, _> = stored.iter().map(|stored| stored.shard).zip(from_none).collect();
        shards.extend(cursors.into_iter().map(|cursor| (cursor.shard, ShardCursor::at(cursor))));
        for stored in stored {
            shards.entry(stored.shard).and_modify(|cursor| cursor.saved_as = stored.incarnation);
        }
        Self { state: Mutex::new(State { shards, ..State::default() }), ..Self::default() }
    }

    /// Those of a device that has not heard of a reset: of the stored ones the incarnations alone, and the store is to have no more.
    pub(crate) fn anew(stored: &[Cursor]) -> Self {
        let anew = Self::new(Vec::new(), stored);
        anew.unsave();
        anew.state().reset_unseen = true;
        anew
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All up to `position` is the application's own.
    pub(crate) fn ack(&self, shard: ShardId, position: Position) {
        self.raise(shard, |cursor| {
            cursor.acked.inbox = cursor.acked.inbox.max(position.min(cursor.through.inbox));
            if cursor.acked.inbox >= cursor.addressed {
                cursor.acked.inbox = cursor.through.inbox;
            }
        });
    }

    /// The application keeps the read updates up to `position`.
    pub(crate) fn ack_receipts(&self, shard: ShardId, position: Position) {
        self.raise(shard, |cursor| {
            cursor.acked.receipts = cursor.acked.receipts.max(position.min(cursor.through.receipts));
        });
    }

    fn raise(&self, shard: ShardId, raise: impl FnOnce(&mut ShardCursor)) {
        let mut state = self.state();
        if state.reset_unseen {
            return;
        }
        let cursor = state.shards.entry(shard).or_default();
        let before = cursor.acked;
        raise(cursor);
        if cursor.acked == before {
            return;
        }
        state.unsaved += 1;
        state.unsent = state.unsent.saturating_add(1);
        state.is_due |= state.is_sent_at_once(clock::now());
        if state.unsaved >= ACKS_COALESCED_MAX {
            self.full.notify_one();
        }
        self.dirty.notify_one();
    }

    /// Something addressed to the device came; whether it is new. Notes it as received, not as handed out.
    pub(crate) fn receive(&self, shard: ShardId, position: Position) -> bool {
        let mut state = self.state();
        let before = state.due();
        let cursor = state.shards.entry(shard).or_default();
        cursor.received.inbox = cursor.received.inbox.max(position);
        let is_new = position > cursor.through.inbox;
        // Most change nothing: an acknowledgement waits for its time already, or there is none.
        if state.due() != before {
            self.saved.notify_one();
        }
        is_new
    }

    /// A notice about a gap came, at the position the device has come from. It is handed out each time: after a reconnect it
    /// may name more than before.
    pub(crate) fn receive_notice(&self, shard: ShardId, position: Position) {
        self.receive(shard, position);
    }

    /// A read update came. They are watermarks, so a repeat is harmless and handed out again.
    pub(crate) fn receive_receipt(&self, shard: ShardId, position: Position) {
        let mut state = self.state();
        let cursor = state.shards.entry(shard).or_default();
        let mark = Mark { inbox: Position(0), receipts: position };
        cursor.received.raise(mark);
        cursor.receipts_alike = position <= cursor.through.receipts;
        cursor.through.raise(mark);
    }

    /// As [`Cursors::receive`], of one that says how far both are.
    pub(crate) fn receive_progress(&self, shard: ShardId, position: Position, receipts: Position) -> bool {
        let new = self.receive(shard, position);
        let mut state = self.state();
        let cursor = state.shards.entry(shard).or_default();
        cursor.received.receipts = cursor.received.receipts.max(receipts);
        new || receipts > cursor.through.receipts
    }

    /// The application has been given everything up to `position`, which was addressed to it.
    pub(crate) fn hand_out(&self, shard: ShardId, position: Position) {
        let mut state = self.state();
        let cursor = state.shards.entry(shard).or_default();
        cursor.addressed = cursor.addressed.max(position);
        cursor.through.inbox = cursor.through.inbox.max(position);
    }

    /// Nothing more is addressed to the device up to `position`, and nothing more has moved up to `receipts`: acknowledged with
    /// what was before it.
    pub(crate) fn progress(&self, shard: ShardId, position: Position, receipts: Position) {
        self.raise(shard, |cursor| {
            let all_acked = cursor.acked.receipts >= cursor.through.receipts && !cursor.receipts_alike;
            cursor.through.receipts = cursor.through.receipts.max(receipts);
            if all_acked {
                cursor.acked.receipts = cursor.through.receipts;
            }
            cursor.through.inbox = cursor.through.inbox.max(position);
            if cursor.acked.inbox >= cursor.addressed {
                cursor.acked.inbox = cursor.through.inbox;
            }
        });
    }

    /// The cursors for a `Hello`, with position 0 too: they say of which history this client's ids are.
    pub(crate) fn hello(&self) -> Vec<Cursor> {
        let state = self.state();
        let known = state.shards.iter().filter(|(_, cursor)| cursor.incarnation != Incarnation(0));
        known.map(|(shard, c)| c.cursor(*shard, c.acked)).collect()
    }

    /// A session has begun, with this history, from the cursors of [`Cursors::hello`]. False if this client is of
    /// another history: then [`Cursors::reset`] must follow.
    ///
    /// A device that has had no read update starts at the `head`: what is read from then on it is told, over reconnects too.
    pub(crate) fn welcome(&self, shard: ShardId, incarnation: Incarnation, head: Position, hello: &[Cursor]) -> bool {
        let mut state = self.state();
        let cursor = state.shards.entry(shard).or_default();
        let is_new = cursor.incarnation == Incarnation(0) && cursor.through == Mark::default();
        if cursor.incarnation != incarnation && !is_new {
            return false;
        }
        cursor.incarnation = incarnation;
        for (shard, cursor) in &mut state.shards {
            let said = hello.iter().find(|said| said.shard == *shard);
            let said = said.map(|said| Mark { inbox: said.position, receipts: said.receipts_through });
            cursor.received = said.unwrap_or_default();
            cursor.sent = cursor.received;
        }
        if let Some(cursor) = state.shards.get_mut(&shard).filter(|cursor| cursor.received.receipts == Position(0)) {
            let mark = Mark { inbox: Position(0), receipts: head };
            // But for `saved`: the store is to know of it before anything is missed.
            for all in [&mut cursor.received, &mut cursor.sent, &mut cursor.through, &mut cursor.acked] {
                all.raise(mark);
            }
        }
        true
    }

    /// Forgets everything; acknowledgements do not count until [`Cursors::reset_seen`].
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        state.reset_unseen = true;
        state.unsaved = 0;
        state.shards.clear();
    }

    /// The store drops its cursors: all must be saved again.
    pub(crate) fn unsave(&self) {
        for cursor in self.state().shards.values_mut() {
            cursor.saved_as = Incarnation(0);
        }
    }

    /// The application knows of the reset.
    pub(crate) fn reset_seen(&self) {
        self.state().reset_unseen = false;
    }

    /// The cursors to save; [`Cursors::save_done`] follows.
    pub(crate) fn unsaved(&self) -> Vec<Cursor> {
        let mut state = self.state();
        state.unsaved = 0;
        let known = state.shards.iter().filter(|(_, cursor)| cursor.incarnation != Incarnation(0));
        let unsaved = known.filter(|(_, c)| c.acked != c.saved || c.saved_as != c.incarnation);
        unsaved.map(|(shard, cursor)| cursor.cursor(*shard, cursor.acked)).collect()
    }

    /// These were saved and may be sent.
    pub(crate) fn save_done(&self, cursors: &[Cursor]) {
        let mut state = self.state();
        for saved in cursors {
            if let Some(cursor) = state.shards.get_mut(&saved.shard)
                && cursor.incarnation == saved.incarnation
            {
                cursor.saved_as = saved.incarnation;
                cursor.saved.raise(Mark { inbox: saved.position, receipts: saved.receipts_through });
            }
        }
        self.saved.notify_one();
    }

    /// Whether an acknowledgement would be sent now, so that it is worth saving at once.
    pub(crate) fn is_sent_at_once(&self, now: Instant) -> bool {
        self.state().is_sent_at_once(now)
    }

    /// Waits until there is something to send, and it is time. Cancel safe.
    pub(crate) async fn due(&self) {
        loop {
            let due = self.state().due();
            match due {
                Due::Now => return,
                Due::Nothing => self.saved.notified().await,
                Due::At(time) => tokio::select! {
                    () = tokio::time::sleep_until(time) => return,
                    () = self.saved.notified() => {}
                },
            }
        }
    }

    /// The acknowledgements to send, at most one a shard; they count as sent.
    pub(crate) fn unsent(&self, now: Instant) -> Vec<Ack> {
        let mut state = self.state();
        let mut acks = Vec::new();
        for (shard, cursor) in &mut state.shards {
            let mark = cursor.sendable();
            if mark != cursor.sent {
                cursor.sent = mark;
                acks.push(Ack { shard: *shard, position: mark.inbox, receipts_through: mark.receipts });
            }
        }
        if !acks.is_empty() {
            (state.unsent, state.is_due, state.sent_at) = (0, false, Some(now));
        }
        acks
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    const SHARD: ShardId = ShardId(0);
    const HEAD: Position = Position(1_000);

    fn opened(cursors: Vec<Cursor>) -> Cursors {
        let opened = Cursors::new(cursors, &[]);
        let hello = opened.hello();
        assert!(opened.welcome(SHARD, Incarnation(7), HEAD, &hello));
        let unsaved = opened.unsaved();
        assert_eq!(unsaved.iter().map(|cursor| cursor.incarnation.0).collect::<Vec<_>>(), [7]);
        opened.save_done(&unsaved);
        assert_eq!(opened.unsaved(), []);
        opened
    }

    fn deliver(cursors: &Cursors, position: u64) -> bool {
        let new = cursors.receive(SHARD, Position(position));
        if new {
            cursors.hand_out(SHARD, Position(position));
        }
        new
    }

    /// Saves what is unsaved and returns what is then sent.
    fn flush(cursors: &Cursors) -> Vec<u64> {
        let unsaved = cursors.unsaved();
        cursors.save_done(&unsaved);
        cursors.unsent(clock::now()).into_iter().map(|ack| ack.position.0).collect()
    }

    #[test]
    fn an_acknowledgement_is_saved_and_then_sent_once() {
        let cursors = opened(Vec::new());
        assert!(deliver(&cursors, 3) && deliver(&cursors, 5));
        cursors.ack(SHARD, Position(3));
        assert_eq!(flush(&cursors), [3]);
        assert_eq!(flush(&cursors), [0; 0]);
        cursors.ack(SHARD, Position(99));
        assert_eq!(flush(&cursors), [5], "never beyond what was handed out");
    }

    #[test]
    fn progress_counts_when_all_before_it_is_acknowledged() {
        let cursors = opened(Vec::new());
        deliver(&cursors, 3);
        cursors.progress(SHARD, Position(10), Position(0));
        assert_eq!(flush(&cursors), [0; 0]);
        cursors.ack(SHARD, Position(3));
        cursors.receive(SHARD, Position(10));
        assert_eq!(flush(&cursors), [10]);
        cursors.receive(SHARD, Position(20));
        cursors.progress(SHARD, Position(20), Position(0));
        assert_eq!(flush(&cursors), [20]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_acknowledgement_is_sent_at_once_and_the_next_after_a_while_or_after_many() {
        let cursors = opened(Vec::new());
        let began = clock::now();
        let (interval, longest) = (Duration::from_millis(ACK_INTERVAL_MS), Duration::from_millis(ACK_DELAY_MAX_MS));
        let many = u64::from(ACKS_COALESCED_MAX);
        let acknowledge = |positions: RangeInclusive<u64>| {
            for position in positions {
                deliver(&cursors, position);
                cursors.ack(SHARD, Position(position));
            }
            cursors.save_done(&cursors.unsaved());
        };
        let sent = async || {
            cursors.due().await;
            cursors.unsent(clock::now()).into_iter().map(|ack| ack.position.0).collect::<Vec<_>>()
        };
        assert_eq!(cursors.state().due(), Due::Nothing);
        acknowledge(1..=1);
        assert_eq!((sent().await, began.elapsed()), (vec![1], Duration::ZERO), "the first at once");
        acknowledge(2..=3);
        tokio::time::advance(interval - Duration::from_millis(1)).await;
        acknowledge(4..=4);
        assert_eq!(cursors.state().due(), Due::At(began + longest));
        tokio::time::advance(Duration::from_millis(1)).await;
        acknowledge(5..=5);
        assert_eq!((sent().await, began.elapsed()), (vec![5], interval), "with what comes after a while");
        acknowledge(6..=5 + many);
        assert_eq!((sent().await, began.elapsed()), (vec![5 + many], interval), "or after many");
        acknowledge(6 + many..=6 + many);
        assert_eq!((sent().await, began.elapsed()), (vec![6 + many], interval + longest), "or alone in the end");
        assert_eq!(cursors.state().due(), Due::Nothing, "what is quiet sends nothing");
    }

    #[test]
    fn after_a_reconnect_nothing_is_acknowledged_that_this_session_did_not_send() {
        let cursors = opened(Vec::new());
        for position in 1..=5 {
            deliver(&cursors, position);
        }
        cursors.ack(SHARD, Position(2));
        assert_eq!(flush(&cursors), [2]);
        let hello = cursors.hello();
        assert_eq!(hello[0].position, Position(2));
        assert!(cursors.welcome(SHARD, Incarnation(7), HEAD, &hello));
        cursors.ack(SHARD, Position(5));
        assert_eq!(flush(&cursors), [0; 0]);
        assert!(!deliver(&cursors, 3), "a repeat is not handed out");
        assert_eq!(flush(&cursors), [3]);
        assert!(!deliver(&cursors, 5));
        assert_eq!(flush(&cursors), [5]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_acknowledged_once_it_has_come_again_wakes_who_sends_and_nothing_else_does() {
        let cursors = opened(Vec::new());
        (1..=5).for_each(|position| assert!(deliver(&cursors, position)));
        cursors.ack(SHARD, Position(5));
        cursors.save_done(&cursors.unsaved());
        assert!(cursors.welcome(SHARD, Incarnation(7), HEAD, &[]));
        // Of the save.
        cursors.saved.notified().await;
        let mut due = std::pin::pin!(cursors.due());
        assert!(looked_at_once(due.as_mut()).await.is_none(), "this session has not sent it yet");
        assert!(!deliver(&cursors, 3));
        due.await;
        assert_eq!(cursors.unsent(clock::now())[0].position, Position(3));
        deliver(&cursors, 4);
        cursors.saved.notified().await;
        deliver(&cursors, 5);
        assert!(
            looked_at_once(std::pin::pin!(cursors.saved.notified())).await.is_none(),
            "it waits for its time already"
        );
    }

    /// What a future has come to, looked at once.
    async fn looked_at_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[test]
    fn read_updates_are_acknowledged_apart_and_progress_counts_when_all_before_it_is() {
        let cursors = opened(Vec::new());
        let receipts = || cursors.hello()[0].receipts_through;
        assert_eq!(receipts(), HEAD, "a device without read updates starts where it is");
        let through = |ahead: u64| Position(HEAD.0 + ahead);
        let progress = |ahead| {
            let new = cursors.receive_progress(SHARD, Position(0), through(ahead));
            cursors.progress(SHARD, Position(0), through(ahead));
            new
        };
        assert!(progress(1));
        assert_eq!(receipts(), through(1));
        cursors.receive_receipt(SHARD, through(2));
        assert!(progress(3));
        assert_eq!(receipts(), through(1), "what was handed out is not acknowledged");
        cursors.ack_receipts(SHARD, through(3));
        assert!(progress(4) && !progress(4));
        // Two that may be acknowledged up to one position.
        cursors.receive_receipt(SHARD, through(5));
        cursors.receive_receipt(SHARD, through(5));
        cursors.ack_receipts(SHARD, through(5));
        progress(6);
        assert_eq!(receipts(), through(5), "it may have been the first");
        cursors.ack_receipts(SHARD, through(6));
        assert_eq!(receipts(), through(6));
        let acks = {
            cursors.save_done(&cursors.unsaved());
            cursors.unsent(clock::now())
        };
        assert_eq!(acks.iter().map(|ack| ack.receipts_through).collect::<Vec<_>>(), [through(6)]);
    }

    #[test]
    fn another_history_is_noticed_and_old_acknowledgements_do_not_count() {
        let cursors = opened(Vec::new());
        deliver(&cursors, 9);
        assert!(!cursors.welcome(SHARD, Incarnation(8), HEAD, &[]));
        cursors.reset();
        assert_eq!((cursors.hello(), cursors.unsaved()), (Vec::new(), Vec::new()));
        assert!(cursors.welcome(SHARD, Incarnation(8), HEAD, &[]));
        assert_eq!(cursors.unsaved()[0].incarnation, Incarnation(8));
        deliver(&cursors, 1);
        cursors.ack(SHARD, Position(9));
        assert_eq!(flush(&cursors), [0; 0]);
        cursors.reset_seen();
        cursors.ack(SHARD, Position(1));
        assert_eq!(flush(&cursors), [1]);
    }

    #[test]
    fn the_history_of_a_client_without_positions_is_said_and_compared_too() {
        let at = |incarnation: u64, position: u64| {
            let (incarnation, position) = (Incarnation(incarnation), Position(position));
            Cursor { shard: SHARD, incarnation, position, receipts_through: Position(0) }
        };
        let publisher = opened(Vec::new());
        let from_head = Cursor { receipts_through: HEAD, ..at(7, 0) };
        assert_eq!(publisher.hello(), [from_head]);
        assert!(!publisher.welcome(SHARD, Incarnation(8), HEAD, &publisher.hello()));
        // One that begins anew, or with cursors of its own, with a store that has one already.
        let beginning = Cursors::new(Vec::new(), &[at(7, 40)]);
        assert_eq!((beginning.hello(), beginning.unsaved()), (vec![at(7, 0)], Vec::new()));
        assert!(!beginning.welcome(SHARD, Incarnation(8), HEAD, &[at(7, 0)]));
        let own = Cursors::new(vec![at(8, 5)], &[at(7, 40)]);
        assert_eq!((own.hello(), own.unsaved()), (vec![at(8, 5)], vec![at(8, 5)]));
        own.save_done(&own.unsaved());
        own.unsave();
        assert_eq!(own.unsaved(), [at(8, 5)], "the store has none any more");
    }
}
