//! What a client keeps over restarts: cursors, so that it goes on where it was, and unsettled publishes, so that a
//! message whose fate was unknown is repeated under its own number and never published twice.
//!
//! Ids, and so the publishes that name them, are of one *incarnation* of the broker's journal: after a restore from a backup they may
//! belong to others. The cursor says which. It is there before the first unsettled publish is, with position 0 if the
//! application has acknowledged nothing, and publishes are let go of before it is. So a store that holds unsettled publishes and
//! no cursor was written by a version that did not keep it, for a client that acknowledged nothing: they are taken for those
//! of the first incarnation that this client meets.
//!
//! That the journal is another must reach the application, which may keep ids of its own, even if the process ends before it
//! does. So the store keeps that a reset is due, and which publishes it let go of, until the application is done with
//! [`Event::Reset`](crate::Event::Reset); a client that finds it begins as after the reset. It may be told twice, but never not.
//!
//! The SDK calls a store from threads that may block, one call of each kind at a time, and [`Store::reset`] never beside another
//! that adds something.

mod file;
mod log;
mod memory;
#[cfg(feature = "probe")]
pub(crate) mod probe;

use std::io;

use bytes::Bytes;
use carillon_protocol::ids::{DeviceId, ProducerId};
use carillon_protocol::kinds::MessageKind;
use carillon_protocol::session::Cursor;

pub use file::FileStore;
pub use memory::MemoryStore;

use crate::publish::To;

/// Who a client is: chosen at random once, kept for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The installation.
    pub device: DeviceId,
    /// Its numbering of publishes.
    pub producer: ProducerId,
}

/// A publish without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Its number; a repeat carries the same.
    pub number: u64,
    /// What it is addressed to.
    pub to: To,
    /// What the payload is.
    pub kind: MessageKind,
    /// Opaque.
    pub payload: Bytes,
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// At most one a shard; its incarnation is the one that the publishes are of as well.
    pub cursors: Vec<Cursor>,
    /// Above every number ever given to [`Store::save_unsettled`]; 0 or 1 when there was none.
    pub next: u64,
    /// Ascending by number.
    pub unsettled: Vec<Unsettled>,
    /// From [`Store::reset`] until [`Store::reset_done`], the numbers of the publishes that were let go of, ascending.
    pub reset_due: Option<Vec<u64>>,
}

/// Keeps what must survive the process. Any error ends the client with [`ConnectError::Store`](crate::ConnectError).
pub trait Store: Send + Sync + 'static {
    /// The device and producer that this store is of, if it keeps them.
    fn identity(&self) -> Option<Identity> {
        None
    }

    /// What is held.
    ///
    /// # Errors
    /// The store cannot be read, or does not hold what was saved.
    fn load(&self) -> io::Result<Saved>;

    /// Replaces the cursor of one shard, atomically and durably. One with incarnation 0 and position 0 takes it away.
    ///
    /// # Errors
    /// The old or the new cursor is held; which is not known.
    fn save_cursor(&self, cursor: Cursor) -> io::Result<()>;

    /// Adds publishes, ascending by number, durably: they are sent after this returns. One with a number that is held
    /// already is the same publish.
    ///
    /// # Errors
    /// Any of them may be held.
    fn save_unsettled(&self, publishes: &[Unsettled]) -> io::Result<()>;

    /// Lets go of publishes that have their result; unknown numbers are ignored. It must survive the process but need not
    /// survive the machine: repeating a settled publish is harmless.
    ///
    /// # Errors
    /// Any of them may still be held.
    fn settle(&self, numbers: &[u64]) -> io::Result<()>;

    /// Lets go of all unsettled publishes and then of all cursors, durably: the broker's journal is another than they are of.
    /// In one with the publishes, their numbers are added to [`Saved::reset_due`], which is there afterwards even if there were none.
    /// [`Saved::next`] stays. Whatever stops it half-way, a publish must never be left without its cursor: the next client would
    /// take it for one of the new journal, and send it to whom its ids belong to there.
    ///
    /// # Errors
    /// All publishes and cursors are held, or the cursors alone, or none of them; the reset is due unless all are.
    fn reset(&self) -> io::Result<()>;

    /// The application is done with the reset: [`Saved::reset_due`] is `None` again. It need not survive the machine: telling
    /// of a reset twice is harmless.
    ///
    /// # Errors
    /// The reset may still be due.
    fn reset_done(&self) -> io::Result<()>;
}
