//! Opening a journal: judge what is there, replay it, and prove its tail before anything is served.
//!
//! # The tail
//!
//! The last batch may be readable and yet live in the page cache alone, because the process, or an earlier fsync,
//! failed. So open copies it into a fresh segment under a temporary name, makes that durable, renames it to the name
//! of its first position and makes the directory durable; only then does it cut the old segment in front of the batch.
//! Whenever that is interrupted, the next open finds a temporary file (removed), or a segment that repeats the last
//! batch of the one before it, byte for byte (accepted). If the last segment holds only that batch, or none, the fresh one takes its name and place, so
//! that restarts do not pile up files. A spare segment that was prepared and not used becomes the fresh one; on a
//! full disk the reserve does.
//!
//! # Cost
//!
//! One header read a segment, a full scan from the segment that holds `from + 1`, and the creation of
//! one segment. Older segments are scanned when they are first read.

use std::io;
use std::sync::Arc;

use carillon_protocol::ids::{Incarnation, Position, ShardId};

use super::batch::Batch;
use super::begin;
use super::format::{FormatError, Identity, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::limits::START_BYTES;
use super::options::JournalOptions;
use super::proof::{self, Notes, Proof};
use super::reader::Reader;
use super::report::{Corruption, Cut, OpenError, RecoveryReport, ReplayError, corruption, io_error, scan_error};
use super::room::is_no_room;
use super::scan::{End, ScanError, Scanner, Step, Window};
use super::segment::{
    Index, Mark, Segment, Segments, aside_name, create_segment, is_temporary, make, parse_segment_name, segment_name,
};
use super::spare::{self, Preparer, READY, RESERVE, Shelf, Sizes, Spare};
use super::storage::{Storage, StorageFile};
use super::upkeep::Upkeep;
use super::writer::{Active, SegmentJournal};

/// An open journal.
pub struct Opened {
    /// For the sequencer.
    pub journal: SegmentJournal,
    /// For everyone else.
    pub reader: Reader,
    /// For whoever removes what is past retention.
    pub upkeep: Upkeep,
    /// For a thread that makes the next segment in advance.
    pub preparer: Preparer,
    /// What open found and did. The caller logs it.
    pub report: RecoveryReport,
}

/// What is asked of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replay {
    /// Batches that end after this position are replayed; 0: all.
    pub from: Position,
    /// A journal that ends before this position has lost acknowledged records, and is refused.
    pub at_least: Position,
}

/// The headers of a journal's segments, read and judged: what there is to know before it is replayed.
#[derive(Clone)]
pub struct Survey {
    storage: Arc<dyn Storage>,
    options: JournalOptions,
    directory: Directory,
    identity: Identity,
    report: RecoveryReport,
}

