//! Marks: when each user read how far. Recent ones in memory, older ones in the store.
//!
//! A user's marks in a conversation ascend in seq, in position and in time, over all its stints. So the first one at or beyond
//! a message is the one that passed it, and it lies behind the message in the journal: what retention has left of the
//! messages can be told with what it has left of the marks.
//!
//! In memory they lie in stripes with a lock each, by key; a lock is held for one lookup, or for a pass over one stripe by
//! the writer: a 1,024th of all marks, 4,000 when a default budget holds nothing else, a tenth of a millisecond.
//!
//! On disk a mark's key is conversation u64, user u32 and `up_to` u64, all big-endian, so that the marks of a user lie side
//! by side. Its value:
//!
//! ```text
//! offset  bytes  field, little-endian
//!      0      4  CRC32C of key and the rest of the value
//!      4      8  `up_to` of the user's mark before it, 0 if the store had none: a lost one is seen
//!     12      8  when it was made
//!     20      8  its position
//! ```

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use carillon_core::record::ReadMarked;
use carillon_protocol::ids::{ConversationId, Position, Seq, Timestamp, UserId};
use rustc_hash::FxBuildHasher;

use super::block::checksum;
use super::doubt::Doubt;
use super::limits::MARK_BYTES;
use super::store::Store;
use super::{LookupError, MessageAt, View};

/// See the module; empty they take 40 KB.
const STRIPES: usize = 1_024;

const LOCK: &str = "no thread panics while it holds a stripe of marks";

/// Bytes of a value.
const VALUE_BYTES: usize = 28;

/// "I have read everything up to here", as the journal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    /// The conversation.
    pub conversation: ConversationId,
    /// Who has read.
    pub user: UserId,
    /// Up to here.
    pub up_to: Seq,
    /// When.
    pub time: Timestamp,
    /// Its record in the journal.
    pub position: Position,
}

impl ReadMark {
    /// The mark in the record at a position.
    pub fn of(position: Position, record: &ReadMarked) -> Self {
        let ReadMarked { time, conversation, user, up_to } = *record;
        Self { conversation, user, up_to, time, position }
    }

    pub(super) fn key(&self) -> [u8; 20] {
        key(self.conversation, self.user, self.up_to)
    }

    /// The value on disk; `before` is the mark before it.
    pub(super) fn encode(&self, before: Seq) -> [u8; VALUE_BYTES] {
        let mut value = [0; VALUE_BYTES];
        value[4..12].copy_from_slice(&before.0.to_le_bytes());
        value[12..20].copy_from_slice(&self.time.0.to_le_bytes());
        value[20..].copy_from_slice(&self.position.0.to_le_bytes());
        let crc = checksum(&self.key(), &value[4..]);
        value[..4].copy_from_slice(&crc.to_le_bytes());
        value
    }

    /// A mark as it lies on disk, with the one before it.
    ///
    /// # Errors
    /// [`Doubt::ReadMark`]: it is not what was written there.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(Self, Seq), Doubt> {
        let (Ok(key), Ok(value)) = (<[u8; 20]>::try_from(key), <[u8; VALUE_BYTES]>::try_from(value)) else {
            return Err(Doubt::ReadMark(ConversationId(0)));
        };
        let conversation = ConversationId(u64::from_be_bytes(part(&key, 0)));
        if checksum(&key, &value[4..]) != u32::from_le_bytes(part(&value, 0)) {
            return Err(Doubt::ReadMark(conversation));
        }
        let number = |at| u64::from_le_bytes(part(&value, at));
        let mark = Self {
            conversation,
            user: UserId(u32::from_be_bytes(part(&key, 8))),
            up_to: Seq(u64::from_be_bytes(part(&key, 12))),
            time: Timestamp(number(12)),
            position: Position(number(20)),
        };
        Ok((mark, Seq(number(4))))
    }
}

/// The bytes from a place on, of which the caller knows that they are there.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes")
}

/// The key on disk of a user's mark.
pub(super) fn key(conversation: ConversationId, user: UserId, up_to: Seq) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&conversation.0.to_be_bytes());
    key[8..12].copy_from_slice(&user.0.to_be_bytes());
    key[12..].copy_from_slice(&up_to.0.to_be_bytes());
    key
}

/// When, and where in the journal.
type Made = (Timestamp, Position);
type Stripe = RwLock<BTreeMap<(ConversationId, UserId, Seq), Made>>;

/// The marks in memory: all those beyond `kept_after` that were appended.
#[derive(Debug)]
pub(super) struct Marks {
    stripes: Box<[Stripe]>,
    count: AtomicUsize,
    kept_after: AtomicU64,
}

impl Marks {
    pub(super) fn new() -> Self {
        let stripes = (0..STRIPES).map(|_| Stripe::default()).collect();
        Self { stripes, count: AtomicUsize::new(0), kept_after: AtomicU64::new(0) }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.count.load(Ordering::Relaxed) * MARK_BYTES
    }

    /// Every mark beyond this position is in memory.
    pub(super) fn kept_after(&self) -> Position {
        Position(self.kept_after.load(Ordering::Acquire))
    }

    /// Forgets everything; marks from beyond a position follow.
    pub(super) fn begin(&self, after: Position) {
        for stripe in &self.stripes {
            stripe.write().expect(LOCK).clear();
        }
        self.count.store(0, Ordering::Relaxed);
        self.kept_after.store(after.0, Ordering::Release);
    }

