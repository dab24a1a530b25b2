//! A broker on loopback for end-to-end tests: in this process, or the real binary as a process of its own that can be killed.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carillon::clock::{Clock, SystemClock};
use carillon::dings::DingPolicies;
use carillon::dings::rates::Rates;
use carillon::edge::limits::Limits;
use carillon::material::{Grant, Material, SERVER_NAME, sign_token};
use carillon::server::{Options, Server};
use carillon::tls;
use carillon_client::{
    Client, Config, ConversationId, ErrorCode, Event, Events, Membership, Message, MessageKind, NewConversation,
    PublishError, Published, Reconnect, RequestError, Roots, To, UserId,
};
use carillon_transport::TransportConfig;
use tempfile::TempDir;

mod process;

pub use process::{Process, binary};

/// Edges of every broker here: sessions of one test land on both.
pub const EDGES: usize = 2;

/// The tenant of every token, unless a test says otherwise.
pub const TENANT: &str = "acme";

/// Longer than anything takes: who waits this long has found a bug. No test asserts a time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Directory, certificates and token key of a broker, and what its clients need to know.
pub struct Site {
    directory: TempDir,
    /// Certificates and keys.
    pub material: Material,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// A fresh one.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// A fresh one in this directory.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn within(root: &Path) -> Self {
        let directory = tempfile::tempdir_in(root).expect("a temporary directory");
        let material = Material::ensure(directory.path()).expect("certificates and keys");
        Self { directory, material }
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves the data directory where it is, for whoever looks into it.
    pub fn keep(self) -> PathBuf {
        self.directory.keep()
    }

    /// A broker that lives here, on any free port of loopback.
    ///
    /// # Panics
    /// If its certificates and keys are gone.
    pub fn options(&self) -> Options {
        let tls = tls::server_config(&self.material.certificate, &self.material.key).expect("a certificate");
        let token_keys = vec![tls::token_key(&self.material.token_public_key).expect("a token key")];
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Options { edges: EDGES, ..Options::new(self.data().to_owned(), loopback, tls, token_keys) }
    }

    /// A token of [`TENANT`] that lasts an hour.
    pub fn token(&self, handle: &str, role: &str) -> String {
        self.token_of(TENANT, handle, role)
    }

    /// A token of any tenant that lasts an hour.
    ///
    /// # Panics
    /// If it cannot be signed.
    pub fn token_of(&self, tenant: &str, handle: &str, role: &str) -> String {
        let expires_at_s = SystemClock.wall().0 / 1_000 + 3_600;
        sign_token(&self.material.token_key, &Grant { tenant, handle, role, expires_at_s }).expect("a token")
    }

    /// How a client of this user reaches a broker; it publishes, and comes back quickly.
    pub fn config(&self, address: SocketAddr, handle: &str) -> Config {
        self.config_with(address, self.token(handle, "user"))
    }

    /// As [`Site::config`], with a token of one's own.
    pub fn config_with(&self, address: SocketAddr, token: String) -> Config {
        Config::new(address.to_string(), token)
            .server_name(SERVER_NAME)
            .roots(Roots::File(self.material.ca.clone()))
            .new_producer()
            .reconnect(Reconnect { first_ms: 20, max_ms: 200, jitter: 0.5, attempts_max: None })
    }
}

/// A broker in this process.
pub struct Broker {
    /// Where it lives.
    pub site: Site,
    /// Where it listens; kept over restarts.
    pub address: SocketAddr,
    server: Option<Server>,
}

impl Default for Broker {
    fn default() -> Self {
        Self::start()
    }
}

impl Broker {
    /// A fresh broker.
    pub fn start() -> Self {
        Self::start_with(TransportConfig::server())
    }