impl Survey {
    /// Looks at the journal in `storage`. Removes unfinished files and sets a torn last segment aside; makes nothing.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn of(storage: Arc<dyn Storage>, options: JournalOptions) -> Result<Self, OpenError> {
        let mut report = RecoveryReport::default();
        let notes = Notes::read(&*storage).map_err(io_error("read", proof::NAME))?;
        let directory = Directory::read(&*storage, options.shard, &notes, &mut report)?;
        let noted = notes.head_of_any();
        if directory.segments.is_empty() && noted > Position(0) {
            return Err(OpenError::Gone { noted });
        }
        if let (Some(first), Some(identity)) = (directory.segments.first(), &directory.identity) {
            begin::check(&*storage, identity, *first)?;
        }
        let identity = match directory.identity.or(options.identity) {
            Some(identity) => identity,
            None => Identity::random().map_err(OpenError::Random)?,
        };
        Ok(Self { storage, options, directory, identity, report })
    }

    /// Whether there is no journal yet.
    pub fn is_new(&self) -> bool {
        self.directory.segments.is_empty()
    }

    /// Which history it is, or will be.
    pub fn incarnation(&self) -> Incarnation {
        self.identity.incarnation
    }

    /// The first position that is there, or will be.
    pub fn first(&self) -> Position {
        self.directory.segments.first().copied().unwrap_or(Position(1))
    }

    /// Bytes that a replay from this position reads.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn bytes_after(&self, from: Position) -> Result<u64, OpenError> {
        let begin = self.directory.segments.partition_point(|first| *first <= from.next()).saturating_sub(1);
        let length = |first: &Position| {
            let name = segment_name(*first);
            self.storage.open(&name).and_then(|file| file.length()).map_err(io_error("read", &name))
        };
        self.directory.segments[begin..].iter().map(length).sum()
    }

    /// Opens the journal, or creates it, and hands every batch that ends after `what.from` to `replay`, in order.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(
        mut self,
        what: Replay,
        replay: &mut dyn FnMut(&Batch) -> Result<(), ReplayError>,
    ) -> Result<Opened, OpenError> {
        let Replay { from, at_least } = what;
        let at_least = at_least.max(from);
        if self.is_new() {
            if at_least > Position(0) {
                return Err(OpenError::Behind { head: Position(0), from: at_least, torn: None });
            }
            self.create()?;
        }
        let Self { storage, options, directory, identity, mut report } = self;
        let first = directory.segments[0];
        let next = from.next();
        let Some(begin) = directory.segments.partition_point(|first| *first <= next).checked_sub(1) else {
            return Err(OpenError::Truncated { first, from });
        };
        let mut walk = Walk {
            identity,
            from,
            replay,
            report: &mut report,
            overlap: None,
            indexes: Vec::new(),
            last: None,
            end: 0,
        };
        let scanned = &directory.segments[begin..];
        for (index, first) in scanned.iter().enumerate() {
            walk.segment(&*storage, *first, scanned.get(index + 1).copied())?;
        }
        let (indexes, last, end) = (walk.indexes, walk.last, walk.end);
        if at_least > report.head {
            return Err(OpenError::Behind { head: report.head, from: at_least, torn: report.cut });
        }
        let noted = Notes::read(&*storage).map_err(io_error("read", proof::NAME))?.head(&identity);
        if noted > report.head {
            let last = scanned.last().expect("at least one segment was scanned");
            let at = Mark { first: report.head.next(), offset: end };
            return Err(corruption(&segment_name(*last), at, &proof::missing(noted)));
        }
        let mut segments: Vec<_> = directory.segments[..begin].iter().map(|first| Segment::new(*first, None)).collect();
        segments.extend(scanned.iter().zip(indexes).map(|(first, index)| Segment::new(*first, Some(index))));
        let sizes = options.sizes();
        let mut prepared = Prepared::left_over(&*storage, &directory, sizes)?;
        // What else must be there is made first: a start that fails for want of room uses up nothing.
        let mut proof = Proof::open(&*storage, identity).map_err(io_error("make", proof::NAME))?;
        let tail = (last, &mut prepared);
        let active = prove_tail(&*storage, &options, identity, tail, &mut segments, &mut report)?;
        proof.note(report.head).map_err(io_error("write", proof::NAME))?;
        begin::adopt(&*storage, &identity, first)?;
        let segments =
            Segments::new(storage, identity, segments, report.head, Shelf::new(prepared.spare, prepared.reserve));
        let reader = Reader::new(Arc::clone(&segments));
        let upkeep = Upkeep::new(Arc::clone(&segments));
        let preparer = Preparer::new(Arc::clone(&segments), sizes);
        let journal = SegmentJournal::new(segments, options.shard, options.epoch, sizes, (active, proof));
        Ok(Opened { journal, reader, upkeep, preparer, report })
    }

    /// Begins a new journal with its first, empty segment.
    fn create(&mut self) -> Result<(), OpenError> {
        let Self { storage, options, identity, .. } = self;
        let header =
            SegmentHeader { shard: options.shard, identity: *identity, epoch: options.epoch, first: Position(1) };
        // Of the header alone: `prove_tail` puts the one that is written to in its place.
        make(&**storage, header.first, SEGMENT_HEADER_BYTES as u64)
            .and_then(|made| create_segment(&**storage, &header, &[], made))
            .map_err(io_error("create", &segment_name(header.first)))?;
        self.directory.segments.push(header.first);
        self.report.created = true;
        Ok(())
    }
}

