//! Recovery of a journal from arbitrary segments: what it serves has the right checksums and lies in them, dense from the first
//! position; it serves the same again; what it refuses it leaves as it is.
//!
//! Input: a byte of flags, and segments, each a length and its bytes: the 64 of its header that mean something, and what
//! follows the header's page. Sealed, headers and batches get what makes them good, up to the first that lacks its magic; with a flag set,
//! one byte is then changed.

use std::sync::Arc;

use bytes::Bytes;
use carillon::journal::format::{
    BATCH_HEADER_BYTES, BATCH_MAGIC, ROW_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, VERSION,
};
use carillon::journal::{
    Draft, Entry, Identity, JournalOptions, MemoryStorage, Opened, SEGMENT_BYTES_MIN, open, segment_file_name, verify,
};
use carillon_protocol::ids::{Epoch, Incarnation, Position};

use crate::input::{Input, put_piece};
use crate::life::{Life, SHARD};
use crate::seal::{put, put_crc, u32_at, u64_at};
use crate::{Budget, Target};

pub(super) const TARGET: Target = Target {
    name: "journal",
    run,
    // The harness's own: files twice in memory, as written and as synced, and the entries that were served.
    budget: Budget { per_byte: 24, fixed_bytes: 256 * 1024 },
    input_bytes_max: 16 * 1024,
    seeds,
    words: &[b"CBAT", b"CARILLON"],
    short_inputs: 30_000,
};

/// What recovery itself may take, for each byte of the files: a window over a segment, the last batch, and its copy in a fresh
/// segment, which the simulated disk has as written, pending and synced. The rest is the fresh segment, up to four times, and a new
/// journal has two.
const RECOVERY: Budget = Budget::fixed(12 * FRESH_BYTES);

/// The smallest segment there is, of which recovery makes one.
const FRESH_BYTES: usize = SEGMENT_HEADER_BYTES + BATCH_HEADER_BYTES + 16;
const _: () = assert!(FRESH_BYTES as u64 == SEGMENT_BYTES_MIN);

const IDENTITY: Identity = Identity { incarnation: Incarnation(0x77), salt: 0x99 };

/// Segments of an input.
const SEGMENTS_MAX: usize = 4;

const FIELDS_BYTES: usize = 64;

/// Flags: a byte is damaged after sealing; batches keep the first positions they have; segments do.
const DAMAGE: u8 = 1;
const KEEP_BATCHES: u8 = 2;
const KEEP_SEGMENTS: u8 = 4;

fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (flags, at) = (input.u8(), input.u16());
    let mut segments = Vec::new();
    while !input.is_empty() && segments.len() < SEGMENTS_MAX {
        segments.push(input.piece().to_vec());
    }
    check(&segments);
    seal(&mut segments, flags);
    if flags & DAMAGE != 0
        && let Some(segment) = segments.iter_mut().max_by_key(|segment| segment.len())
        && !segment.is_empty()
    {
        let at = usize::from(at) % segment.len();
        segment[at] ^= 1 << (at % 8);
    }
    check(&segments);
}

fn check(segments: &[Vec<u8>]) {
    let storage = MemoryStorage::new();
    let mut files = Vec::new();
    for segment in segments {
        let mut file = segment.clone();
        let body = file.split_off(file.len().min(FIELDS_BYTES));
        file.resize(SEGMENT_HEADER_BYTES, 0);
        let first = u64_at(&file, 40).max(1);
        file.extend(body);
        let name = segment_file_name(Position(first));
        storage.put(&name, file.clone());
        files.retain(|(other, _)| *other != name);
        files.push((name, file));
    }
    let bytes = files.iter().map(|(_, file)| file.len()).sum();
    let _ = verify(&storage, &mut |_| {});
    let mut served: Vec<(Bytes, Vec<Entry>)> = Vec::new();
    let opened = RECOVERY.spend("journal recovery", bytes, || recover(&storage, &mut |_| {}));
    let Some(opened) = opened else {
        let left: Vec<_> = storage.names().iter().map(|name| storage.contents(name)).collect();
        assert!(files.iter().all(|(_, file)| left.contains(file)), "what is refused stays");
        return;
    };
    let head = opened.report.head;
    drop(opened);
    let again = recover(&storage, &mut |batch| {
        served.push((Bytes::from(batch.parts().concat()), batch.entries().collect()));
    });
    let again = again.expect("what was opened once can be opened again");
    assert_eq!(again.report.head, head);
    check_served(&served, &files, head);
    for entry in served.iter().flat_map(|(_, entries)| entries) {
        let read = again.reader.read(&[entry.position], usize::MAX);
        assert_eq!(read.expect("what was replayed can be read"), std::slice::from_ref(entry));
    }
    let report = verify(&storage, &mut |_| {}).expect("it is readable");
    assert_eq!(report.findings, [], "what was opened has no damage");
}

