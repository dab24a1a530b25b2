//! Where the journal begins: a note beside the segments, so that a begin that is missing is told from one that retention took.
//!
//! If the first segments are lost, what is left looks like a journal that retention has shortened: a snapshot reaches it, and a start
//! would name to every device as gone what nobody wanted to let go. So before segments are removed the first position that will be left
//! is noted, and made durable. A journal that begins later than the note says has lost its begin. One that begins earlier was
//! interrupted while its segments were removed; a note that is damaged or lost says nothing.
//!
//! # The file `begin` (512 bytes: a disk writes them at once, or what it wrote says nothing)
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `CBEG` |
//! | 4 | 4 | CRC32C of bytes 0..4 and 8..32 |
//! | 8 | 8 | incarnation |
//! | 16 | 8 | salt |
//! | 24 | 8 | the first position |

use std::io;

use carillon_protocol::ids::Position;

use super::format::Identity;
use super::proof::{self, NOTE_BYTES, SLOT_BYTES};
use super::report::{OpenError, corruption, io_error};
use super::room::is_no_room;
use super::segment::{Mark, segment_name};
use super::storage::Storage;

/// The file's name.
pub(crate) const NAME: &str = "begin";

const MAGIC: [u8; 4] = *b"CBEG";

/// The first position that was noted for this journal; 0 if nothing is known.
pub(crate) fn noted(storage: &dyn Storage, identity: &Identity) -> io::Result<Position> {
    let mut note = [0; NOTE_BYTES];
    let read = storage.open(NAME).and_then(|file| file.read_at(&mut note, 0));
    match read.map_err(|error| (error.kind(), error)) {
        Ok(()) => {}
        Err((io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof, _)) => return Ok(Position(0)),
        Err((_, error)) => return Err(error),
    }
    let note = proof::decode(&note, MAGIC).filter(|(of, _)| of == identity);
    Ok(note.map_or(Position(0), |(_, first)| first))
}

/// Where the journal began, if one that begins with this segment has lost its begin.
pub(crate) fn lost(storage: &dyn Storage, identity: &Identity, first: Position) -> io::Result<Option<Position>> {
    let noted = noted(storage, identity)?;
    Ok(Some(noted).filter(|noted| *noted > Position(0) && first > *noted))
}

/// Refuses a journal that begins with this segment and has lost its begin.
///
/// # Errors
/// `Corrupt`, or `Io`.
pub(crate) fn check(storage: &dyn Storage, identity: &Identity, first: Position) -> Result<(), OpenError> {
    let lost = lost(storage, identity, first).map_err(io_error("read", NAME))?;
    let Some(noted) = lost else { return Ok(()) };
    Err(corruption(&segment_name(first), Mark { first: noted, offset: 0 }, &missing(noted)))
}

/// Notes it if nothing is known: of a journal that is new, or of an earlier version.
///
/// # Errors
/// `Io`.
pub(crate) fn adopt(storage: &dyn Storage, identity: &Identity, first: Position) -> Result<(), OpenError> {
    if noted(storage, identity).map_err(io_error("read", NAME))? > Position(0) {
        return Ok(());
    }
    note(storage, identity, first).map_err(io_error("write", NAME))
}

/// Notes it, durably. A disk that has no room for the file gets none: then nothing is known.
pub(crate) fn note(storage: &dyn Storage, identity: &Identity, first: Position) -> io::Result<()> {
    let bytes = SLOT_BYTES as u64;
    let file = match storage.open(NAME) {
        Ok(file) if file.length()? == bytes => file,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(_) | Err(_) => match storage.create(NAME, bytes) {
            Ok(file) => {
                storage.sync_directory()?;
                file
            }
            Err(error) if is_no_room(&error) => return Ok(()),
            Err(error) => return Err(error),
        },
    };
    file.write_at(&[&proof::encode(identity, first, MAGIC)], 0)?;
    file.sync_data()
}

/// What is said of a journal that begins after that.
pub(crate) fn missing(noted: Position) -> String {
    format!(
        "records before this segment are missing: the journal began at position {noted}, as the file `{NAME}` notes; put them back, or \
         restore from a backup; who gives up what is missing removes that file"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::MemoryStorage;
    use carillon_protocol::ids::Incarnation;

    const IDENTITY: Identity = Identity { incarnation: Incarnation(7), salt: 99 };

    #[test]
    fn what_is_noted_is_read_back_unless_it_is_damaged_or_of_another_journal() {
        let storage = MemoryStorage::new();
        let other = Identity { salt: 98, ..IDENTITY };
        assert_eq!(noted(&storage, &IDENTITY).unwrap(), Position(0));
        for first in [1, 70, 300] {
            note(&storage, &IDENTITY, Position(first)).unwrap();
            assert_eq!(noted(&storage, &IDENTITY).unwrap(), Position(first));
            assert_eq!(noted(&storage, &other).unwrap(), Position(0));
        }
        for byte in 0..NOTE_BYTES {
            storage.flip(NAME, byte, 1);
            assert_eq!(noted(&storage, &IDENTITY).unwrap(), Position(0), "byte {byte}");
            storage.flip(NAME, byte, 1);
        }
        let whole = storage.contents(NAME);
        storage.put(NAME, whole[..20].to_vec());
        assert_eq!(noted(&storage, &IDENTITY).unwrap(), Position(0));
        note(&storage, &IDENTITY, Position(5)).unwrap();
        assert_eq!(noted(&storage, &IDENTITY).unwrap(), Position(5));
    }

    #[test]
    fn a_disk_without_room_for_it_has_none() {
        let storage = MemoryStorage::new();
        storage.set_capacity(Some(0));
        note(&storage, &IDENTITY, Position(5)).unwrap();
        assert_eq!(noted(&storage, &IDENTITY).unwrap(), Position(0));
    }
}
