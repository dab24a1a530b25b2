//! Congestion control that lets a closing connection say so.
//!
//! quinn-proto counts a CONNECTION_CLOSE against the congestion window while data waits behind it (RFC 9000 asks for no such
//! thing), so that a peer which acknowledges nothing would never hear why it was let go. This is Cubic, whose window opens
//! when the connection is closed: the close is the last packet.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig};

/// A window beyond 4 GiB is not paced either.
const WINDOW_OPEN_BYTES: u64 = 1 << 40;

/// Makes the controllers of an endpoint's connections.
#[derive(Debug, Default)]
pub(crate) struct Factory {
    cubic: Arc<CubicConfig>,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Closable { inner: Cubic::new(self.cubic.clone(), now, current_mtu), closing: AtomicBool::new(false) })
    }
}

/// Lets the last packet of a connection go out, whatever is in flight. A controller of ours takes being asked for its metrics as
/// that wish: nobody else asks (quinn-proto's feature `qlog` would; it is off), and a reference to one tells nothing else that would reach it.
pub(crate) fn open_for_close(controller: &dyn Controller) {
    controller.metrics();
}

/// All in one allocation: a window is asked for with every packet, of a connection that has left the caches since the last one.
struct Closable {
    inner: Cubic,
    /// An atomic only because controllers may cross threads.
    closing: AtomicBool,
}

impl Controller for Closable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.closing.load(Ordering::Relaxed) { WINDOW_OPEN_BYTES } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.closing.store(true, Ordering::Relaxed);
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let closing = AtomicBool::new(self.closing.load(Ordering::Relaxed));
        Box::new(Self { inner: self.inner.clone(), closing })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
