//! The shard: one input in, records and effects out; one record in, one change of state.

use alloc::vec::Vec;
use carillon_protocol::ding_status::DingProgress;
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, ShardId, TenantId, Timestamp, UserId};

use crate::conversation::Conversations;
use crate::ding::{DingCounts, Dings};
use crate::directory::Directory;
use crate::effect::{Effects, Signal};
use crate::error::{Applied, ApplyError, Contradiction};
use crate::input::Input;
use crate::record::Record;

/// The state of one shard.
///
/// The same records applied in the same order give the same state, byte for byte.
#[derive(Debug)]
pub struct Shard {
    pub(crate) id: ShardId,
    /// The position of the last record applied.
    pub(crate) head: Position,
    /// The time of the last record applied.
    pub(crate) last_time: Timestamp,
    pub(crate) directory: Directory,
    pub(crate) conversations: Conversations,
    pub(crate) dings: Dings,
}

impl Shard {
    /// A shard without history.
    pub fn new(id: ShardId) -> Self {
        Self {
            id,
            head: Position(0),
            last_time: Timestamp(0),
            directory: Directory::default(),
            conversations: Conversations::new(id),
            dings: Dings::new(id),
        }
    }

    /// Which shard this is.
    pub const fn shard_id(&self) -> ShardId {
        self.id
    }

    /// The position of the last record applied, 0 at first.
    pub const fn head(&self) -> Position {
        self.head
    }

    /// The time of the last record applied, 0 at first.
    pub const fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// A tenant's name; `None` if there is no such tenant.
    pub fn tenant_name(&self, tenant: TenantId) -> Option<&str> {
        self.directory.tenant(tenant).map(|tenant| &*tenant.name)
    }

    /// The position of the conversation's last message, 0 without one; `None` if there is no such conversation.
    pub fn last_position(&self, conversation: ConversationId) -> Option<Position> {
        self.conversations.get(conversation).map(|conversation| conversation.last_position)
    }

    /// Seq and position of the last message of each conversation that has any.
    pub fn last_messages(&self) -> impl Iterator<Item = (ConversationId, Seq, Position)> {
        let lasts = self.conversations.iter().map(|(id, found)| (id, found.last_seq, found.last_position));
        lasts.filter(|(_, seq, _)| *seq > Seq(0))
    }

    /// How many DINGs are kept, by state.
    pub const fn dings_by_state(&self) -> DingCounts {
        self.dings.counts
    }

    /// How DINGs stand as of the head, for a session that may have missed something of them: those that it was let watch, and those that
    /// its user sent and that are open, or ended no earlier than `since`. Each once. O(kept ones of the user).
    pub fn dings_missed(
        &self,
        (tenant, user): (TenantId, UserId),
        watched: &[DingId],
        since: Timestamp,
    ) -> Vec<DingProgress> {
        let sent = self.directory.user(tenant, user).into_iter().flat_map(|user| &user.dings().sent);
        let lately = |id: &&DingId| self.dings.by_id[*id].ended.is_none_or(|ended| ended.time >= since);
        let mut ids: Vec<DingId> = sent.filter(lately).chain(watched).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let known = ids.into_iter().filter_map(|id| Some((id, self.dings.by_id.get(&id)?)));
        known.map(|(id, ding)| ding.progress(id, self.head, self.last_time)).collect()
    }

    /// When the earliest timer is due; an [`Input::Tick`] is wanted then.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.dings.timers.next()
    }

    /// Validates one input; where it changes something, adds records to `effects` and applies them.
    ///
    /// The records of one call belong in one batch. `effects` must be empty.
    pub fn handle(&mut self, now: Timestamp, input: Input, effects: &mut Effects) {
        let now = now.max(self.last_time);
        match input {
            Input::Attach(attach) => self.handle_attach(now, &attach, effects),
            Input::Publish { who, producer, publish } => self.handle_publish(now, who, producer, publish, effects),
            Input::Request { who, request } => self.handle_request(now, who, request, effects),
            Input::Cursors(moves) => self.handle_cursors(now, &moves, effects),
            Input::CatchUpBounded(bounded) => self.handle_catch_up_bounded(now, &bounded, effects),
            Input::DingsReceived(received) => self.handle_dings_received(now, &received, effects),
            Input::OutletResults(results) => self.handle_outlet_results(now, &results, effects),
            Input::OutletReport(report) => self.handle_outlet_report(now, &report, effects),
            Input::Tick => self.handle_tick(now, effects),
        }
    }

    /// Changes the state by one record, whose position is the one after the head. The only place where state changes.
    ///
    /// # Errors
    /// [`ApplyError`] if the record does not fit the state; the shard must then be discarded.
    pub fn apply(&mut self, record: &Record, effects: &mut Effects) -> Result<(), ApplyError> {
        let position = self.head.next();
        let time = record.time();
        let applied = if time < self.last_time {
            Err(Contradiction::Backwards { what: "time", id: time.0 })
        } else {
            self.change(position, record, &mut effects.signals)
        };
        applied.map_err(|contradiction| ApplyError { position, contradiction })?;
        self.head = position;
        self.last_time = time;
        Ok(())
    }

    /// After replay: what was started and has no recorded outcome is to be handed out again, by [`Shard::next_call`].
    ///
    /// Timers need nothing: they follow from the state, and [`Shard::next_timer`] says when the first is due. DINGs wait for
    /// their recipients to attach.
    pub fn resume(&mut self) {
        self.dings.calls.resume();
    }

    /// Applies a record that `handle` made and hands it out.
    pub(crate) fn commit(&mut self, record: impl Into<Record>, effects: &mut Effects) {
        let record = record.into();
        self.apply(&record, effects).expect("handle makes only records that fit the state");
        effects.records.push(record);
    }

    fn change(&mut self, position: Position, record: &Record, signals: &mut Vec<Signal>) -> Applied {
        match record {
            Record::Message(record) => self.apply_message(position, record, signals),
            Record::TenantAdded(record) => self.apply_tenant_added(record),
            Record::UserAdded(record) => self.apply_user_added(position, record, signals),
            Record::DeviceAdded(record) => self.apply_device_added(record),
            Record::DeviceRetired(record) => self.apply_device_retired(record, signals),
            Record::ProducerAdded(record) => self.apply_producer_added(record),
            Record::ProducerRetired(record) => self.apply_producer_retired(record, signals),
            Record::ConversationAdded(record) => self.apply_conversation_added(position, record, signals),
            Record::MembersAdded(record) => self.apply_members_added(position, record, signals),
            Record::MembersRemoved(record) => self.apply_members_removed(position, record, signals),
            Record::ReadMarked(record) => self.apply_read_marked(position, record, signals),
            Record::CursorsMoved(record) => self.apply_cursors_moved(record),
            Record::CatchUpBounded(record) => self.apply_catch_up_bounded(position, record),
            Record::DingAdded(record) => self.apply_ding_added(record),
            Record::DingAttempted(record) => self.apply_ding_attempted(position, record, signals),
            Record::DingDeferred(record) => self.apply_ding_deferred(record),
            Record::DingsDelivered(record) => self.apply_dings_delivered(position, record, signals),
            Record::DingOutcomes(record) => self.apply_ding_outcomes(position, record, signals),
            Record::DingConfirmed(record) => self.apply_ding_confirmed(position, record, signals),
            Record::DingEnded(record) => self.apply_ding_ended(position, record, signals),
            Record::DingForgotten(record) => self.apply_ding_forgotten(record),
        }
    }
}
