//! One user: a person or service, and what it has.
//!
//! A tenant has millions of them, most of whom are not here now: what a user has not got takes a pointer.
//!
//! Invariants: lists ascend, but `past`, which is in the order of leaving.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use carillon_protocol::ids::{ConversationId, DeviceId, DingId, Position, ProducerId};
use smallvec::SmallVec;

use crate::delivery::Device;
use crate::effect::Forgotten;
use crate::membership::Stint;
use crate::producer::Producer;

/// See the module.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) handle: Box<str>,
    pub(crate) personal: ConversationId,
    /// Conversations with an open stint: the personal one, and often but one more.
    pub(crate) present: SmallVec<[ConversationId; 2]>,
    clients: Option<Box<Clients>>,
    rest: Option<Box<Rest>>,
}

const _: () = assert!(size_of::<User>() == 64);

/// What a user who has once attached has.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    pub(crate) devices: Vec<Device>,
    pub(crate) producers: Vec<Producer>,
}

/// What few users have.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Conversations with closed stints alone, the one left first at the front.
    pub(crate) past: Vec<ConversationId>,
    /// What was too much to keep of these and of the present ones.
    pub(crate) forgotten: Option<Box<ForgottenStints>>,
    pub(crate) dings: UserDings,
}

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

/// What a user was entitled to and the shard no longer knows. Bounded: one range for each conversation, present or past.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ForgottenStints {
    /// Stints beyond the newest `STINTS_MAX`; ascending by conversation.
    pub(crate) stints: Vec<Forgotten>,
    /// The position at which the last of the forgotten conversations was left; 0: none is forgotten.
    pub(crate) conversations_through: Position,
}

static NO_REST: Rest = Rest {
    past: Vec::new(),
    forgotten: None,
    dings: UserDings {
        waiting: BTreeSet::new(),
        sent_by_key: BTreeMap::new(),
        sent: BTreeSet::new(),
        sent_open: 0,
        sent_to: 0,
    },
};

impl User {
    pub(crate) fn new(handle: &str, personal: ConversationId) -> Self {
        Self { handle: handle.into(), personal, present: SmallVec::new(), clients: None, rest: None }
    }

    pub(crate) fn devices(&self) -> &[Device] {
        self.clients.as_ref().map_or(&[], |clients| &clients.devices)
    }

    pub(crate) fn producers(&self) -> &[Producer] {
        self.clients.as_ref().map_or(&[], |clients| &clients.producers)
    }

    pub(crate) fn clients_mut(&mut self) -> &mut Clients {
        self.clients.get_or_insert_default()
    }

    pub(crate) fn past(&self) -> &[ConversationId] {
        &self.rest().past
    }

    pub(crate) fn forgotten(&self) -> Option<&ForgottenStints> {
        self.rest().forgotten.as_deref()
    }

    pub(crate) fn dings(&self) -> &UserDings {
        &self.rest().dings
    }

    fn rest(&self) -> &Rest {
        self.rest.as_deref().unwrap_or(&NO_REST)
    }

    pub(crate) fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    pub(crate) fn device(&self, id: DeviceId) -> Result<usize, usize> {
        self.devices().binary_search_by_key(&id, |device| device.id)
    }

    pub(crate) fn producer_at(&self, id: ProducerId) -> Result<usize, usize> {
        self.producers().binary_search_by_key(&id, |producer| producer.id)
    }

    pub(crate) fn producer(&self, id: ProducerId) -> Option<&Producer> {
        self.producer_at(id).ok().map(|at| &self.producers()[at])
    }

    /// Notes that a stint began.
    pub(crate) fn join(&mut self, conversation: ConversationId) {
        if let Some(rest) = &mut self.rest {
            rest.past.retain(|past| *past != conversation);
        }
        if let Err(at) = self.present.binary_search(&conversation) {
            self.present.insert(at, conversation);
        }
    }

    /// Notes that a stint ended.
    pub(crate) fn leave(&mut self, conversation: ConversationId) {
        if let Ok(at) = self.present.binary_search(&conversation) {
            self.present.remove(at);
            self.rest_mut().past.push(conversation);
        }
    }

    /// Notes that the oldest stint in a conversation was one too many: its range grows by it.
    pub(crate) fn forget_stint(&mut self, conversation: ConversationId, stint: &Stint) {
        let Some(last) = stint.left() else { return };
        let forgotten = self.rest_mut().forgotten.get_or_insert_default();
        match forgotten.stints.binary_search_by_key(&conversation, |range| range.conversation) {
            Ok(at) => forgotten.stints[at].last = last,
            Err(at) => forgotten.stints.insert(at, Forgotten { conversation, first: stint.joined.seq.next(), last }),
        }
    }

    /// Notes that a conversation that the user left at this position is no longer known to be one of the user's.
    pub(crate) fn forget_conversation(&mut self, conversation: ConversationId, left: Position) {
        let forgotten = self.rest_mut().forgotten.get_or_insert_default();
        forgotten.stints.retain(|range| range.conversation != conversation);
        forgotten.conversations_through = forgotten.conversations_through.max(left);
    }
}

impl Clients {
    /// Adds a device at its place. Most users have one: nothing is kept for three more.
    pub(crate) fn insert_device(&mut self, at: usize, device: Device) {
        self.devices.reserve_exact(1);
        self.devices.insert(at, device);
    }

    /// Likewise a producer.
    pub(crate) fn insert_producer(&mut self, at: usize, producer: Producer) {
        self.producers.reserve_exact(1);
        self.producers.insert(at, producer);
    }
}
