//! What is done to a journal beside the thread that commits to it: its oldest segments leave.

use std::io;
use std::sync::Arc;

use carillon_protocol::ids::Position;

use super::begin;
use super::segment::{Segments, segment_name};

/// A segment as it lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its first position.
    pub first: Position,
    /// Its length.
    pub bytes: u64,
}

/// The keeper's access to the journal's files.
#[derive(Clone)]
pub struct Upkeep {
    segments: Arc<Segments>,
}

impl Upkeep {
    pub(crate) fn new(segments: Arc<Segments>) -> Self {
        Self { segments }
    }

    /// All segments in position order; the last one is written to.
    ///
    /// # Errors
    /// The system's.
    pub fn segments(&self) -> io::Result<Vec<SegmentFile>> {
        let length = |first| self.segments.storage.open(&segment_name(first))?.length();
        self.segments.firsts().into_iter().map(|first| Ok(SegmentFile { first, bytes: length(first)? })).collect()
    }

    /// Bytes committed since the journal was opened.
    pub fn committed_bytes(&self) -> u64 {
        self.segments.committed_bytes()
    }

    /// Removes the oldest segments, as far as every record in them lies before `keep_from`, and never the one that is
    /// written to; returns how many. The caller has made sure that retention is past, that a kept snapshot covers
    /// them, and that the index knows.
    ///
    /// # Errors
    /// The system's. The segments removed so far are out of reach for readers; the rest is untouched.
    pub fn truncate(&self, keep_from: Position) -> io::Result<usize> {
        let segments = &self.segments;
        let first = segments.firsts().into_iter().rfind(|first| *first <= keep_from);
        if let Some(first) = first.filter(|first| *first > segments.first()) {
            begin::note(&*segments.storage, &segments.identity, first)?;
        }
        let mut removed = 0;
        while let Some(segment) = self.segments.pop_before(keep_from) {
            if let Err(error) = self.segments.storage.remove(&segment.name()) {
                // It is the first to be tried again: an older segment that survives a younger one would be a gap.
                self.segments.push_back_oldest(segment);
                return Err(error);
            }
            // One at a time: an older segment that survives a younger one would be a gap.
            self.segments.storage.sync_directory()?;
            removed += 1;
        }
        Ok(removed)
    }
}
