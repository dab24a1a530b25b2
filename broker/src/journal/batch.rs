//! Batches: what one commit writes. The layout is in [`format`](mod@super::format).

use core::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use carillon_protocol::ids::{Epoch, Position};

use super::format::{BATCH_HEADER_BYTES, BatchHeader, FormatError, Head, Identity, ROW_BYTES, Row, record_crc};
use super::limits::BATCH_BYTES_MAX;

/// A batch that is being built, in memory only. It becomes a [`Batch`] when the journal commits it.
#[derive(Debug)]
pub struct Draft {
    first: Position,
    rows: Vec<Row>,
    privates: BytesMut,
    frames: BytesMut,
}

impl Draft {
    /// An empty draft whose first record will have this position.
    ///
    /// It allocates with its first record and grows by doubling: its buffers become the batch, which live
    /// slices pin, so room that is never used would be pinned as well.
    pub fn new(first: Position) -> Self {
        Self { first, rows: Vec::new(), privates: BytesMut::new(), frames: BytesMut::new() }
    }

    /// Adds a record and returns its position. `encode` appends the private part to its first argument and the frame
    /// to its second; either may stay empty.
    ///
    /// # Panics
    ///
    /// If `encode` takes away bytes of earlier records, or the draft passes 4 GiB.
    pub fn push(&mut self, encode: impl FnOnce(&mut BytesMut, &mut BytesMut)) -> Position {
        let position = self.next_position();
        let (private_begin, frame_begin) = (self.privates.len(), self.frames.len());
        encode(&mut self.privates, &mut self.frames);
        assert!(
            self.privates.len() >= private_begin && self.frames.len() >= frame_begin,
            "encoding a record only appends"
        );
        self.rows.push(Row {
            private_end: u32::try_from(self.privates.len()).expect("a draft is far below 4 GiB"),
            frame_end: u32::try_from(self.frames.len()).expect("a draft is far below 4 GiB"),
            crc: record_crc(&self.privates[private_begin..], &self.frames[frame_begin..]),
        });
        position
    }

    /// Position of the first record.
    pub fn first(&self) -> Position {
        self.first
    }

    /// Records so far.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no record yet. An empty draft cannot be committed.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The position that the next record will have.
    pub fn next_position(&self) -> Position {
        Position(self.first.0 + self.rows.len() as u64)
    }

    /// Bytes that the batch would have on disk.
    pub fn bytes(&self) -> usize {
        BATCH_HEADER_BYTES + ROW_BYTES * self.rows.len() + self.privates.len() + self.frames.len()
    }

    /// Whether the draft has reached [`BATCH_BYTES_MAX`] and is closed for further input.
    pub fn is_full(&self) -> bool {
        self.bytes() >= BATCH_BYTES_MAX
    }

    /// Completes header and table. For a journal's `commit`, and for tests that need a batch without a journal.
    ///
    /// # Panics
    ///
    /// If the draft is empty or passes 4 GiB.
    pub fn seal(self, identity: Identity, epoch: Epoch) -> Batch {
        assert!(!self.is_empty(), "a batch has at least one record");
        let mut header = BatchHeader {
            bytes: u32::try_from(self.bytes()).expect("a draft is far below 4 GiB"),
            count: u32::try_from(self.rows.len()).expect("a draft is far below 4 GiB"),
            private_bytes: u32::try_from(self.privates.len()).expect("a draft is far below 4 GiB"),
            table_crc: 0,
            first: self.first,
            epoch,
            identity,
        };
        let mut table = BytesMut::with_capacity(header.head_bytes());
        table.put_bytes(0, BATCH_HEADER_BYTES);
        for row in &self.rows {
            table.put_u32_le(row.private_end);
            table.put_u32_le(row.frame_end);
            table.put_u32_le(row.crc);
        }
        table.put_slice(&self.privates);
        header.table_crc = crc32c::crc32c(&table[BATCH_HEADER_BYTES..]);
        let mut fields = BytesMut::with_capacity(BATCH_HEADER_BYTES);
        header.encode(&mut fields);
        table[..BATCH_HEADER_BYTES].copy_from_slice(&fields);
        Batch { head: Head { header, bytes: table.freeze() }, frames: self.frames.freeze() }
    }
}

/// A committed batch. Immutable; a clone shares the bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    head: Head,
    frames: Bytes,
}

/// A record of a batch. The bytes are slices of the batch, or of what a read fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The record's position.
    pub position: Position,
    /// What only the broker needs.
    pub private: Bytes,
    /// What goes to clients, as it goes to them; empty if nothing does.
    pub frame: Bytes,
}

