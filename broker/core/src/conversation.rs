//! Conversations: kinds, seqs, memberships.
//!
//! Invariants: ordinals are dense from 1; `present`, `owners` and `ranks` tell what `members` holds; seqs are gap-free.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use carillon_protocol::deliver::AUTHOR_BROKER;
use carillon_protocol::ids::{ConversationId, Position, ProducerId, Seq, ShardId, TenantId, UserId};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};

use crate::directory::pair;
use crate::effect::{Moment, Signal};
use crate::error::{Applied, Contradiction};
use crate::limits::PAST_CONVERSATIONS_A_USER_MAX;
use crate::members::{MemberMut, Members};
use crate::membership::{Member, Membership, Stint};
use crate::producer::Outcome;
use crate::receipt::StintRanks;
use crate::record::{ConversationAdded, Grant, MembersAdded, MembersRemoved, Message};
use crate::segments::Segments;
use crate::shard::Shard;

/// What members may do and have, set when a conversation is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policies {
    pub(crate) post: PostPolicy,
    pub(crate) history: HistoryPolicy,
    pub(crate) receipts: ReceiptPolicy,
}

impl Policies {
    /// What nobody chose: those of direct and personal conversations, and of a group.
    pub(crate) const fn of_kind(kind: ConversationKind) -> Self {
        let (post, receipts) = match kind {
            ConversationKind::CHANNEL => (PostPolicy::ADMINS, ReceiptPolicy::COUNTS),
            ConversationKind::PERSONAL => (PostPolicy::ADMINS, ReceiptPolicy::ON),
            _ => (PostPolicy::MEMBERS, ReceiptPolicy::ON),
        };
        Self { post, history: HistoryPolicy::JOINED, receipts }
    }
}

/// What messages are published into.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) tenant: TenantId,
    pub(crate) kind: ConversationKind,
    pub(crate) policies: Policies,
    /// Unique in the tenant.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) last_seq: Seq,
    /// The position of the last message, 0 without one.
    pub(crate) last_position: Position,
    /// The position of the newest mark, 0 without one: nothing has moved since then.
    pub(crate) newest_mark: Position,
    /// Present and past.
    pub(crate) members: Members,
    /// How many are present.
    pub(crate) present: u32,
    /// How many of these are owners.
    pub(crate) owners: u32,
    /// The stints of all members in order, kept when there are more than `STINTS_SCANNED_MAX`.
    pub(crate) ranks: Option<Box<StintRanks>>,
}

impl Conversation {
    /// A conversation without messages.
    pub(crate) fn new(
        tenant: TenantId,
        kind: ConversationKind,
        policies: Policies,
        name: Option<Arc<str>>,
        members: Members,
    ) -> Self {
        let (mut present, mut owners) = (0, 0);
        for (_, member) in members.iter() {
            present += u32::from(member.is_present());
            owners += u32::from(member.owns());
        }
        let ranks = StintRanks::of(&members);
        let (last_seq, last_position, newest_mark) = (Seq(0), Position(0), Position(0));
        Self { tenant, kind, policies, name, last_seq, last_position, newest_mark, members, present, owners, ranks }
    }

    /// The user's membership, if it goes on.
    pub(crate) fn present_member(&self, user: UserId) -> Option<Member<'_>> {
        self.members.get(user).filter(Member::is_present)
    }

    /// Whether membership can be changed by request.
    pub(crate) fn is_managed(&self) -> bool {
        self.kind == ConversationKind::GROUP || self.kind == ConversationKind::CHANNEL
    }

    /// Its last seq as of this position.
    pub(crate) fn moment(&self, position: Position) -> Moment {
        Moment { seq: self.last_seq, position }
    }

    /// Begins a stint or sets a role.
    fn grant(&mut self, position: Position, grant: Grant) -> Granted {
        let stint = Stint::begin(self.last_seq, position);
        let owner = u32::from(grant.role == Role::OWNER);
        let known = self.members.update(grant.user, |member| match member.present_mut() {
            Some(_) => Err(core::mem::replace(&mut member.latest.role, grant.role)),
            None => Ok(member.rejoin(grant.role, stint)),
        });
        let began = known.unwrap_or_else(|| {
            self.members.insert(grant.user, Membership::new(grant.role, stint));
            Ok(None)
        });
        self.owners += owner;
        match began {
            Ok(forgotten) => {
                self.present += 1;
                self.rank_begun(&stint, forgotten.as_ref());
                Granted::Began { forgotten }
            }
            Err(role_before) => {
                self.owners -= u32::from(role_before == Role::OWNER);
                Granted::RoleSet
            }
        }
    }

    /// Ends the user's stint.
    fn end_stint(&mut self, position: Position, user: UserId) -> Applied {
        let left = self.moment(position);
        let unknown = Contradiction::Unknown { what: "member", id: u64::from(user.0) };
        let role = self.members.update(user, |member| member.leave(left).then_some(member.latest.role));
        let role = role.flatten().ok_or(unknown)?;
        self.owners -= u32::from(role == Role::OWNER);
        self.present -= 1;
        self.rank_ended(left.seq);
        Ok(())
    }

    /// Lets go of a member who has left, and of all its stints.
    pub(crate) fn forget(&mut self, user: UserId) -> Option<Membership> {
        let member = self.members.remove(user)?;
        self.rank_forgotten(member.stints());
        Some(member)
    }
}

