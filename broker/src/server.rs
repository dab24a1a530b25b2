//! The broker as a whole: start, drain, stop.
//!
//! One sequencer thread, one edge thread a core, a few reader threads. A panic in any of them ends the process: a shard
//! whose thread is gone must not look alive. A failed commit ends the sequencer, and [`Server::failures`] says so.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use carillon_protocol::ids::{ShardId, Timestamp};
use carillon_transport::{Endpoint, TransportConfig};
use crossbeam::channel::{Receiver, Sender, bounded};
use jsonwebtoken::DecodingKey;
use thiserror::Error;

use crate::clock::{Clock, SystemClock};
use crate::dings::DingPolicies;
use crate::edge::Control;
use crate::edge::auth::Authenticator;
use crate::edge::limits::Limits;
use crate::http::Http;
use crate::index::{self, Index, IndexOptions};
use crate::journal::{
    CommitError, FREE_BYTES_MIN_DEFAULT, FileStorage, Journal, JournalOptions, Preparing, READER_QUEUE_DEFAULT,
    READER_THREADS_DEFAULT, ReaderPool, RecoveryReport, SEGMENT_BYTES_DEFAULT, Storage, StorageError,
};
use crate::keeper::{self, KeeperOptions, Keeping};
use crate::metrics::meter::SequencerMeter;
use crate::metrics::{Metrics, Running, Watched};
use crate::notify::{Callbacks, Notify, OutletOptions};
use crate::report::Causes;
use crate::sequencer::ring::{RING_BATCHES_MAX, RING_BYTES_MAX, ring};
use crate::sequencer::{self, Mailbox, Sequencer, Submit, submissions};
use crate::startup;
use crate::store::{self, ShowReplay, Store, StoreError, StoreOptions};
use crate::tls::{self, Renewing, Tickets};
use edges::{Shared, start_edges};

mod edges;
#[cfg(test)]
mod tests;

/// Time for what sessions are owed to leave, unless told otherwise: five round trips of a bad mobile network.
pub const DRAIN_MS_DEFAULT: u64 = 5_000;

/// What a broker is started with. Begin with [`Options::new`], and set what differs.
pub struct Options {
    /// The data directory; its `journal`, `index`, `reset.key` and `ticket.keys` are made if they are missing.
    pub data: PathBuf,
    /// Where devices connect; port 0 lets the system pick.
    pub listen: SocketAddr,
    /// Edge threads; 0: one a core.
    pub edges: usize,
    /// TLS with ALPN, see [`crate::tls::server_config`].
    pub tls: Arc<rustls::ServerConfig>,
    /// Public keys that sign tokens.
    pub token_keys: Vec<DecodingKey>,
    /// The transport's limits. Without a key for stateless resets it gets the data directory's.
    pub transport: TransportConfig,
    /// The edges' limits.
    pub limits: Limits,
    /// What the index may hold in memory.
    pub index_memory_bytes_max: u64,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// How long a broker that stops lets what its sessions are owed leave.
    pub drain_ms: u64,
    /// Where health, readiness and metrics are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Size of the journal's segments.
    pub segment_bytes: u64,
    /// Free room of its file system below which nothing is taken that makes it grow.
    pub free_bytes_min: u64,
    /// When snapshots are taken, and what is kept.
    pub keeper: KeeperOptions,
    /// What tenants allow of DINGs.
    pub dings: Arc<DingPolicies>,
    /// The gateways of DINGs.
    pub outlets: Vec<OutletOptions>,
    /// Where they call back; `None`: nowhere.
    pub callbacks: Option<SocketAddr>,
    /// Who is shown how far the start has read the journal; `None`: the log says it.
    pub progress: Option<ShowReplay>,
}

