//! A user of the tour: one real client over QUIC.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carillon_client::{
    Client, ConnectError, ConversationId, DingId, DingUpdate, Event, Events, FileStore, Message, Position, ReadUpdate,
    Seq, Store, UserId, Welcome,
};

use super::super::context::Context;
use super::super::failure::{Exit, Failure};
use super::super::session::{From, Use, connect, signing, tour_store};
use super::super::token::Role;

/// Each thing the tour waits for must happen within this; on loopback it takes milliseconds.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// All there is, to be checked.
const BEGINNING: Use = Use::Read { from: From::Beginning, newest: None };

/// A connected user.
pub(super) struct Actor {
    /// The handle.
    pub(super) handle: &'static str,
    /// The id.
    pub(super) user: UserId,
    /// The device.
    pub(super) client: Client,
    part: Part,
    events: Events,
    /// All that is addressed to the device up to here was given.
    position: Position,
    /// What came while something else was waited for.
    dings: Vec<DingId>,
    messages: Vec<Message>,
}

impl Actor {
    /// Connects, from where this device was, or from the beginning.
    pub(super) async fn connect(
        context: &Context,
        key: &Path,
        handle: &'static str,
        part: Part,
    ) -> Result<Self, Failure> {
        let (device, purpose, role) = match part {
            Part::Author => (handle.to_owned(), Use::Publish, Role::Admin),
            Part::Member | Part::Away => (handle.to_owned(), Use::Publish, Role::User),
            Part::Auditor => (format!("{handle}-auditor"), BEGINNING, Role::User),
        };
        let store: Arc<FileStore> = tour_store(&context.state, &device)?;
        let token = signing(key.to_owned(), context.tenant.clone(), handle.to_owned(), role);
        let saved = store.load().map_err(ConnectError::Store)?;
        // A client that has not heard of a reset begins at the beginning, too.
        let begins = part == Part::Auditor || saved.reset_due.is_some();
        let saved = saved.cursors.first().filter(|_| !begins).copied();
        let connected = connect(context, token, store, purpose, STEP_TIMEOUT).await;
        let (client, events) = connected.map_err(|error| match error {
            Some(error) => error.into(),
            None => Failure::new(Exit::Failed, format!("{handle} did not get a session within {STEP_TIMEOUT:?}")),
        })?;
        // The tour looks everything up, and its ledger is of one journal.
        client.begin_anew();
        let Welcome { user, incarnation, .. } = client.welcome();
        let position =
            saved.filter(|cursor| cursor.incarnation == incarnation).map_or(Position(0), |cursor| cursor.position);
        Ok(Self { handle, user, client, part, events, position, dings: Vec::new(), messages: Vec::new() })
    }

    /// Takes and acknowledges events until one is what is waited for.
    async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> Result<T, Failure> {
        loop {
            let event = self.next(what).await?;
            let found = wanted(&event);
            match event {
                Event::Ding(ding) => self.dings.push(ding.ding),
                Event::Message(message) => self.messages.push(message),
                _ => {}
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }

    /// The next event, acknowledged unless the application is to do that.
    async fn next(&mut self, what: &str) -> Result<Event, Failure> {
        let handle = self.handle;
        let event = tokio::time::timeout(STEP_TIMEOUT, self.events.next()).await;
        match event {
            Err(_) => Err(Failure::new(Exit::Failed, format!("{handle} waited {STEP_TIMEOUT:?} for {what}"))),
            Ok(None) => Err(Failure::new(Exit::Failed, format!("the client of {handle} was closed"))),
            Ok(Some(Event::Ended(error))) => Err(Failure::from(error).about(handle)),
            Ok(Some(event)) => {
                self.position = position(&event).unwrap_or(self.position);
                if self.part != Part::Away {
                    self.events.ack(&event);
                }
                Ok(event)
            }
        }
    }

    /// The messages of the group up to this seq that this device was given since the last call, in the order they came.
    pub(super) async fn receive(&mut self, group: ConversationId, last: Seq) -> Result<Vec<Message>, Failure> {
        let is_last = |message: &Message| message.conversation == group && message.seq >= last;
        if !self.messages.iter().any(is_last) {
            let wanted = |event: &Event| matches!(event, Event::Message(message) if is_last(message)).then_some(());
            self.until(&format!("message {last} of the group"), wanted).await?;
        }
        Ok(self.take_messages(group))
    }

    /// Shows the messages of the group that this device is given up to a position, and keeps none of them.
    pub(super) async fn receive_through(
        &mut self,
        group: ConversationId,
        through: Position,
        mut look: impl FnMut(&Message),
    ) -> Result<(), Failure> {
        while self.position < through {
            let event = self.next(&format!("the journal up to position {through}")).await?;
            if let Event::Message(message) = &event
                && message.conversation == group
            {
                look(message);
            }
        }
        Ok(())
    }

    /// Acknowledges all that was given.
    pub(super) fn acknowledge(&self, group: ConversationId) {
        self.client.ack(group.shard(), self.position);
    }

    /// Whether messages came that were not asked for yet.
    pub(super) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    fn take_messages(&mut self, group: ConversationId) -> Vec<Message> {
        let mut messages = std::mem::take(&mut self.messages);
        messages.retain(|message| message.conversation == group);
        messages
    }

    /// This DING. Others that wait for the user are not the tour's.
    pub(super) async fn rung(&mut self, ding: DingId) -> Result<(), Failure> {
        if !self.dings.contains(&ding) {
            let wanted = |event: &Event| matches!(event, Event::Ding(push) if push.ding == ding).then_some(());
            self.until("a DING", wanted).await?;
        }
        Ok(())
    }

    /// The news that a member has read the group up to here.
    pub(super) async fn read_update(
        &mut self,
        group: ConversationId,
        member: UserId,
        up_to: Seq,
    ) -> Result<ReadUpdate, Failure> {
        let wanted = |event: &Event| match event {
            Event::Read(read) if read.conversation == group && read.user == member && read.read_up_to >= up_to => {
                Some(read.clone())
            }
            _ => None,
        };
        self.until("a read receipt", wanted).await
    }

    /// The news that a member has confirmed this DING.
    pub(super) async fn ding_update(&mut self, ding: DingId, by: UserId) -> Result<DingUpdate, Failure> {
        let wanted = |event: &Event| match event {
            Event::DingUpdate(update) if update.ding == ding && update.user == by => Some(update.clone()),
            _ => None,
        };
        self.until("the confirmation of a DING", wanted).await
    }
}

/// How far an event of the inbox brings a device.
fn position(event: &Event) -> Option<Position> {
    match event {
        Event::Message(message) => Some(message.position),
        Event::Membership(membership) => Some(membership.position),
        Event::Progress(progress) => Some(progress.position),
        Event::Truncated(truncated) => Some(truncated.position),
        Event::Skipped(skipped) => Some(skipped.position),
        _ => None,
    }
}

/// What an actor is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Makes users and the group, publishes and rings.
    Author,
    /// A member with a device of their own.
    Member,
    /// A member whose device acknowledges only when told to.
    Away,
    /// A second device of a member, which reads everything from the beginning and keeps nothing.
    Auditor,
}
