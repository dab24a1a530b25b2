//! The whole state as canonical bytes: what snapshots hold, and what tells whether two shards are equal.
//!
//! Integers are little-endian. A text or byte string is its length as a u32 and its bytes, a list its count as a u32 and its
//! entries, an optional field a byte 0, or 1 and the field. What can be derived (indexes by name, the conversations of a
//! user, timers) is left out.
//!
//! ```text
//! state         version u8 = 3, shard u16, head u64, last time u64, tenants, conversations, DINGs given out u64, DINGs
//! tenant        name, users (by id)
//! user          handle, personal conversation u64, devices (by id), producers (by id), optional forgotten
//! forgotten     conversations left through position u64, ranges (by conversation)
//! range         conversation u64, first seq u64, last: seq u64, position u64
//! device        id u64, cursor u64, windows (in the order they were noted)
//! window        from u64, through u64, newest u32
//! producer      id u64, low u64, outcomes (by number)
//! outcome       number u64, fingerprint u64, conversation u64, seq u64, position u64, time u64
//! conversation  tenant u32, kind u8, post policy u8, history policy u8, receipt policy u8, name (empty: none), last seq u64,
//!               last position u64, newest mark's position u64, members (by user)
//! member        user u32, role u8, stints (by time), newest own message u64 (0: none), own spans (by seq)
//! stint         joined seq u64, joined position u64, read up to u64, optional left: seq u64, position u64,
//!               position of the last mark u64 (0: none)
//! own span      first seq u64, last seq u64, own messages from the one to the other u64
//! DING          id u64, tenant u32, sender u32, key u64, fingerprint u64, time u64, starts at u64, expires at u64,
//!               kind u8, conversation u64, seq u64, push frame (empty once ended), quiet from u16, quiet to u16, steps, attempts,
//!               recipients (by user), optional ended: state u8, time u64
//! step          outlet u8, heeds quiet u8, times u16, after ms u32, repeat ms u32, not before u64
//! attempt       step u8, outlet u8, time u64
//! recipient     user u32, optional delivered at u64, optional confirmed: time u64, outlet u8, attempts before u16,
//!               failed u8, reaches (by attempt)
//! reach         attempt u16, state u8, cancel u8, detail u16, time u64
//! ```

use alloc::vec::Vec;
use carillon_protocol::ids::ShardId;
use thiserror::Error;

use crate::conversation::Conversation;
use crate::directory::Tenant;
use crate::effect::Moment;
use crate::membership::Member;
use crate::own::OwnMessages;
use crate::producer::Producer;
use crate::shard::Shard;
use crate::user::User;

mod decode;
mod ding;
mod link;

/// The version of the layout above; no other is read. Whoever changes the layout raises it.
const VERSION: u8 = 3;

/// Why bytes are not a state. Nothing was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// They end too early.
    #[error("the state is cut short in {0}")]
    Short(&'static str),
    /// They go on after the end.
    #[error("{0} bytes follow the state")]
    Trailing(usize),
    /// Another version wrote them.
    #[error("the state has version {0}, and this program reads {VERSION}: start the carillon that wrote it")]
    Version(u8),
    /// They are another shard's.
    #[error("the state is of shard {0}")]
    OtherShard(ShardId),
    /// A value is out of its range, out of order, or contradicts another.
    #[error("the state is damaged: {0}")]
    Damaged(&'static str),
}

impl Shard {
    /// Appends the canonical bytes of the whole state: equal for equal shards, and only for them.
    pub fn encode_state(&self, out: &mut Vec<u8>) {
        put_u8(out, VERSION);
        put_u16(out, self.id.0);
        put_u64(out, self.head.0);
        put_u64(out, self.last_time.0);
        put_list(out, self.directory.tenants.iter(), put_tenant);
        put_list(out, self.conversations.iter(), |out, (_, conversation)| put_conversation(out, conversation));
        put_u64(out, self.dings.given_out);
        put_list(out, self.dings.by_id.iter(), |out, (id, ding)| {
            put_u64(out, id.0);
            ding::put(out, ding);
        });
    }

    /// Builds a shard from what [`Shard::encode_state`] wrote.
    ///
    /// # Errors
    /// [`StateError`] for anything else: nothing in the bytes is trusted.
    pub fn decode_state(id: ShardId, bytes: &[u8]) -> Result<Self, StateError> {
        decode::shard(id, bytes)
    }
}

fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).expect("texts and frames are under 4 GiB"));
    out.extend_from_slice(bytes);
}

