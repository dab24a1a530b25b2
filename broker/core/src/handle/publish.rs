//! A message is published: idempotent by the producer's number, entitled by membership and post policy.

use carillon_protocol::control::MembershipChanged;
use carillon_protocol::deliver::{AUTHOR_BROKER, Deliver};
use carillon_protocol::error::ErrorCode;
use carillon_protocol::frame::Body;
use carillon_protocol::ids::{ConversationId, ProducerId, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{Change, ConversationKind, MessageKind, PostPolicy, Role, Target};
use carillon_protocol::limits::PAYLOAD_BYTES_MAX;
use carillon_protocol::publish::{Publish, PublishRefused, Published};

use crate::conversation::Policies;
use crate::directory::pair;
use crate::effect::{Effects, Reply};
use crate::error::Refusal;
use crate::input::Principal;
use crate::limits::{CONVERSATIONS_A_USER_MAX, CONVERSATIONS_MAX};
use crate::producer::{Outcome, Standing, fingerprint};
use crate::record::{ConversationAdded, Grant, Message, MessageMeta};
use crate::shard::Shard;

/// Where a publish goes.
enum Destination {
    /// A conversation that is there.
    Existing(ConversationId),
    /// The direct conversation with this user, to be made.
    Direct(UserId),
}

/// What became of a publish that was not refused.
enum Admitted {
    /// It was recorded before.
    Repeat(Outcome),
    /// It is new.
    New(Destination, ProducerId),
}

const NO_PRODUCER: Refusal = Refusal::new(
    ErrorCode::NO_PRODUCER,
    "the session has no producer, or it was retired: name one in Hello to publish",
);

impl Shard {
    pub(crate) fn handle_publish(
        &mut self,
        now: Timestamp,
        who: Principal,
        producer: Option<ProducerId>,
        publish: Publish,
        effects: &mut Effects,
    ) {
        let number = publish.number;
        let fingerprint = fingerprint(&publish);
        let frame = match self.admit_publish(who, producer, &publish, fingerprint) {
            Ok(Admitted::Repeat(outcome)) => published(outcome, 1).into(),
            Ok(Admitted::New(destination, producer)) => {
                let conversation = match destination {
                    Destination::Existing(conversation) => conversation,
                    Destination::Direct(other) => self.add_direct(now, who, other, effects),
                };
                let meta = MessageMeta { tenant: who.tenant, producer, number, low: publish.low, fingerprint };
                let outcome = self.post(now, meta, conversation, who.user, (publish.kind, publish.payload), effects);
                published(outcome, 0).into()
            }
            Err(Refusal { code, text }) => PublishRefused { number, code, text: text.into() }.into(),
        };
        effects.reply = Some(Reply::Frame(frame));
    }

    /// Whether this would be recorded: it is neither a repeat nor refused.
    pub fn is_new_publish(&self, who: Principal, producer: Option<ProducerId>, publish: &Publish) -> bool {
        let admitted = self.admit_publish(who, producer, publish, fingerprint(publish));
        matches!(admitted, Ok(Admitted::New(..)))
    }

    fn admit_publish(
        &self,
        who: Principal,
        producer: Option<ProducerId>,
        publish: &Publish,
        fingerprint: u64,
    ) -> Result<Admitted, Refusal> {
        let id = producer.ok_or(NO_PRODUCER)?;
        let user = self.directory.user(who.tenant, who.user).ok_or(NO_PRODUCER)?;
        let producer = user.producer(id).ok_or(NO_PRODUCER)?;
        match producer.standing(publish.number, publish.low) {
            Standing::Malformed => {
                return Err(Refusal::invalid("number and low must be at least 1, and low at most number"));
            }
            Standing::OutsideWindow => {
                let text = "the number is 1024 or more above low: settle the oldest publishes first";
                return Err(Refusal::new(ErrorCode::OUTSIDE_WINDOW, text));
            }
            Standing::Settled => {
                let text = "the number is below a low that was sent before: a settled number cannot be used again";
                return Err(Refusal::new(ErrorCode::ALREADY_SETTLED, text));
            }
            Standing::Known(outcome) if outcome.fingerprint == fingerprint => return Ok(Admitted::Repeat(outcome)),
            Standing::Known(_) => {
                let text = "the number was used for another message: number each message once";
                return Err(Refusal::new(ErrorCode::PRODUCER_CONFLICT, text));
            }
            Standing::New => {}
        }
        check_content(publish.kind, publish.payload.len())?;
        Ok(Admitted::New(self.destination(who, publish)?, id))
    }

    fn destination(&self, who: Principal, publish: &Publish) -> Result<Destination, Refusal> {
        match publish.target {
            Target::CONVERSATION => {
                let id = ConversationId(publish.target_id);
                self.check_may_post(who, id)?;
                Ok(Destination::Existing(id))
            }
            Target::USER => {
                let other = u32::try_from(publish.target_id).map_err(|_| Refusal::unknown_user())?;
                self.direct_with(who, UserId(other))
            }
            _ => Err(Refusal::invalid("the target must be a conversation or a user")),
        }
    }

    pub(super) fn check_may_post(&self, who: Principal, id: ConversationId) -> Result<(), Refusal> {
        let not_found = Refusal::conversation_not_found();
        let conversation = self.conversations.get(id).filter(|found| found.tenant == who.tenant).ok_or(not_found)?;
        let member = conversation.present_member(who.user);
        if conversation.kind == ConversationKind::PERSONAL {
            let own = Refusal::forbidden("only the broker posts into a personal conversation");
            return Err(if member.is_some() { own } else { not_found });
        }
        let manages = who.authority.manages_tenant() && conversation.is_managed();
        match member {
            None if !manages => Err(not_found),
            Some(member) if conversation.policies.post == PostPolicy::ADMINS && !manages && !member.manages() => {
                Err(Refusal::forbidden("only owners and admins post here: ask one of them for the role"))
            }
            _ => Ok(()),
        }
    }

    fn direct_with(&self, who: Principal, other: UserId) -> Result<Destination, Refusal> {
        let tenant = self.directory.tenant(who.tenant).ok_or(Refusal::unknown_principal())?;
        let (Some(user), Some(peer)) = (tenant.user(who.user), tenant.user(other)) else {
            return Err(Refusal::unknown_user());
        };
        if other == who.user {
            return Err(Refusal::invalid("a direct conversation needs another user"));
        }
        if let Some(id) = tenant.direct.get(&pair(who.user, other)) {
            return Ok(Destination::Existing(*id));
        }
        if user.present.len() >= CONVERSATIONS_A_USER_MAX || peer.present.len() >= CONVERSATIONS_A_USER_MAX {
            return Err(Refusal::limit("one of the two users is in 10000 conversations: leave one first"));
        }
        if self.conversations.len() >= CONVERSATIONS_MAX {
            return Err(Refusal::limit("the broker holds as many conversations as it may: ask its operator"));
        }
        Ok(Destination::Direct(other))
    }

    /// Records the direct conversation with `other`, which is not there yet, and tells both.
    fn add_direct(&mut self, time: Timestamp, who: Principal, other: UserId, effects: &mut Effects) -> ConversationId {
        let conversation = self.conversations.next_id();
        let (low, high) = pair(who.user, other);
        let kind = ConversationKind::DIRECT;
        let Policies { post: post_policy, history, receipts } = Policies::of_kind(kind);
        let record = ConversationAdded {
            time,
            tenant: who.tenant,
            conversation,
            kind,
            post_policy,
            history,
            receipts,
            by: who.user,
            name: Default::default(),
            grants: [low, high].map(|user| Grant { user, role: Role::MEMBER }).into(),
        };
        self.commit(record, effects);
        let event = MembershipChanged { conversation, kind, change: Change::ADDED, role: Role::MEMBER, by: who.user };
        for user in [low, high] {
            self.tell(time, who.tenant, user, &event, effects);
        }
        conversation
    }

    /// Records an event in the user's personal conversation.
    pub(crate) fn tell(
        &mut self,
        time: Timestamp,
        tenant: TenantId,
        user: UserId,
        event: &MembershipChanged,
        effects: &mut Effects,
    ) {
        let personal = self.directory.user(tenant, user).expect("only known users are told").personal;
        let meta = MessageMeta { tenant, producer: ProducerId(0), number: 0, low: 0, fingerprint: 0 };
        self.post(time, meta, personal, AUTHOR_BROKER, (MessageKind::SYSTEM, event.to_bytes()), effects);
    }

    /// Records a message that was admitted.
    fn post(
        &mut self,
        time: Timestamp,
        meta: MessageMeta,
        conversation: ConversationId,
        author: UserId,
        (kind, payload): (MessageKind, bytes::Bytes),
        effects: &mut Effects,
    ) -> Outcome {
        let position = self.head.next();
        let seq = self.conversations.get(conversation).expect("admitted into a known one").last_seq.next();
        let (number, fingerprint) = (meta.number, meta.fingerprint);
        let deliver = Deliver { position, conversation, seq, author, time, kind, payload };
        self.commit(crate::record::Record::Message(Message { meta, deliver }), effects);
        Outcome { number, fingerprint, conversation, seq, position, time }
    }
}

/// Payload and kind of a message or DING.
pub(crate) fn check_content(kind: MessageKind, payload_bytes: usize) -> Result<(), Refusal> {
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(Refusal::too_large("the payload is over 64 KiB: store it elsewhere and send a reference"));
    }
    if !kind.is_known() || kind == MessageKind::SYSTEM {
        return Err(Refusal::invalid("the kind must be one that clients may send: text, voice, picture and so on"));
    }
    Ok(())
}

fn published(outcome: Outcome, repeated: u8) -> Published {
    let Outcome { number, conversation, seq, position, time, .. } = outcome;
    Published { number, conversation, seq, position, time, repeated }
}
