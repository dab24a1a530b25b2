//! How much room there should be, worked out from the names and lengths of files, from what is free and from what was committed; held
//! against what the journal says, and against what is committed when there is none.

use std::io;

use carillon::journal::{Batch, MemoryStorage, Room, SEGMENT_BYTES_MIN, Storage, is_no_room};
use carillon_core::record::Record;
use carillon_protocol::ding_status::STEP_REMINDER;
use carillon_protocol::ids::Position;

use super::shape::Shape;
use super::world::{Outcome, World};

/// A segment's batches begin behind this (the bytes are in `broker/src/journal/format.rs`).
const SEGMENT_HEADER_BYTES: u64 = 4_096;

const RESERVE: &str = "reserve.journal.ready";
const SPARE: &str = "spare.journal.ready";

/// When the journal said that it lacked room, in rounds of the sequencer.
#[derive(Default)]
pub(super) struct RoomSeen {
    rounds: u64,
    /// The newest round that began with the reserve, and with the last of it.
    reserve: u64,
    last: u64,
}

impl RoomSeen {
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
    pub(super) const fn was_since(&self, round: u64) -> bool {
        self.reserve > round
    }

    pub(super) const fn was_last_since(&self, round: u64) -> bool {
        self.last > round
    }
}

/// What lies prepared, and what is free.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    reserve: bool,
    spare: bool,
    free: Option<u64>,
    /// The first position of the segment that is written to.
    newest: u64,
}

impl Look {
    fn at(storage: &MemoryStorage) -> Self {
        let names = storage.names();
        let has = |name: &str| names.iter().any(|known| known == name);
        let free = storage.free_bytes().expect("it is known");
        let newest = names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok()).max();
        Self { reserve: has(RESERVE), spare: has(SPARE), free, newest: newest.unwrap_or_default() }
    }

    /// What comes of preparing what is missing: whether room is missing for it, and how much was free when that was seen.
    fn prepare(self, shape: &Shape, was_short: bool) -> (bool, u64) {
        let Some(mut free) = self.free else { return (false, 0) };
        if !self.reserve {
            if free < shape.reserve_bytes {
                return (true, free);
            }
            free -= shape.reserve_bytes;
        }
        if !self.spare {
            if free < shape.free_bytes_min + segment_bytes(shape) {
                return (true, free);
            }
            free -= segment_bytes(shape);
        }
        // A quarter more to go back.
        let again = if was_short { shape.free_bytes_min / 4 } else { 0 };
        (free < shape.free_bytes_min + again, free)
    }
}

fn segment_bytes(shape: &Shape) -> u64 {
    shape.segment_bytes.max(SEGMENT_BYTES_MIN)
}

/// What a life of the process knows of its room.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    is_short: bool,
    /// A roll has made its segment itself since the last preparation: whether there was no room for a larger one, nobody else knows.
    made_itself: bool,
    /// When it was looked last; `None` if the disk failed then.
    free_bytes: Option<u64>,
    /// Before the sequencer's round, and before a preparation.
    before: Look,
    /// Then, in the segment that is written to; looked at when it matters.
    active_bytes: u64,
}

impl World {
    /// What lies there before something is done that may change it.
    pub(super) fn look_at_room(&mut self) {
        self.room_known.before = Look::at(&self.outside.storage);
        if self.room_known.is_short {
            self.room_known.active_bytes = self.active_left();
        }
    }

    /// A preparation is over, in which the disk has failed so often: was it right about the room?
    pub(super) fn judge_prepared(&mut self, prepared: &io::Result<bool>, failures: u64) -> Outcome {
        let no_room = prepared.as_ref().is_err_and(is_no_room);
        let known = &mut self.room_known;
        let was_short = known.is_short;
        let (lacks, free) = known.before.prepare(&self.shape, was_short);
        match prepared {
            Ok(_) => (known.is_short, known.made_itself) = (false, false),
            Err(_) if no_room => known.is_short = true,
            Err(_) => {}
        }
        let sound = failures == 0 && !self.outside.storage.crashed();
        known.free_bytes = sound.then_some(free);
        if !sound {
            return Ok(());
        }
        if lacks == no_room {
            return Ok(());
        }
        let (before, after) = (known.before, Look::at(&self.outside.storage));
        Err(format!(
            "a preparation ends with {prepared:?}; there was {before:?}, now {after:?}; short before: {was_short}"
        ))
    }

    /// Whether a round began with the room that there was.
    pub(super) fn judge_room(&self, room: Room) -> Outcome {
        let Known { is_short, made_itself, free_bytes, before, active_bytes } = self.room_known;
        let left = active_bytes + free_bytes.unwrap_or_default();
        let left = left + if before.reserve { self.shape.reserve_bytes } else { 0 };
        let left = left + if before.spare { segment_bytes(&self.shape) } else { 0 };
        let expected = match is_short {
            false => Room::Enough,
            true if left < self.shape.reserve_bytes / 2 => Room::Last,
            true => Room::Reserve,
        };
        let is_untold = !is_short && made_itself;
        if room == expected || is_untold || is_short && free_bytes.is_none() && room != Room::Enough {
            return Ok(());
        }
        Err(format!("a round began with the room {room:?}, {expected:?} was there: {before:?}, {left} bytes in all"))
    }

    /// A roll that takes the reserve makes the journal short of room.
    pub(super) fn note_rolled(&mut self) {
        let (before, after) = (self.room_known.before, Look::at(&self.outside.storage));
        let took = [before.reserve && !after.reserve, before.spare && !after.spare];
        self.room_known.is_short |= took[0];
        self.room_known.made_itself |= before.newest < after.newest && took == [false; 2];
    }

    /// What is left of the segment that is written to.
    fn active_left(&self) -> u64 {
        let first = self.room_known.before.newest;
        let bytes = self.outside.storage.contents(&format!("{first:020}.journal")).len() as u64;
        let used: u64 = self.ledger.batches.range(Position(first)..).map(|(_, bytes)| bytes).sum();
        bytes.saturating_sub(SEGMENT_HEADER_BYTES + used)
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
