//! DINGs: who must confirm what, until when, what was begun to reach them, and what is due next.
//!
//! Invariants: a DING is open until all have confirmed, it expires or is recalled, and never again; recipients ascend, are
//! never the sender and never none; `confirmed`, `delivered` and `failed` count them; an open DING is in `waiting` of who has not
//! confirmed. An attempt begins with its record; none begins for who has confirmed, and none when the DING is over.

mod apply;
mod attempt;
mod calls;
mod plan;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use carillon_protocol::ding::DingCreate;
use carillon_protocol::ding_status::DingProgress;
use carillon_protocol::ids::{ConversationId, DingId, Position, Seq, ShardId, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{DingState, MessageKind, Outlet};
use carillon_protocol::limits::DING_ATTEMPTS_MAX;
use xxhash_rust::xxh3::Xxh3;

use crate::error::Contradiction;
use crate::limits::DING_RETENTION_MS;
use crate::timers::{Purpose, Timers};
pub(crate) use attempt::{Attempt, Reach};
pub(crate) use calls::Calls;
pub(crate) use plan::{Due, Plan};

/// A confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confirmation {
    pub(crate) time: Timestamp,
    pub(crate) via: Outlet,
    /// Attempts that had begun by then: the later ones were not for this recipient.
    pub(crate) attempts: u16,
}

/// One who must confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) user: UserId,
    /// When it was known that the user has it.
    pub(crate) delivered_at: Option<Timestamp>,
    pub(crate) confirmed: Option<Confirmation>,
    /// The DING expired, and nothing had reached the user.
    pub(crate) failed: bool,
    /// What became of the attempts by outlets, ascending by attempt.
    pub(crate) reaches: Vec<Reach>,
}

impl Recipient {
    pub(crate) const fn new(user: UserId) -> Self {
        Self { user, delivered_at: None, confirmed: None, failed: false, reaches: Vec::new() }
    }

    pub(crate) fn reach(&self, attempt: u16) -> Option<&Reach> {
        let at = self.reaches.binary_search_by_key(&attempt, |reach| reach.attempt).ok()?;
        Some(&self.reaches[at])
    }

    pub(crate) fn reach_mut(&mut self, attempt: u16) -> Option<&mut Reach> {
        let at = self.reaches.binary_search_by_key(&attempt, |reach| reach.attempt).ok()?;
        Some(&mut self.reaches[at])
    }

    /// Whether a device or an outlet may have brought it to the user.
    pub(crate) fn was_reached(&self) -> bool {
        self.delivered_at.is_some() || self.reaches.iter().any(Reach::has_worked)
    }
}

/// How a DING came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `CONFIRMED` (by all), `EXPIRED` or `RECALLED`.
    pub(crate) state: DingState,
    pub(crate) time: Timestamp,
}

/// An urgent push that must be confirmed.
#[derive(Debug)]
pub(crate) struct Ding {
    pub(crate) tenant: TenantId,
    pub(crate) sender: UserId,
    pub(crate) key: u64,
    pub(crate) fingerprint: u64,
    pub(crate) time: Timestamp,
    pub(crate) starts_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// Of the content; kept when that is gone, for cancels.
    pub(crate) kind: MessageKind,
    /// The message that it is about, or 0.
    pub(crate) conversation: ConversationId,
    pub(crate) seq: Seq,
    /// The `DingPush` frame while the DING is open, empty afterwards.
    pub(crate) push: Bytes,
    pub(crate) plan: Plan,
    /// What was begun so far, `DING_ATTEMPTS_MAX` at most.
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) confirmed: u32,
    /// Those that have it and have not confirmed.
    pub(crate) delivered: u32,
    pub(crate) failed: u32,
    pub(crate) ended: Option<Ended>,
}

