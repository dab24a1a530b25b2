//! Threads that read the journal and the index, so that no edge waits for a file.

use std::io;
use std::process;
use std::thread::{self, JoinHandle};

use carillon_protocol::ids::Position;
use crossbeam::channel::{self, Receiver, Sender, TrySendError};

use super::batch::Entry;
use super::reader::{ReadError, Reader};

/// What is done with a read's result, on a reader thread: it must only hand it over.
pub type ReadDone = Box<dyn FnOnce(Result<Vec<Entry>, ReadError>) + Send>;

/// Something else to do on a reader thread, such as a lookup in the index on disk. It hands its result over itself.
pub type ReadJob = Box<dyn FnOnce() + Send>;

/// One read for the pool; see [`Reader::read`].
pub struct ReadRequest {
    /// The positions wanted, ascending.
    pub positions: Vec<Position>,
    /// The most bytes of frames.
    pub bytes_max: usize,
    /// Called once with the result.
    pub done: ReadDone,
}

/// What waits for a thread.
enum Work {
    Read(ReadRequest),
    Job(ReadJob),
}

/// A fixed number of reader threads behind one bounded queue.
///
/// Dropping the pool lets the threads finish what is queued, which is bounded, and joins them. A panic in a reader
/// thread ends the process.
pub struct ReaderPool {
    queue: Option<Sender<Work>>,
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
        self.queue(Work::Read(request)).map_err(|work| match work {
            Work::Read(request) => request,
            Work::Job(_) => unreachable!("a read was queued"),
        })
    }

    /// Queues a job, in turn with the reads.
    ///
    /// # Errors
    ///
    /// As [`ReaderPool::submit`].
    pub fn run(&self, job: ReadJob) -> Result<(), ReadJob> {
        self.queue(Work::Job(job)).map_err(|work| match work {
            Work::Job(job) => job,
            Work::Read(_) => unreachable!("a job was queued"),
        })
    }

    fn queue(&self, work: Work) -> Result<(), Work> {
        let queue = self.queue.as_ref().expect("the queue lives as long as the pool");
        queue.try_send(work).map_err(|error| match error {
            TrySendError::Full(work) | TrySendError::Disconnected(work) => work,
        })
    }

    /// Requests and jobs that wait for a thread.
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
pub(crate) struct EndOnPanic;

impl Drop for EndOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            process::abort();
        }
    }
}

fn run(reader: &Reader, queue: &Receiver<Work>) {
    let _guard = EndOnPanic;
    for work in queue {
        match work {
            Work::Read(ReadRequest { positions, bytes_max, done }) => done(reader.read(&positions, bytes_max)),
            Work::Job(job) => job(),
        }
    }
}
