//! A session attaches: tenant, user, device and producer come into being as needed.

use alloc::vec::Vec;
use bytes::Bytes;
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Text;
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, Timestamp, UserId};

use crate::directory::Tenant;
use crate::effect::{Attached, Effects, Forgotten, Moment, Reply, StintView};
use crate::error::Refusal;
use crate::input::Attach;
use crate::limits::{CONVERSATIONS_MAX, DEVICES_A_USER_MAX, PRODUCERS_A_USER_MAX, TENANTS_MAX, USERS_A_TENANT_MAX};
use crate::record::{DeviceAdded, ProducerAdded, TenantAdded, UserAdded};
use crate::shard::Shard;
use crate::user::User;

const BAD_NAME: Refusal = Refusal::new(
    ErrorCode::UNAUTHENTICATED,
    "the token's tenant and subject must have 1 to 64 bytes without control characters: have it issued anew",
);
const TOO_MANY_DEVICES: Refusal =
    Refusal::new(ErrorCode::TOO_MANY_DEVICES, "the user has 16 devices: retire one from another of them");
const TOO_MANY_PRODUCERS: Refusal =
    Refusal::new(ErrorCode::TOO_MANY_PRODUCERS, "the user has 16 producers: retire one from another session");
const SHARD_FULL: Refusal = Refusal::new(
    ErrorCode::SESSIONS_EXHAUSTED,
    "the broker holds as many tenants, users or conversations as it may: ask its operator",
);

impl Shard {
    pub(crate) fn handle_attach(&mut self, now: Timestamp, attach: &Attach, effects: &mut Effects) {
        let reply = match self.check_attach(attach) {
            Ok(()) => Reply::Attached(self.attach(now, attach, effects)),
            Err(Refusal { code, text }) => Reply::AttachRefused { code, text },
        };
        effects.reply = Some(reply);
    }

    /// Whether tenant, user, device and producer are there, so that the attach makes no record.
    pub fn knows_session(&self, attach: &Attach) -> bool {
        let tenant = self.directory.by_name.get(attach.tenant.as_str()).and_then(|id| self.directory.tenant(*id));
        let user = tenant.and_then(|tenant| tenant.user(tenant.named(attach.handle.as_str())?));
        user.is_some_and(|user| {
            let producer = attach.producer.is_none_or(|producer| user.producer(producer).is_some());
            user.device(attach.device).is_ok() && producer
        })
    }

    fn check_attach(&self, attach: &Attach) -> Result<(), Refusal> {
        if !super::is_handle(&attach.tenant) || !super::is_handle(&attach.handle) {
            return Err(BAD_NAME);
        }
        let tenant = self.directory.by_name.get(attach.tenant.as_str()).and_then(|id| self.directory.tenant(*id));
        let Some(tenant) = tenant else {
            return if self.directory.tenants.len() < TENANTS_MAX { self.check_room() } else { Err(SHARD_FULL) };
        };
        let Some(user) = tenant.named(attach.handle.as_str()).and_then(|id| tenant.user(id)) else {
            return if tenant.users.len() < USERS_A_TENANT_MAX { self.check_room() } else { Err(SHARD_FULL) };
        };
        if user.device(attach.device).is_err() && user.devices().len() >= DEVICES_A_USER_MAX {
            return Err(TOO_MANY_DEVICES);
        }
        let new_producer = attach.producer.is_some_and(|producer| user.producer(producer).is_none());
        if new_producer && user.producers().len() >= PRODUCERS_A_USER_MAX {
            return Err(TOO_MANY_PRODUCERS);
        }
        Ok(())
    }

    /// Whether a personal conversation fits.
    fn check_room(&self) -> Result<(), Refusal> {
        if self.conversations.len() < CONVERSATIONS_MAX { Ok(()) } else { Err(SHARD_FULL) }
    }

    fn attach(&mut self, time: Timestamp, attach: &Attach, effects: &mut Effects) -> Attached {
        let tenant = match self.directory.by_name.get(attach.tenant.as_str()) {
            Some(tenant) => *tenant,
            None => {
                let tenant = self.directory.next_tenant();
                self.commit(TenantAdded { time, tenant, name: attach.tenant.clone() }, effects);
                tenant
            }
        };
        let known = self.directory.tenant(tenant).and_then(|tenant| tenant.named(attach.handle.as_str()));
        let user = known.unwrap_or_else(|| self.add_user(time, tenant, &attach.handle, effects));
        let device = attach.device;
        if self.directory.user(tenant, user).is_some_and(|user| user.device(device).is_err()) {
            self.commit(DeviceAdded { time, tenant, user, device }, effects);
        }
        if let Some(producer) = attach.producer
            && self.directory.user(tenant, user).is_some_and(|user| user.producer(producer).is_none())
        {
            self.commit(ProducerAdded { time, tenant, user, producer }, effects);
        }
        self.attached(time, (tenant, user), attach)
    }

    /// Records a new user and its personal conversation; there is room for both.
    pub(crate) fn add_user(
        &mut self,
        time: Timestamp,
        tenant: TenantId,
        handle: &Text,
        effects: &mut Effects,
    ) -> UserId {
        let user = self.directory.tenant(tenant).map(Tenant::next_user).expect("the caller knows the tenant");
        let personal = self.conversations.next_id();
        self.commit(UserAdded { time, tenant, user, personal, handle: handle.clone() }, effects);
        user
    }

    fn attached(&self, time: Timestamp, (tenant, id): (TenantId, UserId), attach: &Attach) -> Attached {
        let user = self.directory.user(tenant, id).expect("the user was found or made");
        let producer = attach.producer.and_then(|producer| user.producer(producer));
        Attached {
            tenant,
            user: id,
            as_of: self.head,
            time,
            stints: self.stints(id, user),
            forgotten: forgotten(user),
            producer_highest: producer.map_or(0, |producer| producer.highest()),
            dings: self.dings_shown(user),
            progress: Vec::new(),
        }
    }

    /// The pushes of what waits for the user and has started.
    fn dings_shown(&self, user: &User) -> Vec<Bytes> {
        let waiting = user.dings().waiting.iter().map(|id| &self.dings.by_id[id]);
        waiting.filter(|ding| ding.has_started()).map(|ding| ding.push.clone()).collect()
    }

    fn stints(&self, id: UserId, user: &User) -> Vec<StintView> {
        let mut conversations: Vec<_> = user.present.iter().chain(user.past()).copied().collect();
        conversations.sort_unstable();
        let mut views = Vec::with_capacity(conversations.len());
        for conversation in conversations {
            let found = self.conversations.get(conversation);
            let Some((found, member)) = found.and_then(|found| Some((found, found.members.get(id)?))) else { continue };
            let history = found.policies.history;
            member.for_each_interval(|joined, left| views.push(StintView { conversation, joined, left, history }));
        }
        views
    }
}

fn forgotten(user: &User) -> Vec<Forgotten> {
    let Some(forgotten) = user.forgotten() else { return Vec::new() };
    let through = Some(forgotten.conversations_through).filter(|position| *position > Position(0));
    let conversations = through.map(|position| Forgotten {
        conversation: ConversationId(0),
        first: Seq(0),
        last: Moment { seq: Seq(0), position },
    });
    forgotten.stints.iter().copied().chain(conversations).collect()
}
