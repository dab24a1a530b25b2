//! The disk fills up and is emptied again. Meanwhile who makes the journal grow is refused, in order, and nobody else; the journal ends
//! when it can go on nowhere, and before anything was written.

use std::collections::BTreeSet;
use std::io;

use carillon::journal::{Batch, Room, SEGMENT_BYTES_MIN, Storage, is_no_room};
use carillon::keeper::KeepError;
use carillon_core::record::Record;
use carillon_protocol::ding_status::STEP_REMINDER;
use carillon_protocol::publish::{Publish, Published};

use super::ledger::{Ledger, Who};
use super::promises::{Request, Want};
use super::rng::Rng;
use super::session::{Device, PUBLISH, Session};
use super::shape::{Action, Shape};
use super::world::{Outcome, World};

/// Small files of the journal's that a start makes when they are missing.
const SMALL_FILES_BYTES: u64 = 2_048;

/// A client sends nothing again while so many publishes have no answer.
const UNDER_WAY_MAX: usize = 40;

/// When the disk fills up, in one run of four. It draws from a source of its own, so that other runs draw as if there were none.
pub(super) struct Tide {
    rng: Rng,
    /// There is a capacity.
    is_high: bool,
}

impl Tide {
    pub(super) fn of(seed: u64, machine_fails: bool) -> Option<Self> {
        let mut rng = Rng::new(!seed);
        (machine_fails && rng.percent(25)).then_some(Self { rng, is_high: false })
    }

    pub(super) fn shape(&mut self, shape: &mut Shape) {
        shape.reserve_bytes = self.rng.pick(&[8 * 1024, 16 * 1024, 64 * 1024]);
        shape.free_bytes_min = self.rng.pick(&[0, 2 * 1024, 32 * 1024]);
    }
}

/// When the journal said that it lacked room, in rounds of the sequencer.
#[derive(Default)]
pub(super) struct Scarcity {
    rounds: u64,
    /// The newest round that began with the reserve, and with the last of it.
    reserve: u64,
    last: u64,
}

impl Scarcity {
    /// A round is over that began with so much room.
    pub(super) fn note(&mut self, room: Room) {
        self.rounds += 1;
        match room {
            Room::Enough => {}
            Room::Reserve => self.reserve = self.rounds,
            Room::Last => (self.reserve, self.last) = (self.rounds, self.rounds),
        }
    }

    /// What is sent now is taken in a later round than this one.
    pub(super) const fn now(&self) -> u64 {
        self.rounds
    }

    /// Whether a round after this one began with the reserve, or less.
    const fn was_since(&self, round: u64) -> bool {
        self.reserve > round
    }

    fn was_last_since(&self, round: u64) -> bool {
        self.last > round
    }
}

/// What a session was refused for want of room, and in which order it was not.
#[derive(Default)]
pub(super) struct Refused {
    /// Publishes whose newest answer was that.
    numbers: BTreeSet<u64>,
    /// Those that were refused for another reason.
    for_good: BTreeSet<u64>,
    /// The highest one that was accepted here.
    highest: u64,
    /// They are to be sent again.
    again: bool,
    /// Of all kinds, not counted yet.
    count: u64,
}

impl Refused {
    /// The session sends its numbers in their order, and what lacks room does not let later ones pass.
    pub(super) fn accept(&mut self, published: &Published) -> Result<(), String> {
        let Published { number, repeated, .. } = *published;
        self.numbers.remove(&number);
        if repeated == 0 && number < self.highest && !self.for_good.contains(&number) {
            return Err(format!("publish {number} was accepted after {}", self.highest));
        }
        self.highest = self.highest.max(number);
        Ok(())
    }

    pub(super) fn refuse_for_good(&mut self, number: u64) {
        self.numbers.remove(&number);
        self.for_good.insert(number);
    }

    pub(super) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }
}

/// A round that began without room has committed nothing that makes the journal grow, and one on the last of the reserve nothing but
/// what open DINGs need. Returns how many confirmations were among it.
pub(super) fn judge_growth(batch: &Batch, room: Room) -> Result<u64, String> {
    let mut confirmed = 0;
    if room == Room::Enough {
        return Ok(confirmed);
    }
    for entry in batch.entries() {
        let record = Record::decode(entry.private, entry.frame).map_err(|error| error.to_string())?;
        confirmed += u64::from(room == Room::Last && matches!(record, Record::DingConfirmed(_)));
        let within = match &record {
            Record::DingAttempted(begun) => begun.step != STEP_REMINDER,
            Record::DingDeferred(_)
            | Record::DingsDelivered(_)
            | Record::DingOutcomes(_)
            | Record::DingConfirmed(_)
            | Record::DingEnded(_)
            | Record::DingForgotten(_)
            | Record::CatchUpBounded(_) => true,
            Record::ReadMarked(_)
            | Record::CursorsMoved(_)
            | Record::TenantAdded(_)
            | Record::UserAdded(_)
            | Record::DeviceAdded(_)
            | Record::DeviceRetired(_)
            | Record::ProducerAdded(_)
            | Record::ProducerRetired(_) => room < Room::Last,
            Record::Message(_)
            | Record::ConversationAdded(_)
            | Record::MembersAdded(_)
            | Record::MembersRemoved(_)
            | Record::DingAdded(_) => false,
        };
        if !within {
            return Err(format!("{record:?} was committed, and the room was {}", room.name()));
        }
    }
    Ok(confirmed)
}

