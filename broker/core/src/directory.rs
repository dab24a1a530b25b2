//! Tenants, users, devices: who there is.
//!
//! Invariant: tenants and users are dense from 0.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, Role};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::conversation::{Conversation, Policies};
use crate::delivery::Device;
use crate::effect::Signal;
use crate::error::{Applied, Contradiction};
use crate::handles::Handles;
use crate::members::Members;
use crate::membership::{Membership, Stint};
use crate::producer::Producer;
use crate::record::{CursorsMoved, DeviceAdded, DeviceRetired, ProducerAdded, ProducerRetired, TenantAdded, UserAdded};
use crate::segments::Segments;
use crate::shard::Shard;
use crate::user::User;

/// An organisation.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: Arc<str>,
    pub(crate) users: Segments<User>,
    pub(crate) by_handle: Handles,
    /// Named conversations.
    pub(crate) by_name: BTreeMap<Arc<str>, ConversationId>,
    /// Direct conversations by their two users, the lower first. Never iterated.
    pub(crate) direct: HashMap<(UserId, UserId), ConversationId, FxBuildHasher>,
    /// To how many recipients the kept DINGs of its users go in all.
    pub(crate) dings_sent_to: usize,
}

impl Tenant {
    pub(crate) const fn new(name: Arc<str>) -> Self {
        let direct = HashMap::with_hasher(FxBuildHasher);
        Self {
            name,
            users: Segments::new(),
            by_handle: Handles::new(),
            by_name: BTreeMap::new(),
            direct,
            dings_sent_to: 0,
        }
    }

    pub(crate) fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(id.0 as usize)
    }

    pub(crate) fn user_mut(&mut self, id: UserId) -> Option<&mut User> {
        self.users.get_mut(id.0 as usize)
    }

    /// The user with this handle.
    pub(crate) fn named(&self, handle: &str) -> Option<UserId> {
        self.by_handle.find(&self.users, handle)
    }

    /// The id the next user gets.
    pub(crate) fn next_user(&self) -> UserId {
        UserId(u32::try_from(self.users.len()).expect("USERS_A_TENANT_MAX is under u32::MAX"))
    }
}

/// The key of a direct conversation.
pub(crate) fn pair(a: UserId, b: UserId) -> (UserId, UserId) {
    (a.min(b), a.max(b))
}

/// Every tenant of the shard.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) by_name: BTreeMap<Arc<str>, TenantId>,
}

impl Directory {
    pub(crate) fn tenant(&self, id: TenantId) -> Option<&Tenant> {
        self.tenants.get(id.0 as usize)
    }

    pub(crate) fn tenant_mut(&mut self, id: TenantId) -> Option<&mut Tenant> {
        self.tenants.get_mut(id.0 as usize)
    }

    pub(crate) fn user(&self, tenant: TenantId, user: UserId) -> Option<&User> {
        self.tenant(tenant)?.user(user)
    }

    /// The id the next tenant gets.
    pub(crate) fn next_tenant(&self) -> TenantId {
        TenantId(u32::try_from(self.tenants.len()).expect("TENANTS_MAX is under u32::MAX"))
    }

    /// As [`Directory::tenant_mut`], for a record that must be right.
    pub(crate) fn known_tenant(&mut self, id: TenantId) -> Result<&mut Tenant, Contradiction> {
        self.tenant_mut(id).ok_or(Contradiction::Unknown { what: "tenant", id: u64::from(id.0) })
    }

    /// A user to change, for a record that must be right.
    pub(crate) fn known_user(&mut self, tenant: TenantId, user: UserId) -> Result<&mut User, Contradiction> {
        self.known_tenant(tenant)?.user_mut(user).ok_or(Contradiction::Unknown { what: "user", id: u64::from(user.0) })
    }
}

