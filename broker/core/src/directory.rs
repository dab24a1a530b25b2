//! Tenants, users, devices: who there is, and what a user has.
//!
//! Invariants: tenants and users are dense from 0; lists of a user ascend, but `past`, which is in the order of leaving.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use carillon_protocol::ids::{ConversationId, DeviceId, DingId, Position, ProducerId, Seq, TenantId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, Role};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::conversation::{Conversation, Policies};
use crate::delivery::Device;
use crate::effect::{Forgotten, Signal};
use crate::error::{Applied, Contradiction};
use crate::members::Members;
use crate::membership::{Membership, Stint};
use crate::producer::Producer;
use crate::record::{CursorsMoved, DeviceAdded, DeviceRetired, ProducerAdded, ProducerRetired, TenantAdded, UserAdded};
use crate::shard::Shard;

/// The DINGs of one user.
#[derive(Debug, Default)]
pub(crate) struct UserDings {
    /// Open ones that wait for the user.
    pub(crate) waiting: BTreeSet<DingId>,
    /// Kept ones that the user sent, by key.
    pub(crate) sent_by_key: BTreeMap<u64, DingId>,
    /// The same by id.
    pub(crate) sent: BTreeSet<DingId>,
    /// How many of them are open.
    pub(crate) sent_open: usize,
    /// To how many recipients they go in all.
    pub(crate) sent_to: usize,
}

/// A person or service.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) handle: Arc<str>,
    pub(crate) personal: ConversationId,
    pub(crate) devices: Vec<Device>,
    pub(crate) producers: Vec<Producer>,
    /// Conversations with an open stint.
    pub(crate) present: Vec<ConversationId>,
    /// Conversations with closed stints alone, the one left first at the front.
    pub(crate) past: Vec<ConversationId>,
    /// What was too much to keep of the two.
    pub(crate) forgotten: Option<Box<ForgottenStints>>,
    pub(crate) dings: UserDings,
}

impl User {
    pub(crate) fn new(handle: Arc<str>, personal: ConversationId) -> Self {
        Self {
            handle,
            personal,
            devices: Vec::new(),
            producers: Vec::new(),
            present: Vec::new(),
            past: Vec::new(),
            forgotten: None,
            dings: UserDings::default(),
        }
    }

    pub(crate) fn device(&self, id: DeviceId) -> Result<usize, usize> {
        self.devices.binary_search_by_key(&id, |device| device.id)
    }

    pub(crate) fn producer_at(&self, id: ProducerId) -> Result<usize, usize> {
        self.producers.binary_search_by_key(&id, |producer| producer.id)
    }

    pub(crate) fn producer(&self, id: ProducerId) -> Option<&Producer> {
        self.producer_at(id).ok().map(|at| &self.producers[at])
    }

    /// Notes that a stint began.
    pub(crate) fn join(&mut self, conversation: ConversationId) {
        self.past.retain(|past| *past != conversation);
        if let Err(at) = self.present.binary_search(&conversation) {
            self.present.insert(at, conversation);
        }
    }

    /// Notes that a stint ended.
    pub(crate) fn leave(&mut self, conversation: ConversationId) {
        if let Ok(at) = self.present.binary_search(&conversation) {
            self.present.remove(at);
            self.past.push(conversation);
        }
    }

    /// Notes that the oldest stint in a conversation was one too many: its range grows by it.
    pub(crate) fn forget_stint(&mut self, conversation: ConversationId, stint: &Stint) {
        let Some(last) = stint.left() else { return };
        let forgotten = self.forgotten.get_or_insert_default();
        match forgotten.stints.binary_search_by_key(&conversation, |range| range.conversation) {
            Ok(at) => forgotten.stints[at].last = last,
            Err(at) => forgotten.stints.insert(at, Forgotten { conversation, first: stint.joined.seq.next(), last }),
        }
    }

    /// Notes that a conversation that the user left at this position is no longer known to be one of the user's.
    pub(crate) fn forget_conversation(&mut self, conversation: ConversationId, left: Position) {
        let forgotten = self.forgotten.get_or_insert_default();
        forgotten.stints.retain(|range| range.conversation != conversation);
        forgotten.conversations_through = forgotten.conversations_through.max(left);
    }
}

/// What a user was entitled to and the shard no longer knows. Bounded: one range for each conversation, present or past.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ForgottenStints {
    /// Stints beyond the newest `STINTS_MAX`; ascending by conversation.
    pub(crate) stints: Vec<Forgotten>,
    /// The position at which the last of the forgotten conversations was left; 0: none is forgotten.
    pub(crate) conversations_through: Position,
}

/// An organisation.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: Arc<str>,
    pub(crate) users: Vec<User>,
    pub(crate) by_handle: BTreeMap<Arc<str>, UserId>,
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
        Self { name, users: Vec::new(), by_handle: BTreeMap::new(), by_name: BTreeMap::new(), direct, dings_sent_to: 0 }
    }

    pub(crate) fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(id.0 as usize)
    }

    pub(crate) fn user_mut(&mut self, id: UserId) -> Option<&mut User> {
        self.users.get_mut(id.0 as usize)
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
        let handle: Arc<str> = Arc::from(record.handle.as_str());
        if tenant.by_handle.contains_key(&handle) {
            return Err(Contradiction::Present { what: "handle of user", id });
        }
        tenant.by_handle.insert(Arc::clone(&handle), record.user);
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
        user.devices.insert(at, Device::new(record.device));
        Ok(())
    }

    pub(crate) fn apply_device_retired(&mut self, record: &DeviceRetired, signals: &mut Vec<Signal>) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Ok(at) = user.device(record.device) else {
            return Err(Contradiction::Unknown { what: "device", id: record.device.0 });
        };
        user.devices.remove(at);
        signals.push(Signal::DeviceRetired { tenant: record.tenant, user: record.user, device: record.device });
        Ok(())
    }

    pub(crate) fn apply_producer_added(&mut self, record: &ProducerAdded) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Err(at) = user.producer_at(record.producer) else {
            return Err(Contradiction::Present { what: "producer", id: record.producer.0 });
        };
        user.producers.insert(at, Producer::new(record.producer));
        Ok(())
    }

    pub(crate) fn apply_producer_retired(&mut self, record: &ProducerRetired, signals: &mut Vec<Signal>) -> Applied {
        let user = self.directory.known_user(record.tenant, record.user)?;
        let Ok(at) = user.producer_at(record.producer) else {
            return Err(Contradiction::Unknown { what: "producer", id: record.producer.0 });
        };
        user.producers.remove(at);
        signals.push(Signal::ProducerRetired { tenant: record.tenant, user: record.user, producer: record.producer });
        Ok(())
    }

    pub(crate) fn apply_cursors_moved(&mut self, record: &CursorsMoved) -> Applied {
        for moved in &record.moves {
            let user = self.directory.known_user(moved.tenant, moved.user)?;
            let Ok(at) = user.device(moved.device) else {
                return Err(Contradiction::Unknown { what: "device", id: moved.device.0 });
            };
            let cursor = &mut user.devices[at].cursor;
            if moved.position <= *cursor {
                return Err(Contradiction::Backwards { what: "cursor", id: moved.position.0 });
            }
            *cursor = moved.position;
        }
        Ok(())
    }
}
