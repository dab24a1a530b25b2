//! Reading durable records by position, from any thread.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use carillon_protocol::ids::{Incarnation, Position};

use super::batch::Entry;
use super::format::{BATCH_HEADER_BYTES, BatchHeader, FormatError, Head};
use super::limits::READ_BYTES;
use super::lost::Lost;
use super::scan::{Scanner, Window};
use super::segment::{Index, Located, Mark, Segments};
use super::storage::StorageFile;

/// A shared view of a journal's durable records.
///
/// A read opens the files it needs and closes them again, so that a long retention does not use up file descriptors.
/// The first read of a segment that open did not scan walks its batch headers once (the whole file for small
/// batches, 64 MiB by default), while other readers of that segment wait.
#[derive(Clone)]
pub struct Reader {
    pub(crate) segments: Arc<Segments>,
}

/// Why a read has no entry.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The first position asked for was removed by retention.
    #[error("the journal begins at position {first} now")]
    Truncated {
        /// The first position that is left.
        first: Position,
    },
    /// A position asked for is not durable yet.
    #[error("the journal ends at position {head} as yet")]
    NotYet {
        /// The last durable position.
        head: Position,
    },
    /// The record, or the way to it, is damaged on disk. Needs an operator.
    #[error("journal segment {segment} is damaged at byte {offset}: {why}; run `verify` to list every damaged place")]
    Corrupt {
        /// The file.
        segment: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        why: FormatError,
    },
    /// The record was damaged when the index was built, which holds whatever its bytes are now. A start looks at them again.
    #[error(
        "the record at position {position} is damaged, or was when the index was built; a start tells whether it still is"
    )]
    LeftOut {
        /// Which.
        position: Position,
    },
    /// The system could not read.
    #[error("journal segment {segment} cannot be read")]
    Io {
        /// The file.
        segment: String,
        /// The system's error.
        source: io::Error,
    },
}

impl ReadError {
    /// Whether it is this one record that cannot be had, and no other suffers.
    pub fn is_of_record(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::LeftOut { .. })
    }
}

impl Reader {
    pub(crate) fn new(segments: Arc<Segments>) -> Self {
        Self { segments }
    }

    /// Which history this is.
    pub fn incarnation(&self) -> Incarnation {
        self.segments.identity.incarnation
    }

    /// Whether the disk has room for what need not be written: see [`Room`](super::Room).
    pub fn has_room(&self) -> bool {
        !self.segments.shelf.is_short()
    }

    /// The last durable position; 0 if there is none.
    pub fn head(&self) -> Position {
        self.segments.head()
    }

    /// The first position that is still there; `head() + 1` if there is none.
    pub fn first(&self) -> Position {
        self.segments.first()
    }

    /// From now on these positions are refused, besides those that are already. Whoever has said of a message that it lies at a position that could not be read, so
    /// that it is known to be missing, must not be given what turns out to lie there: it may be another one.
    pub fn leave_out(&self, lost: &Lost) {
        if !lost.is_empty() {
            self.segments.left_out.rcu(|known| known.union(lost));
        }
    }

    /// The records at these positions, which ascend, in order: as many as have `bytes_max` bytes of frames together,
    /// but at least one. If a later one cannot be read, those before it are returned, and the error comes when
    /// it is asked for first.
    ///
    /// All frames returned lie in one buffer that holds nothing else, so they pin no more memory than they have bytes.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]; `NotYet` if any of the positions is beyond the head.
    ///
    /// # Panics
    ///
    /// If the positions do not ascend.
    pub fn read(&self, positions: &[Position], bytes_max: usize) -> Result<Vec<Entry>, ReadError> {
        assert!(positions.is_sorted_by(|left, right| left < right), "positions ascend");
        let head = self.head();
        if positions.last().is_some_and(|last| *last > head) {
            return Err(ReadError::NotYet { head });
        }
        let mut rest = positions;
        let left_out = self.segments.left_out.load();
        if !left_out.is_empty() {
            let first = self.first();
            let is_kept = |position: &&Position| **position < first || !left_out.contains(**position);
            rest = &positions[..positions.iter().take_while(is_kept).count()];
            if let (Some(position), []) = (positions.first(), rest) {
                return Err(ReadError::LeftOut { position: *position });
            }
        }
        let mut read = Read { bytes_max, ..Read::default() };
        while let Some(position) = rest.first() {
            let Some(located) = self.segments.locate(*position) else {
                return read.finish(Some(ReadError::Truncated { first: self.first() }));
            };
            let inside = rest.partition_point(|position| located.next_first.is_none_or(|next| *position < next));
            let (here, after) = rest.split_at(inside);
            match self.read_segment(&located, here, &mut read) {
                Ok(Flow::More) => rest = after,
                Ok(Flow::Full) => break,
                // Retention may have removed the file since it was located.
                Err(_) if self.first() > *position => {
                    return read.finish(Some(ReadError::Truncated { first: self.first() }));
                }
                Err(error) => return read.finish(Some(error)),
            }
        }
        read.finish(None)
    }

