//! Gateways behind TLS.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::material::Material;
use crate::tls::trusting;

/// A gateway of this material that takes everything.
async fn start(material: &Material) -> u16 {
    let chain = CertificateDer::pem_file_iter(&material.certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&material.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            stream.read_exact(&mut [0; 256]).await.unwrap();
            stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn a_gateway_is_believed_if_the_named_authority_vouches_for_its_name() {
    let (ours, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let material = Material::ensure(ours.path()).unwrap();
    let other = Material::ensure(others.path()).unwrap();
    let port = start(&material).await;
    let check = async |host: &str, ca: &Material, expected: (Outcome, Detail)| {
        let tls = Some(trusting(Some(&ca.ca)).unwrap());
        let allow = vec!["127.0.0.0/8".parse().unwrap()];
        let options = OutletOptions { tls, allow, ..sms(&format!("https://{host}:{port}/ding")) };
        assert_eq!(World::new(vec![options]).call().await, expected, "{host}");
    };
    check("localhost", &material, (Outcome::Accepted, Detail(202))).await;
    check("127.0.0.1", &material, (Outcome::Accepted, Detail(202))).await;
    check("localhost", &other, (Outcome::Failed, Detail::TLS)).await;
    // The certificate is not for this address.
    check("127.0.0.2", &material, (Outcome::Failed, Detail::CONNECT)).await;
}

#[tokio::test]
async fn an_outlet_with_https_believes_nobody_whom_it_was_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let port = start(&Material::ensure(directory.path()).unwrap()).await;
    // Those of the system, where it has some; the gateway's own authority is not among them.
    if let Ok(system) = trusting(None) {
        let options = OutletOptions { tls: Some(system), ..sms(&format!("https://127.0.0.1:{port}/")) };
        assert_eq!(World::new(vec![options]).call().await, (Outcome::Failed, Detail::TLS));
    }
}
