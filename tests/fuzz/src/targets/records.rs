//! Records of a journal: what can be decoded is written to bytes that say the same, good ones to the same bytes; and a shard to which
//! they are applied refuses those that contradict it, without a panic, and has a state that can be read again.
//!
//! Input: records, each a length and its private part and a length and its frame. Sealed, each private part is cut into good records,
//! and each frame into good `Deliver` frames.

use bytes::{Bytes, BytesMut};
use carillon_core::Shard;
use carillon_core::effect::Effects;
use carillon_core::record::{
    CatchUpBounded, ConversationAdded, CursorsMoved, DeviceAdded, DeviceRetired, DingAdded, DingAttempted,
    DingConfirmed, DingDeferred, DingEnded, DingForgotten, DingOutcomes, DingsDelivered, MembersAdded, MembersRemoved,
    MessageMeta, ProducerAdded, ProducerRetired, ReadMarked, Record, TenantAdded, UserAdded,
};
use carillon_protocol::deliver::Deliver;
use carillon_protocol::frame::Body;
use carillon_protocol::shape::Shape;

use crate::input::{Input, put_piece};
use crate::life::{Life, SHARD, state_of};
use crate::{Budget, Target, seal};

pub(super) const TARGET: Target = Target {
    name: "records",
    run,
    // The shard, and the records that it took, from which it is made anew whenever it has refused one.
    budget: Budget { per_byte: 64, fixed_bytes: 256 * 1024 },
    input_bytes_max: 16 * 1024,
    seeds,
    words: &[],
    short_inputs: 20_000,
};

/// Records of an input, and how many of them may be refused: each makes the shard anew, and more of them find nothing more.
const RECORDS_MAX: usize = 96;
const REFUSED_MAX: usize = 12;

macro_rules! shapes {
    ($($name:ident,)*) => { &[$(Shape::new::<$name>(stringify!($name)),)*] };
}

const SHAPES: &[Shape] = shapes! {
    MessageMeta, TenantAdded, UserAdded, DeviceAdded, DeviceRetired, ProducerAdded, ProducerRetired, ConversationAdded,
    MembersAdded, MembersRemoved, ReadMarked, CursorsMoved, CatchUpBounded, DingAdded, DingAttempted, DingDeferred,
    DingsDelivered, DingOutcomes, DingConfirmed, DingEnded, DingForgotten,
};

const FRAME_SHAPES: &[Shape] = shapes! { Deliver, };

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (mut as_they_are, mut sealed) = (Vec::new(), Vec::new());
    while !input.is_empty() && sealed.len() < RECORDS_MAX {
        let (private, frame) = (input.piece(), input.piece());
        as_they_are.extend(decode(private.to_vec(), frame.to_vec()));
        let mut delivers = seal::frames(frame, FRAME_SHAPES);
        for private in seal::frames(private, SHAPES) {
            let frame =
                if private[4] == MessageMeta::KIND { delivers.next().unwrap_or_else(deliver) } else { Vec::new() };
            let record = decode(private.clone(), frame.clone()).expect("a good record");
            assert_eq!(encode(&record), (private.into(), frame.into()), "it is written as it was read");
            sealed.push(record);
        }
    }
    sealed.truncate(RECORDS_MAX);
    apply(&as_they_are);
    apply(&sealed);
}

/// A frame for a message that has none.
fn deliver() -> Vec<u8> {
    seal::frames(&[0; 8], FRAME_SHAPES).next().expect("there are bytes")
}

fn decode(private: Vec<u8>, frame: Vec<u8>) -> Option<Record> {
    let record = Record::decode(private.into(), frame.into()).ok()?;
    let (private, frame) = encode(&record);
    assert_eq!(Record::decode(private, frame).as_ref(), Ok(&record));
    Some(record)
}

fn encode(record: &Record) -> (Bytes, Bytes) {
    let (mut private, mut frame) = (BytesMut::new(), BytesMut::new());
    record.encode(&mut private, &mut frame);
    (private.freeze(), frame.freeze())
}

/// Applies what fits. A shard that has refused a record must be discarded: the next one gets all that fitted before.
fn apply(records: &[Record]) {
    let mut shard = Shard::new(SHARD);
    let (mut taken, mut refused): (Vec<&Record>, usize) = (Vec::new(), 0);
    for record in records {
        if shard.apply(record, &mut Effects::default()).is_ok() {
            taken.push(record);
            continue;
        }
        shard = Shard::new(SHARD);
        refused += 1;
        for record in &taken {
            shard.apply(record, &mut Effects::default()).expect("the same records, the same state");
        }
        if refused == REFUSED_MAX {
            break;
        }
    }
    assert_eq!(shard.head().0, taken.len() as u64);
    let state = state_of(&shard);
    // Records that no input makes may lead to a state that is not believed, but never to one that is read as another.
    if let Ok(again) = Shard::decode_state(SHARD, &state) {
        assert!(state_of(&again) == state);
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let seed = |life: &Life| {
        let mut seed = Vec::new();
        for (private, frame) in life.encoded() {
            put_piece(&mut seed, &private);
            put_piece(&mut seed, &frame);
        }
        seed
    };
    vec![seed(&Life::whole()), seed(&Life::young())]
}