impl Options {
    /// Everything else as it is by default, without HTTP.
    pub fn new(
        data: PathBuf,
        listen: SocketAddr,
        tls: Arc<rustls::ServerConfig>,
        token_keys: Vec<DecodingKey>,
    ) -> Self {
        Self {
            data,
            listen,
            edges: 0,
            tls,
            token_keys,
            transport: TransportConfig::server(),
            limits: Limits::default(),
            index_memory_bytes_max: index::MEMORY_BYTES_DEFAULT,
            clock: Arc::new(SystemClock),
            drain_ms: DRAIN_MS_DEFAULT,
            http: None,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            free_bytes_min: FREE_BYTES_MIN_DEFAULT,
            keeper: KeeperOptions::default(),
            dings: Arc::default(),
            outlets: Vec::new(),
            callbacks: None,
            progress: None,
        }
    }

    fn open_index(&self) -> Index {
        let directory = Some(self.data.join("index"));
        Index::open(IndexOptions { directory, shard: SHARD, memory_bytes_max: self.index_memory_bytes_max })
    }
}

/// Why a broker did not start. The process should end: after `Thread` some of its threads run on.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used, or another process has it.
    #[error("cannot use the data directory: {0}")]
    Storage(#[from] StorageError),
    /// The journal is damaged, or was written by something else, or the index cannot be written.
    #[error("cannot open the data directory: {0}")]
    Journal(#[from] StoreError),
    /// The address cannot be bound.
    #[error("cannot listen on {address} (UDP): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The address of health and metrics cannot be bound.
    #[error("cannot listen on {address} (TCP, for health and metrics): {source}")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The address for callbacks cannot be bound.
    #[error("cannot listen on {address} (TCP, for callbacks of gateways): {source}")]
    Callbacks {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Why a running broker ended.
#[derive(Debug, Error)]
pub enum Failure {
    /// The journal could not be written: final. Nothing was acknowledged that is not durable.
    #[error("the journal failed: {0}")]
    Commit(#[from] CommitError),
    /// An edge's socket failed.
    #[error("edge {edge} failed: {source}")]
    Edge {
        /// Which.
        edge: usize,
        /// Why.
        source: io::Error,
    },
}

/// A running broker.
pub struct Server {
    address: SocketAddr,
    recovery: RecoveryReport,
    submit: Submit,
    edges: Vec<(JoinHandle<()>, Mailbox)>,
    sequencer: JoinHandle<()>,
    /// Threads that end when it is dropped.
    _keeps: (Preparing, Keeping, index::Writer),
    control: Control,
    failures: Receiver<Failure>,
    authenticator: Arc<Authenticator>,
    metrics: Arc<Metrics>,
    http: Option<Http>,
    callbacks: Option<Callbacks>,
    /// Ends after the sequencer, which hands calls to it.
    _notify: Notify,
    /// Keys of session tickets, if they are in the data directory.
    _renewing: Option<Renewing>,
}

/// The one shard of today.
const SHARD: ShardId = ShardId(0);

impl Server {
    /// Recovers the journal, binds, and serves.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(mut options: Options) -> Result<Self, StartError> {
        let storage = Arc::new(FileStorage::open(options.data.join("journal"))?);
        startup::warn_of_directory(&options.data);
        if options.transport.reset_key.is_none() {
            let path = options.data.join("reset.key");
            let key = tls::reset_key(&path).map_err(|source| StorageError::Io { path, source })?;
            options.transport.reset_key = Some(key);
        }
        let path = options.data.join("ticket.keys");
        let tickets =
            Tickets::open(&path, options.clock.clone()).map_err(|source| StorageError::Io { path, source })?;
        options.tls = tls::with_tickets(&options.tls, tickets.clone());
        let renewing = Renewing::start(tickets).map_err(StartError::Thread)?;
        let server = Self::start_on(options, storage)?;
        Ok(Self { _renewing: Some(renewing), ..server })
    }

    /// As [`Server::start`], on storage of the caller's: for tests that make it fail.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_on(options: Options, storage: Arc<dyn Storage>) -> Result<Self, StartError> {
        let metrics = Metrics::new(options.clock.clone());
        let http = options.http.map(|listen| start_http(listen, &metrics)).transpose()?;
        let index = Arc::new(options.open_index());
        let (Store { shard, opened, .. }, keeps) = open_store(&options, storage.clone(), &index)?;
        let endpoints = bind(&options, shard.last_time())?;
        let (address, edges) = (endpoints[0].local_address(), endpoints.len());
        let bodies = start_readers(&opened.reader)?;
        let (ring_writer, ring) = ring(RING_BATCHES_MAX, RING_BYTES_MAX);
        let (submit, queues) = submissions();
        let (notify, callbacks) = start_outlets(&options, (&submit, &metrics))?;
        let authenticator = Arc::new(Authenticator::new(options.token_keys));
        let control = Control::new(edges, Duration::from_millis(options.drain_ms));
        let (failed, failures) = bounded(edges + 1);
        let shared = Shared {
            incarnation: opened.journal.incarnation(),
            start: opened.journal.head(),
            idle_timeout_ms: options.transport.idle_timeout_ms,
            clock: options.clock.clone(),
            authenticator: authenticator.clone(),
            submit: submit.clone(),
            ring: ring.clone(),
            index: index.clone(),
            bodies: bodies.clone(),
            policies: options.dings.clone(),
        };
        let (mailboxes, parts) = shared.edges(endpoints);
        let watched = Watched {
            bodies: Arc::downgrade(&bodies),
            storage: Arc::downgrade(&storage),
            uncovered: Arc::downgrade(keeps.1.uncovered()),
            index: Arc::downgrade(&index),
        };
        let parts_of_sequencer = sequencer::Parts {
            shard,
            journal: opened.journal,
            ring: ring_writer,
            index,
            clock: options.clock,
            queues,
            edges: mailboxes.clone(),
            outlets: Box::new(notify.calls()),
            policies: options.dings,
        };
        let running = Running::new(&metrics, (&submit, &mailboxes, ring), watched);
        let sequencer = start_sequencer(parts_of_sequencer, running.sequencer.clone(), failed.clone())
            .map_err(StartError::Thread)?;
        let edges = start_edges((parts, options.limits), &running, &control, &failed).map_err(StartError::Thread)?;
        let edges = edges.into_iter().zip(mailboxes).collect();
        metrics.serve(running);
        let _keeps = keeps;
        Ok(Self {
            address,
            recovery: opened.report,
            submit,
            edges,
            sequencer,
            _keeps,
            control,
            failures,
            authenticator,
            metrics,
            http,
            callbacks,
            _notify: notify,
            _renewing: None,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What recovery found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Whose tokens are believed; its keys can be replaced.
    pub fn authenticator(&self) -> Arc<Authenticator> {
        self.authenticator.clone()
    }

    /// What an operator sees.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Where health, readiness and metrics are served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Http::address)
    }

    /// Where gateways call back.
    pub fn callbacks_address(&self) -> Option<SocketAddr> {
        self.callbacks.as_ref().map(Callbacks::address)
    }

    /// Something to wait on: yields when the broker has failed.
    pub fn failures(&self) -> Receiver<Failure> {
        self.failures.clone()
    }

    /// Accepts nothing more, finishes what was submitted, tells the sessions to come back, closes them and returns when
    /// all threads have ended.
    ///
    /// # Errors
    /// What failed on the way or before.
    pub fn stop(self) -> Result<(), Failure> {
        tracing::info!("draining: nothing more is accepted, sessions are told to come back");
        self.metrics.drain();
        self.control.stop();
        for (_, mailbox) in &self.edges {
            mailbox.waker.wake();
        }
        for (thread, _) in self.edges {
            join(thread);
        }
        self.submit.stop();
        join(self.sequencer);
        self.failures.try_recv().map_or(Ok(()), Err)?;
        tracing::info!("stopped: what was submitted is in the journal");
        Ok(())
    }
}

fn start_http(address: SocketAddr, metrics: &Arc<Metrics>) -> Result<Http, StartError> {
    Http::start(address, metrics.clone()).map_err(|source| StartError::Http { address, source })
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("a broker thread that panics ends the process");
}

/// Starts a named thread whose panic ends the process.
pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            tracing::error!("a broker thread panicked: the process ends");
            std::process::abort();
        }
    })
}

