//! The directory before it is damaged: made by the production store, sequencer, keeper, spare and index over three lives, and
//! everything that is true of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use carillon::index::{Index, IndexOptions, MEMORY_BYTES_MIN, Place, Writer};
use carillon::journal::{Entry, FileStorage, segment_file_position};
use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply};
use carillon_core::input::{Authority, Input, Principal, Request};
use carillon_core::record::Record;
use carillon_protocol::Frame;
use carillon_protocol::ids::{ConversationId, Position, ProducerId, Seq, TenantId, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::publish::Publish;
use carillon_protocol::receipt::MarkRead;

use super::files::{Listing, listing};
use crate::rig::{Ground, Rig, SHARD, SetClock, attach};
use crate::sim::rng::Rng;

const PEOPLE: u32 = 5;

/// Some twenty batches fill a segment.
const SEGMENT_BYTES: u64 = 64 * 1024;

/// Commits between one snapshot and the next, of which there are two, and after them.
const COMMITS: usize = 90;

/// Where a batch lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAt {
    /// The file, below the data directory.
    pub segment: String,
    /// Its first byte.
    pub offset: u64,
    /// Behind its last byte.
    pub end: u64,
    /// Its first position.
    pub first: Position,
    /// Its last position.
    pub last: Position,
}

/// See the module.
pub struct Pristine {
    /// Where it is.
    pub directory: PathBuf,
    /// What is in it.
    pub listing: Listing,
    /// All batches, in order.
    pub batches: Vec<BatchAt>,
    /// All records; the one of position 1 first.
    pub entries: Vec<Entry>,
    /// The shard's state after each batch, by its last position.
    pub states: BTreeMap<Position, Vec<u8>>,
    /// Where each message lies.
    pub places: BTreeMap<ConversationId, Vec<Place>>,
}

/// A rig on the files of a data directory.
///
/// # Panics
/// If another has the directory.
pub fn ground(directory: &Path) -> Ground {
    let storage = FileStorage::open(directory.join("journal")).expect("nobody else has the directory");
    let index =
        IndexOptions { directory: Some(directory.join("index")), shard: SHARD, memory_bytes_max: MEMORY_BYTES_MIN };
    Ground {
        storage: Arc::new(storage),
        index: Arc::new(Index::open(index)),
        clock: Arc::new(SetClock::default()),
        segment_bytes: SEGMENT_BYTES,
        retention_bytes: None,
    }
}

impl Pristine {
    /// Makes it.
    ///
    /// # Panics
    /// If it cannot.
    pub fn make(directory: &Path, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut people = People::default();
        for life in 0..3 {
            let ground = ground(directory);
            let mut rig = Rig::open(&ground).expect("the directory is good");
            let writer = Writer::start(&ground.index, &rig.reader).expect("a thread");
            rig.preparer.prepare().expect("a spare is made");
            people.attach(&mut rig);
            for commit in 0..COMMITS {
                ground.clock.advance(10);
                people.commit(&mut rig, &mut rng);
                if commit % 25 == 0 {
                    rig.preparer.prepare().expect("a spare is made");
                }
            }
            // Written out: the next life has these messages on disk alone, and the last one some in memory.
            drop(writer);
            if life < 2 {
                rig.keeper.take().expect("a snapshot is taken");
            }
            for _ in 0..6 {
                people.commit(&mut rig, &mut rng);
            }
            rig.preparer.prepare().expect("a spare is made");
        }
        Self::of(directory)
    }

    fn of(directory: &Path) -> Self {
        let listing = listing(directory);
        let batches = batches(&listing);
        let head = batches.last().expect("there are batches").last;
        let scratch = directory.with_extension("read");
        super::files::copy(directory, &scratch);
        let ground = ground(&scratch);
        let rig = Rig::open(&ground).expect("the directory is good");
        let positions: Vec<_> = (1..=head.0).map(Position).collect();
        let mut entries = Vec::new();
        while entries.len() < positions.len() {
            entries.extend(rig.reader.read(&positions[entries.len()..], 1 << 20).expect("every record is good"));
        }
        let (mut shard, mut effects) = (Shard::new(SHARD), Effects::default());
        let (mut states, mut places) = (BTreeMap::new(), BTreeMap::<_, Vec<Place>>::new());
        let mut ends = batches.iter().map(|batch| batch.last).peekable();
        for entry in &entries {
            let record = Record::decode(entry.private.clone(), entry.frame.clone()).expect("every record is good");
            shard.apply(&record, &mut effects).expect("every record applies");
            effects.signals.clear();
            if let Record::Message(message) = &record {
                let deliver = &message.deliver;
                let place = Place { seq: deliver.seq, position: entry.position, author: deliver.author };
                places.entry(deliver.conversation).or_default().push(place);
            }
            if ends.next_if_eq(&entry.position).is_some() {
                states.insert(entry.position, carillon::snapshot::encode(&shard));
            }
        }
        assert_eq!(states.get(&head), Some(&rig.state), "opening gives the state of a replay");
        Self { directory: directory.to_owned(), listing, batches, entries, states, places }
    }