fn recover(storage: &MemoryStorage, replay: &mut dyn FnMut(&carillon::journal::Batch)) -> Option<Opened> {
    let options = JournalOptions {
        epoch: Epoch(1),
        segment_bytes: SEGMENT_BYTES_MIN,
        reserve_bytes: SEGMENT_BYTES_MIN,
        identity: Some(IDENTITY),
        ..JournalOptions::new(SHARD)
    };
    open(Arc::new(storage.clone()), options, Position(0), &mut |batch| {
        replay(batch);
        Ok(())
    })
    .ok()
}

/// Written from the byte table of a batch, with no code of the journal's.
fn check_served(served: &[(Bytes, Vec<Entry>)], files: &[(String, Vec<u8>)], head: Position) {
    let mut next = 1;
    for (batch, entries) in served {
        assert!(files.iter().any(|(_, file)| contains(file, batch)), "a batch lies in a segment as it is served");
        let mut header = batch[..BATCH_HEADER_BYTES].to_vec();
        put_crc(&mut header, 8, BATCH_HEADER_BYTES);
        assert_eq!(header[..], batch[..BATCH_HEADER_BYTES], "the header's checksum");
        let (count, private_bytes) = (u32_at(batch, 20) as usize, u32_at(batch, 24) as usize);
        let privates = BATCH_HEADER_BYTES + ROW_BYTES * count;
        let frames = privates + private_bytes;
        assert_eq!(crc32c::crc32c(&batch[BATCH_HEADER_BYTES..frames]), u32_at(batch, 12), "the table's checksum");
        assert_eq!((entries.len(), u64_at(batch, 32), u32_at(batch, 16) as usize), (count, next, batch.len()));
        let (mut private_begin, mut frame_begin) = (privates, frames);
        for (entry, row) in entries.iter().zip(batch[BATCH_HEADER_BYTES..privates].chunks_exact(ROW_BYTES)) {
            let private_end = privates + u32_at(row, 0) as usize;
            let frame_end = frames + u32_at(row, 4) as usize;
            let (private, frame) = (&batch[private_begin..private_end], &batch[frame_begin..frame_end]);
            assert_eq!((&entry.private[..], &entry.frame[..], entry.position.0), (private, frame, next));
            let crc = crc32c::crc32c_append(crc32c::crc32c(private), frame);
            assert_eq!(crc, u32_at(row, 8), "a record's checksum");
            (private_begin, frame_begin, next) = (private_end, frame_end, next + 1);
        }
    }
    assert_eq!(head, Position(next - 1), "everything up to the head is served");
}

fn contains(file: &[u8], batch: &[u8]) -> bool {
    file.windows(batch.len()).any(|window| window == batch)
}

/// Makes headers and batches good.
fn seal(segments: &mut [Vec<u8>], flags: u8) {
    let mut next = 1u64;
    for (nth, segment) in segments.iter_mut().enumerate() {
        if segment.len() < FIELDS_BYTES {
            segment.resize(FIELDS_BYTES, 0);
        }
        put(segment, 0, &SEGMENT_MAGIC);
        put(segment, 8, &VERSION.to_le_bytes());
        put(segment, 10, &SHARD.0.to_le_bytes());
        put(segment, 16, &IDENTITY.incarnation.0.to_le_bytes());
        put(segment, 24, &IDENTITY.salt.to_le_bytes());
        if flags & KEEP_SEGMENTS == 0 || nth == 0 {
            put(segment, 40, &next.to_le_bytes());
        }
        put_crc(segment, 12, FIELDS_BYTES);
        let mut rest = &mut segment[FIELDS_BYTES..];
        while rest.len() >= BATCH_HEADER_BYTES + ROW_BYTES && rest[..4] == BATCH_MAGIC {
            let bytes = seal_batch(rest, (flags & KEEP_BATCHES == 0).then_some(next));
            next = u64_at(rest, 32).wrapping_add(u64::from(u32_at(rest, 20)));
            rest = &mut rest[bytes..];
        }
    }
}

