//! Bytes → state: each value within its range, each list in its order. What lies across them is checked in `link`, part by part, so that bytes
//! which make no sense do not take more memory first than they have.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use carillon_protocol::ids::{
    ConversationId, DeviceId, DingId, Position, ProducerId, Seq, ShardId, TenantId, Timestamp, UserId,
};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, PostPolicy, ReceiptPolicy, Role};
use carillon_protocol::limits::PRODUCER_WINDOW;

use super::{StateError, VERSION, ding, link};
use crate::conversation::{Conversation, Policies};
use crate::delivery::{Device, Window};
use crate::directory::Tenant;
use crate::effect::{Forgotten, Moment};
use crate::limits::{OWN_SPANS_MAX, STINTS_MAX, WINDOWS_A_DEVICE_MAX};
use crate::members::Members;
use crate::membership::{Membership, Stint};
use crate::own::{OwnMessages, Span};
use crate::producer::{Outcome, Producer};
use crate::shard::Shard;
use crate::user::{Clients, ForgottenStints, User};

pub(super) type Decoded<T> = Result<T, StateError>;

/// Positions, seqs and ordinals stay below this, so that counting on never reaches what 48 bits hold. A shard comes here after a million
/// records a second for four years; its state is not read back from then on.
const COUNT_MAX: u64 = 1 << 47;

/// What the personal conversation that each user has takes at least: it has no name, and one member with one stint.
const PERSONAL_BYTES_MIN: usize = (4 + 4 + 4 + 3 * 8 + 4) + (4 + 1 + 4 + (16 + 8 + 1 + 8) + 8 + 4);

pub(super) fn shard(id: ShardId, bytes: &[u8]) -> Decoded<Shard> {
    let mut input = Input { bytes, part: "header" };
    let version = input.u8()?;
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    let found = ShardId(input.u16()?);
    if found != id {
        return Err(StateError::OtherShard(found));
    }
    let mut shard = Shard::new(id);
    shard.head = Position(input.count()?);
    shard.last_time = Timestamp(input.u64()?);
    input.part = "tenants";
    let mut users = 0;
    for _ in 0..input.u32()? {
        let tenant = tenant(&mut input, &mut users)?;
        link::tenant(&mut shard, tenant)?;
    }
    input.part = "conversations";
    let mut conversations = link::Conversations::default();
    for _ in 0..input.u32()? {
        let conversation = conversation(&mut input)?;
        conversations.link(&mut shard, conversation)?;
    }
    conversations.end(&mut shard)?;
    input.part = "DINGs";
    shard.dings.given_out = input.count()?;
    check(shard.dings.given_out <= shard.head.0, "more DINGs than records")?;
    let mut last = None;
    for _ in 0..input.u32()? {
        let (id, ding) = (DingId(input.u64()?), ding::take(&mut input)?);
        check(last.replace(id) < Some(id), "DINGs are out of order")?;
        link::ding(&mut shard, id, ding)?;
    }
    if !input.bytes.is_empty() {
        return Err(StateError::Trailing(input.bytes.len()));
    }
    Ok(shard)
}

/// What is left of the bytes.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    /// What is being read, for errors.
    part: &'static str,
}

impl Input<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (array, rest) = self.bytes.split_first_chunk::<N>().ok_or(StateError::Short(self.part))?;
        self.bytes = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Decoded<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Decoded<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Decoded<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Decoded<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number that is counted on from.
    pub(super) fn count(&mut self) -> Decoded<u64> {
        let value = self.u64()?;
        check(value < COUNT_MAX, "a number is beyond what can be counted to")?;
        Ok(value)
    }

    pub(super) fn byte_string(&mut self) -> Decoded<&[u8]> {
        let length = self.u32()? as usize;
        let (found, rest) = self.bytes.split_at_checked(length).ok_or(StateError::Short(self.part))?;
        self.bytes = rest;
        Ok(found)
    }

    pub(super) fn text(&mut self) -> Decoded<Arc<str>> {
        let text = core::str::from_utf8(self.byte_string()?);
        text.map(Arc::from).map_err(|_| StateError::Damaged("a text is not UTF-8"))
    }

    /// Reserves nothing ahead: a count is not to be trusted, and each entry takes bytes.
    pub(super) fn list<T>(&mut self, mut entry: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.u32()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(entry(self)?);
        }
        entries.shrink_to_fit();
        Ok(entries)
    }

    pub(super) fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> Decoded<T>) -> Decoded<Option<T>> {
        match self.u8()? {
            0 => Ok(None),
            1 => value(self).map(Some),
            _ => Err(StateError::Damaged("an optional field is neither there nor absent")),
        }
    }
}

