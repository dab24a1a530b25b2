//! Time and waking: what an endpoint takes from outside its own thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

/// Where an endpoint reads the time. It must never go back.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Instant;
}

/// The endpoint's thread is working: it will look at its queues before it sleeps.
const AWAKE: u8 = 0;
/// The endpoint's thread sleeps, or is about to: it must be woken by a system call.
const ASLEEP: u8 = 1;
/// Somebody called `wake` since the thread last woke: its next `poll` does not sleep.
const NOTIFIED: u8 = 2;

/// Ends the sleep of an endpoint's thread, so that it looks at its caller's queues.
///
/// First put work on the queue, then wake. Cheap while the thread is awake: no system call is made.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

struct Shared {
    state: AtomicU8,
    signal: mio::Waker,
}

impl Waker {
    pub(crate) fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Self> {
        let signal = mio::Waker::new(registry, token)?;
        Ok(Self { shared: Arc::new(Shared { state: AtomicU8::new(AWAKE), signal }) })
    }

    /// Makes the endpoint's present or next [`poll`](crate::Endpoint::poll) return at once.
    pub fn wake(&self) {
        // All transitions are read-modify-writes of one variable, so they have one order. Either
        // this swap comes before `prepare_sleep`, which then finds NOTIFIED and does not sleep, or
        // after it, finds ASLEEP and signals. The release half publishes the caller's queue entry to
        // the acquire half of `note_awake`; a plain load in place of the swap could be served before
        // the entry is visible and lose the wake-up.
        if self.shared.state.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP {
            // The only error of an eventfd is a closed descriptor, which we hold open.
            if let Err(error) = self.shared.signal.wake() {
                tracing::error!(%error, "an endpoint could not be woken");
            }
        }
    }

    /// Whether the thread may sleep: nobody called `wake` since `note_awake`.
    pub(crate) fn prepare_sleep(&self) -> bool {
        self.shared.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The thread is awake and will look at its queues after this.
    pub(crate) fn note_awake(&self) {
        self.shared.state.swap(AWAKE, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_while_awake_keeps_the_next_sleep_away() {
        let poll = mio::Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), mio::Token(0)).unwrap();
        assert!(waker.prepare_sleep());
        waker.note_awake();
        waker.clone().wake();
        assert!(!waker.prepare_sleep());
        waker.note_awake();
        assert!(waker.prepare_sleep());
    }
}