impl Batch {
    /// Believes the bytes of exactly one batch of this journal, with every checksum.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn decode(bytes: &Bytes, identity: &Identity) -> Result<Self, FormatError> {
        let header = BatchHeader::decode(bytes, identity)?;
        if bytes.len() != header.bytes as usize {
            return Err(FormatError::Short);
        }
        let head = Head::decode(header, bytes.slice(..header.head_bytes()))?;
        let batch = Self { head, frames: bytes.slice(header.head_bytes()..) };
        for index in 0..batch.count() {
            batch.head.check(index, &batch.frames[batch.head.frame_range(index)])?;
        }
        Ok(batch)
    }

    /// Position of the first record.
    pub fn first(&self) -> Position {
        self.head.header.first
    }

    /// Position of the last record.
    pub fn last(&self) -> Position {
        self.head.header.last()
    }

    /// Records in the batch, at least 1.
    pub fn count(&self) -> usize {
        self.head.count()
    }

    /// The owner that wrote the batch.
    pub fn epoch(&self) -> Epoch {
        self.head.header.epoch
    }

    /// Bytes that the batch has on disk.
    pub fn bytes(&self) -> usize {
        self.head.header.bytes as usize
    }

    /// The header as it would be in another history; nothing else of a batch depends on it.
    pub(crate) fn header_as(&self, identity: Identity) -> BatchHeader {
        BatchHeader { identity, ..self.head.header }
    }

    /// The two runs of bytes that are the batch on disk: header with table, and frames.
    pub fn parts(&self) -> [&[u8]; 2] {
        [&self.head.bytes, &self.frames]
    }

    /// The records in position order, without a copy.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        (0..self.count()).map(|index| self.entry_at(index))
    }

    /// The record with this position, if it is in the batch.
    pub fn entry(&self, position: Position) -> Option<Entry> {
        self.head.index(position).map(|index| self.entry_at(index))
    }

    /// All frames back to back, in position order.
    pub fn frames(&self) -> &Bytes {
        &self.frames
    }

    /// Where a record's frame lies in [`frames`](Self::frames), so that neighbours can be sliced as one.
    pub fn frame_range(&self, position: Position) -> Option<Range<usize>> {
        self.head.index(position).map(|index| self.head.frame_range(index))
    }

    fn entry_at(&self, index: usize) -> Entry {
        Entry {
            position: self.head.position(index),
            private: self.head.private(index),
            frame: self.frames.slice(self.head.frame_range(index)),
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_protocol::ids::Incarnation;
    use proptest::prelude::*;

    use super::*;

    const IDENTITY: Identity = Identity { incarnation: Incarnation(7), salt: 99 };

    fn batch(first: u64, records: &[(Vec<u8>, Vec<u8>)]) -> Batch {
        let mut draft = Draft::new(Position(first));
        for (private, frame) in records {
            draft.push(|privates, frames| {
                privates.put_slice(private);
                frames.put_slice(frame);
            });
        }
        let bytes = draft.bytes();
        let batch = draft.seal(IDENTITY, Epoch(1));
        assert_eq!(bytes, batch.parts().concat().len());
        batch
    }

    fn sample() -> Batch {
        batch(
            5,
            &[(b"a".to_vec(), b"frame".to_vec()), (vec![], vec![]), (b"bcd".to_vec(), vec![]), (vec![], vec![3; 9])],
        )
    }

    #[test]
    fn positions_and_ranges_agree() {
        let batch = sample();
        assert_eq!((batch.first(), batch.last(), batch.count()), (Position(5), Position(8), 4));
        assert!(batch.entry(Position(4)).is_none() && batch.entry(Position(9)).is_none());
        for entry in batch.entries() {
            assert_eq!(batch.entry(entry.position).as_ref(), Some(&entry));
            assert_eq!(batch.frames().slice(batch.frame_range(entry.position).unwrap()), entry.frame);
        }
        assert_eq!(batch.frames().len(), 14);
    }

    #[test]
    fn truncated_anywhere_is_refused() {
        let bytes = Bytes::from(sample().parts().concat());
        for length in 0..bytes.len() {
            assert!(Batch::decode(&bytes.slice(..length), &IDENTITY).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let bytes = sample().parts().concat();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Batch::decode(&damaged.into(), &IDENTITY).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_journals_batch_is_foreign() {
        let bytes = Bytes::from(sample().parts().concat());
        let other = Identity { salt: 98, ..IDENTITY };
        assert_eq!(Batch::decode(&bytes, &other).unwrap_err(), FormatError::Foreign(Incarnation(7)));
    }

    fn some_bytes(length_max: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..length_max)
    }

    proptest! {
        #[test]
        fn round_trip(
            first in 1..u64::MAX / 2,
            records in prop::collection::vec((some_bytes(40), some_bytes(90)), 1..30),
        ) {
            let written = batch(first, &records);
            let read = Batch::decode(&written.parts().concat().into(), &IDENTITY).unwrap();
            prop_assert!(read.entries().eq(written.entries()));
            let found: Vec<_> = read.entries().map(|entry| (entry.private.to_vec(), entry.frame.to_vec())).collect();
            prop_assert_eq!(found, records);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Batch::decode(&bytes.into(), &IDENTITY).is_err());
        }
    }
}