pub(super) fn check(holds: bool, what: &'static str) -> Decoded<()> {
    if holds { Ok(()) } else { Err(StateError::Damaged(what)) }
}

/// Adds how many users it has to those so far. Users take more in memory than here, and their conversations, by which they are judged, come
/// after all of them: there must be as much left as those take.
fn tenant(input: &mut Input<'_>, users: &mut usize) -> Decoded<Tenant> {
    let mut tenant = Tenant::new(input.text()?);
    for _ in 0..input.u32()? {
        tenant.users.push(user(input)?);
        *users += 1;
        if *users > input.bytes.len() / PERSONAL_BYTES_MIN {
            return Err(StateError::Short("conversations"));
        }
    }
    // It was added with its first one.
    check(tenant.users.len() > 0, "a tenant has no users")?;
    Ok(tenant)
}

fn user(input: &mut Input<'_>) -> Decoded<User> {
    let mut user = User::new(&input.text()?, ConversationId(input.u64()?));
    let devices = input.list(device)?;
    check(devices.is_sorted_by(|a, b| a.id < b.id), "devices are out of order")?;
    let producers = input.list(producer)?;
    check(producers.is_sorted_by(|a, b| a.id < b.id), "producers are out of order")?;
    if !devices.is_empty() || !producers.is_empty() {
        *user.clients_mut() = Clients { devices, producers };
    }
    if let Some(forgotten) = input.option(forgotten)? {
        user.rest_mut().forgotten = Some(forgotten);
    }
    Ok(user)
}

fn device(input: &mut Input<'_>) -> Decoded<Device> {
    let mut device = Device::new(DeviceId(input.u64()?));
    device.cursor = Position(input.count()?);
    device.windows = input.list(|input| {
        Ok(Window { from: Position(input.count()?), through: Position(input.count()?), newest: input.u32()? })
    })?;
    check(device.windows.len() <= WINDOWS_A_DEVICE_MAX, "a device has too many windows")?;
    let sound = |window: &Window| Position(1) <= window.from && window.from <= window.through;
    check(device.windows.iter().all(sound), "a window ends before it begins")?;
    Ok(device)
}

fn producer(input: &mut Input<'_>) -> Decoded<Producer> {
    let mut producer = Producer::new(ProducerId(input.u64()?));
    producer.low = input.u64()?;
    let outcomes = input.list(|input| {
        Ok(Outcome {
            number: input.u64()?,
            fingerprint: input.u64()?,
            conversation: ConversationId(input.u64()?),
            seq: Seq(input.u64()?),
            position: Position(input.u64()?),
            time: Timestamp(input.u64()?),
        })
    })?;
    check(outcomes.is_sorted_by(|a, b| a.number < b.number), "outcomes are out of order")?;
    match (outcomes.first(), outcomes.last()) {
        (Some(first), Some(last)) => {
            let within = (1..=first.number).contains(&producer.low) && last.number - producer.low < PRODUCER_WINDOW;
            check(within, "outcomes are outside their producer's window")?;
        }
        _ => check(producer.low == 0, "a producer without outcomes has a low")?,
    }
    producer.outcomes = outcomes.into();
    Ok(producer)
}

fn conversation(input: &mut Input<'_>) -> Decoded<Conversation> {
    let tenant = TenantId(input.u32()?);
    let kind = ConversationKind(input.u8()?);
    let (post, history) = (PostPolicy(input.u8()?), HistoryPolicy(input.u8()?));
    let receipts = ReceiptPolicy(input.u8()?);
    let known = kind.is_known() && post.is_known() && history.is_known() && receipts.is_known();
    check(known, "a conversation's kind or one of its policies is unknown")?;
    let name = Some(input.text()?).filter(|name| !name.is_empty());
    let (last_seq, last_position) = (Seq(input.count()?), Position(input.count()?));
    let newest_mark = Position(input.count()?);
    let entries = input.list(|input| Ok((UserId(input.u32()?), member(input, last_seq)?)))?;
    check(entries.is_sorted_by(|(a, _), (b, _)| a < b), "members are out of order")?;
    let mut members = Members::default();
    for (user, member) in entries {
        members.insert(user, member);
    }
    let mut conversation = Conversation::new(tenant, kind, Policies { post, history, receipts }, name, members);
    (conversation.last_seq, conversation.last_position) = (last_seq, last_position);
    conversation.newest_mark = newest_mark;
    Ok(conversation)
}

