//! DING outlets: calls of the gateways through which text messages, telephones, mail and mobile push are reached.
//!
//! [`Notify`] is one thread with a small runtime, and on it one task for each outlet, which owns the outlet's calls from
//! the hand-over to the result. [`Callbacks`] is the endpoint, on a thread of its own, where gateways say later what became of a
//! call. Neither knows a DING's state: what is to be called comes from the shard through [`Calls`], what became of it goes back
//! through the [`Ledger`].
//!
//! Invariants:
//!
//! - **At least once under one key.** A call's key and body are the same over retries and restarts. What was not decided when
//!   the broker stopped has no result, and the shard hands it over again.
//! - **Bounded.** Room is reserved before the shard lets a call go ([`limits`]), and each outlet has its own: one that is slow or
//!   dead holds up no other.
//! - **No surprise addresses.** A gateway's name is resolved once a try, its addresses are judged ([`address`]), and the
//!   connection goes to one that was judged. No redirects, no proxies.

pub mod address;
mod body;
mod call;
mod callbacks;
mod held;
pub mod limits;
mod outlet;
mod pace;
mod post;
pub mod probe;
pub mod signature;
mod target;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::metrics::outlets::{CallbackMeter, NotifyMeter, OutletMeter};
use limits::{CALL_OFFS_MAX, CANCELS_MAX, LOOKUPS_MAX, OUTLETS_MAX, STARTS_MAX, STOP_WITHIN};
use outlet::Outlet;

pub use call::{
    Call, CallKey, CallResult, Detail, Full, KeyError, Ledger, NAMED, Outcome, OutletId, Report, Reported, Verb,
};
pub use callbacks::Callbacks;
pub use target::{Target, TargetError};

/// One outlet's gateway. Begin with [`OutletOptions::new`], and set what differs.
#[derive(Clone, Debug)]
pub struct OutletOptions {
    /// Its number.
    pub id: OutletId,
    /// Its name, in metrics, bodies and the path of callbacks.
    pub name: String,
    /// Where calls are POSTed.
    pub target: Target,
    /// What signs calls, and callbacks.
    pub secrets: signature::Secrets,
    /// Addresses that may be called beside public ones.
    pub allow: Vec<IpNet>,
    /// Whether `http://` may leave this machine.
    pub plain: bool,
    /// Whom to believe; an `https://` target needs it.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// POSTs under way at once.
    pub concurrency: usize,
    /// POSTs a second.
    pub calls_a_second: u32,
    /// Tries of one call.
    pub tries_max: u32,
    /// No try begins later than this after a call's first one in this process.
    pub tries_for: Duration,
    /// For a whole try.
    pub timeout: Duration,
    /// For the connection alone.
    pub connect_timeout: Duration,
    /// The first pause between tries.
    pub backoff_first: Duration,
    /// The longest.
    pub backoff_max: Duration,
}

impl OutletOptions {
    /// Everything else as it is by default: only public addresses, no TLS.
    pub fn new(id: OutletId, name: &str, target: Target, secrets: signature::Secrets) -> Self {
        Self {
            id,
            name: name.to_owned(),
            target,
            secrets,
            allow: Vec::new(),
            plain: false,
            tls: None,
            concurrency: limits::CONCURRENCY_DEFAULT,
            calls_a_second: limits::CALLS_A_SECOND_DEFAULT,
            tries_max: limits::TRIES_DEFAULT,
            tries_for: limits::TRIES_FOR_DEFAULT,
            timeout: limits::TIMEOUT_DEFAULT,
            connect_timeout: limits::CONNECT_TIMEOUT_DEFAULT,
            backoff_first: limits::BACKOFF_FIRST,
            backoff_max: limits::BACKOFF_MAX,
        }
    }

    fn policy(&self) -> held::Policy {
        let Self { tries_max, tries_for, calls_a_second, backoff_first, backoff_max, .. } = *self;
        held::Policy { tries_max, tries_for, calls_a_second, backoff_first, backoff_max }
    }
}

/// What is on its way to an outlet.
enum Handed {
    /// A call, with the room that is its own until it is decided.
    Call(Call, OwnedSemaphorePermit),
    /// A start that is moot, with room for the way alone.
    CallOff(CallKey, OwnedSemaphorePermit),
}

/// The way into one outlet.
struct Door {
    id: Option<OutletId>,
    starts: Arc<Semaphore>,
    cancels: Arc<Semaphore>,
    call_offs: Arc<Semaphore>,
    queue: mpsc::Sender<Handed>,
}

impl Door {
    fn new(id: Option<OutletId>) -> (Self, mpsc::Receiver<Handed>) {
        // Room for every permit there is, so that who has one never finds it full.
        let (queue, handed) = mpsc::channel(STARTS_MAX + CANCELS_MAX + CALL_OFFS_MAX);
        let room = |permits| Arc::new(Semaphore::new(permits));
        let (starts, cancels, call_offs) = (room(STARTS_MAX), room(CANCELS_MAX), room(CALL_OFFS_MAX));
        (Self { id, starts, cancels, call_offs, queue }, handed)
    }
}

/// The way into all outlets, for the shard's thread. Never waits.
#[derive(Clone)]
pub struct Calls {
    doors: Arc<[Door]>,
}

impl Calls {
    /// Reserves room for one call. A start that finds none stays in the shard's state, until results have come; so does a
    /// cancel, which has room of its own. An outlet that is not configured takes calls too, and fails them.
    pub fn try_reserve(&self, outlet: OutletId, verb: Verb) -> Option<Permit> {
        let door = self.door(outlet);
        let room = match verb {
            Verb::Start => &door.starts,
            Verb::Cancel => &door.cancels,
        };
        let room = room.clone().try_acquire_owned().ok()?;
        Some(Permit { queue: door.queue.clone(), outlet, verb, room })
    }

