//! A store in a directory.
//!
//! ```text
//! lock            held while the store is open: one process a directory
//! identity.json   {"device": u64, "producer": u64}, written once
//! cursors.json    [{"shard", "incarnation", "position", "receipts_through"}], replaced atomically; from the first connection on,
//!                 because `incarnation` is that of the ids in `publishes` too (older versions: from the first acknowledgement on)
//! publishes       a log, as in `log.rs`: appended, and rewritten with what is unsettled when it has grown, and around a reset
//! ```
//!
//! Files are replaced by writing a temporary one, fsync, rename, and fsync of the directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use carillon_protocol::ids::{DeviceId, Incarnation, Position, ProducerId, ShardId};
use carillon_protocol::session::Cursor;
use serde::{Deserialize, Serialize};

use super::log::{self, Publishes};
use super::{Identity, Saved, Store, Unsettled};
use crate::random;

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
    publishes: Publishes,
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
        let publishes = Publishes::replay(read_optional(&directory.join("publishes"))?.unwrap_or_default().into());
        let (log, log_bytes) = rewrite(&directory, &publishes)?;
        let held = Mutex::new(Held { cursors, publishes, log, log_bytes });
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
        let Publishes { next, unsettled, reset_due } = held.publishes.clone();
        let (unsettled, reset_due) =
            (unsettled.into_values().collect(), reset_due.map(|void| void.into_iter().collect()));
        Ok(Saved { cursors, next, unsettled, reset_due })
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
            log::put_unsettled(&mut records, publish);
        }
        held.append(&records)?;
        held.log.sync_data()?;
        for publish in publishes {
            held.publishes.insert(publish.clone());
        }
        Ok(())
    }

    fn settle(&self, numbers: &[u64]) -> io::Result<()> {
        let mut held = self.held();
        let mut records = BytesMut::new();
        for number in numbers {
            if held.publishes.unsettled.remove(number).is_some() {
                log::put_settled(&mut records, *number);
            }
        }
        held.append(&records)?;
        let payloads: usize = held.publishes.unsettled.values().map(|publish| publish.payload.len() + 27).sum();
        if held.log_bytes > LOG_BYTES_SOFT_MAX.max(2 * payloads as u64) {
            let publishes = held.publishes.clone();
            held.rewrite(&self.directory, publishes)?;
        }
        Ok(())
    }

    fn reset(&self) -> io::Result<()> {
        let mut held = self.held();
        // In this order: publishes without a cursor would be taken for those of the next journal.
        let mut publishes = held.publishes.clone();
        publishes.reset();
        held.rewrite(&self.directory, publishes)?;
        write_cursors(&self.directory, &BTreeMap::new())?;
        held.cursors.clear();
        Ok(())
    }

    fn reset_done(&self) -> io::Result<()> {
        let mut held = self.held();
        let publishes = Publishes { reset_due: None, ..held.publishes.clone() };
        held.rewrite(&self.directory, publishes)
    }
}

impl Held {
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.log.write_all(records)?;
        self.log_bytes += records.len() as u64;
        Ok(())
    }

    /// Replaces what is held, in the directory first.
    fn rewrite(&mut self, directory: &Path, publishes: Publishes) -> io::Result<()> {
        (self.log, self.log_bytes) = rewrite(directory, &publishes)?;
        self.publishes = publishes;
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

fn rewrite(directory: &Path, publishes: &Publishes) -> io::Result<(File, u64)> {
    let records = publishes.records();
    Ok((replace(directory, "publishes", &records)?, records.len() as u64))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use carillon_protocol::ids::{ConversationId, UserId};
    use carillon_protocol::kinds::MessageKind;

    use super::*;
    use crate::publish::To;

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
        let saved = Saved { cursors: vec![cursor(41)], next: 4, unsettled: vec![publish(2)], reset_due: None };
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
        let mut saved = Saved { next: 3, reset_due: Some(vec![1, 2]), ..Saved::default() };
        assert_eq!(store.load().unwrap(), saved);
        drop(store);
        let store = FileStore::open(directory.path()).unwrap();
        assert_eq!((store.load().unwrap(), store.identity()), (saved, identity));
        store.save_unsettled(&[publish(3)]).unwrap();
        drop(store);
        let store = FileStore::open(directory.path()).unwrap();
        saved = Saved { next: 4, unsettled: vec![publish(3)], reset_due: Some(vec![1, 2]), ..Saved::default() };
        assert_eq!(store.load().unwrap(), saved);
        store.reset().unwrap();
        assert_eq!(store.load().unwrap().reset_due, Some(vec![1, 2, 3]), "until the application is done with it");
        store.reset_done().unwrap();
        store.save_unsettled(&[publish(4)]).unwrap();
        drop(store);
        saved = Saved { next: 5, unsettled: vec![publish(4)], ..Saved::default() };
        assert_eq!(FileStore::open(directory.path()).unwrap().load().unwrap(), saved);
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
            let Saved { cursors, unsettled, reset_due, .. } =
                FileStore::open(directory.path()).unwrap().load().unwrap();
            (cursors, unsettled.len(), reset_due)
        };
        assert_eq!(held("publishes.new"), (vec![cursor(40)], 2, None), "nothing was done");
        assert_eq!(held("cursors.json.new"), (vec![cursor(40)], 0, Some(vec![1, 2])), "the publishes go first");
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let directory = tempfile::tempdir().unwrap();
        let _store = FileStore::open(directory.path()).unwrap();
        assert_eq!(FileStore::open(directory.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
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
