//! `[journal]`, `[snapshots]` and `[retention]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::value;
use crate::journal::{FREE_BYTES_MIN_DEFAULT, SEGMENT_BYTES_DEFAULT};
use crate::keeper::{self, KeeperOptions};

/// A segment holds some of the largest batches at least.
const SEGMENT_BYTES_LOW: u64 = 64 * 1024;
const SEGMENT_BYTES_HIGH: u64 = 4 * 1024 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
const TIB: u64 = 1024 * 1024 * MIB;
const DAY_S: u64 = 24 * 3_600;

/// `[journal]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Size of a segment, the unit of deletion.
    #[serde(deserialize_with = "value::between::<SEGMENT_BYTES_LOW, SEGMENT_BYTES_HIGH, _, _>")]
    pub segment_bytes: u64,
    /// Free room of its file system below which nothing is taken that makes it grow.
    #[serde(deserialize_with = "value::between::<0, { 1024 * TIB }, _, _>")]
    pub free_bytes_min: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { segment_bytes: SEGMENT_BYTES_DEFAULT, free_bytes_min: FREE_BYTES_MIN_DEFAULT }
    }
}

/// `[snapshots]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Snapshots {
    /// A snapshot is taken when the journal has grown by so much.
    #[serde(deserialize_with = "value::between::<MIB, TIB, _, _>")]
    pub journal_bytes: u64,
    /// And when the newest one is so old.
    #[serde(deserialize_with = "value::between::<60, { 366 * DAY_S }, _, _>")]
    pub interval_s: u64,
    /// Taking one reads and writes at most so much a second, unless retention waits for it.
    #[serde(deserialize_with = "value::between::<MIB, TIB, _, _>")]
    pub bytes_a_second: u64,
}

impl Default for Snapshots {
    fn default() -> Self {
        let keeper = KeeperOptions::default();
        Self {
            journal_bytes: keeper.snapshot_journal_bytes,
            interval_s: keeper.snapshot_interval.as_secs(),
            bytes_a_second: keeper.snapshot_bytes_a_second,
        }
    }
}

/// `[retention]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Records older than this may go; 0: none for its age.
    #[serde(deserialize_with = "value::between::<0, 36_500, _, _>")]
    pub age_days: u64,
    /// The oldest may go while the journal is larger; 0: it may be of any size.
    #[serde(deserialize_with = "value::between::<0, { 1024 * TIB }, _, _>")]
    pub bytes_max: u64,
}

/// What the keeper is told.
pub(super) fn keeper(snapshots: &Snapshots, retention: &Retention) -> KeeperOptions {
    KeeperOptions {
        snapshot_journal_bytes: snapshots.journal_bytes,
        snapshot_interval: Duration::from_secs(snapshots.interval_s),
        snapshot_bytes_a_second: snapshots.bytes_a_second,
        retention: keeper::Retention {
            age: (retention.age_days > 0).then(|| Duration::from_secs(retention.age_days * DAY_S)),
            bytes_max: (retention.bytes_max > 0).then_some(retention.bytes_max),
        },
    }
}
