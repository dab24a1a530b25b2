//! Reading all durable batches of a range, one after the other, beside whoever commits; around damage, if that is wanted.

use std::ops::ControlFlow;

use carillon_protocol::ids::Position;

use super::batch::{Batch, Entry};
use super::format::{BATCH_HEADER_BYTES, FormatError, ROW_BYTES};
use super::limits::{LOST_RUNS_MAX, READ_BYTES};
use super::reader::{ReadError, Reader, floor};
use super::scan::{ScanError, Scanner, Step};
use super::segment::{Located, Mark};

/// Positions that are asked for at once where a batch is damaged. Small: all of them are looked for anew behind each one that is lost.
const SALVAGED_AT_ONCE: u64 = 64;

/// What a reading does about damage.
enum Around {
    /// It ends.
    Nothing,
    /// It goes on, without so many runs of positions more; the last one that was lost.
    Damage { runs_left: usize, last: Position },
}

impl Around {
    /// Whether one more may be lost.
    fn lose(&mut self, position: Position) -> bool {
        let Self::Damage { runs_left, last } = self else { return false };
        if position != last.next() {
            let Some(left) = runs_left.checked_sub(1) else { return false };
            *runs_left = left;
        }
        *last = position;
        true
    }
}

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
        self.walk(after, through, &mut Around::Nothing, &mut take)
    }

    /// As [`replay`](Self::replay), around damage: of a damaged batch it hands out the records that can be read, and names the
    /// positions of the others. For what can do without a record or two; never for a shard's state.
    ///
    /// # Errors
    ///
    /// See [`ReadError`]; `Corrupt` only if more than [`LOST_RUNS_MAX`] runs of positions are lost, if more is missing than can have lain there, as where a
    /// segment is gone, or for a batch of another version.
    pub fn salvage<B>(
        &self,
        after: Position,
        through: Position,
        mut each: impl FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        self.walk(after, through, &mut Around::Damage { runs_left: LOST_RUNS_MAX, last: Position(0) }, &mut each)
    }

    fn walk<B>(
        &self,
        after: Position,
        through: Position,
        around: &mut Around,
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
            match self.walk_segment(&located, &mut next, (through, around), each) {
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
        (through, around): (Position, &mut Around),
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
            let mut ends_well = false;
            let (offset, why, later) = match scanner.step() {
                Ok(Step::Batch(_, batch)) if batch.last() < *next => continue,
                Ok(Step::Batch(_, batch)) => {
                    *next = batch.last().next();
                    if let ControlFlow::Break(why) = each(Piece::Batch(&batch)) {
                        return Ok(ControlFlow::Break(why));
                    }
                    continue;
                }
                Ok(Step::End(end)) => {
                    ends_well = end.why.is_none();
                    (end.offset, end.why.unwrap_or(FormatError::Short), None)
                }
                Err(ScanError::Io(source)) => return Err(failed(source)),
                Err(ScanError::Damaged { offset, why, later }) => (offset, why, Some(later)),
                Err(ScanError::Order { found: Mark { offset, .. }, .. }) => (offset, FormatError::Lengths, None),
                // Of another carillon, and as good as it was: not to be taken for lost.
                Err(ScanError::Version { offset, version }) => (offset, FormatError::Version(version), None),
            };
            let is_of_version =
                matches!(why, FormatError::Version(_)) || later.is_some_and(|mark| mark.first.0 == u64::MAX);
            let fit = |to: Mark| fit(to.first.0.saturating_sub(next.0), to.offset.saturating_sub(offset));
            // One that lies elsewhere than where it was written leads nowhere.
            let later = later.filter(|later| later.first < end && fit(*later));
            let behind = later.unwrap_or(Mark { first: end, offset: scanner.length() });
            let is_gone = ends_well && !fit(behind);
            if matches!(around, Around::Nothing) || is_of_version || is_gone {
                return Err(ReadError::Corrupt { segment: name, offset, why });
            }
            if let ControlFlow::Break(why) = self.salvage_records(next, behind.first, around, each)? {
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
        around: &mut Around,
        each: &mut dyn FnMut(Piece<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        while *next < end {
            let wanted: Vec<_> = (next.0..end.0.min(next.0 + SALVAGED_AT_ONCE)).map(Position).collect();
            let flow = match self.read(&wanted, READ_BYTES) {
                Ok(entries) => entries.iter().try_for_each(|entry| {
                    *next = entry.position.next();
                    each(Piece::Record(entry))
                }),
                Err(error) if error.is_of_record() && around.lose(*next) => {
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

/// Whether so many records can lie in so many bytes, one batch of them at least: if not, a segment is gone.
fn fit(records: u64, bytes: u64) -> bool {
    records == 0 || bytes.checked_sub(BATCH_HEADER_BYTES as u64).is_some_and(|left| records <= left / ROW_BYTES as u64)
}
