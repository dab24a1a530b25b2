//! The disk fills up and is emptied again. Meanwhile who makes the journal grow is refused, in order, and nobody else; the journal ends
//! when it can go on nowhere, and before anything was written.

use std::collections::BTreeSet;
use std::error::Error;

use carillon::journal::{Room, SEGMENT_BYTES_MIN, Storage, is_no_room};
use carillon::keeper::KeepError;
use carillon::report::Causes;
use carillon::store::StoreError;
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

/// A disk that is not full: a run does not come near it.
pub(super) const LARGE_BYTES: u64 = 1 << 40;

/// When the disk fills up, in one run of four. It draws from a source of its own, so that other runs draw as if there were none.
pub(super) struct Tide {
    rng: Rng,
    /// There is less than that.
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
    /// Publishes, and requests, that are not counted yet.
    publishes: u64,
    pub(super) requests: u64,
}

impl Refused {
    /// The session sends its numbers in their order, and what lacks room does not let later ones pass.
    pub(super) fn accept(&mut self, published: &Published) -> Result<(), String> {
        let Published { number, repeated, .. } = *published;
        self.numbers.remove(&number);
        if repeated > 0 {
            return Ok(());
        }
        if number < self.highest && !self.for_good.contains(&number) {
            return Err(format!("publish {number} was accepted after {}", self.highest));
        }
        self.highest = self.highest.max(number);
        Ok(())
    }

    pub(super) fn refuse_for_good(&mut self, number: u64) {
        self.numbers.remove(&number);
        self.for_good.insert(number);
    }

    /// How many publishes and requests were refused since it was asked last.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.publishes), std::mem::take(&mut self.requests))
    }
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
        let lacked = sent_after.is_some_and(|round| ledger.room_seen.was_since(round));
        let is_behind = self.refused.numbers.first().is_some_and(|lowest| *lowest < number);
        let answered = device.settled.iter().any(|(settled, _)| settled.publish.number == number);
        if !lacked && !is_behind {
            return Err(format!("publish {number} was refused for want of room, of which there was enough"));
        }
        if answered && self.is_of(device) {
            return Err(format!("publish {number} was accepted, and then refused for want of room"));
        }
        self.refused.numbers.insert(number);
        self.refused.again = true;
        self.refused.publishes += 1;
        Ok(())
    }

    fn is_of(&self, device: &Device) -> bool {
        device.current == Some(self.id) && device.producer == self.ids.1
    }

    /// Whether it may be told that there is no room for it: its device or its producer is new, and even of the reserve there was not enough.
    pub(super) fn may_lack_room(&self, ledger: &Ledger) -> bool {
        let who = self.who_of(ledger);
        let is_known = who.is_ok_and(|who| ledger.knew(who, self.ids, self.seen));
        !is_known && ledger.room_seen.was_last_since(self.hello_round)
    }
}

impl Request {
    /// Whether it may be refused for want of room: open DINGs go on, what is asked is answered, receipts wait for the last.
    pub(super) fn may_lack_room(&self, who: Who, ledger: &Ledger) -> bool {
        match &self.want {
            Want::Confirm(_) | Want::Recall(_) | Want::Watch | Want::Unwatch | Want::History => false,
            Want::Mark(..) | Want::Retire(_) => ledger.room_seen.was_last_since(self.round),
            Want::Ding { key } => {
                let repeats = ledger.dings.added(who, *key).is_some_and(|at| at <= self.head);
                !repeats && ledger.room_seen.was_since(self.round)
            }
            Want::Add(..) | Want::Remove(..) | Want::Conversation | Want::Remind(_) => {
                ledger.room_seen.was_since(self.round)
            }
        }
    }
}

/// Whether the disk's want of room is among the causes.
fn lacks_room(error: &StoreError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref().is_some_and(is_no_room) {
            return true;
        }
        cause = error.source();
    }
    false
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
            60..400 if self.outside.room.get() == Room::Last => self.ask_any(Action::Confirm),
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
        self.outside.storage.set_capacity(Some(LARGE_BYTES));
        self.note(|| "the disk is emptied".into());
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
        let sent = (publish.number, self.ledger.room_seen.now());
        self.session(id).under_way.push(sent);
        self.send(id, PUBLISH, publish);
    }

    /// The journal ended for want of room: nothing that it could go on in is there.
    pub(super) fn judge_end_of_room(&mut self) -> Outcome {
        // Nothing was written.
        let draft = self.outside.doubt.take().ok_or("no batch was being committed")?;
        if self.has_failed() || self.outside.storage.crashed() {
            return Ok(());
        }
        let needed = draft.bytes as u64;
        if !self.is_full() {
            return Err(format!("there was no room for {needed} bytes on a disk that is not full"));
        }
        self.covered.ended_full += 1;
        // What it took and could not use is there still: nothing was renamed.
        let storage = &self.outside.storage;
        let prepared = storage.names().into_iter().filter(|name| name.ends_with(".ready"));
        let prepared: Vec<_> = prepared.map(|name| (name.clone(), storage.contents(&name).len() as u64)).collect();
        self.judge_full(needed, 0, &prepared)
    }

    /// The prepared files of a full disk, with their lengths, that a start may use: they hold nothing yet.
    pub(super) fn prepared(&self) -> Vec<(String, u64)> {
        let storage = &self.outside.storage;
        let prepared = storage.names().into_iter().filter(|name| self.is_full() && name.ends_with(".ready"));
        let contents = prepared.map(|name| (storage.contents(&name), name));
        let unused = contents.filter(|(bytes, _)| bytes.iter().all(|byte| *byte == 0));
        unused.map(|(bytes, name)| (name, bytes.len() as u64)).collect()
    }

    /// A start failed: was there nothing that it could have gone on in?
    pub(super) fn judge_full_start(&mut self, error: &StoreError, prepared: &[(String, u64)]) -> Outcome {
        if !lacks_room(error) {
            return Err(format!("a start failed on a full disk, and not for want of room: {}", Causes(error)));
        }
        self.covered.starts_full += 1;
        // It makes the last batch durable once more, which may be the one in doubt.
        let doubt_bytes = self.outside.doubt.get().map_or(0, |doubt| doubt.bytes as u64);
        let newest_bytes = self.ledger.batches.values().next_back().copied().unwrap_or_default();
        let needed = newest_bytes.max(doubt_bytes);
        self.judge_full(needed, SMALL_FILES_BYTES, prepared)
    }

    /// Neither one of the prepared files could take such a batch, nor is there room for another file, and so many bytes.
    fn judge_full(&self, batch_bytes: u64, beside_bytes: u64, prepared: &[(String, u64)]) -> Outcome {
        // A segment has a header before its batches; the smallest one has little else.
        let needed = batch_bytes + SEGMENT_BYTES_MIN;
        if let Some((name, has)) = prepared.iter().find(|(_, bytes)| *bytes >= needed) {
            return Err(format!("it ends for want of room for {batch_bytes} bytes, and {name} was there with {has}"));
        }
        match self.outside.storage.free_bytes().expect("it is known") {
            Some(free) if free < needed + beside_bytes => Ok(()),
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
}
