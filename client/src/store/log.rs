//! The log of publishes: what is unsettled, the next number, and whether a reset is due.
//!
//! ```text
//! records back to back; a record, little-endian:
//! offset  size  field
//! 0       4     u32 bytes that follow the checksum
//! 4       4     u32 CRC32C of what follows
//! 8       1     u8  1: unsettled, 2: settled, 3: next, 4: a reset is due, 5: let go of by that reset
//! 9       8     u64 number; 0 if a reset is due
//!               unsettled only:
//! 17      1     u8  target, as on the wire
//! 18      8     u64 target id
//! 26      1     u8  message kind
//! 27      n     payload
//! ```
//!
//! A log is rewritten when a reset comes due, and without its records when the application is done with it: a log without 4 has no 5.
//! A record cut short or with a wrong checksum ends the log: it was being written when the machine stopped, and what it says was
//! not sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use carillon_protocol::ids::{ConversationId, UserId};
use carillon_protocol::kinds::{MessageKind, Target};

use super::Unsettled;
use crate::publish::To;

const UNSETTLED: u8 = 1;
const SETTLED: u8 = 2;
const NEXT: u8 = 3;
const RESET_DUE: u8 = 4;
const VOID: u8 = 5;

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publishes {
    /// Above every number that was unsettled.
    pub(super) next: u64,
    pub(super) unsettled: BTreeMap<u64, Unsettled>,
    /// The numbers that a reset let go of, until the application is done with it.
    pub(super) reset_due: Option<BTreeSet<u64>>,
}

impl Publishes {
    /// What this log says.
    pub(super) fn replay(mut log: Bytes) -> Self {
        let mut publishes = Self { next: 1, unsettled: BTreeMap::new(), reset_due: None };
        while let Some((kind, number, rest)) = take_record(&mut log) {
            match kind {
                UNSETTLED => {
                    let Some(publish) = take_unsettled(number, rest) else { break };
                    publishes.insert(publish);
                }
                SETTLED => drop(publishes.unsettled.remove(&number)),
                NEXT => publishes.next = publishes.next.max(number),
                RESET_DUE => drop(publishes.reset_due.get_or_insert_default()),
                VOID => drop(publishes.reset_due.get_or_insert_default().insert(number)),
                _ => break,
            }
        }
        publishes
    }

    pub(super) fn insert(&mut self, publish: Unsettled) {
        self.next = self.next.max(publish.number.saturating_add(1));
        self.unsettled.insert(publish.number, publish);
    }

    /// All that is unsettled is of another journal.
    pub(super) fn reset(&mut self) {
        let void = std::mem::take(&mut self.unsettled);
        self.reset_due.get_or_insert_default().extend(void.into_keys());
    }

    /// A log that says this.
    pub(super) fn records(&self) -> BytesMut {
        let mut records = BytesMut::new();
        put_record(&mut records, NEXT, self.next, |_| {});
        if let Some(void) = &self.reset_due {
            put_record(&mut records, RESET_DUE, 0, |_| {});
            for number in void {
                put_record(&mut records, VOID, *number, |_| {});
            }
        }
        for publish in self.unsettled.values() {
            put_unsettled(&mut records, publish);
        }
        records
    }
}

pub(super) fn put_settled(out: &mut BytesMut, number: u64) {
    put_record(out, SETTLED, number, |_| {});
}

pub(super) fn put_unsettled(out: &mut BytesMut, publish: &Unsettled) {
    put_record(out, UNSETTLED, publish.number, |out| {
        let (target, target_id) = publish.to.target();
        out.put_u8(target.0);
        out.put_u64_le(target_id);
        out.put_u8(publish.kind.0);
        out.put_slice(&publish.payload);
    });
}

fn put_record(out: &mut BytesMut, kind: u8, number: u64, put_rest: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u64_le(0);
    out.put_u8(kind);
    out.put_u64_le(number);
    put_rest(out);
    let (head, body) = out[start..].split_at_mut(8);
    let length = u32::try_from(body.len()).expect("payloads are under 4 GiB");
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
}

fn take_record(log: &mut Bytes) -> Option<(u8, u64, Bytes)> {
    if log.len() < 8 {
        return None;
    }
    let (length, checksum) = (log.get_u32_le() as usize, log.get_u32_le());
    if length < 9 || length > log.len() {
        return None;
    }
    let mut body = log.split_to(length);
    if crc32c::crc32c(&body) != checksum {
        return None;
    }
    Some((body.get_u8(), body.get_u64_le(), body))
}

fn take_unsettled(number: u64, mut rest: Bytes) -> Option<Unsettled> {
    if rest.len() < 10 {
        return None;
    }
    let (target, target_id, kind) = (Target(rest.get_u8()), rest.get_u64_le(), MessageKind(rest.get_u8()));
    let to = match target {
        Target::USER => To::User(UserId(u32::try_from(target_id).ok()?)),
        Target::CONVERSATION => To::Conversation(ConversationId(target_id)),
        _ => return None,
    };
    Some(Unsettled { number, to, kind, payload: rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(number: u64) -> Unsettled {
        let to = if number.is_multiple_of(2) { To::User(UserId(7)) } else { To::Conversation(ConversationId(9)) };
        Unsettled { number, to, kind: MessageKind::TEXT, payload: Bytes::from(vec![7; 100]) }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let unsettled = BTreeMap::from([(7, publish(7)), (8, publish(8))]);
        for reset_due in [None, Some(BTreeSet::new()), Some(BTreeSet::from([3, 5]))] {
            let publishes = Publishes { next: 12, unsettled: unsettled.clone(), reset_due };
            assert_eq!(Publishes::replay(publishes.records().freeze()), publishes);
        }
    }

    #[test]
    fn the_last_number_there_is_is_read() {
        let mut log = BytesMut::new();
        put_unsettled(&mut log, &publish(u64::MAX));
        assert_eq!(Publishes::replay(log.freeze()).next, u64::MAX);
    }

    #[test]
    fn a_log_cut_or_damaged_anywhere_gives_what_is_before() {
        let mut log = BytesMut::new();
        for number in 1..=3 {
            put_unsettled(&mut log, &publish(number));
        }
        let record_bytes = log.len() / 3;
        for end in 0..log.len() {
            assert_eq!(
                Publishes::replay(log.clone().freeze().slice(..end)).unsettled.len(),
                end / record_bytes,
                "cut at {end}"
            );
            let mut damaged = log.clone();
            damaged[end] ^= 0x10;
            assert_eq!(Publishes::replay(damaged.freeze()).unsettled.len(), end / record_bytes, "damaged at {end}");
        }
    }
}
