//! One directory over many lives, and what must be true at the begin of each.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use carillon::index::Index;
use carillon::journal::{Loss, MemoryStorage};
use carillon_core::Shard;
use carillon_core::effect::{Effects, Reply};
use carillon_core::input::{Authority, Input, Principal, Request};
use carillon_core::record::Record;
use carillon_protocol::Frame;
use carillon_protocol::control::ConversationList;
use carillon_protocol::ids::{ConversationId, Position, Seq, TenantId, UserId};
use carillon_protocol::receipt::MarkRead;

use super::Summary;
use super::people::{Acknowledged, Person};
use crate::rig::{Ground, Rig, SHARD, SetClock, attach};
use crate::sim::rng::Rng;

const PEOPLE: u32 = 4;

/// A life under load has fewer calls than this after it was opened: some sixty commits.
const CALLS_BELOW: usize = 250;

/// Lives that end in recovery are over before so many calls; one that recovers in fewer goes on.
const RECOVERY_CALLS_BELOW: usize = 60;

/// A directory, who uses it, and what they were told.
pub(super) struct World {
    rng: Rng,
    storage: MemoryStorage,
    ground: Ground,
    people: Vec<Person>,
    /// By position.
    acknowledged: BTreeMap<Position, Acknowledged>,
    last: HashMap<ConversationId, Seq>,
    marks: HashMap<(u32, ConversationId), Seq>,
    /// The last position that the life before had made durable or was about to.
    head: Position,
}

impl World {
    pub(super) fn new(mut rng: Rng) -> Self {
        let storage = MemoryStorage::new();
        let ground = Ground {
            storage: Arc::new(storage.clone()),
            index: Arc::new(Index::new()),
            clock: Arc::new(SetClock::default()),
            segment_bytes: 4_096 + rng.pick(&[900, 4_000, 16_000]),
            retention_bytes: rng.pick(&[None, Some(40_000)]),
        };
        let (people, acknowledged) = ((1..=PEOPLE).map(Person::new).collect(), BTreeMap::new());
        let (last, marks, head) = (HashMap::new(), HashMap::new(), Position(0));
        Self { rng, storage, ground, people, acknowledged, last, marks, head }
    }

    /// One life, to its end by a crash.
    pub(super) fn live(&mut self, summary: &mut Summary) -> Result<(), String> {
        if self.rng.percent(30) {
            self.crash_within(RECOVERY_CALLS_BELOW);
        }
        match self.begin(summary)? {
            Some(mut rig) => {
                if !self.storage.crashed() {
                    self.crash_within(CALLS_BELOW);
                }
                while self.work(&mut rig, summary)? {}
            }
            None => summary.in_recovery += 1,
        }
        summary.crashes += 1;
        let loss = match self.rng.below(8) {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            _ => Loss::Random(self.rng.next()),
        };
        summary.power_losses += u64::from(loss != Loss::Nothing);
        self.storage.restart(loss);
        Ok(())
    }

    fn crash_within(&mut self, calls: usize) {
        self.storage.crash_at(self.storage.calls() + 1 + self.rng.below(calls) as u64);
    }

    /// A last life without a crash, in which all is asked for.
    pub(super) fn rest(&mut self, summary: &mut Summary) -> Result<(), String> {
        let mut rig = self.begin(summary)?.ok_or("it does not open although nothing fails")?;
        self.check_state(&rig, summary)?;
        self.check_marks(&mut rig)
    }

