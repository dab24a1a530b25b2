//! The lanes: what the broker sends by itself, and the queues to the application.
//!
//! Invariant: a position counts as handed out in the moment its event enters the queue, not before.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use carillon_protocol::Frame;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{DingId, Position, ShardId, UserId};
use carillon_protocol::kinds::Lane;
use carillon_protocol::session::Welcome;
use tokio::sync::{Notify, mpsc};

use super::control::Pending;
use super::end::End;
use super::reader::FrameReader;
use super::shown::Shown;
use crate::cursors::Cursors;
use crate::ding::DingNews;
use crate::event::Event;
use crate::history::Received;
use crate::reply::Answer;
use crate::resets::Resets;
use crate::shared::Shared;

/// The queues to the application, and what must be known to fill them over sessions.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) urgent: mpsc::Sender<Event>,
    pub(super) notices: mpsc::Sender<Event>,
    pub(super) inbox: mpsc::Sender<Event>,
    pub(super) signals: mpsc::Sender<Event>,
    shown: Mutex<Shown>,
}

impl Outlets {
    pub(super) fn new([urgent, notices, inbox, signals]: [mpsc::Sender<Event>; 4]) -> Self {
        Self { urgent, notices, inbox, signals, shown: Mutex::default() }
    }

    /// Says what became of the session. Never waits.
    pub(super) fn notice(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.notices.try_send(event) {
            tracing::warn!(?event, "the application takes no events: this one is dropped");
        }
    }

    /// Of another journal, a DING may have the id of one that was shown.
    pub(super) fn forget_shown(&self) {
        *self.shown() = Shown::default();
    }

    // A std mutex: held for a lookup.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lanes of one session.
pub(super) struct Lanes<'a> {
    connection: &'a quinn::Connection,
    outlets: &'a Outlets,
    cursors: &'a Cursors,
    resets: &'a Resets,
    news: &'a DingNews,
    shows_dings: bool,
    user: UserId,
    /// DINGs that have ended while there was no session, if that is all that were shown.
    over: Mutex<Vec<DingId>>,
    pending: &'a Pending,
    opened: Mutex<HashSet<Lane>>,
    reset_said: Notify,
}

/// What an inbox frame means for the cursor when its event is handed out.
pub(super) enum Step {
    Addressed(ShardId, Position),
    Progress(ShardId, Position, Position),
    Receipt,
}

impl Step {
    /// The event is in the queue.
    pub(super) fn take(self, cursors: &Cursors) {
        match self {
            Self::Addressed(shard, position) => cursors.hand_out(shard, position),
            Self::Progress(shard, position, receipts) => cursors.progress(shard, position, receipts),
            Self::Receipt => {}
        }
    }
}

impl<'a> Lanes<'a> {
    pub(super) fn new(
        connection: &'a quinn::Connection,
        outlets: &'a Outlets,
        shared: &'a Shared,
        pending: &'a Pending,
        welcome: &Welcome,
    ) -> Self {
        let (cursors, resets, news) = (&shared.cursors, &*shared.resets, &shared.ding_news);
        let shows_dings = shared.config.shows_dings;
        let (opened, reset_said) = (Mutex::default(), Notify::new());
        let over = Mutex::new(outlets.shown().begin_pushes(welcome.dings_open));
        let user = welcome.user;
        Self { connection, outlets, cursors, resets, news, shows_dings, user, over, pending, opened, reset_said }
    }

    /// Takes one stream after the other that the broker opens, and reads it to its end. Run once a lane.
    pub(super) async fn run(&self) -> Result<Infallible, End> {
        loop {
            let stream = self.connection.accept_uni().await?;
            let mut reader = FrameReader::new(stream);
            let lane = match reader.next().await? {
                Frame::LaneOpened(opened) => opened.lane,
                other => return Err(End::unexpected(other.name(), "lane's new")),
            };
            if !self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(lane) {
                return Err(End::unexpected("a second LaneOpened", "lane's new"));
            }
            match lane {
                Lane::URGENT => self.urgent(reader).await?,
                Lane::INBOX => self.inbox(reader).await?,
                Lane::BULK => self.bulk(reader).await?,
                // Of a newer broker.
                _ => reader.pass_over().await?,
            };
        }
    }

    /// Tells the application of a reset, if one is due, as soon as there is room.
    pub(super) async fn say_reset(&self) -> Result<Infallible, End> {
        if self.resets.is_due() {
            match self.outlets.inbox.reserve().await {
                Ok(room) => {
                    self.resets.say();
                    room.send(Event::Reset);
                }
                Err(_) => {
                    self.resets.say_to_nobody();
                    // Nobody will ever be told, so nobody acknowledges positions from before.
                    self.cursors.reset_seen();
                }
            }
            self.reset_said.notify_one();
        }
        std::future::pending().await
    }

    /// Tells the application which DINGs have ended while there was no session, if no push has to come first.
    pub(super) async fn say_over(&self) -> Result<Infallible, End> {
        self.resets.told().await;
        let over = std::mem::take(&mut *self.over.lock().unwrap_or_else(PoisonError::into_inner));
        self.give_over(over).await;
        std::future::pending().await
    }

