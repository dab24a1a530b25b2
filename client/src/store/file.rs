//! A store in a directory.
//!
//! ```text
//! lock            held while the store is open: one process a directory
//! identity.json   {"device": u64, "producer": u64}, written once
//! cursors.json    [{"shard", "incarnation", "position", "receipts_through"}], replaced atomically; from the first connection on,
//!                 because `incarnation` is that of the ids in `publishes` too (older versions: from the first acknowledgement on)
//! publishes       a log: records back to back, appended, rewritten with what is unsettled when it has grown
//!
//! record of `publishes`, little-endian
//! offset  size  field
//! 0       4     u32 bytes that follow the checksum
//! 4       4     u32 CRC32C of what follows
//! 8       1     u8  1: unsettled, 2: settled, 3: next
//! 9       8     u64 number
//!               unsettled only:
//! 17      1     u8  target, as on the wire
//! 18      8     u64 target id
//! 26      1     u8  message kind
//! 27      n     payload
//! ```
//!
//! Files are replaced by writing a temporary one, fsync, rename, and fsync of the directory. A record cut short or with a wrong
//! checksum ends the log: it was being written when the machine stopped, and what it says was not sent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use carillon_protocol::ids::{ConversationId, DeviceId, Incarnation, Position, ProducerId, ShardId, UserId};
use carillon_protocol::kinds::{MessageKind, Target};
use carillon_protocol::session::Cursor;
use serde::{Deserialize, Serialize};

use super::{Identity, Saved, Store, Unsettled};
use crate::publish::To;
use crate::random;

const UNSETTLED: u8 = 1;
const SETTLED: u8 = 2;
const NEXT: u8 = 3;

/// The log is rewritten when it is longer than this and than twice what is unsettled.
const LOG_BYTES_SOFT_MAX: u64 = 1024 * 1024;

/// Keeps cursors and unsettled publishes in a directory, and the identity it chose when the directory was new.
#[derive(Debug)]
pub struct FileStore {
    directory: PathBuf,
    identity: Identity,
    held: Mutex<Held>,
    /// Unlocked by the operating system when the store is dropped.
    _lock: File,
}

#[derive(Debug)]
struct Held {
    cursors: BTreeMap<ShardId, Cursor>,
    next: u64,
    unsettled: BTreeMap<u64, Unsettled>,
    log: File,
    log_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    device: u64,
    producer: u64,
}

#[derive(Serialize, Deserialize)]
struct CursorFile {
    shard: u16,
    incarnation: u64,
    position: u64,
    receipts_through: u64,
}

impl FileStore {
    /// Opens the store in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it open; `InvalidData` when a file does not hold what was written; else what the
    /// file system says.
    pub fn open(directory: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock"))?;
        lock.try_lock()?;
        let identity = open_identity(&directory)?;
        let cursors = read_cursors(&directory)?;
        let (next, unsettled) = match read_optional(&directory.join("publishes"))? {
            Some(log) => replay(log.into()),
            None => (1, BTreeMap::new()),
        };
        let (log, log_bytes) = rewrite(&directory, next, &unsettled)?;
        let held = Mutex::new(Held { cursors, next, unsettled, log, log_bytes });
        Ok(Self { directory, identity, held, _lock: lock })
    }

    // A std mutex held over file writes: the SDK calls from threads that may block, and the order of the log is what it guards.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for FileStore {
    fn identity(&self) -> Option<Identity> {
        Some(self.identity)
    }

    fn load(&self) -> io::Result<Saved> {
        let held = self.held();
        let cursors = held.cursors.values().copied().collect();
        Ok(Saved { cursors, next: held.next, unsettled: held.unsettled.values().cloned().collect() })
    }

    fn save_cursor(&self, cursor: Cursor) -> io::Result<()> {
        let mut held = self.held();
        let mut cursors = held.cursors.clone();
        if cursor.incarnation == Incarnation(0) {
            cursors.remove(&cursor.shard);
        } else {
            cursors.insert(cursor.shard, cursor);
        }
        write_cursors(&self.directory, &cursors)?;
        held.cursors = cursors;
        Ok(())
    }

