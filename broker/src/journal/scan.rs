//! The walk through one segment, batch by batch, and the judgement on how it ends.

use std::io;

use bytes::Bytes;
use carillon_protocol::ids::Position;

use super::batch::Batch;
use super::format::{BATCH_HEADER_BYTES, BATCH_MAGIC, BatchHeader, FormatError, Identity, SEGMENT_HEADER_BYTES};
use super::limits::SCAN_BYTES;
use super::segment::Mark;
use super::storage::StorageFile;

/// Reads a file in chunks and hands out slices of them.
pub(crate) struct Window<'a> {
    file: &'a dyn StorageFile,
    length: u64,
    chunk_bytes: usize,
    offset: u64,
    chunk: Bytes,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn StorageFile, chunk_bytes: usize) -> io::Result<Self> {
        Ok(Self { file, length: file.length()?, chunk_bytes, offset: 0, chunk: Bytes::new() })
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Drops what was read.
    pub(crate) fn forget(&mut self) {
        self.chunk = Bytes::new();
    }

    /// Exactly these bytes, or `None` if the file ends before.
    pub(crate) fn bytes(&mut self, offset: u64, length: usize) -> io::Result<Option<Bytes>> {
        let Some(left) = self.length.checked_sub(offset) else { return Ok(None) };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if length > left {
            return Ok(None);
        }
        let inside = offset.checked_sub(self.offset).and_then(|skip| usize::try_from(skip).ok());
        if let Some(skip) = inside.filter(|skip| skip.saturating_add(length) <= self.chunk.len()) {
            return Ok(Some(self.chunk.slice(skip..skip + length)));
        }
        let mut chunk = vec![0; length.max(self.chunk_bytes).min(left)];
        self.file.read_at(&mut chunk, offset)?;
        (self.offset, self.chunk) = (offset, chunk.into());
        Ok(Some(self.chunk.slice(..length)))
    }
}

/// One step of a scan.
pub(crate) enum Step {
    /// The next batch, verified, and where it lies.
    Batch(Mark, Batch),
    /// There are no more batches.
    End(End),
}

/// How a segment ends after its last good batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// Where the last good batch ends.
    pub(crate) offset: u64,
    /// From there to the last byte that is not zero; 0 if the end is clean.
    pub(crate) torn_bytes: u64,
    /// Why these are no batch.
    pub(crate) why: Option<FormatError>,
}

/// Why a scan cannot go on.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    /// A bad batch at `offset`, and an intact header of a later one, if its position is known, at `later`.
    Damaged {
        offset: u64,
        why: FormatError,
        later: Mark,
    },
    /// An intact batch that does not follow its predecessor.
    Order {
        expected: Position,
        found: Mark,
    },
    /// A batch of a version that this program does not know.
    Version {
        offset: u64,
        version: u16,
    },
}

impl From<io::Error> for ScanError {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

/// Walks a segment from a batch on.
pub(crate) struct Scanner<'a> {
    window: Window<'a>,
    identity: Identity,
    at: Mark,
}

impl<'a> Scanner<'a> {
    /// Begins at the first batch of the segment, which has this first position.
    pub(crate) fn new(file: &'a dyn StorageFile, identity: Identity, first: Position) -> io::Result<Self> {
        let window = Window::new(file, SCAN_BYTES)?;
        Ok(Self { window, identity, at: Mark { first, offset: SEGMENT_HEADER_BYTES as u64 } })
    }

    /// Bytes of the segment.
    pub(crate) fn length(&self) -> u64 {
        self.window.length()
    }

    /// Where the next batch should be.
    pub(crate) fn at(&self) -> Mark {
        self.at
    }

    /// Every intact header of the file, by position, wherever it lies: what there is to go by when the way from one batch to the
    /// next leads into damage.
    pub(crate) fn find_all(&mut self) -> io::Result<Vec<Mark>> {
        let mut found = Vec::new();
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        while let Some(left) =
            self.window.length().checked_sub(offset).filter(|left| *left >= BATCH_HEADER_BYTES as u64)
        {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(SCAN_BYTES);
            let chunk = self.window.bytes(offset, length)?.expect("it lies inside the file");
            for (skip, bytes) in chunk.windows(BATCH_HEADER_BYTES).enumerate() {
                if bytes[..4] == BATCH_MAGIC
                    && let Ok(header) = BatchHeader::decode(bytes, &self.identity)
                {
                    found.push(Mark { first: header.first, offset: offset + skip as u64 });
                }
            }
            // A header may lie across two chunks.
            offset += (length - (BATCH_HEADER_BYTES - 1)) as u64;
        }
        found.sort_unstable_by_key(|mark| mark.first);
        Ok(found)
    }