    /// Whether there is room for one more [`Calls::call_off`]. There is again as soon as the outlet has looked into its queue, which it
    /// does before it tries anything.
    pub fn has_room_to_call_off(&self, outlet: OutletId) -> bool {
        self.door(outlet).call_offs.available_permits() > 0
    }

    /// Tells the outlet that a start is moot: if it still holds it, it tries it no more, and fails it. Without room nothing happens.
    pub fn call_off(&self, outlet: OutletId, key: CallKey) {
        let door = self.door(outlet);
        if let Ok(room) = door.call_offs.clone().try_acquire_owned() {
            // As with a call: only an outlet that has stopped refuses.
            door.queue.try_send(Handed::CallOff(key, room)).ok();
        }
    }

    fn door(&self, outlet: OutletId) -> &Door {
        // The last one is for whom the configuration does not have.
        let nth = self.doors.iter().position(|door| door.id == Some(outlet)).unwrap_or(self.doors.len() - 1);
        &self.doors[nth]
    }

    /// The outlets of the configuration.
    pub fn outlets(&self) -> impl Iterator<Item = OutletId> {
        self.doors.iter().filter_map(|door| door.id)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.outlets()).finish()
    }
}

/// Room for one call; dropped, it is free again.
#[must_use = "room that is not used should be given back"]
pub struct Permit {
    queue: mpsc::Sender<Handed>,
    outlet: OutletId,
    verb: Verb,
    room: OwnedSemaphorePermit,
}

impl Permit {
    /// Hands the call over. Its result comes through the ledger, unless the broker stops before.
    ///
    /// # Panics
    /// When the room was reserved for another outlet or verb.
    pub fn send(self, call: Call) {
        assert_eq!((call.outlet, call.verb), (self.outlet, self.verb), "room is used for what it was reserved for");
        // Only an outlet that has stopped refuses: then the call is undecided, as after a crash.
        self.queue.try_send(Handed::Call(call, self.room)).ok();
    }
}

/// The outlets, at work until it is dropped.
pub struct Notify {
    calls: Calls,
    callbacks: Arc<CallbackMeter>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Notify {
    /// Starts the thread, whose panic ends the process. With metrics, what it counts is served and its turns are watched.
    ///
    /// # Errors
    /// The runtime or the thread cannot be started.
    ///
    /// # Panics
    /// When there are more than [`OUTLETS_MAX`] outlets, two of one number, or one with `https://` and without TLS.
    pub fn start(
        outlets: Vec<OutletOptions>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        metrics: Option<&Metrics>,
    ) -> io::Result<Self> {
        judge(&outlets);
        // The resolver's threads, so many an outlet: one whose name server hangs takes none of another's.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(outlets.len().max(1) * LOOKUPS_MAX)
            .build()?;
        let (mut doors, mut works, mut meters) = (Vec::new(), Vec::new(), Vec::new());
        for options in outlets.into_iter().map(Some).chain([None]) {
            let (door, handed) = Door::new(options.as_ref().map(|options| options.id));
            let meter = OutletMeter::new(options.as_ref().map_or("unknown", |options| options.name.as_str()));
            doors.push(door);
            meters.push(meter.clone());
            works.push(Outlet::new(options, ledger.clone(), clock.clone(), meter).run(handed));
        }
        let callbacks = Arc::new(CallbackMeter::default());
        let heartbeat = metrics.map(Metrics::heartbeat).unwrap_or_default();
        let meter = Arc::new(NotifyMeter { heartbeat, outlets: meters, callbacks: callbacks.clone() });
        if let Some(metrics) = metrics {
            metrics.watch_outlets(meter.clone());
        }
        let (stop, stopped) = oneshot::channel();
        let thread = crate::server::spawn("notify".into(), move || {
            runtime.block_on(work(works, stopped, clock, meter));
            runtime.shutdown_timeout(STOP_WITHIN);
        })?;
        Ok(Self { calls: Calls { doors: doors.into() }, callbacks, stop: Some(stop), thread: Some(thread) })
    }

    /// The way in.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Where [`Callbacks`] counts.
    pub fn callback_meter(&self) -> Arc<CallbackMeter> {
        self.callbacks.clone()
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notify").field(&self.calls).finish()
    }
}

impl Drop for Notify {
    /// POSTs under way are broken off: their calls stay undecided, and are handed over again after the next start.
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a broker thread that panics ends the process");
        }
    }
}

fn judge(outlets: &[OutletOptions]) {
    assert!(outlets.len() <= OUTLETS_MAX, "the configuration has at most {OUTLETS_MAX} outlets");
    for (nth, outlet) in outlets.iter().enumerate() {
        assert!(outlets[..nth].iter().all(|other| other.id != outlet.id), "outlet {:?} is there twice", outlet.id);
        assert!(!outlet.target.secure || outlet.tls.is_some(), "outlet {} has https:// and no TLS", outlet.name);
    }
}

/// Runs the outlets' tasks until it is told to stop.
async fn work(
    works: Vec<impl Future<Output = ()> + Send + 'static>,
    mut stopped: oneshot::Receiver<()>,
    clock: Arc<dyn Clock>,
    meter: Arc<NotifyMeter>,
) {
    let mut tasks: JoinSet<()> = works.into_iter().collect();
    let mut turns = interval(Duration::from_secs(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(ended) = tasks.join_next() => ended.expect("an outlet that panics ends the process"),
            _ = turns.tick() => meter.heartbeat.beat(clock.now()),
        }
    }
}

#[cfg(test)]
mod tests;