    fn save_unsettled(&self, publishes: &[Unsettled]) -> io::Result<()> {
        let mut held = self.held();
        let mut records = BytesMut::new();
        for publish in publishes {
            put_unsettled(&mut records, publish);
        }
        held.append(&records)?;
        held.log.sync_data()?;
        for publish in publishes {
            held.next = held.next.max(publish.number + 1);
            held.unsettled.insert(publish.number, publish.clone());
        }
        Ok(())
    }

    fn settle(&self, numbers: &[u64]) -> io::Result<()> {
        let mut held = self.held();
        let mut records = BytesMut::new();
        for number in numbers {
            if held.unsettled.remove(number).is_some() {
                put_record(&mut records, SETTLED, *number, |_| {});
            }
        }
        held.append(&records)?;
        let payloads: usize = held.unsettled.values().map(|publish| publish.payload.len() + 27).sum();
        if held.log_bytes > LOG_BYTES_SOFT_MAX.max(2 * payloads as u64) {
            let (log, log_bytes) = rewrite(&self.directory, held.next, &held.unsettled)?;
            held.log = log;
            held.log_bytes = log_bytes;
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        let mut held = self.held();
        // In this order: publishes without a cursor would be taken for those of the next journal.
        let (log, log_bytes) = rewrite(&self.directory, held.next, &BTreeMap::new())?;
        held.log = log;
        held.log_bytes = log_bytes;
        held.unsettled.clear();
        write_cursors(&self.directory, &BTreeMap::new())?;
        held.cursors.clear();
        Ok(())
    }
}

impl Held {
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.log.write_all(records)?;
        self.log_bytes += records.len() as u64;
        Ok(())
    }
}

fn open_identity(directory: &Path) -> io::Result<Identity> {
    let file = match read_optional(&directory.join("identity.json"))? {
        Some(file) => serde_json::from_slice(&file)?,
        None => {
            let file = IdentityFile { device: random::nonzero_u64(), producer: random::nonzero_u64() };
            replace(directory, "identity.json", &serde_json::to_vec(&file)?)?;
            file
        }
    };
    Ok(Identity { device: DeviceId(file.device), producer: ProducerId(file.producer) })
}

fn read_cursors(directory: &Path) -> io::Result<BTreeMap<ShardId, Cursor>> {
    let Some(file) = read_optional(&directory.join("cursors.json"))? else { return Ok(BTreeMap::new()) };
    let files: Vec<CursorFile> = serde_json::from_slice(&file)?;
    let cursors = files.into_iter().map(|file| Cursor {
        shard: ShardId(file.shard),
        incarnation: Incarnation(file.incarnation),
        position: Position(file.position),
        receipts_through: Position(file.receipts_through),
    });
    Ok(cursors.map(|cursor| (cursor.shard, cursor)).collect())
}

fn write_cursors(directory: &Path, cursors: &BTreeMap<ShardId, Cursor>) -> io::Result<()> {
    let file = cursors.values().map(|c| CursorFile {
        shard: c.shard.0,
        incarnation: c.incarnation.0,
        position: c.position.0,
        receipts_through: c.receipts_through.0,
    });
    let files: Vec<_> = file.collect();
    replace(directory, "cursors.json", &serde_json::to_vec(&files)?).map(drop)
}

fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file by one with these bytes, which is returned, open at its end.
fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

fn rewrite(directory: &Path, next: u64, unsettled: &BTreeMap<u64, Unsettled>) -> io::Result<(File, u64)> {
    let mut records = BytesMut::new();
    put_record(&mut records, NEXT, next, |_| {});
    for publish in unsettled.values() {
        put_unsettled(&mut records, publish);
    }
    Ok((replace(directory, "publishes", &records)?, records.len() as u64))
}

