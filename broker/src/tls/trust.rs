//! Whom the broker believes where it is the client: gateways of outlets.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{TlsError, provider, read};
use crate::report::Causes;

/// TLS 1.3 that believes the authorities of a PEM file, and no others, or without one those of the system.
///
/// # Errors
/// [`TlsError`] names the file.
///
/// # Panics
/// Never: the provider speaks TLS 1.3.
pub fn trusting(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = ca.map_or_else(of_system, of_file)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let unfit = |why: String| TlsError::Pem { path: path.to_owned(), expected: "certificates of authorities", why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
        let certificate = certificate.map_err(|error| unfit(error.to_string()))?;
        roots.add(certificate).map_err(|error| unfit(error.to_string()))?;
    }
    if roots.is_empty() { Err(unfit("there is none".into())) } else { Ok(roots) }
}

fn of_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(error = %Causes(error), "some of the system's certificates of authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, unusable) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, unusable, "the system's authorities are believed");
    if roots.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::material::Material;

    #[test]
    fn a_file_without_an_authority_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let material = Material::ensure(directory.path()).unwrap();
        assert!(trusting(Some(&material.ca)).is_ok());
        let check = |path: &Path, says: &str| {
            let error = trusting(Some(path)).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()) && error.contains(says), "{error}");
        };
        check(&material.key, "there is none");
        check(Path::new("/nowhere/ca.pem"), "/nowhere/ca.pem");
    }
}