    /// The last position.
    pub fn head(&self) -> Position {
        Position(self.entries.len() as u64)
    }
}

/// Finds the batches by the byte table of the format alone, so that the checker does not believe the code it checks.
fn batches(listing: &Listing) -> Vec<BatchAt> {
    const HEADER: usize = 4_096;
    let mut batches: Vec<BatchAt> = Vec::new();
    for (name, bytes) in listing {
        let is_segment = name.strip_prefix("journal/").and_then(segment_file_position).is_some();
        let mut at = HEADER;
        while is_segment && bytes.get(at..at + 4) == Some(b"CBAT") {
            let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
            let first = u64::from_le_bytes(bytes[at + 32..at + 40].try_into().expect("eight bytes"));
            let (length, count) = (u32_at(at + 16) as usize, u64::from(u32_at(at + 20)));
            let end = (at + length) as u64;
            let (first, last) = (Position(first), Position(first + count - 1));
            batches.push(BatchAt { segment: name.clone(), offset: at as u64, end, first, last });
            at += length;
        }
    }
    for pair in batches.windows(2) {
        assert_eq!(pair[0].last.next(), pair[1].first, "the table is read as it is written");
    }
    batches
}

/// Who publishes and marks.
#[derive(Default)]
struct People {
    users: Vec<UserId>,
    numbers: Vec<u64>,
    last: BTreeMap<ConversationId, (Seq, usize)>,
}

impl People {
    fn attach(&mut self, rig: &mut Rig) {
        (0..PEOPLE).for_each(|nth| rig.submit(nth, attach(&format!("person-{nth}"), u64::from(nth) + 1)));
        let (replies, flow) = rig.step();
        flow.expect("the disk is good");
        self.users = replies
            .iter()
            .filter_map(|(_, reply)| match reply {
                Reply::Attached(attached) => Some(attached.user),
                _ => None,
            })
            .collect();
        assert_eq!(self.users.len(), PEOPLE as usize);
        self.numbers.resize(PEOPLE as usize, 0);
    }

    /// A batch of one to some thirty records.
    fn commit(&mut self, rig: &mut Rig, rng: &mut Rng) {
        let count = rng.pick(&[1, 1, 2, 5, 12, 30]);
        for _ in 0..count {
            let nth = rng.below(self.users.len());
            let who = Principal { tenant: TenantId(0), user: self.users[nth], authority: Authority::User };
            let mark = self.last.iter().nth(rng.below(self.last.len().max(1))).map(|(id, last)| (*id, *last));
            let input = match mark.filter(|_| rng.percent(15)) {
                Some((conversation, (up_to, reader))) => {
                    let who = Principal { user: self.users[reader], ..who };
                    Input::Request { who, request: Request::MarkRead(MarkRead { request: 1, conversation, up_to }) }
                }
                None => {
                    self.numbers[nth] += 1;
                    let number = self.numbers[nth];
                    let to = (nth + rng.between(1, self.users.len() - 1)) % self.users.len();
                    let payload: Vec<u8> = (0..rng.below(400)).map(|_| rng.next().to_le_bytes()[2]).collect();
                    let (target, kind) = (Target::USER, MessageKind::TEXT);
                    let target_id = u64::from(self.users[to].0);
                    let publish = Publish { number, low: number, target, target_id, kind, payload: payload.into() };
                    Input::Publish { who, producer: Some(ProducerId(nth as u64 + 1)), publish }
                }
            };
            rig.submit(u32::try_from(nth).expect("few people"), input);
        }
        let (replies, flow) = rig.step();
        flow.expect("the disk is good");
        for (session, reply) in replies {
            if let Reply::Frame(Frame::Published(published)) = reply {
                // The author may mark it too.
                self.last.insert(published.conversation, (published.seq, session as usize));
            }
        }
    }
}
