//! A real shard and journal, an index that follows them, and what the index should say.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use carillon_core::Shard;
use carillon_core::effect::{Effects, Signal};
use carillon_core::input::{Attach, Authority, Input, Principal, Request};
use carillon_core::record::Record;
use carillon_protocol::control::ConversationCreate;
use carillon_protocol::deliver::AUTHOR_BROKER;
use carillon_protocol::ids::{
    ConversationId, DeviceId, Incarnation, Position, ProducerId, Seq, ShardId, TenantId, Timestamp, UserId,
};
use carillon_protocol::kinds::{ConversationKind, HistoryPolicy, MessageKind, PostPolicy, ReceiptPolicy, Target};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;
use tempfile::TempDir;

use crate::clock::SystemClock;
use crate::index::{Index, IndexOptions, Lookup, LookupError, MessageAt, Place, ReadMark, TruncateError};
use crate::journal::format::{BATCH_MAGIC, SEGMENT_HEADER_BYTES};
use crate::journal::{
    Draft, Identity, Journal, JournalOptions, Lost, MemoryStorage, ReadError, Reader, SegmentJournal, Upkeep,
};
use crate::snapshot;
use crate::store::{self, StoreOptions};

pub(super) const SHARD: ShardId = ShardId(3);

/// Conversations that are published into.
pub(super) const GROUPS: usize = 5;

pub(super) struct World {
    pub(super) directory: TempDir,
    pub(super) storage: MemoryStorage,
    incarnation: Incarnation,
    shard: Shard,
    journal: SegmentJournal,
    upkeep: Upkeep,
    pub(super) reader: Reader,
    pub(super) index: Arc<Index>,
    /// By group.
    pub(super) messages: [Vec<Place>; GROUPS],
    /// In the order they were made.
    pub(super) marks: Vec<ReadMark>,
    truncated: Position,
    number: u64,
}

/// The nth group; the two users have personal conversations before them.
pub(super) fn group(nth: usize) -> ConversationId {
    ConversationId::new(SHARD, 3 + nth as u64)
}

