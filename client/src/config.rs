//! What a client is told when it is made.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use carillon_protocol::ids::{DeviceId, ProducerId};
use carillon_protocol::limits::{CURSORS_MAX, TOKEN_BYTES_MAX};
use carillon_protocol::session::Cursor;

use crate::error::{Cause, ConnectError};
use crate::store::Store;
use crate::{limits, random};

/// How to reach the broker, as whom, and where to go on.
///
/// [`Config::new`] fills in what has a sensible default; the roots have none.
#[derive(Clone)]
pub struct Config {
    /// `host:port`. The name is resolved on each attempt, and its addresses are tried in turn.
    pub address: String,
    /// The name the broker's certificate must be for. Default: the host of the address.
    pub server_name: String,
    /// Who may vouch for the broker. Must be set.
    pub roots: Roots,
    /// Where tokens come from.
    pub token: TokenSource,
    /// This installation. Default: the store's, else a new random one each time, which is only right for one-off tools: a
    /// user has 16 devices at most.
    pub device: DeviceId,
    /// The numbering of publishes; `None` for a client that publishes nothing. Default: the store's, else `None`.
    pub producer: Option<ProducerId>,
    /// Where cursors and unsettled publishes are kept over restarts.
    pub store: Option<Arc<dyn Store>>,
    /// Where to go on reading.
    pub start: Start,
    /// Of the messages that were missed, only the newest so many of each conversation are wanted, at the first connection and
    /// at each later one; the rest is named by [`Event::Skipped`](crate::Event::Skipped). `Some(0)`: only what comes from now on.
    /// Default: `None`, all of them.
    pub newest: Option<u32>,
    /// Whether this device shows DINGs to a person: then the broker is told of each one that comes, and counts it as delivered. Default: true,
    /// as long as there is an [`Events`](crate::Events); for a tool that lets events go by: false.
    pub shows_dings: bool,
    /// When to try again.
    pub reconnect: Reconnect,
    /// Sizes of the queues.
    pub limits: Limits,
    /// What this client is, for the operator of the broker; at most 256 bytes, may be empty.
    pub client: String,
}

impl Config {
    /// A configuration for this broker with this token; set [`Config::roots`] next.
    pub fn new(address: impl Into<String>, token: impl Into<TokenSource>) -> Self {
        let address = address.into();
        let server_name = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let server_name = server_name.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self {
            address,
            server_name,
            roots: Roots::Pem(Vec::new()),
            token: token.into(),
            device: DeviceId(random::nonzero_u64()),
            producer: None,
            store: None,
            start: Start::FromStore,
            newest: None,
            shows_dings: true,
            reconnect: Reconnect::default(),
            limits: Limits::default(),
            client: concat!("carillon-client ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// Sets [`Config::roots`].
    #[must_use]
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Sets [`Config::server_name`].
    #[must_use]
    pub fn server_name(mut self, server_name: impl Into<String>) -> Self {
        self.server_name = server_name.into();
        self
    }

    /// Sets [`Config::device`].
    #[must_use]
    pub fn device(mut self, device: DeviceId) -> Self {
        self.device = device;
        self
    }

    /// Sets [`Config::producer`]: this client publishes, under this numbering.
    #[must_use]
    pub fn producer(mut self, producer: ProducerId) -> Self {
        self.producer = Some(producer);
        self
    }

    /// Sets [`Config::producer`] to a new random one: right for one-off tools, which retire it before they end.
    #[must_use]
    pub fn new_producer(self) -> Self {
        self.producer(ProducerId(random::nonzero_u64()))
    }

    /// Sets [`Config::store`], and takes device and producer from it if it keeps them; set those afterwards to
    /// override. The numbers in a store are of one producer: with another one, use another store.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        if let Some(identity) = store.identity() {
            self.device = identity.device;
            self.producer = Some(identity.producer);
        }
        self.store = Some(store);
        self
    }

    /// Sets [`Config::start`].
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets [`Config::newest`].
    #[must_use]
    pub fn newest(mut self, newest: u32) -> Self {
        self.newest = Some(newest);
        self
    }

    /// Sets [`Config::shows_dings`].
    #[must_use]
    pub fn shows_dings(mut self, shows_dings: bool) -> Self {
        self.shows_dings = shows_dings;
        self
    }

    /// Sets [`Config::reconnect`].
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Says what makes no sense.
    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        let bad = |text: &str| Err(ConnectError::Config(text.to_owned()));
        if !self.address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            return bad("the address must be `host:port`");
        }
        if self.server_name.is_empty() {
            return bad("the server name is empty");
        }
        if matches!(&self.token, TokenSource::Fixed(token) if token.is_empty() || token.len() > TOKEN_BYTES_MAX) {
            return bad("the token is empty or longer than 4 KiB");
        }
        if self.producer == Some(ProducerId(0)) || self.device == DeviceId(0) {
            return bad("0 is no device or producer");
        }
        if matches!(&self.start, Start::From(cursors) if cursors.len() > CURSORS_MAX) {
            return bad("there are more cursors than shards can be");
        }
        if self.client.len() > limits::CLIENT_BYTES_MAX {
            return bad("what the client is must be said in 256 bytes");
        }
        if !(0.0..=1.0).contains(&self.reconnect.jitter) || self.reconnect.first_ms > self.reconnect.max_ms {
            return bad("reconnect: jitter is 0 to 1 and first_ms at most max_ms");
        }
        let Limits { publishes_unsettled, requests_queued, events_queued, urgent_queued } = self.limits;
        if [publishes_unsettled, requests_queued, events_queued, urgent_queued].contains(&0) {
            return bad("limits: a queue without room");
        }
        if publishes_unsettled > limits::PUBLISHES_UNSETTLED_MAX {
            return bad("limits: publishes_unsettled is beyond the protocol's window of 1,024");
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Config");
        debug.field("address", &self.address).field("device", &self.device).field("producer", &self.producer);
        debug.field("start", &self.start).field("reconnect", &self.reconnect).field("limits", &self.limits);
        debug.finish_non_exhaustive()
    }
}

