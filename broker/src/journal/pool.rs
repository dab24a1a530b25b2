//! Threads that read the journal, so that no edge waits for a file.

use std::io;
use std::process;
use std::thread::{self, JoinHandle};

use carillon_protocol::ids::Position;
use crossbeam::channel::{self, Receiver, Sender, TrySendError};

use super::batch::Entry;
use super::reader::{ReadError, Reader};

/// What is done with a read's result, on a reader thread: it must only hand it over.
pub type ReadDone = Box<dyn FnOnce(Result<Vec<Entry>, ReadError>) + Send>;

/// One read for the pool; see [`Reader::read`].
pub struct ReadRequest {
    /// The positions wanted, ascending.
    pub positions: Vec<Position>,
    /// The most bytes of frames.
    pub bytes_max: usize,
    /// Called once with the result.
    pub done: ReadDone,
}

/// A fixed number of reader threads behind one bounded queue.
///
/// Dropping the pool lets the threads finish what is queued, which is bounded, and joins them. A panic in a reader
/// thread ends the process.
pub struct ReaderPool {
    queue: Option<Sender<ReadRequest>>,
    threads: Vec<JoinHandle<()>>,
}

impl ReaderPool {
    /// Starts `threads` threads behind a queue of `queue_max` waiting requests, both at least 1.
    ///
    /// # Errors
    ///
    /// If a thread cannot be started.
    pub fn start(reader: &Reader, threads: usize, queue_max: usize) -> io::Result<Self> {
        let (queue, requests) = channel::bounded(queue_max.max(1));
        let mut pool = Self { queue: Some(queue), threads: Vec::new() };
        for number in 0..threads.max(1) {
            let (reader, requests) = (reader.clone(), requests.clone());
            let thread = thread::Builder::new().name(format!("journal-read-{number}"));
            pool.threads.push(thread.spawn(move || run(&reader, &requests))?);
        }
        Ok(pool)
    }

    /// Queues a read.
    ///
    /// # Errors
    ///
    /// Hands the request back if the queue is full; the caller asks again later.
    pub fn submit(&self, request: ReadRequest) -> Result<(), ReadRequest> {
        let queue = self.queue.as_ref().expect("the queue lives as long as the pool");
        queue.try_send(request).map_err(|error| match error {
            TrySendError::Full(request) | TrySendError::Disconnected(request) => request,
        })
    }

    /// Requests that wait for a thread.
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, Sender::len)
    }
}

impl Drop for ReaderPool {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A panic has ended the process already, in `EndOnPanic`.
            drop(thread.join());
        }
    }
}

/// Ends the process when a thread unwinds: a session whose read never returns would wait for ever.
struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

fn run(reader: &Reader, requests: &Receiver<ReadRequest>) {
    let _guard = EndOnPanic;
    for ReadRequest { positions, bytes_max, done } in requests {
        done(reader.read(&positions, bytes_max));
    }
}
