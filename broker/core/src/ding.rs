//! DINGs: who must confirm what, until when, and what is due next.
//!
//! Invariants: a DING is open until all have confirmed, it expires or is recalled, and never again; recipients ascend, are
//! never the sender and never none; `confirmed` counts them; an open DING is in `waiting` of who has not confirmed.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use carillon_protocol::ding::{DingCreate, DingPush, DingUpdate, USER_NONE};
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{DingId, Position, ShardId, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::DingState;
use xxhash_rust::xxh3::Xxh3;

use crate::directory::UserDings;
use crate::effect::Signal;
use crate::error::{Applied, Contradiction};
use crate::limits::DING_RETENTION_MS;
use crate::record::{DingAdded, DingConfirmed, DingEnded, DingForgotten, DingRepeated};
use crate::shard::Shard;
use crate::timers::Timers;

/// One who must confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) user: UserId,
    pub(crate) confirmed_at: Option<Timestamp>,
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
    pub(crate) expires_at: Timestamp,
    /// 0: no repeats.
    pub(crate) repeat_every_ms: u32,
    pub(crate) pushed_at: Timestamp,
    /// The `DingPush` frame while the DING is open, empty afterwards.
    pub(crate) push: Bytes,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) confirmed: u32,
    pub(crate) ended: Option<Ended>,
}

impl Ding {
    /// When something is to be done about it: expire, repeat or forget.
    pub(crate) fn due(&self) -> Timestamp {
        if let Some(ended) = self.ended {
            return Timestamp(ended.time.0.saturating_add(DING_RETENTION_MS));
        }
        if self.repeat_every_ms == 0 {
            return self.expires_at;
        }
        let repeat = self.pushed_at.0.saturating_add(u64::from(self.repeat_every_ms));
        self.expires_at.min(Timestamp(repeat))
    }

    pub(crate) fn recipient_count(&self) -> u32 {
        u32::try_from(self.recipients.len()).expect("DING_RECIPIENTS_MAX is under u32::MAX")
    }

    pub(crate) fn recipient_at(&self, user: UserId) -> Option<usize> {
        self.recipients.binary_search_by_key(&user, |recipient| recipient.user).ok()
    }

    /// Recipients that have not confirmed.
    pub(crate) fn unconfirmed(&self) -> impl Iterator<Item = UserId> {
        self.recipients.iter().filter(|recipient| recipient.confirmed_at.is_none()).map(|recipient| recipient.user)
    }

    pub(crate) fn state(&self) -> DingState {
        self.ended.map_or(DingState::OPEN, |ended| ended.state)
    }

    fn update(&self, ding: DingId, user: UserId, state: DingState, time: Timestamp) -> Bytes {
        let (confirmed, recipients) = (self.confirmed, self.recipient_count());
        DingUpdate { ding, user, state, time, confirmed, recipients }.to_bytes()
    }

    fn end(&mut self, state: DingState, time: Timestamp) {
        self.ended = Some(Ended { state, time });
        self.push = Bytes::new();
    }
}

/// How many DINGs are kept in each state. Follows from them, and is no part of the state that is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DingCounts {
    /// Some recipient has not confirmed.
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
    pub(crate) counts: DingCounts,
}

impl Dings {
    pub(crate) fn new(shard: ShardId) -> Self {
        let (by_id, timers, counts) = (BTreeMap::new(), Timers::default(), DingCounts::default());
        Self { shard, given_out: 0, by_id, timers, counts }
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

    fn remove(&mut self, id: DingId) {
        if let Some(ding) = self.by_id.remove(&id) {
            self.timers.disarm(ding.due(), id);
            *self.counts.of(ding.state()) -= 1;
        }
    }

    /// Changes an open DING and its timer with it.
    fn change_open(&mut self, id: DingId, change: impl FnOnce(&mut Ding) -> Applied) -> Result<&Ding, Contradiction> {
        let unknown = Contradiction::Unknown { what: "open DING", id: id.0 };
        let ding = self.by_id.get_mut(&id).filter(|ding| ding.ended.is_none()).ok_or(unknown)?;
        self.timers.disarm(ding.due(), id);
        *self.counts.of(ding.state()) -= 1;
        let changed = change(ding);
        self.timers.arm(ding.due(), id);
        *self.counts.of(ding.state()) += 1;
        changed.map(|()| &*ding)
    }
}

/// What tells a repeat under the same key from a conflict: XXH3 (64 bits, seed 0) over target (1 byte), target id (8 bytes),
/// expiry (8), repeat (4), kind (1), number of recipients (4), recipients as asked for (4 each) and payload, integers
/// little-endian. It lies in journals and so must never change.
pub(crate) fn fingerprint(create: &DingCreate) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&[create.target.0]);
    hash.update(&create.target_id.to_le_bytes());
    hash.update(&create.expires_after_ms.to_le_bytes());
    hash.update(&create.repeat_every_ms.to_le_bytes());
    hash.update(&[create.kind.0]);
    let count = u32::try_from(create.recipients.len()).expect("lists of frames are under 4 Gi entries");
    hash.update(&count.to_le_bytes());
    for user in &create.recipients {
        hash.update(&user.0.to_le_bytes());
    }
    hash.update(&create.payload);
    hash.digest()
}

