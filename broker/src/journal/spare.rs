//! Files that are prepared beside the commits: the next segment, because filling 64 MiB with zeroes takes longer than a hundred
//! commits, and the *reserve*, on which the journal lives when its disk has no room for another segment.
//!
//! A file is made as `spare.journal.tmp` and renamed to `spare.journal.ready` or `reserve.journal.ready` once its zeroes are
//! durable. A roll writes header and first batch into it, makes them durable, and renames it to the segment's name; so a crash
//! leaves a temporary file (removed at the next open), a prepared file (used by the next open if its begin is zero), or a whole
//! segment.
//!
//! # Room
//!
//! The journal is *short* of room when a file cannot be prepared for want of it, when the file system has less free room than
//! configured, and when a roll had to take the reserve. It is so until both files are ready and there is free room again. Who
//! makes it grow is refused meanwhile: see [`Room`](super::Room).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded, select};

use super::limits::{BATCH_BYTES_HARD_MAX, SCAN_BYTES};
use super::pool::EndOnPanic;
use super::room::is_no_room;
use super::segment::Segments;
use super::storage::{Storage, StorageFile};

/// A file that is being filled; removed at open, as every temporary segment.
const MAKING: &str = "spare.journal.tmp";
/// A spare whose zeroes are durable.
pub(crate) const READY: &str = "spare.journal.ready";
/// A reserve whose zeroes are durable.
pub(crate) const RESERVE: &str = "reserve.journal.ready";

/// Zeroes are written, and made durable, in pieces of this size: a commit that comes between waits for one of them at most.
const PIECE_BYTES: usize = 1024 * 1024;

static ZEROES: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// The next segment is filled in smaller pieces, one in so long: 8 MiB a second. A file that is filled in one go keeps the disk from
/// commits for as long as that takes.
const SMALL_PIECE_BYTES: usize = 256 * 1024;
const SMALL_PIECE_EVERY: Duration = Duration::from_millis(31);

/// Or faster: so that it is ready when the active segment is half full.
const AHEAD: u64 = 2;

/// What a full segment's fullness is counted as.
const FULL: u64 = 1 << 16;

/// How often the free room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After a file could not be written, for want of room perhaps, it is tried again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

// Whatever an interrupted roll left in a spare, one batch at most, lies in what open looks at.
const _: () = assert!(SCAN_BYTES >= super::format::SEGMENT_HEADER_BYTES + BATCH_BYTES_HARD_MAX);

/// A durable file of zeroes.
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) bytes: u64,
}

/// Where the writer finds prepared files. The lock is held for a take or a put, never for a file.
pub(crate) struct Shelf {
    places: Mutex<Places>,
    /// Written under the lock. Relaxed: it says what is refused, and nothing is read because of it.
    short: AtomicBool,
    /// As of the last look; 0 where the storage does not tell.
    free_bytes: AtomicU64,
    /// How full the active segment is, of [`FULL`]. Relaxed: a pace follows it, and nothing else.
    fullness: AtomicU64,
    wish: (Sender<()>, Receiver<()>),
}

struct Places {
    spare: Place,
    reserve: Place,
}

/// What is under a name.
enum Place {
    Empty,
    Spare(Spare),
    /// A file that a roll has taken and not renamed yet: another one would take its name away.
    Taken,
}

const LOCK: &str = "no thread panics while it holds the shelf's lock";