impl World {
    pub(super) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let storage = MemoryStorage::new();
        let incarnation = Incarnation(7);
        let shard = Shard::new(SHARD);
        let (journal, upkeep, reader, index) = open(&storage, incarnation, directory.path().join("index"));
        let messages = Default::default();
        let truncated = Position(0);
        let mut world = Self {
            directory,
            storage,
            incarnation,
            shard,
            journal,
            upkeep,
            reader,
            index,
            messages,
            marks: Vec::new(),
            truncated,
            number: 0,
        };
        let mut inputs: Vec<_> = ["ann", "bob"].map(attach).into();
        inputs.extend((0..).take(GROUPS).map(create));
        world.commit(inputs);
        world
    }

    pub(super) fn shard(&self) -> &Shard {
        &self.shard
    }

    pub(super) fn index_directory(&self) -> PathBuf {
        self.directory.path().join("index")
    }

    /// Publishes so many messages into a group, in one batch.
    pub(super) fn publish(&mut self, nth: usize, count: u64) {
        let mut inputs = Vec::new();
        for _ in 0..count {
            self.number += 1;
            let user = UserId(0);
            let who = Principal { tenant: TenantId(0), user, authority: Authority::Service };
            let publish = Publish {
                number: self.number,
                low: self.number,
                target: Target::CONVERSATION,
                target_id: group(nth).0,
                kind: MessageKind::TEXT,
                payload: Bytes::new(),
            };
            inputs.push(Input::Publish { who, producer: Some(ProducerId(9)), publish });
        }
        self.commit(inputs);
    }

    /// The user reads a group up to this message.
    pub(super) fn mark(&mut self, nth: usize, user: u32, up_to: u64) {
        let request = Request::MarkRead(MarkRead { request: 1, conversation: group(nth), up_to: Seq(up_to) });
        let who = Principal { tenant: TenantId(0), user: UserId(user), authority: Authority::User };
        self.commit(vec![Input::Request { who, request }]);
    }

    /// How many messages a group has had.
    pub(super) fn published(&self, nth: usize) -> u64 {
        self.messages[nth].len() as u64
    }

    fn commit(&mut self, inputs: Vec<Input>) {
        let mut effects = Effects::default();
        let mut draft = Draft::new(self.journal.head().next());
        for input in inputs {
            // Every record has its own time.
            self.shard.handle(Timestamp(1_000 + self.shard.head().0), input, &mut effects);
            for record in effects.records.drain(..) {
                if let Record::ReadMarked(mark) = &record {
                    self.marks.push(ReadMark::of(draft.next_position(), mark));
                    self.index.append_mark(self.marks.last().unwrap());
                }
                draft.push(|private, frame| record.encode(private, frame));
            }
            effects.reply = None;
        }
        if draft.is_empty() {
            return;
        }
        self.journal.commit(draft).unwrap();
        for signal in effects.signals {
            if let Signal::Message { position, conversation, seq, author } = signal {
                self.index.append(conversation, seq, position, author);
                // The users' personal conversations have messages too.
                if let Some(nth) = conversation.ordinal().checked_sub(3) {
                    self.messages[usize::try_from(nth).unwrap()].push(Place { seq, position, author });
                }
            }
        }
        self.index.reach(self.journal.head());
    }

    /// A flush, and as much of an eviction.
    pub(super) fn flush(&self, keep_bytes: usize) {
        let mut work = self.index.lock();
        self.index.tidy(&mut work).ok();
        self.index.evict_to(&mut work, keep_bytes);
    }

    /// Takes the oldest segments, up to a position at most; the index is told first, or never.
    pub(super) fn truncate(&mut self, keep_from: Position, tell: bool) -> Result<(), TruncateError> {
        self.truncate_with(keep_from, tell, true)
    }

    /// The same on a disk that has room or not.
    pub(super) fn truncate_with(
        &mut self,
        keep_from: Position,
        tell: bool,
        has_room: bool,
    ) -> Result<(), TruncateError> {
        let boundary = self.storage_first(keep_from);
        if tell {
            self.index.truncate(Position(boundary.0 - 1), has_room)?;
        }
        self.upkeep.truncate(keep_from).unwrap();
        assert_eq!(self.reader.first(), boundary);
        self.truncated = self.truncated.max(Position(boundary.0 - 1));
        Ok(())
    }

    /// Where the journal begins when everything before a position may go.
    fn storage_first(&self, keep_from: Position) -> Position {
        let names = crate::journal::Storage::list(&self.storage).unwrap();
        let firsts = names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok());
        Position(firsts.filter(|first| *first <= keep_from.0.max(self.reader.first().0)).max().unwrap())
    }

    pub(super) fn head(&self) -> u64 {
        self.journal.head().0
    }

    /// Where the journal begins.
    pub(super) fn kept_from(&self) -> u64 {
        self.reader.first().0
    }

    /// The broker ends and starts again; what was not flushed is lost.
    pub(super) fn restart(&mut self) {
        self.restart_after(|_| ());
    }

    /// The same with something done to the directory in between.
    pub(super) fn restart_after(&mut self, change: impl FnOnce(&std::path::Path)) {
        self.index = Arc::new(Index::new());
        self.snapshot();
        change(&self.index_directory());
        (self.journal, self.upkeep, self.reader, self.index) =
            open(&self.storage, self.incarnation, self.index_directory());
    }

    /// Of the state as it is: a start needs nothing of the journal but its last segment.
    fn snapshot(&self) {
        let (position, time) = (self.shard.head(), self.shard.last_time());
        let meta = snapshot::Meta { shard: SHARD, incarnation: self.incarnation, position, time };
        if !snapshot::list(&self.storage).unwrap().contains(&position) {
            snapshot::write(&self.storage, &meta, &snapshot::encode(&self.shard), &mut |_| Ok(())).unwrap();
        }
    }

    /// Flips a bit of a segment but for the last one, behind its header; which, in thousandths.
    pub(super) fn damage(&self, (segment, byte): (usize, usize)) {
        let names = crate::journal::Storage::list(&self.storage).unwrap();
        let mut segments: Vec<_> = names.into_iter().filter(|name| name.ends_with(".journal")).collect();
        segments.sort_unstable();
        segments.pop();
        let share = |thousandths: usize, count: usize| thousandths * count / 1_000;
        if let Some(name) = segments.get(share(segment, segments.len())) {
            let contents = self.storage.contents(name);
            let used = contents.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            self.storage.flip(name, SEGMENT_HEADER_BYTES + share(byte, used - SEGMENT_HEADER_BYTES), 4);
        }
    }

    /// Flips a bit in the header of the batch that begins at a position, so that nothing of it can be read; once more, and it can.
    pub(super) fn damage_batch(&self, first: Position) {
        let names = crate::journal::Storage::list(&self.storage).unwrap();
        for name in names.into_iter().filter(|name| name.ends_with(".journal")) {
            let contents = self.storage.contents(&name);
            let begins = |at: &usize| {
                contents[*at..*at + 4] == BATCH_MAGIC && contents[at + 32..at + 40] == first.0.to_le_bytes()
            };
            if let Some(at) = (0..contents.len() - 40).find(begins) {
                self.storage.flip(&name, at + 17, 1);
            }
        }
    }

    /// Positions that the index was built without.
    pub(super) fn lost(&self) -> Lost {
        self.index.lock().lost.clone()
    }

    /// Judges what the index says of messages that are lost, and takes its word for where they are: at a lost position, not before
    /// the true one; or, where retention took the beginning, below the floor, with one in place of all of them. All others are where they are.
    pub(super) fn adopt(&mut self) {
        let lost = self.lost();
        for (first, last) in lost.runs() {
            for position in (first.0..=last.0).map(Position) {
                let refused = self.reader.read(&[position], 1).unwrap_err();
                assert!(matches!(refused, ReadError::LeftOut { .. }), "{position}: {refused}");
            }
        }
        for nth in 0..GROUPS {
            let floor = self.index.floor(group(nth)).0;
            let mut places = Vec::new();
            self.index.whole().places(group(nth), Seq(0), usize::MAX, &mut places).unwrap();
            let is_lost = |place: &Place| lost.contains(place.position);
            let truncated = self.truncated;
            for truth in &mut self.messages[nth] {
                if truth.seq <= floor && truth.position > truncated {
                    assert!(is_lost(truth) && places.first().is_some_and(is_lost), "{truth:?}, {places:?}");
                    truth.position = truncated;
                }
            }
            for place in places {
                let truth = &mut self.messages[nth][usize::try_from(place.seq.0).unwrap() - 1];
                if is_lost(&place) {
                    assert!(truth.position <= place.position && place.author == AUTHOR_BROKER, "{truth:?}, {place:?}");
                    let is_lowest = place.seq == floor.next() && truth.position <= truncated;
                    assert!(is_lost(truth) || is_lowest, "{truth:?}, {place:?}");
                    *truth = place;
                } else {
                    assert_eq!(*truth, place);
                }
            }
        }
    }

    /// What is above the floor, by group.
    pub(super) fn kept(&self, nth: usize) -> &[Place] {
        let gone = self.messages[nth].partition_point(|place| place.position <= self.truncated);
        &self.messages[nth][gone..]
    }

    /// Compares everything the index says with what it should.
    pub(super) fn check(&self) {
        for nth in 0..GROUPS {
            let (all, kept) = (&self.messages[nth], self.kept(nth));
            let gone = &all[..all.len() - kept.len()];
            let end = |places: &[Place]| places.last().map_or_else(Default::default, |last| (last.seq, last.position));
            assert_eq!(self.index.last(group(nth)), end(all), "where group {nth} ends");
            let (floor, floor_position) = self.index.floor(group(nth));
            assert_eq!(floor, end(gone).0, "the floor of group {nth}");
            let bound = if gone.is_empty() { Position(0) } else { self.truncated };
            assert!(
                (end(gone).1..=bound.max(end(gone).1)).contains(&floor_position),
                "{floor_position} in group {nth}"
            );
            let head = self.head();
            for (after, through) in [(0, head), (head / 3, head / 2), (head / 2, head), (head * 9 / 10, head), (0, 3)] {
                for limit in [1, 5, 130, usize::MAX] {
                    self.check_positions(nth, Position(after), Position(through), limit);
                }
            }
            for position in (0..=head).step_by(usize::try_from(head / 40 + 1).unwrap()) {
                self.check_rank(nth, Position(position));
            }
            for place in [kept.first(), kept.get(kept.len() / 2), kept.last()].into_iter().flatten() {
                self.check_read_times(nth, place);
            }
            for from in [0, 1, all.len() as u64 / 2, all.len() as u64, all.len() as u64 + 1] {
                self.check_places(nth, Seq(from), 140);
            }
        }
    }

    fn check_positions(&self, nth: usize, after: Position, through: Position, limit: usize) {
        let inside = |place: &&Place| after < place.position && place.position <= through;
        let expected: Vec<_> = self.kept(nth).iter().filter(inside).map(|place| place.position).take(limit).collect();
        let look = |lookup: &dyn Lookup| {
            let mut out = vec![Position(99)];
            lookup.positions(group(nth), after, through, limit, &mut out).map(|()| out.split_off(1))
        };
        agree(look(&self.index.recent()), &look(&self.index.whole()), &expected, "positions");
    }

    fn check_rank(&self, nth: usize, position: Position) {
        let before = self.messages[nth].iter().filter(|place| place.position <= position);
        let expected = before.count().max(self.messages[nth].len() - self.kept(nth).len());
        let look = |lookup: &dyn Lookup| lookup.rank(group(nth), position);
        agree(look(&self.index.recent()), &look(&self.index.whole()), &Seq(expected as u64), "rank");
    }

    fn check_read_times(&self, nth: usize, place: &Place) {
        let message = MessageAt { conversation: group(nth), seq: place.seq, position: place.position };
        let passed = |mark: &&ReadMark| mark.conversation == message.conversation && mark.up_to >= place.seq;
        let users = [UserId(1), UserId(0), UserId(7)];
        let lost = self.lost();
        let known = |mark: &&ReadMark| passed(mark) && !lost.contains(mark.position);
        let first = |user| {
            let mark = self.marks.iter().filter(known).find(|mark| mark.user == user)?;
            (!lost.meets(place.position..=mark.position) && !lost.contains(place.position)).then_some(mark.time)
        };
        let expected: Vec<_> = users.map(|user| first(user).unwrap_or_default()).into();
        let look = |lookup: &dyn Lookup| lookup.read_times(&message, &users);
        agree(look(&self.index.recent()), &look(&self.index.whole()), &expected, "times of reading");
    }

    fn check_places(&self, nth: usize, from: Seq, limit: usize) {
        let kept = self.kept(nth).iter();
        let expected: Vec<_> = kept.filter(|place| place.seq >= from).take(limit).copied().collect();
        let look = |lookup: &dyn Lookup| {
            let mut out = Vec::new();
            lookup.places(group(nth), from, limit, &mut out).map(|()| out)
        };
        agree(look(&self.index.recent()), &look(&self.index.whole()), &expected, "places");
        if let (Some(place), Some(author)) = (expected.first(), self.index.author(group(nth), from)) {
            assert_eq!((place.seq, place.author), (from, author));
        }
    }
}

