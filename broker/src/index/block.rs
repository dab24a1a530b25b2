//! A block: up to 128 consecutive messages of one conversation, delta-coded. The same bytes in memory and on disk.
//!
//! Blocks are aligned: the one that begins with seq 1 holds the seqs up to 128, and so on. A block may begin later than
//! that, when what comes before it lies elsewhere or is gone, and it may end earlier.
//!
//! On disk a block's key is conversation u64 and aligned seq u64, both big-endian, so that the blocks of a conversation lie
//! side by side. Its value:
//!
//! ```text
//! offset  bytes  field
//!      0      4  CRC32C of key and the rest of the value, little-endian
//!      4      1  count of messages, 1 to 128
//!      5      1  seq of the first message, less the key's
//!      6      8  a position before the first message and not before the previous one, little-endian
//!     14    2..  for each message: its position less the one before it, its author; both LEB128
//! ```

use carillon_protocol::ids::{ConversationId, Position, Seq, UserId};
use smallvec::SmallVec;
use thiserror::Error;

use super::Place;

/// Messages a block: one of a busy conversation is about 700 bytes and decoded in less than a microsecond, and what a
/// partial one costs to write anew is small.
pub(super) const BLOCK_MESSAGES: u64 = 128;

/// Bytes before the messages.
const HEADER_BYTES: usize = 14;

/// Bytes of messages that take no more than the pointer to others would.
const BYTES_INSIDE: usize = 16;

/// Why bytes are not the block that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum BlockFault {
    /// There is no such block.
    #[error("it is missing")]
    Missing,
    /// The value is too short.
    #[error("it is cut short")]
    Short,
    /// The checksum is another one.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right, the content impossible.
    #[error("its content is impossible")]
    Content,
    /// It does not go on where the block before it ends, or ends too early.
    #[error("it does not meet its neighbour")]
    Discontinuous,
}

/// The first seq of the aligned block that holds a seq.
pub(super) fn aligned(seq: Seq) -> Seq {
    Seq(seq.0.saturating_sub(1) / BLOCK_MESSAGES * BLOCK_MESSAGES + 1)
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    first: Seq,
    before: Position,
    count: u32,
    /// The one or two messages that most conversations have lie inside.
    bytes: SmallVec<[u8; BYTES_INSIDE]>,
}

impl Block {
    /// An empty block that begins with `first`; all positions up to `before` are the messages' before it.
    pub(super) fn new(first: Seq, before: Position) -> Self {
        Self { first, before, count: 0, bytes: SmallVec::new() }
    }

    /// The first seq.
    pub(super) fn first(&self) -> Seq {
        self.first
    }

    /// Before the first message, and not before the previous one.
    pub(super) fn before(&self) -> Position {
        self.before
    }

