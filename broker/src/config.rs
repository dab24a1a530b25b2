//! The configuration file: TOML, parsed and validated once. Inside the broker every value is valid.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Edge threads at most: what connection ids can name.
pub const EDGES_MAX: usize = 64;

/// What `carillon serve` needs to know. Every key is documented in `docs/OPERATIONS.md`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The data directory; made if it is missing. Relative to the file.
    pub data: PathBuf,
    /// Where devices connect, UDP.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Edge threads; 0: one a core.
    #[serde(default)]
    pub edges: usize,
    /// What the broker presents.
    pub tls: Tls,
    /// Whom it believes.
    pub tokens: Tokens,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain in PEM, the broker's own first. Relative to the file.
    pub certificate: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

/// `[tokens]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Ed25519 public keys in PEM; a token signed by any of them is believed.
    pub keys: Vec<PathBuf>,
}

/// Why there is no configuration. The text names file, place and remedy.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("{path}: {source}")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Line and column.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{path}: {key}: {what}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What to do.
        what: String,
    },
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], crate::DEFAULT_PORT))
}

impl Config {
    /// Reads and validates a file. Paths in it are relative to its directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        let value = |key, what: String| Err(ConfigError::Value { path: path.to_owned(), key, what });
        if config.tokens.keys.is_empty() {
            return value("tokens.keys", "name at least one public key, or nobody can connect".into());
        }
        if config.edges > EDGES_MAX {
            return value("edges", format!("{} is more than {EDGES_MAX}", config.edges));
        }
        let base = path.parent().unwrap_or(Path::new(""));
        let files = [&mut config.data, &mut config.tls.certificate, &mut config.tls.key];
        for file in files.into_iter().chain(&mut config.tokens.keys) {
            *file = base.join(&*file);
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "data = \"d\"\n[tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"\n[tokens]\nkeys = [\"t.pub\"]\n";

    fn check(text: &str, error: &str) {
        let message = Config::parse(text, Path::new("/etc/carillon/carillon.toml")).unwrap_err().to_string();
        assert!(message.contains(error), "{message:?} does not say {error:?}");
    }

    #[test]
    fn defaults_fill_in_and_paths_are_relative_to_the_file() {
        let config = Config::parse(GOOD, Path::new("/etc/carillon/carillon.toml")).unwrap();
        assert_eq!(config.data, Path::new("/etc/carillon/d"));
        assert_eq!(config.tls.key, Path::new("/k.pem"));
        assert_eq!(config.listen, default_listen());
        assert_eq!(config.edges, 0);
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        check(&GOOD.replace("data", "date"), "line 1");
        check(&GOOD.replace("[\"t.pub\"]", "[]"), "tokens.keys");
        check(&format!("edges = 65\n{GOOD}"), "65 is more than 64");
        check(&format!("listen = \"nowhere\"\n{GOOD}"), "line 1");
    }
}
