//! One outlet's task: takes calls in, keeps as many POSTs under way as it may, and gives results back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::call::{Call, CallKey, CallResult, Detail, Ledger, Outcome, Verb};
use super::held::{End, Held, Next, Now, Policy, Tried};
use super::limits::RESULTS_AGAIN_AFTER;
use super::post::{Gateway, TryError};
use super::{Handed, OutletOptions};
use crate::clock::Clock;
use crate::metrics::outlets::OutletMeter;
use crate::report::Causes;

/// Calls taken in at once.
const TURN_MAX: usize = 64;

/// A try that has ended.
struct Ended {
    of: (CallKey, Verb),
    began: Instant,
    tried: Tried,
    error: Option<TryError>,
}

/// See the module. Without a gateway it is the outlet of all that the configuration does not have.
pub(super) struct Outlet {
    name: String,
    gateway: Option<Arc<Gateway>>,
    concurrency: usize,
    held: Held,
    /// Decided, and not yet taken by the ledger. While there are some nothing is taken in and nothing tried, so that they are at most what
    /// one turn and the tries under way can decide.
    results: Vec<CallResult>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    meter: Arc<OutletMeter>,
    /// Whether the last try was taken: only changes are logged, not each failure of a gateway that is down.
    well: bool,
}

impl Outlet {
    pub(super) fn new(
        options: Option<OutletOptions>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        meter: Arc<OutletMeter>,
    ) -> Self {
        let (concurrency, policy) = match &options {
            Some(options) => (options.concurrency, options.policy()),
            None => (
                0,
                Policy {
                    tries_max: 0,
                    tries_for: Duration::ZERO,
                    calls_a_second: 1,
                    backoff_first: Duration::ZERO,
                    backoff_max: Duration::ZERO,
                },
            ),
        };
        // The middle of the range, should the system have no randomness: pauses need none to be right.
        let held = Held::new(policy, || getrandom::u32().unwrap_or(u32::MAX / 2));
        let gateway = options.map(|options| Arc::new(Gateway::new(options, clock.clone())));
        let (name, results) = (meter.name.clone(), Vec::new());
        Self { name, gateway, concurrency, held, results, ledger, clock, meter, well: true }
    }