impl Ding {
    /// When something is to be done about it, and what for: begin a step or expire, or be forgotten.
    pub(crate) fn due(&self) -> (Purpose, Timestamp) {
        if let Some(ended) = self.ended {
            return (Purpose::Forget, Timestamp(ended.time.0.saturating_add(DING_RETENTION_MS)));
        }
        let step = self.plan.next_at(self.starts_at);
        (Purpose::Act, step.map_or(self.expires_at, |next| next.min(self.expires_at)))
    }

    pub(crate) fn recipient_count(&self) -> u32 {
        u32::try_from(self.recipients.len()).expect("DING_RECIPIENTS_MAX is under u32::MAX")
    }

    pub(crate) fn recipient_at(&self, user: UserId) -> Option<usize> {
        self.recipients.binary_search_by_key(&user, |recipient| recipient.user).ok()
    }

    pub(crate) fn recipient(&self, user: UserId) -> Option<&Recipient> {
        self.recipient_at(user).map(|at| &self.recipients[at])
    }

    pub(crate) fn recipient_mut(&mut self, user: UserId) -> Option<&mut Recipient> {
        self.recipient_at(user).map(|at| &mut self.recipients[at])
    }

    /// Recipients that have not confirmed.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = UserId> {
        self.recipients.iter().filter(|recipient| recipient.confirmed.is_none()).map(|recipient| recipient.user)
    }

    /// Whether its first step has begun: its recipients may have it.
    pub(crate) const fn has_started(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// Reminders by hand that may begin yet, beside what is planned.
    pub(crate) fn reminders_left(&self) -> usize {
        DING_ATTEMPTS_MAX.saturating_sub(self.attempts.len() + self.plan.times_left())
    }

    /// Where it stands as a whole.
    pub(crate) fn state(&self) -> DingState {
        let open = if self.has_started() { DingState::SENT } else { DingState::SCHEDULED };
        self.ended.map_or(open, |ended| ended.state)
    }

    /// Where it stands for one recipient.
    pub(crate) fn state_of(&self, recipient: &Recipient) -> DingState {
        let state = self.state();
        if recipient.confirmed.is_some() {
            DingState::CONFIRMED
        } else if recipient.failed {
            DingState::FAILED
        } else if state == DingState::SENT && recipient.delivered_at.is_some() {
            DingState::DELIVERED
        } else {
            state
        }
    }

    pub(crate) fn progress(&self, ding: DingId, position: Position, time: Timestamp) -> DingProgress {
        DingProgress {
            ding,
            state: self.state(),
            time,
            position,
            recipients: self.recipient_count(),
            delivered: self.delivered,
            confirmed: self.confirmed,
            failed: self.failed,
        }
    }

    fn end(&mut self, state: DingState, time: Timestamp) {
        self.ended = Some(Ended { state, time });
        self.push = Bytes::new();
    }
}

/// How many DINGs are kept in each state. Follows from them, and is no part of the state that is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DingCounts {
    /// Its time has not come, or some recipient has not confirmed.
    pub open: u64,
    /// All have.
    pub confirmed: u64,
    /// Its time was over first.
    pub expired: u64,
    /// Its sender took it back first.
    pub recalled: u64,
}

impl DingCounts {
    fn of(&mut self, state: DingState) -> &mut u64 {
        match state {
            DingState::CONFIRMED => &mut self.confirmed,
            DingState::EXPIRED => &mut self.expired,
            DingState::RECALLED => &mut self.recalled,
            _ => &mut self.open,
        }
    }
}

/// The DINGs that are kept, open or ended.
#[derive(Debug)]
pub(crate) struct Dings {
    shard: ShardId,
    /// Ordinals given out so far.
    pub(crate) given_out: u64,
    pub(crate) by_id: BTreeMap<DingId, Ding>,
    pub(crate) timers: Timers,
    pub(crate) calls: Calls,
    pub(crate) counts: DingCounts,
}

impl Dings {
    pub(crate) fn new(shard: ShardId) -> Self {
        let (by_id, timers, calls) = (BTreeMap::new(), Timers::default(), Calls::default());
        Self { shard, given_out: 0, by_id, timers, calls, counts: DingCounts::default() }
    }