    /// The seq after the last.
    pub(super) fn next_seq(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count))
    }

    /// Whether the next message belongs into the next block.
    pub(super) fn is_full(&self) -> bool {
        self.count > 0 && aligned(self.next_seq()) == self.next_seq()
    }

    /// Bytes of memory held beyond the block itself.
    pub(super) fn held(&self) -> usize {
        if self.bytes.spilled() { self.bytes.capacity() } else { 0 }
    }

    /// Gives back memory that was kept for more.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Adds the next message; `last` is the position of the one before it, or `before`.
    ///
    /// # Panics
    /// If the position is not beyond that.
    pub(super) fn push(&mut self, last: Position, position: Position, author: UserId) {
        assert!(last < position, "positions ascend");
        put_varint(&mut self.bytes, position.0 - last.0);
        put_varint(&mut self.bytes, u64::from(author.0));
        self.count += 1;
    }

    /// The messages, ascending.
    pub(super) fn places(&self) -> Places<'_> {
        Places { seq: self.first, last: self.before, left: self.count, rest: &self.bytes }
    }

    /// Where the last message lies; `before` if there is none.
    pub(super) fn last_position(&self) -> Position {
        self.places().last().map_or(self.before, |place| place.position)
    }

    /// Forgets the messages up to a seq.
    pub(super) fn drop_through(&mut self, seq: Seq) {
        let mut places = self.places();
        while places.left > 0 && places.seq <= seq {
            places.next();
        }
        let (first, before, count, gone) = (places.seq, places.last, places.left, self.bytes.len() - places.rest.len());
        (self.first, self.before, self.count) = (first, before, count);
        if gone > 0 {
            self.bytes.drain(..gone);
            self.bytes.shrink_to_fit();
        }
    }

    /// This block, continued with another one's messages from where it ends; those it has already are skipped.
    pub(super) fn joined(mut self, next: &Self) -> Self {
        let mut last = self.last_position();
        let from = self.next_seq();
        for place in next.places().skip_while(|place| place.seq < from) {
            self.push(last, place.position, place.author);
            last = place.position;
        }
        self
    }

    /// The value on disk.
    pub(super) fn encode(&self, conversation: ConversationId) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER_BYTES + self.bytes.len());
        value.extend_from_slice(&[0; 4]);
        value.push(u8::try_from(self.count).expect("a block has at most 128 messages"));
        let offset = self.first.0 - aligned(self.first).0;
        value.push(u8::try_from(offset).expect("a block begins within its 128 seqs"));
        value.extend_from_slice(&self.before.0.to_le_bytes());
        value.extend_from_slice(&self.bytes);
        let crc = checksum(&key(conversation, self.first), &value[4..]);
        value[..4].copy_from_slice(&crc.to_le_bytes());
        value
    }

    /// The block of `conversation` that holds `seq`, from its value.
    ///
    /// # Errors
    /// [`BlockFault`]: nothing in the bytes is trusted.
    pub(super) fn decode(conversation: ConversationId, seq: Seq, value: &[u8]) -> Result<Self, BlockFault> {
        let Some((header, bytes)) = value.split_first_chunk::<HEADER_BYTES>() else { return Err(BlockFault::Short) };
        let [c0, c1, c2, c3, count, offset, before @ ..] = *header;
        if checksum(&key(conversation, seq), &value[4..]) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(BlockFault::Checksum);
        }
        // No seq comes near the end of what can be counted, but a key may say so.
        let first = aligned(seq).0.checked_add(u64::from(offset)).ok_or(BlockFault::Content)?;
        first.checked_add(u64::from(count)).ok_or(BlockFault::Content)?;
        let block = Self {
            first: Seq(first),
            before: Position(u64::from_le_bytes(before)),
            count: u32::from(count),
            bytes: bytes.into(),
        };
        let mut places = block.places();
        let whole = places.by_ref().count() == usize::from(count) && places.rest.is_empty();
        let fits = count > 0 && u64::from(offset) + u64::from(count) <= BLOCK_MESSAGES;
        if whole && fits { Ok(block) } else { Err(BlockFault::Content) }
    }
}

/// The key on disk of the block that holds a seq.
pub(super) fn key(conversation: ConversationId, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&conversation.0.to_be_bytes());
    key[8..].copy_from_slice(&aligned(seq).0.to_be_bytes());
    key
}

/// CRC32C of a key and a value.
pub(super) fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// The messages of a block. Ends early where the bytes are not such messages.
pub(super) struct Places<'a> {
    seq: Seq,
    last: Position,
    left: u32,
    rest: &'a [u8],
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        if self.left == 0 {
            return None;
        }
        let mut rest = self.rest;
        let delta = take_varint(&mut rest).filter(|delta| *delta > 0)?;
        let author = UserId(u32::try_from(take_varint(&mut rest)?).ok()?);
        let position = Position(self.last.0.checked_add(delta)?);
        let place = Place { seq: self.seq, position, author };
        (self.rest, self.last, self.seq, self.left) = (rest, position, self.seq.next(), self.left - 1);
        Some(place)
    }
}