    /// Runs until no more calls can come. Dropped, what is held is undecided.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Handed>) {
        let mut in_flight = FuturesUnordered::new();
        let mut came = Vec::with_capacity(TURN_MAX);
        loop {
            let (calls, wake) = self.poll_tries(in_flight.len());
            let gateway = &self.gateway;
            in_flight
                .extend(calls.into_iter().filter_map(|call| Some(try_one(gateway.clone()?, self.clock.clone(), call))));
            self.count(in_flight.len());
            let wait = wake.map(|at| at.saturating_duration_since(self.clock.now()));
            let wake = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = queue.recv_many(&mut came, TURN_MAX), if self.results.is_empty() => {
                    if taken == 0 {
                        return;
                    }
                    came.drain(..).for_each(|handed| self.take(handed));
                }
                Some(ended) = in_flight.next() => self.end(ended),
                () = wake => {}
            }
        }
    }

    fn now(&self) -> Now {
        Now { monotonic: self.clock.now(), wall: self.clock.wall() }
    }

    fn take(&mut self, handed: Handed) {
        let (call, room) = match handed {
            Handed::Call(call, room) => (call, room),
            Handed::CallOff(key, room) => {
                drop(room);
                return self.held.handle_call_off(key);
            }
        };
        if self.gateway.is_some() {
            return self.held.handle_call(call, Some(room), self.now());
        }
        let outcome = match call.verb {
            Verb::Start => Outcome::Failed,
            Verb::Cancel => Outcome::GaveUp,
        };
        let Call { outlet, key, verb, .. } = call;
        self.results.push(CallResult { outlet, key, verb, outcome, detail: Detail::NO_OUTLET });
        self.meter_of(outcome).add(1);
    }

    /// Offers the ledger what was decided. Rooms are free before: the sequencer may reserve again when it sees a result.
    fn give_results(&mut self) {
        let decided = self.held.take_results();
        for result in &decided {
            self.meter_of(result.outcome).add(1);
            if matches!(result.outcome, Outcome::Failed | Outcome::GaveUp) {
                tracing::info!(outlet = self.name, key = %result.key, why = %result.detail, "a call has failed");
            }
        }
        self.results.extend(decided);
        if !self.results.is_empty() {
            self.results = self.ledger.results(std::mem::take(&mut self.results)).err().unwrap_or_default();
        }
    }

    /// What may be tried beside so many tries under way, and when to look again. Offers the ledger what was decided.
    fn poll_tries(&mut self, under_way: usize) -> (Vec<Call>, Option<Instant>) {
        self.give_results();
        let (mut calls, mut wake) = (Vec::new(), None);
        while self.results.is_empty() && under_way + calls.len() < self.concurrency {
            match self.held.poll_next(self.now()) {
                Next::Try(call) => calls.push(*call),
                Next::At(at) => {
                    wake = Some(at);
                    break;
                }
                Next::Idle => break,
            }
        }
        // Looking may have found some that expired.
        self.give_results();
        if !self.results.is_empty() {
            wake = Some(self.clock.now() + RESULTS_AGAIN_AFTER);
        }
        (calls, wake)
    }

    fn end(&mut self, Ended { of, began, tried, error }: Ended) {
        let taken = match tried.end {
            End::Taken(..) => &self.meter.tries_taken,
            End::Refused(_) => &self.meter.tries_refused,
            End::Failed(..) => &self.meter.tries_failed,
        };
        taken.add(1);
        let took = self.clock.now().saturating_duration_since(began);
        self.meter.try_ms.observe(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        self.log(of.0, tried.end, error.as_ref());
        let now = self.now();
        self.held.handle_end(of, tried, now);
    }

    fn log(&mut self, key: CallKey, end: End, error: Option<&TryError>) {
        let (well, why) = match end {
            End::Taken(..) => (true, None),
            End::Refused(detail) | End::Failed(detail, _) => (false, Some(detail)),
        };
        let cause = error.map(|error| Causes(error).to_string());
        let cause = cause.or_else(|| why.map(|why| why.to_string())).unwrap_or_default();
        tracing::debug!(outlet = self.name, %key, well, cause, "a call was tried");
        match (self.well, well) {
            (true, false) => tracing::warn!(outlet = self.name, %key, cause, "a gateway does not take calls"),
            (false, true) => tracing::info!(outlet = self.name, "a gateway takes calls again"),
            (true, true) | (false, false) => {}
        }
        self.well = well;
    }

    fn meter_of(&self, outcome: Outcome) -> &crate::metrics::meter::Counter {
        match outcome {
            Outcome::Accepted => &self.meter.accepted,
            Outcome::Delivered => &self.meter.delivered,
            Outcome::Answered => &self.meter.answered,
            Outcome::Failed => &self.meter.failed,
            Outcome::Done => &self.meter.cancelled,
            Outcome::GaveUp => &self.meter.cancel_gave_up,
        }
    }

    fn count(&self, in_flight: usize) {
        self.meter.in_flight.set(in_flight as u64);
        self.meter.held.set(self.held.len() as u64);
    }
}

async fn try_one(gateway: Arc<Gateway>, clock: Arc<dyn Clock>, call: Call) -> Ended {
    let began = clock.now();
    let (tried, error) = gateway.try_call(&call).await;
    Ended { of: (call.key, call.verb), began, tried, error }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Page, sms, start};
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn no_more_are_tried_than_may_be_under_way() {
        let options = OutletOptions { concurrency: 3, ..sms("http://127.0.0.1:1/") };
        let (clock, meter) = (Arc::new(SystemClock), OutletMeter::new("sms"));
        let mut outlet = Outlet::new(Some(options), Page::new().book, clock, meter);
        for user in 0..10 {
            outlet.held.handle_call(start(user), None, outlet.now());
        }
        for (under_way, more) in [(0, 3), (3, 0), (2, 1), (1, 2)] {
            assert_eq!(outlet.poll_tries(under_way).0.len(), more, "beside {under_way}");
        }
    }
}