/// Opens the journal in `storage`, or creates one, and hands every batch that ends after `from` to `replay`, in order.
/// `from` is the position of the snapshot that the caller holds; 0 for none.
///
/// # Errors
///
/// See [`OpenError`].
pub fn open(
    storage: Arc<dyn Storage>,
    options: JournalOptions,
    from: Position,
    replay: &mut dyn FnMut(&Batch) -> Result<(), ReplayError>,
) -> Result<Opened, OpenError> {
    Survey::of(storage, options)?.open(Replay { from, at_least: from }, replay)
}

/// The segments of a directory, their headers checked against each other.
#[derive(Clone)]
struct Directory {
    /// In position order.
    segments: Vec<Position>,
    /// `None` if there is no segment.
    identity: Option<Identity>,
    /// A spare segment was left.
    spare: bool,
    /// A reserve was left.
    reserve: bool,
}

impl Directory {
    fn read(
        storage: &dyn Storage,
        shard: ShardId,
        notes: &Notes,
        report: &mut RecoveryReport,
    ) -> Result<Self, OpenError> {
        let mut segments = Vec::new();
        let (mut spare, mut reserve) = (false, false);
        for name in storage.list().map_err(io_error("list", "the directory"))? {
            if is_temporary(&name) {
                storage.remove(&name).map_err(io_error("remove", &name))?;
                report.removed.push(name);
            } else if name == READY {
                spare = true;
            } else if name == RESERVE {
                reserve = true;
            } else if let Some(first) = parse_segment_name(&name) {
                segments.push(first);
            }
        }
        segments.sort_unstable();
        let mut directory = Self { segments, identity: None, spare, reserve };
        for index in 0..directory.segments.len() {
            let first = directory.segments[index];
            match read_segment_header(storage, first)? {
                Ok(header) => directory.accept(&header, first, shard)?,
                Err(why) if index > 0 && index + 1 == directory.segments.len() && directory.noted(notes) < first => {
                    directory.set_aside(storage, first, why, report)?;
                }
                Err(why) => return Err(header_corruption(first, why).into()),
            }
        }
        Ok(directory)
    }

    /// How far the journal is noted as durable.
    fn noted(&self, notes: &Notes) -> Position {
        self.identity.map_or(Position(0), |identity| notes.head(&identity))
    }

    /// Checks a header against the first segment's, and against the file's name.
    fn accept(&mut self, header: &SegmentHeader, first: Position, shard: ShardId) -> Result<(), OpenError> {
        let segment = segment_name(first);
        let identity = *self.identity.get_or_insert(header.identity);
        let describe =
            |shard: ShardId, identity: Identity| format!("shard {shard}, incarnation {}", identity.incarnation);
        if header.shard != shard || header.identity != identity {
            let (expected, found) = (describe(shard, identity), describe(header.shard, header.identity));
            return Err(OpenError::Foreign { segment, expected, found });
        }
        if header.first != first {
            let what = format!("the header is of a segment that begins at position {}", header.first);
            return Err(Corruption { segment, offset: 0, position: first, what }.into());
        }
        Ok(())
    }

    /// Deals with a last segment whose header is bad. A crash of ours leaves none, since a segment gets its name when
    /// it is durable; a file system may. If nothing in it is a batch, it is renamed, not deleted.
    fn set_aside(
        &mut self,
        storage: &dyn Storage,
        first: Position,
        why: FormatError,
        report: &mut RecoveryReport,
    ) -> Result<(), OpenError> {
        let name = segment_name(first);
        let identity = self.identity.expect("it is not the first segment");
        let file = storage.open(&name).map_err(io_error("open", &name))?;
        // Any batch proves that the segment was in use, so the scan looks for positions from 1 on.
        let mut scanner = Scanner::new(&*file, identity, Position(0)).map_err(io_error("read", &name))?;
        match scanner.step() {
            Ok(Step::End(_)) => {}
            Err(ScanError::Io(source)) => return Err(io_error("read", &name)(source)),
            Ok(Step::Batch(..)) | Err(_) => return Err(header_corruption(first, why).into()),
        }
        let aside = aside_name(first);
        storage.rename(&name, &aside).map_err(io_error("set aside", &name))?;
        storage.sync_directory().map_err(io_error("sync", "the directory"))?;
        self.segments.pop();
        report.set_aside = Some(aside);
        Ok(())
    }
}

