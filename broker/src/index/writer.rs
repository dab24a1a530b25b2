//! The thread that writes the index to disk.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::Index;
use super::doubt::RebuildError;
use super::limits::FLUSH_EVERY_S;
use crate::journal::Reader;

/// The writer of an index that is served. Dropping it writes out what is left and joins the thread; a panic there ends the
/// process.
pub struct Writer {
    index: Arc<Index>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. `reader` reads the journal that the index follows.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(index: &Arc<Index>, reader: &Reader) -> io::Result<Self> {
        let (its, reader) = (index.clone(), reader.clone());
        let thread = thread::Builder::new().name("index".into()).spawn(move || {
            let _guard = EndOnPanic;
            run(&its, &reader);
        })?;
        Ok(Self { index: index.clone(), thread: Some(thread) })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.index.stopping.store(true, Ordering::Relaxed);
        self.index.wake();
        // A panic has ended the process already, in `EndOnPanic`.
        self.thread.take().map(JoinHandle::join);
    }
}

/// Ends the process when the thread unwinds: memory would grow without bounds.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

fn run(index: &Index, reader: &Reader) {
    loop {
        // Woken, or time for a flush: the same.
        index.woken.1.recv_timeout(Duration::from_secs(FLUSH_EVERY_S)).ok();
        index.asleep.store(true, Ordering::Release);
        let stopping = index.stopping.load(Ordering::Relaxed);
        index.maintain(reader);
        if stopping {
            return;
        }
    }
}

impl Index {
    /// Rebuilds what is in doubt, flushes and evicts.
    pub(super) fn maintain(&self, reader: &Reader) {
        let mut work = self.lock();
        if self.is_rebuilding() {
            let restored = match self.suspended.load(Ordering::Relaxed) {
                true => self.reopen(&mut work),
                false => self.rebuild(&mut work, reader),
            };
            match restored {
                Ok(()) => {}
                Err(RebuildError::Interrupted) => return,
                Err(error) => {
                    tracing::error!(%error, again_in_s = FLUSH_EVERY_S, "the index could not be built anew");
                }
            }
        }
        if !reader.has_room() {
            // What comes on a full disk is bounded by the journal's reserve, and can wait in memory.
            self.stuck.store(true, Ordering::Relaxed);
            return self.note_budget(&mut work);
        }
        // A doubt was logged, and the next time the blocks are built anew.
        self.tidy(&mut work).ok();
    }
}
