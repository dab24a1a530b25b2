//! Session tickets of many devices, and how many handshakes were whole ones all the same.
//!
//! rustls keeps a few tickets a server, enough for one client. Here thousands of devices are one process: each takes the oldest ticket that
//! nobody has taken, so that each is used once, as a device's own would be.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue, VerifierBuilderError, WebPkiServerVerifier,
};
use rustls::{DigitallySignedStruct, NamedGroup, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::failure::Failure;
use crate::limits::TICKETS_MAX;
use crate::tls;

/// Handshakes that take a ticket where there is one.
pub(crate) struct Resuming {
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) tickets: Arc<Tickets>,
    verifier: Arc<CountingVerifier>,
}

impl Resuming {
    /// With the authorities of this file.
    pub(crate) fn new(ca: &Path) -> Result<Self, Failure> {
        let unfit = |error: VerifierBuilderError| Failure::Usage(format!("{}: {error}", ca.display()));
        let roots = Arc::new(tls::roots(ca)?);
        let inner =
            WebPkiServerVerifier::builder_with_provider(roots, Arc::new(tls::provider())).build().map_err(unfit)?;
        let verifier = Arc::new(CountingVerifier { inner, verified: AtomicU64::new(0) });
        let tickets = Arc::new(Tickets::default());
        Ok(Self { tls: tls::resuming_config(ca, verifier.clone(), tickets.clone())?, tickets, verifier })
    }

    /// Whole handshakes so far.
    pub(crate) fn whole(&self) -> u64 {
        self.verifier.verified.load(Ordering::Relaxed)
    }
}

/// See the module. Of one server, whatever its name.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    kept: Mutex<VecDeque<Tls13ClientSessionValue>>,
    /// While they are collected nobody takes one.
    are_given: AtomicBool,
}

impl Tickets {
    /// From now on handshakes take one.
    pub(crate) fn give(&self) {
        self.are_given.store(true, Ordering::Relaxed);
    }

    /// How many nobody has taken yet.
    pub(crate) fn count(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= TICKETS_MAX {
            kept.pop_front();
        }
        kept.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let are_given = self.are_given.load(Ordering::Relaxed);
        are_given.then(|| self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop_front()).flatten()
    }
}

/// Verifies as rustls does, and counts: a resumed handshake has no certificate.
#[derive(Debug)]
struct CountingVerifier {
    inner: Arc<WebPkiServerVerifier>,
    verified: AtomicU64,
}

impl ServerCertVerifier for CountingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verified.fetch_add(1, Ordering::Relaxed);
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
