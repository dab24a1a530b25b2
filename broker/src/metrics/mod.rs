//! What an operator sees of a running broker: whether it is well, whether it serves, and its numbers.
//!
//! The busy threads count in blocks of their own ([`meter`]); everything else is looked up when somebody asks, on the
//! thread of who asks. The library is prometheus-client, because its `Collector` reads at that moment: nothing of it runs
//! on an edge or the sequencer, and there is no registry that they would share.

mod collect;
pub mod meter;
pub mod outlets;
mod process;

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::clock::Clock;
use crate::index::Index;
use crate::journal::{ReaderPool, Room, Storage};
use crate::keeper::Uncovered;
use crate::sequencer::ring::Ring;
use crate::sequencer::{Mailbox, Submit};
use crate::tls::Presented;
use meter::{EdgeMeter, Heartbeat, SequencerMeter};
use outlets::NotifyMeter;

/// A thread that has not taken its turn for so long is stuck. Each takes one a second; a commit on a disk in trouble may
/// take a few.
pub const STUCK_AFTER_MS: u64 = 15_000;

/// How far a broker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It reads its journal.
    Recovering = 0,
    /// It accepts and serves sessions.
    Serving = 1,
    /// It accepts nothing more and lets its sessions go.
    Draining = 2,
}

impl Phase {
    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// What is there once a broker has recovered. It keeps neither files nor threads from being given back.
pub struct Running {
    /// By edge.
    pub edges: Vec<Arc<EdgeMeter>>,
    /// The sequencer's.
    pub sequencer: Arc<SequencerMeter>,
    /// Into the sequencer.
    pub submit: Submit,
    /// Out of it, by edge.
    pub mailboxes: Vec<Mailbox>,
    /// Committed batches.
    pub ring: Arc<Ring>,
    /// What lies on disk.
    pub watched: Watched,
}

/// What lies on disk, which looking at it does not keep open.
#[derive(Clone)]
pub struct Watched {
    /// Bodies from disk.
    pub bodies: Weak<ReaderPool>,
    /// The journal's files.
    pub storage: Weak<dyn Storage>,
    /// How much of it no snapshot covers.
    pub uncovered: Weak<Uncovered>,
    /// Where messages lie in it.
    pub index: Weak<Index>,
}

impl Running {
    /// Fresh meters beside what there is to look at.
    pub fn new(
        metrics: &Metrics,
        (submit, mailboxes, ring): (&Submit, &[Mailbox], Arc<Ring>),
        watched: Watched,
    ) -> Self {
        let edge = |_| Arc::new(EdgeMeter { heartbeat: metrics.heartbeat(), ..EdgeMeter::default() });
        Self {
            edges: mailboxes.iter().map(edge).collect(),
            sequencer: Arc::new(SequencerMeter::new(metrics.heartbeat())),
            submit: submit.clone(),
            mailboxes: mailboxes.to_vec(),
            ring,
            watched,
        }
    }
}

/// See the module.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    origin: Instant,
    started_at_ms: u64,
    phase: AtomicU8,
    running: OnceLock<Running>,
    certificate: OnceLock<Arc<Presented>>,
    notify: OnceLock<Arc<NotifyMeter>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Of a broker that is starting now.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let (origin, started_at_ms) = (clock.now(), clock.wall().0);
        let (running, certificate, notify) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Arc::new(Self { clock, origin, started_at_ms, phase: AtomicU8::new(0), running, certificate, notify })
    }

    /// For a thread that is about to start.
    pub fn heartbeat(&self) -> Heartbeat {
        let heartbeat = Heartbeat::from(self.origin);
        heartbeat.beat(self.clock.now());
        heartbeat
    }

    /// The broker has recovered, and its threads run.
    pub fn serve(&self, running: Running) {
        // A broker starts once.
        self.running.set(running).ok();
        self.set_phase(Phase::Serving);
    }

    /// The broker lets its sessions go.
    pub fn drain(&self) {
        self.set_phase(Phase::Draining);
    }

    /// Whose end is told.
    pub fn watch_certificate(&self, presented: Arc<Presented>) {
        self.certificate.set(presented).ok();
    }

    /// The outlets, whose counts are served and whose thread is watched.
    pub fn watch_outlets(&self, meter: Arc<NotifyMeter>) {
        self.notify.set(meter).ok();
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// How far the broker has come.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Recovering,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// The threads that are stuck; none of a broker that is well. While it drains its threads end, and are not missed.
    pub fn stuck(&self) -> Vec<String> {
        let Some(running) = self.running.get().filter(|_| self.phase() == Phase::Serving) else { return Vec::new() };
        let now = self.clock.now();
        let edges = running.edges.iter().enumerate().map(|(nth, edge)| (format!("edge-{nth}"), &edge.heartbeat));
        let notify = self.notify.get().map(|meter| ("notify".to_owned(), &meter.heartbeat));
        let all = edges.chain([("sequencer".to_owned(), &running.sequencer.heartbeat)]).chain(notify);
        let stuck = all.filter(|(_, heartbeat)| heartbeat.age_ms(now) > STUCK_AFTER_MS);
        stuck.map(|(name, heartbeat)| format!("{name}: no turn for {} s", heartbeat.age_ms(now) / 1_000)).collect()
    }

    /// How much room the journal has, as far as that is known.
    pub fn room(&self) -> Room {
        self.running.get().map_or(Room::Enough, |running| running.sequencer.room())
    }

    /// Everything, in the text format of OpenMetrics 1.0, which Prometheus reads.
    ///
    /// # Panics
    /// Never: a string takes all that is written to it.
    pub fn to_text(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes all");
        text
    }
}

#[cfg(test)]
mod tests;