    /// A fresh broker with transport limits of its own.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(transport: TransportConfig) -> Self {
        Self::start_within(transport, Limits::default())
    }

    /// A fresh broker with limits of its own, those of its edges too.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_within(transport: TransportConfig, limits: Limits) -> Self {
        let site = Site::new();
        let server = server(&site, ([127, 0, 0, 1], 0).into(), transport, limits);
        Self { site, address: server.address(), server: Some(server) }
    }

    /// What an operator sees.
    ///
    /// # Panics
    /// If it does not run.
    pub fn metrics(&self) -> String {
        self.server.as_ref().expect("it runs").metrics().to_text()
    }

    /// Stops it in good order, as SIGTERM does.
    ///
    /// # Panics
    /// If it is stopped, or fails on the way.
    pub async fn stop(&mut self) {
        let server = self.server.take().expect("it runs");
        let stopped = tokio::task::spawn_blocking(move || server.stop()).await;
        stopped.expect("stopping does not panic").expect("a broker stops without failure");
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// If it runs, or does not start.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "stop it first");
        self.server = Some(server(&self.site, self.address, TransportConfig::server(), Limits::default()));
    }

    /// A client of this user on a device of its own.
    ///
    /// # Panics
    /// If it cannot connect.
    pub async fn client(&self, handle: &str) -> (Client, Events) {
        connect(self.site.config(self.address, handle)).await
    }

    /// A client with the role `service`.
    pub async fn service(&self, handle: &str) -> (Client, Events) {
        connect(self.site.config_with(self.address, self.site.token(handle, "service"))).await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(server) = self.server.take()
            && let Err(failure) = server.stop()
            && !std::thread::panicking()
        {
            panic!("the broker failed: {failure}");
        }
    }
}

fn server(site: &Site, listen: SocketAddr, transport: TransportConfig, limits: Limits) -> Server {
    let dings = Arc::new(DingPolicies::at(Rates::TRIAL));
    let options = Options { listen, transport, limits, dings, ..site.options() };
    Server::start(options).expect("the broker starts")
}

/// Connects a client.
///
/// # Panics
/// If it cannot.
pub async fn connect(config: Config) -> (Client, Events) {
    patiently(Client::connect(config)).await.expect("the client connects")
}

/// Awaits what must come.
///
/// # Panics
/// If it has not come after [`PATIENCE`].
pub async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes at all")
}

/// The next message, whatever else happens before it; everything up to it is acknowledged.
///
/// # Panics
/// If the client ends first, or none comes.
pub async fn next_message(events: &mut Events) -> Message {
    patiently(async {
        loop {
            let event = events.next().await.expect("the client is open");
            events.ack(&event);
            match event {
                Event::Message(message) => return message,
                Event::Ended(error) => panic!("the client ended: {error}"),
                _ => {}
            }
        }
    })
    .await
}

/// The payloads of the next `count` messages, as text.
///
/// # Panics
/// As [`next_message`], or if one is not text.
pub async fn next_texts(events: &mut Events, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        let message = next_message(events).await;
        texts.push(String::from_utf8(message.payload.to_vec()).expect("text"));
    }
    texts
}

/// A group of this client and these users.
///
/// # Panics
/// If it is refused.
pub async fn group_of(owner: &Client, members: &[UserId]) -> ConversationId {
    let created = patiently(owner.create_conversation(NewConversation::group(members))).await;
    created.expect("a group is made").conversation
}

/// Publishes a text and waits until it is durable.
///
/// # Panics
/// If it is refused.
pub async fn say(client: &Client, to: impl Into<To>, text: impl Into<String>) -> Published {
    patiently(client.publish(to, MessageKind::TEXT, text.into())).await.expect("the message is accepted")
}

/// The next change of the user's memberships; messages before it are acknowledged and passed over.
///
/// # Panics
/// As [`next_message`].
pub async fn next_membership(events: &mut Events) -> Membership {
    next_that(events, |event| match event {
        Event::Membership(membership) => Some(membership.clone()),
        _ => None,
    })
    .await
}

/// Why a request was refused.
///
/// # Panics
/// If it was not.
pub fn refusal<T: Debug>(result: Result<T, RequestError>) -> ErrorCode {
    match result {
        Err(RequestError::Refused { code, .. }) => code,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// Why a message was refused.
///
/// # Panics
/// If it was not.
pub fn publish_refusal(result: Result<Published, PublishError>) -> ErrorCode {
    match result {
        Err(PublishError::Refused { code, .. }) => code,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// The next event that `pick` takes; what it passes over is acknowledged.
///
/// # Panics
/// If the client ends first, or none comes.
pub async fn next_that<T>(events: &mut Events, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    patiently(async {
        loop {
            let event = events.next().await.expect("the client is open");
            events.ack(&event);
            if let Some(picked) = pick(&event) {
                return picked;
            }
            if let Event::Ended(error) = event {
                panic!("the client ended: {error}");
            }
        }
    })
    .await
}