impl Place {
    fn take(&mut self, bytes: u64) -> Option<Spare> {
        match std::mem::replace(self, Self::Taken) {
            Self::Spare(spare) if spare.bytes >= bytes => Some(spare),
            other => {
                *self = other;
                None
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Spare(spare) => spare.bytes,
            Self::Empty | Self::Taken => 0,
        }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn renamed(&mut self) {
        if let Self::Taken = self {
            *self = Self::Empty;
        }
    }
}

impl Shelf {
    /// With what an earlier process left.
    pub(crate) fn new(spare: Option<Spare>, reserve: Option<Spare>) -> Self {
        let place = |left: Option<Spare>| left.map_or(Place::Empty, Place::Spare);
        let places = Mutex::new(Places { spare: place(spare), reserve: place(reserve) });
        Self {
            places,
            short: AtomicBool::new(false),
            free_bytes: AtomicU64::new(0),
            fullness: AtomicU64::new(0),
            wish: bounded(1),
        }
    }

    /// The spare, if there is one that is large enough. It keeps its name until [`renamed`](Self::renamed).
    pub(crate) fn take(&self, bytes: u64) -> Option<Spare> {
        self.places.lock().expect(LOCK).spare.take(bytes)
    }

    /// The reserve, as [`take`](Self::take); from now on the journal is short of room.
    pub(crate) fn take_reserve(&self, bytes: u64) -> Option<Spare> {
        let mut places = self.places.lock().expect(LOCK);
        self.short.store(true, Ordering::Relaxed);
        places.reserve.take(bytes)
    }

    /// After a roll: the name is free, and another file is wished for.
    pub(crate) fn renamed(&self) {
        let mut places = self.places.lock().expect(LOCK);
        places.spare.renamed();
        places.reserve.renamed();
        // Full: the wish is there already.
        self.wish.0.try_send(()).ok();
    }

    /// How far the active segment is filled: a file is ready when that is half full.
    pub(crate) fn note_active(&self, filled_bytes: u64, bytes: u64) {
        let fullness = filled_bytes.saturating_mul(FULL) / bytes.max(1);
        self.fullness.store(fullness, Ordering::Relaxed);
    }

    /// How much of a file of so many bytes is to be there by now.
    fn due_bytes(&self, bytes: u64) -> u64 {
        let fullness = self.fullness.load(Ordering::Relaxed);
        (bytes / FULL).saturating_mul(fullness).saturating_mul(AHEAD).min(bytes)
    }

    /// Whether the journal is short of room: see the module.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Bytes of the prepared files.
    pub(crate) fn prepared_bytes(&self) -> u64 {
        let places = self.places.lock().expect(LOCK);
        places.spare.bytes() + places.reserve.bytes()
    }

    /// Free room of the file system as of the last look; 0 where it is not known.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Takes note of how a preparation ended; says whether that changed anything.
    fn settle(&self, no_room: bool) -> bool {
        let places = self.places.lock().expect(LOCK);
        // A roll may have taken a file meanwhile: then the next preparation decides.
        let ready = places.spare.bytes() > 0 && places.reserve.bytes() > 0;
        let short = no_room || self.is_short() && !ready;
        self.short.swap(short, Ordering::Relaxed) != short
    }
}

/// A file that an earlier process prepared, if it can be used; otherwise it is removed.
pub(crate) fn left_over(storage: &dyn Storage, name: &str, bytes: u64) -> io::Result<Option<Spare>> {
    let file = storage.open(name)?;
    let length = file.length()?;
    let mut begin = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(SCAN_BYTES)];
    file.read_at(&mut begin, 0)?;
    if length == bytes && begin.iter().all(|byte| *byte == 0) {
        return Ok(Some(Spare { name: name.to_owned(), file, bytes }));
    }
    storage.remove(name)?;
    Ok(None)
}

/// How large the prepared files are, and how much is left to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) free_bytes_min: u64,
}

/// Why a file was not prepared.
enum Failure {
    /// The look at the file system says that there is no room: nothing was tried.
    Looked(io::Error),
    /// It was tried.
    Tried(io::Error),
}

impl Failure {
    fn into_inner(self) -> io::Error {
        match self {
            Self::Looked(error) | Self::Tried(error) => error,
        }
    }

    fn again_after(&self) -> Duration {
        match self {
            Self::Looked(_) => LOOK_EVERY,
            Self::Tried(_) => AGAIN_AFTER,
        }
    }
}

/// A file that is being filled.
struct Making {
    file: Arc<dyn StorageFile>,
    bytes: u64,
    filled_bytes: u64,
}

impl Making {
    fn begin(storage: &dyn Storage, bytes: u64) -> io::Result<Self> {
        Ok(Self { file: storage.create(MAKING, 0)?, bytes, filled_bytes: 0 })
    }

    fn left_bytes(&self) -> u64 {
        self.bytes - self.filled_bytes
    }

    /// Writes the next piece, and makes it durable.
    fn fill(&mut self, bytes_max: usize) -> io::Result<()> {
        let left = usize::try_from(self.left_bytes()).unwrap_or(usize::MAX);
        let piece = &ZEROES[..left.min(bytes_max)];
        self.file.write_at(&[piece], self.filled_bytes)?;
        self.file.sync_data()?;
        self.filled_bytes += piece.len() as u64;
        Ok(())
    }
}

/// How a round of preparing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prepared {
    /// Everything was there.
    Before,
    /// Something was made.
    Now,
    /// The next segment is not full yet, and need not be; or it was stopped.
    Partly,
}

/// Makes spare and reserve, and judges whether there is room.
#[derive(Clone)]
pub struct Preparer {
    segments: Arc<Segments>,
    sizes: Sizes,
}

impl Preparer {
    pub(crate) fn new(segments: Arc<Segments>, sizes: Sizes) -> Self {
        Self { segments, sizes }
    }

