//! Slots: the devices of this machine. Each running command holds one, so that two terminals never fence each other.
//!
//! ```text
//! <state>/slots/<tenant>/<user>/reader-0 … reader-7    held by `sub`
//!                               asker-0  … asker-5     held by everything else
//! ```
//!
//! A slot is the SDK's [`FileStore`]: device and producer id, cursor, numbers and unsettled publishes; its lock is the slot's, and
//! falls with the process. A command takes the lowest free one, so that a restarted `sub` goes on where it was, and a `pub` first sends
//! what a killed one left unsettled.
//!
//! Readers and askers are apart because they want opposite things of the cursor: a reader's moves only over what it printed; an
//! asker reads nothing, so its cursor jumps to the journal's head each time it connects, and the broker has nothing to catch it up on.
//! What a restore made void in a slot stays there until a `pub` has said so: neither a command that publishes nothing, nor one that
//! ended before it could, takes the news with it.
//!
//! A user has 16 devices: 8 readers, 6 askers, and two for the tour of `carillon dev`.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use carillon_client::{Cursor, FileStore, Identity, Saved, Store, Unsettled};

use super::failure::{Exit, Failure};

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Prints events and acknowledges them.
    Reader,
    /// Publishes and asks.
    Asker,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Asker => "asker",
        }
    }

    /// At most so many run at once, for one user.
    fn slots(self) -> usize {
        match self {
            Self::Reader => 8,
            Self::Asker => 6,
        }
    }
}

/// A device of this machine, held.
#[derive(Debug)]
pub(crate) struct Slot(FileStore);

impl Slot {
    /// The user knows what a restore made void.
    pub(crate) fn told(&self) -> io::Result<()> {
        self.0.reset_done()
    }
}

impl Store for Slot {
    fn identity(&self) -> Option<Identity> {
        self.0.identity()
    }

    fn load(&self) -> io::Result<Saved> {
        self.0.load()
    }

    fn save_cursor(&self, cursor: Cursor) -> io::Result<()> {
        self.0.save_cursor(cursor)
    }

    fn save_unsettled(&self, publishes: &[Unsettled]) -> io::Result<()> {
        self.0.save_unsettled(publishes)
    }

    fn settle(&self, numbers: &[u64]) -> io::Result<()> {
        self.0.settle(numbers)
    }

    fn reset(&self) -> io::Result<()> {
        self.0.reset()
    }

    /// The client is done with it, which is enough if no publish was lost.
    fn reset_done(&self) -> io::Result<()> {
        match self.0.load()?.reset_due {
            Some(void) if !void.is_empty() => Ok(()),
            _ => self.0.reset_done(),
        }
    }
}

/// Takes the lowest free slot of a user.
pub(crate) fn take(state: &Path, tenant: &str, user: &str, purpose: Purpose) -> Result<Slot, Failure> {
    let directory = directory(state, tenant, user);
    for nth in 0..purpose.slots() {
        let slot = directory.join(format!("{}-{nth}", purpose.name()));
        match FileStore::open(&slot) {
            Ok(store) => return Ok(Slot(store)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let text = format!(
                    "cannot use the slot {}: {error}; if it is damaged, remove that directory (what it had not sent is lost)",
                    slot.display()
                );
                return Err(Failure::caused(Exit::Failed, text, error));
            }
        }
    }
    let (slots, name) = (purpose.slots(), purpose.name());
    let text = format!("all {slots} {name} slots of {user} are taken by running commands: end one of them");
    Err(Failure::new(Exit::Failed, text))
}

/// Where the slots of a user are.
pub(crate) fn directory(state: &Path, tenant: &str, user: &str) -> PathBuf {
    state.join("slots").join(file_name(tenant)).join(file_name(user))
}

/// A name as the name of a file: letters, digits, `-` and `_` stay, every other byte becomes `%` and two hex digits. 64 bytes become at
/// most 192, below the 255 of file systems; different names stay different.
fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => file.push(char::from(byte)),
            other => write!(file, "%{other:02x}").expect("a string takes all"),
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(store: &Slot) -> u64 {
        store.identity().unwrap().device.0
    }

    #[test]
    fn two_commands_have_two_devices_and_a_restarted_one_its_own() {
        let state = tempfile::tempdir().unwrap();
        let take = |purpose| take(state.path(), "dev", "alice", purpose).unwrap();
        let (first, second) = (take(Purpose::Reader), take(Purpose::Reader));
        let asker = take(Purpose::Asker);
        let (first_device, second_device) = (device(&first), device(&second));
        assert_ne!(first_device, second_device);
        assert_ne!(first_device, device(&asker));
        drop(first);
        assert_eq!(device(&take(Purpose::Reader)), first_device, "the lowest free slot");
        assert_ne!(device(&asker), second_device);
    }

    #[test]
    fn there_are_fewer_slots_than_devices() {
        let state = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..8).map(|_| take(state.path(), "t", "u", Purpose::Reader).unwrap()).collect();
        let report = take(state.path(), "t", "u", Purpose::Reader).unwrap_err().report(false).unwrap();
        assert!(report.contains("all 8 reader slots of u are taken"), "{report}");
        assert!(take(state.path(), "t", "v", Purpose::Reader).is_ok(), "another user's are free");
        drop(all);
        assert!(Purpose::Reader.slots() + Purpose::Asker.slots() <= 14, "two devices are the tour's");
    }

    #[test]
    fn any_name_is_a_file_name_of_its_own() {
        assert_eq!(file_name("k-4711_A"), "k-4711_A");
        assert_eq!(file_name("../ü%"), "%2e%2e%2f%c3%bc%25");
        assert_eq!(file_name(&"é".repeat(32)).len(), 192);
    }
}