/// The certificates that may vouch for the broker.
#[derive(Clone, Debug)]
pub enum Roots {
    /// Certificates in PEM.
    Pem(Vec<u8>),
    /// A file of certificates in PEM, read once, by `connect`.
    File(PathBuf),
}

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, Cause>> + Send>>;

/// Where tokens come from.
#[derive(Clone)]
pub enum TokenSource {
    /// Always this one. When its time is over the client ends.
    Fixed(String),
    /// Asked before each connection, and before the last token's time is over, to refresh it.
    Callback(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl TokenSource {
    /// A source that asks `token` each time.
    pub fn from_fn<F, T>(token: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, Cause>> + Send + 'static,
    {
        Self::Callback(Arc::new(move || Box::pin(token())))
    }

    /// The token to use now.
    pub(crate) async fn token(&self) -> Result<String, Cause> {
        match self {
            Self::Fixed(token) => Ok(token.clone()),
            Self::Callback(ask) => ask().await,
        }
    }
}

impl From<String> for TokenSource {
    fn from(token: String) -> Self {
        Self::Fixed(token)
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self::Fixed(token.to_owned())
    }
}

impl fmt::Debug for TokenSource {
    // A token in a log is a token lost.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed(…)",
            Self::Callback(_) => "Callback(…)",
        })
    }
}

/// Where a client goes on reading when it connects for the first time; later it goes on where it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the store's cursors; from the beginning without a store, or without a cursor in it.
    #[default]
    FromStore,
    /// From the first message the user is entitled to.
    Beginning,
    /// At these, one a shard, which the application keeps together with what it made of the messages: then it sees each
    /// message once. Cursors from another history make `connect` fail with `CURSOR_INVALID`: what was made of it must go first.
    From(Vec<Cursor>),
}

/// When to try again after a failed attempt or a lost connection: after `first_ms`, then twice that, up to `max_ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconnect {
    /// The first delay, in milliseconds.
    pub first_ms: u64,
    /// The longest delay, in milliseconds.
    pub max_ms: u64,
    /// Which part of a delay is random, 0 to 1.
    pub jitter: f64,
    /// Give up after this many failed attempts in a row; `None`: never.
    pub attempts_max: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first_ms: 200, max_ms: 30_000, jitter: 0.5, attempts_max: None }
    }
}

impl Reconnect {
    /// The delay after this many failed attempts in a row.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the product of a delay and a fraction is a delay"
    )]
    pub(crate) fn delay_ms(&self, failed: u32, fraction: f64) -> u64 {
        let doubled = self.first_ms.saturating_mul(1u64 << failed.min(32)).min(self.max_ms);
        doubled - (doubled as f64 * self.jitter * fraction) as u64
    }
}

/// Sizes of the client's queues; each is bounded, and what a full one does is said beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Publishes without a result, 1 to 1,024. Full: `enqueue` waits.
    pub publishes_unsettled: usize,
    /// Requests waiting for one of the session's 16 places. Full: a request waits.
    pub requests_queued: usize,
    /// Messages and receipts that were not taken. Full: the inbox is not read on.
    pub events_queued: usize,
    /// DINGs that were not taken. Full: the urgent lane is not read on.
    pub urgent_queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            publishes_unsettled: limits::PUBLISHES_UNSETTLED_MAX,
            requests_queued: limits::REQUESTS_QUEUED_MAX,
            events_queued: limits::EVENTS_QUEUED_MAX,
            urgent_queued: limits::URGENT_QUEUED_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let reconnect = Reconnect { first_ms: 100, max_ms: 1_000, jitter: 0.5, attempts_max: None };
        let longest: Vec<_> = (0..6).map(|failed| reconnect.delay_ms(failed, 0.0)).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(reconnect.delay_ms(1, 1.0), 100, "jitter takes half away at most");
        assert_eq!(reconnect.delay_ms(u32::MAX, 0.0), 1_000);
    }

    #[test]
    fn the_server_name_is_the_host() {
        assert_eq!(Config::new("broker.example:4433", "t").server_name, "broker.example");
        assert_eq!(Config::new("[::1]:4433", "t").server_name, "::1");
    }

    #[test]
    fn nonsense_is_named() {
        let good = Config::new("localhost:1", "t");
        assert!(good.check().is_ok());
        for bad in [
            Config::new("localhost", "t"),
            Config::new("localhost:1", ""),
            good.clone().producer(ProducerId(0)),
            good.clone().reconnect(Reconnect { jitter: 2.0, ..Reconnect::default() }),
        ] {
            assert!(matches!(bad.check(), Err(ConnectError::Config(_))), "{bad:?}");
        }
    }
}
