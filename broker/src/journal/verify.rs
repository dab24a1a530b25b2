//! The walk through everything: every checksum of every segment, and each damaged place by name.

use carillon_protocol::ids::Position;

use super::begin;
use super::format::{Identity, SegmentHeader};
use super::proof::{self, Notes};
use super::recovery::read_segment_header;
use super::report::{OpenError, io_error};
use super::scan::{ScanError, Scanner, Step};
use super::segment::{Mark, parse_segment_name, segment_name};
use super::storage::Storage;

/// Findings kept; more are only counted. An operator with a thousand damaged places needs a backup, not a longer list.
const FINDINGS_MAX: usize = 1000;

/// How far a verification is, after each segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Segments done.
    pub segments_done: usize,
    /// Segments in all.
    pub segments: usize,
    /// Bytes of the segments done.
    pub bytes: u64,
    /// Bytes of all segments.
    pub bytes_all: u64,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Segments walked.
    pub segments: usize,
    /// Intact batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The first position there is, if any.
    pub first: Option<Position>,
    /// The last one.
    pub last: Option<Position>,
    /// The bytes of a torn tail at the very end: no damage, the next open cuts it.
    pub torn_tail_bytes: u64,
    /// The first thousand damaged places.
    pub findings: Vec<Finding>,
    /// All damaged places.
    pub findings_count: u64,
}

/// A damaged place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{segment} at byte {offset}: {what} (positions {from} to {})",
    .to.map_or("the end".to_owned(), |to| to.to_string())
)]
pub struct Finding {
    /// The file.
    pub segment: String,
    /// Where in it.
    pub offset: u64,
    /// The first position that is lost there.
    pub from: Position,
    /// The last one, if something intact follows.
    pub to: Option<Position>,
    /// What is wrong.
    pub what: String,
}