/// What a grant did.
enum Granted {
    /// A stint began; this one was too many.
    Began { forgotten: Option<Stint> },
    /// A present member has another role.
    RoleSet,
}

/// Every conversation of the shard, by ordinal.
#[derive(Debug)]
pub(crate) struct Conversations {
    shard: ShardId,
    list: Segments<Conversation>,
}

impl Conversations {
    pub(crate) const fn new(shard: ShardId) -> Self {
        Self { shard, list: Segments::new() }
    }

    fn at(&self, id: ConversationId) -> Option<usize> {
        if id.shard() != self.shard {
            return None;
        }
        usize::try_from(id.ordinal().checked_sub(1)?).ok()
    }

    pub(crate) fn get(&self, id: ConversationId) -> Option<&Conversation> {
        self.list.get(self.at(id)?)
    }

    pub(crate) fn get_mut(&mut self, id: ConversationId) -> Option<&mut Conversation> {
        let at = self.at(id)?;
        self.list.get_mut(at)
    }

    /// As [`Conversations::get_mut`], for a record that must be right.
    pub(crate) fn known(&mut self, id: ConversationId) -> Result<&mut Conversation, Contradiction> {
        self.get_mut(id).ok_or(Contradiction::Unknown { what: "conversation", id: id.0 })
    }

    /// The id the next conversation gets.
    pub(crate) fn next_id(&self) -> ConversationId {
        ConversationId::new(self.shard, self.list.len() as u64 + 1)
    }

    pub(crate) fn expect_next(&self, id: ConversationId) -> Applied {
        if id == self.next_id() { Ok(()) } else { Err(Contradiction::NotNext { what: "conversation", id: id.0 }) }
    }

    pub(crate) fn push(&mut self, conversation: Conversation) {
        self.list.push(conversation);
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// All, by ordinal.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConversationId, &Conversation)> {
        (1..)
            .zip(self.list.iter())
            .map(|(ordinal, conversation)| (ConversationId::new(self.shard, ordinal), conversation))
    }
}

impl Shard {
    pub(crate) fn apply_message(&mut self, position: Position, record: &Message, signals: &mut Vec<Signal>) -> Applied {
        let (meta, deliver) = (&record.meta, &record.deliver);
        if deliver.position != position {
            return Err(Contradiction::NotNext { what: "position of message", id: deliver.position.0 });
        }
        let conversation = self.conversations.known(deliver.conversation)?;
        if conversation.tenant != meta.tenant {
            return Err(Contradiction::Unknown { what: "conversation of the tenant", id: deliver.conversation.0 });
        }
        if deliver.seq != conversation.last_seq.next() {
            return Err(Contradiction::NotNext { what: "seq", id: deliver.seq.0 });
        }
        if deliver.author != AUTHOR_BROKER {
            let user = self.directory.known_user(meta.tenant, deliver.author)?;
            let Ok(at) = user.producer_at(meta.producer) else {
                return Err(Contradiction::Unknown { what: "producer", id: meta.producer.0 });
            };
            let outcome = Outcome {
                number: meta.number,
                fingerprint: meta.fingerprint,
                conversation: deliver.conversation,
                seq: deliver.seq,
                position,
                time: deliver.time,
            };
            user.clients_mut().producers[at].apply(outcome, meta.low)?;
            if let Some(mut author) = conversation.members.get_mut(deliver.author).filter(MemberMut::is_present) {
                author.wrote(deliver.seq);
            }
        } else if meta.producer != ProducerId(0) || meta.number != 0 {
            return Err(Contradiction::Range { what: "producer of the broker", id: meta.producer.0 });
        }
        conversation.last_seq = deliver.seq;
        conversation.last_position = position;
        let Message { deliver, .. } = record;
        signals.push(Signal::Message {
            position,
            conversation: deliver.conversation,
            seq: deliver.seq,
            author: deliver.author,
        });
        Ok(())
    }

