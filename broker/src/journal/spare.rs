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
    pub(crate) fn new(reserve: Option<Spare>) -> Self {
        let reserve = reserve.map_or(Place::Empty, Place::Spare);
        let places = Mutex::new(Places { spare: Place::Empty, reserve });
        Self { places, short: AtomicBool::new(false), free_bytes: AtomicU64::new(0), wish: bounded(1) }
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
        self.keep(&|| false).map_err(Failure::into_inner)
    }

    fn keep(&self, is_stopped: &dyn Fn() -> bool) -> Result<bool, Failure> {
        let filled = self.fill(is_stopped);
        let shelf = &self.segments.shelf;
        let (free_bytes, free_bytes_min) = (shelf.free_bytes(), self.sizes.free_bytes_min);
        match &filled {
            Ok(_) => {
                if shelf.settle(false) && !shelf.is_short() {
                    tracing::info!(free_bytes, "there is room for the journal again: everything is accepted");
                }
            }
            Err(Failure::Looked(error) | Failure::Tried(error)) if is_no_room(error) => {
                if shelf.settle(true) {
                    tracing::error!(
                        %error,
                        free_bytes,
                        free_bytes_min,
                        "the disk of the journal has no room: publishes, DINGs and changes of conversations are refused until \
                         it has, all else goes on from the reserve; free room there, or let retention do it"
                    );
                }
            }
            Err(Failure::Looked(error) | Failure::Tried(error)) => {
                tracing::warn!(%error, "the next journal segment cannot be prepared; it is made when it is needed");
            }
        }
        filled
    }

    fn fill(&self, is_stopped: &dyn Fn() -> bool) -> Result<bool, Failure> {
        let Sizes { segment_bytes, reserve_bytes, free_bytes_min } = self.sizes;
        let shelf = &self.segments.shelf;
        let lacks = |place: fn(&Places) -> &Place| place(&shelf.places.lock().expect(LOCK)).is_empty();
        let mut made = false;
        // The reserve first, from whatever is free: it is there for when nothing else is.
        self.look_for(0)?;
        if lacks(|places| &places.reserve) {
            self.look_for(reserve_bytes)?;
            let Some(reserve) = self.make(RESERVE, reserve_bytes, is_stopped).map_err(Failure::Tried)? else {
                return Ok(made);
            };
            shelf.places.lock().expect(LOCK).reserve = Place::Spare(reserve);
            made = true;
        }
        if lacks(|places| &places.spare) {
            self.look_for(free_bytes_min.saturating_add(segment_bytes))?;
            let Some(spare) = self.make(READY, segment_bytes, is_stopped).map_err(Failure::Tried)? else {
                return Ok(made);
            };
            shelf.places.lock().expect(LOCK).spare = Place::Spare(spare);
            made = true;
        }
        // A quarter more to leave the state than to enter it, so that it does not flutter.
        let again = if shelf.is_short() { free_bytes_min / 4 } else { 0 };
        self.look_for(free_bytes_min.saturating_add(again))?;
        Ok(made)
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

    /// Makes a file of zeroes, unless it is to stop. What could not be made whole is removed: it would take the room that is
    /// missing.
    fn make(&self, name: &str, bytes: u64, is_stopped: &dyn Fn() -> bool) -> io::Result<Option<Spare>> {
        let storage = &*self.segments.storage;
        let filled = self.fill_one(bytes, is_stopped).and_then(|file| {
            let Some(file) = file else { return Ok(None) };
            // The name need not be durable: a file that is lost is made again.
            storage.rename(MAKING, name)?;
            Ok(Some(Spare { name: name.to_owned(), file, bytes }))
        });
        if filled.is_err() {
            storage.remove(MAKING).ok();
        }
        filled
    }

    fn fill_one(&self, bytes: u64, is_stopped: &dyn Fn() -> bool) -> io::Result<Option<Arc<dyn StorageFile>>> {
        let file = self.segments.storage.create(MAKING, 0)?;
        let mut offset = 0;
        while offset < bytes {
            if is_stopped() {
                return Ok(None);
            }
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
            let piece = &ZEROES[..left.min(PIECE_BYTES)];
            file.write_at(&[piece], offset)?;
            file.sync_data()?;
            offset += piece.len() as u64;
        }
        Ok(Some(file))
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
        loop {
            let again = self.keep(&is_stopped).map_or_else(|failure| failure.again_after(), |_| LOOK_EVERY);
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