fn put_list<T>(out: &mut Vec<u8>, entries: impl Iterator<Item = T>, mut put: impl FnMut(&mut Vec<u8>, T)) {
    let at = out.len();
    put_u32(out, 0);
    let mut count = 0u32;
    for entry in entries {
        put(out, entry);
        count += 1;
    }
    out[at..at + 4].copy_from_slice(&count.to_le_bytes());
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    put_u8(out, u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_tenant(out: &mut Vec<u8>, tenant: &Tenant) {
    put_bytes(out, tenant.name.as_bytes());
    put_list(out, tenant.users.iter(), put_user);
}

fn put_user(out: &mut Vec<u8>, user: &User) {
    put_bytes(out, user.handle.as_bytes());
    put_u64(out, user.personal.0);
    put_list(out, user.devices().iter(), |out, device| {
        put_u64(out, device.id.0);
        put_u64(out, device.cursor.0);
        put_list(out, device.windows.iter(), |out, window| {
            put_u64(out, window.from.0);
            put_u64(out, window.through.0);
            put_u32(out, window.newest);
        });
    });
    put_list(out, user.producers().iter(), put_producer);
    put_option(out, user.forgotten(), |out, forgotten| {
        put_u64(out, forgotten.conversations_through.0);
        put_list(out, forgotten.stints.iter(), |out, range| {
            put_u64(out, range.conversation.0);
            put_u64(out, range.first.0);
            put_moment(out, range.last);
        });
    });
}

fn put_producer(out: &mut Vec<u8>, producer: &Producer) {
    put_u64(out, producer.id.0);
    put_u64(out, producer.low);
    put_list(out, producer.outcomes.iter(), |out, outcome| {
        put_u64(out, outcome.number);
        put_u64(out, outcome.fingerprint);
        put_u64(out, outcome.conversation.0);
        put_u64(out, outcome.seq.0);
        put_u64(out, outcome.position.0);
        put_u64(out, outcome.time.0);
    });
}

fn put_conversation(out: &mut Vec<u8>, conversation: &Conversation) {
    put_u32(out, conversation.tenant.0);
    put_u8(out, conversation.kind.0);
    put_u8(out, conversation.policies.post.0);
    put_u8(out, conversation.policies.history.0);
    put_u8(out, conversation.policies.receipts.0);
    put_bytes(out, conversation.name.as_deref().unwrap_or_default().as_bytes());
    put_u64(out, conversation.last_seq.0);
    put_u64(out, conversation.last_position.0);
    put_u64(out, conversation.newest_mark.0);
    put_list(out, conversation.members.iter(), |out, (user, member)| {
        put_u32(out, user.0);
        put_member(out, member);
    });
}

fn put_member(out: &mut Vec<u8>, member: Member<'_>) {
    put_u8(out, member.role().0);
    put_list(out, member.stints(), |out, stint| {
        put_moment(out, stint.joined);
        put_u64(out, stint.read_up_to.0);
        put_option(out, stint.left(), put_moment);
        put_u64(out, stint.marked_at.0);
    });
    put_u64(out, member.newest_own().0);
    put_list(out, member.own().map_or(&[][..], OwnMessages::spans).iter(), |out, span| {
        put_u64(out, span.first.0);
        put_u64(out, span.last.0);
        put_u64(out, span.own);
    });
}

fn put_moment(out: &mut Vec<u8>, moment: Moment) {
    put_u64(out, moment.seq.0);
    put_u64(out, moment.position.0);
}
