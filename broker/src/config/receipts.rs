//! `[receipts]`

use serde::{Deserialize, Serialize};

use super::value;
use crate::edge::limits::{COUNTS_EVERY_MS, Limits, RECEIPTS_LIVE_MEMBERS_HIGH, RECEIPTS_LIVE_MEMBERS_MAX};

/// Below it the shard would be asked for the same again and again; above it nobody would call it live.
const COUNTS_EVERY_MS_LOW: u64 = 10;
const COUNTS_EVERY_MS_HIGH: u64 = 60_000;

/// `[receipts]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Receipts {
    /// Members up to which authors are told live who has read; in larger conversations how many have.
    #[serde(deserialize_with = "value::between::<0, { RECEIPTS_LIVE_MEMBERS_HIGH as u64 }, _, _>")]
    pub named_members_max: u32,
    /// How often authors are told how many have read, of one conversation.
    #[serde(deserialize_with = "value::between::<COUNTS_EVERY_MS_LOW, COUNTS_EVERY_MS_HIGH, _, _>")]
    pub counts_every_ms: u64,
}

impl Default for Receipts {
    fn default() -> Self {
        Self { named_members_max: RECEIPTS_LIVE_MEMBERS_MAX, counts_every_ms: COUNTS_EVERY_MS }
    }
}

impl Receipts {
    /// The edges' limits with these.
    pub fn limits(&self, limits: Limits) -> Limits {
        let Self { named_members_max: receipts_live_members_max, counts_every_ms } = *self;
        Limits { receipts_live_members_max, counts_every_ms, ..limits }
    }
}
