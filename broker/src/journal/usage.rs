//! How much of a disk the journal takes.

use std::io;

use super::segment::parse_segment_name;
use super::storage::Storage;

/// What the segment files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub segments: u64,
    /// Their bytes, with the zeroes at the end of the last one.
    pub bytes: u64,
}

/// Looks at the files. May be asked while the journal is written to; a segment that is being removed counts or not.
///
/// # Errors
///
/// The directory cannot be listed.
pub fn usage(storage: &dyn Storage) -> io::Result<Usage> {
    let mut usage = Usage::default();
    for name in storage.list()?.iter().filter(|name| parse_segment_name(name).is_some()) {
        if let Ok(length) = storage.open(name).and_then(|file| file.length()) {
            usage.segments += 1;
            usage.bytes += length;
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::limits::START_BYTES;
    use crate::journal::{JournalOptions, MemoryStorage, open};
    use carillon_protocol::ids::{Position, ShardId};
    use std::sync::Arc;

    #[test]
    fn a_fresh_journal_takes_one_small_segment() {
        let storage = Arc::new(MemoryStorage::new());
        assert_eq!(usage(&*storage).unwrap(), Usage::default());
        drop(open(storage.clone(), JournalOptions::new(ShardId(0)), Position(0), &mut |_| Ok(())).unwrap());
        assert_eq!(usage(&*storage).unwrap(), Usage { segments: 1, bytes: START_BYTES });
    }
}
