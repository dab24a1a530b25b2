//! What a supervisor is told (systemd's sd_notify): ready, reloading, stopping, and that the broker is alive. Without one,
//! nothing happens. sd-notify speaks the protocol, one datagram each, and depends on nothing but libc.

use std::sync::Arc;
use std::time::Duration;

use carillon::journal::Room;
use carillon::metrics::Metrics;
use carillon::report::Causes;
use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(error = %Causes(&error), "the supervisor could not be told");
    }
}

/// The broker recovers.
pub(crate) fn starting() {
    tell(&[NotifyState::Status("reading the journal")]);
}

/// It serves, from now on or again.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It reads certificate and token keys; [`ready`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(error = %Causes(&error), "the supervisor could not be told"),
    }
}

/// It lets its sessions go.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells the supervisor's watchdog that all threads take their turns, while they do.
pub(crate) struct Watchdog {
    every: Option<Interval>,
    metrics: Arc<Metrics>,
}

impl Watchdog {
    /// As often as the supervisor wants it, twice.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let every = sd_notify::watchdog_enabled().map(|timeout| {
            let mut every = interval((timeout / 2).max(Duration::from_millis(1)));
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        });
        Self { every, metrics }
    }

    /// Waits for the next time to tell, and tells. Cancel safe: what was not told comes the next time.
    pub(crate) async fn feed(&mut self) {
        let Some(every) = &mut self.every else { return std::future::pending().await };
        every.tick().await;
        let stuck = self.metrics.stuck();
        if stuck.is_empty() {
            let status = match self.metrics.room() {
                Room::Enough => "serving",
                Room::Reserve | Room::Last => "serving, but the disk has no room: publishes are refused",
            };
            tell(&[NotifyState::Watchdog, NotifyState::Status(status)]);
        } else {
            tracing::error!(stuck = stuck.join(", "), "threads take no turns; the watchdog is not fed");
        }
    }
}