    /// Goes on at another batch, behind damage.
    pub(crate) fn resume(&mut self, at: Mark) {
        self.at = at;
    }

    /// The header of the next batch, without a look at the rest. `None` where there is none that is intact.
    pub(crate) fn step_header(&mut self) -> io::Result<Option<(Mark, BatchHeader)>> {
        let at = self.at;
        let Some(bytes) = self.window.bytes(at.offset, BATCH_HEADER_BYTES)? else { return Ok(None) };
        let Ok(header) = BatchHeader::decode(&bytes, &self.identity) else { return Ok(None) };
        if header.first != at.first {
            return Ok(None);
        }
        self.pass(&header);
        Ok(Some((at, header)))
    }

    /// The next batch, or the end.
    pub(crate) fn step(&mut self) -> Result<Step, ScanError> {
        let at = self.at;
        match self.decode(at.offset)? {
            Ok(batch) if batch.first() == at.first => {
                self.at = Mark { first: batch.last().next(), offset: at.offset + batch.bytes() as u64 };
                Ok(Step::Batch(at, batch))
            }
            Ok(batch) => {
                Err(ScanError::Order { expected: at.first, found: Mark { first: batch.first(), offset: at.offset } })
            }
            Err(FormatError::Version(version)) => Err(ScanError::Version { offset: at.offset, version }),
            Err(why) => self.tail(why),
        }
    }

    /// As [`step`](Self::step), beside a process that may be writing the segment: a batch that was half written when it was
    /// read is whole by the time a later one is seen, so it is read again before it is called damaged.
    pub(crate) fn step_live(&mut self) -> Result<Step, ScanError> {
        match self.step() {
            Err(ScanError::Damaged { .. }) => {
                self.window.forget();
                self.step()
            }
            other => other,
        }
    }

    fn pass(&mut self, header: &BatchHeader) {
        self.at = Mark { first: header.last().next(), offset: self.at.offset + u64::from(header.bytes) };
    }

    fn decode(&mut self, offset: u64) -> io::Result<Result<Batch, FormatError>> {
        let Some(bytes) = self.window.bytes(offset, BATCH_HEADER_BYTES)? else { return Ok(Err(FormatError::Short)) };
        let header = match BatchHeader::decode(&bytes, &self.identity) {
            Ok(header) => header,
            Err(why) => return Ok(Err(why)),
        };
        let Some(bytes) = self.window.bytes(offset, header.bytes as usize)? else {
            return Ok(Err(FormatError::Short));
        };
        Ok(Batch::decode(&bytes, &self.identity))
    }

    /// Judges what follows the last good batch. Because a batch is written only after its predecessor is durable, an
    /// intact header of a later batch proves that the bad one was durable once: that is corruption, and everything
    /// else is the tail of a commit that was never acknowledged.
    fn tail(&mut self, why: FormatError) -> Result<Step, ScanError> {
        let begin = self.at.offset;
        let mut nonzero_end = begin;
        let mut offset = begin;
        while offset < self.window.length() {
            let left = usize::try_from(self.window.length() - offset).unwrap_or(usize::MAX);
            let chunk = self.window.bytes(offset, left.min(SCAN_BYTES))?.expect("it lies inside the file");
            if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
                nonzero_end = offset + last as u64 + 1;
                if let Some(later) = self.find_later(&chunk, offset) {
                    return Err(ScanError::Damaged { offset: begin, why, later });
                }
            }
            if chunk.len() == left {
                break;
            }
            // A header may lie across two chunks.
            offset += (chunk.len() - (BATCH_HEADER_BYTES - 1)) as u64;
        }
        let torn_bytes = nonzero_end - begin;
        Ok(Step::End(End { offset: begin, torn_bytes, why: (torn_bytes > 0).then_some(why) }))
    }

    fn find_later(&self, chunk: &[u8], chunk_offset: u64) -> Option<Mark> {
        let magics = chunk.windows(BATCH_HEADER_BYTES).enumerate();
        magics.filter(|(_, bytes)| bytes[..4] == BATCH_MAGIC).find_map(|(skip, bytes)| {
            let first = match BatchHeader::decode(bytes, &self.identity) {
                Ok(header) => header.first,
                Err(FormatError::Version(_)) => Position(u64::MAX),
                Err(_) => return None,
            };
            (first > self.at.first).then_some(Mark { first, offset: chunk_offset + skip as u64 })
        })
    }
}
