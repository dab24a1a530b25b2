//! What outlets and callbacks count, and the names under which it is served.

use std::fmt;
use std::sync::Arc;

use prometheus_client::metrics::MetricType;

use super::collect::{Writer, float};
use super::meter::{Counter, Heartbeat, Histogram};

/// Upper bounds of a try's time in milliseconds: from a gateway next door to the longest timeout.
const TRY_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 60_000];

/// Counters of one outlet; its thread writes them.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is described where it is served, below")]
pub struct OutletMeter {
    pub name: String,
    pub accepted: Counter,
    pub delivered: Counter,
    pub answered: Counter,
    pub failed: Counter,
    pub cancelled: Counter,
    pub cancel_gave_up: Counter,
    pub tries_taken: Counter,
    pub tries_refused: Counter,
    pub tries_failed: Counter,
    pub in_flight: Counter,
    pub held: Counter,
    pub try_ms: Histogram<11>,
}

impl OutletMeter {
    /// Nothing was counted yet.
    pub fn new(name: &str) -> Arc<Self> {
        let zero = Counter::default;
        Arc::new(Self {
            name: name.to_owned(),
            accepted: zero(),
            delivered: zero(),
            answered: zero(),
            failed: zero(),
            cancelled: zero(),
            cancel_gave_up: zero(),
            tries_taken: zero(),
            tries_refused: zero(),
            tries_failed: zero(),
            in_flight: zero(),
            held: zero(),
            try_ms: Histogram::new(&TRY_MS),
        })
    }
}

/// Counters of the callback endpoint; its thread writes them.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is described where it is served, below")]
pub struct CallbackMeter {
    pub done: Counter,
    pub unsigned: Counter,
    pub malformed: Counter,
    pub unknown: Counter,
    pub over: Counter,
    pub busy: Counter,
}

/// All of them.
#[derive(Debug, Default)]
pub struct NotifyMeter {
    /// Of the outlets' thread.
    pub heartbeat: Heartbeat,
    /// By outlet.
    pub outlets: Vec<Arc<OutletMeter>>,
    /// Of the endpoint, all zero without one.
    pub callbacks: Arc<CallbackMeter>,
}

type Of<T> = fn(&T) -> &Counter;

const CALLS: [(&str, Of<OutletMeter>); 6] = [
    ("accepted", |m| &m.accepted),
    ("delivered", |m| &m.delivered),
    ("answered", |m| &m.answered),
    ("failed", |m| &m.failed),
    ("cancelled", |m| &m.cancelled),
    ("cancel_gave_up", |m| &m.cancel_gave_up),
];

const TRIES: [(&str, Of<OutletMeter>); 3] =
    [("taken", |m| &m.tries_taken), ("refused", |m| &m.tries_refused), ("failed", |m| &m.tries_failed)];

const CALLBACKS: [(&str, Of<CallbackMeter>); 6] = [
    ("done", |m| &m.done),
    ("unsigned", |m| &m.unsigned),
    ("malformed", |m| &m.malformed),
    ("unknown", |m| &m.unknown),
    ("over", |m| &m.over),
    ("busy", |m| &m.busy),
];

pub(super) fn encode(meter: &NotifyMeter, writer: &mut Writer<'_>) -> fmt::Result {
    let by = |label: &'static str, values: &'static [(&'static str, Of<OutletMeter>)]| {
        meter.outlets.iter().flat_map(move |outlet| {
            values.iter().map(move |(value, of)| {
                (vec![("outlet", outlet.name.clone()), (label, (*value).to_owned())], float(of(outlet).get()))
            })
        })
    };
    let each = |of: Of<OutletMeter>| {
        meter.outlets.iter().map(move |outlet| (vec![("outlet", outlet.name.clone())], float(of(outlet).get())))
    };
    let help = "Calls of gateways that are decided, by outcome";
    writer.write(("carillon_outlet_calls", help, MetricType::Counter), by("outcome", &CALLS))?;
    let help = "POSTs that have ended: taken by the gateway, refused for good, or failed and perhaps tried again";
    writer.write(("carillon_outlet_tries", help, MetricType::Counter), by("end", &TRIES))?;
    writer.write(("carillon_outlet_in_flight", "POSTs under way", MetricType::Gauge), each(|m| &m.in_flight))?;
    let help = "Calls that are not decided: waiting, under way or backing off";
    writer.write(("carillon_outlet_held", help, MetricType::Gauge), each(|m| &m.held))?;
    let times = meter.outlets.iter().map(|outlet| (vec![("outlet", outlet.name.clone())], &outlet.try_ms));
    writer.histograms("carillon_outlet_try_seconds", "Time of a POST, connection included", times, 1_000.0)?;
    let answers = CALLBACKS
        .iter()
        .map(|(answer, of)| (vec![("answer", (*answer).to_owned())], float(of(&meter.callbacks).get())));
    writer.write(("carillon_callbacks", "Callbacks of gateways, by answer", MetricType::Counter), answers)
}
