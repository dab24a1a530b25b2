//! Certificates and keys: what the broker presents, which tokens it believes, and the secret behind stateless resets.

mod tickets;
mod trust;
mod validity;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use carillon_protocol::session::ALPN;
use jsonwebtoken::DecodingKey;
use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

pub(crate) use tickets::Renewing;
pub use tickets::Tickets;
pub use trust::trusting;

/// Why certificates or keys could not be used. Nothing was started.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{path}: expected {expected} in PEM: {why}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The certificate is one of an authority: clients refuse a broker that presents it (RFC 5280 section 4.2.1.9).
    #[error(
        "{0} is a certificate of an authority (CA:TRUE), which clients refuse of a broker; give one that it signed"
    )]
    Authority(PathBuf),
    /// The system trusts nobody, or does not say whom.
    #[error("this system has no certificates of authorities: install its ca-certificates, or name a file (`ca`)")]
    NoAuthorities,
    /// Certificate and key do not go together, or the key's kind is not supported.
    #[error("certificate {certificate} cannot be used with key {key}: {source}; both must be of one issue")]
    Unfit {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// The certificate chain and key that new connections are shown; replaced while the broker serves.
pub struct Presented(ArcSwap<CertifiedKey>);

impl Presented {
    /// Reads a chain, the broker's own certificate first, and its key; they must belong together.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(certificate, key)?))))
    }

    /// Reads them again. New connections see them; those that are open live on.
    ///
    /// # Errors
    /// As [`Presented::load`]; what was presented before still is.
    pub fn replace(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        self.0.store(Arc::new(certified(certificate, key)?));
        Ok(())
    }

    /// The broker's own certificate, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.0.load().cert.first().map(|certificate| certificate.to_vec()).unwrap_or_default()
    }

    /// When the broker's own certificate ends, in seconds since the Unix epoch, if it says so in a way we can read.
    pub fn ends_at_s(&self) -> Option<i64> {
        validity::ends_at_s(self.0.load().end_entity_cert().ok()?)
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("ends_at_s", &self.ends_at_s()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Presented {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let pem = |path: &Path, expected, why: String| TlsError::Pem { path: path.to_owned(), expected, why };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(certificate, "a certificate chain", error.to_string()))?;
    if chain.is_empty() {
        return Err(pem(certificate, "a certificate chain", "there is none".into()));
    }
    if validity::is_authority(&chain[0]) {
        return Err(TlsError::Authority(certificate.to_owned()));
    }
    let private =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| pem(key, "a private key", error.to_string()))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|source| TlsError::Unfit {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

fn provider() -> CryptoProvider {
    let mut provider = carillon_transport::with_slim_header_keys(rustls::crypto::aws_lc_rs::default_provider());
    // AES-128 first, whatever the client prefers less: SHA-384 of the AES-256 suite was 9 % of a connection storm's CPU.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// TLS 1.3 with this certificate chain and key, as [`server_config_of`].
///
/// # Errors
/// [`TlsError`] names the file.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    Ok(server_config_of(Presented::load(certificate, key)?))
}

/// TLS 1.3 with what is presented at the time, ALPN `carillon/1`, no early data.
///
/// # Panics
/// Never: the provider speaks TLS 1.3.
pub fn server_config_of(presented: Arc<Presented>) -> Arc<rustls::ServerConfig> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(presented);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true;
    // Nothing may be replayed: no early data. Tickets come with keys that outlive a restart: `with_tickets`.
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// As this configuration, with one ticket for each connection to come back with.
pub fn with_tickets(config: &rustls::ServerConfig, tickets: Arc<Tickets>) -> Arc<rustls::ServerConfig> {
    let mut config = config.clone();
    config.ticketer = tickets;
    config.send_tls13_tickets = 1;
    Arc::new(config)
}

/// An Ed25519 public key in PEM that signs tokens.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn token_key(path: &Path) -> Result<DecodingKey, TlsError> {
    DecodingKey::from_ed_pem(&read(path)?).map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        expected: "an Ed25519 public key",
        why: error.to_string(),
    })
}

/// Bytes of the secret of [`reset_key`].
const RESET_KEY_BYTES: usize = 64;

/// The secret behind stateless resets, made if it is not there. It outlives the process, so that a broker that was killed
/// can tell its old peers at once that their connections are gone; without it they wait for their idle timeout.
///
/// # Errors
/// The file cannot be read, written, or holds something else.
pub fn reset_key(path: &Path) -> io::Result<[u8; RESET_KEY_BYTES]> {
    match fs::read(path) {
        Ok(bytes) => bytes.try_into().map_err(|_| io::Error::other("expected 64 random bytes: remove the file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_reset_key(path),
        Err(error) => Err(error),
    }
}

fn make_reset_key(path: &Path) -> io::Result<[u8; RESET_KEY_BYTES]> {
    let mut key = [0; RESET_KEY_BYTES];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    write_secret(path, &key)?;
    Ok(key)
}

/// Writes what only the broker may read. Renamed into place, so that a crash leaves all of it or nothing.
fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_added_extension("new");
    // What a crash left behind may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_reset_key_is_made_once_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reset.key");
        let key = reset_key(&path).unwrap();
        assert_eq!(reset_key(&path).unwrap(), key);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, b"short").unwrap();
        assert!(reset_key(&path).is_err());
        fs::remove_file(&path).unwrap();
        assert_ne!(reset_key(&path).unwrap(), key);
    }
}
