//! What may leave the journal: a decision on whole segments, apart from doing it.

use std::collections::BTreeMap;
use std::time::Duration;

use carillon_core::record::Record;
use carillon_protocol::ids::{Position, Timestamp};

use super::KeepError;
use crate::journal::{ReadError, Reader, SegmentFile};

/// What is kept; nothing leaves by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this may go; `None`: none for its age.
    pub age: Option<Duration>,
    /// The oldest may go while the journal is larger than this; `None`: it may be of any size.
    pub bytes_max: Option<u64>,
}

impl Retention {
    /// The position up to which whole segments may go, if any: past retention, not after `covered`, and never the last
    /// segment. `begins` tells when the first record of a segment was made.
    ///
    /// A segment's age is that of the first record of the *next* one: no record in it is younger, and the next one's begin
    /// is one read at a known place.
    ///
    /// # Errors
    /// What `begins` says.
    pub fn through<E>(
        &self,
        segments: &[SegmentFile],
        covered: Position,
        now: Timestamp,
        mut begins: impl FnMut(Position) -> Result<Option<Timestamp>, E>,
    ) -> Result<Option<Position>, E> {
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut through = None;
        for pair in segments.windows(2) {
            let last = Position(pair[1].first.0 - 1);
            if last > covered {
                break;
            }
            let too_large = self.bytes_max.is_some_and(|bytes_max| bytes > bytes_max);
            if !too_large && !self.is_too_old(now, pair[1].first, &mut begins)? {
                break;
            }
            bytes -= pair[0].bytes;
            through = Some(last);
        }
        Ok(through)
    }

    fn is_too_old<E>(
        &self,
        now: Timestamp,
        next: Position,
        begins: &mut impl FnMut(Position) -> Result<Option<Timestamp>, E>,
    ) -> Result<bool, E> {
        let Some(age) = self.age else { return Ok(false) };
        let Some(time) = begins(next)? else { return Ok(false) };
        Ok(Duration::from_millis(now.0.saturating_sub(time.0)) > age)
    }
}

/// When segments begin, as far as it was asked.
#[derive(Debug, Default)]
pub struct Dated {
    times: BTreeMap<Position, Timestamp>,
}

impl Dated {
    /// The time of the record at a segment's first position; `None` if there is no such record yet. Where it is damaged, that of a later one: what
    /// is believed to begin later is kept longer.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn begin(&mut self, reader: &Reader, first: Position) -> Result<Option<Timestamp>, KeepError> {
        if let Some(time) = self.times.get(&first) {
            return Ok(Some(*time));
        }
        let mut beyond = 0;
        let entries = loop {
            match reader.read(&[Position(first.0 + beyond)], 1) {
                Ok(entries) => break entries,
                Err(ReadError::NotYet { .. }) => return Ok(None),
                // Further and further, so that a damaged segment costs some reads.
                Err(error) if error.is_of_record() => beyond = 2 * beyond + 1,
                Err(error) => return Err(error.into()),
            }
        };
        let Some(entry) = entries.into_iter().next() else { return Ok(None) };
        let time = Record::decode(entry.private, entry.frame)?.time();
        self.times.insert(first, time);
        Ok(Some(time))
    }

    /// Forgets the segments that are gone.
    pub fn forget(&mut self, through: Position) {
        self.times = self.times.split_off(&through);
    }
}