fn member(input: &mut Input<'_>, last_seq: Seq) -> Decoded<Membership> {
    let role = Role(input.u8()?);
    check(role.is_known(), "a member's role is unknown")?;
    let stints = input.list(stint)?;
    check((1..=STINTS_MAX).contains(&stints.len()), "a member has no stint or too many")?;
    let follows = |a: &Stint, b: &Stint| {
        a.left().is_some_and(|left| left.seq <= b.joined.seq && left.position < b.joined.position)
    };
    check(stints.is_sorted_by(follows), "stints overlap")?;
    let within = |stint: &Stint| {
        let end = stint.left().map_or(last_seq, |left| left.seq);
        stint.joined.seq <= stint.read_up_to && stint.read_up_to <= end && end <= last_seq
    };
    check(stints.iter().all(within), "a watermark is outside its stint")?;
    let mut member = Membership::with_stints(role, stints).expect("it has one or more");
    let newest_own = Seq(input.count()?);
    check(newest_own <= last_seq, "a member's newest message is beyond the conversation's last")?;
    member.latest.newest_own = newest_own;
    let spans = input.list(own_span)?;
    check_own(&spans, &member, last_seq)?;
    member.rest.own = OwnMessages::from_spans(&spans);
    Ok(member)
}

fn own_span(input: &mut Input<'_>) -> Decoded<Span> {
    Ok(Span { first: Seq(input.count()?), last: Seq(input.count()?), own: input.count()? })
}

/// What a member wrote and has not marked as read lies in its open stint, beyond the watermark.
fn check_own(spans: &[Span], member: &Membership, last_seq: Seq) -> Decoded<()> {
    let (Some(oldest), Some(newest)) = (spans.first(), spans.last()) else { return Ok(()) };
    let stint = member.present().ok_or(StateError::Damaged("who is no member has own messages"))?;
    check(spans.len() <= OWN_SPANS_MAX, "a member has too many spans of own messages")?;
    let sound = |span: &Span| span.first <= span.last && (1..=span.len()).contains(&span.own);
    check(spans.iter().all(sound), "a span has no own messages or too many")?;
    check(spans.is_sorted_by(|a, b| a.last.next() < b.first), "spans of own messages touch")?;
    let within = stint.joined.seq < oldest.first && stint.read_up_to < oldest.last && newest.last <= last_seq;
    check(within, "own messages are outside their stint or before its watermark")?;
    check(newest.last == member.latest.newest_own, "a member's newest message is not the newest of its own messages")
}

fn stint(input: &mut Input<'_>) -> Decoded<Stint> {
    let joined = moment(input)?;
    let read_up_to = Seq(input.u64()?);
    let left = input.option(moment)?;
    check(left.is_none_or(|left| left.position > joined.position), "a stint ends before it begins")?;
    let marked_at = Position(input.count()?);
    let mut stint = Stint::begin(joined.seq, joined.position);
    (stint.read_up_to, stint.marked_at) = (read_up_to, marked_at);
    if let Some(left) = left {
        stint.end(left);
    }
    // A mark moves the watermark, and nothing else does.
    check(
        (read_up_to > joined.seq) == (marked_at > Position(0)),
        "a watermark moved without a mark, or a mark moved none",
    )?;
    check(marked_at == Position(0) || stint.spans(marked_at), "a mark is outside its stint")?;
    Ok(stint)
}

fn moment(input: &mut Input<'_>) -> Decoded<Moment> {
    Ok(Moment { seq: Seq(input.u64()?), position: Position(input.u64()?) })
}

fn forgotten(input: &mut Input<'_>) -> Decoded<Box<ForgottenStints>> {
    let conversations_through = Position(input.u64()?);
    let stints = input.list(|input| {
        let (conversation, first) = (ConversationId(input.u64()?), Seq(input.u64()?));
        Ok(Forgotten { conversation, first, last: moment(input)? })
    })?;
    check(stints.is_sorted_by(|a, b| a.conversation < b.conversation), "forgotten stints are out of order")?;
    check(conversations_through.0 > 0 || !stints.is_empty(), "what is forgotten is nothing")?;
    Ok(Box::new(ForgottenStints { stints, conversations_through }))
}
