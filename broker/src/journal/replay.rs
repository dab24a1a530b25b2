//! Reading all durable batches of a range, one after the other, beside whoever commits; around damage, if that is wanted.

use std::ops::ControlFlow;

use carillon_protocol::ids::Position;

use super::batch::{Batch, Entry};
use super::format::FormatError;
use super::limits::{READ_BYTES, SALVAGED_PLACES_MAX};
use super::reader::{ReadError, Reader, floor};
use super::scan::{ScanError, Scanner, Step};
use super::segment::{Located, Mark};

/// Positions that are asked for at once where a batch is damaged. Small: all of them are looked for anew behind each one that is lost.
const SALVAGED_AT_ONCE: u64 = 64;

/// What a reading around damage comes to.
#[derive(Debug)]
pub enum Piece<'a> {
    /// A good batch.
    Batch(&'a Batch),
    /// A good record of a damaged batch.
    Record(&'a Entry),
    /// A position whose record cannot be read: [`Reader::read`] refuses it likewise.
    Lost(Position),
}

impl Reader {
    /// Hands every batch that ends after `after` to `each`, in order, up to the one that holds `through`. `each` may
    /// break off, with a reason.
    ///
    /// For threads of their own: it reads files, and `each` may take its time.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]; `NotYet` if `through` is beyond the head.
    pub fn replay<B>(
        &self,
        after: Position,
        through: Position,
        mut each: impl FnMut(&Batch) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        let mut take = |piece: Piece<'_>| match piece {
            Piece::Batch(batch) => each(batch),
            Piece::Record(_) | Piece::Lost(_) => unreachable!("damage ends it"),
        };
        self.walk(after, (through, 0), &mut take)
    }

    /// As [`replay`](Self::replay), around damage: of a damaged batch it hands out the records that can be read, and names the
    /// positions of the others. For what can do without a record or two; never for a shard's state.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]; `Corrupt` only if more than [`SALVAGED_PLACES_MAX`] places are damaged, or for a batch of another version.
    pub fn salvage<B>(
        &self,
        after: Position,
        through: Position,
        mut each: impl FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        self.walk(after, (through, SALVAGED_PLACES_MAX), &mut each)
    }

    /// Up to `through`, around so many damaged places.
    fn walk<B>(
        &self,
        after: Position,
        (through, mut places_left): (Position, usize),
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        let head = self.head();
        if through > head {
            return Err(ReadError::NotYet { head });
        }
        let mut next = after.next();
        while next <= through {
            let truncated = |reader: &Self| ReadError::Truncated { first: reader.first() };
            let Some(located) = self.segments.locate(next) else { return Err(truncated(self)) };
            match self.walk_segment(&located, &mut next, (through, &mut places_left), each) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(broken) => return Ok(broken),
                // Retention may have removed the file since it was located.
                Err(_) if self.first() > next => return Err(truncated(self)),
                Err(error) => return Err(error),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The batches of one segment from the one that holds `next` on, which moves behind them.
    fn walk_segment<B>(
        &self,
        located: &Located,
        next: &mut Position,
        (through, places_left): (Position, &mut usize),
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        let name = located.segment.name();
        let failed = |source| ReadError::Io { segment: name.clone(), source };
        let file = self.segments.storage.open(&name).map_err(failed)?;
        let mut scanner = Scanner::new(&*file, self.segments.identity, located.segment.first).map_err(failed)?;
        if let Some(mark) = floor(&self.segments, located, &*file, *next).map_err(failed)? {
            scanner.resume(mark);
        }
        let end = located.next_first.map_or(through.next(), |first| first.min(through.next()));
        // The next segment may repeat the last batch of this one.
        while *next < end {
            let (offset, why, later) = match scanner.step() {
                Ok(Step::Batch(_, batch)) if batch.last() < *next => continue,
                Ok(Step::Batch(_, batch)) => {
                    *next = batch.last().next();
                    if let ControlFlow::Break(why) = each(Piece::Batch(&batch)) {
                        return Ok(ControlFlow::Break(why));
                    }
                    continue;
                }
                Ok(Step::End(end)) => (end.offset, end.why.unwrap_or(FormatError::Short), None),
                Err(ScanError::Io(source)) => return Err(failed(source)),
                Err(ScanError::Damaged { offset, why, later }) => (offset, why, Some(later)),
                Err(ScanError::Order { found: Mark { offset, .. }, .. }) => (offset, FormatError::Lengths, None),
                // Of another carillon, and as good as it was: not to be taken for lost.
                Err(ScanError::Version { offset, version }) => {
                    return Err(ReadError::Corrupt { segment: name, offset, why: FormatError::Version(version) });
                }
            };
            if *places_left == 0 {
                return Err(ReadError::Corrupt { segment: name, offset, why });
            }
            *places_left -= 1;
            let later = later.filter(|later| later.first < end);
            let behind = later.map_or(end, |later| later.first);
            if let ControlFlow::Break(why) = self.salvage_records(next, behind, each)? {
                return Ok(ControlFlow::Break(why));
            }
            if let Some(later) = later {
                scanner.resume(later);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The records from `next` on, which moves up to `end`, one by one where they cannot be read.
    fn salvage_records<B>(
        &self,
        next: &mut Position,
        end: Position,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        while *next < end {
            let wanted: Vec<_> = (next.0..end.0.min(next.0 + SALVAGED_AT_ONCE)).map(Position).collect();
            let flow = match self.read(&wanted, READ_BYTES) {
                Ok(entries) => entries.iter().try_for_each(|entry| {
                    *next = entry.position.next();
                    each(Piece::Record(entry))
                }),
                Err(error) if error.is_of_record() => {
                    let lost = *next;
                    *next = lost.next();
                    each(Piece::Lost(lost))
                }
                Err(error) => return Err(error),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
