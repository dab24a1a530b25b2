//! Opening a damaged copy with the broker's own code, and the judgement on what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use carillon::index::{Index, Lookup, LookupError, Place, Writer};
use carillon::journal::{self, ObservedStorage, OpenError, ReadError, Reader, VerifyReport};
use carillon::snapshot;
use carillon::store::{Follow, StoreError};
use carillon_core::Shard;
use carillon_protocol::ids::{ConversationId, Position, Seq};

use super::damage::Class;
use super::files::{Changed, Listing, listing};
use super::pristine::{BatchAt, Pristine, ground};
use crate::harness::PATIENCE;
use crate::rig::Rig;

/// Where it is noted how far the journal was durable.
pub const NOTE: &str = "journal/head";

/// Damage within so many bytes is one place.
const PAGE_BYTES: u64 = 4_096;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The start is refused.
    Refused,
    /// The last batch is cut as a torn tail.
    LastBatchCut,
    /// Bytes behind the last batch are cut as a torn tail; nothing is missing.
    NothingCut,
    /// The start succeeds, and the records of a damaged batch are refused when they are read.
    RefusedOnReading,
    /// The start succeeds with an index that is built of what can be read.
    GoneAround,
    /// A snapshot is set aside.
    SnapshotSetAside,
    /// The index is set aside and built anew, at the start or when it was asked.
    IndexRebuilt,
    /// Nobody reads what was damaged.
    Harmless,
    /// Something else, which is wrong.
    Wrong,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Refused,
        Self::RefusedOnReading,
        Self::GoneAround,
        Self::LastBatchCut,
        Self::NothingCut,
        Self::SnapshotSetAside,
        Self::IndexRebuilt,
        Self::Harmless,
        Self::Wrong,
    ];

    /// As it stands in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused at the start, with file and place",
            Self::LastBatchCut => "last batch cut as a torn tail, reported",
            Self::NothingCut => "bytes behind the last batch cut, nothing missing",
            Self::RefusedOnReading => "the damaged batch alone refused when read",
            Self::GoneAround => "index built anew of all but the damaged batch",
            Self::SnapshotSetAside => "snapshot set aside, same state",
            Self::IndexRebuilt => "index set aside and built anew, same answers",
            Self::Harmless => "harmless: everything is as it was",
            Self::Wrong => "wrong",
        }
    }
}

/// A damaged copy.
pub struct Case<'a> {
    /// What it was.
    pub pristine: &'a Pristine,
    /// Where it is.
    pub directory: &'a Path,
    /// Which bytes are others.
    pub changed: Changed,
    /// Pages are in the place of each other.
    pub is_swap: bool,
    /// It is known that the last batch was durable.
    pub is_noted: bool,
}

/// What a judge says.
#[derive(Debug)]
pub struct Judged {
    /// What came of it.
    pub verdict: Verdict,
    /// What is wrong with that.
    pub wrong: Vec<String>,
    /// Records that were read back.
    pub read_back: u64,
}

/// What reading every record has brought.
struct ReadBack {
    good: u64,
    refused: BTreeSet<Position>,
}