fn start_sequencer<J: Journal + 'static>(
    parts: sequencer::Parts<J>,
    meter: Arc<SequencerMeter>,
    failed: Sender<Failure>,
) -> io::Result<JoinHandle<()>> {
    spawn("sequencer".into(), move || {
        if let Err(error) = Sequencer::new(parts).with_meter(meter).run() {
            tracing::error!(error = %Causes(&error), "the journal failed; nothing more is acknowledged");
            failed.try_send(error.into()).ok();
        }
    })
}

/// One endpoint for each edge. Warns of what the machine does not give them; the journal's last record is of this time.
fn bind(options: &Options, last: Timestamp) -> Result<Vec<Endpoint>, StartError> {
    let Options { listen: address, edges, tls, transport, clock, .. } = options;
    let cores = || thread::available_parallelism().map_or(1, usize::from).min(crate::config::EDGES_MAX);
    let edges = if *edges == 0 { cores() } else { *edges };
    let endpoints = Endpoint::bind_group(*address, edges, tls.clone(), transport.clone(), clock.clone())
        .map_err(|source| StartError::Listen { address: *address, source })?;
    startup::warn_of_machine(transport, &endpoints, last, clock.wall());
    Ok(endpoints)
}

fn start_readers(reader: &crate::journal::Reader) -> Result<Arc<ReaderPool>, StartError> {
    let pool = ReaderPool::start(reader, READER_THREADS_DEFAULT, READER_QUEUE_DEFAULT);
    pool.map(Arc::new).map_err(StartError::Thread)
}

