//! Whom the sessions trust.

use std::path::Path;
use std::sync::Arc;

use carillon_protocol::session::ALPN;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientSessionStore, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, NamedGroup, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::failure::Failure;

/// TLS 1.3, ALPN `carillon/1`, and the authorities of this file alone. Nothing is resumed: every session pays a whole
/// handshake, as devices after a restart do.
pub(crate) fn client_config(ca: &Path) -> Result<Arc<rustls::ClientConfig>, Failure> {
    config(ca, provider(), vec![ALPN.to_vec()]).map(Arc::new)
}

/// The same with tickets: this verifies, and keeps what sessions are resumed by.
pub(crate) fn resuming_config(
    ca: &Path,
    verifier: Arc<dyn ServerCertVerifier>,
    tickets: Arc<dyn ClientSessionStore>,
) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let mut config = config(ca, provider(), vec![ALPN.to_vec()])?;
    config.dangerous().set_certificate_verifier(verifier);
    config.resumption = Resumption::store(tickets);
    Ok(Arc::new(config))
}

/// What sessions of Carillon encrypt with.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = carillon_transport::with_slim_header_keys(rustls::crypto::aws_lc_rs::default_provider());
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// The same for peers: the cipher suite and the key exchange that Carillon's sessions come to, and no other, so that nobody
/// chooses something dearer.
pub(crate) fn peer_config(ca: &Path) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    config(ca, provider, Vec::new()).map(Arc::new)
}

fn config(ca: &Path, provider: CryptoProvider, alpn: Vec<Vec<u8>>) -> Result<rustls::ClientConfig, Failure> {
    let roots = roots(ca)?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Failure::Usage(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The authorities of a file.
pub(crate) fn roots(ca: &Path) -> Result<RootCertStore, Failure> {
    let pem = std::fs::read(ca).map_err(|source| Failure::Read { path: ca.to_owned(), source })?;
    let unfit = |why: String| Failure::Usage(format!("{}: {why}", ca.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unfit("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}