impl Shard {
    pub(crate) fn apply_tenant_added(&mut self, record: &TenantAdded) -> Applied {
        let id = u64::from(record.tenant.0);
        if record.tenant != self.directory.next_tenant() {
            return Err(Contradiction::NotNext { what: "tenant", id });
        }
        let name: Arc<str> = Arc::from(record.name.as_str());
        if self.directory.by_name.contains_key(&name) {
            return Err(Contradiction::Present { what: "name of tenant", id });
        }
        self.directory.by_name.insert(Arc::clone(&name), record.tenant);
        self.directory.tenants.push(Tenant::new(name));
        Ok(())
    }

    pub(crate) fn apply_user_added(
        &mut self,
        position: Position,
        record: &UserAdded,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let id = u64::from(record.user.0);
        self.conversations.expect_next(record.personal)?;
        let tenant = self.directory.known_tenant(record.tenant)?;
        if record.user != tenant.next_user() {
            return Err(Contradiction::NotNext { what: "user", id });
        }
        let handle = record.handle.as_str();
        if !tenant.by_handle.insert(&tenant.users, handle, record.user) {
            return Err(Contradiction::Present { what: "handle of user", id });
        }
        let mut user = User::new(handle, record.personal);
        user.join(record.personal);
        tenant.users.push(user);
        let mut members = Members::default();
        members.insert(record.user, Membership::new(Role::MEMBER, Stint::begin(Default::default(), position)));
        self.conversations.push(Conversation::new(
            record.tenant,
            ConversationKind::PERSONAL,
            Policies::of_kind(ConversationKind::PERSONAL),
            None,
            members,
        ));
        let (tenant, conversation) = (record.tenant, record.personal);
        let (seq, history) = (Seq(0), HistoryPolicy::JOINED);
        let users = [record.user].into();
        signals.push(Signal::MembersAdded { position, tenant, conversation, seq, history, users });
        Ok(())
    }

    pub(crate) fn apply_device_added(&mut self, record: &DeviceAdded) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Err(at) = user.device(record.device) else {
            return Err(Contradiction::Present { what: "device", id: record.device.0 });
        };
        user.clients_mut().insert_device(at, Device::new(record.device));
        Ok(())
    }

    pub(crate) fn apply_device_retired(&mut self, record: &DeviceRetired, signals: &mut Vec<Signal>) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Ok(at) = user.device(record.device) else {
            return Err(Contradiction::Unknown { what: "device", id: record.device.0 });
        };
        user.clients_mut().devices.remove(at);
        signals.push(Signal::DeviceRetired { tenant: record.tenant, user: record.user, device: record.device });
        Ok(())
    }

    pub(crate) fn apply_producer_added(&mut self, record: &ProducerAdded) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Err(at) = user.producer_at(record.producer) else {
            return Err(Contradiction::Present { what: "producer", id: record.producer.0 });
        };
        user.clients_mut().insert_producer(at, Producer::new(record.producer));
        Ok(())
    }

    pub(crate) fn apply_producer_retired(&mut self, record: &ProducerRetired, signals: &mut Vec<Signal>) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Ok(at) = user.producer_at(record.producer) else {
            return Err(Contradiction::Unknown { what: "producer", id: record.producer.0 });
        };
        user.clients_mut().producers.remove(at);
        signals.push(Signal::ProducerRetired { tenant: record.tenant, user: record.user, producer: record.producer });
        Ok(())
    }

    pub(crate) fn apply_cursors_moved(&mut self, record: &CursorsMoved) -> Applied {
        for moved in &record.moves {
            let user = self.directory.known_user(moved.tenant, moved.user)?;
            let Ok(at) = user.device(moved.device) else {
                return Err(Contradiction::Unknown { what: "device", id: moved.device.0 });
            };
            let cursor = &mut user.clients_mut().devices[at].cursor;
            if moved.position <= *cursor {
                return Err(Contradiction::Backwards { what: "cursor", id: moved.position.0 });
            }
            *cursor = moved.position;
        }
        Ok(())
    }
}