    fn read_segment(&self, located: &Located, positions: &[Position], read: &mut Read) -> Result<Flow, ReadError> {
        let name = located.segment.name();
        let failed = |source| ReadError::Io { segment: name.clone(), source };
        let file = self.segments.storage.open(&name).map_err(failed)?;
        let window = Window::new(&*file, READ_BYTES).map_err(failed)?;
        let mut cursor = Cursor { segments: &self.segments, located, file: &*file, window, batch: None };
        for (nth, position) in positions.iter().enumerate() {
            let result = cursor.find(*position).and_then(|(offset, head)| {
                let index = head.index(*position).expect("the batch found holds the position");
                let range = head.frame_range(index);
                if read.is_full(range.len()) {
                    return Ok(Flow::Full);
                }
                let frame_offset = offset + (head.header.head_bytes() + range.start) as u64;
                let frame = cursor.window.bytes(frame_offset, range.len())?.ok_or((offset, FormatError::Short))?;
                head.check(index, &frame).map_err(|why| (offset, why))?;
                read.push(*position, &head.private(index), &frame);
                Ok(Flow::More)
            });
            match result {
                Ok(Flow::More) => {}
                Ok(Flow::Full) => return Ok(Flow::Full),
                Err(Fault::Io(source)) => return Err(failed(source)),
                // The way to it may lead over the damage of another batch.
                Err(Fault::Bad(offset, _)) if located.segment.is_to_be_searched(offset) => {
                    search(&self.segments, located, &*file).map_err(failed)?;
                    return self.read_segment(located, &positions[nth..], read);
                }
                Err(Fault::Bad(offset, why)) => return Err(ReadError::Corrupt { segment: name, offset, why }),
            }
        }
        Ok(Flow::More)
    }
}

/// Whether a read goes on.
enum Flow {
    More,
    Full,
}

/// Why a record cannot be had from an open file.
enum Fault {
    Io(io::Error),
    Bad(u64, FormatError),
}

impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<(u64, FormatError)> for Fault {
    fn from((offset, why): (u64, FormatError)) -> Self {
        Self::Bad(offset, why)
    }
}

/// Collects the records of one read, compactly.
#[derive(Default)]
struct Read {
    bytes_max: usize,
    frames: BytesMut,
    privates: BytesMut,
    /// Position, and where private part and frame end.
    ends: Vec<(Position, usize, usize)>,
}

impl Read {
    fn is_full(&self, frame_bytes: usize) -> bool {
        !self.ends.is_empty() && self.frames.len() + frame_bytes > self.bytes_max
    }

    fn push(&mut self, position: Position, private: &[u8], frame: &[u8]) {
        self.privates.extend_from_slice(private);
        self.frames.extend_from_slice(frame);
        self.ends.push((position, self.privates.len(), self.frames.len()));
    }

    fn finish(self, error: Option<ReadError>) -> Result<Vec<Entry>, ReadError> {
        if let Some(error) = error.filter(|_| self.ends.is_empty()) {
            return Err(error);
        }
        let (mut privates, mut frames) = (self.privates.freeze(), self.frames.freeze());
        let (mut private_begin, mut frame_begin) = (0, 0);
        let entries = self.ends.into_iter().map(|(position, private_end, frame_end)| {
            let private: Bytes = privates.split_to(private_end - private_begin);
            let frame = frames.split_to(frame_end - frame_begin);
            (private_begin, frame_begin) = (private_end, frame_end);
            Entry { position, private, frame }
        });
        Ok(entries.collect())
    }
}