fn put_unsettled(out: &mut BytesMut, publish: &Unsettled) {
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

/// What the log says: the next number and what is unsettled.
fn replay(mut log: Bytes) -> (u64, BTreeMap<u64, Unsettled>) {
    let (mut next, mut unsettled) = (1, BTreeMap::new());
    while let Some((kind, number, rest)) = take_record(&mut log) {
        match kind {
            UNSETTLED => {
                let Some(publish) = take_unsettled(number, rest) else { break };
                next = next.max(number + 1);
                unsettled.insert(number, publish);
            }
            SETTLED => drop(unsettled.remove(&number)),
            NEXT => next = next.max(number),
            _ => break,
        }
    }
    (next, unsettled)
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

    fn cursor(position: u64) -> Cursor {
        let (incarnation, receipts_through) = (Incarnation(u64::MAX), Position(position / 2));
        Cursor { shard: ShardId(3), incarnation, position: Position(position), receipts_through }
    }

    #[test]
    fn what_was_saved_is_there_when_the_store_is_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        let identity = store.identity();
        store.save_cursor(cursor(40)).unwrap();
        store.save_cursor(cursor(41)).unwrap();
        store.save_unsettled(&[publish(1), publish(2), publish(3)]).unwrap();
        store.settle(&[1, 3, 99]).unwrap();
        drop(store);
        let store = FileStore::open(directory.path()).unwrap();
        assert_eq!(store.identity(), identity);
        let saved = Saved { cursors: vec![cursor(41)], next: 4, unsettled: vec![publish(2)] };
        assert_eq!(store.load().unwrap(), saved);
        let none = Cursor { incarnation: Incarnation(0), position: Position(0), ..cursor(0) };
        store.save_cursor(none).unwrap();
        assert_eq!(store.load().unwrap().cursors, []);
    }

    #[test]
    fn a_reset_leaves_only_who_it_is_and_the_next_number() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        let identity = store.identity();
        store.save_cursor(cursor(40)).unwrap();
        store.save_unsettled(&[publish(1), publish(2)]).unwrap();
        store.reset().unwrap();
        let saved = Saved { cursors: Vec::new(), next: 3, unsettled: Vec::new() };
        assert_eq!(store.load().unwrap(), saved);
        drop(store);
        let store = FileStore::open(directory.path()).unwrap();
        assert_eq!((store.load().unwrap(), store.identity()), (saved, identity));
        store.save_unsettled(&[publish(3)]).unwrap();
        drop(store);
        assert_eq!(FileStore::open(directory.path()).unwrap().load().unwrap().unsettled, [publish(3)]);
    }

    #[test]
    fn a_reset_that_stops_half_way_leaves_no_publish_without_its_cursor() {
        let directory = tempfile::tempdir().unwrap();
        let held = |stops_at: &str| {
            let store = FileStore::open(directory.path()).unwrap();
            store.save_cursor(cursor(40)).unwrap();
            store.save_unsettled(&[publish(1), publish(2)]).unwrap();
            // A directory in the place of the temporary file: what would replace it fails.
            fs::create_dir(directory.path().join(stops_at)).unwrap();
            store.reset().unwrap_err();
            drop(store);
            fs::remove_dir(directory.path().join(stops_at)).unwrap();
            let Saved { cursors, unsettled, .. } = FileStore::open(directory.path()).unwrap().load().unwrap();
            (cursors, unsettled.len())
        };
        assert_eq!(held("publishes.new"), (vec![cursor(40)], 2), "nothing was done");
        assert_eq!(held("cursors.json.new"), (vec![cursor(40)], 0), "the publishes go first");
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let _store = FileStore::open(directory.path()).unwrap();
        assert_eq!(FileStore::open(directory.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_log_cut_or_damaged_anywhere_gives_what_is_before() {
        let mut log = BytesMut::new();
        for number in 1..=3 {
            put_unsettled(&mut log, &publish(number));
        }
        let record_bytes = log.len() / 3;
        for end in 0..log.len() {
            assert_eq!(replay(log.clone().freeze().slice(..end)).1.len(), end / record_bytes, "cut at {end}");
            let mut damaged = log.clone();
            damaged[end] ^= 0x10;
            assert_eq!(replay(damaged.freeze()).1.len(), end / record_bytes, "damaged at {end}");
        }
    }

    #[test]
    fn a_grown_log_is_rewritten() {
        let directory = tempfile::tempdir().unwrap();
        let store = FileStore::open(directory.path()).unwrap();
        let large = |number| Unsettled { payload: Bytes::from(vec![1; 60_000]), ..publish(number) };
        for number in 1..=40 {
            store.save_unsettled(&[large(number)]).unwrap();
            store.settle(&[number]).unwrap();
        }
        store.save_unsettled(&[publish(41)]).unwrap();
        assert!(fs::metadata(directory.path().join("publishes")).unwrap().len() < LOG_BYTES_SOFT_MAX);
        drop(store);
        let saved = FileStore::open(directory.path()).unwrap().load().unwrap();
        assert_eq!((saved.next, saved.unsettled), (42, vec![publish(41)]));
    }
}