    async fn give_over(&self, over: Vec<DingId>) {
        for ding in over {
            // Without a receiver the event is dropped.
            if let Ok(room) = self.outlets.urgent.reserve().await {
                room.send(Event::DingOver(ding));
            }
        }
    }

    async fn inbox(&self, mut reader: FrameReader) -> Result<(), End> {
        while self.resets.is_due() {
            self.reset_said.notified().await;
        }
        loop {
            let frame = reader.next().await?;
            let Some((step, event)) = step(self.cursors, frame)? else { continue };
            // Without a receiver the event is dropped; it counts as handed out, and is never acknowledged.
            let room = self.outlets.inbox.reserve().await.ok();
            step.take(self.cursors);
            if let Some(room) = room {
                room.send(event);
            }
        }
    }

    /// Pages of history: a header, and as many messages as it counts.
    async fn bulk(&self, mut reader: FrameReader) -> Result<(), End> {
        loop {
            let header = match reader.next().await? {
                Frame::HistoryPage(header) => header,
                other => return Err(End::unexpected(other.name(), "bulk")),
            };
            let mut messages = Vec::new();
            for _ in 0..header.count {
                match reader.next().await? {
                    Frame::Deliver(deliver) => messages.push(deliver),
                    other => return Err(End::unexpected(other.name(), "bulk")),
                }
            }
            self.pending.answer(header.request, Ok(Answer::History(Received { header, messages })))?;
        }
    }

    async fn urgent(&self, mut reader: FrameReader) -> Result<(), End> {
        tokio::select! {
            () = self.resets.told() => {}
            // Nobody will be told, and nobody takes DINGs.
            () = self.outlets.urgent.closed() => {}
        }
        loop {
            let (ding, event) = match reader.next().await? {
                Frame::DingPush(push) => {
                    self.receive(push.ding);
                    let over = self.outlets.shown().push(push.ding);
                    self.give_over(over).await;
                    if self.outlets.shown().has(push.ding) {
                        continue;
                    }
                    (Some(push.ding), Event::Ding(push))
                }
                Frame::DingsOpen(open) => {
                    let over = self.outlets.shown().begin_pushes(open.count);
                    self.give_over(over).await;
                    continue;
                }
                Frame::DingUpdate(update) => {
                    self.outlets.shown().update(&update, self.user);
                    (None, Event::DingUpdate(update))
                }
                Frame::DingProgress(progress) if !self.news.is_news(&progress) => continue,
                Frame::DingProgress(progress) => (None, Event::DingProgress(progress)),
                other => {
                    let text = format!("{} on the urgent lane", other.name());
                    return Err(End::Broken { code: ErrorCode::UNEXPECTED_FRAME, text });
                }
            };
            // Without a receiver the event is dropped.
            if let Ok(room) = self.outlets.urgent.reserve().await {
                if let Some(ding) = ding {
                    self.outlets.shown().insert(ding);
                }
                room.send(event);
            }
        }
    }
}

/// The event of an inbox frame, unless the application had it before.
pub(super) fn step(cursors: &Cursors, frame: Frame) -> Result<Option<(Step, Event)>, End> {
    let (new, step, event) = match frame {
        Frame::Deliver(deliver) => {
            let (shard, position) = (deliver.conversation.shard(), deliver.position);
            let new = cursors.receive(shard, position);
            (new, Step::Addressed(shard, position), Event::from_deliver(deliver))
        }
        Frame::Progress(progress) => {
            let carillon_protocol::session::Progress { shard, position, receipts_through } = progress;
            let new = cursors.receive_progress(shard, position, receipts_through);
            (new, Step::Progress(shard, position, receipts_through), Event::Progress(progress))
        }
        Frame::Truncated(truncated) => {
            let (shard, position) = (truncated.conversation.shard(), truncated.position);
            cursors.receive_notice(shard, position);
            (true, Step::Addressed(shard, position), Event::Truncated(truncated))
        }
        Frame::Skipped(skipped) => {
            let (shard, position) = (skipped.conversation.shard(), skipped.position);
            cursors.receive_notice(shard, position);
            (true, Step::Addressed(shard, position), Event::Skipped(skipped))
        }
        Frame::ReadUpdate(update) => {
            cursors.receive_receipt(update.conversation.shard(), update.through);
            (true, Step::Receipt, Event::Read(update))
        }
        Frame::ReadCountsUpdate(update) => {
            cursors.receive_receipt(update.conversation.shard(), update.through);
            (true, Step::Receipt, Event::ReadCounts(update))
        }
        other => return Err(End::unexpected(other.name(), "inbox")),
    };
    Ok(new.then_some((step, event)))
}

impl Lanes<'_> {
    /// The broker is told that this device has a DING, repeats included: what it was told before may not have been recorded.
    fn receive(&self, ding: DingId) {
        if self.shows_dings && !self.outlets.urgent.is_closed() {
            self.news.receive(ding);
        }
    }
}
