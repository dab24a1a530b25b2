//! A shard on a simulated directory, over several lives.

use std::sync::Arc;

use bytes::Bytes;
use carillon_core::effect::Effects;
use carillon_core::effect::Reply;
use carillon_core::input::{Attach, Authority, Input, Principal};
use carillon_protocol::ids::{ConversationId, DeviceId, ProducerId, ShardId, TenantId, Timestamp, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::Publish;

use super::*;
use crate::clock::SystemClock;
use crate::journal::format::BATCH_MAGIC;
use crate::journal::{CommitError, Draft, Identity, Journal, MemoryStorage, verify};

pub(crate) const SHARD: ShardId = ShardId(3);

/// A few batches fill a segment.
pub(crate) const SEGMENT_BYTES: u64 = 4096 + 900;

pub(crate) fn options() -> StoreOptions {
    let identity = Identity { incarnation: Incarnation(0x77), salt: 0x99 };
    let journal = JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        identity: Some(identity),
        reserve_bytes: SEGMENT_BYTES,
        ..JournalOptions::new(SHARD)
    };
    StoreOptions { journal, clock: Arc::new(SystemClock), progress: None }
}

/// A follower that remembers what it was given.
#[derive(Default, Debug, Clone, PartialEq)]
pub(crate) struct Diary {
    pub(crate) through: u64,
    pub(crate) messages: Vec<(Position, ConversationId)>,
    pub(crate) begun: Vec<Begin>,
    pub(crate) resets: usize,
    pub(crate) lost: Lost,
    /// How often it was given what it had.
    pub(crate) repeated: usize,
    /// Verdicts to give, the next one last.
    pub(crate) verdicts: Vec<Verdict>,
}

impl Follow for Diary {
    fn begin(&mut self, journal: Begin) -> Position {
        self.begun.push(journal);
        Position(self.through)
    }

    fn follow(&mut self, position: Position, record: &Record) {
        if position.0 <= self.through {
            self.repeated += 1;
            return;
        }
        self.through = position.0;
        if let Record::Message(message) = record {
            self.messages.push((position, message.deliver.conversation));
        }
    }

    fn lose(&mut self, position: Position) {
        assert!(position.0 > self.through, "{position} was given");
        self.through = position.0;
        self.lost.push(position);
    }

    fn lost(&self) -> Lost {
        self.lost.clone()
    }

    fn end(&mut self, _: &Shard) -> Result<Verdict, Unwritable> {
        Ok(self.verdicts.pop().unwrap_or(Verdict::InStep))
    }

    fn reset(&mut self, journal: Begin) {
        self.resets += 1;
        self.messages.clear();
        self.lost = Lost::default();
        self.through = journal.first.0 - 1;
    }
}

/// A shard that is served from an open store.
pub(crate) struct Life {
    pub(crate) store: Store,
    pub(crate) now: Timestamp,
    number: u64,
}

impl Life {
    pub(crate) fn new(store: Store) -> Self {
        let now = Timestamp(store.shard.last_time().0.max(1_000));
        Self { store, now, number: 0 }
    }

    pub(crate) fn open(storage: &MemoryStorage, diary: &mut Diary) -> Result<Self, StoreError> {
        open(Arc::new(storage.clone()), &options(), diary).map(Self::new)
    }

    /// One batch: two users who attach, or one message between them, of a size that depends on the position.
    pub(crate) fn step(&mut self) -> Result<(), CommitError> {
        self.now.0 += 10;
        let mut effects = Effects::default();
        let mut draft = Draft::new(self.store.opened.journal.head().next());
        let names = ["ann", "bob"];
        let inputs: Vec<_> = if self.number == 0 {
            names.map(attach).into()
        } else {
            let who = Principal { tenant: TenantId(0), user: UserId(0), authority: Authority::User };
            let payload = vec![b'x'; (draft.first().0 % 7) as usize * 40];
            vec![Input::Publish { who, producer: Some(ProducerId(9)), publish: direct(self.number, payload) }]
        };
        for input in inputs {
            self.store.shard.handle(self.now, input, &mut effects);
            for record in effects.records.drain(..) {
                draft.push(|private, frame| record.encode(private, frame));
            }
            effects.signals.clear();
            if let Some(Reply::Attached(attached)) = effects.reply.take() {
                self.number = self.number.max(attached.producer_highest);
            }
        }
        self.number += 1;
        if draft.is_empty() { Ok(()) } else { self.store.opened.journal.commit(draft).map(drop) }
    }

    pub(crate) fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step().unwrap();
        }
    }

    pub(crate) fn state(&self) -> Vec<u8> {
        state(&self.store.shard)
    }
}