    /// Looks at the free room, and makes the reserve and the spare if they are missing and their names are free; says whether
    /// it made any.
    ///
    /// # Errors
    /// The system's, or that there is no room. A roll then makes its segment itself, and this may be called again: a file that
    /// failed is not used.
    pub fn prepare(&self) -> io::Result<bool> {
        let mut making = None;
        loop {
            match self.keep(&mut making, &|| false).map_err(Failure::into_inner)? {
                Prepared::Partly => {}
                prepared => return Ok(prepared == Prepared::Now),
            }
        }
    }

    fn keep(&self, making: &mut Option<Making>, is_stopped: &dyn Fn() -> bool) -> Result<Prepared, Failure> {
        let filled = self.fill(making, is_stopped);
        let shelf = &self.segments.shelf;
        let (free_bytes, free_bytes_min) = (shelf.free_bytes(), self.sizes.free_bytes_min);
        let Err(failure) = &filled else {
            if shelf.settle(false) && !shelf.is_short() {
                tracing::info!(free_bytes, "there is room for the journal again: everything is accepted");
            }
            return filled;
        };
        // What could not be made whole would take the room that is missing.
        if making.take().is_some() {
            self.segments.storage.remove(MAKING).ok();
        }
        let (Failure::Looked(error) | Failure::Tried(error)) = failure;
        if !is_no_room(error) {
            tracing::warn!(%error, "the next journal segment cannot be prepared; it is made when it is needed");
        } else if shelf.settle(true) {
            tracing::error!(
                %error,
                free_bytes,
                free_bytes_min,
                "the disk of the journal has no room: publishes, DINGs and changes of conversations are refused until \
                 it has, all else goes on from the reserve; free room there, or let retention do it"
            );
        }
        filled
    }

    fn fill(&self, making: &mut Option<Making>, is_stopped: &dyn Fn() -> bool) -> Result<Prepared, Failure> {
        let Sizes { segment_bytes, reserve_bytes, free_bytes_min } = self.sizes;
        let shelf = &self.segments.shelf;
        let lacks = |place: fn(&Places) -> &Place| place(&shelf.places.lock().expect(LOCK)).is_empty();
        let mut prepared = Prepared::Before;
        // The reserve first, from whatever is free, and at once: it is there for when nothing else is.
        self.look_for(0)?;
        if lacks(|places| &places.reserve) {
            self.look_for(reserve_bytes)?;
            let reserve = making.insert(self.begin(reserve_bytes)?);
            while reserve.left_bytes() > 0 {
                if is_stopped() {
                    return Ok(Prepared::Partly);
                }
                reserve.fill(PIECE_BYTES).map_err(Failure::Tried)?;
            }
            let reserve = self.end(making, RESERVE)?;
            shelf.places.lock().expect(LOCK).reserve = Place::Spare(reserve);
            prepared = Prepared::Now;
        }
        if lacks(|places| &places.spare) {
            let left = making.as_ref().map_or(segment_bytes, Making::left_bytes);
            self.look_for(free_bytes_min.saturating_add(left))?;
            if !self.fill_next(making, is_stopped)? {
                return Ok(Prepared::Partly);
            }
            let spare = self.end(making, READY)?;
            shelf.places.lock().expect(LOCK).spare = Place::Spare(spare);
            prepared = Prepared::Now;
        }
        // A quarter more to leave the state than to enter it, so that it does not flutter.
        let again = if shelf.is_short() { free_bytes_min / 4 } else { 0 };
        self.look_for(free_bytes_min.saturating_add(again))?;
        Ok(prepared)
    }

    /// Goes on filling the next segment: a small piece, and as much more as is due by how full the active one is, or all of it if the journal is
    /// short of room. Says whether it is full.
    fn fill_next(&self, making: &mut Option<Making>, is_stopped: &dyn Fn() -> bool) -> Result<bool, Failure> {
        let next = match making {
            Some(next) => next,
            None => making.insert(self.begin(self.sizes.segment_bytes)?),
        };
        let shelf = &self.segments.shelf;
        next.fill(SMALL_PIECE_BYTES).map_err(Failure::Tried)?;
        while next.left_bytes() > 0 && !is_stopped() {
            let due = if shelf.is_short() { next.bytes } else { shelf.due_bytes(next.bytes) };
            let behind = due.saturating_sub(next.filled_bytes);
            // Less than a small piece is not worth a sync of its own, but to end the file.
            if behind < SMALL_PIECE_BYTES as u64 && behind < next.left_bytes() {
                return Ok(false);
            }
            next.fill(PIECE_BYTES.min(usize::try_from(behind).unwrap_or(PIECE_BYTES))).map_err(Failure::Tried)?;
        }
        Ok(next.left_bytes() == 0)
    }

    fn begin(&self, bytes: u64) -> Result<Making, Failure> {
        Making::begin(&*self.segments.storage, bytes).map_err(Failure::Tried)
    }