fn header_corruption(first: Position, why: FormatError) -> Corruption {
    Corruption { segment: segment_name(first), offset: 0, position: first, what: format!("in its header, {why}") }
}

/// Reads a segment's header; the inner error is about its bytes.
pub(crate) fn read_segment_header(
    storage: &dyn Storage,
    first: Position,
) -> Result<Result<SegmentHeader, FormatError>, OpenError> {
    let name = segment_name(first);
    let file = storage.open(&name).map_err(io_error("open", &name))?;
    let bytes = Window::new(&*file, SEGMENT_HEADER_BYTES)
        .and_then(|mut window| window.bytes(0, SEGMENT_HEADER_BYTES))
        .map_err(io_error("read", &name))?;
    match bytes.map_or(Err(FormatError::Short), |bytes| SegmentHeader::decode(&bytes)) {
        Err(FormatError::Version(version)) => Err(OpenError::Version { segment: name, offset: 0, version }),
        judged => Ok(judged),
    }
}

/// The last batch, and where the segment that holds it ends.
struct Last {
    batch: Batch,
    mark: Mark,
    /// First position of its segment.
    segment: Position,
}

/// The walk over the segments from the one that holds `from + 1`.
struct Walk<'a> {
    identity: Identity,
    from: Position,
    replay: &'a mut dyn FnMut(&Batch) -> Result<(), ReplayError>,
    report: &'a mut RecoveryReport,
    /// The last batch of the segment before, if the next one repeats it.
    overlap: Option<Batch>,
    indexes: Vec<Index>,
    last: Option<Last>,
    /// Where the last good batch of the segment ends.
    end: u64,
}

impl Walk<'_> {
    fn segment(&mut self, storage: &dyn Storage, first: Position, next: Option<Position>) -> Result<(), OpenError> {
        let name = segment_name(first);
        let file = storage.open(&name).map_err(io_error("open", &name))?;
        let mut scanner = Scanner::new(&*file, self.identity, first).map_err(io_error("read", &name))?;
        let mut index = Index::default();
        let mut repeated = None;
        self.report.head = Position(first.0 - 1);
        let end = loop {
            match scanner.step().map_err(|error| scan_error(error, &name, self.report.head.next()))? {
                Step::End(end) => break end,
                Step::Batch(mark, batch) if next.is_some_and(|next| batch.last() >= next) => {
                    if next != Some(batch.first()) || repeated.is_some() {
                        return Err(corruption(&name, mark, "the next segment repeats more than one whole batch"));
                    }
                    repeated = Some(batch);
                }
                Step::Batch(mark, batch) => {
                    self.batch(&name, first, mark, batch)?;
                    index.note(mark);
                }
            }
        };
        let at = Mark { first: self.report.head.next(), offset: end.offset };
        self.end = end.offset;
        if self.overlap.is_some() {
            return Err(corruption(&name, at, "it does not repeat the last batch of the segment before"));
        }
        if let Some(next) = next.filter(|next| *next != at.first) {
            return Err(corruption(&name, at, &format!("the next segment begins at position {next}")));
        }
        if next.is_none() {
            self.report.cut = cut(name, end, at.first);
        }
        self.overlap = repeated;
        self.indexes.push(index);
        Ok(())
    }

    fn batch(&mut self, name: &str, segment: Position, mark: Mark, batch: Batch) -> Result<(), OpenError> {
        if let Some(overlap) = self.overlap.take()
            && overlap.parts() != batch.parts()
        {
            return Err(corruption(name, mark, "it repeats a batch of the segment before with other content"));
        }
        if batch.last() > self.from {
            (self.replay)(&batch).map_err(|source| OpenError::Replay { first: batch.first(), source })?;
            self.report.replayed_batches += 1;
        }
        self.report.head = batch.last();
        self.last = Some(Last { batch, mark, segment });
        Ok(())
    }
}

