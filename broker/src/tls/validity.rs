//! What a certificate says of itself that an operator needs to be warned of, and that TLS does not tell.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Seconds since the Unix epoch when a certificate ends (RFC 5280 section 4.1.2.5); `None` if it cannot be parsed.
pub(super) fn ends_at_s(certificate: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Whether a certificate says that it may sign others (RFC 5280 section 4.2.1.9). Clients refuse a broker that presents one.
pub(super) fn is_authority(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.is_ca())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (year, seconds) in [(2031, 1_924_992_000), (2075, 3_313_526_400)] {
            let bytes = certificate(|params| params.not_after = rcgen::date_time_ymd(year, 1, 1));
            assert_eq!(ends_at_s(&bytes), Some(seconds));
            for cut in 0..bytes.len() {
                assert_eq!(ends_at_s(&bytes[..cut]), None, "cut after {cut} bytes");
            }
        }
    }

    #[test]
    fn an_authority_is_told_from_a_broker() {
        let authority = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(is_authority(&certificate(authority)));
        assert!(!is_authority(&certificate(|params| params.is_ca = IsCa::ExplicitNoCa)));
        assert!(!is_authority(&certificate(|_| ())));
        assert!(!is_authority(b"no certificate"));
    }
}