impl Shard {
    fn dings_of(&mut self, tenant: TenantId, user: UserId) -> Result<&mut UserDings, Contradiction> {
        self.directory.known_user(tenant, user).map(|user| &mut user.dings)
    }

    pub(crate) fn apply_ding_added(
        &mut self,
        position: Position,
        record: &DingAdded,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let (tenant, sender, id) = (record.tenant, record.sender, record.ding);
        if id != self.dings.next_id() {
            return Err(Contradiction::NotNext { what: "DING", id: id.0 });
        }
        let ascend = record.recipients.is_sorted_by(|a, b| a < b);
        if !ascend || record.recipients.is_empty() || record.recipients.binary_search(&sender).is_ok() {
            return Err(Contradiction::Range { what: "recipients of DING", id: id.0 });
        }
        let sent = self.dings_of(tenant, sender)?;
        if sent.sent_by_key.contains_key(&record.key) {
            return Err(Contradiction::Present { what: "key of DING", id: id.0 });
        }
        sent.sent_by_key.insert(record.key, id);
        sent.sent.insert(id);
        sent.sent_open += 1;
        for &user in &record.recipients {
            self.dings_of(tenant, user)?.waiting.insert(id);
        }
        let DingAdded { time, expires_at, kind, .. } = *record;
        let push = DingPush { ding: id, sender, time, expires_at, kind, payload: record.payload.clone() }.to_bytes();
        let recipients = record.recipients.iter().map(|&user| Recipient { user, confirmed_at: None }).collect();
        let ding = Ding {
            tenant,
            sender,
            key: record.key,
            fingerprint: record.fingerprint,
            time,
            expires_at,
            repeat_every_ms: record.repeat_every_ms,
            pushed_at: time,
            push: push.clone(),
            recipients,
            confirmed: 0,
            ended: None,
        };
        self.dings.insert(id, ding);
        self.dings.given_out = id.ordinal();
        signals.push(Signal::Urgent { position, tenant, users: record.recipients.clone(), frame: push });
        Ok(())
    }

    pub(crate) fn apply_ding_repeated(
        &mut self,
        position: Position,
        record: &DingRepeated,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let ding = self.dings.change_open(record.ding, |ding| {
            ding.pushed_at = record.time;
            Ok(())
        })?;
        let (tenant, users, frame) = (ding.tenant, ding.unconfirmed().collect(), ding.push.clone());
        signals.push(Signal::Urgent { position, tenant, users, frame });
        Ok(())
    }

    pub(crate) fn apply_ding_confirmed(
        &mut self,
        position: Position,
        record: &DingConfirmed,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let DingConfirmed { time, ding: id, user } = *record;
        let ding = self.dings.change_open(id, |ding| {
            let at = ding.recipient_at(user).filter(|at| ding.recipients[*at].confirmed_at.is_none());
            let at = at.ok_or(Contradiction::Unknown { what: "unconfirmed recipient", id: u64::from(user.0) })?;
            ding.recipients[at].confirmed_at = Some(time);
            ding.confirmed += 1;
            if ding.confirmed == ding.recipient_count() {
                ding.end(DingState::CONFIRMED, time);
            }
            Ok(())
        })?;
        let (tenant, sender, over) = (ding.tenant, ding.sender, ding.ended.is_some());
        let frame = ding.update(id, user, DingState::CONFIRMED, time);
        self.dings_of(tenant, user)?.waiting.remove(&id);
        self.dings_of(tenant, sender)?.sent_open -= usize::from(over);
        signals.push(Signal::Urgent { position, tenant, users: [sender, user].into(), frame });
        Ok(())
    }

    pub(crate) fn apply_ding_ended(
        &mut self,
        position: Position,
        record: &DingEnded,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let DingEnded { time, ding: id, state } = *record;
        if state != DingState::EXPIRED && state != DingState::RECALLED {
            return Err(Contradiction::Range { what: "state of DING", id: u64::from(state.0) });
        }
        let ding = self.dings.change_open(id, |ding| {
            ding.end(state, time);
            Ok(())
        })?;
        let (tenant, sender) = (ding.tenant, ding.sender);
        let mut users: Vec<_> = ding.unconfirmed().collect();
        let frame = ding.update(id, USER_NONE, state, time);
        for &user in &users {
            self.dings_of(tenant, user)?.waiting.remove(&id);
        }
        self.dings_of(tenant, sender)?.sent_open -= 1;
        users.push(sender);
        signals.push(Signal::Urgent { position, tenant, users, frame });
        Ok(())
    }

    pub(crate) fn apply_ding_forgotten(&mut self, record: &DingForgotten) -> Applied {
        let ended = self.dings.by_id.get(&record.ding).filter(|ding| ding.ended.is_some());
        let ended = ended.ok_or(Contradiction::Unknown { what: "ended DING", id: record.ding.0 })?;
        let (tenant, sender, key) = (ended.tenant, ended.sender, ended.key);
        self.dings.remove(record.ding);
        let sent = self.dings_of(tenant, sender)?;
        sent.sent_by_key.remove(&key);
        sent.sent.remove(&record.ding);
        Ok(())
    }
}
