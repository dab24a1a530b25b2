//! The configuration file: TOML, parsed and validated once. Inside the broker every value is valid.
//!
//! A value is judged where it is read, so that each error names its line. What only the machine can tell (does the file
//! exist, is the directory writable) is asked by [`check()`].
//!
//! Every key stands in `docs/OPERATIONS.md` and in `packaging/carillon.toml`; tests compare both with this module.

mod check;
mod ding;
mod keep;
mod outlets;
mod receipts;
mod value;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use carillon_protocol::kinds::Outlet as OutletId;
use carillon_transport::INCOMING_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::dings::DingPolicies;
use crate::edge::limits::{Limits, PINNED_BYTES_MAX, PINNED_BYTES_MIN};

pub use check::{Finding, Verdict, check};
pub use ding::{Ding, Tenant};
pub use keep::{Journal, Retention, Snapshots};
pub use outlets::{Callbacks, Outlet, OutletError};
pub use receipts::Receipts;
pub use value::log_filter;

/// Edge threads at most: what connection ids can name.
pub const EDGES_MAX: usize = 64;

/// Where a configuration lies, unless told otherwise.
pub const PATH_DEFAULT: &str = "/etc/carillon/carillon.toml";

/// An example with every key, its default and what it is for.
pub const EXAMPLE: &str = include_str!("../../packaging/carillon.toml");

/// A drain that lasts longer is no drain: systemd and Kubernetes end a process after 30 to 90 seconds.
const DRAIN_MS_MAX: u64 = 600_000;

/// What `carillon serve` needs to know. Every key is documented in `docs/OPERATIONS.md`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data directory; made if it is missing. Relative to the file.
    #[serde(deserialize_with = "value::path")]
    pub data: PathBuf,
    /// Where devices connect, UDP.
    #[serde(default = "listen_default", deserialize_with = "value::address")]
    pub listen: SocketAddr,
    /// Edge threads; 0: one a core.
    #[serde(default, deserialize_with = "value::between::<0, { EDGES_MAX as u64 }, _, _>")]
    pub edges: usize,
    /// How long a broker that stops lets its sessions' data leave.
    #[serde(default = "drain_ms_default", deserialize_with = "value::between::<0, DRAIN_MS_MAX, _, _>")]
    pub drain_ms: u64,
    /// What the broker presents.
    pub tls: Tls,
    /// Whom it believes.
    pub tokens: Tokens,
    /// When certificates and keys are read again.
    #[serde(default)]
    pub renewal: Renewal,
    /// Sockets and connections.
    #[serde(default)]
    pub network: Network,
    /// The journal's files.
    #[serde(default)]
    pub journal: Journal,
    /// When snapshots are taken.
    #[serde(default)]
    pub snapshots: Snapshots,
    /// What may leave the journal.
    #[serde(default)]
    pub retention: Retention,
    /// What authors are told live of who reads.
    #[serde(default)]
    pub receipts: Receipts,
    /// Where messages lie.
    #[serde(default)]
    pub index: Index,
    /// What tenants allow of DINGs.
    #[serde(default)]
    pub ding: Ding,
    /// What some of them allow instead, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tenant: BTreeMap<String, Tenant>,
    /// Health, readiness and metrics.
    #[serde(default)]
    pub http: Http,
    /// Where gateways call back.
    #[serde(default)]
    pub callbacks: Callbacks,
    /// The gateways of DINGs, by name.
    #[serde(default, deserialize_with = "outlets::named", skip_serializing_if = "BTreeMap::is_empty")]
    pub outlet: BTreeMap<String, Outlet>,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain in PEM, the broker's own first. Relative to the file.
    #[serde(deserialize_with = "value::path")]
    pub certificate: PathBuf,
    /// Its private key in PEM.
    #[serde(deserialize_with = "value::path")]
    pub key: PathBuf,
}

/// `[tokens]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Ed25519 public keys in PEM; a token signed by any of them is believed.
    #[serde(deserialize_with = "value::paths")]
    pub keys: Vec<PathBuf>,
}

/// `[renewal]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renewal {
    /// How often the files of `[tls]` and `[tokens]` are looked at, in seconds; 0: only on SIGHUP.
    #[serde(deserialize_with = "value::between::<0, 86_400, _, _>")]
    pub check_every_s: u64,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { check_every_s: 60 }
    }
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Silence after which a session is given up.
    #[serde(deserialize_with = "value::between::<5_000, 600_000, _, _>")]
    pub idle_timeout_ms: u32,
    /// Connections of one edge, handshakes included.
    #[serde(deserialize_with = "value::between::<1, 10_000_000, _, _>")]
    pub connections_max: u32,
    /// Asked of the kernel for each edge's socket.
    #[serde(deserialize_with = "value::between::<65_536, 1_073_741_824, _, _>")]
    pub receive_buffer_bytes: u32,
    /// Asked of the kernel for each edge's socket.
    #[serde(deserialize_with = "value::between::<65_536, 1_073_741_824, _, _>")]
    pub send_buffer_bytes: u32,
    /// Handshakes under way on one edge from which on a peer must first prove its address. At [`INCOMING_MAX`] none has to:
    /// further attempts are dropped anyway.
    #[serde(deserialize_with = "value::between::<0, { INCOMING_MAX as u64 }, _, _>")]
    pub retry_from: u32,
    /// What the unacknowledged data of one edge's sessions may keep alive.
    #[serde(deserialize_with = "value::between::<{ PINNED_BYTES_MIN as u64 }, { 1 << 40 }, _, _>")]
    pub pinned_bytes_max: usize,
}