fn cut(segment: String, end: End, position: Position) -> Option<Cut> {
    let why = end.why?;
    Some(Cut { segment, offset: end.offset, bytes: end.torn_bytes, why, position })
}

/// What an earlier process prepared.
struct Prepared {
    spare: Option<Spare>,
    reserve: Option<Spare>,
}

impl Prepared {
    fn left_over(storage: &dyn Storage, directory: &Directory, sizes: Sizes) -> Result<Self, OpenError> {
        let file = |is_there: bool, name, bytes| {
            let found = is_there.then(|| spare::left_over(storage, name, bytes).map_err(io_error("reuse", name)));
            found.transpose().map(Option::flatten)
        };
        let reserve = file(directory.reserve, RESERVE, sizes.reserve_bytes)?;
        Ok(Self { spare: file(directory.spare, READY, sizes.segment_bytes)?, reserve })
    }

    /// The spare; or a file that is made now, of so many bytes, or as small as can be; or, if the disk has no room even for that,
    /// the reserve.
    fn take(
        &mut self,
        storage: &dyn Storage,
        first: Position,
        (bytes_min, bytes_max): (u64, u64),
    ) -> io::Result<Spare> {
        if let Some(spare) = self.spare.take_if(|spare| spare.bytes >= bytes_min) {
            return Ok(spare);
        }
        for bytes in [bytes_max.max(bytes_min), bytes_min] {
            match make(storage, first, bytes) {
                Err(error) if is_no_room(&error) => {}
                made => return made,
            }
        }
        let reserve = self.reserve.take_if(|reserve| reserve.bytes >= bytes_min);
        reserve.ok_or_else(|| io::ErrorKind::StorageFull.into())
    }
}

/// Makes the last batch durable in a fresh segment, which is written to from now on.
fn prove_tail(
    storage: &dyn Storage,
    options: &JournalOptions,
    identity: Identity,
    (last, prepared): (Option<Last>, &mut Prepared),
    segments: &mut Vec<Arc<Segment>>,
    report: &mut RecoveryReport,
) -> Result<Active, OpenError> {
    let tail = segments.last().expect("at least one segment was scanned").first;
    // That the last segment exists proves the batches of those before it.
    let last = last.filter(|last| last.segment == tail);
    let first = last.as_ref().map_or(tail, |last| last.batch.first());
    let parts = last.as_ref().map(|last| last.batch.parts());
    let content: &[&[u8]] = parts.as_ref().map_or(&[], |parts| parts);
    let content_bytes: usize = content.iter().map(|part| part.len()).sum();
    let offset = (SEGMENT_HEADER_BYTES + content_bytes) as u64;
    let bytes = (offset, options.sizes().segment_bytes.min(START_BYTES));
    let header = SegmentHeader { shard: options.shard, identity, epoch: options.epoch, first };
    let name = segment_name(first);
    let prepared = prepared.take(storage, first, bytes);
    let made = prepared.and_then(|file| create_segment(storage, &header, content, file));
    let made = made.map_err(io_error("create", &name))?;
    let mut index = Index::default();
    if let Some(last) = &last {
        index.note(Mark { first, offset: SEGMENT_HEADER_BYTES as u64 });
        report.rewritten = Some((first, last.batch.last()));
    }
    if let Some(last) = last.filter(|_| first != tail) {
        let old = segment_name(tail);
        let cut = |file: Arc<dyn StorageFile>| file.set_length(last.mark.offset).and_then(|()| file.sync_data());
        storage.open(&old).and_then(cut).map_err(io_error("cut", &old))?;
    } else {
        segments.pop();
    }
    segments.push(Segment::new(first, Some(index)));
    Ok(Active { file: made.file, offset, bytes: made.bytes })
}