    /// Adds a mark; one that is there already is there once.
    pub(super) fn append(&self, mark: &ReadMark) {
        let mut stripe = self.stripe(mark.conversation, mark.user).write().expect(LOCK);
        if stripe.insert((mark.conversation, mark.user, mark.up_to), (mark.time, mark.position)).is_none() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The user's first mark in memory at or beyond a seq: O(log n).
    fn first_from(&self, conversation: ConversationId, user: UserId, seq: Seq) -> Option<(Seq, Made)> {
        let stripe = self.stripe(conversation, user).read().expect(LOCK);
        let mut from = stripe.range((conversation, user, seq)..=(conversation, user, Seq(u64::MAX)));
        from.next().map(|((_, _, up_to), made)| (*up_to, *made))
    }

    /// Writes out the marks in `(after, through]`.
    pub(super) fn write_out(&self, store: &Store, after: Position, through: Position) -> Result<(), Doubt> {
        for stripe in &self.stripes {
            // Copied, so that the lock is let go of before anything waits for the disk.
            let marks = Self::between(stripe, after, through);
            marks.iter().try_for_each(|mark| store.put_mark(mark))?;
        }
        Ok(())
    }

    fn between(stripe: &Stripe, after: Position, through: Position) -> Vec<ReadMark> {
        let marks = stripe.read().expect(LOCK);
        let wanted = marks.iter().filter(|(_, (_, position))| after < *position && *position <= through);
        wanted
            .map(|(&(conversation, user, up_to), &(time, position))| ReadMark {
                conversation,
                user,
                up_to,
                time,
                position,
            })
            .collect()
    }

    /// Forgets the marks up to a position: they are on disk, or retention has taken them.
    pub(super) fn drop_through(&self, position: Position) {
        // First, so that who misses one of them knows why.
        self.kept_after.fetch_max(position.0, Ordering::AcqRel);
        for stripe in &self.stripes {
            let mut marks = stripe.write().expect(LOCK);
            let before = marks.len();
            marks.retain(|_, (_, at)| *at > position);
            self.count.fetch_sub(before - marks.len(), Ordering::Relaxed);
        }
    }

    fn stripe(&self, conversation: ConversationId, user: UserId) -> &Stripe {
        let hash = FxBuildHasher.hash_one((conversation, user));
        // The upper bits are the better ones.
        &self.stripes[usize::try_from(hash >> 32).unwrap_or(0) % STRIPES]
    }
}

/// When each of these users read a message. In memory a lock and a descent of O(log n) a user; on disk a lookup in
/// sled each.
///
/// # Errors
/// As [`Lookup::read_times`](super::Lookup::read_times).
pub(super) fn read_times(
    view: &View<'_>,
    message: &MessageAt,
    users: &[UserId],
) -> Result<Vec<Timestamp>, LookupError> {
    let MessageAt { conversation, seq, position } = *message;
    let (index, marks) = (view.index, &view.index.marks);
    let mut found: Vec<_> = users.iter().map(|user| marks.first_from(conversation, *user, seq)).collect();
    // A mark that passed the message lies behind it. What memory let go of meanwhile is on disk.
    let is_taken = || index.truncated_through() >= position;
    if marks.kept_after() > position && !is_taken() {
        let store = view.store()?;
        for (user, found) in users.iter().zip(&mut found) {
            let (older, before) = match store.first_mark_from(conversation, *user, seq) {
                Ok(Some(older)) => older,
                Ok(None) => continue,
                Err(doubt) => return Err(index.rebuilding_for(&store, &doubt)),
            };
            if found.is_none_or(|(up_to, _)| older.up_to <= up_to) {
                *found = Some((older.up_to, (older.time, older.position)));
                // Behind the message and not taken by retention, the one before must be there.
                if before >= seq && !is_taken() {
                    return Err(index.rebuilding_for(&store, &Doubt::ReadMark(conversation)));
                }
            }
        }
    }
    let (taken, lost) = (is_taken(), index.lost.load());
    // An earlier mark may lie where nothing can be read: then nobody knows when. Nor is it known where a lost message lay.
    let is_first = |at: Position| !taken && !lost.contains(position) && !lost.meets(position.next()..=at);
    let times = found.into_iter().map(|found| found.filter(|(_, (_, at))| is_first(*at)));
    Ok(times.map(|found| found.map_or(Timestamp(0), |(_, (time, _))| time)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_from_its_bytes_and_from_no_others() {
        let mark = ReadMark {
            conversation: ConversationId(1 << 48 | 7),
            user: UserId(70_000),
            up_to: Seq(501),
            time: Timestamp(1_790_000_000_000),
            position: Position(44_444),
        };
        let (key, value) = (mark.key(), mark.encode(Seq(499)));
        assert_eq!(ReadMark::decode(&key, &value).unwrap(), (mark, Seq(499)));
        let flipped = |bytes: &[u8], at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 4;
            bytes
        };
        for at in 0..key.len() {
            assert!(ReadMark::decode(&flipped(&key, at), &value).is_err());
            assert!(ReadMark::decode(&key[..at], &value).is_err());
        }
        for at in 0..value.len() {
            assert!(ReadMark::decode(&key, &flipped(&value, at)).is_err());
            assert!(ReadMark::decode(&key, &value[..at]).is_err());
        }
    }

    #[test]
    fn keys_lie_by_conversation_then_user_then_seq() {
        let keys = [(1, 1, 1), (1, 1, 256), (1, 2, 0), (1, 256, 0), (2, 0, 0), (256, 0, 0)];
        assert!(keys.map(|(c, u, s)| key(ConversationId(c), UserId(u), Seq(s))).is_sorted());
    }
}