fn put_varint(out: &mut SmallVec<[u8; BYTES_INSIDE]>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let low = u64::from(byte & 0x7f);
        if low << shift >> shift != low {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONVERSATION: ConversationId = ConversationId(9);

    fn block(first: u64, before: u64, steps: &[(u64, u32)]) -> (Block, Vec<Place>) {
        let mut block = Block::new(Seq(first), Position(before));
        let (mut position, mut places) = (Position(before), Vec::new());
        for (seq, (delta, author)) in (first..).zip(steps) {
            let next = Position(position.0 + delta);
            block.push(position, next, UserId(*author));
            position = next;
            places.push(Place { seq: Seq(seq), position, author: UserId(*author) });
        }
        (block, places)
    }

    fn steps() -> impl Strategy<Value = Vec<(u64, u32)>> {
        let delta = prop_oneof![1..200u64, 1..u64::MAX >> 9];
        prop::collection::vec((delta, prop_oneof![0..200u32, any::<u32>()]), 1..128)
    }

    proptest! {
        #[test]
        fn a_block_comes_back_as_it_was(steps in steps(), later in 0..1000u64, before in 0..1000u64) {
            let room = 128 - u64::try_from(steps.len()).unwrap();
            let (block, places) = block(later * 128 + 1 + later % (room + 1), before, &steps);
            prop_assert_eq!(block.places().collect::<Vec<_>>(), &places[..]);
            let value = block.encode(CONVERSATION);
            prop_assert_eq!(Block::decode(CONVERSATION, block.first(), &value), Ok(block.clone()));
            prop_assert!(Block::decode(ConversationId(8), block.first(), &value).is_err());
            prop_assert!(Block::decode(CONVERSATION, Seq(block.first().0 + 128), &value).is_err());
            for end in 0..value.len() {
                prop_assert!(Block::decode(CONVERSATION, block.first(), &value[..end]).is_err());
            }
        }

        #[test]
        fn a_flipped_bit_is_seen(steps in steps(), at in any::<prop::sample::Index>(), bit in 0..8u32) {
            let (block, _) = block(1, 0, &steps);
            let mut value = block.encode(CONVERSATION);
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            prop_assert_eq!(Block::decode(CONVERSATION, Seq(1), &value), Err(BlockFault::Checksum));
        }

        #[test]
        fn arbitrary_bytes_with_a_right_checksum_do_no_harm(mut value in prop::collection::vec(any::<u8>(), 4..200)) {
            let crc = checksum(&key(CONVERSATION, Seq(1)), &value[4..]);
            value[..4].copy_from_slice(&crc.to_le_bytes());
            if let Ok(block) = Block::decode(CONVERSATION, Seq(1), &value) {
                prop_assert!(block.places().is_sorted_by(|one, next| one.position < next.position));
                prop_assert_eq!(block.encode(CONVERSATION), value);
            }
        }

        #[test]
        fn a_front_is_forgotten_and_joined_again(steps in steps(), cut in any::<prop::sample::Index>()) {
            let (whole, places) = block(1, 5, &steps);
            let cut = cut.index(places.len() + 1);
            let mut back = whole.clone();
            back.drop_through(Seq(cut as u64));
            prop_assert_eq!(back.places().collect::<Vec<_>>(), &places[cut..]);
            let (front, _) = block(1, 5, &steps[..cut]);
            prop_assert_eq!(front.joined(&back), whole.clone());
            prop_assert_eq!(whole.clone().joined(&back), whole);
        }
    }

    #[test]
    fn a_block_beyond_the_last_seq_is_refused() {
        let last = Seq(u64::MAX);
        for (count, offset) in [(1, 127), (1, 126), (2, 126)] {
            let mut value = vec![0, 0, 0, 0, count, offset, 0, 0, 0, 0, 0, 0, 0, 0];
            value.extend([1, 0].repeat(count.into()));
            let crc = checksum(&key(CONVERSATION, last), &value[4..]);
            value[..4].copy_from_slice(&crc.to_le_bytes());
            let fault = Block::decode(CONVERSATION, last, &value).unwrap_err();
            assert_eq!(fault, BlockFault::Content, "{count} from {offset}");
        }
    }

    #[test]
    fn blocks_are_aligned() {
        assert_eq!([1, 2, 128, 129, 256, 257].map(|seq| aligned(Seq(seq)).0), [1, 1, 1, 129, 129, 257]);
        let (mut block, _) = block(127, 0, &[(1, 1)]);
        assert!(!block.is_full());
        block.push(Position(1), Position(2), UserId(1));
        assert!(block.is_full());
    }

    #[test]
    fn varints_that_overflow_are_refused() {
        for bytes in [&[0xff; 9][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &[]] {
            assert_eq!(take_varint(&mut &*bytes), None);
        }
        let mut out = SmallVec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(take_varint(&mut &*out), Some(u64::MAX));
    }
}