/// The way through one segment to ascending positions.
struct Cursor<'a> {
    segments: &'a Segments,
    located: &'a Located,
    file: &'a dyn StorageFile,
    window: Window<'a>,
    /// The batch of the last position, and its offset.
    batch: Option<(u64, Head)>,
}

impl Cursor<'_> {
    /// The batch that holds the position, with its offset.
    fn find(&mut self, position: Position) -> Result<(u64, Head), Fault> {
        if let Some((offset, head)) = self.batch.as_ref().filter(|(_, head)| head.index(position).is_some()) {
            return Ok((*offset, head.clone()));
        }
        let mut at = self.floor(position)?;
        if let Some((offset, head)) = &self.batch {
            let after = Mark { first: head.header.last().next(), offset: offset + u64::from(head.header.bytes) };
            at = if after.first > at.first { after } else { at };
        }
        loop {
            let short = (at.offset, FormatError::Short);
            let bytes = self.window.bytes(at.offset, BATCH_HEADER_BYTES)?.ok_or(short)?;
            let header = BatchHeader::decode(&bytes, &self.segments.identity).map_err(|why| (at.offset, why))?;
            if header.first != at.first {
                return Err(Fault::Bad(at.offset, FormatError::Lengths));
            }
            if header.last() >= position {
                let bytes = self.window.bytes(at.offset, header.head_bytes())?.ok_or(short)?;
                let head = Head::decode(header, bytes).map_err(|why| (at.offset, why))?;
                self.batch = Some((at.offset, head.clone()));
                return Ok((at.offset, head));
            }
            at = Mark { first: header.last().next(), offset: at.offset + u64::from(header.bytes) };
        }
    }

    /// A batch at or before the position.
    fn floor(&self, position: Position) -> Result<Mark, Fault> {
        // A missing mark means that a durable batch's header cannot be found where the segment begins.
        let missing = Fault::Bad(super::format::SEGMENT_HEADER_BYTES as u64, FormatError::HeaderChecksum);
        floor(self.segments, self.located, self.file, position)?.ok_or(missing)
    }
}

/// A batch at or before the position, from the segment's index, which is built if there is none yet.
pub(crate) fn floor(
    segments: &Segments,
    located: &Located,
    file: &dyn StorageFile,
    position: Position,
) -> io::Result<Option<Mark>> {
    let mut index = located.segment.index.lock().expect("no thread panics while it holds the journal's locks");
    let index = match &mut *index {
        Some(index) => index,
        none => none.insert(build_index(segments, located, file)?),
    };
    Ok(index.floor(position))
}

/// Looks for every header that is durable, so that damage to one batch, met since the index was built, leaves the others readable.
fn search(segments: &Segments, located: &Located, file: &dyn StorageFile) -> io::Result<()> {
    let head = segments.head();
    let is_inside = |first: Position| first <= head && located.next_first.is_none_or(|next| first < next);
    let found = Scanner::new(file, segments.identity, located.segment.first)?.find_all()?;
    let mut index = located.segment.index.lock().expect("no thread panics while it holds the journal's locks");
    index.get_or_insert_default().add(found.into_iter().filter(|mark| is_inside(mark.first)));
    Ok(())
}

/// Walks the batch headers up to the next segment's first position. If the way leads into damage, every header is looked for:
/// damage to one batch leaves the others readable.
fn build_index(segments: &Segments, located: &Located, file: &dyn StorageFile) -> io::Result<Index> {
    let mut index = Index::default();
    let mut scanner = Scanner::new(file, segments.identity, located.segment.first)?;
    let is_inside = |first: Position| located.next_first.is_none_or(|next| first < next);
    while is_inside(scanner.at().first) {
        if let Some((mark, _)) = scanner.step_header()? {
            index.note(mark);
            continue;
        }
        if located.next_first.is_some() {
            index = Index::of(scanner.find_all()?.into_iter().filter(|mark| is_inside(mark.first)).collect());
        }
        break;
    }
    Ok(index)
}