/// Verifies all segments in `storage` and changes nothing. A broker may be writing to it meanwhile.
///
/// # Errors
///
/// `Io` if something cannot be read, `Version` if something is too new; damage is no error but a finding.
pub fn verify(storage: &dyn Storage, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, OpenError> {
    // Before anything else: a broker beside this goes on.
    let notes = Notes::read(storage).map_err(io_error("read", proof::NAME))?;
    let names = storage.list().map_err(io_error("list", "the directory"))?;
    let mut segments: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    segments.sort_unstable();
    let length = |first: &Position| {
        let length = storage.open(&segment_name(*first)).and_then(|file| file.length());
        // One that cannot be opened is told of below, or gone.
        length.unwrap_or(0)
    };
    let bytes_all = segments.iter().map(length).sum();
    let mut audit = Audit { report: VerifyReport::default(), identity: None, next: None, end: 0 };
    for (index, first) in segments.iter().enumerate() {
        if let Err(error) = audit.segment(storage, *first, segments.get(index + 1).copied()) {
            // A broker beside this may have removed it by its retention.
            if storage.list().map_err(io_error("list", "the directory"))?.contains(&segment_name(*first)) {
                return Err(error);
            }
            audit.next = None;
            continue;
        }
        audit.report.segments += 1;
        progress(Progress { segments_done: index + 1, segments: segments.len(), bytes: audit.report.bytes, bytes_all });
    }
    if segments.is_empty() && notes.head_of_any() > Position(0) {
        let (at, noted) = (Mark { first: Position(1), offset: 0 }, notes.head_of_any());
        audit.find(proof::NAME, at, Some(noted.next()), &proof::gone(noted));
    }
    if let (Some(first), Some((identity, _))) = (segments.first(), audit.identity) {
        // After the files were listed: a broker beside this notes it before it removes some.
        let lost = begin::lost(storage, &identity, *first).map_err(io_error("read", begin::NAME))?;
        if let Some(noted) = lost {
            let at = Mark { first: noted, offset: 0 };
            audit.find(&segment_name(*first), at, Some(*first), &begin::missing(noted));
        }
    }
    if let (Some(last), Some((identity, _)), Some(next)) = (segments.last(), audit.identity, audit.next) {
        let noted = notes.head(&identity);
        if noted >= next {
            let at = Mark { first: next, offset: audit.end };
            audit.find(&segment_name(*last), at, Some(noted.next()), &proof::missing(noted));
        }
    }
    Ok(audit.report)
}

struct Audit {
    report: VerifyReport,
    identity: Option<(Identity, SegmentHeader)>,
    /// The position that the next segment should begin at.
    next: Option<Position>,
    /// Where the last good batch of the segment before ends.
    end: u64,
}

impl Audit {
    fn segment(&mut self, storage: &dyn Storage, first: Position, next: Option<Position>) -> Result<(), OpenError> {
        let name = segment_name(first);
        let at = Mark { first, offset: 0 };
        if let Some(expected) = self.next.filter(|expected| *expected < first) {
            let at = Mark { first: expected, offset: 0 };
            self.find(&name, at, Some(first), "records before this segment are missing");
        }
        match read_segment_header(storage, first)? {
            Err(why) => self.find(&name, at, None, &format!("in its header, {why}")),
            Ok(header) => {
                let (identity, expected) = *self.identity.get_or_insert((header.identity, header));
                if header.identity != identity || header.shard != expected.shard {
                    self.find(&name, at, None, "it belongs to another journal");
                    return Ok(());
                }
                if header.first != first {
                    self.find(&name, at, None, "its header is that of another segment");
                }
            }
        }
        let Some((identity, _)) = self.identity else { return Ok(()) };
        let file = storage.open(&name).map_err(io_error("open", &name))?;
        let mut scanner = Scanner::new(&*file, identity, first).map_err(io_error("read", &name))?;
        self.report.bytes += scanner.length();
        let mut position = first;
        loop {
            match scanner.step_live() {
                Ok(Step::Batch(_, batch)) => {
                    position = batch.last().next();
                    // A batch that the next segment repeats counts there.
                    if next.is_none_or(|next| batch.first() < next) {
                        self.report.batches += 1;
                        self.report.records += batch.count() as u64;
                        self.report.first.get_or_insert(batch.first());
                        self.report.last = Some(batch.last());
                    }
                }
                Ok(Step::End(end)) => {
                    self.end = end.offset;
                    match end.why {
                        Some(_) if next.is_none() => self.report.torn_tail_bytes = end.torn_bytes,
                        Some(why) if next.is_some_and(|next| next > position) => {
                            let at = Mark { first: position, offset: end.offset };
                            self.find(&name, at, next, &why.to_string());
                            // What is missing is named by this finding.
                            position = next.unwrap_or(position);
                        }
                        Some(_) | None => {}
                    }
                    break;
                }
                Err(ScanError::Io(source)) => return Err(io_error("read", &name)(source)),
                Err(ScanError::Version { offset, version }) => {
                    return Err(OpenError::Version { segment: name, offset, version });
                }
                Err(ScanError::Damaged { offset, why, later }) => {
                    self.find(&name, Mark { first: position, offset }, Some(later.first), &why.to_string());
                    scanner.resume(later);
                }
                Err(ScanError::Order { expected, found }) => {
                    let what = format!("an intact batch of position {} is there", found.first);
                    self.find(&name, Mark { first: expected, ..found }, Some(found.first), &what);
                    scanner.resume(found);
                }
            }
        }
        self.next = Some(position);
        Ok(())
    }

    fn find(&mut self, segment: &str, at: Mark, next: Option<Position>, what: &str) {
        self.report.findings_count += 1;
        if self.report.findings.len() < FINDINGS_MAX {
            self.report.findings.push(Finding {
                segment: segment.to_owned(),
                offset: at.offset,
                from: at.first,
                to: next.map(|next| Position(next.0.saturating_sub(1))),
                what: what.to_owned(),
            });
        }
    }
}