    /// Gives the full file its name, which need not be durable: a file that is lost is made again.
    fn end(&self, making: &mut Option<Making>, name: &str) -> Result<Spare, Failure> {
        self.segments.storage.rename(MAKING, name).map_err(Failure::Tried)?;
        let Making { file, bytes, .. } = making.take().expect("it was begun");
        Ok(Spare { name: name.to_owned(), file, bytes })
    }

    /// Looks whether the file system has so much free room, as far as it tells.
    fn look_for(&self, bytes: u64) -> Result<(), Failure> {
        let Some(free) = self.segments.storage.free_bytes().map_err(Failure::Tried)? else { return Ok(()) };
        self.segments.shelf.free_bytes.store(free, Ordering::Relaxed);
        if free >= bytes {
            return Ok(());
        }
        let text = format!("{free} bytes are free, {bytes} are needed");
        Err(Failure::Looked(io::Error::new(io::ErrorKind::StorageFull, text)))
    }

    /// Starts a thread that keeps spare and reserve ready, and an eye on the free room, until the returned handle is dropped.
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
        let mut making = None;
        loop {
            let again = match self.keep(&mut making, &is_stopped) {
                Ok(Prepared::Partly) => SMALL_PIECE_EVERY,
                Ok(Prepared::Before | Prepared::Now) => LOOK_EVERY,
                Err(failure) => failure.again_after(),
            };
            select! {
                recv(stopped) -> _ => return,
                recv(wish) -> _ => {}
                default(again) => {}
            }
        }
    }
}

/// The thread that keeps prepared files ready. Dropping this lets it finish the piece it writes and joins it.
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

#[cfg(test)]
mod tests {
    use carillon_protocol::ids::{Position, ShardId};

    use super::*;
    use crate::journal::{JournalOptions, MemoryStorage, Opened, open};

    const PIECE: u64 = SMALL_PIECE_BYTES as u64;
    const SEGMENT_BYTES: u64 = 8 * PIECE;

    fn opened(storage: &MemoryStorage) -> Opened {
        let options =
            JournalOptions { segment_bytes: SEGMENT_BYTES, reserve_bytes: PIECE, ..JournalOptions::new(ShardId(3)) };
        open(Arc::new(storage.clone()), options, Position(0), &mut |_| Ok(())).unwrap()
    }

    /// Bytes of the next segment that are there; `None` once it is ready.
    fn filled(storage: &MemoryStorage) -> Option<u64> {
        let is_ready = storage.names().iter().any(|name| name == READY);
        (!is_ready).then(|| storage.contents(MAKING).len() as u64)
    }

    #[test]
    fn the_next_segment_is_filled_bit_by_bit_and_ready_when_the_active_one_is_half_full() {
        let storage = MemoryStorage::new();
        let preparer = opened(&storage).preparer;
        let (shelf, mut making) = (&preparer.segments.shelf, None);
        let mut keep = || preparer.keep(&mut making, &|| false).map_err(Failure::into_inner).unwrap();
        assert_eq!((keep(), filled(&storage)), (Prepared::Partly, Some(PIECE)));
        assert_eq!((keep(), filled(&storage)), (Prepared::Partly, Some(2 * PIECE)));
        shelf.note_active(SEGMENT_BYTES / 4, SEGMENT_BYTES);
        assert_eq!((keep(), filled(&storage)), (Prepared::Partly, Some(4 * PIECE)));
        shelf.note_active(SEGMENT_BYTES / 2, SEGMENT_BYTES);
        assert_eq!((keep(), filled(&storage)), (Prepared::Now, None));
        assert_eq!(keep(), Prepared::Before);
    }

    #[test]
    fn a_journal_that_is_short_of_room_does_not_wait() {
        let storage = MemoryStorage::new();
        let preparer = opened(&storage).preparer;
        preparer.segments.shelf.settle(true);
        let kept = preparer.keep(&mut None, &|| false).map_err(Failure::into_inner).unwrap();
        assert_eq!((kept, filled(&storage)), (Prepared::Now, None));
    }

    #[test]
    fn what_is_half_made_is_removed_when_there_is_no_room_for_the_rest() {
        let storage = MemoryStorage::new();
        let preparer = opened(&storage).preparer;
        let mut making = None;
        assert!(preparer.keep(&mut making, &|| false).is_ok() && making.is_some());
        storage.set_capacity(Some(storage.used_bytes() + PIECE));
        assert!(preparer.keep(&mut making, &|| false).is_err() && making.is_none());
        assert!(storage.names().iter().all(|name| name != MAKING) && preparer.segments.shelf.is_short());
        storage.set_capacity(None);
        assert!(preparer.prepare().unwrap() && !preparer.segments.shelf.is_short());
    }
}