/// Makes the batch at the front good, as long as it says or as there is; the position of its first record, if it is to be another.
fn seal_batch(bytes: &mut [u8], first: Option<u64>) -> usize {
    let length = (u32_at(bytes, 16) as usize).clamp(BATCH_HEADER_BYTES + ROW_BYTES, bytes.len());
    let batch = &mut bytes[..length];
    let rows_max = (length - BATCH_HEADER_BYTES) / ROW_BYTES;
    let count = (u32_at(batch, 20) as usize).clamp(1, rows_max);
    let privates = BATCH_HEADER_BYTES + ROW_BYTES * count;
    let private_bytes = (u32_at(batch, 24) as usize).min(length - privates);
    let frames = privates + private_bytes;
    put(batch, 4, &VERSION.to_le_bytes());
    let number = |value: usize| u32::try_from(value).unwrap().to_le_bytes();
    put(batch, 16, &number(length));
    put(batch, 20, &number(count));
    put(batch, 24, &number(private_bytes));
    if let Some(first) = first {
        put(batch, 32, &first.to_le_bytes());
    }
    put(batch, 48, &IDENTITY.incarnation.0.to_le_bytes());
    put(batch, 56, &IDENTITY.salt.to_le_bytes());
    let (mut private, mut frame) = (0, 0);
    for nth in 0..count {
        let row = BATCH_HEADER_BYTES + ROW_BYTES * nth;
        let is_last = nth + 1 == count;
        let private_end = (u32_at(batch, row) as usize).clamp(private, private_bytes);
        let frame_end = (u32_at(batch, row + 4) as usize).clamp(frame, length - frames);
        let (private_end, frame_end) =
            if is_last { (private_bytes, length - frames) } else { (private_end, frame_end) };
        let private_crc = crc32c::crc32c(&batch[privates + private..privates + private_end]);
        let crc = crc32c::crc32c_append(private_crc, &batch[frames + frame..frames + frame_end]);
        put(batch, row, &number(private_end));
        put(batch, row + 4, &number(frame_end));
        put(batch, row + 8, &crc.to_le_bytes());
        (private, frame) = (private_end, frame_end);
    }
    let table_crc = crc32c::crc32c(&batch[BATCH_HEADER_BYTES..frames]);
    put(batch, 12, &table_crc.to_le_bytes());
    put_crc(batch, 8, BATCH_HEADER_BYTES);
    length
}

/// Batches of so many records of a life each, as they lie in a segment.
fn batches(records: &[(Vec<u8>, Vec<u8>)], first: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut next = first;
    for records in records.chunks(size) {
        let mut draft = Draft::new(Position(next));
        for (private, frame) in records {
            draft.push(|privates, frames| {
                privates.extend_from_slice(private);
                frames.extend_from_slice(frame);
            });
        }
        next += records.len() as u64;
        bytes.extend(draft.seal(IDENTITY, Epoch(1)).parts().concat());
    }
    bytes
}

fn seeds() -> Vec<Vec<u8>> {
    let records = Life::whole().encoded();
    let segment = |first: usize, last: usize, size: usize| {
        let mut segment = vec![0; FIELDS_BYTES];
        segment.extend(batches(&records[first - 1..last], first as u64, size));
        let mut sealed = [segment];
        seal(&mut sealed, 0);
        put(&mut sealed[0], 40, &(first as u64).to_le_bytes());
        put_crc(&mut sealed[0], 12, FIELDS_BYTES);
        let [segment] = sealed;
        segment
    };
    let seed = |flags: u8, segments: &[Vec<u8>]| {
        let mut seed = vec![flags, 200, 0];
        segments.iter().for_each(|segment| put_piece(&mut seed, segment));
        seed
    };
    let torn = [segment(1, 4, 2), vec![9; 30]].concat();
    vec![
        seed(0, &[segment(1, records.len(), 5)]),
        seed(DAMAGE, &[segment(1, 6, 3), segment(7, 9, 1)]),
        // The second repeats the last batch of the first.
        seed(KEEP_BATCHES | KEEP_SEGMENTS, &[segment(1, 6, 3), segment(4, 8, 3)]),
        seed(KEEP_BATCHES, &[segment(1, 2, 1), segment(3, 5, 1), segment(6, 8, 2)]),
        seed(0, &[torn]),
        seed(0, &[segment(1, 3, 1), vec![7; 64]]),
    ]
}
