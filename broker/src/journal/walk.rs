//! Reading a journal's files as a tool does: in order, every checksum checked, changing nothing, beside a broker that may
//! be writing them.

use bytes::BytesMut;
use carillon_protocol::ids::{Position, ShardId};
use thiserror::Error;

use super::batch::Batch;
use super::begin;
use super::format::{Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::proof::{self, Notes};
use super::recovery::read_segment_header;
use super::report::{OpenError, corruption, io_error, scan_error};
use super::scan::{Scanner, Step};
use super::segment::{Mark, parse_segment_name, segment_name};
use super::storage::Storage;

/// The segments of a journal, in order.
pub struct Walk<'a> {
    storage: &'a dyn Storage,
    segments: Vec<Position>,
    /// Of the first segment, which all others must have.
    header: SegmentHeader,
}

/// Why a walk ends early.
#[derive(Debug, Error)]
pub enum WalkError<E> {
    /// A file cannot be read, or is damaged.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// What was handed over was refused.
    #[error("{0}")]
    Sink(E),
}

/// What a segment turned out to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The last position; one before the segment's first if there is none.
    pub last: Position,
    /// Bytes up to the end of the last batch.
    pub bytes: u64,
}

/// Bytes of a segment, piece by piece: its header, then each batch.
pub type SegmentBytes<'a, E> = &'a mut dyn FnMut(&[u8]) -> Result<(), E>;

impl<'a> Walk<'a> {
    /// Looks at the segments in `storage`. `None` if there are none.
    ///
    /// # Errors
    /// `Io`, `Version`, or `Corrupt` for a bad header.
    pub fn of(storage: &'a dyn Storage) -> Result<Option<Self>, OpenError> {
        let names = storage.list().map_err(io_error("list", "the directory"))?;
        let mut segments: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
        segments.sort_unstable();
        let Some(first) = segments.first().copied() else { return Ok(None) };
        let header = header(storage, first)?;
        Ok(Some(Self { storage, segments, header }))
    }

    /// First positions of the segments.
    pub fn segments(&self) -> &[Position] {
        &self.segments
    }

    /// Which history it is.
    pub fn identity(&self) -> Identity {
        self.header.identity
    }

    /// Whose journal it is.
    pub fn shard(&self) -> ShardId {
        self.header.shard
    }

    /// Bytes of all segment files from the one that holds a position.
    ///
    /// # Errors
    /// `Io`.
    pub fn bytes_from(&self, position: Position) -> Result<u64, OpenError> {
        let length = |first: &Position| {
            let name = segment_name(*first);
            self.storage.open(&name).and_then(|file| file.length()).map_err(io_error("read", &name))
        };
        self.segments[self.begin(position)..].iter().map(length).sum()
    }

    /// The segment that holds a position, or would.
    fn begin(&self, position: Position) -> usize {
        self.segments.partition_point(|first| *first <= position).saturating_sub(1)
    }

    /// Hands over all batches from the segment that holds `from`, in order; those of earlier positions in it too.
    ///
    /// # Errors
    /// [`WalkError`].
    pub fn batches<E>(
        &self,
        from: Position,
        mut each: impl FnMut(&Batch) -> Result<(), E>,
    ) -> Result<Position, WalkError<E>> {
        let mut last = Position(0);
        for nth in self.begin(from)..self.segments.len() {
            last = self.segment_batches(nth, |batch| each(batch).map_err(WalkError::Sink))?.last;
        }
        Ok(last)
    }

    /// Hands over the bytes of a segment, up to the end of its last batch, as they are or as of another history.
    ///
    /// # Errors
    /// [`WalkError`].
    pub fn copy<E>(
        &self,
        nth: usize,
        identity: Option<Identity>,
        sink: SegmentBytes<'_, E>,
    ) -> Result<Extent, WalkError<E>> {
        let mut header = header(self.storage, self.segments[nth])?;
        header.identity = identity.unwrap_or(header.identity);
        sink(&header.encode()).map_err(WalkError::Sink)?;
        self.segment_batches(nth, |batch| {
            let [head, frames] = batch.parts();
            let done = match identity {
                None => sink(head),
                Some(identity) => {
                    let mut bytes = BytesMut::with_capacity(head.len());
                    batch.header_as(identity).encode(&mut bytes);
                    bytes.extend_from_slice(&head[bytes.len()..]);
                    sink(&bytes)
                }
            };
            done.and_then(|()| sink(frames)).map_err(WalkError::Sink)
        })
    }

    /// Whether nothing is missing at the begin, by the note beside the journal, which is read now.
    ///
    /// # Errors
    /// `Corrupt`, or `Io`.
    pub(crate) fn check_begin(&self, journal: &dyn Storage) -> Result<(), OpenError> {
        begin::check(journal, &self.header.identity, self.segments[0])
    }

    /// Whether nothing is missing at the end, by notes that were read before the walk.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn check_end(&self, notes: &Notes, end: Extent) -> Result<(), OpenError> {
        let noted = notes.head(&self.header.identity);
        let Some(last) = self.segments.last().filter(|_| noted > end.last) else { return Ok(()) };
        let at = Mark { first: end.last.next(), offset: end.bytes };
        Err(corruption(&segment_name(*last), at, &proof::missing(noted)))
    }

    fn segment_batches<E>(
        &self,
        nth: usize,
        mut each: impl FnMut(&Batch) -> Result<(), WalkError<E>>,
    ) -> Result<Extent, WalkError<E>> {
        let (first, next) = (self.segments[nth], self.segments.get(nth + 1).copied());
        let name = segment_name(first);
        self.check_header(first)?;
        let file = self.storage.open(&name).map_err(io_error("open", &name))?;
        let mut scanner = Scanner::new(&*file, self.header.identity, first).map_err(io_error("read", &name))?;
        let mut extent = Extent { last: Position(first.0 - 1), bytes: SEGMENT_HEADER_BYTES as u64 };
        loop {
            match scanner.step_live().map_err(|error| scan_error(error, &name, extent.last.next()))? {
                // The next segment repeats it.
                Step::Batch(_, batch) if next.is_some_and(|next| batch.first() >= next) => break,
                Step::Batch(mark, batch) => {
                    each(&batch)?;
                    extent = Extent { last: batch.last(), bytes: mark.offset + batch.bytes() as u64 };
                }
                Step::End(_) => break,
            }
        }
        match next {
            Some(next) if next != extent.last.next() => {
                let at = Mark { first: extent.last.next(), offset: extent.bytes };
                Err(corruption(&name, at, &format!("the next segment begins at position {next}")).into())
            }
            Some(_) | None => Ok(extent),
        }
    }

    fn check_header(&self, first: Position) -> Result<(), OpenError> {
        let found = header(self.storage, first)?;
        if (found.shard, found.identity, found.first) == (self.header.shard, self.header.identity, first) {
            return Ok(());
        }
        let describe = |header: &SegmentHeader| {
            format!("shard {}, incarnation {}, position {}", header.shard, header.identity.incarnation, header.first)
        };
        let expected = describe(&SegmentHeader { first, ..self.header });
        Err(OpenError::Foreign { segment: segment_name(first), expected, found: describe(&found) })
    }
}

fn header(storage: &dyn Storage, first: Position) -> Result<SegmentHeader, OpenError> {
    read_segment_header(storage, first)?.map_err(|why| {
        let at = Mark { first, offset: 0 };
        corruption(&segment_name(first), at, &format!("in its header, {why}"))
    })
}
