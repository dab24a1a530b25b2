//! Users by handle, handles by user, devices and producers given up.

use alloc::string::String;
use carillon_protocol::control::{UserEntry, UserFind, UserFound, UserHandles, UserLookup};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::ids::{DeviceId, ProducerId, Timestamp};
use carillon_protocol::kinds::Retired;
use carillon_protocol::limits::MEMBERS_A_REQUEST_MAX;
use carillon_protocol::session::Retire;

use super::{Answer, done, is_handle};
use crate::effect::Effects;
use crate::error::Refusal;
use crate::input::Principal;
use crate::limits::{CONVERSATIONS_MAX, USERS_A_TENANT_MAX};
use crate::record::{DeviceRetired, ProducerRetired};
use crate::shard::Shard;

impl Shard {
    pub(super) fn handle_user_find(
        &mut self,
        now: Timestamp,
        who: Principal,
        request: &UserFind,
        effects: &mut Effects,
    ) -> Answer {
        let tenant = self.directory.tenant(who.tenant).ok_or(Refusal::unknown_principal())?;
        if let Some(user) = tenant.named(request.handle.as_str()) {
            return Ok(UserFound { request: request.request, user }.into());
        }
        if request.create == 0 {
            let text = "no user has this handle yet: a user exists from its first connection, or when an administrator \
                        names it";
            return Err(Refusal::new(ErrorCode::UNKNOWN_USER, text));
        }
        if !who.authority.manages_tenant() {
            return Err(Refusal::forbidden("only services and administrators may name a new user"));
        }
        if !is_handle(&request.handle) {
            return Err(Refusal::invalid("a handle has 1 to 64 bytes without control characters"));
        }
        if tenant.users.len() >= USERS_A_TENANT_MAX || self.conversations.len() >= CONVERSATIONS_MAX {
            return Err(Refusal::limit("the broker holds as many users or conversations as it may: ask its operator"));
        }
        let user = self.add_user(now, who.tenant, &request.handle, effects);
        Ok(UserFound { request: request.request, user }.into())
    }

    pub(super) fn handle_user_lookup(&self, who: Principal, request: &UserLookup) -> Answer {
        if request.users.is_empty() {
            return Err(Refusal::invalid("the list of users is empty"));
        }
        if request.users.len() > MEMBERS_A_REQUEST_MAX {
            return Err(Refusal::too_large("more than 1000 users: ask for them in parts"));
        }
        let mut handles = String::new();
        let entry = |&user| {
            let handle = self.directory.user(who.tenant, user).map_or("", |found| &found.handle);
            handles.push_str(handle);
            UserEntry { user, handle_bytes: u8::try_from(handle.len()).expect("HANDLE_BYTES_MAX is under 256") }
        };
        let entries = request.users.iter().map(entry).collect();
        Ok(UserHandles { request: request.request, entries, handles: handles.as_str().into() }.into())
    }

    pub(super) fn handle_retire(
        &mut self,
        time: Timestamp,
        who: Principal,
        request: &Retire,
        effects: &mut Effects,
    ) -> Answer {
        let user = self.directory.user(who.tenant, who.user).ok_or(Refusal::unknown_principal())?;
        let (tenant, user, found) = match request.what {
            Retired::DEVICE => (who.tenant, who.user, user.device(DeviceId(request.id)).is_ok()),
            Retired::PRODUCER => (who.tenant, who.user, user.producer(ProducerId(request.id)).is_some()),
            _ => return Err(Refusal::invalid("only a device or a producer can be retired")),
        };
        if !found {
            return Err(Refusal::new(ErrorCode::NOT_FOUND, "you have no such device or producer"));
        }
        if request.what == Retired::DEVICE {
            self.commit(DeviceRetired { time, tenant, user, device: DeviceId(request.id) }, effects);
        } else {
            self.commit(ProducerRetired { time, tenant, user, producer: ProducerId(request.id) }, effects);
        }
        done(request.request)
    }
}
