//! The next segment, prepared beside the commits: filling 64 MiB with zeroes takes longer than a hundred commits.
//!
//! A spare is made as `spare.journal.tmp` and renamed to `spare.journal.ready` once its zeroes are durable. A roll writes
//! header and first batch into it, makes them durable, and renames it to the segment's name; so a crash leaves a
//! temporary file (removed at the next open), a spare (used by the next open if its begin is zero), or a whole segment.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select};

use super::limits::{BATCH_BYTES_HARD_MAX, SCAN_BYTES};
use super::pool::EndOnPanic;
use super::segment::Segments;
use super::storage::{Storage, StorageFile};

/// A spare that is being filled; removed at open, as every temporary segment.
const MAKING: &str = "spare.journal.tmp";
/// A spare whose zeroes are durable.
pub(crate) const READY: &str = "spare.journal.ready";

/// Zeroes are written, and made durable, in pieces of this size: a commit that comes between waits for one of them at most.
const PIECE_BYTES: usize = 1024 * 1024;

static ZEROES: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// After a failure, for want of room perhaps, it is tried again after this. A roll makes its own segment meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

// Whatever an interrupted roll left in a spare, one batch at most, lies in what open looks at.
const _: () = assert!(SCAN_BYTES >= super::format::SEGMENT_HEADER_BYTES + BATCH_BYTES_HARD_MAX);

/// A durable file of zeroes under the name [`READY`].
pub(crate) struct Spare {
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) bytes: u64,
}

/// Where the writer finds a spare. The lock is held for a take or a put, never for a file.
pub(crate) struct Shelf {
    place: Mutex<Place>,
    wish: (Sender<()>, Receiver<()>),
}

/// What is under the name [`READY`].
enum Place {
    Empty,
    Spare(Spare),
    /// A file that a roll has taken and not renamed yet: another spare would take its name away.
    Taken,
}

const LOCK: &str = "no thread panics while it holds the shelf's lock";

impl Shelf {
    pub(crate) fn new() -> Self {
        Self { place: Mutex::new(Place::Empty), wish: bounded(1) }
    }

    /// The spare, if there is one that is large enough. It keeps its name until [`renamed`](Self::renamed).
    pub(crate) fn take(&self, bytes: u64) -> Option<Spare> {
        let mut place = self.place.lock().expect(LOCK);
        match std::mem::replace(&mut *place, Place::Taken) {
            Place::Spare(spare) if spare.bytes >= bytes => Some(spare),
            other => {
                *place = other;
                None
            }
        }
    }

    /// After a roll: the name is free, and another spare is wished for.
    pub(crate) fn renamed(&self) {
        let mut place = self.place.lock().expect(LOCK);
        if let Place::Taken = *place {
            *place = Place::Empty;
        }
        // Full: the wish is there already.
        self.wish.0.try_send(()).ok();
    }

    fn is_empty(&self) -> bool {
        matches!(*self.place.lock().expect(LOCK), Place::Empty)
    }

    fn put(&self, spare: Spare) {
        *self.place.lock().expect(LOCK) = Place::Spare(spare);
    }
}

/// A spare that an earlier process left, if it can be used; otherwise it is removed.
pub(crate) fn left_over(storage: &dyn Storage, bytes: u64) -> io::Result<Option<Spare>> {
    let file = storage.open(READY)?;
    let length = file.length()?;
    let mut begin = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(SCAN_BYTES)];
    file.read_at(&mut begin, 0)?;
    if length == bytes && begin.iter().all(|byte| *byte == 0) {
        return Ok(Some(Spare { file, bytes }));
    }
    storage.remove(READY)?;
    Ok(None)
}

/// Makes spares.
#[derive(Clone)]
pub struct Preparer {
    segments: Arc<Segments>,
    segment_bytes: u64,
}

impl Preparer {
    pub(crate) fn new(segments: Arc<Segments>, segment_bytes: u64) -> Self {
        Self { segments, segment_bytes }
    }

    /// Makes a spare if there is none and its name is free; says whether it did.
    ///
    /// # Errors
    /// The system's. A roll then makes its segment itself, and this may be called again: a file that failed is not used.
    pub fn prepare(&self) -> io::Result<bool> {
        self.make(&|| false)
    }

    fn make(&self, is_stopped: &dyn Fn() -> bool) -> io::Result<bool> {
        let shelf = &self.segments.shelf;
        if !shelf.is_empty() {
            return Ok(false);
        }
        let storage = &*self.segments.storage;
        let file = storage.create(MAKING, 0)?;
        let mut offset = 0;
        while offset < self.segment_bytes {
            if is_stopped() {
                return Ok(false);
            }
            let left = usize::try_from(self.segment_bytes - offset).unwrap_or(usize::MAX);
            let piece = &ZEROES[..left.min(PIECE_BYTES)];
            file.write_at(&[piece], offset)?;
            file.sync_data()?;
            offset += piece.len() as u64;
        }
        // The name need not be durable: a spare that is lost is made again.
        storage.rename(MAKING, READY)?;
        shelf.put(Spare { file, bytes: self.segment_bytes });
        Ok(true)
    }

    /// Starts a thread that keeps a spare ready until the returned handle is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self) -> io::Result<Preparing> {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new().name("journal-prepare".into()).spawn(move || self.run(&stopped))?;
        Ok(Preparing { stop: Some(stop), thread: Some(thread) })
    }

    fn run(&self, stopped: &Receiver<()>) {
        let _guard = EndOnPanic;
        let wish = self.segments.shelf.wish.1.clone();
        let is_stopped = || stopped.try_recv() == Err(TryRecvError::Disconnected);
        loop {
            let failed = self.make(&is_stopped).inspect_err(|error| {
                tracing::warn!(%error, "the next journal segment cannot be prepared; it is made when it is needed");
            });
            let again = if failed.is_err() { AGAIN_AFTER } else { Duration::MAX };
            select! {
                recv(stopped) -> _ => return,
                recv(wish) -> _ => {}
                default(again) => {}
            }
        }
    }
}

/// The thread that keeps a spare ready. Dropping this lets it finish the piece it writes and joins it.
pub struct Preparing {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process already, in `EndOnPanic`.
            drop(thread.join());
        }
    }
}