impl Default for Network {
    fn default() -> Self {
        let transport = carillon_transport::TransportConfig::server();
        Self {
            idle_timeout_ms: transport.idle_timeout_ms,
            connections_max: transport.connections_max,
            receive_buffer_bytes: transport.socket_receive_buffer_bytes,
            send_buffer_bytes: transport.socket_send_buffer_bytes,
            retry_from: transport.incoming_retry_from,
            pinned_bytes_max: PINNED_BYTES_MAX,
        }
    }
}

impl Network {
    /// The transport's limits with these.
    pub fn transport(&self) -> carillon_transport::TransportConfig {
        carillon_transport::TransportConfig {
            idle_timeout_ms: self.idle_timeout_ms,
            connections_max: self.connections_max,
            socket_receive_buffer_bytes: self.receive_buffer_bytes,
            socket_send_buffer_bytes: self.send_buffer_bytes,
            incoming_retry_from: self.retry_from,
            ..carillon_transport::TransportConfig::server()
        }
    }

    /// The edges' limits with these.
    pub fn limits(&self) -> Limits {
        Limits { pinned_bytes_max: self.pinned_bytes_max, ..Limits::default() }
    }
}

/// `[index]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Index {
    /// What the index may hold in memory.
    #[serde(deserialize_with = "value::between::<{ crate::index::MEMORY_BYTES_MIN }, { 1 << 40 }, _, _>")]
    pub memory_bytes_max: u64,
}

impl Default for Index {
    fn default() -> Self {
        Self { memory_bytes_max: crate::index::MEMORY_BYTES_DEFAULT }
    }
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where `/healthz`, `/readyz` and `/metrics` are served, TCP; `None`, an empty text in the file: nowhere.
    #[serde(deserialize_with = "value::address_or_none", serialize_with = "value::write_address_or_none")]
    pub listen: Option<SocketAddr>,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], crate::DEFAULT_HTTP_PORT))) }
    }
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Which lines are written, in the syntax of `tracing-subscriber`: `info`, `carillon=debug,warn`…
    #[serde(deserialize_with = "value::log_level")]
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no configuration. The text names file, place and remedy.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}; `carillon config example` prints one to begin with")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value makes no sense.
    #[error("{path}, line {line}, column {column}: {what}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// From 1; of a missing key the line of its table.
        line: usize,
        /// From 1, in bytes.
        column: usize,
        /// What is wrong, and what is expected there.
        what: String,
    },
}

fn listen_default() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::DEFAULT_PORT))
}

fn drain_ms_default() -> u64 {
    crate::server::DRAIN_MS_DEFAULT
}

impl Config {
    /// Where the edges cut their work.
    pub fn limits(&self) -> Limits {
        self.receipts.limits(self.network.limits())
    }

    /// When snapshots are taken, and what is kept.
    pub fn keeper(&self) -> crate::keeper::KeeperOptions {
        keep::keeper(&self.snapshots, &self.retention)
    }

    /// What tenants allow of DINGs.
    ///
    /// # Panics
    /// If a name of an outlet was changed after the file was read.
    pub fn ding_policies(&self) -> DingPolicies {
        self.dings().unwrap_or_else(|(_, what)| panic!("a configuration that was read names its outlets: {what}"))
    }

    fn dings(&self) -> Result<DingPolicies, ding::Fault> {
        let names = self.outlet_names();
        let tenant = |(name, tenant): (&String, &Tenant)| Ok((name.clone(), tenant.ding.policy(&names)?));
        let tenants = self.tenant.iter().map(tenant).collect::<Result<_, ding::Fault>>()?;
        Ok(DingPolicies { default: self.ding.policy(&names)?, tenants })
    }

    /// What plans may name.
    fn outlet_names(&self) -> ding::OutletNames {
        let own = self.outlet.iter().map(|(name, outlet)| (name.clone(), OutletId(outlet.id)));
        own.chain([("app".to_owned(), OutletId::APP)]).collect()
    }

    /// The outlets, with what their files hold. Warns of secrets that everybody can read.
    ///
    /// # Errors
    /// [`OutletError`] names the file.
    pub fn outlets(&self) -> Result<Vec<crate::notify::OutletOptions>, OutletError> {
        for finding in self
            .outlet
            .values()
            .flat_map(|outlet| &outlet.secret_files)
            .filter_map(|path| check::secret("outlet", path))
        {
            tracing::warn!("{}", finding.text);
        }
        self.outlet.iter().map(|(name, outlet)| outlet.open(name)).collect()
    }

    /// Reads and validates a file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Validates what a file of this path holds.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let fault = |at: usize, what: &str| {
            let before = &text[..text.floor_char_boundary(at)];
            let line = before.matches('\n').count() + 1;
            let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
            ConfigError::Parse { path: path.to_owned(), line, column, what: what.replace('\n', ", ") }
        };
        let mut config: Self =
            toml::from_str(text).map_err(|error| fault(error.span().map_or(0, |span| span.start), error.message()))?;
        config.dings().map_err(|(at, what)| fault(at, &what))?;
        let base = path.parent().unwrap_or(Path::new(""));
        let files = [&mut config.data, &mut config.tls.certificate, &mut config.tls.key];
        for file in files.into_iter().chain(&mut config.tokens.keys) {
            *file = base.join(&*file);
        }
        config.outlet.values_mut().for_each(|outlet| outlet.set_base(base));
        Ok(config)
    }

    /// All of it as TOML, defaults filled in.
    ///
    /// # Panics
    /// Never: every value has a form in TOML, but for paths that are no UTF-8, which no file can have named.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration that was read can be written")
    }
}

#[cfg(test)]
mod tests;