impl Case<'_> {
    /// Opens it, reads everything, and says what came of it.
    pub fn judge(&self) -> Judged {
        let mut wrong = Vec::new();
        // A new index has files of the same names: this one tells the old directory from it.
        std::fs::write(self.directory.join("index/evidence"), b"here").expect("a file can be written");
        let before = listing(self.directory);
        self.check_verify(&mut wrong);
        let ground = ground(self.directory);
        let mut is_opened = true;
        let (mut verdict, mut read_back) = match Rig::open(&ground) {
            // It looks as if a file were gone, which is seen when the state is there already.
            Err(StoreError::Again(ReadError::Corrupt { segment, .. }))
                if self.changed.contains_key(&format!("journal/{segment}")) =>
            {
                (Verdict::Refused, 0)
            }
            Err(error) => {
                is_opened = false;
                self.check_refusal(&error, &before, &mut wrong);
                (Verdict::Refused, 0)
            }
            Ok(rig) => {
                let mut verdict = self.check_head(&rig, &mut wrong);
                let read = self.read_all(&rig.reader, &mut wrong);
                verdict = if read.refused.is_empty() { verdict } else { Verdict::RefusedOnReading };
                if self.check_index(&ground.index, &rig.reader, &mut wrong) {
                    verdict = Verdict::IndexRebuilt;
                }
                if !(&*ground.index).lost().is_empty() {
                    verdict = Verdict::GoneAround;
                }
                (verdict, read.good)
            }
        };
        drop(ground);
        let after = listing(self.directory);
        if verdict == Verdict::Harmless && after.keys().any(|name| name.contains("doubtful")) {
            verdict = Verdict::IndexRebuilt;
        }
        if verdict == Verdict::Harmless && after.keys().any(|name| name.ends_with(".damaged")) {
            verdict = Verdict::SnapshotSetAside;
        }
        self.check_files(is_opened, (&before, &after), &mut wrong);
        if !wrong.is_empty() {
            (verdict, read_back) = (Verdict::Wrong, 0);
        }
        Judged { verdict, wrong, read_back }
    }

    /// The batches of which bytes are others.
    fn touched(&self) -> Vec<&BatchAt> {
        let is_touched = |batch: &&BatchAt| {
            let overlaps = |range: &Range<u64>| range.start < batch.end && range.end > batch.offset;
            self.changed.get(&batch.segment).is_some_and(|ranges| ranges.iter().any(overlaps))
        };
        self.pristine.batches.iter().filter(is_touched).collect()
    }

    fn is_touched(&self, position: Position) -> bool {
        self.touched().iter().any(|batch| batch.first <= position && position <= batch.last)
    }

    fn last_batch(&self) -> &BatchAt {
        self.pristine.batches.last().expect("there are batches")
    }

    /// The fields of a segment's header are others, or the file is shorter than them.
    fn header_touched(&self, segment: &str) -> bool {
        self.changed.get(segment).is_some_and(|ranges| {
            let is_short = |range: &Range<u64>| range.start < PAGE_BYTES && range.end > PAGE_BYTES;
            ranges.iter().any(|range| range.start < 64 || is_short(range))
        })
    }

    /// Segments whose bytes are others.
    fn segments(&self) -> impl Iterator<Item = &String> {
        self.changed.keys().filter(|name| Class::of(name) == Some(Class::Segment))
    }

    /// The damaged batches of which it is known that they were durable: by a later one, or by the note.
    fn proven(&self) -> Vec<&BatchAt> {
        let last = self.last_batch();
        self.touched().into_iter().filter(|batch| *batch != last || self.is_noted).collect()
    }

    /// Damage in one place. A batch in the place of another makes more than one thing wrong.
    fn is_plain(&self) -> bool {
        let span = |ranges: &Vec<Range<u64>>| {
            ranges.last().map_or(0, |range| range.end) - ranges.first().map_or(0, |range| range.start)
        };
        let damaged: Vec<_> = self.changed.iter().filter(|(name, _)| Class::of(name) != Some(Class::Note)).collect();
        let is_cut = |name: &str| {
            let length = std::fs::metadata(self.directory.join(name)).map_or(0, |meta| meta.len());
            length < self.pristine.listing[name].len() as u64
        };
        !self.is_swap
            && damaged.len() <= 1
            && damaged.iter().all(|(name, ranges)| is_cut(name) || span(ranges) <= PAGE_BYTES)
    }

    fn check_verify(&self, wrong: &mut Vec<String>) {
        let storage = ObservedStorage::new(self.directory.join("journal"));
        let report = match journal::verify(&storage, &mut |_| {}) {
            Ok(report) => report,
            Err(error) => return wrong.push(format!("verify fails: {error}")),
        };
        let proven = self.proven();
        let bad_header = self.segments().any(|segment| self.header_touched(segment));
        if proven.is_empty() && !bad_header {
            if !report.findings.is_empty() {
                wrong.push(format!("verify finds what is not there: {:?}", report.findings));
            }
        } else if report.findings.is_empty() {
            wrong.push(format!("verify finds nothing, {} batches are damaged", proven.len()));
        } else if self.is_plain() && !bad_header {
            self.check_findings(&report, &proven, wrong);
        }
        self.check_snapshots(wrong);
    }

    /// Each finding begins at a damaged batch, and together they name exactly the damaged ones.
    fn check_findings(&self, report: &VerifyReport, proven: &[&BatchAt], wrong: &mut Vec<String>) {
        let mut named = BTreeSet::new();
        for finding in &report.findings {
            // A file that ends between two batches is told where the next one begins.
            let is_there = finding.offset == 0
                || proven.iter().any(|batch| {
                    batch.segment.ends_with(&finding.segment)
                        && batch.offset == finding.offset
                        && batch.first == finding.from
                });
            if !is_there {
                wrong.push(format!("verify names a place that is not damaged: {finding}"));
            }
            named.extend(finding.from.0..=finding.to.unwrap_or(self.pristine.head()).0);
        }
        let damaged: BTreeSet<_> = proven.iter().flat_map(|batch| batch.first.0..=batch.last.0).collect();
        if damaged != named {
            let (missed, too_many) = (damaged.difference(&named).count(), named.difference(&damaged).count());
            wrong.push(format!("verify names {too_many} positions in vain and misses {missed}: {:?}", report.findings));
        }
        if report.records + damaged.len() as u64 != self.pristine.head().0 && self.is_noted {
            wrong.push(format!("verify counts {} records, {} are damaged", report.records, damaged.len()));
        }
    }

    /// A snapshot with other bytes is not taken for good.
    fn check_snapshots(&self, wrong: &mut Vec<String>) {
        let storage = ObservedStorage::new(self.directory.join("journal"));
        for name in self.changed.keys().filter(|name| Class::of(name) == Some(Class::Snapshot)) {
            let position =
                name.strip_prefix("journal/").and_then(snapshot::parse_file_name).expect("a snapshot's name");
            let read = snapshot::read_whole(&storage, position);
            if read.is_ok_and(|(meta, state)| Shard::decode_state(meta.shard, &state).is_ok()) {
                wrong.push(format!("{name} is taken for good"));
            }
        }
    }

    /// A refusal says where, and leaves everything as it was.
    fn check_refusal(&self, error: &StoreError, before: &Listing, wrong: &mut Vec<String>) {
        match error {
            StoreError::Journal(OpenError::Corrupt(corruption)) => {
                let segment = format!("journal/{}", corruption.segment);
                let in_place = self.touched().iter().any(|batch| {
                    batch.segment == segment && batch.offset == corruption.offset && batch.first == corruption.position
                });
                let in_header = corruption.offset == 0 && self.header_touched(&segment);
                if !(in_place || in_header || !self.is_plain() && self.changed.contains_key(&segment)) {
                    wrong.push(format!("it is refused for a place that is not damaged: {corruption}"));
                }
                if self.is_plain() && !in_header && !self.is_needed(&segment) {
                    wrong.push(format!("it is refused although the state needs nothing of it: {corruption}"));
                }
            }
            StoreError::Journal(OpenError::Foreign { segment, .. })
                if self.header_touched(&format!("journal/{segment}")) => {}
            // The end is missing, and a snapshot knows that there was more.
            StoreError::Journal(OpenError::Behind { head, from, .. }) if head < from => {}
            other => wrong.push(format!("it is refused without a place: {other}")),
        }
        let after = listing(self.directory);
        for (name, bytes) in before.iter().filter(|(name, _)| name.starts_with("journal/")) {
            if after.get(name) != Some(bytes) {
                wrong.push(format!("refused, it has changed {name}"));
            }
        }
    }

    /// Whether a start from the newest snapshot reads a segment.
    fn is_needed(&self, segment: &str) -> bool {
        let position = |name: &str| name.strip_prefix("journal/").and_then(journal::segment_file_position);
        let storage = ObservedStorage::new(self.directory.join("journal"));
        let newest = snapshot::list(&storage).ok().and_then(|found| found.last().copied()).unwrap_or_default();
        let firsts = self.pristine.listing.keys().filter_map(|name| position(name));
        !firsts.filter(|first| Some(*first) > position(segment)).any(|first| first <= newest.next())
    }

    /// The head is what it was, or the last batch is cut and reported; the state is the one of the head.
    fn check_head(&self, rig: &Rig, wrong: &mut Vec<String>) -> Verdict {
        let (head, last) = (rig.reader.head(), self.last_batch());
        let state = self.pristine.states.get(&head);
        if state != Some(&rig.state) {
            wrong.push(format!("the state at {head} is not what it was"));
        }
        let cut = rig.report.cut.as_ref();
        if head == self.pristine.head() {
            return if cut.is_some() { Verdict::NothingCut } else { Verdict::Harmless };
        }
        let before_last = Position(last.first.0 - 1);
        let reported = cut.is_some_and(|cut| cut.position == last.first && cut.offset == last.offset);
        if head != before_last {
            wrong.push(format!("it serves up to {head} of {}, as if no more had been there", self.pristine.head()));
        } else if !reported || !self.is_touched(last.first) || self.is_noted {
            wrong.push(format!("the last batch is gone, and the report says {cut:?}"));
        }
        Verdict::LastBatchCut
    }

    /// Every record is what it was, or is refused because its own batch is damaged.
    fn read_all(&self, reader: &Reader, wrong: &mut Vec<String>) -> ReadBack {
        let mut read = ReadBack { good: 0, refused: BTreeSet::new() };
        let end = reader.head().0;
        let mut next = reader.first().0;
        while next <= end {
            let positions: Vec<_> = (next..=end).map(Position).collect();
            match reader.read(&positions, 1 << 20) {
                Ok(entries) => {
                    for entry in &entries {
                        let index = usize::try_from(entry.position.0 - 1).expect("a small journal");
                        if self.pristine.entries.get(index) != Some(entry) {
                            wrong.push(format!("position {} is served as something else", entry.position));
                        }
                    }
                    read.good += entries.len() as u64;
                    next += entries.len() as u64;
                }
                Err(error) if error.is_of_record() && self.is_touched(Position(next)) => {
                    read.refused.insert(Position(next));
                    next += 1;
                }
                Err(error) => {
                    if wrong.len() < 3 {
                        wrong.push(format!("position {next} is not damaged, and refused: {error}"));
                    }
                    next += 1;
                }
            }
        }
        read
    }

    /// The index says where every message lies, if need be after it was built anew. Returns whether it was.
    fn check_index(&self, index: &Arc<Index>, reader: &Reader, wrong: &mut Vec<String>) -> bool {
        let writer = Writer::start(index, reader).expect("a thread");
        let head = reader.head();
        for (conversation, places) in &self.pristine.places {
            let expected: Vec<_> = places.iter().filter(|place| place.position <= head).copied().collect();
            match look_up(index, *conversation) {
                Some(found) if self.is_as_expected(index, &found, &expected) => {}
                Some(found) => {
                    wrong.push(format!("the index has {} of {} messages, or others", found.len(), expected.len()));
                }
                None => wrong.push("the index is not built anew".into()),
            }
        }
        let rebuilt = index.stats().rebuilds > 0;
        drop(writer);
        rebuilt
    }

    /// All are where they were; those that are lost, and they alone, at positions that are lost.
    fn is_as_expected(&self, index: &Index, found: &[Place], expected: &[Place]) -> bool {
        let lost = (&index).lost();
        let fits = |(found, expected): (&Place, &Place)| match lost.contains(expected.position) {
            true => {
                let is_there = found.seq == expected.seq && found.position >= expected.position;
                is_there && lost.contains(found.position) && self.is_touched(expected.position)
            }
            false => found == expected,
        };
        found.len() == expected.len() && found.iter().zip(expected).all(fits)
    }

    /// Nothing was deleted because it is bad, and what is good was left alone.
    fn check_files(&self, is_opened: bool, (before, after): (&Listing, &Listing), wrong: &mut Vec<String>) {
        let doubtful: BTreeMap<_, _> = after.iter().filter(|(name, _)| name.starts_with("index.doubtful-")).collect();
        let last = &self.last_batch().segment;
        for (name, bytes) in before {
            let there = after.get(name);
            let fine = match Class::of(name) {
                // A good one is never rewritten; the last one's tail moves to a segment of its own.
                Some(Class::Segment) => there == Some(bytes) || name == last && is_opened,
                Some(Class::Snapshot) => there == Some(bytes) || after.get(&format!("{name}.damaged")) == Some(bytes),
                // Sled writes to its files when it opens them.
                Some(Class::Index) => {
                    let aside = name.replacen("index/", "index.doubtful-1/", 1);
                    there.is_some() || doubtful.contains_key(&aside) || name.contains("snap.")
                }
                Some(Class::Spare | Class::Note) | None => true,
            };
            if !fine {
                wrong.push(format!("{name} is changed or gone"));
            }
        }
    }
}

/// Where the messages of a conversation lie. `None`: the index does not know for a minute.
fn look_up(index: &Index, conversation: ConversationId) -> Option<Vec<Place>> {
    const PAUSE: Duration = Duration::from_millis(2);
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        let mut places = Vec::new();
        match index.whole().places(conversation, Seq(1), usize::MAX, &mut places) {
            Ok(()) => return Some(places),
            Err(LookupError::Rebuilding | LookupError::OnDisk) => std::thread::sleep(PAUSE),
        }
        waited += PAUSE;
    }
    None
}
