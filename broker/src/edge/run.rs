//! The edge's thread: poll, take a turn, flush.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use carillon_transport::Endpoint;

use super::limits::TICK_MS;
use super::{Edge, Left};

/// An edge that stops waits this long at most until what was submitted is answered, and as long again for its connections to
/// close. A roll of the journal's segment takes 70 ms.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// One turn of draining lasts at most this.
const DRAIN_TURN: Duration = Duration::from_millis(10);

/// Clients come back after this, spread over as long again.
const RECONNECT_AFTER_MS: u32 = 1_000;

/// Tells an edge's thread to end. Wake the edge after it.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<AtomicBool>);

impl Control {
    /// Accept nothing more, answer what was submitted, close every session and return.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs an edge on its endpoint until it is told to stop.
///
/// # Errors
/// The endpoint's socket or poll failed.
pub fn run(mut edge: Edge, mut endpoint: Endpoint, control: &Control) -> io::Result<()> {
    let mut events = Vec::new();
    let mut left = Left::Nothing;
    while !control.0.load(Ordering::Acquire) {
        let timeout = match left {
            Left::Nothing => Duration::from_millis(TICK_MS),
            Left::Retry => Duration::from_millis(1),
            Left::Work => Duration::ZERO,
        };
        endpoint.poll(Some(timeout), &mut events)?;
        left = edge.turn(&mut endpoint, &mut events);
        endpoint.flush();
        edge.publish_transport(&endpoint);
    }
    endpoint.stop_accepting();
    edge.drain(&mut endpoint, RECONNECT_AFTER_MS);
    take_turns(&mut edge, &mut endpoint, |edge, _| edge.is_settled())?;
    edge.close_all(&mut endpoint);
    take_turns(&mut edge, &mut endpoint, |_, endpoint| endpoint.links_open() == 0)
}

/// Goes on until `done`, or for [`DRAIN_MAX`].
fn take_turns(edge: &mut Edge, endpoint: &mut Endpoint, done: impl Fn(&Edge, &Endpoint) -> bool) -> io::Result<()> {
    let mut events = Vec::new();
    let until = edge.instant() + DRAIN_MAX;
    while edge.instant() < until {
        endpoint.flush();
        if done(edge, endpoint) {
            break;
        }
        endpoint.poll(Some(DRAIN_TURN), &mut events)?;
        edge.turn(endpoint, &mut events);
    }
    endpoint.flush();
    Ok(())
}
