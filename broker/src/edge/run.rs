//! The edge's thread: poll, take a turn, flush.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use carillon_transport::Endpoint;

use super::{Edge, Left};

/// One turn of draining lasts at most this.
const DRAIN_TURN: Duration = Duration::from_millis(10);

/// For the closes to leave, beyond the time to drain.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Tells the threads of the edges to end. Wake them after it.
#[derive(Clone, Debug)]
pub struct Control(Arc<Ending>);

#[derive(Debug)]
struct Ending {
    stopping: AtomicBool,
    /// Edges that wait for no answer any more.
    settled: AtomicUsize,
    edges: usize,
    drain: Duration,
}

impl Control {
    /// For so many edges, which have this long to let what their sessions are owed leave.
    pub fn new(edges: usize, drain: Duration) -> Self {
        let (stopping, settled) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self(Arc::new(Ending { stopping, settled, edges, drain }))
    }

    /// Accept nothing more, answer what was submitted, deliver it, close every session and return.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    /// An edge has settled, or given up.
    fn settle(&self) {
        self.0.settled.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether no edge waits for an answer: nothing more is committed because of a session.
    fn is_settled(&self) -> bool {
        self.0.settled.load(Ordering::Acquire) >= self.0.edges
    }
}

/// Runs an edge on its endpoint until it is told to stop.
///
/// # Errors
/// The endpoint's socket or poll failed.
pub fn run(mut edge: Edge, mut endpoint: Endpoint, control: &Control) -> io::Result<()> {
    let mut events = Vec::new();
    let mut left = Left::Nothing;
    while !control.is_stopping() {
        let timeout = match left {
            Left::Nothing => edge.sleep(),
            Left::Retry => Duration::from_millis(1),
            Left::Work => Duration::ZERO,
        };
        endpoint.poll(Some(timeout), &mut events)?;
        left = edge.turn(&mut endpoint, &mut events);
        endpoint.flush();
        edge.publish_transport(&endpoint);
    }
    drain(&mut edge, &mut endpoint, control)
}

/// Lets the sessions go. Each edge waits for the others' publishes too: what was acknowledged to their authors while the
/// broker served is delivered while it still does.
fn drain(edge: &mut Edge, endpoint: &mut Endpoint, control: &Control) -> io::Result<()> {
    let until = edge.instant() + control.0.drain;
    endpoint.stop_accepting();
    edge.drain(endpoint);
    take_turns(edge, endpoint, until, |edge, _| edge.is_settled())?;
    control.settle();
    take_turns(edge, endpoint, until, |_, _| control.is_settled())?;
    edge.stop_catching_up();
    take_turns(edge, endpoint, until, |edge, endpoint| {
        edge.close_delivered(endpoint);
        edge.sessions() == 0
    })?;
    edge.close_all(endpoint);
    let until = edge.instant() + CLOSE_MAX;
    take_turns(edge, endpoint, until, |_, endpoint| endpoint.links_open() == 0)
}

/// Goes on until `done`, or until this time.
fn take_turns(
    edge: &mut Edge,
    endpoint: &mut Endpoint,
    until: Instant,
    mut done: impl FnMut(&mut Edge, &mut Endpoint) -> bool,
) -> io::Result<()> {
    let mut events = Vec::new();
    while !done(edge, endpoint) && edge.instant() < until {
        endpoint.flush();
        endpoint.poll(Some(DRAIN_TURN), &mut events)?;
        edge.turn(endpoint, &mut events);
        edge.publish_transport(endpoint);
    }
    endpoint.flush();
    Ok(())
}
