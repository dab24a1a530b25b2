//! How far the journal was durable: a note beside the segments, so that an end that is missing is told from an end.
//!
//! A batch proves those before it; nothing in the segments proves the last ones. If the end of the last segment is lost (cut off by
//! a file system, a page that reads as zeroes), what is left looks like a shorter journal that is whole. So after each commit the
//! position that is durable now is noted in a file of its own, *without* a sync: it costs a write into the page cache, and the
//! kernel brings it to the disk within half a minute or so. A note is never ahead of what is durable. One that is behind, torn or
//! lost says less, and nothing wrong; while the machine runs on it is exact.
//!
//! # The file `head` (two slots of 512 bytes, written in turn, so that a torn write leaves the other)
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `CHED` |
//! | 4 | 4 | CRC32C of bytes 0..4 and 8..32 |
//! | 8 | 8 | incarnation |
//! | 16 | 8 | salt |
//! | 24 | 8 | the last durable position |

use std::io;
use std::sync::Arc;

use bytes::BufMut;
use carillon_protocol::ids::{Incarnation, Position};

use super::format::Identity;
use super::storage::{Storage, StorageFile};

/// The file's name.
pub(crate) const NAME: &str = "head";

const MAGIC: [u8; 4] = *b"CHED";
pub(crate) const NOTE_BYTES: usize = 32;
/// A disk writes so much at once.
pub(crate) const SLOT_BYTES: usize = 512;
const SLOTS: usize = 2;

/// Where the writer notes what is durable.
pub(crate) struct Proof {
    file: Arc<dyn StorageFile>,
    identity: Identity,
    slot: usize,
}

impl Proof {
    /// To begin to note. A file that is there is gone on with, in place: its old note stays until a newer one is written.
    pub(crate) fn open(storage: &dyn Storage, identity: Identity) -> io::Result<Self> {
        let bytes = (SLOT_BYTES * SLOTS) as u64;
        let file = match storage.open(NAME) {
            Ok(file) if file.length()? == bytes => file,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // Durable, so that a start on a full disk need not make it again.
            Ok(_) | Err(_) => {
                let made = storage.create(NAME, bytes)?;
                made.sync_data()?;
                storage.sync_directory()?;
                made
            }
        };
        Ok(Self { file, identity, slot: 0 })
    }

    /// Everything up to here is durable.
    pub(crate) fn note(&mut self, head: Position) -> io::Result<()> {
        self.file.write_at(&[&encode(&self.identity, head, MAGIC)], (self.slot * SLOT_BYTES) as u64)?;
        self.slot = (self.slot + 1) % SLOTS;
        Ok(())
    }
}

/// The notes as they are, of whatever journal: for who looks at it beside a writer, and has to know them before it walks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Notes([[u8; NOTE_BYTES]; SLOTS]);

impl Notes {
    /// Reads them, if they are there.
    pub(crate) fn read(storage: &dyn Storage) -> io::Result<Self> {
        let mut notes = Self::default();
        let file = match storage.open(NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(notes),
            Err(error) => return Err(error),
        };
        for (slot, note) in notes.0.iter_mut().enumerate() {
            match file.read_at(note, (slot * SLOT_BYTES) as u64) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => *note = [0; NOTE_BYTES],
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }

    /// The last position that was noted as durable in this journal; 0 if nothing is known.
    pub(crate) fn head(&self, identity: &Identity) -> Position {
        self.all().filter(|(of, _)| of == identity).map(|(_, head)| head).max().unwrap_or_default()
    }

    /// The last position that was noted as durable in whatever journal there was; 0 if nothing is known.
    pub(crate) fn head_of_any(&self) -> Position {
        self.all().map(|(_, head)| head).max().unwrap_or_default()
    }

    /// Those that are whole.
    fn all(&self) -> impl Iterator<Item = (Identity, Position)> {
        self.0.iter().filter_map(|note| decode(note, MAGIC))
    }
}

/// What is said of a journal that ends before that.
pub(crate) fn missing(noted: Position) -> String {
    format!(
        "it ends there, and everything up to position {noted} was durable, as the file `{NAME}` notes; who gives up what is missing \
         removes that file"
    )
}

/// What is said when there is no journal any more.
pub(crate) fn gone(noted: Position) -> String {
    format!(
        "the journal's segments are missing, and everything up to position {noted} was durable, as the file `{NAME}` notes; put them \
         back, or restore from a backup; who gives up all of it removes that file"
    )
}

/// A position of a journal, as it is noted.
pub(crate) fn encode(identity: &Identity, position: Position, magic: [u8; 4]) -> [u8; NOTE_BYTES] {
    let mut bytes = [0; NOTE_BYTES];
    let mut out = &mut bytes[..];
    out.put_slice(&magic);
    out.put_u32_le(0);
    out.put_u64_le(identity.incarnation.0);
    out.put_u64_le(identity.salt);
    out.put_u64_le(position.0);
    let sum = crc(&bytes).to_le_bytes();
    bytes[4..8].copy_from_slice(&sum);
    bytes
}

/// The note, if it is whole.
pub(crate) fn decode(bytes: &[u8; NOTE_BYTES], magic: [u8; 4]) -> Option<(Identity, Position)> {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let identity = Identity { incarnation: Incarnation(u64_at(8)), salt: u64_at(16) };
    let is_whole = bytes[..4] == magic && bytes[4..8] == crc(bytes).to_le_bytes();
    is_whole.then(|| (identity, Position(u64_at(24))))
}

fn crc(bytes: &[u8; NOTE_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..4]), &bytes[8..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Loss, MemoryStorage};

    const IDENTITY: Identity = Identity { incarnation: Incarnation(7), salt: 99 };

    fn noted(storage: &MemoryStorage, identity: &Identity) -> Position {
        Notes::read(storage).unwrap().head(identity)
    }

    fn begin(storage: &MemoryStorage, head: Position) -> Proof {
        let mut proof = Proof::open(storage, IDENTITY).unwrap();
        proof.note(head).unwrap();
        proof
    }

    #[test]
    fn the_newest_note_that_is_whole_counts() {
        let storage = MemoryStorage::new();
        assert_eq!(noted(&storage, &IDENTITY), Position(0));
        let mut proof = begin(&storage, Position(3));
        proof.note(Position(5)).unwrap();
        assert_eq!(noted(&storage, &IDENTITY), Position(5));
        proof.note(Position(8)).unwrap();
        assert_eq!(noted(&storage, &IDENTITY), Position(8));
        storage.flip(NAME, 25, 1);
        assert_eq!(noted(&storage, &IDENTITY), Position(5), "the other slot");
        storage.flip(NAME, SLOT_BYTES + 9, 1);
        assert_eq!(noted(&storage, &IDENTITY), Position(0));
        let other = Identity { salt: 98, ..IDENTITY };
        begin(&storage, Position(9));
        assert_eq!(noted(&storage, &other), Position(0), "another journal's");
        storage.put(NAME, vec![1; 100]);
        assert_eq!(noted(&storage, &IDENTITY), Position(0));
    }

    #[test]
    fn a_loss_of_power_makes_a_note_older_and_never_newer() {
        for seed in 0..2_000 {
            let storage = MemoryStorage::new();
            let mut proof = begin(&storage, Position(1));
            (2..10).for_each(|head| proof.note(Position(head)).unwrap());
            storage.restart(Loss::Random(seed));
            assert!(noted(&storage, &IDENTITY) <= Position(9));
        }
    }
}