/// The whole index knows; its memory knows the same, or says that it does not know.
fn agree<T: PartialEq + std::fmt::Debug>(
    recent: Result<T, LookupError>,
    whole: &Result<T, LookupError>,
    expected: &T,
    what: &str,
) {
    assert_eq!(whole.as_ref(), Ok(expected), "{what}");
    match recent {
        Ok(recent) => assert_eq!(&recent, expected, "{what}, in memory"),
        Err(error) => assert_eq!(error, LookupError::OnDisk),
    }
}

/// A start.
fn open(
    storage: &MemoryStorage,
    incarnation: Incarnation,
    directory: PathBuf,
) -> (SegmentJournal, Upkeep, Reader, Arc<Index>) {
    let identity = Some(Identity { incarnation, salt: 0x99 });
    let journal =
        JournalOptions { segment_bytes: 16 * 1024, identity, reserve_bytes: 16 * 1024, ..JournalOptions::new(SHARD) };
    let options = StoreOptions { journal, clock: Arc::new(SystemClock), progress: None };
    let index = Index::open(IndexOptions { directory: Some(directory), shard: SHARD, memory_bytes_max: 0 });
    let store = store::open(Arc::new(storage.clone()), &options, &mut &index).unwrap();
    (store.opened.journal, store.opened.upkeep, store.opened.reader, Arc::new(index))
}

fn attach(name: &str) -> Input {
    Input::Attach(Attach {
        tenant: "acme".into(),
        handle: name.into(),
        authority: Authority::Service,
        device: DeviceId(5),
        producer: Some(ProducerId(9)),
    })
}

fn create(nth: u32) -> Input {
    let request = ConversationCreate {
        request: nth + 1,
        kind: ConversationKind::GROUP,
        post_policy: PostPolicy(0),
        history: HistoryPolicy(0),
        receipts: ReceiptPolicy(0),
        name: "".into(),
        members: vec![UserId(1)],
    };
    let who = Principal { tenant: TenantId(0), user: UserId(nth % 2), authority: Authority::Service };
    Input::Request { who, request: Request::ConversationCreate(request) }
}