impl Session {
    /// A publish that was sent after a round was refused for want of room: there was none, or a lower one was refused before it and has not
    /// come again.
    pub(super) fn judge_no_room(
        &mut self,
        number: u64,
        sent_after: Option<u64>,
        device: &Device,
        ledger: &Ledger,
    ) -> Result<(), String> {
        let lacked = sent_after.is_some_and(|round| ledger.scarcity.was_since(round));
        let is_behind = self.refused.numbers.first().is_some_and(|lowest| *lowest < number);
        let answered = device.settled.iter().any(|(settled, _)| settled.publish.number == number);
        if !lacked && !is_behind {
            return Err(format!("publish {number} was refused for want of room, of which there was enough"));
        }
        if answered && self.is_of(device) {
            return Err(format!("publish {number} was accepted, and then refused for want of room"));
        }
        self.refused.numbers.insert(number);
        (self.refused.again, self.refused.count) = (true, self.refused.count + 1);
        Ok(())
    }

    fn is_of(&self, device: &Device) -> bool {
        device.current == Some(self.id) && device.producer == self.ids.1
    }

    /// Whether it may be told that there is no room for it: its device or its producer is new, and even of the reserve there was not enough.
    pub(super) fn may_lack_room(&self, ledger: &Ledger) -> bool {
        let who = self.who_of(ledger);
        let is_known = who.is_ok_and(|who| ledger.knew(who, self.ids, self.seen));
        !is_known && ledger.scarcity.was_last_since(self.hello_round)
    }
}

impl Request {
    /// Whether it may be refused for want of room: open DINGs go on, what is asked is answered, receipts wait for the last.
    pub(super) fn may_lack_room(&self, who: Who, ledger: &Ledger) -> bool {
        match &self.want {
            Want::Confirm(_) | Want::Recall(_) | Want::Watch | Want::Unwatch | Want::History => false,
            Want::Mark(..) | Want::Retire(_) => ledger.scarcity.was_last_since(self.round),
            Want::Ding { key } => {
                let repeats = ledger.dings.added(who, *key).is_some_and(|at| at <= self.head);
                !repeats && ledger.scarcity.was_since(self.round)
            }
            Want::Add(..) | Want::Remove(..) | Want::Conversation | Want::Remind(_) => {
                ledger.scarcity.was_since(self.round)
            }
        }
    }
}

impl World {
    /// Before each step the disk may fill up or be emptied; somebody looks how full it is, what was refused is sent again, and DINGs are sent
    /// before and confirmed then.
    pub(super) fn flow(&mut self) -> Outcome {
        let Some(tide) = &mut self.tide else { return Ok(()) };
        match tide.rng.below(1_000) {
            0..8 => self.fill_up(),
            8..14 => self.empty(),
            14..40 => {
                if let Some(id) = self.any_refused() {
                    self.send_refused_again(id);
                }
            }
            40..60 => self.prepare()?,
            // What must go on when nothing else does is to be there.
            60..120 if !tide.is_high => self.ask_any(Action::Ding),
            60..200 if tide.is_high => self.ask_any(Action::Confirm),
            _ => {}
        }
        Ok(())
    }

    fn fill_up(&mut self) {
        let Some(tide) = &mut self.tide else { return };
        let segment_bytes = self.shape.segment_bytes;
        let free = tide.rng.pick(&[0, 0, 100, 1_000, segment_bytes, 3 * segment_bytes, self.shape.reserve_bytes]);
        tide.is_high = true;
        let storage = &self.outside.storage;
        storage.set_capacity(Some(storage.used_bytes() + free));
        self.covered.filled_up += 1;
        self.note(|| format!("the disk is full but for {free} bytes"));
    }

    pub(super) fn empty(&mut self) {
        let Some(tide) = self.tide.as_mut().filter(|tide| tide.is_high) else { return };
        tide.is_high = false;
        self.outside.storage.set_capacity(None);
        self.note(|| "the disk is emptied".into());
    }

    /// Who could not prepare a file for want of room has told the sequencer.
    pub(super) fn judge_room(&self, room: Room) -> Outcome {
        let is_untold = self.told_no_room && room == Room::Enough;
        if is_untold { Err("no file could be prepared, and publishes are taken".into()) } else { Ok(()) }
    }

