//! A broker that was killed tells its old clients at once when it is back, and they come back by their tickets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use carillon_client::protocol::control::UserLookup;
use carillon_protocol::Frame;
use carillon_tests::harness::{Process, Site};
use carillon_tests::raw::{Dial, Session, hello};
use carillon_transport::CloseReason;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Counts the certificates that are shown: a handshake that resumes an earlier one has none.
#[derive(Debug)]
struct Counting {
    inner: Arc<WebPkiServerVerifier>,
    shown: AtomicUsize,
}

impl Counting {
    fn new(site: &Site) -> Arc<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&site.material.ca).expect("the authority's certificate") {
            roots.add(certificate.expect("a certificate in PEM")).expect("a root certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier");
        Arc::new(Self { inner, shown: AtomicUsize::new(0) })
    }

    fn shown(&self) -> usize {
        self.shown.load(Ordering::SeqCst)
    }
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.shown.fetch_add(1, Ordering::SeqCst);
        self.inner.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn ask(session: &mut Session) {
    let lookup = UserLookup { request: 1, users: vec![session.welcome.user] };
    assert!(matches!(session.request(&lookup), Ok(Frame::UserHandles(_))));
}

#[test]
fn a_killed_broker_resets_its_old_connections_and_resumes_their_tickets() {
    let mut broker = Process::start();
    let verifier = Counting::new(&broker.site);
    let mut dial = Dial::new(&broker.site, broker.address);
    dial.tls.dangerous().set_certificate_verifier(verifier.clone());
    let hello = hello(&broker.site, "ann", 1);
    let mut session = dial.attach_when_served(&hello);
    let mut shown = verifier.shown();
    assert!(shown > 0);
    // What answers has sent its ticket before.
    ask(&mut session);
    for _ in 0..3 {
        broker.kill();
        broker.start_again();
        // Somebody else finds out that it is back.
        drop(Dial::new(&broker.site, broker.address).attach_when_served(&self::hello(&broker.site, "bob", 2)));
        session.raw.send(session.control, &UserLookup { request: 2, users: vec![session.welcome.user] });
        assert_eq!(session.raw.ended(), CloseReason::Reset, "the first packet is answered by a reset");
        session = dial.attach(&hello).expect("a session");
        assert_eq!(verifier.shown(), shown, "it was resumed");
        ask(&mut session);
    }
    // Without its keys a broker takes the same tickets for nothing, and shows its certificate.
    broker.kill();
    std::fs::remove_file(broker.site.data().join("ticket.keys")).expect("the keys of tickets");
    broker.start_again();
    session = dial.attach_when_served(&hello);
    shown += 1;
    assert!(verifier.shown() >= shown);
    ask(&mut session);
}