    /// The id the next DING gets.
    pub(crate) fn next_id(&self) -> DingId {
        DingId::new(self.shard, self.given_out + 1)
    }

    pub(crate) fn insert(&mut self, id: DingId, ding: Ding) {
        self.timers.arm(ding.due(), id);
        *self.counts.of(ding.state()) += 1;
        self.by_id.insert(id, ding);
    }

    fn remove(&mut self, id: DingId) -> Option<Ding> {
        let ding = self.by_id.remove(&id)?;
        self.timers.disarm(ding.due(), id);
        *self.counts.of(ding.state()) -= 1;
        Some(ding)
    }

    /// Changes a DING, and its timer and count with it.
    fn change<T>(
        &mut self,
        id: DingId,
        change: impl FnOnce(&mut Ding, &mut Calls) -> Result<T, Contradiction>,
    ) -> Result<(&Ding, T), Contradiction> {
        let unknown = Contradiction::Unknown { what: "DING", id: id.0 };
        let ding = self.by_id.get_mut(&id).ok_or(unknown)?;
        let (due, state) = (ding.due(), ding.state());
        let changed = change(ding, &mut self.calls)?;
        if ding.due() != due {
            self.timers.disarm(due, id);
            self.timers.arm(ding.due(), id);
        }
        *self.counts.of(state) -= 1;
        *self.counts.of(ding.state()) += 1;
        Ok((ding, changed))
    }

    /// As [`Dings::change`], of one that is open.
    fn change_open<T>(
        &mut self,
        id: DingId,
        change: impl FnOnce(&mut Ding, &mut Calls) -> Result<T, Contradiction>,
    ) -> Result<(&Ding, T), Contradiction> {
        self.change(id, |ding, calls| {
            let over = Contradiction::Unknown { what: "open DING", id: id.0 };
            if ding.ended.is_some() { Err(over) } else { change(ding, calls) }
        })
    }

    /// As [`Dings::change_open`], of one that its recipients may have.
    fn change_shown<T>(
        &mut self,
        id: DingId,
        change: impl FnOnce(&mut Ding, &mut Calls) -> Result<T, Contradiction>,
    ) -> Result<(&Ding, T), Contradiction> {
        self.change_open(id, |ding, calls| {
            let early = Contradiction::Unknown { what: "begun DING", id: id.0 };
            if ding.has_started() { change(ding, calls) } else { Err(early) }
        })
    }
}

/// What tells a repeat under the same key from a conflict: XXH3 (64 bits, seed 0) over target (1 byte), target id (8 bytes),
/// start (8), expiry (8), quiet hours (1), kind (1), the message referred to (8 and 8), number of recipients (4), recipients as asked
/// for (4 each), number of steps (4), steps (outlet 1, times 2, after 4, repeat 4) and payload, integers little-endian. It lies
/// in journals and so must never change.
pub(crate) fn fingerprint(create: &DingCreate) -> u64 {
    let mut hash = Xxh3::new();
    let count = |entries: usize| u32::try_from(entries).expect("lists of frames are under 4 Gi entries").to_le_bytes();
    hash.update(&[create.target.0]);
    hash.update(&create.target_id.to_le_bytes());
    hash.update(&create.starts_at.0.to_le_bytes());
    hash.update(&create.expires_after_ms.to_le_bytes());
    hash.update(&[create.quiet.0, create.kind.0]);
    hash.update(&create.conversation.0.to_le_bytes());
    hash.update(&create.seq.0.to_le_bytes());
    hash.update(&count(create.recipients.len()));
    for user in &create.recipients {
        hash.update(&user.0.to_le_bytes());
    }
    hash.update(&count(create.steps.len()));
    for step in &create.steps {
        hash.update(&[step.outlet.0]);
        hash.update(&step.times.to_le_bytes());
        hash.update(&step.after_ms.to_le_bytes());
        hash.update(&step.repeat_every_ms.to_le_bytes());
    }
    hash.update(&create.payload);
    hash.digest()
}