pub(crate) fn state(shard: &Shard) -> Vec<u8> {
    let mut bytes = Vec::new();
    shard.encode_state(&mut bytes);
    bytes
}

fn attach(name: &str) -> Input {
    Input::Attach(Attach {
        tenant: "acme".into(),
        handle: name.into(),
        authority: Authority::User,
        device: DeviceId(5),
        producer: Some(ProducerId(9)),
    })
}

fn direct(number: u64, payload: Vec<u8>) -> Publish {
    Publish {
        number,
        low: number,
        target: Target::USER,
        target_id: 1,
        kind: MessageKind::TEXT,
        payload: Bytes::from(payload),
    }
}

/// A journal of some segments, and the state at its end.
pub(crate) fn written(storage: &MemoryStorage, steps: usize) -> (Life, Diary) {
    let mut life = Life::open(storage, &mut Diary::default()).unwrap();
    life.steps(steps);
    let mut diary = Diary::default();
    let opened = Life::open(storage, &mut diary).unwrap();
    assert_eq!(opened.state(), life.state());
    (opened, diary)
}

#[test]
fn shard_and_follower_stand_at_the_head() {
    let storage = MemoryStorage::new();
    let (life, diary) = written(&storage, 20);
    assert!(diary.messages.len() > 15);
    assert_eq!(diary.through, life.store.opened.journal.head().0);
    assert_eq!(diary.begun, [Begin { incarnation: Incarnation(0x77), first: Position(1) }]);
}

#[test]
fn a_follower_is_given_what_it_lacks() {
    let storage = MemoryStorage::new();
    let (life, all) = written(&storage, 20);
    for through in 0..=all.through {
        let mut diary = Diary { through, ..Diary::default() };
        let again = Life::open(&storage, &mut diary).unwrap();
        assert_eq!(again.state(), life.state());
        let lacked: Vec<_> = all.messages.iter().filter(|(position, _)| position.0 > through).copied().collect();
        assert_eq!(diary.messages, lacked, "after {through}");
        assert_eq!(diary.resets, 0);
    }
}

#[test]
fn a_follower_out_of_step_is_given_everything_again() {
    let storage = MemoryStorage::new();
    let (life, all) = written(&storage, 20);
    let doubtful = Diary { through: 9, verdicts: vec![Verdict::Again], ..Diary::default() };
    let ahead = Diary { through: all.through + 1, ..Diary::default() };
    for mut diary in [doubtful, ahead] {
        let again = Life::open(&storage, &mut diary).unwrap();
        assert_eq!(again.state(), life.state());
        assert_eq!((&diary.messages, diary.resets), (&all.messages, 1));
    }
    let mut never = Diary { verdicts: vec![Verdict::Again; 2], ..Diary::default() };
    assert!(matches!(Life::open(&storage, &mut never), Err(StoreError::Contradiction)));
}

/// Writes a snapshot of the state as it is.
fn snapshot_now(storage: &MemoryStorage, life: &Life) -> Position {
    let shard = &life.store.shard;
    let meta = snapshot::Meta {
        shard: SHARD,
        incarnation: Incarnation(0x77),
        position: shard.head(),
        time: shard.last_time(),
    };
    snapshot::write(storage, &meta, &snapshot::encode(shard), &mut |_| Ok(())).unwrap();
    shard.head()
}

/// A journal with snapshots after 8 and 14 steps, and the state at its end.
fn with_snapshots(storage: &MemoryStorage) -> (Life, [Position; 2], Diary) {
    let mut life = Life::open(storage, &mut Diary::default()).unwrap();
    life.steps(8);
    let older = snapshot_now(storage, &life);
    life.steps(6);
    let newer = snapshot_now(storage, &life);
    life.steps(6);
    let mut all = Diary::default();
    Life::open(storage, &mut all).unwrap();
    (life, [older, newer], all)
}

#[test]
fn a_start_takes_the_newest_good_snapshot() {
    let storage = MemoryStorage::new();
    let (life, [older, newer], all) = with_snapshots(&storage);
    let check = |expected: Position, through: Position| {
        let mut diary = Diary { through: through.0, ..Diary::default() };
        let again = Life::open(&storage, &mut diary).unwrap();
        assert_eq!((again.store.snapshot, again.state()), (expected, life.state()));
        let lacked: Vec<_> = all.messages.iter().filter(|(position, _)| *position > through).copied().collect();
        assert_eq!(diary.messages, lacked);
    };
    check(newer, Position(0));
    check(newer, Position(all.through));
    storage.flip(&snapshot::file_name(newer), 70, 1);
    check(older, Position(newer.0 + 1));
    assert!(storage.names().contains(&format!("{:020}.snapshot.damaged", newer.0)));
    check(older, Position(3));
    storage.flip(&snapshot::file_name(older), 10, 1);
    check(Position(0), Position(0));
    // Of another shard, with a bad checksum: also only set aside.
    assert_eq!(snapshot::list(&storage).unwrap(), []);
}