    pub(crate) fn apply_conversation_added(
        &mut self,
        position: Position,
        record: &ConversationAdded,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let id = record.conversation;
        self.conversations.expect_next(id)?;
        let tenant = self.directory.known_tenant(record.tenant)?;
        let mut members = Members::default();
        for grant in &record.grants {
            let number = u64::from(grant.user.0);
            let Some(user) = tenant.user_mut(grant.user) else {
                return Err(Contradiction::Unknown { what: "user", id: number });
            };
            if !members.insert(grant.user, Membership::new(grant.role, Stint::begin(Seq(0), position))) {
                return Err(Contradiction::Present { what: "member", id: number });
            }
            user.join(id);
        }
        let mut name = None;
        if !record.name.is_empty() {
            let shared: Arc<str> = Arc::from(record.name.as_str());
            if tenant.by_name.insert(Arc::clone(&shared), id).is_some() {
                return Err(Contradiction::Present { what: "name of conversation", id: id.0 });
            }
            name = Some(shared);
        }
        if record.kind == ConversationKind::DIRECT {
            let [a, b] = record.grants[..] else {
                return Err(Contradiction::Range { what: "members of direct conversation", id: id.0 });
            };
            if tenant.direct.insert(pair(a.user, b.user), id).is_some() {
                return Err(Contradiction::Present { what: "direct conversation", id: id.0 });
            }
        }
        let &ConversationAdded { post_policy: post, history, receipts, .. } = record;
        let policies = Policies { post, history, receipts };
        self.conversations.push(Conversation::new(record.tenant, record.kind, policies, name, members));
        let users = record.grants.iter().map(|grant| grant.user).collect();
        let (tenant, seq) = (record.tenant, Seq(0));
        signals.push(Signal::MembersAdded { position, tenant, conversation: id, seq, history, users });
        Ok(())
    }

    pub(crate) fn apply_members_added(
        &mut self,
        position: Position,
        record: &MembersAdded,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let conversation = self.conversations.known(record.conversation)?;
        let mut users = Vec::with_capacity(record.grants.len());
        for grant in &record.grants {
            let user = self.directory.known_user(conversation.tenant, grant.user)?;
            if let Granted::Began { forgotten } = conversation.grant(position, *grant) {
                user.join(record.conversation);
                if let Some(stint) = forgotten {
                    user.forget_stint(record.conversation, &stint);
                }
                users.push(grant.user);
            }
        }
        if !users.is_empty() {
            let (tenant, seq, history) = (conversation.tenant, conversation.last_seq, conversation.policies.history);
            let conversation = record.conversation;
            signals.push(Signal::MembersAdded { position, tenant, conversation, seq, history, users });
        }
        Ok(())
    }

    pub(crate) fn apply_members_removed(
        &mut self,
        position: Position,
        record: &MembersRemoved,
        signals: &mut Vec<Signal>,
    ) -> Applied {
        let id = record.conversation;
        let Conversation { tenant, last_seq: seq, .. } = *self.conversations.known(id)?;
        for &user in &record.users {
            self.conversations.known(id)?.end_stint(position, user)?;
            let left = self.directory.known_user(tenant, user)?;
            left.leave(id);
            if left.past().len() > PAST_CONVERSATIONS_A_USER_MAX {
                let forgotten = left.rest_mut().past.remove(0);
                let member = self.conversations.known(forgotten)?.forget(user);
                let last = member.and_then(|member| member.latest.stint.left());
                left.forget_conversation(forgotten, last.map_or(Position(0), |last| last.position));
            }
        }
        signals.push(Signal::MembersRemoved { position, tenant, conversation: id, seq, users: record.users.clone() });
        Ok(())
    }
}
