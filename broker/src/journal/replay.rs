//! Reading all durable batches of a range, one after the other, beside whoever commits.

use std::ops::ControlFlow;

use carillon_protocol::ids::Position;

use super::batch::Batch;
use super::format::FormatError;
use super::reader::{ReadError, Reader, floor};
use super::scan::{ScanError, Scanner, Step};
use super::segment::{Located, Mark};

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
        let head = self.head();
        if through > head {
            return Err(ReadError::NotYet { head });
        }
        let mut next = after.next();
        while next <= through {
            let truncated = |reader: &Self| ReadError::Truncated { first: reader.first() };
            let Some(located) = self.segments.locate(next) else { return Err(truncated(self)) };
            match self.replay_segment(&located, &mut next, through, &mut each) {
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
    fn replay_segment<B>(
        &self,
        located: &Located,
        next: &mut Position,
        through: Position,
        each: &mut impl FnMut(&Batch) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, ReadError> {
        let name = located.segment.name();
        let failed = |source| ReadError::Io { segment: name.clone(), source };
        let corrupt = |offset, why| ReadError::Corrupt { segment: name.clone(), offset, why };
        let file = self.segments.storage.open(&name).map_err(failed)?;
        let mut scanner = Scanner::new(&*file, self.segments.identity, located.segment.first).map_err(failed)?;
        if let Some(mark) = floor(&self.segments, located, &*file, *next).map_err(failed)? {
            scanner.resume(mark);
        }
        // The next segment may repeat the last batch of this one.
        while *next <= through && located.next_first.is_none_or(|first| *next < first) {
            match scanner.step() {
                Ok(Step::Batch(_, batch)) if batch.last() < *next => {}
                Ok(Step::Batch(_, batch)) => {
                    *next = batch.last().next();
                    if let ControlFlow::Break(why) = each(&batch) {
                        return Ok(ControlFlow::Break(why));
                    }
                }
                Ok(Step::End(end)) => return Err(corrupt(end.offset, end.why.unwrap_or(FormatError::Short))),
                Err(ScanError::Io(source)) => return Err(failed(source)),
                Err(ScanError::Damaged { offset, why, .. }) => return Err(corrupt(offset, why)),
                Err(ScanError::Order { found: Mark { offset, .. }, .. }) => {
                    return Err(corrupt(offset, FormatError::Lengths));
                }
                Err(ScanError::Version { offset, version }) => {
                    return Err(corrupt(offset, FormatError::Version(version)));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