#[test]
fn a_snapshot_saves_reading_the_journal_before_it() {
    let storage = MemoryStorage::new();
    let (life, _, all) = with_snapshots(&storage);
    // The first segment is damaged: nobody looks at it.
    let name = storage.names().into_iter().find(|name| name.ends_with(".journal")).unwrap();
    storage.flip(&name, 4096 + 20, 1);
    let again = Life::open(&storage, &mut Diary { through: all.through, ..Diary::default() }).unwrap();
    assert_eq!(again.state(), life.state());
}

/// The first segments, and a byte in each batch of them: of its header, and the last of it.
fn places_in_batches(storage: &MemoryStorage, before: Position) -> Vec<(String, usize)> {
    let segments: Vec<_> = storage.names().into_iter().filter(|name| name.ends_with(".journal")).collect();
    let is_before = |pair: &&[String]| pair[1][..20].parse::<u64>().unwrap() <= before.0;
    let mut places = Vec::new();
    for pair in segments.windows(2).take_while(is_before) {
        let contents = storage.contents(&pair[0]);
        for at in (0..contents.len() - 4).filter(|at| contents[*at..*at + 4] == BATCH_MAGIC) {
            let bytes = u32::from_le_bytes(contents[at + 16..at + 20].try_into().unwrap()) as usize;
            places.extend([at + 17, at + bytes - 1].map(|place| (pair[0].clone(), place)));
        }
    }
    places
}

#[test]
fn a_follower_goes_on_without_what_is_damaged_before_the_snapshot() {
    let pristine = MemoryStorage::new();
    let (life, [_, newer], all) = with_snapshots(&pristine);
    let places = places_in_batches(&pristine, newer);
    assert!(places.len() > 10);
    for (name, offset) in places {
        let storage = pristine.durable_copy();
        storage.flip(&name, offset, 1);
        // From the begin, from behind the damage, in step or to be given all of it again.
        for through in 0..=newer.0 {
            for verdicts in [vec![], vec![Verdict::Again]] {
                let mut diary = Diary { through, verdicts, ..Diary::default() };
                let again = Life::open(&storage, &mut diary).unwrap();
                assert_eq!((again.store.snapshot, again.state()), (newer, life.state()));
                let reader = &again.store.opened.reader;
                let since = if diary.resets > 0 { 0 } else { through };
                let mut refused = Lost::default();
                for position in (since + 1..=all.through).map(Position) {
                    if let Err(error) = reader.read(&[position], 1) {
                        assert!(matches!(error, ReadError::LeftOut { .. }), "{error}");
                        refused.push(position);
                    }
                }
                assert_eq!(diary.lost, refused, "{name} at {offset}, after {through}");
                let expected = all.messages.iter().filter(|(at, _)| at.0 > since && !refused.contains(*at));
                assert!(diary.messages.iter().eq(expected), "{name} at {offset}, after {through}");
            }
        }
    }
}

#[test]
fn damage_that_the_state_needs_is_refused_whatever_the_follower_has() {
    let pristine = MemoryStorage::new();
    let (_, [older, newer], all) = with_snapshots(&pristine);
    let refusal = |storage: &MemoryStorage, through: u64| {
        let refused = Life::open(storage, &mut Diary { through, ..Diary::default() }).err();
        matches!(refused, Some(StoreError::Journal(OpenError::Corrupt(_))))
    };
    let name = segment_of(&pristine, newer.next());
    let behind = pristine.durable_copy();
    behind.flip(&name, 4096 + 17, 1);
    assert!((0..=all.through).all(|through| refusal(&behind, through)), "the segment that goes on from the snapshot");
    // A file that is gone is no damage.
    let gone = pristine.durable_copy();
    let names: Vec<_> = gone.names().into_iter().filter(|name| name.ends_with(".journal")).collect();
    names[1..names.len() - 2].iter().for_each(|name| gone.remove(name).unwrap());
    assert!(refusal(&gone, 0), "it can be put back");
    // Without a snapshot, all of it.
    let begin = pristine.durable_copy();
    begin.flip(&segment_of(&pristine, Position(1)), 4096 + 17, 1);
    for snapshot in [older, newer] {
        begin.remove(&snapshot::file_name(snapshot)).unwrap();
    }
    assert!(refusal(&begin, 0) && refusal(&begin, all.through));
}

