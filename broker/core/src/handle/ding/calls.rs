//! Calls handed out to outlets.

use alloc::vec::Vec;
use bytes::Bytes;
use carillon_protocol::ding::DingPush;
use carillon_protocol::frame::{Body, RawFrame, Text};
use carillon_protocol::ids::{Timestamp, UserId};
use carillon_protocol::kinds::Outlet;

use crate::ding::Ding;
use crate::effect::{Call, CallKey, Verb};
use crate::shard::Shard;

impl Shard {
    /// The next call of an outlet that does this. It is handed out once, until its outcome is an input or the shard resumes.
    ///
    /// The caller must have made what it rests on durable.
    pub fn next_call(&mut self, outlet: Outlet, verb: Verb) -> Option<Call> {
        loop {
            let key = self.dings.calls.take(outlet, verb)?;
            // What was forgotten waits no longer; this is for show.
            let Some(ding) = self.dings.by_id.get(&key.ding) else { continue };
            return Some(self.call(ding, verb, key));
        }
    }

    /// The next attempt of an outlet that is moot and was never handed to it: cancelled without a word. Likewise once.
    pub fn next_moot(&mut self, outlet: Outlet) -> Option<CallKey> {
        self.dings.calls.take_moot(outlet)
    }

    /// A start that an outlet was handed and that is moot now, while its cancel waits for room: the outlet must not try it again.
    /// Said once. No more than outlets hold starts.
    pub fn next_called_off(&mut self, outlet: Outlet) -> Option<CallKey> {
        self.dings.calls.take_called_off(outlet)
    }

    /// Outlets for which calls wait.
    pub fn outlets_waiting(&self) -> Vec<Outlet> {
        self.dings.calls.outlets()
    }

    /// How many calls wait, for all outlets.
    pub fn calls_waiting(&self) -> usize {
        self.dings.calls.len()
    }

    /// The same each time it is made.
    fn call(&self, ding: &Ding, verb: Verb, key: CallKey) -> Call {
        let attempt = ding.attempts[usize::from(key.attempt)];
        let tenant = self.directory.tenant(ding.tenant);
        let handle = |user: UserId| {
            let found = tenant.and_then(|tenant| tenant.user(user));
            found.map_or_else(|| Text::from(""), |user| Text::from(&*user.handle))
        };
        let payload = match verb {
            Verb::Start => payload(ding),
            // There is nothing to be shown, and the DING may be over.
            Verb::Cancel => Bytes::new(),
        };
        let Ding { kind, conversation, seq, .. } = *ding;
        Call {
            key,
            verb,
            outlet: attempt.outlet,
            tenant: tenant.map_or_else(|| Text::from(""), |tenant| Text::from(&*tenant.name)),
            recipient: handle(key.user),
            sender: handle(ding.sender),
            step: attempt.step,
            kind,
            payload,
            conversation,
            seq,
            created_at: ding.time,
            started_at: if verb == Verb::Start { attempt.time } else { moot_at(ding, key.user) },
            expires_at: ding.expires_at,
        }
    }
}

/// The content of a DING that is open.
fn payload(ding: &Ding) -> Bytes {
    let push = RawFrame::new(ding.push.clone()).ok().and_then(|raw| DingPush::decode(&raw).ok());
    push.map_or_else(Bytes::new, |push| push.payload)
}

/// When the attempts to reach a recipient became moot.
fn moot_at(ding: &Ding, user: UserId) -> Timestamp {
    let confirmed = ding.recipient(user).and_then(|recipient| recipient.confirmed);
    confirmed.map(|confirmed| confirmed.time).or(ding.ended.map(|ended| ended.time)).unwrap_or(ding.time)
}