    /// Opens the store, reads back what was acknowledged, and lets everybody return and repeat. `None`: it crashed.
    fn begin(&mut self, summary: &mut Summary) -> Result<Option<Rig>, String> {
        self.ground.index = Arc::new(Index::new());
        let mut rig = match Rig::open(&self.ground) {
            Ok(rig) => rig,
            Err(_) if self.storage.crashed() => return Ok(None),
            Err(error) => return Err(format!("it is refused: {error}")),
        };
        match rig.keeper.examine() {
            Ok(()) => {}
            Err(_) if self.storage.crashed() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
        summary.cuts += u64::from(rig.report.cut.is_some());
        summary.in_doubt_kept += u64::from(rig.report.head > self.head);
        self.head = rig.report.head;
        if !self.read_back(&rig, summary)? {
            return Ok(None);
        }
        if self.rng.percent(10) && !self.storage.crashed() {
            self.check_state(&rig, summary)?;
        }
        for person in &self.people {
            rig.submit(person.number, attach(&person.handle(), u64::from(person.number)));
        }
        if !self.commit(&mut rig, summary)? {
            return Ok(None);
        }
        for person in &mut self.people {
            person.repeats = 0;
            for input in person.repeat() {
                rig.submit(person.number, input);
            }
        }
        // A sequencer whose commit has failed is not asked again: it holds replies that nothing durable bears.
        if !self.commit(&mut rig, summary)? {
            return Ok(None);
        }
        summary.repeated += self.people.iter().map(|person| person.repeats).sum::<u64>();
        Ok(Some(rig))
    }

    /// Everything acknowledged must be where it was, as it was. False: it crashed.
    fn read_back(&mut self, rig: &Rig, summary: &mut Summary) -> Result<bool, String> {
        let first = rig.reader.first();
        self.acknowledged = self.acknowledged.split_off(&first);
        for (position, acknowledged) in &self.acknowledged {
            let entries = match rig.reader.read(&[*position], 1 << 20) {
                Ok(entries) => entries,
                Err(_) if self.storage.crashed() => return Ok(false),
                Err(error) => return Err(format!("position {position} was acknowledged: {error}")),
            };
            let entry = entries.into_iter().next().ok_or("a read without an answer")?;
            let record = Record::decode(entry.private, entry.frame).map_err(|error| error.to_string())?;
            let Record::Message(message) = record else {
                return Err(format!("position {position} was acknowledged as a message"));
            };
            let deliver = &message.deliver;
            let found = (deliver.conversation, deliver.seq, deliver.position);
            if found != acknowledged.place
                || deliver.author != acknowledged.author
                || deliver.payload != acknowledged.payload
            {
                return Err(format!(
                    "position {position} was acknowledged as {:?}, now {deliver:?}",
                    acknowledged.place
                ));
            }
            summary.read_back += 1;
        }
        Ok(true)
    }

    /// The state of a start, by snapshot and replay, is that of a replay from the begin, if the journal has it.
    fn check_state(&self, rig: &Rig, summary: &mut Summary) -> Result<(), String> {
        if rig.reader.first() > Position(1) || rig.reader.head() > rig.report.head {
            return Ok(());
        }
        let (mut shard, mut effects, mut wrong) = (Shard::new(SHARD), Effects::default(), None);
        let flow = rig.reader.replay(Position(0), rig.report.head, |batch| {
            for entry in batch.entries() {
                let record = Record::decode(entry.private, entry.frame).map_err(|error| error.to_string());
                let applied =
                    record.and_then(|record| shard.apply(&record, &mut effects).map_err(|error| error.to_string()));
                effects.signals.clear();
                if let Err(error) = applied {
                    wrong = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        match (flow, wrong) {
            (_, Some(wrong)) => Err(wrong),
            (Err(_), None) if self.storage.crashed() => Ok(()),
            (Err(error), None) => Err(error.to_string()),
            (Ok(_), None) if carillon::snapshot::encode(&shard) != rig.state => {
                Err(format!("the state of snapshot {} and replay is not that of a replay", rig.snapshot))
            }
            (Ok(_), None) => {
                summary.states += 1;
                Ok(())
            }
        }
    }

    /// One batch, or what goes on beside batches. False: it crashed.
    fn work(&mut self, rig: &mut Rig, summary: &mut Summary) -> Result<bool, String> {
        self.ground.clock.advance(self.rng.below(50) as u64);
        let result = match self.rng.below(24) {
            0 => rig.preparer.prepare().map(drop).map_err(|error| error.to_string()),
            1 => rig.keeper.take().map(|_| summary.snapshots += 1).map_err(|error| error.to_string()),
            2 => rig.keeper.retain().map(|count| summary.removed += count as u64).map_err(|error| error.to_string()),
            3..7 => {
                self.mark(rig);
                Ok(())
            }
            _ => {
                for _ in 0..self.rng.between(1, 6) {
                    let person = self.rng.below(self.people.len());
                    let to = self.rng.below(self.people.len()) as u64;
                    let person = &mut self.people[person];
                    if person.user.is_some_and(|user| u64::from(user.0) != to) {
                        let input = person.publish(to);
                        rig.submit(person.number, input);
                    }
                }
                Ok(())
            }
        };
        match result {
            Err(_) if self.storage.crashed() => Ok(false),
            Err(error) => Err(error),
            Ok(()) => self.commit(rig, summary),
        }
    }

    fn mark(&mut self, rig: &Rig) {
        let person = &self.people[self.rng.below(self.people.len())];
        let (Some(user), Some(acknowledged)) = (person.user, self.acknowledged.values().next_back()) else { return };
        let (conversation, up_to, _) = acknowledged.place;
        let mark = MarkRead { request: 1, conversation, up_to };
        rig.submit(person.number, request(user, Request::MarkRead(mark)));
    }

    /// Lets the sequencer commit, and takes the replies. False: it crashed.
    fn commit(&mut self, rig: &mut Rig, summary: &mut Summary) -> Result<bool, String> {
        // What has left the sequencer was told, whatever became of the commit.
        let (replies, flow) = rig.step();
        for (session, reply) in replies {
            if let Reply::Frame(Frame::Marked(marked)) = &reply {
                let mark = self.marks.entry((session, marked.conversation)).or_default();
                *mark = marked.read_up_to.max(*mark);
            }
            let person = self.people.iter_mut().find(|person| person.number == session).ok_or("a reply to nobody")?;
            let Some(acknowledged) = person.take(reply)? else { continue };
            let (conversation, seq, position) = acknowledged.place;
            let last = self.last.entry(conversation).or_default();
            *last = seq.max(*last);
            summary.acknowledged += 1;
            if self.acknowledged.insert(position, acknowledged).is_some() {
                return Err(format!("position {position} was acknowledged twice"));
            }
        }
        self.head = self.head.max(rig.reader.head());
        match flow {
            Ok(_) => Ok(true),
            Err(_) if self.storage.crashed() => Ok(false),
            Err(error) => Err(format!("a commit failed without a crash: {error}")),
        }
    }

    fn check_marks(&mut self, rig: &mut Rig) -> Result<(), String> {
        for person in &self.people {
            let Some(user) = person.user else { continue };
            let list = ConversationList { request: 1, from: ConversationId(0), limit: 1_000 };
            rig.submit(person.number, request(user, Request::ConversationList(list)));
        }
        let (replies, flow) = rig.step();
        flow.map_err(|error| error.to_string())?;
        for ((session, conversation), noted) in &self.marks {
            let found = replies.iter().find_map(|(whose, reply)| match reply {
                Reply::Frame(Frame::Conversations(list)) if whose == session => {
                    list.entries.iter().find(|entry| entry.conversation == *conversation)
                }
                _ => None,
            });
            let found = found.map(|entry| entry.read_up_to);
            if found.is_none_or(|found| found < *noted) {
                return Err(format!("person {session} had read {conversation} up to {noted}, now {found:?}"));
            }
        }
        Ok(())
    }
}

fn request(user: UserId, request: Request) -> Input {
    Input::Request { who: Principal { tenant: TenantId(0), user, authority: Authority::User }, request }
}