/// Opens the data directory and starts the threads that look after it.
fn open_store(
    options: &Options,
    storage: Arc<dyn Storage>,
    index: &Arc<Index>,
) -> Result<(Store, (Preparing, Keeping, index::Writer)), StartError> {
    let Options { segment_bytes, free_bytes_min, .. } = *options;
    let journal = JournalOptions { segment_bytes, free_bytes_min, ..JournalOptions::new(SHARD) };
    let store = StoreOptions { journal, clock: options.clock.clone(), progress: options.progress.clone() };
    let store = store::open(storage.clone(), &store, &mut &**index)?;
    let opened = &store.opened;
    log_recovery(&opened.report);
    let preparing = opened.preparer.clone().start().map_err(StartError::Thread)?;
    let parts = keeper::Parts {
        shard: SHARD,
        storage,
        reader: opened.reader.clone(),
        upkeep: opened.upkeep.clone(),
        floor: index.clone(),
        clock: options.clock.clone(),
        options: options.keeper,
        uncovered_bytes: store.uncovered_bytes,
    };
    let keeping = keeper::start(parts).map_err(StartError::Thread)?;
    let writer = index::Writer::start(index, &store.opened.reader).map_err(StartError::Thread)?;
    Ok((store, (preparing, keeping, writer)))
}

/// The outlets of DINGs, and where their gateways call back.
fn start_outlets(
    options: &Options,
    (submit, metrics): (&Submit, &Arc<Metrics>),
) -> Result<(Notify, Option<Callbacks>), StartError> {
    let (outlets, clock) = (&options.outlets, &options.clock);
    let notify = Notify::start(outlets.clone(), Arc::new(submit.clone()), clock.clone(), Some(metrics));
    let notify = notify.map_err(StartError::Thread)?;
    let start = |address| {
        let meter = notify.callback_meter();
        let callbacks = Callbacks::start(address, outlets, Arc::new(submit.clone()), clock.clone(), meter);
        callbacks.map_err(|source| StartError::Callbacks { address, source })
    };
    let callbacks = options.callbacks.map(start).transpose()?;
    Ok((notify, callbacks))
}

fn log_recovery(report: &RecoveryReport) {
    if let Some(cut) = &report.cut {
        tracing::warn!(segment = %cut.segment, offset = cut.offset, bytes = cut.bytes, "cut a torn tail off the journal");
    }
    tracing::info!(head = %report.head, batches = report.replayed_batches, created = report.created, "journal opened");
}