fn segment_of(storage: &MemoryStorage, position: Position) -> String {
    let segments = storage.names().into_iter().filter(|name| name.ends_with(".journal"));
    segments.filter(|name| name[..20].parse::<u64>().unwrap() <= position.0).max().unwrap()
}

#[test]
fn what_can_be_read_again_is_given_again() {
    let storage = MemoryStorage::new();
    let (_, [_, newer], all) = with_snapshots(&storage);
    let (name, offset) = places_in_batches(&storage, newer)[4].clone();
    storage.flip(&name, offset, 1);
    let mut diary = Diary::default();
    let opened = Life::open(&storage, &mut diary).unwrap();
    assert!(!diary.lost.is_empty() && diary.messages.len() < all.messages.len());
    let lost = diary.lost.runs()[0].0;
    // While it is served it stays lost, whatever is read there.
    storage.flip(&name, offset, 1);
    let reader = &opened.store.opened.reader;
    assert!(matches!(reader.read(&[lost], 1), Err(ReadError::LeftOut { position }) if position == lost));
    // A start with it damaged still leaves it out, without reading the rest again.
    storage.flip(&name, offset, 1);
    diary.messages.clear();
    let again = Life::open(&storage, &mut diary).unwrap();
    assert_eq!((diary.messages.len(), diary.resets), (0, 0));
    assert!(again.store.opened.reader.read(&[lost], 1).is_err());
    storage.flip(&name, offset, 1);
    let again = Life::open(&storage, &mut diary).unwrap();
    assert_eq!((&diary.messages, diary.resets, diary.lost.is_empty()), (&all.messages, 1, true));
    assert!(again.store.opened.reader.read(&[lost], 1).is_ok());
}

#[test]
fn lost_segments_are_not_covered_up_by_snapshots() {
    let storage = MemoryStorage::new();
    let (_, [_, newer], _) = with_snapshots(&storage);
    let segments: Vec<_> = storage.names().into_iter().filter(|name| name.ends_with(".journal")).collect();
    let covered = |name: &String| name.as_str() <= format!("{:020}", newer.0).as_str();
    for name in segments.iter().rev().take_while(|name| !covered(name)) {
        storage.remove(name).unwrap();
    }
    storage.remove(segments.iter().rfind(|name| covered(name)).unwrap()).unwrap();
    let refused = Life::open(&storage, &mut Diary::default()).err().unwrap();
    assert!(matches!(refused, StoreError::Journal(OpenError::Behind { from, .. }) if from == newer), "{refused}");
    for name in &segments {
        storage.remove(name).ok();
    }
    let refused = Life::open(&storage, &mut Diary::default()).err().unwrap();
    assert!(matches!(refused, StoreError::Journal(OpenError::Gone { .. })), "{refused}");
    storage.remove("head").unwrap();
    let refused = Life::open(&storage, &mut Diary::default()).err().unwrap();
    assert!(matches!(refused, StoreError::Missing { .. }), "{refused}");
}

#[test]
fn a_journal_without_its_begin_needs_a_snapshot() {
    let storage = MemoryStorage::new();
    let (life, [older, newer], all) = with_snapshots(&storage);
    let segments: Vec<_> = storage.names().into_iter().filter(|name| name.ends_with(".journal")).collect();
    let second: u64 = segments[1][..20].parse().unwrap();
    assert!(second <= older.0);
    storage.remove(&segments[0]).unwrap();
    let refused = Life::open(&storage, &mut Diary::default()).err().unwrap();
    assert!(matches!(refused, StoreError::Journal(OpenError::Corrupt(_))), "nobody wanted it to go: {refused}");
    let audit = verify(&storage, &mut |_| {}).unwrap();
    let lost = audit.findings.first().map(|finding| (finding.from, finding.to));
    assert_eq!(lost, Some((Position(1), Some(Position(second - 1)))));
    // It is given up.
    storage.remove("begin").unwrap();
    let mut diary = Diary::default();
    let again = Life::open(&storage, &mut diary).unwrap();
    assert_eq!(again.state(), life.state());
    assert_eq!(diary.begun[0].first, Position(second));
    let kept: Vec<_> = all.messages.iter().filter(|(position, _)| position.0 >= second).copied().collect();
    assert_eq!(diary.messages, kept);
    for position in [older, newer] {
        storage.flip(&snapshot::file_name(position), 70, 1);
    }
    let refused = Life::open(&storage, &mut Diary::default()).err().unwrap();
    let StoreError::NoSnapshot { first, tried } = refused else { panic!("{refused}") };
    assert_eq!((first.0, tried.len()), (second, 2));
}