    /// Nobody lacks room from now on, and the journal knows it after its next look.
    pub(super) fn ebb(&mut self) -> Outcome {
        if self.tide.is_none() {
            return Ok(());
        }
        self.empty();
        self.prepare()?;
        self.step()?;
        match self.outside.room.get() {
            Room::Enough => Ok(()),
            room => Err(format!("the disk was emptied, and the room is still {}", room.name())),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.tide.as_ref().is_some_and(|tide| tide.is_high)
    }

    fn any_refused(&self) -> Option<usize> {
        let may = |session: &&Session| session.refused.again && session.under_way.len() < UNDER_WAY_MAX;
        self.sessions.values().find(may).map(|session| session.id)
    }

    /// What everybody was refused is sent again, once it was looked whether there is room; returns whether there was anything. A disk
    /// that is not full says so as well, when it fails.
    pub(super) fn send_all_refused_again(&mut self) -> Result<bool, String> {
        let any = self.any_refused().is_some();
        if any {
            self.prepare()?;
        }
        while let Some(id) = self.any_refused() {
            self.send_refused_again(id);
        }
        Ok(any)
    }

    /// Publishes from the lowest refused one on.
    fn send_refused_again(&mut self, id: usize) {
        let session = self.sessions.get_mut(&id).expect("it lives");
        session.refused.again = false;
        let Some(lowest) = session.refused.numbers.first().copied() else { return };
        let session = &self.sessions[&id];
        let device = &self.devices[session.device];
        if !session.is_of(device) || session.is_retired(&self.ledger) {
            return;
        }
        let Some(low) = device.unsettled.keys().next().copied() else { return };
        let again = device.unsettled.range(lowest..).map(|(_, unsettled)| &unsettled.publish);
        let again: Vec<Publish> = again.map(|publish| Publish { low, ..publish.clone() }).collect();
        self.note(|| format!("session {id} sends {} publishes again, from {lowest} on", again.len()));
        for publish in again {
            self.send_publish(id, &publish);
        }
    }

    /// Sends a publish, and notes that it is under way.
    pub(super) fn send_publish(&mut self, id: usize, publish: &Publish) {
        let sent = (publish.number, self.ledger.scarcity.now());
        self.session(id).under_way.push(sent);
        self.send(id, PUBLISH, publish);
    }

    /// The journal ended for want of room: nothing that it could go on in is there.
    pub(super) fn judge_end_of_room(&mut self) -> Outcome {
        // Nothing was written.
        let draft = self.outside.doubt.take().ok_or("no batch was being committed")?;
        if self.has_failed() {
            return Ok(());
        }
        let needed = draft.bytes as u64;
        if !self.is_full() {
            return Err(format!("there was no room for {needed} bytes on a disk that is not full"));
        }
        self.covered.ended_full += 1;
        self.judge_full(needed, self.shape.segment_bytes)
    }

    /// A start failed: is there nothing that it could have gone on in?
    pub(super) fn judge_full_start(&mut self) -> Outcome {
        self.covered.starts_full += 1;
        // It makes the last batch durable once more, which may be the one in doubt.
        let doubt_bytes = self.outside.doubt.get().map_or(0, |doubt| doubt.bytes);
        let needed = self.ledger.batch_bytes_max.max(doubt_bytes) as u64;
        self.judge_full(needed, needed + SMALL_FILES_BYTES)
    }

    /// Neither a prepared file for such a batch is there, nor so many bytes for another one.
    fn judge_full(&self, batch_bytes: u64, free_bytes: u64) -> Outcome {
        let storage = &self.outside.storage;
        // A segment has a header before its batches; the smallest one has little else.
        let needed = batch_bytes + SEGMENT_BYTES_MIN;
        let is_enough = |name: &String| name.ends_with(".ready") && storage.contents(name).len() as u64 >= needed;
        if let Some(name) = storage.names().into_iter().find(is_enough) {
            let has = storage.contents(&name).len();
            return Err(format!("it ends for want of room for {batch_bytes} bytes, and {name} is there with {has}"));
        }
        match storage.free_bytes().expect("it is known") {
            Some(free) if free < needed.max(free_bytes) => Ok(()),
            free => Err(format!("it ends for want of room for {batch_bytes} bytes, and {free:?} are free")),
        }
    }

    /// Whether a keeper may fail so on a full disk.
    pub(super) fn may_keeper_lack_room(&self, error: &KeepError) -> bool {
        let lacks = match error {
            KeepError::NoRoom { .. } => true,
            KeepError::Files(error) => is_no_room(error),
            _ => false,
        };
        self.is_full() && lacks
    }

    pub(super) fn may_preparer_lack_room(&self, error: &io::Error) -> bool {
        self.is_full() && is_no_room(error)
    }
}
